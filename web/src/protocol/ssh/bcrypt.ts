/** The key of a passphrase as private key files of OpenSSH have it: bcrypt_pbkdf, which is Blowfish set up very often. */

import { sha512 } from "@noble/hashes/sha2.js";
import { ascii, concat, putU32, u32 } from "../bytes.ts";

const ROUNDS = 16;
/** Blowfish begins with the digits of pi: 18 words for its rounds, then four boxes of 256. */
const WORDS = ROUNDS + 2 + 4 * 256;
const TEXT = ascii("OxychromaticBlowfishSwatDynamite");
const BLOCK = 32;

/** ``size`` bytes from a passphrase and a salt; ``rounds`` makes it slow, at least 1. */
export function bcryptKey(
  passphrase: Uint8Array,
  salt: Uint8Array,
  rounds: number,
  size: number,
): Uint8Array {
  const key = new Uint8Array(size);
  const secret = sha512(passphrase);
  const stride = Math.ceil(size / BLOCK);
  const amount = Math.ceil(size / stride);
  for (let block = 0; block < stride; block++) {
    const number = new Uint8Array(4);
    putU32(number, 0, block + 1);
    let part = hash(secret, sha512(concat(salt, number)));
    const mixed = part.slice();
    for (let round = 1; round < rounds; round++) {
      part = hash(secret, sha512(part));
      for (let at = 0; at < BLOCK; at++) mixed[at]! ^= part[at]!;
    }
    // The blocks are not one after the other but woven, so that half a key costs as much as a whole one.
    for (let at = 0; at < amount; at++) {
      const to = at * stride + block;
      if (to < size) key[to] = mixed[at]!;
    }
  }
  return key;
}

function hash(secret: Uint8Array, salt: Uint8Array): Uint8Array {
  const cipher = new Blowfish();
  cipher.expand(secret, salt);
  for (let round = 0; round < 64; round++) {
    cipher.expand(salt);
    cipher.expand(secret);
  }
  const text = new Uint32Array(8);
  for (let at = 0; at < 8; at++) text[at] = u32(TEXT, 4 * at);
  for (let round = 0; round < 64; round++) {
    for (let at = 0; at < 8; at += 2) cipher.encrypt(text, at);
  }
  const out = new Uint8Array(BLOCK);
  for (let at = 0; at < BLOCK; at++) out[at] = text[at >> 2]! >>> (8 * (at & 3));
  return out;
}

class Blowfish {
  /** The words of the rounds, and behind them the boxes. */
  readonly #words = begin().slice();

  /** Mix a key in, and data where there is some; both are 64 bytes. */
  expand(key: Uint8Array, data?: Uint8Array): void {
    const words = this.#words;
    for (let at = 0; at < ROUNDS + 2; at++) words[at]! ^= u32(key, (4 * at) % 64);
    const pair = new Uint32Array(2);
    for (let at = 0; at < WORDS; at += 2) {
      if (data !== undefined) {
        pair[0]! ^= u32(data, (4 * at) % 64);
        pair[1]! ^= u32(data, (4 * at + 4) % 64);
      }
      this.encrypt(pair, 0);
      words[at] = pair[0]!;
      words[at + 1] = pair[1]!;
    }
  }

  /** Encrypt two words where they are. */
  encrypt(data: Uint32Array, at: number): void {
    const words = this.#words;
    let left = data[at]!;
    let right = data[at + 1]!;
    for (let round = 0; round < ROUNDS; round++) {
      left ^= words[round]!;
      const one = words[18 + (left >>> 24)]! + words[274 + ((left >>> 16) & 255)]!;
      right ^= ((one ^ words[530 + ((left >>> 8) & 255)]!) + words[786 + (left & 255)]!) | 0;
      const swap = left;
      left = right;
      right = swap;
    }
    data[at] = right ^ words[17]!;
    data[at + 1] = left ^ words[16]!;
  }
}

let digits: Uint32Array | undefined;

/** The digits of pi behind the point, 32 bits each: reckoned once, which is shorter than 4 kB of them (Machin's formula). */
function begin(): Uint32Array {
  if (digits !== undefined) return digits;
  const guard = 64;
  const one = 1n << BigInt(32 * WORDS + guard);
  const inverse = (of: bigint) => {
    let term = one / of;
    let sum = term;
    for (let divisor = 3n, sign = -1n; term > 0n; divisor += 2n, sign = -sign) {
      term /= of * of;
      sum += (sign * term) / divisor;
    }
    return sum;
  };
  const pi = 16n * inverse(5n) - 4n * inverse(239n);
  const hex = ((pi - 3n * one) >> BigInt(guard)).toString(16).padStart(8 * WORDS, "0");
  digits = new Uint32Array(WORDS);
  for (let at = 0; at < WORDS; at++) digits[at] = Number.parseInt(hex.slice(8 * at, 8 * at + 8), 16);
  return digits;
}
