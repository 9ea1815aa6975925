/**
 * What SSH needs beside the noble curves of the handshake: AES-GCM, and signatures by ECDSA and RSA.
 *
 * A browser has them (WebCrypto, where the page is a secure context); ``portable`` is how to do without one.
 */

import { gcm } from "@noble/ciphers/aes.js";

export type Curve = "P-256" | "P-384" | "P-521";
export type RsaHash = "SHA-256" | "SHA-512";

export interface Aead {
  seal(nonce: Uint8Array, text: Uint8Array, extra: Uint8Array): Uint8Array | Promise<Uint8Array>;
  /** The text; throws, or rejects, where it was changed. */
  open(nonce: Uint8Array, sealed: Uint8Array, extra: Uint8Array): Uint8Array | Promise<Uint8Array>;
}

/** An RSA key's numbers, without leading zeros; ``inverse`` is that of ``q`` modulo ``p``. */
export interface RsaPrivateKey {
  readonly modulus: Uint8Array;
  readonly exponent: Uint8Array;
  readonly secret: Uint8Array;
  readonly p: Uint8Array;
  readonly q: Uint8Array;
  readonly inverse: Uint8Array;
}

export interface Primitives {
  aesGcm(key: Uint8Array): Aead | Promise<Aead>;
  /** ``signature`` is r and s, each as long as the curve's numbers; ``point`` is uncompressed. */
  verifyEcdsa(
    curve: Curve,
    point: Uint8Array,
    signature: Uint8Array,
    message: Uint8Array,
  ): boolean | Promise<boolean>;
  /** PKCS #1 version 1.5; modulus and exponent without leading zeros. */
  verifyRsa(
    hash: RsaHash,
    key: { readonly modulus: Uint8Array; readonly exponent: Uint8Array },
    signature: Uint8Array,
    message: Uint8Array,
  ): boolean | Promise<boolean>;
  /** PKCS #1 version 1.5; as long as the modulus. */
  signRsa(hash: RsaHash, key: RsaPrivateKey, message: Uint8Array): Uint8Array | Promise<Uint8Array>;
}

/** AES-GCM on noble. */
export function nobleGcm(key: Uint8Array): Aead {
  return {
    seal: (nonce, text, extra) => gcm(key, nonce, extra).encrypt(text),
    open: (nonce, sealed, extra) => gcm(key, nonce, extra).decrypt(sealed),
  };
}
