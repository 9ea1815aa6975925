/** The least of a shell around a link, for tests in Node: one relay, one peer, real time. */

import { DerpClient } from "../../src/protocol/derp.ts";
import { Link } from "../../src/protocol/link.ts";
import type { Duplex } from "../../src/protocol/ssh/transport.ts";
import type { TcpConnection } from "../../src/protocol/tcp/connection.ts";

/** What may be sent and received over one relay, with the power to lose packets on the way. */
export class Wire {
  readonly link: Link;
  #derp!: DerpClient;
  #socket!: WebSocket;
  readonly #privateKey: Uint8Array;
  readonly #peer: Uint8Array;
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #watchers = new Set<() => void>();
  /** Whether the next packet is lost; ``out`` says which way it goes. */
  lose: (out: boolean) => boolean = () => false;

  private constructor(options: {
    privateKey: Uint8Array;
    peer: Uint8Array;
    local: Uint8Array;
    remote: Uint8Array;
  }) {
    this.#privateKey = options.privateKey;
    this.#peer = options.peer;
    this.link = new Link({ ...options, entropy: random, epoch: performance.timeOrigin });
  }

  static async open(
    url: string,
    options: { privateKey: Uint8Array; peer: Uint8Array; local: Uint8Array; remote: Uint8Array },
  ): Promise<Wire> {
    const wire = new Wire(options);
    await wire.dial(url);
    wire.link.tunnel.open(performance.now());
    wire.pump();
    return wire;
  }

  /** Connect with the relay, also once more; rejects where it lets nobody with this key in. */
  async dial(url: string): Promise<void> {
    const socket = new WebSocket(`${url.replace(/^http/, "ws")}/derp`, "derp");
    const derp = new DerpClient({ privateKey: this.#privateKey, nonce: random(24), home: true });
    this.#socket = socket;
    this.#derp = derp;
    socket.binaryType = "arraybuffer";
    let gone = false;
    socket.onclose = () => {
      gone = true;
    };
    socket.onmessage = (event) => {
      if (this.#derp === derp) this.#arrived(new Uint8Array(event.data as ArrayBuffer));
    };
    await new Promise<void>((resolve, reject) => {
      socket.onopen = () => resolve();
      socket.onerror = () => reject(new Error(`no relay at ${url}`));
    });
    while (!derp.ready) {
      if (gone) throw new Error("the relay lets nobody with this key in");
      await new Promise((wait) => setTimeout(wait, 1));
    }
  }

  /** Whether the relay still listens. */
  get connected(): boolean {
    return this.#socket.readyState === WebSocket.OPEN;
  }

  /** A connection to a port of the peer; rejects when there will be none. */
  async connect(port: number): Promise<Stream> {
    const connection = this.link.connect(port, performance.now());
    const stream = new Stream(this, connection);
    this.#watchers.add(() => stream.look());
    this.pump();
    await stream.opened;
    return stream;
  }

  /** Send what is to be sent, and tell who waits. */
  pump(): void {
    const now = performance.now();
    for (const watch of this.#watchers) watch();
    for (const message of this.link.dataToSend(now)) {
      if (!this.lose(true)) this.#derp.send(this.#peer, message, now);
    }
    for (let data = this.#derp.dataToSend(); data !== undefined; data = this.#derp.dataToSend())
      if (this.connected) this.#socket.send(data as Uint8Array<ArrayBuffer>);
    clearTimeout(this.#timer);
    const at = this.link.nextDeadline();
    if (at === undefined) return;
    this.#timer = setTimeout(
      () => {
        this.link.onDeadline(performance.now());
        this.pump();
      },
      Math.max(0, Math.ceil(at - now)),
    );
  }

  /** The relay's connection ends; what was begun may go on over another one. */
  cut(code?: number): void {
    this.#socket.close(code);
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#socket.close();
  }

  #arrived(data: Uint8Array): void {
    const now = performance.now();
    this.#derp.receive(data, now);
    for (const event of this.#derp.events()) {
      if (event.kind === "packet" && !this.lose(false)) this.link.receive(event.packet, now);
    }
    this.pump();
  }
}

/** A TCP connection as a pair of streams. */
export class Stream implements Duplex {
  readonly #wire: Wire;
  readonly connection: TcpConnection;
  readonly opened: Promise<void>;
  #open!: () => void;
  #fail!: (why: Error) => void;
  #waiting: (() => void)[] = [];
  #finished = false;
  #closed: string | undefined;

  constructor(wire: Wire, connection: TcpConnection) {
    this.#wire = wire;
    this.connection = connection;
    this.opened = new Promise((resolve, reject) => {
      this.#open = resolve;
      this.#fail = reject;
    });
  }

  look(): void {
    for (const event of this.connection.events()) {
      if (event.kind === "open") this.#open();
      if (event.kind === "finished") this.#finished = true;
      if (event.kind === "closed") {
        this.#closed = event.why;
        this.#fail(new Error(`the connection is ${event.why}`));
      }
      for (const wake of this.#waiting.splice(0)) wake();
    }
  }

  async read(): Promise<Uint8Array | undefined> {
    for (;;) {
      const data = this.connection.read();
      if (data.length > 0) {
        this.#later();
        return data;
      }
      if (this.#finished || this.#closed !== undefined) return undefined;
      await this.#change();
    }
  }

  async write(data: Uint8Array): Promise<void> {
    for (let at = 0; at < data.length; ) {
      if (this.#closed !== undefined) throw new Error(`the connection is ${this.#closed}`);
      const size = Math.min(this.connection.room, data.length - at);
      if (size === 0) {
        await this.#change();
        continue;
      }
      this.connection.write(data.subarray(at, at + size));
      at += size;
      this.#later();
    }
  }

  close(): void {
    this.connection.close();
    this.#wire.pump();
  }

  #scheduled = false;

  /** Once for all that is read and written in one turn. */
  #later(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      this.#wire.pump();
    });
  }

  #change(): Promise<void> {
    return new Promise((wake) => {
      this.#waiting.push(wake);
    });
  }
}

export function random(size: number): Uint8Array {
  return crypto.getRandomValues(new Uint8Array(size));
}
