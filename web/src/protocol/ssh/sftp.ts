/**
 * Files over SSH: version 3 of SFTP (draft-ietf-secsh-filexfer-02), as OpenSSH and Tailscale's SSH have it.
 *
 * Reads and writes are asked for ahead, many at once, so that a long way does not make them slow.
 */

import { ByteQueue, ProtocolError, u32 } from "../bytes.ts";
import { type Field, Fields, fields } from "./wire.ts";

const PACKET = {
  init: 1,
  version: 2,
  open: 3,
  close: 4,
  read: 5,
  write: 6,
  lstat: 7,
  opendir: 11,
  readdir: 12,
  remove: 13,
  mkdir: 14,
  rmdir: 15,
  realpath: 16,
  stat: 17,
  rename: 18,
  status: 101,
  handle: 102,
  data: 103,
  name: 104,
  attrs: 105,
} as const;

const STATUS = [
  "ok",
  "eof",
  "missing",
  "denied",
  "failure",
  "bad-message",
  "no-connection",
  "lost",
  "unsupported",
] as const;
export type SftpStatus = (typeof STATUS)[number];

/** How much one request carries: what every server takes. */
export const BLOCK = 32_768;
/** How many requests for data are under way at once. */
const AHEAD = 64;
/** No answer is longer, but for the list of a folder. */
const MAX_PACKET = 1 << 20;
/** The list of a folder is no longer, in bytes of answers: some hundred thousand files. A host could go on without end. */
const MAX_LIST = 1 << 25;

const FLAGS = { read: 0x01, write: 0x02, create: 0x08, truncate: 0x10, exclusive: 0x20 } as const;

/** The server refuses, in its own words where it has any. */
export class SftpError extends ProtocolError {
  override readonly name = "SftpError";
  readonly status: SftpStatus;

  constructor(status: SftpStatus, message: string) {
    super(message);
    this.status = status;
  }
}

/** What is known of a file; each only where the server tells. ``modified`` is in seconds since 1970. */
export interface Attributes {
  readonly size?: number | undefined;
  readonly mode?: number | undefined;
  readonly modified?: number | undefined;
}

export interface Entry extends Attributes {
  readonly name: string;
}

/** Whether attributes are a folder's. */
export function isFolder({ mode }: Attributes): boolean {
  return mode !== undefined && (mode & 0o170000) === 0o040000;
}

/** What carries it: a session on which nothing has been started. */
export interface Carrier {
  subsystem(name: string): Promise<void>;
  read(): Promise<Uint8Array | undefined>;
  write(data: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

type Waiter = { readonly resolve: (answer: Uint8Array) => void; readonly reject: (why: unknown) => void };

export class Sftp {
  readonly #channel: Carrier;
  readonly #incoming = new ByteQueue();
  readonly #waiting = new Map<number, Waiter>();
  #next = 0;
  #over: { readonly why: unknown } | undefined;

  private constructor(channel: Carrier) {
    this.#channel = channel;
  }

  /** Begin on a session on which nothing else has been started; SshError where the server has no SFTP. */
  static async start(channel: Carrier): Promise<Sftp> {
    const sftp = new Sftp(channel);
    await channel.subsystem("sftp");
    await channel.write(fields(fields(PACKET.init, { u32: 3 })));
    const version = await sftp.#packet();
    if (version === undefined || version[0] !== PACKET.version)
      throw new ProtocolError("this is no SFTP server");
    void sftp.#run();
    return sftp;
  }

  /** The whole path that a path stands for; of `.`, where one is. */
  async realPath(path: string): Promise<string> {
    const reader = expect(await this.#ask(PACKET.realpath, path), PACKET.name);
    if (reader.u32() < 1) throw new ProtocolError("a path without a name");
    return reader.text();
  }

  async stat(path: string): Promise<Attributes> {
    return attributes(expect(await this.#ask(PACKET.stat, path), PACKET.attrs));
  }

  /** What is in a folder, without itself and what it is in. */
  async list(path: string): Promise<Entry[]> {
    const handle = await this.#open(PACKET.opendir, path);
    const entries: Entry[] = [];
    let size = 0;
    try {
      for (;;) {
        const answer = await this.#ask(PACKET.readdir, handle);
        if (ended(answer)) return entries;
        size += answer.length;
        if (size > MAX_LIST) throw new SftpError("failure", "there is more in this folder than can be shown");
        const reader = expect(answer, PACKET.name);
        for (let count = reader.u32(); count > 0; count--) {
          const name = reader.text();
          reader.string(); // the line that ls would print
          const known = attributes(reader);
          // A name is one step: what leads elsewhere is not a name, whatever the server says.
          if (name !== "." && name !== ".." && name !== "" && !name.includes("/"))
            entries.push({ name, ...known });
        }
      }
    } finally {
      await this.#close(handle);
    }
  }

  async makeFolder(path: string): Promise<void> {
    done(await this.#ask(PACKET.mkdir, path, { u32: 0 }));
  }

  async remove(path: string): Promise<void> {
    done(await this.#ask(PACKET.remove, path));
  }

  async removeFolder(path: string): Promise<void> {
    done(await this.#ask(PACKET.rmdir, path));
  }

  async rename(from: string, to: string): Promise<void> {
    done(await this.#ask(PACKET.rename, from, to));
  }

  /** What is in a file, in order; the next pieces are on their way while one is looked at. */
  async *read(path: string): AsyncGenerator<Uint8Array, void, void> {
    const handle = await this.#open(PACKET.open, path, { u32: FLAGS.read }, { u32: 0 });
    const pending: { readonly at: number; readonly answer: Promise<Uint8Array> }[] = [];
    let next = 0;
    const ask = (at: number, size: number) => {
      const answer = this.#ask(PACKET.read, handle, { raw: u64(at) }, { u32: size });
      answer.catch(() => undefined);
      return answer;
    };
    try {
      for (;;) {
        while (pending.length < AHEAD) {
          pending.push({ at: next, answer: ask(next, BLOCK) });
          next += BLOCK;
        }
        const { at, answer } = pending.shift()!;
        let payload = await answer;
        for (let from = at; from < at + BLOCK; ) {
          if (ended(payload)) return;
          const data = expect(payload, PACKET.data).string();
          if (data.length === 0 || from + data.length > at + BLOCK)
            throw new ProtocolError("an answer of a wrong length");
          yield data;
          from += data.length;
          // A short answer is not yet the end of the file.
          if (from < at + BLOCK) payload = await ask(from, at + BLOCK - from);
        }
      }
    } finally {
      await Promise.allSettled(pending.map(({ answer }) => answer));
      await this.#close(handle);
    }
  }

  /**
   * Write a file anew from pieces of any size; ``wrote`` is told how many bytes the server has.
   *
   * Where it fails what was written stays, as it does with `sftp`.
   */
  async write(
    path: string,
    pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    wrote: (bytes: number) => void = () => undefined,
    options: { readonly exclusive?: boolean } = {},
  ): Promise<void> {
    const flags = FLAGS.write | FLAGS.create | (options.exclusive ? FLAGS.exclusive : FLAGS.truncate);
    const handle = await this.#open(PACKET.open, path, { u32: flags }, { u32: 0 });
    const pending: { readonly size: number; readonly answer: Promise<Uint8Array> }[] = [];
    let at = 0;
    let written = 0;
    const settle = async () => {
      const { size, answer } = pending.shift()!;
      done(await answer);
      written += size;
      wrote(written);
    };
    try {
      for await (const piece of pieces) {
        for (let from = 0; from < piece.length; from += BLOCK) {
          const data = piece.subarray(from, from + BLOCK);
          const answer = this.#ask(PACKET.write, handle, { raw: u64(at) }, data);
          answer.catch(() => undefined);
          pending.push({ size: data.length, answer });
          at += data.length;
          while (pending.length >= AHEAD) await settle();
        }
      }
      while (pending.length > 0) await settle();
    } finally {
      await Promise.allSettled(pending.map(({ answer }) => answer));
      await this.#close(handle);
    }
  }

  /** End the session. */
  async close(): Promise<void> {
    await this.#channel.close();
  }

  async #open(kind: number, path: string, ...more: readonly Field[]): Promise<Uint8Array> {
    return expect(await this.#ask(kind, path, ...more), PACKET.handle)
      .string()
      .slice();
  }

  async #close(handle: Uint8Array): Promise<void> {
    if (this.#over === undefined) await this.#ask(PACKET.close, handle).catch(() => undefined);
  }

  async #ask(kind: number, ...more: readonly Field[]): Promise<Uint8Array> {
    if (this.#over !== undefined) throw this.#over.why;
    const id = this.#next;
    this.#next = (this.#next + 1) >>> 0;
    const answer = new Promise<Uint8Array>((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
    });
    answer.catch(() => undefined);
    await this.#channel.write(fields(fields(kind, { u32: id }, ...more)));
    return answer;
  }

  async #run(): Promise<void> {
    let why: unknown = new SftpError("lost", "the session for files is over");
    try {
      for (let payload = await this.#packet(); payload !== undefined; payload = await this.#packet()) {
        const id = u32(payload, 1);
        const waiter = this.#waiting.get(id);
        if (waiter === undefined) throw new ProtocolError("an answer that nobody asked for");
        this.#waiting.delete(id);
        waiter.resolve(payload);
      }
    } catch (problem) {
      why = problem;
    }
    this.#over = { why };
    for (const waiter of this.#waiting.values()) waiter.reject(why);
    this.#waiting.clear();
    await this.#channel.close().catch(() => undefined);
  }

  async #packet(): Promise<Uint8Array | undefined> {
    for (;;) {
      const head = this.#incoming.peek(4);
      if (head !== undefined) {
        const length = u32(head, 0);
        if (length < 5 || length > MAX_PACKET) throw new ProtocolError(`an answer of ${length} bytes`);
        const packet = this.#incoming.take(4 + length);
        if (packet !== undefined) return packet.subarray(4);
      }
      const data = await this.#channel.read();
      if (data === undefined) return undefined;
      this.#incoming.push(data);
    }
  }
}

function u64(value: number): Uint8Array {
  return fields({ u32: Math.floor(value / 2 ** 32) }, { u32: value % 2 ** 32 });
}

/** The fields of an answer of this kind, behind its number; SftpError where it is a refusal instead. */
function expect(payload: Uint8Array, kind: number): Fields {
  if (payload[0] === PACKET.status) throw refusal(payload);
  if (payload[0] !== kind) throw new ProtocolError(`an answer of kind ${payload[0]}, ${kind} expected`);
  return new Fields(payload, 5);
}

function done(payload: Uint8Array): void {
  if (payload[0] !== PACKET.status)
    throw new ProtocolError(`an answer of kind ${payload[0]} where a status was expected`);
  if (new Fields(payload, 5).u32() !== 0) throw refusal(payload);
}

function ended(payload: Uint8Array): boolean {
  return payload[0] === PACKET.status && STATUS[new Fields(payload, 5).u32()] === "eof";
}

function refusal(payload: Uint8Array): SftpError {
  const reader = new Fields(payload, 5);
  const status = STATUS[reader.u32()] ?? "failure";
  const text = reader.left > 0 ? reader.text().slice(0, 400) : "";
  return new SftpError(status, text || `the server says: ${status}`);
}

function attributes(reader: Fields): Attributes {
  const flags = reader.u32();
  const size = flags & 1 ? reader.u64() : undefined;
  if (flags & 2) reader.bytes(8);
  const mode = flags & 4 ? reader.u32() : undefined;
  let modified: number | undefined;
  if (flags & 8) {
    reader.u32();
    modified = reader.u32();
  }
  if ((flags & 0x80000000) !== 0) {
    for (let count = reader.u32(); count > 0; count--) {
      reader.string();
      reader.string();
    }
  }
  return { size, mode, modified };
}
