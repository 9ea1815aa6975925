/** The Worker: the node in a browser. Its private key is made here, and there is no message that could carry it. */

import { SleeplessClock } from "./clock.ts";
import type { Environment, Socket } from "./environment.ts";
import { Hub } from "./hub.ts";
import type { ToWorker } from "./messages.ts";
import { STEPS } from "./warm.ts";
import { ciphers, primitives } from "./webcrypto.ts";

/** What of a Worker's surroundings is used. */
interface Scope {
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
  postMessage(message: unknown, transfer: Transferable[]): void;
}

const scope = globalThis as unknown as Scope;
// Absent on a page without https, whatever its type says.
const subtle = globalThis.crypto.subtle as SubtleCrypto | undefined;
const clock = new SleeplessClock({ steady: () => performance.now(), wall: () => Date.now() });

const environment: Environment = {
  now: () => clock.now(),
  epoch: clock.epoch,
  entropy: (size) => crypto.getRandomValues(new Uint8Array(size)),
  after: (milliseconds, call) => {
    const timer = setTimeout(call, milliseconds);
    return () => clearTimeout(timer);
  },
  socket: (url) => new WebSocket(url, "derp") as unknown as Socket,
  fetch: (path, { method, body, keepalive }) =>
    fetch(path, {
      method,
      ...(body === undefined ? {} : { body, headers: { "Content-Type": "application/json" } }),
      keepalive: keepalive === true,
      credentials: "same-origin",
      cache: "no-store",
      // A page of somebody else is no answer of ours, wherever it was sent from.
      redirect: "error",
      referrerPolicy: "no-referrer",
    }),
  primitives: primitives(subtle),
  ciphers: ciphers(subtle),
};

const hub = new Hub(environment, (message, transfer = []) => scope.postMessage(message, transfer));
let cold = true;
scope.onmessage = ({ data }) => {
  hub.hear(data);
  if (data.kind !== "open" || !cold) return;
  cold = false;
  // By then the server has been asked.
  for (const step of STEPS) setTimeout(() => step(environment.entropy));
};
