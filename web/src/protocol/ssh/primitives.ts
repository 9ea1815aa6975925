/**
 * What SSH needs beside the noble curves of the handshake: AES-GCM, and the checks of ECDSA and RSA signatures.
 *
 * A browser has them faster (WebCrypto, where the page is a secure context); here is how to do without one.
 */

import { gcm } from "@noble/ciphers/aes.js";
import { p256, p384, p521 } from "@noble/curves/nist.js";
import { sha256, sha512 } from "@noble/hashes/sha2.js";
import { concat, equal, fromHex, ProtocolError } from "../bytes.ts";

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

const CURVES = { "P-256": p256, "P-384": p384, "P-521": p521 };
/** DER of the digest's name, before the digest itself (RFC 8017 section 9.2). */
const DIGESTS = {
  "SHA-256": { hash: sha256, prefix: fromHex("3031300d060960864801650304020105000420") },
  "SHA-512": { hash: sha512, prefix: fromHex("3051300d060960864801650304020305000440") },
};

/**
 * Everything on noble, and RSA by plain arithmetic.
 *
 * What a signature by RSA takes depends on the key. One is made for each sign-in, between answers of a distant host, so there is
 * little to be measured; and where a page is a secure context the browser signs.
 */
export const portable: Primitives = {
  aesGcm: (key) => ({
    seal: (nonce, text, extra) => gcm(key, nonce, extra).encrypt(text),
    open: (nonce, sealed, extra) => gcm(key, nonce, extra).decrypt(sealed),
  }),

  verifyEcdsa: (curve, point, signature, message) => {
    try {
      // Signatures of SSH may have a high s; the rule against them is Bitcoin's.
      return CURVES[curve].verify(signature, message, point, { lowS: false });
    } catch {
      return false;
    }
  },

  verifyRsa: (hash, { modulus, exponent }, signature, message) => {
    if (signature.length > modulus.length || exponent.length > 8) return false;
    const n = number(modulus);
    const s = number(signature);
    if (s >= n) return false;
    const expected = padded(hash, message, modulus.length);
    return expected !== undefined && equal(digits(power(s, number(exponent), n), modulus.length), expected);
  },

  signRsa: (hash, key, message) => {
    const size = key.modulus.length;
    const text = padded(hash, message, size);
    if (text === undefined) throw new ProtocolError(`an RSA key of ${size * 8} bits`);
    const [m, p, q, d] = [text, key.p, key.q, key.secret].map(number) as [bigint, bigint, bigint, bigint];
    const one = power(m, d % (p - 1n), p);
    const two = power(m, d % (q - 1n), q);
    const high = (((((one - two) % p) + p) % p) * number(key.inverse)) % p;
    const signature = two + high * q;
    // A signature that is wrong in one half tells the key: none of those leaves here.
    if (power(signature, number(key.exponent), number(key.modulus)) !== m)
      throw new ProtocolError("a damaged RSA key");
    return digits(signature, size);
  },
};

/** The digest as it is signed, as long as the modulus; undefined where it does not fit. */
function padded(hash: RsaHash, message: Uint8Array, size: number): Uint8Array | undefined {
  const digest = DIGESTS[hash];
  const tail = concat(digest.prefix, digest.hash(message));
  if (size < tail.length + 11) return undefined;
  const padding = new Uint8Array(size - tail.length - 3).fill(255);
  return concat(new Uint8Array([0, 1]), padding, new Uint8Array(1), tail);
}

function number(data: Uint8Array): bigint {
  let value = 0n;
  for (const byte of data) value = (value << 8n) | BigInt(byte);
  return value;
}

function digits(value: bigint, size: number): Uint8Array {
  const data = new Uint8Array(size);
  let left = value;
  for (let at = size - 1; at >= 0; at--) {
    data[at] = Number(left & 255n);
    left >>= 8n;
  }
  return data;
}

function power(base: bigint, exponent: bigint, modulus: bigint): bigint {
  let result = 1n;
  let square = base % modulus;
  for (let left = exponent; left > 0n; left >>= 1n) {
    if ((left & 1n) === 1n) result = (result * square) % modulus;
    square = (square * square) % modulus;
  }
  return result;
}
