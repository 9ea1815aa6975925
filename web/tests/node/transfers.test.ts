import { expect, test, vi } from "vitest";
import type { Environment } from "../../src/node/environment.ts";
import { Failed } from "../../src/node/failures.ts";
import type { FileCall, FromWorker } from "../../src/node/messages.ts";
import { type Borrowed, Transfers } from "../../src/node/transfers.ts";
import { equal } from "../../src/protocol/bytes.ts";
import type { SshClient } from "../../src/protocol/ssh/client.ts";
import { SshError } from "../../src/protocol/ssh/errors.ts";
import { MemoryServer } from "../support/sftpserver.ts";

type Told<Kind extends FromWorker["kind"]> = Extract<FromWorker, { readonly kind: Kind }>;

function setUp(servers: MemoryServer[] = [new MemoryServer()]) {
  const said: FromWorker[] = [];
  const counts = { borrowed: 0, sessions: 0, now: 0, step: 0 };
  const environment = { now: () => (counts.now += counts.step) } as unknown as Environment;
  const transfers = new Transfers(environment, (message) => said.push(structuredClone(message)));
  const client = {
    session: async () => {
      const server = servers[counts.sessions++];
      if (server === undefined) throw new SshError("channel", "the server opens no session");
      return server;
    },
  } as unknown as SshClient;
  const borrow = (): Borrowed => {
    counts.borrowed++;
    return { client, done: () => counts.borrowed-- };
  };
  let calls = 0;
  const run = (what: FileCall): [number, Promise<void>] => {
    const call = calls++;
    return [call, transfers.run(call, what, "server", borrow)];
  };
  const told = <Kind extends FromWorker["kind"]>(kind: Kind) =>
    said.filter((one): one is Told<Kind> => one.kind === kind);
  return { transfers, run, told, said, counts, server: servers[0]! };
}

const settled = () => new Promise(setImmediate);

test("a file goes up whole, and its progress is told now and then, the end of it for certain", async () => {
  const { run, told, server, counts } = setUp();
  const content = new Uint8Array(3_500_000).map((_, at) => at * 7);
  const [call, done] = run({ do: "upload", path: "/f", file: new Blob([content]), exclusive: false });
  await done;
  expect(equal(server.written, content)).toBe(true);
  expect(told("filesProgress").at(-1)).toEqual({ kind: "filesProgress", call, bytes: content.length });
  expect(told("filesProgress").length).toBeLessThan(5);
  expect(told("filesDone")).toEqual([{ kind: "filesDone", call, answer: null }]);
  expect([server.open, counts.borrowed]).toEqual([0, 0]);
});

test("an empty file is a file", async () => {
  const { run, told, server } = setUp();
  await run({ do: "upload", path: "/f", file: new Blob([]), exclusive: false })[1];
  expect(told("filesDone")).toHaveLength(1);
  expect(server.open).toBe(0);
});

test("a page that does not read a download makes the host wait", async () => {
  const { run, told, server, transfers } = setUp();
  server.sizes.set("/big", 12_000_000);
  const [call, done] = run({ do: "download", path: "/big" });
  for (let turn = 0; turn < 200; turn++) await settled();
  const got = () => told("filesData").reduce((sum, { data }) => sum + data.length, 0);
  expect(told("filesSize")[0]).toMatchObject({ size: 12_000_000 });
  expect(got()).toBeGreaterThan(1 << 20);
  expect(got()).toBeLessThanOrEqual((4 << 20) + (1 << 18));
  const { reads } = server;
  for (let turn = 0; turn < 50; turn++) await settled();
  expect(server.reads).toBe(reads);
  let acked = 0;
  while (got() < 12_000_000) {
    transfers.ack(call, got() - acked);
    acked = got();
    await settled();
  }
  transfers.ack(call, got() - acked);
  await done;
  expect(told("filesDone")).toHaveLength(1);
  expect(server.open).toBe(0);
});

test("of a download goes together what comes quickly, and what comes slowly as it comes", async () => {
  const sizes = async (step: number) => {
    const { run, told, server, counts } = setUp();
    counts.step = step;
    server.sizes.set("/f", 600_000);
    const [call, done] = run({ do: "download", path: "/f" });
    await done;
    expect(told("filesProgress").at(-1)).toEqual({ kind: "filesProgress", call, bytes: 600_000 });
    return told("filesData").map(({ data }) => data.length);
  };
  expect(await sizes(0)).toEqual([1 << 18, 1 << 18, 600_000 - (1 << 19)]);
  const slowly = await sizes(100);
  expect(slowly).toHaveLength(Math.ceil(600_000 / 32_768));
  expect(Math.max(...slowly)).toBe(32_768);
});

test("a download that is given up stops, closes its file, and is not told of any more", async () => {
  const { run, said, server, transfers, counts } = setUp();
  server.sizes.set("/big", 1e12);
  const [call, done] = run({ do: "download", path: "/big" });
  for (let turn = 0; turn < 200; turn++) await settled();
  const before = said.length;
  transfers.cancel(call);
  await done;
  expect(said.length).toBe(before);
  expect([server.open, counts.borrowed]).toEqual([0, 0]);
});

test("an upload that is given up stops at the next piece", async () => {
  const { run, told, server, transfers } = setUp();
  server.answers = false;
  const file = new Blob([new Uint8Array(12_000_000)]);
  const [call, done] = run({ do: "upload", path: "/f", file, exclusive: false });
  await vi.waitFor(() => expect(server.writes).toBeGreaterThan(20), { timeout: 20_000 });
  transfers.cancel(call);
  server.release();
  await done;
  expect(server.written.length).toBeLessThan(10_000_000);
  expect(told("filesDone")).toEqual([]);
  expect(told("filesFailed")).toEqual([]);
  expect(server.open).toBe(0);
});

test("a file that has changed meanwhile fails in words", async () => {
  const { run, told, server } = setUp();
  const file = {
    size: 10,
    slice: () => ({ arrayBuffer: () => Promise.reject(new DOMException("gone", "NotReadableError")) }),
  } as unknown as Blob;
  await run({ do: "upload", path: "/f", file, exclusive: false })[1];
  expect(told("filesFailed")[0]!.failure).toMatchObject({
    kind: "refused",
    message: expect.stringContaining("cannot be read"),
  });
  expect(server.open).toBe(0);
});

test("what the host refuses is told with the path and the host's reason", async () => {
  const { run, told } = setUp();
  await run({ do: "download", path: "/nothing" })[1];
  await run({ do: "makeFolder", path: "/root/x" })[1];
  await run({ do: "rename", path: "/a", to: "/b" })[1];
  const failures = told("filesFailed").map(({ failure }) => failure);
  expect(failures.map(({ message }) => message)).toEqual([
    "There is no such file or folder: /nothing",
    "The account may not do this: /root/x",
    "The host cannot do this: /a",
  ]);
  for (const { kind, cure } of failures) expect([kind, cure.length > 5]).toEqual(["refused", true]);
});

test("all calls share one session, and after its end the next has a new one", async () => {
  const [first, second] = [new MemoryServer(), new MemoryServer()];
  const { run, told, counts } = setUp([first, second]);
  await Promise.all([1, 2, 3].map((number) => run({ do: "makeFolder", path: `/${number}` })[1]));
  expect(counts.sessions).toBe(1);
  await first.close();
  await settled();
  await run({ do: "makeFolder", path: "/4" })[1];
  expect(told("filesFailed").at(-1)!.failure.kind).toBe("lost");
  await run({ do: "makeFolder", path: "/5" })[1];
  expect(counts.sessions).toBe(2);
  expect(told("filesDone")).toHaveLength(4);
});

test("a host without file transfer, and one that is not there, are told apart", async () => {
  const { run, told } = setUp([]);
  await run({ do: "home" })[1];
  expect(told("filesFailed")[0]!.failure.message).toContain("offers no file transfer");
  const gone = new Failed({ kind: "lost", message: "It is gone.", cure: "Open it again." });
  const said: FromWorker[] = [];
  const transfers = new Transfers({ now: () => 0 } as unknown as Environment, (message) =>
    said.push(message),
  );
  await transfers.run(9, { do: "home" }, "server", () => {
    throw gone;
  });
  expect(said).toEqual([{ kind: "filesFailed", call: 9, failure: gone.failure }]);
});
