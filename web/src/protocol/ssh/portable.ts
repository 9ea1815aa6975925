/** The primitives of SSH without a browser's help: on noble, and RSA by plain arithmetic. Loaded only where it is needed. */

import { p256, p384, p521 } from "@noble/curves/nist.js";
import { sha256, sha512 } from "@noble/hashes/sha2.js";
import { concat, equal, fromHex, ProtocolError } from "../bytes.ts";
import { nobleGcm, type Primitives, type RsaHash } from "./primitives.ts";

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
  aesGcm: nobleGcm,

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
