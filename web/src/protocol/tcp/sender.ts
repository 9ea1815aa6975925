/**
 * The sending half of a TCP connection: what is on its way, what of it was lost, and how much may follow.
 *
 * Loss is found by time (RACK, RFC 8985) from what later segments tell in SACK ranges; the tail of a transfer is
 * probed for; the congestion window follows RFC 5681 with the decrease of CUBIC (RFC 9438).
 */

import { ByteQueue } from "../bytes.ts";
import type { SackBlock } from "./segment.ts";

const MIN_RTO = 200;
const MAX_RTO = 30_000;
const FIRST_RTO = 1000;
/** What of the congestion window stays after a loss, and how steep it grows again (RFC 9438 section 4.1). */
const DECREASE = 0.7;
const CUBE = 0.4;
/** So many times the same bytes are sent in vain before the connection is given up: some four minutes. */
const TRIES = 14;

/** A range of the stream that was sent as one segment. Positions are byte numbers that never wrap; SYN is number 0. */
interface Flight {
  readonly start: number;
  readonly end: number;
  readonly data: Uint8Array;
  readonly fin: boolean;
  sentAt: number;
  order: number; // counts what was sent, since many segments leave within one millisecond
  tries: number;
  sacked: boolean;
  lost: boolean;
}

/** One segment to be sent. */
export interface Piece {
  readonly start: number;
  readonly data: Uint8Array;
  readonly fin: boolean;
  /** Whether the peer should hand it on at once. */
  readonly push: boolean;
}

export class Sender {
  readonly #queue = new ByteQueue();
  readonly #capacity: number;
  #flights: Flight[] = [];
  #order = 0;
  #mss = 536;
  #window = 0; // the peer's, in bytes from the oldest byte not acknowledged
  #finWanted = false;
  #finSent = false;

  #congestion = 0; // cwnd, bytes
  #threshold = Number.POSITIVE_INFINITY;
  #recoverUntil: number | undefined; // in recovery until this position is acknowledged
  #summit = 0; // the congestion window at the last loss
  #climb: { readonly since: number; friendly: number } | undefined; // since growth began anew after it

  #smoothed: number | undefined;
  #variance = 0;
  #leastRtt = Number.POSITIVE_INFINITY;
  #backoff = 0;
  #rackOrder = -1; // the newest segment known to have arrived
  #rackTime = 0;
  #rackRtt = 0;

  #timeoutAt: number | undefined;
  #probeAt: number | undefined;
  #reorderAt: number | undefined;
  #probed = false;

  /** The position of the oldest byte that the peer has not acknowledged. */
  acknowledged = 0;
  /** The position behind the last byte that was ever sent. */
  next = 0;
  /** How many segments were sent again. */
  retransmitted = 0;

  /** ``capacity`` bounds what waits to be sent or acknowledged, in bytes. */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** How many more bytes ``write`` takes now. */
  get room(): number {
    return Math.max(0, this.#capacity - this.#queue.length - (this.next - this.acknowledged));
  }

  /** Whether everything written has been acknowledged, the end too if it was asked for. */
  get done(): boolean {
    return this.#queue.length === 0 && this.#flights.length === 0 && this.#finSent === this.#finWanted;
  }

  /** Whether the peer has acknowledged our end of the stream. */
  get finished(): boolean {
    return this.#finSent && this.#flights.length === 0;
  }

  /** Whether the same bytes have been sent in vain so often that there is nobody there. */
  get hopeless(): boolean {
    return this.#backoff >= TRIES;
  }

  /** The connection is open: segments carry ``mss`` bytes, the peer takes ``window``; ``rtt`` is what the handshake took. */
  opened(mss: number, window: number, rtt: number | undefined): void {
    this.#mss = mss;
    this.#window = window;
    this.#congestion = 10 * mss;
    this.acknowledged = this.next = 1;
    if (rtt !== undefined) this.#measured(rtt);
  }

  write(data: Uint8Array): void {
    if (data.length > this.room) throw new RangeError(`${data.length} bytes do not fit`);
    this.#queue.push(data.slice());
  }

  /** No more will be written. */
  finish(): void {
    this.#finWanted = true;
  }

  /** What a segment of the peer says of ours. False for an acknowledgement of what was never sent. */
  acknowledge(position: number, window: number, sack: readonly SackBlock[], now: number): boolean {
    if (position > this.next || position < this.acknowledged - 2 ** 30) return false;
    const windowOpened = this.#window === 0 && window > 0;
    if (position >= this.acknowledged) this.#window = window;
    // Who says that nothing fits is there, for however long nothing fits.
    if (window === 0) this.#backoff = Math.min(this.#backoff, TRIES - 2);
    let delivered = 0;
    let done = 0;
    for (const flight of this.#flights) {
      if (flight.end > position) break;
      if (!flight.sacked) {
        delivered += flight.end - flight.start;
        this.#arrived(flight, now);
      }
      done++;
    }
    if (done > 0) this.#flights = this.#flights.slice(done);
    const advanced = position > this.acknowledged;
    if (advanced) {
      this.acknowledged = position;
      this.#backoff = 0;
      this.#probed = false;
    }
    delivered += this.#sacked(sack, now);
    if (this.#recoverUntil !== undefined && this.acknowledged >= this.#recoverUntil)
      this.#recoverUntil = undefined;
    if (windowOpened) {
      // What was sent into a shut window was thrown away.
      this.#backoff = 0;
      for (const flight of this.#flights) flight.lost ||= !flight.sacked;
    }
    this.#findLost(now);
    if (delivered > 0 && this.#recoverUntil === undefined) this.#grow(delivered, now);
    if (advanced || delivered > 0 || windowOpened) this.#arm(now);
    return true;
  }

  /** The segments that may be sent now. */
  pieces(now: number): Piece[] {
    const pieces: Piece[] = [];
    let flying = this.#inFlight();
    for (const flight of this.#flights) {
      if (!flight.lost) continue;
      if (flying + flight.data.length > this.#congestion && flying > 0) break;
      pieces.push(this.#again(flight, now));
      flying += flight.data.length;
    }
    for (;;) {
      const usable = this.acknowledged + this.#window - this.next;
      const free = this.#congestion - flying;
      const size = Math.min(this.#queue.length, this.#mss, Math.max(0, usable));
      const last = this.#finWanted && !this.#finSent && size === this.#queue.length;
      if (size === 0 && !last) break;
      if (free < size && flying > 0) break;
      // A short segment waits while others are under way only where more cannot follow it (RFC 9293, silly windows).
      if (size < this.#mss && size < this.#queue.length && this.#flights.length > 0) break;
      pieces.push(this.#fresh(size, last, now));
      flying += size;
    }
    if (pieces.length > 0 || this.#timeoutAt === undefined) this.#arm(now);
    return pieces;
  }

  nextDeadline(): number | undefined {
    let next: number | undefined;
    for (const at of [this.#timeoutAt, this.#probeAt, this.#reorderAt]) {
      if (at !== undefined && (next === undefined || at < next)) next = at;
    }
    return next;
  }

  /** A time has come: what is to be sent for it comes from ``pieces`` or from here. */
  onDeadline(now: number): Piece[] {
    if (this.#reorderAt !== undefined && this.#reorderAt <= now) {
      this.#reorderAt = undefined;
      this.#findLost(now);
    }
    if (this.#timeoutAt !== undefined && this.#timeoutAt <= now) return this.#timedOut(now);
    if (this.#probeAt !== undefined && this.#probeAt <= now) return this.#probe(now);
    return [];
  }

  /** The way is there again after it was not: send the oldest bytes now instead of when their time comes. */
  nudge(now: number): void {
    this.#backoff = 0;
    if (this.#flights.length > 0) this.#timeoutAt = now;
  }

  #timedOut(now: number): Piece[] {
    this.#probeAt = this.#reorderAt = undefined;
    this.#backoff++;
    if (this.#flights.length === 0) return this.#probeWindow(now);
    if (this.#backoff === 1) this.#fall();
    this.#congestion = this.#mss;
    this.#recoverUntil = this.next;
    for (const flight of this.#flights) if (!flight.sacked) flight.lost = true;
    const oldest = this.#flights.find((flight) => !flight.sacked) ?? this.#flights[0]!;
    const piece = this.#again(oldest, now);
    this.#timeoutAt = now + this.#rto();
    return [piece];
  }

  /** The peer's window is shut: a byte beyond it makes the peer say whether it still is (RFC 9293 section 3.8.6.1). */
  #probeWindow(now: number): Piece[] {
    this.#timeoutAt = undefined;
    if (this.#queue.length === 0 && !(this.#finWanted && !this.#finSent)) {
      this.#backoff = 0;
      return [];
    }
    const size = Math.min(1, this.#queue.length);
    const piece = this.#fresh(size, size === this.#queue.length && this.#finWanted, now);
    this.#timeoutAt = now + this.#rto();
    return [piece];
  }

  /** The last segments may be lost without anything behind them that tells: send one more (RFC 8985 section 7). */
  #probe(now: number): Piece[] {
    this.#probeAt = undefined;
    if (this.#flights.length === 0 || this.#probed) return [];
    this.#probed = true;
    const usable = this.acknowledged + this.#window - this.next;
    const size = Math.min(this.#queue.length, this.#mss, usable);
    const last = this.#flights.at(-1)!;
    const piece = size > 0 ? this.#fresh(size, false, now) : this.#again(last, now);
    this.#timeoutAt = now + this.#rto();
    return [piece];
  }

  #fresh(size: number, fin: boolean, now: number): Piece {
    const data = size === 0 ? new Uint8Array(0) : this.#queue.take(size)!;
    const start = this.next;
    this.next += size + (fin ? 1 : 0);
    if (fin) this.#finSent = true;
    const order = this.#order++;
    const flight: Flight = {
      start,
      end: this.next,
      data,
      fin,
      sentAt: now,
      order,
      tries: 1,
      sacked: false,
      lost: false,
    };
    this.#flights.push(flight);
    return { start, data, fin, push: this.#queue.length === 0 };
  }

  #again(flight: Flight, now: number): Piece {
    flight.lost = false;
    flight.sentAt = now;
    flight.order = this.#order++;
    flight.tries++;
    this.retransmitted++;
    return { start: flight.start, data: flight.data, fin: flight.fin, push: true };
  }

  #inFlight(): number {
    let bytes = 0;
    for (const flight of this.#flights)
      if (!flight.sacked && !flight.lost) bytes += flight.end - flight.start;
    return bytes;
  }

  #sacked(blocks: readonly SackBlock[], now: number): number {
    let delivered = 0;
    for (const [start, end] of blocks) {
      for (const flight of this.#flights) {
        if (flight.start >= end) break;
        if (flight.sacked || flight.start < start || flight.end > end) continue;
        flight.sacked = true;
        flight.lost = false;
        delivered += flight.end - flight.start;
        this.#arrived(flight, now);
      }
    }
    return delivered;
  }

  #arrived(flight: Flight, now: number): void {
    const rtt = now - flight.sentAt;
    if (flight.tries === 1) this.#measured(rtt);
    // What was sent again and is acknowledged sooner than anything can be was the first copy (RFC 8985 section 6.2).
    else if (rtt < this.#leastRtt) return;
    if (flight.order > this.#rackOrder) {
      this.#rackOrder = flight.order;
      this.#rackTime = flight.sentAt;
      this.#rackRtt = rtt;
    }
  }

  #findLost(now: number): void {
    this.#reorderAt = undefined;
    if (this.#rackOrder < 0) return;
    let above = 0;
    for (const flight of this.#flights) if (flight.sacked) above++;
    // Packets of one relay keep their order; but not for the first sign alone, unless three say so.
    const patience = above >= 3 || this.#recoverUntil !== undefined ? 0 : Math.min(this.#leastRtt / 4, 50);
    let found = false;
    for (const flight of this.#flights) {
      if (flight.sacked || flight.lost || flight.order > this.#rackOrder) continue;
      const due = flight.sentAt + this.#rackRtt + patience;
      if (flight.sentAt > this.#rackTime) continue;
      if (patience === 0 || due <= now) {
        flight.lost = true;
        found = true;
      } else if (this.#reorderAt === undefined || due < this.#reorderAt) {
        this.#reorderAt = due;
      }
    }
    if (found && this.#recoverUntil === undefined) {
      this.#recoverUntil = this.next;
      this.#fall();
    }
  }

  /** Less at once, and where it was is remembered: near it, growth will be slow. */
  #fall(): void {
    // Where the summit comes down, somebody else needs room: leave it to them (RFC 9438 section 4.7).
    this.#summit = this.#congestion < this.#summit ? this.#congestion * 0.85 : this.#congestion;
    this.#climb = undefined;
    this.#threshold = Math.max(this.#congestion * DECREASE, 2 * this.#mss);
    this.#congestion = this.#threshold;
  }

  /** Double in each round trip up to the threshold, from there by the cube of time (RFC 9438 sections 4.2 and 4.3). */
  #grow(delivered: number, now: number): void {
    if (this.#congestion < this.#threshold) {
      this.#congestion += Math.min(delivered, 2 * this.#mss);
    } else {
      this.#climb ??= { since: now, friendly: this.#congestion };
      const seconds = (now - this.#climb.since + (this.#smoothed ?? 0)) / 1000;
      const offset = Math.cbrt((this.#summit * (1 - DECREASE)) / this.#mss / CUBE);
      const cube = this.#summit + CUBE * (seconds - offset) ** 3 * this.#mss;
      this.#climb.friendly += (0.53 * this.#mss * delivered) / this.#congestion;
      const target = Math.min(Math.max(cube, this.#climb.friendly), 1.5 * this.#congestion);
      if (target > this.#congestion)
        this.#congestion += ((target - this.#congestion) * delivered) / this.#congestion;
    }
    this.#congestion = Math.min(this.#congestion, this.#capacity);
  }

  #measured(rtt: number): void {
    this.#leastRtt = Math.min(this.#leastRtt, rtt);
    if (this.#smoothed === undefined) {
      this.#smoothed = rtt;
      this.#variance = rtt / 2;
      return;
    }
    this.#variance += (Math.abs(this.#smoothed - rtt) - this.#variance) / 4;
    this.#smoothed += (rtt - this.#smoothed) / 8;
  }

  #rto(): number {
    const base = this.#smoothed === undefined ? FIRST_RTO : this.#smoothed + Math.max(4 * this.#variance, 10);
    return Math.min(Math.max(base, MIN_RTO) * 2 ** this.#backoff, MAX_RTO);
  }

  #arm(now: number): void {
    this.#probeAt = undefined;
    const waits = this.#queue.length > 0 || (this.#finWanted && !this.#finSent);
    if (this.#flights.length === 0) {
      this.#timeoutAt = waits ? now + this.#rto() : undefined;
      return;
    }
    this.#timeoutAt = now + this.#rto();
    if (this.#smoothed === undefined || this.#probed || this.#recoverUntil !== undefined) return;
    // The peer may wait with its acknowledgement of a single segment, in case an answer can carry it.
    const delay = 2 * this.#smoothed + (this.#flights.length === 1 ? 50 : 10);
    if (delay < this.#rto()) this.#probeAt = now + delay;
  }
}
