/**
 * What SSH needs beside the handshake, by the browser's own cryptography.
 *
 * Its answers come from another thread, which costs more than a small packet takes here: those are done by noble at once.
 */

import { toBase64 } from "../protocol/base64.ts";
import { concat } from "../protocol/bytes.ts";
import { type Aead, nobleGcm, type Primitives, type RsaHash } from "../protocol/ssh/primitives.ts";

/** From this many bytes on the browser is asked. */
export const WORTH_IT = 1024;
const TAG_BITS = 128;
const HASHES = { "P-256": "SHA-256", "P-384": "SHA-384", "P-521": "SHA-512" } as const;

type Data = Uint8Array<ArrayBuffer>;

const load = async () => (await import("../protocol/ssh/portable.ts")).portable;

/** All by noble. It is fetched with the first that needs it: with a browser's help that is hardly ever. */
const unhelped: Primitives = {
  aesGcm: nobleGcm,
  verifyEcdsa: async (...all) => (await load()).verifyEcdsa(...all),
  verifyRsa: async (...all) => (await load()).verifyRsa(...all),
  signRsa: async (...all) => (await load()).signRsa(...all),
};

/**
 * The ciphers to offer, best first; undefined: as SSH has them.
 *
 * For a block of a file the browser's AES takes a twentieth of the time that ChaCha20 takes here, and takes it in another thread.
 */
export function ciphers(subtle: SubtleCrypto | undefined): readonly string[] | undefined {
  if (subtle === undefined) return undefined;
  return ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"];
}

/** The primitives for this place: the browser's where it has them, else noble's. ``subtle`` is absent on a page without https. */
export function primitives(subtle: SubtleCrypto | undefined): Primitives {
  if (subtle === undefined) return unhelped;
  return {
    aesGcm: (key) => aesGcm(subtle, key),

    verifyEcdsa: async (curve, point, signature, message) => {
      try {
        const algorithm = { name: "ECDSA", namedCurve: curve };
        const key = await subtle.importKey("raw", point as Data, algorithm, false, ["verify"]);
        const how = { name: "ECDSA", hash: HASHES[curve] };
        return await subtle.verify(how, key, signature as Data, message as Data);
      } catch {
        // Not every browser has every curve; and what is no key at all is none for noble, either.
        return unhelped.verifyEcdsa(curve, point, signature, message);
      }
    },

    verifyRsa: async (hash, { modulus, exponent }, signature, message) => {
      try {
        const jwk = { kty: "RSA", n: base64url(modulus), e: base64url(exponent) };
        const key = await subtle.importKey("jwk", jwk, rsa(hash), false, ["verify"]);
        // SSH leaves zeros out before a signature (RFC 8332 section 3); browsers want all of it.
        const whole = concat(new Uint8Array(Math.max(0, modulus.length - signature.length)), signature);
        return await subtle.verify("RSASSA-PKCS1-v1_5", key, whole as Data, message as Data);
      } catch {
        return unhelped.verifyRsa(hash, { modulus, exponent }, signature, message);
      }
    },

    signRsa: async (hash, key, message) => {
      let imported: CryptoKey;
      try {
        const [d, p, q] = [key.secret, key.p, key.q].map(number) as [bigint, bigint, bigint];
        const jwk = {
          kty: "RSA",
          n: base64url(key.modulus),
          e: base64url(key.exponent),
          d: base64url(key.secret),
          p: base64url(key.p),
          q: base64url(key.q),
          dp: base64url(digits(d % (p - 1n))),
          dq: base64url(digits(d % (q - 1n))),
          qi: base64url(key.inverse),
        };
        imported = await subtle.importKey("jwk", jwk, rsa(hash), false, ["sign"]);
      } catch {
        return unhelped.signRsa(hash, key, message);
      }
      return new Uint8Array(await subtle.sign("RSASSA-PKCS1-v1_5", imported, message as Data));
    },
  };
}

async function aesGcm(subtle: SubtleCrypto, raw: Uint8Array): Promise<Aead> {
  const small = nobleGcm(raw);
  const key = await subtle.importKey("raw", raw as Data, "AES-GCM", false, ["encrypt", "decrypt"]);
  const how = (nonce: Uint8Array, extra: Uint8Array) => ({
    name: "AES-GCM",
    iv: nonce as Data,
    additionalData: extra as Data,
    tagLength: TAG_BITS,
  });
  return {
    seal: (nonce, text, extra) =>
      text.length < WORTH_IT
        ? small.seal(nonce, text, extra)
        : subtle.encrypt(how(nonce, extra), key, text as Data).then((sealed) => new Uint8Array(sealed)),
    open: (nonce, sealed, extra) =>
      sealed.length < WORTH_IT
        ? small.open(nonce, sealed, extra)
        : subtle.decrypt(how(nonce, extra), key, sealed as Data).then((text) => new Uint8Array(text)),
  };
}

function rsa(hash: RsaHash): RsaHashedImportParams {
  return { name: "RSASSA-PKCS1-v1_5", hash };
}

function base64url(data: Uint8Array): string {
  return toBase64(data).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

function number(data: Uint8Array): bigint {
  let value = 0n;
  for (const byte of data) value = (value << 8n) | BigInt(byte);
  return value;
}

function digits(value: bigint): Uint8Array {
  const hex = value.toString(16);
  const even = hex.length % 2 === 0 ? hex : `0${hex}`;
  return Uint8Array.from(even.match(/../g)!, (pair) => Number.parseInt(pair, 16));
}
