/** Keys of hosts: which kinds there are, and whether a signature is theirs. */

import { ed25519 } from "@noble/curves/ed25519.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { toBase64 } from "../base64.ts";
import { concat, ProtocolError } from "../bytes.ts";
import type { Curve, Primitives } from "./primitives.ts";
import { Fields } from "./wire.ts";

/** Kinds of signatures that we accept, the one we like best first, each with the kind of key that makes it. */
export const SIGNATURES: ReadonlyMap<string, string> = new Map([
  ["ssh-ed25519", "ssh-ed25519"],
  ["ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256"],
  ["ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384"],
  ["ecdsa-sha2-nistp521", "ecdsa-sha2-nistp521"],
  ["rsa-sha2-512", "ssh-rsa"],
  ["rsa-sha2-256", "ssh-rsa"],
]);

const CURVES: ReadonlyMap<string, { readonly curve: Curve; readonly size: number }> = new Map([
  ["nistp256", { curve: "P-256", size: 32 }],
  ["nistp384", { curve: "P-384", size: 48 }],
  ["nistp521", { curve: "P-521", size: 66 }],
]);
/** Shorter RSA keys can be broken; longer ones only keep us busy. */
const RSA_BITS = [2048, 16384] as const;

/** The kind of a key, as `ssh-ed25519`; ProtocolError for what is no key. */
export function keyKind(blob: Uint8Array): string {
  return new Fields(blob).text();
}

/** The fingerprint that `ssh` shows for a key: `SHA256:` and 43 characters. */
export function fingerprint(blob: Uint8Array): string {
  return `SHA256:${toBase64(sha256(blob)).replace(/=+$/, "")}`;
}

/**
 * Whether a host made this signature of a message.
 *
 * ``algorithm`` is what was agreed upon: a signature of another kind is none, whatever it says of itself.
 */
export async function verify(
  algorithm: string,
  blob: Uint8Array,
  signature: Uint8Array,
  message: Uint8Array,
  primitives: Primitives,
): Promise<boolean> {
  const key = new Fields(blob);
  const kind = key.text();
  const parts = new Fields(signature);
  if (parts.text() !== algorithm || SIGNATURES.get(algorithm) !== kind) return false;
  const value = parts.string();
  if (kind === "ssh-ed25519") return ed25519Verify(key.string(), value, message);
  if (kind === "ssh-rsa") {
    const exponent = key.mpint();
    const modulus = key.mpint();
    const bits = modulus.length * 8;
    if (bits < RSA_BITS[0] || bits > RSA_BITS[1]) throw new ProtocolError(`an RSA key of ${bits} bits`);
    const hash = algorithm === "rsa-sha2-512" ? "SHA-512" : "SHA-256";
    return await primitives.verifyRsa(hash, { modulus, exponent }, value, message);
  }
  const curve = CURVES.get(key.text());
  if (curve === undefined || kind !== `ecdsa-sha2-nistp${curve.curve.slice(2)}`) return false;
  const numbers = new Fields(value);
  const both = concat(fixed(numbers.mpint(), curve.size), fixed(numbers.mpint(), curve.size));
  return await primitives.verifyEcdsa(curve.curve, key.string(), both, message);
}

function ed25519Verify(key: Uint8Array, signature: Uint8Array, message: Uint8Array): boolean {
  if (key.length !== 32 || signature.length !== 64) return false;
  return ed25519.verify(signature, message, key);
}

function fixed(value: Uint8Array, size: number): Uint8Array {
  if (value.length > size) throw new ProtocolError("a number of a signature that is too large");
  const out = new Uint8Array(size);
  out.set(value, size - value.length);
  return out;
}
