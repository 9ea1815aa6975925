/** How SSH packets are sealed: chacha20-poly1305@openssh.com and AES-GCM (RFC 5647), and not at all at the beginning. */

import { poly1305 } from "@noble/ciphers/_poly1305.js";
import { chacha20orig } from "@noble/ciphers/chacha.js";
import { concat, equal, ProtocolError, putU32, u32 } from "../bytes.ts";
import type { Aead, Primitives } from "./primitives.ts";

export interface PacketCipher {
  /** What a packet's length, without the four bytes that tell it, has to be a multiple of. */
  readonly block: number;
  /** How many bytes of proof follow it. */
  readonly tag: number;
  /** A packet, its length first, as it goes out; ``sequence`` is its number. */
  seal(sequence: number, packet: Uint8Array): Uint8Array | Promise<Uint8Array>;
  /** The length that the first four bytes tell. Not to be trusted before ``open`` has returned. */
  length(sequence: number, head: Uint8Array): number;
  /** The packet, its length first; ProtocolError where it was changed. */
  open(sequence: number, sealed: Uint8Array): Uint8Array | Promise<Uint8Array>;
}

export const plain: PacketCipher = {
  block: 8,
  tag: 0,
  seal: (_, packet) => packet,
  length: (_, head) => u32(head, 0),
  open: (_, sealed) => sealed,
};

/** The ciphers we offer, the one we like best first, with the sizes of their key and of their first number. */
export const CIPHERS: ReadonlyMap<string, { readonly key: number; readonly iv: number }> = new Map([
  ["chacha20-poly1305@openssh.com", { key: 64, iv: 0 }],
  ["aes128-gcm@openssh.com", { key: 16, iv: 12 }],
  ["aes256-gcm@openssh.com", { key: 32, iv: 12 }],
]);

export async function cipher(
  name: string,
  key: Uint8Array,
  iv: Uint8Array,
  primitives: Primitives,
): Promise<PacketCipher> {
  if (name.startsWith("chacha20")) return new ChaCha(key);
  return new Gcm(await primitives.aesGcm(key), iv);
}

/** Two keys: one hides the length alone, so that what it hides can be told before the packet is whole. */
class ChaCha implements PacketCipher {
  readonly block = 8;
  readonly tag = 16;
  readonly #main: Uint8Array;
  readonly #head: Uint8Array;
  readonly #nonce = new Uint8Array(8);

  constructor(key: Uint8Array) {
    this.#main = key.slice(0, 32);
    this.#head = key.slice(32, 64);
  }

  seal(sequence: number, packet: Uint8Array): Uint8Array {
    const nonce = this.#number(sequence);
    const out = new Uint8Array(packet.length + 16);
    chacha20orig(this.#head, nonce, packet.subarray(0, 4), out.subarray(0, 4));
    chacha20orig(this.#main, nonce, packet.subarray(4), out.subarray(4, packet.length), 1);
    out.set(poly1305(out.subarray(0, packet.length), this.#proof(nonce)), packet.length);
    return out;
  }

  length(sequence: number, head: Uint8Array): number {
    return u32(chacha20orig(this.#head, this.#number(sequence), head), 0);
  }

  open(sequence: number, sealed: Uint8Array): Uint8Array {
    const nonce = this.#number(sequence);
    const end = sealed.length - 16;
    const text = sealed.subarray(0, end);
    if (!equal(poly1305(text, this.#proof(nonce)), sealed.subarray(end))) throw forged();
    const packet = new Uint8Array(end);
    putU32(packet, 0, end - 4);
    chacha20orig(this.#main, nonce, text.subarray(4), packet.subarray(4), 1);
    return packet;
  }

  #proof(nonce: Uint8Array): Uint8Array {
    return chacha20orig(this.#main, nonce, new Uint8Array(32));
  }

  #number(sequence: number): Uint8Array {
    putU32(this.#nonce, 4, sequence);
    return this.#nonce;
  }
}

/** Counts by itself, whatever the packets' own numbers are; the length is seen, and proven. */
class Gcm implements PacketCipher {
  readonly block = 16;
  readonly tag = 16;
  readonly #aead: Aead;
  readonly #nonce: Uint8Array;

  constructor(aead: Aead, iv: Uint8Array) {
    this.#aead = aead;
    this.#nonce = iv.slice();
  }

  async seal(_: number, packet: Uint8Array): Promise<Uint8Array> {
    const head = packet.slice(0, 4);
    return concat(head, await this.#aead.seal(this.#next(), packet.subarray(4), head));
  }

  length(_: number, head: Uint8Array): number {
    return u32(head, 0);
  }

  async open(_: number, sealed: Uint8Array): Promise<Uint8Array> {
    const head = sealed.slice(0, 4);
    let text: Uint8Array;
    try {
      text = await this.#aead.open(this.#next(), sealed.subarray(4), head);
    } catch {
      throw forged();
    }
    return concat(head, text);
  }

  /** A copy for each, since a browser works on several at once. */
  #next(): Uint8Array {
    const nonce = this.#nonce.slice();
    for (let at = 11; at >= 4; at--) {
      this.#nonce[at] = (this.#nonce[at]! + 1) & 255;
      if (this.#nonce[at] !== 0) break;
    }
    return nonce;
  }
}

function forged(): ProtocolError {
  return new ProtocolError("a packet that was changed on its way");
}
