/** What a node needs of where it runs, in Node.js: its clock, its chance, and real WebSockets. */

import { MessageChannel } from "node:worker_threads";
import type { WorkerLike } from "../../src/node/client.ts";
import type { Environment, Socket } from "../../src/node/environment.ts";
import { Hub } from "../../src/node/hub.ts";
import { ciphers, primitives } from "../../src/node/webcrypto.ts";

/** All sockets that were opened, in their order. */
export const sockets: WebSocket[] = [];

/** One whose server is asked by ``fetch``. */
export function environment(
  fetch: Environment["fetch"],
  entropy: Environment["entropy"] = (size) => crypto.getRandomValues(new Uint8Array(size)),
): Environment {
  return {
    now: () => performance.now(),
    epoch: performance.timeOrigin,
    entropy,
    after: (milliseconds, call) => {
      const timer = setTimeout(call, milliseconds);
      return () => clearTimeout(timer);
    },
    socket: (url) => {
      const socket = new WebSocket(url, "derp");
      sockets.push(socket);
      return socket as unknown as Socket;
    },
    fetch,
    primitives: primitives(crypto.subtle as SubtleCrypto),
    ciphers: ciphers(crypto.subtle as SubtleCrypto),
  };
}

/** A Worker that is in this thread: what is handed over goes through a real channel, so that nobody uses it afterwards. */
export function worker(environment: Environment, port?: number): WorkerLike {
  const { port1: page, port2: inside } = new MessageChannel();
  const hub = new Hub(
    environment,
    (message, transfer = []) => inside.postMessage(message, transfer as never[]),
    port,
  );
  inside.on("message", (data) => hub.hear(data));
  return {
    postMessage: (message, transfer) => page.postMessage(message, transfer as never[]),
    addEventListener: (kind: string, listener: (event: never) => void) => {
      if (kind === "message") page.on("message", (data) => listener({ data } as never));
    },
    terminate: () => page.close(),
  };
}
