/**
 * The client's side of DERP: packets to and from nodes, known by their keys, through a relay.
 *
 * The relay is given what WireGuard has encrypted. It can drop, delay, repeat and reorder packets, and it can
 * lie about who sent one; it can neither read nor make one.
 */

import { x25519 } from "@noble/curves/ed25519.js";
import { Box } from "./box.ts";
import { ascii, ByteQueue, concat, equal, ProtocolError, putU32, u32 } from "./bytes.ts";

const KEY = 32;
const HEADER = 5;
const MAGIC = new Uint8Array([0x44, 0x45, 0x52, 0x50, 0xf0, 0x9f, 0x94, 0x91]);

/** The longest packet that a relay passes on, in bytes. */
export const MAX_PACKET = 65536;
/** The longest message of a WebSocket that a stock relay reads; it ends the connection at a longer one. */
const MAX_MESSAGE = 32_768;
/** A longer frame is no relay's: the connection ends. */
const MAX_FRAME = 1 << 20;

const FRAME = {
  serverKey: 0x01,
  clientInfo: 0x02,
  serverInfo: 0x03,
  sendPacket: 0x04,
  recvPacket: 0x05,
  notePreferred: 0x07,
  peerGone: 0x08,
  ping: 0x12,
  pong: 0x13,
  health: 0x14,
  restarting: 0x15,
} as const;

/** What a relay told. Keys are 32 bytes; ``reconnectIn`` and ``tryFor`` are milliseconds. */
export type DerpEvent =
  | { readonly kind: "ready" }
  | { readonly kind: "packet"; readonly from: Uint8Array; readonly packet: Uint8Array }
  | { readonly kind: "gone"; readonly peer: Uint8Array }
  | { readonly kind: "health"; readonly problem: string }
  | { readonly kind: "pong" }
  | { readonly kind: "restarting"; readonly reconnectIn: number; readonly tryFor: number };

/**
 * One connection to one relay.
 *
 * The bytes of the WebSocket go into ``receive`` in order, however they are cut; what ``dataToSend`` gives goes
 * out. A ProtocolError ends the connection: nothing that comes after it can be understood.
 */
export class DerpClient {
  readonly #privateKey: Uint8Array;
  readonly #nonce: Uint8Array;
  readonly #home: boolean;
  readonly #incoming = new ByteQueue();
  #events: DerpEvent[] = [];
  #outgoing: Uint8Array[] = [];
  #box: Box | undefined;
  #ready = false;
  /** Bytes a second and at once that this relay lets us send; undefined is as many as we like. */
  #allowance: { readonly rate: number; readonly burst: number; left: number; at: number } | undefined;
  /** Packets not sent, because the relay's own limit forbids it. */
  dropped = 0;

  /** ``nonce`` is 24 random bytes; ``home`` says that others reach us here. */
  constructor(options: { privateKey: Uint8Array; nonce: Uint8Array; home: boolean }) {
    this.#privateKey = options.privateKey;
    this.#nonce = options.nonce;
    this.#home = options.home;
  }

  /** Whether packets may be sent: the relay has let us in. */
  get ready(): boolean {
    return this.#ready;
  }

  receive(data: Uint8Array, now: number): void {
    this.#incoming.push(data);
    for (;;) {
      const header = this.#incoming.peek(HEADER);
      if (header === undefined) return;
      const length = u32(header, 1);
      if (length > MAX_FRAME) throw new ProtocolError(`a frame of ${length} bytes from the relay`);
      const frame = this.#incoming.take(HEADER + length);
      if (frame === undefined) return;
      this.#handle(frame[0]!, frame.subarray(HEADER), now);
    }
  }

  /** Give a packet to the relay for a node; it may be lost like any packet. RangeError for one that is too long. */
  send(to: Uint8Array, packet: Uint8Array, now: number): void {
    if (packet.length > MAX_PACKET) throw new RangeError(`a packet of ${packet.length} bytes`);
    if (!this.#ready || !this.#allowed(packet.length, now)) {
      this.dropped++;
      return;
    }
    this.#outgoing.push(frame(FRAME.sendPacket, to, packet));
  }

  /** Ask whether the relay is still there: an event ``pong`` says so. */
  ping(): void {
    if (this.#ready) this.#outgoing.push(frame(FRAME.ping, new Uint8Array(8)));
  }

  events(): DerpEvent[] {
    const events = this.#events;
    this.#events = [];
    return events;
  }

  /**
   * What is to be sent next, undefined where nothing is: to be asked until then.
   *
   * Joined, since one message for many packets costs a browser far less than many; but no message is longer than what a stock
   * relay reads at once. Borders of messages mean nothing, so a frame may be cut.
   */
  dataToSend(): Uint8Array | undefined {
    const [first] = this.#outgoing;
    if (first === undefined) return undefined;
    if (first.length > MAX_MESSAGE) {
      this.#outgoing[0] = first.subarray(MAX_MESSAGE);
      return first.subarray(0, MAX_MESSAGE);
    }
    let length = 0;
    let count = 0;
    for (const frame of this.#outgoing) {
      if (length + frame.length > MAX_MESSAGE) break;
      length += frame.length;
      count++;
    }
    return count === 1 ? this.#outgoing.shift() : concat(...this.#outgoing.splice(0, count));
  }

  #handle(type: number, payload: Uint8Array, now: number): void {
    switch (type) {
      case FRAME.serverKey:
        this.#introduce(payload);
        return;
      case FRAME.serverInfo:
        this.#admitted(payload, now);
        return;
      case FRAME.recvPacket:
        need(payload, KEY, "a packet");
        this.#events.push({ kind: "packet", from: payload.subarray(0, KEY), packet: payload.subarray(KEY) });
        return;
      case FRAME.peerGone:
        need(payload, KEY, "a notice that a peer is gone");
        this.#events.push({ kind: "gone", peer: payload.slice(0, KEY) });
        return;
      case FRAME.ping:
        // Bounded, since the relay decides how many there are and each is kept until it is sent.
        if (payload.length <= 1000 && this.#outgoing.length < 1024)
          this.#outgoing.push(frame(FRAME.pong, payload));
        return;
      case FRAME.pong:
        this.#events.push({ kind: "pong" });
        return;
      case FRAME.health:
        this.#events.push({ kind: "health", problem: printable(payload) });
        return;
      case FRAME.restarting:
        need(payload, 8, "a notice of a restart");
        this.#events.push({ kind: "restarting", reconnectIn: u32(payload, 0), tryFor: u32(payload, 4) });
        return;
      default: // keep-alives, and what later relays may add
        return;
    }
  }

  #introduce(payload: Uint8Array): void {
    need(payload, MAGIC.length + KEY, "the relay's key");
    if (!equal(payload.subarray(0, MAGIC.length), MAGIC)) throw new ProtocolError("this is no DERP relay");
    if (this.#box !== undefined) return; // once; a second nonce there is not
    this.#box = new Box(this.#privateKey, payload.subarray(MAGIC.length, MAGIC.length + KEY));
    const info = this.#box.seal(this.#nonce, ascii('{"version":2,"CanAckPings":true}'));
    this.#outgoing.push(frame(FRAME.clientInfo, x25519.getPublicKey(this.#privateKey), info));
  }

  #admitted(payload: Uint8Array, now: number): void {
    if (this.#box === undefined) throw new ProtocolError("the relay admits before it names its key");
    if (this.#ready) return;
    const info = object(this.#box.open(payload));
    const rate = info.TokenBucketBytesPerSecond;
    const burst = info.TokenBucketBytesBurst;
    if (typeof rate === "number" && rate > 0 && typeof burst === "number" && burst > 0) {
      this.#allowance = { rate, burst, left: burst, at: now };
    }
    this.#ready = true;
    if (this.#home) this.#outgoing.push(frame(FRAME.notePreferred, new Uint8Array([1])));
    this.#events.push({ kind: "ready" });
  }

  #allowed(size: number, now: number): boolean {
    const bucket = this.#allowance;
    if (bucket === undefined) return true;
    bucket.left = Math.min(bucket.burst, bucket.left + ((now - bucket.at) * bucket.rate) / 1000);
    bucket.at = now;
    if (bucket.left < size) return false;
    bucket.left -= size;
    return true;
  }
}

function frame(type: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const header = new Uint8Array(HEADER);
  header[0] = type;
  let length = 0;
  for (const part of parts) length += part.length;
  putU32(header, 1, length);
  return concat(header, ...parts);
}

function need(payload: Uint8Array, size: number, what: string): void {
  if (payload.length < size)
    throw new ProtocolError(`${what} of ${payload.length} bytes, at least ${size} expected`);
}

/** What the relay says, for people: no control characters, and not without end. */
function printable(data: Uint8Array, limit = 500): string {
  let text = "";
  for (const value of data.subarray(0, limit))
    text += value >= 32 && value < 127 ? String.fromCharCode(value) : "?";
  return text;
}

function object(data: Uint8Array): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(printable(data, 65536));
  } catch {
    throw new ProtocolError("the relay's information is no JSON");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new ProtocolError("the relay's information is no object");
  }
  return value as Record<string, unknown>;
}
