/** A TCP connection as two streams. */

import type { Duplex } from "../protocol/ssh/transport.ts";
import type { Ending, TcpConnection } from "../protocol/tcp/connection.ts";

/** The connection cannot be used; ``why`` is how it ended. */
export class Disconnected extends Error {
  override readonly name = "Disconnected";
  readonly why: Ending;

  constructor(why: Ending) {
    super(`the connection is over: ${why}`);
    this.why = why;
  }
}

export class Stream implements Duplex {
  readonly #connection: TcpConnection;
  readonly #moved: () => void;
  /** Resolves when the peer has answered; rejects with Disconnected where it will not. */
  readonly opened: Promise<void>;
  #open!: () => void;
  #fail!: (why: Disconnected) => void;
  #waiting: (() => void)[] = [];
  #finished = false;
  #over: Ending | undefined;

  /** ``moved`` is told when there is something to be sent. */
  constructor(connection: TcpConnection, moved: () => void) {
    this.#connection = connection;
    this.#moved = moved;
    this.opened = new Promise((resolve, reject) => {
      this.#open = resolve;
      this.#fail = reject;
    });
    this.opened.catch(() => undefined);
  }

  /** How it ended, once it has. */
  get over(): Ending | undefined {
    return this.#over;
  }

  /** What has happened to the connection meanwhile. */
  look(): void {
    for (const event of this.#connection.events()) {
      if (event.kind === "open") this.#open();
      else if (event.kind === "finished") this.#finished = true;
      else if (event.kind === "closed") {
        this.#over = event.why;
        this.#fail(new Disconnected(event.why));
      }
      for (const wake of this.#waiting.splice(0)) wake();
    }
  }

  /** The next bytes; undefined where the peer has finished, or the connection has ended. */
  async read(): Promise<Uint8Array | undefined> {
    for (;;) {
      if (this.#connection.readable > 0) {
        const data = this.#connection.read();
        this.#moved();
        return data;
      }
      if (this.#finished || this.#over !== undefined) return undefined;
      await this.#change();
    }
  }

  async write(data: Uint8Array): Promise<void> {
    for (let at = 0; at < data.length; ) {
      if (this.#over !== undefined) throw new Disconnected(this.#over);
      const size = Math.min(this.#connection.room, data.length - at);
      if (size === 0) {
        await this.#change();
        continue;
      }
      this.#connection.write(data.subarray(at, at + size));
      at += size;
      this.#moved();
    }
  }

  /** No more from us; what was written still arrives. */
  close(): void {
    this.#connection.close();
    this.#moved();
  }

  /** End it at once. */
  abort(): void {
    this.#connection.abort();
    this.#moved();
  }

  #change(): Promise<void> {
    return new Promise((wake) => {
      this.#waiting.push(wake);
    });
  }
}
