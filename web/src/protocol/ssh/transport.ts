/**
 * The transport of SSH (RFC 4253), the client's side: versions, keys, and packets that nobody else can read.
 *
 * Works over any pair of streams. Nothing of what the server says is handed on before its key has been accepted.
 */

import { sha256 } from "@noble/hashes/sha2.js";
import { ascii, ByteQueue, concat, ProtocolError, putU32, u32 } from "../bytes.ts";
import { CIPHERS, cipher, type PacketCipher, plain } from "./ciphers.ts";
import { SshError } from "./errors.ts";
import { verify } from "./hostkeys.ts";
import { type Agreement, agree, begin, cipherNames, derive, offer, readOffer } from "./kex.ts";
import type { Primitives } from "./primitives.ts";
import { Fields, fields, MESSAGE } from "./wire.ts";

const VERSION = "SSH-2.0-doorward";
/** RFC 4253 section 6.1 asks for 35,000; OpenSSH sends up to 256 KiB. */
const MAX_PACKET = 1 << 18;
const MAX_LINE = 255;
const MAX_LINES = 50;
/** New keys after so many bytes either way (RFC 4253 section 9). */
const REKEY_BYTES = 2 ** 30;

/** Both directions of a connection. */
export interface Duplex {
  /** The next bytes, at least one; undefined once the other side has finished. */
  read(): Promise<Uint8Array | undefined>;
  /** Resolves when there is room for more; rejects when the connection has ended. */
  write(data: Uint8Array): Promise<void>;
}

export interface TransportOptions {
  readonly stream: Duplex;
  readonly primitives: Primitives;
  /** Bytes that nobody can guess. */
  readonly entropy: (size: number) => Uint8Array;
  /** The kinds of host keys that are known for this host, as `ssh-ed25519`; undefined where none are. */
  readonly knownKinds?: readonly string[] | undefined;
  /** Whether this is the host's key. Asked before anything is sent that an impostor could use. */
  readonly accept: (key: Uint8Array) => boolean | Promise<boolean>;
  /** The ciphers to offer, best first; all of them where it is not said. */
  readonly ciphers?: readonly string[] | undefined;
}

/** One direction: its cipher, and the number of the next packet. */
interface Direction {
  cipher: PacketCipher;
  sequence: number;
  bytes: number;
}

export class Transport {
  readonly #options: TransportOptions;
  readonly #incoming = new ByteQueue();
  readonly #in: Direction = { cipher: plain, sequence: 0, bytes: 0 };
  readonly #out: Direction = { cipher: plain, sequence: 0, bytes: 0 };
  #opened: { readonly packet: Uint8Array | Promise<Uint8Array> }[] = []; // read ahead, in order
  #session: Uint8Array | undefined;
  #ours = VERSION;
  #theirs = "";
  #pending: Uint8Array | undefined; // our offer, while an exchange is under way
  #held: {
    readonly payload: Uint8Array;
    readonly sent: () => void;
    readonly failed: (why: unknown) => void;
  }[] = [];
  #last: Promise<unknown> = Promise.resolve(); // what was sent before, so that nothing overtakes it
  #strict = false; // whether packets are counted anew with each new key
  #extensions = new Map<string, string>();

  constructor(options: TransportOptions) {
    this.#options = options;
  }

  /** The hash of the first exchange, which names this connection. */
  get session(): Uint8Array {
    if (this.#session === undefined) throw new Error("no keys yet");
    return this.#session;
  }

  /** The server's name for itself, as `SSH-2.0-OpenSSH_9.2`. */
  get serverVersion(): string {
    return this.#theirs;
  }

  /** What the server tells of itself (RFC 8308), as `server-sig-algs`. */
  get extensions(): ReadonlyMap<string, string> {
    return this.#extensions;
  }

  /** Versions and first keys; SshError where they cannot be, or the host is not who it should be. */
  async start(): Promise<void> {
    await this.#options.stream.write(ascii(`${this.#ours}\r\n`));
    // Sent with the version, not after the server's: that saves the time to there and back.
    const first = this.#begin();
    this.#theirs = await this.#version();
    await first;
    const packet = await this.#packet();
    if (packet[0] !== MESSAGE.kexInit) throw new SshError("protocol", `message ${packet[0]} before any keys`);
    await this.#exchange(packet);
  }

  /** The next message that is not the transport's own business; undefined once the server has gone without a word. */
  async receive(): Promise<Uint8Array | undefined> {
    for (;;) {
      let payload: Uint8Array;
      try {
        payload = await this.#packet();
      } catch (problem) {
        if (problem instanceof SshError && problem.failure === "lost") return undefined;
        throw problem;
      }
      switch (payload[0]) {
        case MESSAGE.ignore:
        case MESSAGE.debug:
        case MESSAGE.unimplemented:
          break;
        case MESSAGE.disconnect:
          throw said(payload);
        case MESSAGE.extInfo:
          this.#extended(payload);
          break;
        case MESSAGE.kexInit:
          await this.#exchange(payload);
          break;
        default:
          if (this.#in.bytes > REKEY_BYTES || this.#out.bytes > REKEY_BYTES) await this.rekey();
          return payload;
      }
    }
  }

  /** Send a message; it is held back while keys change. Resolves when there is room for more. */
  send(payload: Uint8Array): Promise<void> {
    if (this.#pending !== undefined) {
      return new Promise((sent, failed) => {
        this.#held.push({ payload, sent, failed });
      });
    }
    return this.#now(payload);
  }

  /** Ask for new keys; they are there some messages later. */
  async rekey(): Promise<void> {
    if (this.#pending === undefined) await this.#begin();
  }

  /** Say that this is the end. */
  async disconnect(): Promise<void> {
    await this.#now(fields(MESSAGE.disconnect, { u32: 11 }, "", ""));
  }

  async #version(): Promise<string> {
    for (let lines = 0; lines < MAX_LINES; lines++) {
      const line = await this.#line();
      if (!line.startsWith("SSH-")) continue;
      if (/^SSH-(2\.0|1\.99)-[\x20-\x7e]+$/.test(line)) return line;
      throw new SshError("protocol", `the server speaks ${JSON.stringify(line.slice(0, 40))}, not SSH 2`);
    }
    throw new SshError("protocol", "this is no SSH server");
  }

  async #line(): Promise<string> {
    let line = "";
    for (;;) {
      const byte = (await this.#bytes(1))[0]!;
      if (byte === 10) return line.endsWith("\r") ? line.slice(0, -1) : line;
      if (line.length >= MAX_LINE) throw new SshError("protocol", "this is no SSH server");
      line += String.fromCharCode(byte);
    }
  }

  async #bytes(size: number): Promise<Uint8Array> {
    for (;;) {
      const data = this.#incoming.take(size);
      if (data !== undefined) return data;
      await this.#more();
    }
  }

  async #more(): Promise<void> {
    const data = await this.#options.stream.read();
    if (data === undefined) throw new SshError("lost", "the connection ended");
    this.#incoming.push(data);
  }

  /** The payload of the next packet. Ones that are here already are opened at once, so that a browser works on several. */
  async #packet(): Promise<Uint8Array> {
    for (;;) {
      while (this.#openNext());
      const next = this.#opened.shift();
      if (next === undefined) {
        await this.#more();
        continue;
      }
      const payload = strip(await next.packet);
      if (payload.length === 0) throw new SshError("protocol", "an empty message");
      return payload;
    }
  }

  #openNext(): boolean {
    // What follows new keys must wait for them, and only a message itself says that it brings new ones.
    if (this.#opened.length >= (this.#session === undefined || this.#pending !== undefined ? 1 : 64))
      return false;
    const direction = this.#in;
    const head = this.#incoming.peek(4);
    if (head === undefined) return false;
    const length = direction.cipher.length(direction.sequence, head);
    if (
      length < 5 ||
      length > MAX_PACKET ||
      length % direction.cipher.block !== (direction.cipher === plain ? 4 : 0)
    ) {
      throw new SshError("protocol", `a packet of ${length} bytes`);
    }
    const sealed = this.#incoming.take(4 + length + direction.cipher.tag);
    if (sealed === undefined) return false;
    const packet = direction.cipher.open(direction.sequence, sealed);
    if (packet instanceof Promise) packet.catch(() => undefined); // it is looked at in its turn
    this.#opened.push({ packet });
    direction.sequence = (direction.sequence + 1) >>> 0;
    direction.bytes += length;
    return true;
  }

  #now(payload: Uint8Array): Promise<void> {
    const direction = this.#out;
    const sealed = direction.cipher.seal(
      direction.sequence,
      pack(payload, direction.cipher, this.#options.entropy),
    );
    direction.sequence = (direction.sequence + 1) >>> 0;
    direction.bytes += payload.length;
    const before = this.#last;
    const done = (async () => {
      const data = await sealed;
      await before;
      await this.#options.stream.write(data);
    })();
    this.#last = done.catch(() => undefined);
    return done;
  }

  #begin(): Promise<void> {
    const payload = offer(
      this.#options.entropy(16),
      this.#options.knownKinds,
      this.#options.ciphers ?? cipherNames(),
    );
    this.#pending = payload;
    return this.#now(payload);
  }

  async #exchange(theirs: Uint8Array): Promise<void> {
    const first = this.#session === undefined;
    if (this.#pending === undefined) await this.#begin();
    const ours = this.#pending!;
    const offered = readOffer(theirs);
    const agreement = agree(ours, offered);
    // Said in the first exchange and true for all of them: some servers say it only there.
    if (first) this.#strict = agreement.strict;
    if (first && this.#strict && this.#in.sequence !== 1)
      throw new SshError("protocol", "a message before the first keys");
    const exchange = begin(agreement.exchange, this.#options.entropy);
    await this.#now(fields(MESSAGE.kexInitReply, exchange.ours));
    // A guess at our choice that was wrong is to be passed over (RFC 4253 section 7).
    const wrong = offered.exchanges[0] !== agreement.exchange || offered.hostKeys[0] !== agreement.hostKey;
    if (offered.guessed && wrong) await this.#packet();
    const reply = new Fields(await this.#expect(MESSAGE.kexReply, first && this.#strict));
    reply.byte();
    const key = reply.string();
    const answer = reply.string();
    const signature = reply.string();
    const secret = exchange.secret(answer);
    const hash = sha256(
      concat(fields(this.#ours, this.#theirs, ours, theirs, key, exchange.ours, answer), secret),
    );
    if (!(await verify(agreement.hostKey, key, signature, hash, this.#options.primitives))) {
      throw new SshError("signature", "the host's signature is not that of the key it shows");
    }
    if (!(await this.#options.accept(key)))
      throw new SshError("host-key", "the host's key is not the one expected");
    this.#session ??= hash;
    await this.#switch(agreement, secret, hash);
    this.#pending = undefined;
    const held = this.#held;
    this.#held = [];
    for (const { payload, sent, failed } of held) this.#now(payload).then(sent, failed);
  }

  /** The next message, which must be this one; before the first keys nothing may come between where both are strict. */
  async #expect(number: number, strict: boolean): Promise<Uint8Array> {
    for (;;) {
      const payload = await this.#packet();
      if (payload[0] === number) return payload;
      if (payload[0] === MESSAGE.disconnect) throw said(payload);
      // Data that the server had sent before it saw that keys change comes in between; it is kept by its channel only
      // if it was sent before the server's own offer, and such never arrive here.
      if (strict || ![MESSAGE.ignore, MESSAGE.debug, MESSAGE.unimplemented].includes(payload[0] as 2)) {
        throw new SshError("protocol", `message ${payload[0]} where ${number} was expected`);
      }
    }
  }

  async #switch(agreement: Agreement, secret: Uint8Array, hash: Uint8Array): Promise<void> {
    const make = (name: string, key: string, iv: string) => {
      const sizes = CIPHERS.get(name)!;
      const from = (letter: string, size: number) => derive(secret, hash, letter, this.session, size);
      return cipher(name, from(key, sizes.key), from(iv, sizes.iv), this.#options.primitives);
    };
    await this.#now(fields(MESSAGE.newKeys));
    this.#out.cipher = await make(agreement.cipherOut, "C", "A");
    this.#out.bytes = 0;
    if (this.#strict) this.#out.sequence = 0;
    const incoming = await make(agreement.cipherIn, "D", "B");
    await this.#expect(MESSAGE.newKeys, this.#strict);
    this.#in.cipher = incoming;
    this.#in.bytes = 0;
    if (this.#strict) this.#in.sequence = 0;
  }

  #extended(payload: Uint8Array): void {
    const reader = new Fields(payload, 1);
    for (let count = Math.min(reader.u32(), 100); count > 0; count--) {
      this.#extensions.set(reader.text(), reader.text());
    }
  }
}

/** A packet around a message: its length, its padding's length, itself, and padding that tells nothing. */
function pack(payload: Uint8Array, way: PacketCipher, entropy: (size: number) => Uint8Array): Uint8Array {
  const counted = way === plain ? 5 + payload.length : 1 + payload.length;
  let padding = way.block - (counted % way.block);
  if (padding < 4) padding += way.block;
  const packet = new Uint8Array(5 + payload.length + padding);
  putU32(packet, 0, 1 + payload.length + padding);
  packet[4] = padding;
  packet.set(payload, 5);
  packet.set(entropy(padding), 5 + payload.length);
  return packet;
}

function strip(packet: Uint8Array): Uint8Array {
  const length = u32(packet, 0);
  const padding = packet[4]!;
  if (padding < 4 || padding + 1 > length) throw new ProtocolError("padding that cannot be");
  return packet.subarray(5, 4 + length - padding);
}

function said(payload: Uint8Array): SshError {
  const reader = new Fields(payload, 1);
  const reason = reader.u32();
  const text = reader.text().slice(0, 400);
  return new SshError("disconnected", text || `the server ended the connection (reason ${reason})`);
}
