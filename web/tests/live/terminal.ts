/**
 * Terminals and files of a tab's node on a real host, from Node.js: prints one line of JSON.
 *
 *     node terminal.ts FILE
 *
 * The page's side and the Worker's are the real ones; only the thread between them, the window and the server are not there.
 * FILE: {"private": the node's key, "tab": what the server would answer, "port", "account", "folder", "tries"}, where a try is
 * {"name", "keyFile", "passphrase", "answers"}.
 */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { type End, NodeClient, type TerminalEvents, type TerminalHandle } from "../../src/node/client.ts";
import { concat, fromHex } from "../../src/protocol/bytes.ts";
import { Dice } from "../support/deterministic.ts";
import { environment, sockets, worker } from "./environment.ts";

interface Try {
  readonly name: string;
  readonly keyFile?: string;
  readonly passphrase?: string;
  readonly answers?: string[];
}

const asked = JSON.parse(readFileSync(process.argv[2]!, "utf8"));
const own: Uint8Array = fromHex(asked.private);
let keys = 0;

const here = environment(
  async (path) => ({
    status: 200,
    json: async () => (path.endsWith("/targets") ? asked.tab.targets[0] : asked.tab),
  }),
  // The first that is asked for is the node's key, which is known to the server already.
  (size) => (keys++ === 0 ? own.slice() : crypto.getRandomValues(new Uint8Array(size))),
);

const client = new NodeClient({
  api: "/api/v1",
  worker: () => worker(here, asked.port),
  page: { addEventListener: () => undefined, navigator: { sendBeacon: () => true } },
});

interface Session {
  readonly handle: TerminalHandle;
  readonly opened: Promise<void>;
  readonly ended: Promise<End>;
  readonly parts: Uint8Array[];
  readonly banners: string[];
  readonly links: string[];
}

function open(one: Try): Session {
  const parts: Uint8Array[] = [];
  const banners: string[] = [];
  const links: string[] = [];
  let opened = () => {};
  let ended: (end: End) => void = () => {};
  const answers = [...(one.answers ?? [])];
  const events: TerminalEvents = {
    step: () => undefined,
    banner: (text) => banners.push(text),
    check: () => undefined,
    hostKey: async () => "refuse",
    ask: async (_title, _text, questions) => questions.map(() => answers.shift() ?? ""),
    open: () => opened(),
    data: (bytes) => {
      parts.push(bytes);
      handle.ack(bytes.length);
    },
    link: (state) => links.push(state),
    end: (end) => ended(end),
  };
  const session = {
    opened: new Promise<void>((resolve) => {
      opened = resolve;
    }),
    ended: new Promise<End>((resolve) => {
      ended = resolve;
    }),
  };
  const keyFile =
    one.keyFile === undefined
      ? {}
      : {
          keyFile: {
            bytes: new Uint8Array(readFileSync(one.keyFile)),
            ...(one.passphrase === undefined ? {} : { passphrase: one.passphrase }),
          },
        };
  const machine: number = asked.tab.targets[0].machine;
  const request = { machine, name: "host", account: asked.account, columns: 80, rows: 24, ...keyFile };
  const handle = client.open(request, events);
  return { handle, parts, banners, links, ...session };
}

const type = (session: Session, text: string) => session.handle.write(new TextEncoder().encode(text));
const printed = (session: Session) => new TextDecoder().decode(concat(...session.parts));
const until = async (holds: () => boolean) => {
  while (!holds()) await new Promise((wake) => setTimeout(wake, 5));
};

const said: Record<string, unknown> = {};
const tries: Record<string, unknown> = {};
for (const one of asked.tries as Try[]) {
  const session = open(one);
  const end = await Promise.race([session.opened, session.ended]);
  if (end === undefined) {
    type(session, "echo $((6*7)); exit 3\n");
    const { status } = await session.ended;
    tries[one.name] = [printed(session).includes("42"), status];
  } else {
    tries[one.name] = [end.failure?.kind, end.failure?.detail ?? end.failure?.message];
  }
}
said.tries = tries;

// A long output and a long input, while the host asks for new keys again and again.
const session = open(asked.tries[0]);
await session.opened;
session.handle.resize(101, 37);
type(session, "stty -echo; stty size; echo ready\n");
await until(() => /\r\nready/.test(printed(session)));
said.size = /37 101/.test(printed(session));
const before = session.parts.length;
type(session, `head -c ${asked.bulk} /dev/zero | tr '\\0' x; echo; echo done\n`);
await until(() => /done\r\n/.test(new TextDecoder().decode(concat(...session.parts.slice(-3)))));
const output = new TextDecoder().decode(concat(...session.parts.slice(before)));
said.bulk = (output.match(/x+/g) ?? []).reduce((most, run) => Math.max(most, run.length), 0);

const files = session.handle.files();
const content = new Dice(3).bytes(asked.bulk) as Uint8Array<ArrayBuffer>;
const path = `${asked.folder}/from-a-tab`;
const progress: number[] = [];
const begun = performance.now();
await files.upload(path, new Blob([content]), { progress: (bytes) => progress.push(bytes) });
const uploaded = performance.now();
const { size, stream } = await files.download(path);
const hash = createHash("sha256");
let got = 0;
for await (const piece of stream) {
  hash.update(piece);
  got += piece.length;
}
const downloaded = performance.now();
said.speed = [content.length / (uploaded - begun) / 1000, got / (downloaded - uploaded) / 1000];
said.same = hash.digest("hex") === createHash("sha256").update(content).digest("hex");
said.told = [size, progress.at(-1)];
await files.makeFolder(`${asked.folder}/folder`);
await files.rename(path, `${asked.folder}/folder/renamed`);
said.listed = (await files.list(`${asked.folder}/folder`)).map(({ name, size: bytes }) => [name, bytes]);
said.exclusive = await files
  .upload(`${asked.folder}/folder/renamed`, new Blob(["x"]), { exclusive: true })
  .catch((problem) => problem.failure.kind);
await files.remove(`${asked.folder}/folder/renamed`);
await files.remove(`${asked.folder}/folder`, { folder: true });
said.missing = await files.list(`${asked.folder}/folder`).catch((problem) => problem.failure.message);
const giveUp = new AbortController();
const endless = await files.download("/dev/zero", { signal: giveUp.signal });
const reader = endless.stream.getReader();
await reader.read();
giveUp.abort(new Error("enough"));
said.givenUp = await reader.read().then(
  () => "went on",
  (problem) => problem.message,
);
said.home = (await files.home()).startsWith("/");
said.ping = (await session.handle.ping()) >= 0;

// Every relay is lost, and the session goes on where it was.
const lost = sockets.filter((socket) => socket.readyState === WebSocket.OPEN);
for (const socket of lost) socket.close();
type(session, "echo still here\n");
await until(() => /still here/.test(printed(session)));
await until(() => session.links.at(-1) === "up");
said.relays = new Set(sockets.map(({ url }) => url)).size;
said.links = session.links;
type(session, "exit\n");
said.end = await session.ended;
client.leave();
console.log(JSON.stringify(said));
process.exit(0);
