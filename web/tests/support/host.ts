/** A host of SSH that serves as sshd does, and as a test tells it to. */

import { ed25519 } from "@noble/curves/ed25519.js";
import { ascii } from "../../src/protocol/bytes.ts";
import type { Duplex } from "../../src/protocol/ssh/transport.ts";
import { type Field, Fields, fields, MESSAGE } from "../../src/protocol/ssh/wire.ts";
import { TestServer } from "./sshserver.ts";

export interface HostOptions {
  /** What is shown while somebody signs in. */
  banners?: string[];
  /** Whom it lets in by being asked; others are told these ways. */
  refuses?: string[];
  /** What is done with everything that is typed; echoed where it is not said. */
  typed?: (host: Host, data: Uint8Array) => void | Promise<void>;
  /** What is done when a shell is asked for. */
  shell?: (host: Host) => void | Promise<void>;
  /** Its key, where it is not the usual one. */
  key?: number;
  /** Until then nobody is let in. */
  waits?: Promise<void>;
  /** In place of all that it does. */
  instead?: (host: Host, stream: Duplex) => Promise<void>;
  window?: number;
}

export class Host {
  readonly server: TestServer;
  readonly requests: string[] = [];
  readonly sizes: [number, number][] = [];
  /** The size that the terminal began with. */
  begun: [number, number] | undefined;
  readonly typed: number[] = [];
  readonly #stream: Duplex & { close(): void };
  readonly #options: HostOptions;
  #channel = 0; // the tab's number of the session
  /** How much may be sent to the tab. */
  credit = 0;
  #starved: (() => void)[] = [];
  over = false;

  constructor(stream: Duplex & { close(): void }, options: HostOptions) {
    this.#stream = stream;
    this.#options = options;
    this.server = new TestServer(stream, { key: options.key ?? 3 });
  }

  /** The key that it shows. */
  static blob(options: HostOptions): Uint8Array {
    return fields("ssh-ed25519", ed25519.getPublicKey(new Uint8Array(32).fill(options.key ?? 3)));
  }

  /** Serve until the other side has gone. Never rejects. */
  async run(): Promise<void> {
    try {
      if (this.#options.instead !== undefined) return await this.#options.instead(this, this.#stream);
      await this.server.start();
      for (;;) await this.#message(await this.server.receive());
    } catch {
      // It has gone, or does what it may not.
    } finally {
      this.over = true;
    }
  }

  /** Print something, as far as the tab has room; resolves when all is sent. */
  async print(data: Uint8Array | string): Promise<void> {
    const bytes = typeof data === "string" ? ascii(data) : data;
    for (let at = 0; at < bytes.length; ) {
      while (this.credit === 0) {
        await new Promise<void>((wake) => {
          this.#starved.push(wake);
        });
      }
      const size = Math.min(bytes.length - at, this.credit, 16_384);
      this.credit -= size;
      await this.#say(MESSAGE.channelData, bytes.subarray(at, at + size));
      at += size;
    }
  }

  async printError(text: string): Promise<void> {
    await this.#say(MESSAGE.channelExtendedData, { u32: 1 }, text);
  }

  /** The tab may send so many bytes more. */
  async widen(bytes: number): Promise<void> {
    await this.#say(MESSAGE.channelWindowAdjust, { u32: bytes });
  }

  /** The shell ends. */
  async exit(status: number): Promise<void> {
    await this.#say(MESSAGE.channelRequest, "exit-status", false, { u32: status });
    await this.#say(MESSAGE.channelEof);
    await this.#say(MESSAGE.channelClose);
  }

  /** The connection ends, in order as far as TCP can tell. */
  hangUp(): void {
    this.#stream.close();
  }

  async #say(number: number, ...more: Field[]): Promise<void> {
    await this.server.send(fields(number, { u32: this.#channel }, ...more));
  }

  async #message(payload: Uint8Array): Promise<void> {
    const reader = new Fields(payload, 1);
    switch (payload[0]) {
      case MESSAGE.serviceRequest:
        await this.server.send(fields(MESSAGE.serviceAccept, "ssh-userauth"));
        return;
      case MESSAGE.authRequest:
        for (const banner of this.#options.banners ?? [])
          await this.server.send(fields(MESSAGE.authBanner, banner, ""));
        await this.#options.waits;
        if (this.#options.refuses === undefined) await this.server.send(fields(MESSAGE.authSuccess));
        else await this.server.send(fields(MESSAGE.authFailure, this.#options.refuses.join(","), false));
        return;
      case MESSAGE.channelOpen:
        reader.text();
        this.#channel = reader.u32();
        this.credit = reader.u32();
        await this.server.send(
          fields(
            MESSAGE.channelOpenConfirmation,
            { u32: this.#channel },
            { u32: 9 },
            { u32: this.#options.window ?? 1 << 20 },
            { u32: 32_768 },
          ),
        );
        return;
      case MESSAGE.channelRequest:
        reader.u32();
        await this.#request(reader);
        return;
      case MESSAGE.channelWindowAdjust:
        reader.u32();
        this.credit += reader.u32();
        for (const wake of this.#starved.splice(0)) wake();
        return;
      case MESSAGE.channelData: {
        reader.u32();
        const data = reader.string().slice();
        this.typed.push(data.length);
        void (this.#options.typed ?? ((host, what) => host.print(what)))(this, data);
        return;
      }
      case MESSAGE.globalRequest:
        await this.server.send(fields(MESSAGE.requestFailure));
        return;
      case MESSAGE.kexInit:
        await this.server.exchange(payload);
        return;
      case MESSAGE.disconnect:
        this.hangUp();
        throw new Error("the tab has gone");
    }
  }

  async #request(reader: Fields): Promise<void> {
    const kind = reader.text();
    const answer = reader.boolean();
    this.requests.push(kind);
    if (kind === "pty-req") {
      reader.text();
      this.begun = [reader.u32(), reader.u32()];
    }
    if (kind === "window-change") this.sizes.push([reader.u32(), reader.u32()]);
    if (answer) await this.#say(kind === "env" ? MESSAGE.channelFailure : MESSAGE.channelSuccess);
    if (kind === "shell") void (this.#options.shell ?? ((host) => host.print("$ ")))(this);
  }
}
