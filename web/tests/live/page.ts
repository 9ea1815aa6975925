/**
 * The node of a page of the console, against a real server: told what to do by lines of JSON, and telling all that it hears.
 *
 *     node page.ts '{"origin", "cookie"}'
 *     {"do": "open", "machine", "account"}     a terminal; its number is that of the openings before it
 *     {"do": "type", "id", "text"}   {"do": "again", "id"}   {"do": "close", "id"}
 *     {"do": "cut"}                            all relays are lost
 *     {"do": "told"}   {"do": "leave"}
 *
 * Page and Worker are the real ones, with a thread's border between them; the browser's part is Node's.
 */

import { createInterface } from "node:readline";
import { NodeClient, type TerminalHandle } from "../../src/node/client.ts";
import { environment, sockets, worker } from "./environment.ts";

const { origin, cookie } = JSON.parse(process.argv[2]!) as { origin: string; cookie: string };
const headers = { Cookie: cookie, Origin: origin, "Sec-Fetch-Site": "same-origin" };
const here = environment((path, { method, body }) =>
  fetch(`${origin}${path}`, {
    method,
    headers: body === undefined ? headers : { ...headers, "Content-Type": "application/json" },
    ...(body === undefined ? {} : { body }),
  }),
);

const say = (event: string, more: object = {}) =>
  process.stdout.write(`${JSON.stringify({ event, ...more })}\n`);
const client = new NodeClient({
  api: "/api/v1",
  worker: () => worker(here),
  page: { addEventListener: () => undefined, navigator: { sendBeacon: () => true } },
});
client.onNode((state) => say("node", state));

const handles: TerminalHandle[] = [];
const decoder = new TextDecoder();

function open(machine: number | string, account: string): void {
  const id = handles.length;
  const request = { machine, name: String(machine), account, columns: 80, rows: 24 };
  const handle = client.open(request, {
    step: (step) => say("step", { id, ...step }),
    banner: (text) => say("banner", { id, text }),
    check: (check) => say("check", { id, ...check }),
    hostKey: async (asked) => {
      say("hostKey", { id, ...asked });
      return "remember";
    },
    ask: async () => undefined,
    open: () => say("open", { id }),
    data: (bytes) => {
      say("data", { id, text: decoder.decode(bytes) });
      handle.ack(bytes.length);
    },
    link: (state) => say("link", { id, state }),
    end: (end) => say("end", { id, ...end }),
  });
  handles.push(handle);
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  const handle = handles[asked.id as number];
  if (asked.do === "open") open(asked.machine, asked.account);
  else if (asked.do === "type") handle!.write(new TextEncoder().encode(asked.text));
  else if (asked.do === "again") handle!.again();
  else if (asked.do === "close") handle!.close();
  else if (asked.do === "told") client.told();
  else if (asked.do === "leave") client.leave();
  else if (asked.do === "cut")
    for (const socket of sockets) if (socket.readyState === WebSocket.OPEN) socket.close();
}
process.exit(0);
