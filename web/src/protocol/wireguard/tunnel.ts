/**
 * A WireGuard tunnel to one peer, in both roles, with its timers (whitepaper sections 5 and 6).
 *
 * IP packets go in and come out; between them are messages that a relay carries. Nothing here knows the time: every
 * verb is told it, in milliseconds of a clock that never goes back.
 */

import { equal, ProtocolError, putU32, u32le } from "../bytes.ts";
import {
  cookieReply,
  finish,
  type Handshake,
  hasCookie,
  type Identity,
  identity,
  initiate,
  isForUs,
  mac,
  readCookie,
  readInitiation,
  respond,
  stampCookie,
} from "./noise.ts";
import { Session } from "./session.ts";

const SECOND = 1000;
/** The times of section 6.1, in milliseconds. */
export const REKEY_AFTER_TIME = 120 * SECOND;
export const REJECT_AFTER_TIME = 180 * SECOND;
export const REKEY_ATTEMPT_TIME = 90 * SECOND;
export const REKEY_TIMEOUT = 5 * SECOND;
export const KEEPALIVE_TIMEOUT = 10 * SECOND;
/** The first of the shorter times of one who is eager; each is twice the one before. */
const EAGER_TIMEOUT = 400;
const COOKIE_LIFE = 120 * SECOND;
const REKEY_AFTER_MESSAGES = 2 ** 48;
const REJECT_AFTER_MESSAGES = 2 ** 52;
/** More packets than these do not wait for a session: whoever sends them will send them again. */
const WAITING = 128;
/** More handshakes a second than these, and their sender has to show a cookie first. */
const HANDSHAKES_A_SECOND = 10;

/** ``established``: a session is there. ``lost``: the peer has not answered for 90 s; asking goes on with the next packet. */
export type TunnelEvent = { readonly kind: "established" } | { readonly kind: "lost" };

export interface TunnelOptions {
  readonly privateKey: Uint8Array;
  readonly peer: Uint8Array;
  readonly presharedKey?: Uint8Array;
  /** Bytes that nobody can guess. */
  readonly entropy: (size: number) => Uint8Array;
  /** The time of day in milliseconds since 1970 at ``now`` 0: handshakes carry it. */
  readonly epoch: number;
  /**
   * Ask again sooner while there has not been a session yet: the peer may hear of us a moment after we begin, and lets nobody
   * in whom it does not know.
   */
  readonly eager?: boolean;
}

export class Tunnel {
  readonly #own: Identity;
  readonly #entropy: (size: number) => Uint8Array;
  readonly #epoch: number;

  #current: Session | undefined; // what we send with
  #previous: Session | undefined; // what the peer may still send with
  #next: Session | undefined; // made by us as responder: not ours to use before the peer has

  #handshake: Handshake | undefined;
  #firstMac: Uint8Array | undefined; // of our last handshake message, for a cookie that answers it
  #cookie: { readonly value: Uint8Array; readonly at: number } | undefined;
  #lastStamp = 0; // ours, in milliseconds since 1970
  #peerStamp: Uint8Array = new Uint8Array(12); // the peer's newest
  #cookieSecret: { readonly value: Uint8Array; readonly at: number } | undefined;
  #lately: number[] = []; // when the last handshakes came

  #eager = 0; // the time until the next try while there was no session; 0 afterwards
  #retryAt: number | undefined;
  #giveUpAt: number | undefined;
  #keepaliveAt: number | undefined; // we heard, and have not spoken since
  #suspectAt: number | undefined; // we spoke, and have not heard since
  #forgetAt: number | undefined; // keys that are too old to be of use

  #waiting: Uint8Array[] = [];
  #outgoing: Uint8Array[] = [];
  #events: TunnelEvent[] = [];
  /** Messages that were refused: forged, repeated, too old, or nobody's. */
  refused = 0;

  constructor(options: TunnelOptions) {
    this.#own = identity(options.privateKey, options.peer, options.presharedKey);
    this.#entropy = options.entropy;
    this.#epoch = options.epoch;
    if (options.eager === true) this.#eager = EAGER_TIMEOUT;
  }

  /** Whether a packet would be sent at once. */
  isOpen(now: number): boolean {
    return this.#usable(now) !== undefined;
  }

  /** Begin a handshake now, without a packet to send: it takes the place of a session that the peer may still think of. */
  open(now: number): void {
    this.#begin(now, false);
  }

  /** Send an IP packet; until there is a session it waits, and the oldest are dropped where too many do. */
  send(packet: Uint8Array, now: number): void {
    const session = this.#usable(now);
    if (session === undefined) {
      if (this.#waiting.length >= WAITING) this.#waiting.shift();
      this.#waiting.push(packet);
      this.#begin(now, true);
      return;
    }
    this.#emit(session, packet, now);
    // Only who began the session renews it by age: both at once would make two (section 6.2).
    const old = session.initiator && now - session.born >= REKEY_AFTER_TIME;
    if (old || session.sent >= REKEY_AFTER_MESSAGES) this.#begin(now, true);
  }

  /**
   * The IP packet in a message from the peer, padding and all, or undefined where there is none.
   *
   * Whatever is not right is counted and dropped: anybody who can send to us could end the tunnel otherwise.
   */
  receive(message: Uint8Array, now: number): Uint8Array | undefined {
    try {
      return this.#read(message, now);
    } catch (problem) {
      if (!(problem instanceof ProtocolError) && !(problem instanceof RangeError)) throw problem;
      this.refused++;
      return undefined;
    }
  }

  events(): TunnelEvent[] {
    const events = this.#events;
    this.#events = [];
    return events;
  }

  dataToSend(): Uint8Array[] {
    const messages = this.#outgoing;
    this.#outgoing = [];
    return messages;
  }

  /** When ``onDeadline`` wants to be called; undefined while there is nothing to wait for. */
  nextDeadline(): number | undefined {
    let next: number | undefined;
    for (const at of [this.#retryAt, this.#keepaliveAt, this.#suspectAt, this.#forgetAt]) {
      if (at !== undefined && (next === undefined || at < next)) next = at;
    }
    return next;
  }

  onDeadline(now: number): void {
    if (due(this.#forgetAt, now)) this.#forget();
    if (due(this.#keepaliveAt, now)) {
      this.#keepaliveAt = undefined;
      const session = this.#usable(now);
      if (session !== undefined) this.#emit(session, new Uint8Array(0), now);
    }
    if (due(this.#suspectAt, now)) {
      this.#suspectAt = undefined;
      this.#begin(now, true);
    }
    if (due(this.#retryAt, now)) this.#retry(now);
  }

  /** Forget every key, and what waits. */
  close(): void {
    this.#forget();
    this.#waiting = [];
    this.#outgoing = [];
    this.#handshake = undefined;
    this.#cookie = undefined;
    this.#retryAt = this.#giveUpAt = this.#keepaliveAt = this.#suspectAt = undefined;
  }

  #read(message: Uint8Array, now: number): Uint8Array | undefined {
    if (message.length < 4 || message[1] !== 0 || message[2] !== 0 || message[3] !== 0) {
      throw new ProtocolError("no WireGuard message");
    }
    switch (message[0]) {
      case 1:
        this.#asked(message, now);
        return undefined;
      case 2:
        this.#answered(message, now);
        return undefined;
      case 3:
        this.#given(message, now);
        return undefined;
      case 4:
        return this.#transported(message, now);
      default:
        throw new ProtocolError(`a WireGuard message of type ${message[0]}`);
    }
  }

  #asked(message: Uint8Array, now: number): void {
    if (!isForUs(this.#own, message)) throw new ProtocolError("a handshake for somebody else");
    if (this.#flooded(now) && !this.#cookieShown(message, now)) return;
    const asked = readInitiation(this.#own, message);
    if (!later(asked.stamp, this.#peerStamp)) throw new ProtocolError("a handshake that came before");
    this.#peerStamp = asked.stamp;
    const index = this.#newIndex();
    const { message: answer, keys } = respond(this.#own, this.#entropy(32), index, asked);
    this.#next = new Session(keys, index, asked.index, false, now);
    this.#speak(answer, now);
    this.#outgoing.push(answer);
    this.#forgetAt = now + 3 * REJECT_AFTER_TIME;
  }

  #answered(message: Uint8Array, now: number): void {
    const handshake = this.#handshake;
    if (handshake === undefined) throw new ProtocolError("an answer that nobody asked for");
    const keys = finish(this.#own, handshake, message);
    this.#handshake = undefined;
    this.#retryAt = this.#giveUpAt = undefined;
    // Where both began at once, the peer will use the session that it began: ours to open, until one replaces it.
    this.#previous = this.#next ?? this.#current;
    this.#current = new Session(keys, handshake.index, u32le(message, 4), true, now);
    this.#next = undefined;
    this.#established(now);
    // The peer may not use the session before it has heard with it, so something is sent in any case.
    if (!this.#flush(now)) this.#emit(this.#current, new Uint8Array(0), now);
  }

  #given(message: Uint8Array, now: number): void {
    if (this.#firstMac === undefined) throw new ProtocolError("a cookie that nobody asked for");
    this.#cookie = { value: readCookie(this.#own, message, this.#firstMac), at: now };
    this.#firstMac = undefined; // one cookie for one message; the next try carries it
  }

  #transported(message: Uint8Array, now: number): Uint8Array | undefined {
    const index = u32le(message, 4);
    const session = [this.#current, this.#previous, this.#next].find((one) => one?.local === index);
    if (session === undefined) throw new ProtocolError("a message of no session that we know");
    if (now - session.born >= REJECT_AFTER_TIME)
      throw new ProtocolError("a message of a session that is too old");
    const packet = session.open(message);
    this.#suspectAt = undefined;
    if (session === this.#next) {
      this.#previous = this.#current;
      this.#current = session;
      this.#next = undefined;
      this.#established(now);
      this.#flush(now);
    }
    const renew = REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT;
    if (session === this.#current && session.initiator && now - session.born >= renew) this.#begin(now, true);
    if (packet.length === 0) return undefined;
    this.#keepaliveAt ??= now + KEEPALIVE_TIMEOUT;
    return packet;
  }

  #established(now: number): void {
    this.#forgetAt = now + 3 * REJECT_AFTER_TIME;
    this.#suspectAt = undefined;
    this.#eager = 0;
    this.#events.push({ kind: "established" });
  }

  #usable(now: number): Session | undefined {
    const session = this.#current;
    if (session === undefined || now - session.born >= REJECT_AFTER_TIME) return undefined;
    return session.sent >= REJECT_AFTER_MESSAGES ? undefined : session;
  }

  #emit(session: Session, packet: Uint8Array, now: number): void {
    this.#outgoing.push(session.seal(packet));
    this.#keepaliveAt = undefined;
    if (packet.length > 0) this.#suspectAt ??= now + KEEPALIVE_TIMEOUT + REKEY_TIMEOUT;
  }

  #flush(now: number): boolean {
    const session = this.#usable(now);
    const packets = this.#waiting;
    if (session === undefined || packets.length === 0) return false;
    this.#waiting = [];
    for (const packet of packets) this.#emit(session, packet, now);
    return true;
  }

  /** Begin a handshake unless one is under way; ``insist`` begins its 90 s anew, since somebody wants it now. */
  #begin(now: number, insist: boolean): void {
    if (insist || this.#giveUpAt === undefined) this.#giveUpAt = now + REKEY_ATTEMPT_TIME;
    if (this.#retryAt === undefined) this.#initiate(now);
  }

  #retry(now: number): void {
    this.#retryAt = undefined;
    if (due(this.#giveUpAt, now)) {
      this.#giveUpAt = undefined;
      this.#handshake = undefined;
      this.#waiting = [];
      this.#events.push({ kind: "lost" });
      return;
    }
    this.#initiate(now);
  }

  #initiate(now: number): void {
    const index = this.#newIndex();
    const { message, handshake } = initiate(this.#own, this.#entropy(32), index, this.#stamp(now));
    this.#handshake = handshake;
    this.#speak(message, now);
    this.#outgoing.push(message);
    // A little later or earlier, so that two that began together do not for ever (section 6.1).
    const jitter = this.#entropy(1)[0]! / 255;
    this.#retryAt = now + (this.#eager > 0 ? this.#eager * (1 + jitter / 4) : REKEY_TIMEOUT + jitter * 333);
    if (this.#eager > 0) this.#eager = 2 * this.#eager < REKEY_TIMEOUT ? 2 * this.#eager : 0;
  }

  /** What every handshake message we send needs: its MAC kept, and the cookie on it where we were given one. */
  #speak(message: Uint8Array, now: number): void {
    this.#firstMac = message.slice(message.length - 32, message.length - 16);
    if (this.#cookie !== undefined && now - this.#cookie.at < COOKIE_LIFE)
      stampCookie(message, this.#cookie.value);
  }

  /** TAI64N, always later than the one before, even where the clock of the machine was set back. */
  #stamp(now: number): Uint8Array {
    this.#lastStamp = Math.max(this.#epoch + now, this.#lastStamp + 1);
    const seconds = Math.floor(this.#lastStamp / SECOND);
    const stamp = new Uint8Array(12);
    putU32(stamp, 0, 0x40000000 + Math.floor(seconds / 2 ** 32));
    putU32(stamp, 4, (seconds + 10) % 2 ** 32);
    putU32(stamp, 8, Math.floor((this.#lastStamp - seconds * SECOND) * 1e6));
    return stamp;
  }

  #flooded(now: number): boolean {
    this.#lately = this.#lately.filter((at) => now - at < SECOND);
    if (this.#lately.length <= HANDSHAKES_A_SECOND) this.#lately.push(now);
    return this.#lately.length > HANDSHAKES_A_SECOND;
  }

  /** Under load: whether the sender has shown that it receives what we send; if not, it is told how to (section 5.3). */
  #cookieShown(message: Uint8Array, now: number): boolean {
    if (this.#cookieSecret === undefined || now - this.#cookieSecret.at >= COOKIE_LIFE) {
      this.#cookieSecret = { value: this.#entropy(32), at: now };
    }
    // The relay's word for who sent it is all there is for an address.
    const cookie = mac(this.#cookieSecret.value, this.#own.peer);
    if (hasCookie(message, cookie)) return true;
    this.#outgoing.push(cookieReply(this.#own, message, cookie, this.#entropy(24)));
    return false;
  }

  #newIndex(): number {
    for (;;) {
      const index = u32le(this.#entropy(4), 0);
      const taken = [this.#current, this.#previous, this.#next].some((one) => one?.local === index);
      if (!taken && this.#handshake?.index !== index) return index;
    }
  }

  #forget(): void {
    this.#current = this.#previous = this.#next = undefined;
    this.#forgetAt = undefined;
    this.#keepaliveAt = undefined;
  }
}

function due(at: number | undefined, now: number): boolean {
  return at !== undefined && at <= now;
}

/** Whether a TAI64N is later than another: the same as comparing their bytes. */
function later(one: Uint8Array, two: Uint8Array): boolean {
  if (equal(one, two)) return false;
  for (let at = 0; at < one.length; at++) {
    if (one[at] !== two[at]) return one[at]! > two[at]!;
  }
  return false;
}
