/** One session over a connection (RFC 4254): a shell, a command or a subsystem, with windows both ways. */

import { ByteQueue } from "../bytes.ts";
import { SshError } from "./errors.ts";
import { type Field, Fields, fields, MESSAGE } from "./wire.ts";

/** How much the server may send before we have taken it, in bytes. */
export const WINDOW = 2 << 20;
export const MAX_DATA = 32_768;

/** How a session ended: by a status, by a signal, or without a word. */
export interface Exit {
  readonly status?: number | undefined;
  readonly signal?: string | undefined;
  readonly message?: string | undefined;
}

/** The size of a terminal, in characters. */
export interface Size {
  readonly columns: number;
  readonly rows: number;
}

export interface Pty extends Size {
  readonly term: string;
}

type Waiter<T> = { readonly resolve: (value: T) => void; readonly reject: (why: unknown) => void };

export class Channel {
  readonly #send: (payload: Uint8Array) => Promise<void>;
  readonly #answer: (payload: Uint8Array) => Promise<void>;
  readonly #local: number;
  #remote = 0;
  #opened: Waiter<void> | undefined;
  #replies: Waiter<boolean>[] = [];

  readonly #output = new ByteQueue();
  readonly #errors = new ByteQueue();
  #readers: (() => void)[] = [];
  #taken = 0; // read, and not yet told to the server
  #credit = WINDOW; // what the server may still send

  #room = 0; // what we may still send
  #maxData = MAX_DATA;
  #last: Promise<void> = Promise.resolve(); // the write before
  #writers: (() => void)[] = [];
  #finished = false; // the server will send no more
  #closed = false;
  #closeSent = false;
  #problem: unknown;
  #exit: Exit = {};
  readonly #over: Promise<void>;
  #isOver!: () => void;

  /** Made by a connection. ``send`` waits for room, ``answer`` does not; ``local`` is our number for the channel. */
  constructor(
    local: number,
    send: (payload: Uint8Array) => Promise<void>,
    answer: (payload: Uint8Array) => Promise<void>,
  ) {
    this.#local = local;
    this.#send = send;
    this.#answer = answer;
    this.#over = new Promise((over) => {
      this.#isOver = over;
    });
  }

  /** How the session ended, once it has; empty where the server did not say. Rejects when the connection broke. */
  async ended(): Promise<Exit> {
    await this.#over;
    if (this.#problem !== undefined) throw this.#problem;
    return this.#exit;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Ask the server for the channel; SshError ``channel`` where it will not. */
  async open(): Promise<void> {
    const opened = new Promise<void>((resolve, reject) => {
      this.#opened = { resolve, reject };
    });
    opened.catch(() => undefined);
    await this.#send(
      fields(MESSAGE.channelOpen, "session", { u32: this.#local }, { u32: WINDOW }, { u32: MAX_DATA }),
    );
    await opened;
  }

  /** A terminal for what is started next. */
  pty(pty: Pty): Promise<void> {
    const { term, columns, rows } = pty;
    return this.#demand(
      "a terminal",
      "pty-req",
      term,
      { u32: columns },
      { u32: rows },
      { u32: 0 },
      { u32: 0 },
      "",
    );
  }

  shell(): Promise<void> {
    return this.#demand("a shell", "shell");
  }

  exec(command: string): Promise<void> {
    return this.#demand("the command", "exec", command);
  }

  subsystem(name: string): Promise<void> {
    return this.#demand(`the subsystem ${name}`, "subsystem", name);
  }

  /** Set a variable of the environment; whether the server allows it. */
  environment(name: string, value: string): Promise<boolean> {
    return this.#request("env", name, value);
  }

  async resize({ columns, rows }: Size): Promise<void> {
    await this.#tell("window-change", { u32: columns }, { u32: rows }, { u32: 0 }, { u32: 0 });
  }

  /** Send a signal, as `INT` or `TERM`. */
  async signal(name: string): Promise<void> {
    await this.#tell("signal", name);
  }

  /** The next of what the session prints; undefined at its end. What goes to its error output comes from ``readError``. */
  read(): Promise<Uint8Array | undefined> {
    return this.#take(this.#output);
  }

  readError(): Promise<Uint8Array | undefined> {
    return this.#take(this.#errors);
  }

  /** Send input, in the order of the calls; resolves when all of it is on its way, which a session that does not read delays. */
  write(data: Uint8Array): Promise<void> {
    // One after the other: pieces of two must not mix.
    const done = this.#last.then(() => this.#write(data));
    this.#last = done.catch(() => undefined);
    return done;
  }

  async #write(data: Uint8Array): Promise<void> {
    for (let at = 0; at < data.length; ) {
      while (this.#room === 0 && !this.#closed) {
        await new Promise<void>((wake) => {
          this.#writers.push(wake);
        });
      }
      this.#alive();
      const size = Math.min(data.length - at, this.#room, this.#maxData);
      this.#room -= size;
      await this.#send(fields(MESSAGE.channelData, { u32: this.#remote }, data.subarray(at, at + size)));
      at += size;
    }
  }

  /** No more input. */
  async end(): Promise<void> {
    if (!this.#closed) await this.#send(fields(MESSAGE.channelEof, { u32: this.#remote }));
  }

  async close(): Promise<void> {
    if (this.#closeSent) return;
    this.#closeSent = true;
    await this.#send(fields(MESSAGE.channelClose, { u32: this.#remote }));
  }

  /** A message of the server for this channel; whether the channel is over with it. */
  async handle(payload: Uint8Array): Promise<boolean> {
    const reader = new Fields(payload, 5);
    switch (payload[0]) {
      case MESSAGE.channelOpenConfirmation:
        this.#remote = reader.u32();
        this.#room = reader.u32();
        this.#maxData = Math.min(Math.max(reader.u32(), 1), MAX_DATA);
        this.#opened?.resolve();
        break;
      case MESSAGE.channelOpenFailure: {
        reader.u32();
        this.#opened?.reject(
          new SshError("channel", `the server opens no session: ${reader.text().slice(0, 400)}`),
        );
        return true;
      }
      case MESSAGE.channelWindowAdjust:
        this.#room = Math.min(this.#room + reader.u32(), 2 ** 32 - 1);
        this.#wake(this.#writers.splice(0));
        break;
      case MESSAGE.channelData:
        this.#arrived(this.#output, reader.string());
        break;
      case MESSAGE.channelExtendedData:
        if (reader.u32() === 1) this.#arrived(this.#errors, reader.string());
        break;
      case MESSAGE.channelEof:
        this.#finish();
        break;
      case MESSAGE.channelSuccess:
      case MESSAGE.channelFailure:
        this.#replies.shift()?.resolve(payload[0] === MESSAGE.channelSuccess);
        break;
      case MESSAGE.channelRequest:
        await this.#asked(reader);
        break;
      case MESSAGE.channelClose:
        if (!this.#closeSent) {
          this.#closeSent = true;
          await this.#answer(fields(MESSAGE.channelClose, { u32: this.#remote }));
        }
        this.fail(undefined);
        return true;
      default:
        throw new SshError("protocol", `message ${payload[0]} on a channel`);
    }
    return false;
  }

  /** The channel is over: with ``why`` where something went wrong. What has arrived can still be read. */
  fail(why: unknown): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#closeSent = true;
    this.#problem = why;
    const over = why ?? new SshError("channel", "the session is over");
    this.#opened?.reject(over);
    for (const reply of this.#replies.splice(0)) reply.reject(over);
    this.#finish();
    this.#wake(this.#writers.splice(0));
    this.#isOver();
  }

  #arrived(queue: ByteQueue, data: Uint8Array): void {
    // Who sends more than was allowed would have us keep whatever it likes.
    if (data.length > this.#credit) throw new SshError("protocol", "more data than the window allows");
    this.#credit -= data.length;
    queue.push(data);
    this.#wake(this.#readers.splice(0));
  }

  async #take(queue: ByteQueue): Promise<Uint8Array | undefined> {
    while (queue.length === 0) {
      if (this.#finished) {
        if (this.#problem !== undefined) throw this.#problem;
        return undefined;
      }
      await new Promise<void>((wake) => {
        this.#readers.push(wake);
      });
    }
    const data = queue.takeSome(1 << 20);
    this.#taken += data.length;
    if (this.#taken >= WINDOW / 4 && !this.#closeSent) {
      const more = this.#taken;
      this.#taken = 0;
      this.#credit += more;
      await this.#send(fields(MESSAGE.channelWindowAdjust, { u32: this.#remote }, { u32: more }));
    }
    return data;
  }

  async #asked(reader: Fields): Promise<void> {
    const kind = reader.text();
    const reply = reader.boolean();
    if (kind === "exit-status") {
      this.#exit = { status: reader.u32() };
    } else if (kind === "exit-signal") {
      const signal = reader.text();
      reader.boolean();
      this.#exit = { signal, message: reader.text().slice(0, 400) };
    }
    if (reply) await this.#answer(fields(MESSAGE.channelFailure, { u32: this.#remote }));
  }

  async #demand(what: string, kind: string, ...more: readonly Field[]): Promise<void> {
    if (!(await this.#request(kind, ...more))) throw new SshError("channel", `the server refuses ${what}`);
  }

  async #request(kind: string, ...more: readonly Field[]): Promise<boolean> {
    this.#alive();
    const reply = new Promise<boolean>((resolve, reject) => {
      this.#replies.push({ resolve, reject });
    });
    reply.catch(() => undefined);
    await this.#send(fields(MESSAGE.channelRequest, { u32: this.#remote }, kind, true, ...more));
    return reply;
  }

  async #tell(kind: string, ...more: readonly Field[]): Promise<void> {
    if (this.#closed) return;
    await this.#send(fields(MESSAGE.channelRequest, { u32: this.#remote }, kind, false, ...more));
  }

  #alive(): void {
    if (this.#closed) throw this.#problem ?? new SshError("channel", "the session is over");
  }

  #finish(): void {
    this.#finished = true;
    this.#wake(this.#readers.splice(0));
  }

  #wake(waiting: readonly (() => void)[]): void {
    for (const wake of waiting) wake();
  }
}
