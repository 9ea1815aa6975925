/** NaCl's crypto_box (X25519, HSalsa20, XSalsa20-Poly1305), in which both sides of a relay prove their keys. */

import { hsalsa, xsalsa20poly1305 } from "@noble/ciphers/salsa.js";
import { x25519 } from "@noble/curves/ed25519.js";
import { concat, ProtocolError, putU32le, u32le } from "./bytes.ts";

const NONCE = 24;
const SIGMA = new Uint32Array([0x61707865, 0x3320646e, 0x79622d32, 0x6b206574]);

/** What two keys share: sealing and opening between one's private and the other's public key. */
export class Box {
  readonly #key: Uint8Array;

  /** ProtocolError for a public key with which anybody could compute the secret (RFC 7748 section 6.1). */
  constructor(privateKey: Uint8Array, publicKey: Uint8Array) {
    let shared: Uint8Array;
    try {
      shared = x25519.getSharedSecret(privateKey, publicKey);
    } catch {
      throw new ProtocolError("the other side's key is of small order");
    }
    const words = new Uint32Array(8);
    for (let at = 0; at < 8; at++) words[at] = u32le(shared, 4 * at);
    const derived = new Uint32Array(8);
    hsalsa(SIGMA, words, new Uint32Array(4), derived);
    this.#key = new Uint8Array(32);
    for (let at = 0; at < 8; at++) putU32le(this.#key, 4 * at, derived[at]!);
  }

  /** ``nonce`` (24 bytes, never used twice) and the sealed text behind it. */
  seal(nonce: Uint8Array, text: Uint8Array): Uint8Array {
    return concat(nonce, xsalsa20poly1305(this.#key, nonce).encrypt(text));
  }

  /** The text; ProtocolError when it was not sealed by the other side, or was changed. */
  open(sealed: Uint8Array): Uint8Array {
    if (sealed.length < NONCE + 16) throw new ProtocolError(`a box of ${sealed.length} bytes`);
    try {
      return xsalsa20poly1305(this.#key, sealed.subarray(0, NONCE)).decrypt(sealed.subarray(NONCE));
    } catch {
      throw new ProtocolError("a box that does not open");
    }
  }
}
