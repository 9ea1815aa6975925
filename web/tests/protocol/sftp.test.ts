import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { concat, ProtocolError } from "../../src/protocol/bytes.ts";
import { type Carrier, isFolder, Sftp, SftpError } from "../../src/protocol/ssh/sftp.ts";
import { fields } from "../../src/protocol/ssh/wire.ts";
import { Dice } from "../support/deterministic.ts";

const PROGRAM = "/usr/lib/openssh/sftp-server";

/** OpenSSH's own server for files, without the SSH around it. */
class Program implements Carrier {
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #output: AsyncIterator<Buffer>;

  constructor(folder: string) {
    this.#process = spawn(PROGRAM, ["-d", folder]);
    this.#output = this.#process.stdout[Symbol.asyncIterator]();
  }

  async subsystem(): Promise<void> {}

  async read(): Promise<Uint8Array | undefined> {
    const { value, done } = await this.#output.next();
    return done ? undefined : new Uint8Array(value);
  }

  write(data: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#process.stdin.write(data, (problem) => (problem ? reject(problem) : resolve()));
    });
  }

  async close(): Promise<void> {
    this.#process.kill();
  }
}

/** A server that answers each request with what a test says. */
class Scripted implements Carrier {
  readonly #answers: Uint8Array[];
  #ready: Uint8Array[] = [];
  #wake: (() => void) | undefined;
  #closed = false;

  constructor(answers: Uint8Array[]) {
    this.#answers = [fields(fields(2, { u32: 3 })), ...answers];
  }

  /** How many answers nobody has asked for yet. */
  get left(): number {
    return this.#answers.length;
  }

  async subsystem(): Promise<void> {}

  async read(): Promise<Uint8Array | undefined> {
    while (this.#ready.length === 0) {
      if (this.#closed) return undefined;
      await new Promise<void>((wake) => {
        this.#wake = wake;
      });
    }
    return this.#ready.shift();
  }

  async write(): Promise<void> {
    const answer = this.#answers.shift();
    if (answer !== undefined) this.#ready.push(answer);
    this.#wake?.();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#wake?.();
  }
}

async function all(pieces: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const piece of pieces) parts.push(piece);
  return concat(...parts);
}

// Of the package openssh-sftp-server; where everything has to be tried its absence is a failure.
describe.runIf(process.env.DOORWARD_REQUIRE === "all" || existsSync(PROGRAM))("OpenSSH's server", () => {
  let folder: string;
  let sftp: Sftp;

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), "sftp-"));
    sftp = await Sftp.start(new Program(folder));
  });

  afterEach(async () => {
    await sftp.close();
    rmSync(folder, { recursive: true });
  });

  test.each([0, 1, 32_768, 32_769, 5_000_000])("a file of %i bytes there and back", async (size) => {
    const content = new Dice(size + 1).bytes(size);
    const told: number[] = [];
    await sftp.write("file", [content.subarray(0, 10), content.subarray(10)], (bytes) => told.push(bytes));
    expect(Buffer.compare(readFileSync(join(folder, "file")), content)).toBe(0);
    expect(told.at(-1) ?? 0).toBe(size);
    expect(Buffer.compare(await all(sftp.read("file")), content)).toBe(0);
    expect((await sftp.stat("file")).size).toBe(size);
  });

  test("a download that is given up leaves the session usable", async () => {
    writeFileSync(join(folder, "large"), new Uint8Array(3_000_000));
    for await (const piece of sftp.read("large")) {
      expect(piece.length).toBe(32_768);
      break;
    }
    expect((await sftp.stat("large")).size).toBe(3_000_000);
  });

  test("folders, names and what may not be", async () => {
    mkdirSync(join(folder, "inside"));
    writeFileSync(join(folder, "größe 日本"), "x");
    const entries = await sftp.list(".");
    expect(entries.map(({ name }) => name).sort()).toEqual(["größe 日本", "inside"]);
    expect(entries.filter(isFolder).map(({ name }) => name)).toEqual(["inside"]);
    expect(await sftp.realPath(".")).toBe(folder);
    await sftp.makeFolder("new");
    await sftp.rename("größe 日本", "new/plain");
    expect((await sftp.list("new")).map(({ name }) => name)).toEqual(["plain"]);
    await expect(sftp.removeFolder("new")).rejects.toThrow(SftpError);
    await sftp.remove("new/plain");
    await sftp.removeFolder("new");
    await expect(sftp.stat("new")).rejects.toMatchObject({ status: "missing" });
    await expect(sftp.write("inside", [new Uint8Array(1)])).rejects.toThrow(SftpError);
    writeFileSync(join(folder, "there"), "kept");
    await expect(sftp.write("there", [], undefined, { exclusive: true })).rejects.toThrow(SftpError);
    expect(readFileSync(join(folder, "there"), "utf8")).toBe("kept");
  });
});

describe("a server that means harm", () => {
  const handle = fields(fields(102, { u32: 0 }, "h"));

  test("names that lead elsewhere are left out of a folder's list", async () => {
    const names = ["..", ".", "../../etc/passwd", "", "good"];
    const entries = names.flatMap((name) => [name, "long", { u32: 0 }]);
    const list = fields(fields(104, { u32: 1 }, { u32: names.length }, ...entries));
    const end = fields(fields(101, { u32: 2 }, { u32: 1 }, "", ""));
    const sftp = await Sftp.start(
      new Scripted([handle, list, end, fields(fields(101, { u32: 3 }, { u32: 0 }, "", ""))]),
    );
    expect((await sftp.list("/")).map(({ name }) => name)).toEqual(["good"]);
  });

  test.each([
    ["another kind of answer", fields(fields(103, { u32: 0 }, "data"))],
    ["an answer to no question", fields(fields(101, { u32: 77 }, { u32: 0 }, "", ""))],
    ["an answer that is too long", fields({ u32: 0x7fffffff })],
    ["an answer that is cut short", fields(fields(102, { u32: 0 }))],
    ["a refusal that is cut short", fields(fields(101, { u32: 0 }))],
  ])("%s ends in an error", async (_, answer) => {
    const sftp = await Sftp.start(new Scripted([answer]));
    await expect(sftp.list("/")).rejects.toThrow(ProtocolError);
  });

  test.each([
    ["the end of a folder", handle, (sftp: Sftp) => sftp.list("/")],
    ["what became of a request", undefined, (sftp: Sftp) => sftp.remove("/file")],
  ])("%s that is cut short is an error like any other", async (_, before, ask) => {
    const opening = before === undefined ? [] : [before];
    const short = fields(fields(101, { u32: opening.length }));
    const good = fields(fields(101, { u32: opening.length + 1 }, { u32: 0 }, "", ""));
    await expect(ask(await Sftp.start(new Scripted([...opening, short, good])))).rejects.toThrow(
      ProtocolError,
    );
  });

  test("a folder without an end is given up", async () => {
    const long = new Uint8Array(1 << 20).subarray(100); // as much as one answer holds
    const lists = Array.from({ length: 100 }, (_, at) =>
      fields(fields(104, { u32: at + 1 }, { u32: 1 }, "name", long, { u32: 0 })),
    );
    const scripted = new Scripted([handle, ...lists]);
    const sftp = await Sftp.start(scripted);
    await expect(sftp.list("/")).rejects.toMatchObject({ status: "failure" });
    expect(scripted.left).toBeGreaterThan(60);
  });

  test("no server for files at all", async () => {
    const answers = [fields(fields(99, { u32: 3 }))];
    const scripted = new Scripted(answers);
    await expect(Sftp.start({ ...bound(scripted), read: async () => answers[0] })).rejects.toThrow(
      "no SFTP server",
    );
  });
});

function bound(carrier: Carrier): Carrier {
  return {
    subsystem: (name) => carrier.subsystem(name),
    read: () => carrier.read(),
    write: (data) => carrier.write(data),
    close: () => carrier.close(),
  };
}
