// Stands in for the node in its Worker, for tests of the page: what comes of a terminal is told by its machine's name.
// It says "refuse-KIND" for a failure of that kind, "check", "hostkey", "password", "slow", and else gives a shell that echoes.
"use strict";

const STEPS = ["node", "relay", "tunnel", "tcp", "hostkey", "signin"];
const DETAILS = { relay: "fra over WebSocket", tunnel: "WireGuard, key 5f1c…9a02", hostkey: "SHA256:Nq4rTzP0mYb7Vd2kQx81kLw3" };
const terminals = new Map();
const waits = new Map();
let questions = 0;
const text = new TextEncoder();

const node = (relay, retry = null) =>
  postMessage({ kind: "node", state: { tab: 7, addresses: ["100.64.0.9"], relay, retry, over: null } });

function reach(id, last = "signin") {
  for (const name of STEPS) {
    postMessage({ kind: "step", id, step: { name, state: "done", ms: 12, detail: DETAILS[name] } });
    if (name === last) return;
  }
}

function shell(id) {
  postMessage({ kind: "step", id, step: { name: "shell", state: "done", ms: 9 } });
  postMessage({ kind: "opened", id });
  print(id, "\u001b[32mdeploy@web-1\u001b[0m:\u001b[34m/srv/app\u001b[0m$ ");
}

function print(id, words) {
  const data = typeof words === "string" ? text.encode(words) : words;
  postMessage({ kind: "data", id, data });
}

function end(id, failure, status = null) {
  postMessage({ kind: "end", id, end: { status, signal: null, failure } });
}

function ask(id, message, then) {
  const question = questions++;
  waits.set(question, then);
  postMessage({ id, question, ...message });
}

function open(id, request) {
  const { name } = request;
  const refuse = /^refuse-(.+)$/.exec(name);
  if (refuse !== null) {
    const kind = refuse[1];
    if (kind === "host-key-changed") reach(id, "tcp");
    const detail = kind === "host-key-changed" ? "shown SHA256:Nq4rHc9Xu1Lr8SpEe5JfTn6A, known SHA256:Nq4rTzP0mYb7Vd2kQx81kLw3" : "the details";
    end(id, { kind, message: `What was seen of ${kind}.`, cure: "What helps first.", detail });
    return;
  }
  if (name === "slow") return reach(id, "hostkey");
  if (name === "check") {
    reach(id);
    postMessage({ kind: "step", id, step: { name: "check", state: "doing" } });
    const words = "# This ssh has to be approved within 10 minutes. Its code is H4·9K\n# https://door.test/check/abcdefghijkl\n# On the server: doorward ssh checks approve 7";
    postMessage({ kind: "check", id, check: { url: "https://elsewhere.test/check/abcdefghijkl", code: "H4·9K", text: words } });
    return;
  }
  if (name === "hostkey") {
    reach(id, "tcp");
    const asked = { fingerprint: "SHA256:Nq4rTzP0mYb7Vd2kQx81kLw3", kind: "ssh-ed25519", known: null };
    ask(id, { kind: "hostKey", asked }, (answer) =>
      answer === "refuse" ? end(id, { kind: "refused", message: "You did not accept the key.", cure: "Open it again." }) : shell(id),
    );
    return;
  }
  if (name === "password") {
    reach(id);
    const asked = { title: "", text: "Two questions.\u001b[2J", questions: [{ text: "Password: ", echo: false }, { text: "Code: ", echo: true }] };
    ask(id, { kind: "ask", ...asked }, (answers) => {
      if (answers === undefined) return end(id, { kind: "refused", message: "Nothing was answered.", cure: "Open it again." });
      shell(id);
      print(id, `\r\nheard ${answers.join(" and ")}\r\n`);
    });
    return;
  }
  reach(id);
  shell(id);
}

// What the shell does with a line; everything that is typed is echoed.
function does(id, terminal, line) {
  const [word, ...rest] = line.split(" ");
  if (word === "exit") return end(id, null, Number(rest[0] ?? 0));
  if (word === "size") return print(id, `size ${terminal.columns}x${terminal.rows}\r\n`);
  if (word === "lost") {
    node("waiting", Date.now() + 60_000);
    return postMessage({ kind: "link", id, state: "waiting", since: Date.now() - 12_000 });
  }
  if (word === "silent") return postMessage({ kind: "link", id, state: "waiting", since: Date.now() - 12_000 });
  if (word === "back") return postMessage({ kind: "link", id, state: "up" });
  if (word === "gone") return end(id, { kind: "lost", message: "The connection with web-1 is gone.", cure: "Open it again for a new shell." });
  if (word === "out") return end(id, { kind: "session-over", message: "You have signed out.", cure: "Sign in, and open it again." });
  if (word === "raw") {
    for (const part of rest) print(id, Uint8Array.from(atob(part), (one) => one.charCodeAt(0)));
    return;
  }
  if (word === "bytes") return print(id, `${terminal.heard} bytes were typed\r\n`);
  if (word === "most") return print(id, `at most ${terminal.most} bytes lay unread\r\n`);
  if (word === "many") {
    // As a host does: no more than a window that nobody has acknowledged.
    terminal.left = Number(rest[0]);
    return more(id, terminal);
  }
  print(id, `no such command: ${line}\r\n`);
}

const WINDOW = 256 * 1024;

function more(id, terminal) {
  while (terminal.left > 0 && terminal.unread < WINDOW) {
    let piece = "";
    for (let count = 0; count < 200 && terminal.left > 0; count++) piece += `line ${terminal.left--} of the many that a build prints\r\n`;
    if (terminal.left === 0) piece += "all printed\r\n";
    terminal.unread += piece.length;
    terminal.most = Math.max(terminal.most, terminal.unread);
    print(id, piece);
  }
}

function typed(id, terminal, data) {
  terminal.heard += data.length;
  postMessage({ kind: "wrote", id, bytes: data.length });
  if (data.length > 8_000) return; // a paste, which a test counts and does not read
  terminal.stream ??= new TextDecoder();
  for (const key of terminal.stream.decode(data, { stream: true })) {
    if (key === "\r") {
      print(id, "\r\n");
      const { line } = terminal;
      terminal.line = "";
      does(id, terminal, line);
    } else if (key !== "\u001b") {
      terminal.line += key;
      print(id, key);
    }
  }
}

addEventListener("message", ({ data: message }) => {
  const { id } = message;
  const terminal = terminals.get(id);
  switch (message.kind) {
    case "start":
      return node("up");
    case "open":
      terminals.set(id, { request: message.request, line: "", heard: 0, left: 0, unread: 0, most: 0, ...message.request });
      return open(id, message.request);
    case "again":
      terminal.line = "";
      return open(id, { ...terminal.request, name: terminal.request.name.replace("refuse-timeout", "web-1") });
    case "write":
      return typed(id, terminal, message.data);
    case "ack":
      terminal.unread -= message.bytes;
      return more(id, terminal);
    case "retry":
      node("up");
      for (const one of terminals.keys()) postMessage({ kind: "link", id: one, state: "up" });
      return;
    case "resize":
      Object.assign(terminal, { columns: message.columns, rows: message.rows });
      return;
    case "close":
      return end(id, null);
    case "hostKeyAnswer":
      return waits.get(message.question)(message.answer);
    case "askAnswer":
      return waits.get(message.question)(message.answers);
    case "files":
      return files(message);
    case "ping":
      return postMessage({ kind: "pong", call: message.call, ms: 18 });
  }
});

// A host with three files, and room for more.
const disk = new Map([["notes.txt", text.encode("a few words\n")], ["web-1.log", new Uint8Array(340_000)]]);

async function files({ call, what }) {
  const done = (answer = null) => postMessage({ kind: "filesDone", call, answer });
  if (what.do === "home") return done("/home/deploy");
  if (what.do === "list") {
    if (what.path !== "/home/deploy") {
      const failure = { kind: "refused", message: `There is no folder ${what.path}.`, cure: "Look at its name." };
      return postMessage({ kind: "filesFailed", call, failure });
    }
    const entries = [...disk].map(([name, content]) => ({ name, folder: false, size: content.length }));
    return done([{ name: "bin", folder: true }, ...entries]);
  }
  if (what.do === "upload") {
    const bytes = new Uint8Array(await what.file.arrayBuffer());
    postMessage({ kind: "filesProgress", call, bytes: bytes.length });
    disk.set(what.path.split("/").at(-1), bytes);
    return done();
  }
  if (what.do === "download") {
    const content = disk.get(what.path.split("/").at(-1));
    postMessage({ kind: "filesSize", call, size: content.length });
    postMessage({ kind: "filesData", call, data: content.slice() });
    return done();
  }
}
