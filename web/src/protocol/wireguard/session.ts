/** One session of a tunnel: a pair of keys, what may still be sent with them, and what has been seen already. */

import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { ProtocolError, putU32le, u32le } from "../bytes.ts";
import type { Keys } from "./noise.ts";

const HEADER = 16;
const TAG = 16;

/** A counter beyond this is refused; far below where a number stops counting by one. */
const LAST_COUNTER = 2 ** 52;

/**
 * The window of counters already seen (RFC 6479): what comes twice is refused, and so is what comes too late.
 *
 * Wider than the 2,048 that WireGuard itself keeps, since a relay may hold many packets back.
 */
export class ReplayWindow {
  static readonly #WORDS = 256;
  /** How far behind the newest a packet may come. */
  static readonly SIZE = (ReplayWindow.#WORDS - 1) * 32;
  readonly #seen = new Uint32Array(ReplayWindow.#WORDS);
  #newest = -1;

  /** Whether this counter is new; from now on it is not. Only for what has been proven to be the peer's. */
  accept(counter: number): boolean {
    const word = Math.floor(counter / 32);
    if (counter > this.#newest) {
      const last = this.#newest < 0 ? -1 : Math.floor(this.#newest / 32);
      const clear = Math.min(word - last, ReplayWindow.#WORDS);
      for (let step = 0; step < clear; step++) this.#seen[(word - step) % ReplayWindow.#WORDS] = 0;
      this.#newest = counter;
    } else if (this.#newest - counter >= ReplayWindow.SIZE) {
      return false;
    }
    const at = word % ReplayWindow.#WORDS;
    const bit = 1 << (counter % 32);
    if ((this.#seen[at]! & bit) !== 0) return false;
    this.#seen[at]! |= bit;
    return true;
  }
}

export class Session {
  readonly local: number;
  readonly remote: number;
  readonly initiator: boolean;
  readonly born: number;
  readonly #keys: Keys;
  readonly #nonce = new Uint8Array(12);
  readonly #window = new ReplayWindow();
  #next = 0;

  /** ``local`` is our number for it, ``remote`` the peer's; ``born`` when it came about, in milliseconds. */
  constructor(keys: Keys, local: number, remote: number, initiator: boolean, born: number) {
    this.#keys = keys;
    this.local = local;
    this.remote = remote;
    this.initiator = initiator;
    this.born = born;
  }

  /** How many messages were sent with it. */
  get sent(): number {
    return this.#next;
  }

  /** A message with this IP packet inside, padded so that its length tells less; an empty one keeps the session alive. */
  seal(packet: Uint8Array): Uint8Array {
    const padded = Math.ceil(packet.length / 16) * 16;
    const message = new Uint8Array(HEADER + padded + TAG);
    message[0] = 4;
    putU32le(message, 4, this.remote);
    const counter = this.#next++;
    putU32le(message, 8, counter);
    putU32le(message, 12, counter / 2 ** 32);
    let text = packet;
    if (padded !== packet.length) {
      text = new Uint8Array(padded);
      text.set(packet);
    }
    chacha20poly1305(this.#keys.send, this.#counter(message)).encrypt(text, message.subarray(HEADER));
    return message;
  }

  /** The packet in a message, with its padding; ProtocolError for what the peer did not send, or sent once already. */
  open(message: Uint8Array): Uint8Array {
    if (message.length < HEADER + TAG) throw new ProtocolError(`a message of ${message.length} bytes`);
    const counter = u32le(message, 8) + u32le(message, 12) * 2 ** 32;
    if (counter > LAST_COUNTER) throw new ProtocolError("a message with an impossible number");
    let text: Uint8Array;
    try {
      text = chacha20poly1305(this.#keys.receive, this.#counter(message)).decrypt(message.subarray(HEADER));
    } catch {
      throw new ProtocolError("a message that does not open");
    }
    if (!this.#window.accept(counter)) throw new ProtocolError("a message that came before");
    return text;
  }

  #counter(message: Uint8Array): Uint8Array {
    this.#nonce.set(message.subarray(8, 16), 4);
    return this.#nonce;
  }
}
