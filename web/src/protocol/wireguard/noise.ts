/**
 * The handshake of WireGuard: Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s, and the two MACs around it.
 *
 * Pure functions from keys and messages to keys and messages (whitepaper section 5.4). What a message says is
 * only true once the function for it has returned.
 */

import { chacha20poly1305, xchacha20poly1305 } from "@noble/ciphers/chacha.js";
import { x25519 } from "@noble/curves/ed25519.js";
import { blake2s } from "@noble/hashes/blake2.js";
import { hmac } from "@noble/hashes/hmac.js";
import { ascii, concat, equal, ProtocolError, putU32le, u32le } from "../bytes.ts";

export const INITIATION = 148;
export const RESPONSE = 92;
export const COOKIE_REPLY = 64;

const CONSTRUCTION = blake2s(ascii("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"));
const START = blake2s(concat(CONSTRUCTION, ascii("WireGuard v1 zx2c4 Jason@zx2c4.com")));
const LABEL_MAC1 = ascii("mac1----");
const LABEL_COOKIE = ascii("cookie--");
const ZERO_NONCE = new Uint8Array(12);
const NOTHING = new Uint8Array(0);

/** Our own key pair, and what it shares with the peer: computed once for a tunnel. */
export interface Identity {
  readonly privateKey: Uint8Array;
  readonly publicKey: Uint8Array;
  readonly peer: Uint8Array;
  readonly shared: Uint8Array;
  readonly presharedKey: Uint8Array;
}

/** A handshake under way: the hash and the chaining key so far. */
export interface Handshake {
  readonly hash: Uint8Array;
  readonly chain: Uint8Array;
  readonly ephemeral: Uint8Array;
  readonly index: number;
}

/** The keys of a session, for what we send and what we receive. */
export interface Keys {
  readonly send: Uint8Array;
  readonly receive: Uint8Array;
}

/** ProtocolError for a peer's key of small order. */
export function identity(
  privateKey: Uint8Array,
  peer: Uint8Array,
  presharedKey: Uint8Array = new Uint8Array(32),
): Identity {
  const publicKey = x25519.getPublicKey(privateKey);
  return { privateKey, publicKey, peer, shared: agree(privateKey, peer), presharedKey };
}

/** The first message, without its second MAC; ``stamp`` is a TAI64N later than every one before. */
export function initiate(
  own: Identity,
  ephemeral: Uint8Array,
  index: number,
  stamp: Uint8Array,
): { message: Uint8Array; handshake: Handshake } {
  const message = new Uint8Array(INITIATION);
  message[0] = 1;
  putU32le(message, 4, index);
  let hash = mix(START, own.peer);
  const publicKey = x25519.getPublicKey(ephemeral);
  message.set(publicKey, 8);
  hash = mix(hash, publicKey);
  let [chain] = kdf(CONSTRUCTION, publicKey);
  let key: Uint8Array;
  [chain, key] = kdf(chain, agree(ephemeral, own.peer));
  const sealedKey = seal(key, own.publicKey, hash);
  message.set(sealedKey, 40);
  hash = mix(hash, sealedKey);
  [chain, key] = kdf(chain, own.shared);
  const sealedStamp = seal(key, stamp, hash);
  message.set(sealedStamp, 88);
  hash = mix(hash, sealedStamp);
  message.set(mac(firstKey(own.peer), message.subarray(0, 116)), 116);
  return { message, handshake: { hash, chain, ephemeral, index } };
}

/** What an initiation says; ProtocolError when it is not from the peer. */
export function readInitiation(
  own: Identity,
  message: Uint8Array,
): { hash: Uint8Array; chain: Uint8Array; ephemeral: Uint8Array; index: number; stamp: Uint8Array } {
  checkFirst(own, message, INITIATION);
  const ephemeral = message.slice(8, 40);
  let hash = mix(mix(START, own.publicKey), ephemeral);
  let [chain] = kdf(CONSTRUCTION, ephemeral);
  let key: Uint8Array;
  [chain, key] = kdf(chain, agree(own.privateKey, ephemeral));
  const peer = open(key, message.subarray(40, 88), hash);
  if (!equal(peer, own.peer)) throw new ProtocolError("a handshake of somebody else");
  hash = mix(hash, message.subarray(40, 88));
  [chain, key] = kdf(chain, own.shared);
  const stamp = open(key, message.subarray(88, 116), hash);
  hash = mix(hash, message.subarray(88, 116));
  return { hash, chain, ephemeral, index: u32le(message, 4), stamp };
}

/** The answer to an initiation that ``readInitiation`` took apart, and the session's keys. */
export function respond(
  own: Identity,
  ephemeral: Uint8Array,
  index: number,
  asked: { hash: Uint8Array; chain: Uint8Array; ephemeral: Uint8Array; index: number },
): { message: Uint8Array; keys: Keys } {
  const message = new Uint8Array(RESPONSE);
  message[0] = 2;
  putU32le(message, 4, index);
  putU32le(message, 8, asked.index);
  const publicKey = x25519.getPublicKey(ephemeral);
  message.set(publicKey, 12);
  let hash = mix(asked.hash, publicKey);
  let [chain] = kdf(asked.chain, publicKey);
  [chain] = kdf(chain, agree(ephemeral, asked.ephemeral));
  [chain] = kdf(chain, agree(ephemeral, own.peer));
  const [next, tau, key] = kdf(chain, own.presharedKey);
  hash = mix(hash, tau);
  message.set(seal(key, NOTHING, hash), 44);
  message.set(mac(firstKey(own.peer), message.subarray(0, 60)), 60);
  const [receive, send] = kdf(next, NOTHING);
  return { message, keys: { send, receive } };
}

/** The keys that the answer to our own initiation leads to; ProtocolError when it is not the peer's answer to it. */
export function finish(own: Identity, handshake: Handshake, message: Uint8Array): Keys {
  checkFirst(own, message, RESPONSE);
  if (u32le(message, 8) !== handshake.index) throw new ProtocolError("an answer to another handshake");
  const theirs = message.subarray(12, 44);
  let hash = mix(handshake.hash, theirs);
  let [chain] = kdf(handshake.chain, theirs);
  [chain] = kdf(chain, agree(handshake.ephemeral, theirs));
  [chain] = kdf(chain, agree(own.privateKey, theirs));
  const [next, tau, key] = kdf(chain, own.presharedKey);
  hash = mix(hash, tau);
  open(key, message.subarray(44, 60), hash);
  const [send, receive] = kdf(next, NOTHING);
  return { send, receive };
}

/** Put the second MAC into a handshake message, by a cookie that its receiver gave (section 5.4.4). */
export function stampCookie(message: Uint8Array, cookie: Uint8Array): void {
  const end = message.length - 16;
  message.set(mac(cookie, message.subarray(0, end)), end);
}

/** Whether a handshake message carries the second MAC of this cookie. */
export function hasCookie(message: Uint8Array, cookie: Uint8Array): boolean {
  const end = message.length - 16;
  return equal(mac(cookie, message.subarray(0, end)), message.subarray(end));
}

/** The cookie in a reply to the message whose first MAC is ``mac1``; ProtocolError when it is not the peer's (5.4.7). */
export function readCookie(own: Identity, message: Uint8Array, mac1: Uint8Array): Uint8Array {
  if (message.length !== COOKIE_REPLY) throw new ProtocolError(`a cookie reply of ${message.length} bytes`);
  try {
    const key = blake2s(concat(LABEL_COOKIE, own.peer));
    return xchacha20poly1305(key, message.subarray(8, 32), mac1).decrypt(message.subarray(32));
  } catch {
    throw new ProtocolError("a cookie that does not open");
  }
}

/** A cookie for the sender of a handshake message, told in a reply that only it can read. */
export function cookieReply(
  own: Identity,
  message: Uint8Array,
  cookie: Uint8Array,
  nonce: Uint8Array,
): Uint8Array {
  const reply = new Uint8Array(COOKIE_REPLY);
  reply[0] = 3;
  reply.set(message.subarray(4, 8), 4);
  reply.set(nonce, 8);
  const key = blake2s(concat(LABEL_COOKIE, own.publicKey));
  const mac1 = message.subarray(message.length - 32, message.length - 16);
  reply.set(xchacha20poly1305(key, nonce, mac1).encrypt(cookie), 32);
  return reply;
}

/** Whether the first MAC says that the sender knows our key, which costs one hash to find out (section 5.3). */
export function isForUs(own: Identity, message: Uint8Array): boolean {
  const end = message.length - 32;
  if (end < 0) return false;
  return equal(mac(firstKey(own.publicKey), message.subarray(0, end)), message.subarray(end, end + 16));
}

/** BLAKE2s with a key, 16 bytes: the MAC of the whitepaper. */
export function mac(key: Uint8Array, data: Uint8Array): Uint8Array {
  return blake2s(data, { key, dkLen: 16 });
}

function checkFirst(own: Identity, message: Uint8Array, length: number): void {
  if (message.length !== length) throw new ProtocolError(`a handshake message of ${message.length} bytes`);
  if (!isForUs(own, message)) throw new ProtocolError("a handshake message for somebody else");
}

function firstKey(publicKey: Uint8Array): Uint8Array {
  return blake2s(concat(LABEL_MAC1, publicKey));
}

function mix(hash: Uint8Array, data: Uint8Array): Uint8Array {
  return blake2s(concat(hash, data));
}

/** Three keys from a chaining key and what is mixed in (HKDF with BLAKE2s). */
function kdf(chain: Uint8Array, input: Uint8Array): [Uint8Array, Uint8Array, Uint8Array] {
  const secret = hmac(blake2s, chain, input);
  const one = hmac(blake2s, secret, new Uint8Array([1]));
  const two = hmac(blake2s, secret, concat(one, new Uint8Array([2])));
  const three = hmac(blake2s, secret, concat(two, new Uint8Array([3])));
  return [one, two, three];
}

/** The noble curves refuse a key of small order, whose shared secret everybody knows. */
function agree(privateKey: Uint8Array, publicKey: Uint8Array): Uint8Array {
  try {
    return x25519.getSharedSecret(privateKey, publicKey);
  } catch {
    throw new ProtocolError("a key of small order");
  }
}

function seal(key: Uint8Array, text: Uint8Array, hash: Uint8Array): Uint8Array {
  return chacha20poly1305(key, ZERO_NONCE, hash).encrypt(text);
}

function open(key: Uint8Array, sealed: Uint8Array, hash: Uint8Array): Uint8Array {
  try {
    return chacha20poly1305(key, ZERO_NONCE, hash).decrypt(sealed);
  } catch {
    throw new ProtocolError("a handshake that does not open");
  }
}
