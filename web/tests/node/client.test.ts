import { expect, test, vi } from "vitest";
import { MAX_WAITING, NodeClient, type TerminalEvents, TransferError } from "../../src/node/client.ts";
import type { FromWorker, ToWorker } from "../../src/node/messages.ts";

const FAILURE = { kind: "lost", message: "It is gone.", cure: "Open it again." } as const;

/** A page, and a Worker whose other side is the test. */
function setUp() {
  const sent: ToWorker[] = [];
  const heard = new Map<string, (event: never) => void>();
  const window = new Map<string, (event: { persisted?: boolean }) => void>();
  const beacons: string[] = [];
  let made = 0;
  let terminated = 0;
  const client = new NodeClient({
    api: "/api/v1",
    worker: () => {
      made++;
      return {
        postMessage: (message, transfer) => sent.push(structuredClone(message, { transfer })),
        addEventListener: (kind: string, listener: (event: never) => void) => heard.set(kind, listener),
        terminate: () => terminated++,
      };
    },
    page: {
      addEventListener: (kind, listener) => window.set(kind, listener),
      navigator: { sendBeacon: (url) => beacons.push(url) > 0 },
    },
  });
  const say = (message: FromWorker) => heard.get("message")!({ data: message } as never);
  const kinds = () => sent.map(({ kind }) => kind);
  return {
    client,
    sent,
    say,
    kinds,
    beacons,
    page: (kind: string, event = {}) => window.get(kind)!(event),
    fail: (message: string) => heard.get("error")!({ message } as never),
    counts: () => [made, terminated],
  };
}

function events(over: Partial<TerminalEvents> = {}): TerminalEvents {
  const nothing = () => undefined;
  return {
    step: nothing,
    banner: nothing,
    check: nothing,
    hostKey: async () => "refuse",
    ask: async () => undefined,
    open: nothing,
    data: nothing,
    link: nothing,
    end: nothing,
    ...over,
  };
}

const REQUEST = { machine: 7, name: "server", account: "root", columns: 80, rows: 24 };

test("the Worker is made with the first terminal, and told where the API is before anything else", () => {
  const { client, sent, kinds, counts, page } = setUp();
  page("online");
  client.leave();
  expect(counts()).toEqual([0, 0]);
  client.open(REQUEST, events());
  client.open(REQUEST, events());
  expect(kinds()).toEqual(["start", "open", "open"]);
  expect(sent[0]).toMatchObject({ api: "/api/v1" });
  expect(counts()).toEqual([1, 0]);
});

test("each terminal hears what is its own, in order, and nothing after its end", () => {
  const { client, say } = setUp();
  const one: unknown[] = [];
  const two: unknown[] = [];
  const ear = (into: unknown[]) =>
    events({ data: (bytes) => into.push([...bytes]), end: ({ status }) => into.push(status) });
  client.open(REQUEST, ear(one));
  client.open(REQUEST, ear(two));
  say({ kind: "opened", id: 0 });
  say({ kind: "data", id: 0, data: new Uint8Array([1]) });
  say({ kind: "data", id: 1, data: new Uint8Array([2]) });
  const end = { status: 3, signal: null, failure: null };
  say({ kind: "end", id: 0, end });
  say({ kind: "end", id: 0, end });
  expect(one).toEqual([[1], 3]);
  expect(two).toEqual([[2]]);
});

test("input goes in pieces, only while there is a shell, and no more of it waits than may", () => {
  const { client, sent, say } = setUp();
  const terminal = client.open(REQUEST, events());
  terminal.write(new Uint8Array(10));
  say({ kind: "opened", id: 0 });
  const paste = new Uint8Array(1 << 20).fill(7);
  terminal.write(paste);
  const pieces = sent.filter((message) => message.kind === "write");
  expect(pieces.map(({ data }) => data.length)).toEqual([1 << 18, 1 << 18, 1 << 18, 1 << 18]);
  expect(paste[0]).toBe(7); // what the page gave is still its own
  expect(terminal.waiting).toBe(1 << 20);
  expect(() => terminal.write(new Uint8Array(MAX_WAITING))).toThrow(RangeError);
  say({ kind: "wrote", id: 0, bytes: 1 << 20 });
  expect(terminal.waiting).toBe(0);
  terminal.write(new Uint8Array(MAX_WAITING));
});

test("questions are answered by their number, and a page that fails to ask has said no", async () => {
  const { client, sent, say } = setUp();
  client.open(REQUEST, events({ hostKey: async () => "remember", ask: async () => ["yes"] }));
  client.open(
    REQUEST,
    events({ hostKey: () => Promise.reject(new Error("no")), ask: () => Promise.reject(new Error("no")) }),
  );
  const asked = { fingerprint: "SHA256:x", kind: "ssh-ed25519", known: null };
  say({ kind: "hostKey", id: 0, question: 4, asked });
  say({ kind: "hostKey", id: 1, question: 5, asked });
  say({ kind: "ask", id: 0, question: 6, title: "", text: "", questions: [{ text: "?", echo: true }] });
  say({ kind: "ask", id: 1, question: 7, title: "", text: "", questions: [] });
  await vi.waitFor(() => expect(sent.filter(({ kind }) => kind.endsWith("Answer"))).toHaveLength(4), {
    timeout: 20_000,
  });
  const answers = new Map<number, unknown>();
  for (const message of sent) {
    if (message.kind === "hostKeyAnswer") answers.set(message.question, message.answer);
    if (message.kind === "askAnswer") answers.set(message.question, message.answers);
  }
  expect(Object.fromEntries(answers)).toEqual({ 4: "remember", 5: "refuse", 6: ["yes"], 7: undefined });
});

test("of a terminal that is closed for good nothing is told any more", () => {
  const { client, sent, say, kinds } = setUp();
  const data = vi.fn();
  const end = vi.fn();
  const terminal = client.open(REQUEST, events({ data, end }));
  say({ kind: "opened", id: 0 });
  terminal.forget();
  say({ kind: "data", id: 0, data: new Uint8Array(3) });
  say({ kind: "end", id: 0, end: { status: 0, signal: null, failure: null } });
  terminal.write(new Uint8Array(3));
  terminal.forget();
  expect(sent.at(-1)).toEqual({ kind: "forget", id: 0 });
  expect(kinds()).toEqual(["start", "open", "forget"]);
  expect([data, end].map((one) => one.mock.calls)).toEqual([[], []]);
});

test("who closes the page leaves by a beacon, who may come back does not", () => {
  const { client, say, page, beacons, kinds } = setUp();
  client.open(REQUEST, events());
  page("pagehide", { persisted: true });
  page("pagehide", { persisted: false });
  expect(beacons).toEqual([]); // there is no tab yet
  expect(kinds().filter((kind) => kind === "leave")).toHaveLength(1);
  say({ kind: "node", state: { tab: 12, addresses: [], relay: "up", retry: null, over: null } });
  page("pagehide", { persisted: false });
  expect(beacons).toEqual(["/api/v1/console/tabs/12/leave"]);
  say({ kind: "node", state: { tab: 12, addresses: [], relay: "none", retry: null, over: FAILURE } });
  page("pagehide", { persisted: false });
  expect(beacons).toHaveLength(1);
});

test("whoever watches the node is told at once and at each change, until they have seen enough", () => {
  const { client, say } = setUp();
  client.open(REQUEST, events());
  const seen: string[] = [];
  const stop = client.onNode(({ relay }) => seen.push(relay));
  say({ kind: "node", state: { tab: 1, addresses: ["100.64.0.9"], relay: "up", retry: null, over: null } });
  stop();
  say({ kind: "node", state: { tab: 1, addresses: [], relay: "waiting", retry: null, over: null } });
  expect(seen).toEqual(["none", "up"]);
  expect(client.state.relay).toBe("waiting");
});

test("a Worker that fails ends everything that waits for it, and the next terminal has a new one", async () => {
  const { client, say, fail, counts } = setUp();
  const ends: unknown[] = [];
  const terminal = client.open(
    REQUEST,
    events({ end: ({ failure }) => ends.push([failure?.kind, failure?.detail]) }),
  );
  say({ kind: "opened", id: 0 });
  const ping = expect(terminal.ping()).rejects.toThrow(/does not answer/);
  const list = expect(terminal.files().list("/")).rejects.toBeInstanceOf(TransferError);
  fail("script error");
  await ping;
  await list;
  expect(ends).toEqual([["server", "script error"]]);
  client.open(REQUEST, events());
  expect(counts()).toEqual([2, 1]);
});

test("calls about files have their answers, their progress and their failures", async () => {
  const { client, sent, say } = setUp();
  const files = client.open(REQUEST, events()).files();
  const last = () => sent.at(-1) as Extract<ToWorker, { kind: "files" }>;
  const listing = files.list("/tmp");
  const entries = [{ name: "a", folder: false, size: 3 }];
  say({ kind: "filesDone", call: last().call, answer: entries });
  expect(await listing).toEqual(entries);

  const seen: unknown[] = [];
  const upload = files.upload("/tmp/a", new Blob(["abc"]), { progress: (...one) => seen.push(one) });
  expect(last().what).toMatchObject({ do: "upload", path: "/tmp/a", exclusive: false });
  say({ kind: "filesProgress", call: last().call, bytes: 3 });
  say({ kind: "filesDone", call: last().call, answer: null });
  await upload;
  expect(seen).toEqual([[3, 3]]);

  const refused = files.makeFolder("/root");
  say({ kind: "filesFailed", call: last().call, failure: { ...FAILURE, detail: "Permission denied" } });
  await expect(refused).rejects.toMatchObject({ name: "TransferError", failure: { kind: "lost" } });
});

test("a transfer that is given up is given up at both ends", async () => {
  const { client, sent } = setUp();
  const files = client.open(REQUEST, events()).files();
  const giveUp = new AbortController();
  const upload = files.upload("/a", new Blob(["abc"]), { signal: giveUp.signal });
  giveUp.abort(new Error("enough"));
  await expect(upload).rejects.toThrow("enough");
  expect(sent.at(-1)?.kind).toBe("filesCancel");
  const before = sent.length;
  await expect(files.download("/a", { signal: giveUp.signal })).rejects.toThrow("enough");
  expect(sent).toHaveLength(before);
});

test("a download is told of what was read, not of what arrived", async () => {
  const { client, sent, say } = setUp();
  const files = client.open(REQUEST, events()).files();
  const seen: [number, number | null][] = [];
  const asked = files.download("/a", { progress: (...one) => seen.push(one) });
  const { call } = sent.at(-1) as Extract<ToWorker, { kind: "files" }>;
  say({ kind: "filesSize", call, size: 5 << 20 });
  const { size, stream } = await asked;
  expect(size).toBe(5 << 20);
  const acked = () => sent.reduce((sum, one) => sum + (one.kind === "filesAck" ? one.bytes : 0), 0);
  for (let piece = 0; piece < 4; piece++)
    say({ kind: "filesData", call, data: new Uint8Array(1 << 20).fill(piece) });
  expect(acked()).toBe(0);
  const reader = stream.getReader();
  expect((await reader.read()).value![0]).toBe(0);
  await vi.waitFor(() => expect(acked()).toBe(1 << 20), { timeout: 20_000 });
  say({ kind: "filesData", call, data: new Uint8Array(1 << 20).fill(4) });
  say({ kind: "filesProgress", call, bytes: 1 << 20 });
  say({ kind: "filesDone", call, answer: null });
  const firsts: number[] = [];
  for (let next = await reader.read(); !next.done; next = await reader.read()) firsts.push(next.value[0]!);
  expect(firsts).toEqual([1, 2, 3, 4]);
  expect(seen).toEqual([[1 << 20, 5 << 20]]);
});

test("a download that fails on its way says so to who reads it", async () => {
  const { client, sent, say } = setUp();
  const files = client.open(REQUEST, events()).files();
  const asked = files.download("/a");
  const { call } = sent.at(-1) as Extract<ToWorker, { kind: "files" }>;
  say({ kind: "filesSize", call, size: null });
  const { stream } = await asked;
  say({ kind: "filesFailed", call, failure: FAILURE });
  await expect(stream.getReader().read()).rejects.toBeInstanceOf(TransferError);
});
