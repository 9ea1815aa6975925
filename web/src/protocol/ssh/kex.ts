/** Agreeing on keys: the offers of both sides, and the exchanges curve25519-sha256 and mlkem768x25519-sha256. */

import { x25519 } from "@noble/curves/ed25519.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { ml_kem768 } from "@noble/post-quantum/ml-kem.js";
import { concat, ProtocolError } from "../bytes.ts";
import { CIPHERS } from "./ciphers.ts";
import { SshError } from "./errors.ts";
import { SIGNATURES } from "./hostkeys.ts";
import { Fields, fields, MESSAGE, mpint } from "./wire.ts";

const EXCHANGES = ["mlkem768x25519-sha256", "curve25519-sha256", "curve25519-sha256@libssh.org"] as const;
const STRICT = { ours: "kex-strict-c-v00@openssh.com", theirs: "kex-strict-s-v00@openssh.com" };
/** The bytes of the lattice's part of an answer (FIPS 203, ML-KEM-768). */
export const KEM_CIPHERTEXT = 1088;

/** What one side offers, in its order (RFC 4253 section 7.1). */
export interface Offer {
  readonly exchanges: readonly string[];
  readonly hostKeys: readonly string[];
  readonly ciphersOut: readonly string[];
  readonly ciphersIn: readonly string[];
  readonly guessed: boolean;
}

/** What both agree on; "in" and "out" are ours. */
export interface Agreement {
  readonly exchange: string;
  readonly hostKey: string;
  readonly cipherOut: string;
  readonly cipherIn: string;
  /** Whether packets are counted anew with each new key, so that none can be left out unseen. */
  readonly strict: boolean;
}

/** Our offer as a message. ``hostKeys`` are the kinds of keys that are known of the host; others would be refused anyway. */
export function offer(
  cookie: Uint8Array,
  hostKeys: readonly string[] | undefined,
  ciphers: readonly string[],
): Uint8Array {
  const kinds = [...SIGNATURES].filter(([, kind]) => hostKeys === undefined || hostKeys.includes(kind));
  const macs = "hmac-sha2-256-etm@openssh.com,hmac-sha2-256"; // named because a list must be; the ciphers have their own
  const exchanges = [...EXCHANGES, "ext-info-c", STRICT.ours].join(",");
  return fields(
    MESSAGE.kexInit,
    { raw: cookie },
    exchanges,
    kinds.map(([name]) => name).join(","),
    ciphers.join(","),
    ciphers.join(","),
    macs,
    macs,
    "none",
    "none",
    "",
    "",
    false,
    { u32: 0 },
  );
}

/** The names of all ciphers, the one we like best first. */
export function cipherNames(): string[] {
  return [...CIPHERS.keys()];
}

export function readOffer(payload: Uint8Array): Offer {
  const reader = new Fields(payload, 17);
  const exchanges = reader.names();
  const hostKeys = reader.names();
  const ciphersOut = reader.names();
  const ciphersIn = reader.names();
  for (let list = 0; list < 6; list++) reader.names();
  return { exchanges, hostKeys, ciphersOut, ciphersIn, guessed: reader.boolean() };
}

/** What follows from both offers; SshError where they have nothing in common, naming what the host has. */
export function agree(ours: Uint8Array, theirs: Offer): Agreement {
  const own = readOffer(ours);
  return {
    exchange: common("key exchange", own.exchanges, theirs.exchanges),
    hostKey: common("host key", own.hostKeys, theirs.hostKeys),
    cipherOut: common("cipher", own.ciphersOut, theirs.ciphersOut),
    cipherIn: common("cipher", own.ciphersIn, theirs.ciphersIn),
    strict: theirs.exchanges.includes(STRICT.theirs),
  };
}

function common(what: string, ours: readonly string[], theirs: readonly string[]): string {
  const markers = new Set([STRICT.ours, "ext-info-c"]);
  const found = ours.find((name) => !markers.has(name) && theirs.includes(name));
  if (found !== undefined) return found;
  const seen = theirs.slice(0, 20).join(", ").slice(0, 400);
  throw new SshError("no-common", `no ${what} in common: the host has ${seen || "none"}`);
}

/** An exchange under way: what we say first, and the secret that the answer leads to, as it is hashed. */
export interface Exchange {
  readonly ours: Uint8Array;
  secret(theirs: Uint8Array): Uint8Array;
}

/** Begin one; ``entropy`` gives bytes that nobody can guess. */
export function begin(name: string, entropy: (size: number) => Uint8Array): Exchange {
  const privateKey = entropy(32);
  const publicKey = x25519.getPublicKey(privateKey);
  if (name !== "mlkem768x25519-sha256") {
    return { ours: publicKey, secret: (theirs) => mpint(curve(privateKey, theirs)) };
  }
  const kem = ml_kem768.keygen(entropy(64));
  return {
    ours: concat(kem.publicKey, publicKey),
    secret: (theirs) => {
      if (theirs.length !== KEM_CIPHERTEXT + 32)
        throw new ProtocolError(`an answer of ${theirs.length} bytes`);
      const one = ml_kem768.decapsulate(theirs.slice(0, KEM_CIPHERTEXT), kem.secretKey);
      return fields(sha256(concat(one, curve(privateKey, theirs.subarray(KEM_CIPHERTEXT)))));
    },
  };
}

function curve(privateKey: Uint8Array, theirs: Uint8Array): Uint8Array {
  if (theirs.length !== 32) throw new ProtocolError(`a public key of ${theirs.length} bytes`);
  try {
    return x25519.getSharedSecret(privateKey, theirs);
  } catch {
    throw new ProtocolError("a public key of small order");
  }
}

/** A key of ``size`` bytes for one purpose, a letter from A to F (RFC 4253 section 7.2). */
export function derive(
  secret: Uint8Array,
  hash: Uint8Array,
  letter: string,
  session: Uint8Array,
  size: number,
): Uint8Array {
  let key: Uint8Array = sha256(concat(secret, hash, new Uint8Array([letter.charCodeAt(0)]), session));
  while (key.length < size) key = concat(key, sha256(concat(secret, hash, key)));
  return key.slice(0, size);
}
