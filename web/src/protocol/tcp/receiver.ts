/** The receiving half of a TCP connection: puts in order what arrives, and says how much more may come. */

import { ByteQueue } from "../bytes.ts";

/** The window is never less than this because of what the way bears, in bytes. */
const LEAST_WINDOW = 16 * 1024;
/**
 * Nor less than this where nothing is lost. On a short way both ends have little to do with each packet, and most of the time
 * to wait for each other: who may send more at once does it in fewer turns.
 */
const EASY_WINDOW = 96 * 1024;
/** Below this, in milliseconds, times are a matter of when a browser gets to look. */
const LEAST_RTT = 2;
/** The least time there and back is found anew so often: ways change. */
const RTT_LIFE = 10_000;

/**
 * How much may be under way towards us: about half more than what the way carries in the time there and back.
 *
 * A relay keeps 32 packets for each node and drops the rest, and who sends through it does not know. A window of a
 * megabyte costs half of the speed on a short way, by what is lost and sent again; so the receiver measures. While
 * the window is what limits the sender, what it sends behind the edge that was told comes one time there and back
 * later. Where more in flight only makes that time longer, it waits in a queue somewhere.
 */
class Pace {
  target = EASY_WINDOW;
  #floor = EASY_WINDOW; // lower with each loss
  #lostAt = 0;
  #mark: { readonly edge: number; readonly from: number; readonly at: number } | undefined;
  #least = Number.POSITIVE_INFINITY;
  #leastAt = 0;
  #recovered = 0;

  /** Bytes up to ``next`` have come, and the sender knows of room up to ``edge``. */
  arrived(next: number, edge: number, limit: number, now: number): void {
    const mark = this.#mark;
    if (mark !== undefined && next < mark.edge) return;
    this.#mark = { edge, from: next, at: now };
    if (mark === undefined) return;
    const rtt = Math.max(now - mark.at, LEAST_RTT);
    if (rtt <= this.#least || now - this.#leastAt > RTT_LIFE) {
      this.#least = rtt;
      this.#leastAt = now;
    }
    if (now - this.#lostAt > RTT_LIFE) {
      this.#floor = Math.min(2 * this.#floor, EASY_WINDOW);
      this.#lostAt = now;
    }
    const carried = ((next - mark.from) * this.#least) / rtt;
    this.target = Math.min(Math.max(this.#floor, carried * 1.5), limit);
  }

  /** Something on the way was lost, before ``next``; once for all that is under way. */
  lost(next: number, edge: number, now: number): void {
    if (next < this.#recovered) return;
    this.#recovered = edge;
    this.#lostAt = now;
    this.#floor = Math.max(LEAST_WINDOW, this.#floor / 2);
    this.target = Math.max(this.#floor, this.target * 0.7);
    this.#mark = undefined;
  }
}

/** Positions are byte numbers counted from the first byte of the stream, which never wrap. */
interface Piece {
  readonly start: number;
  readonly end: number;
  readonly data: Uint8Array;
}

/** What is in order is copied into blocks of this many bytes: one for each segment would cost more than what is in it. */
const BLOCK = 1 << 17;
/** More pieces out of order than these are not kept: each takes more than what is in it, and to look at, with every segment. */
const MOST_AHEAD = 4096;
/** As many ranges fit into an acknowledgement (40 bytes of options). */
const BLOCKS = 4;

export class Receiver {
  readonly #capacity: number;
  readonly #ready = new ByteQueue();
  #block = new Uint8Array(0); // what is left of the last one
  readonly #pace = new Pace();
  #ahead: Piece[] = []; // out of order, sorted, not overlapping
  #latest = 0; // where the newest piece out of order began: its range is told first (RFC 2018 section 4)
  #edge: number; // the end of the window as it was told; it never moves back (RFC 9293 section 3.8.6)
  /** The position of the next byte that is missing. */
  next = 0;

  /** ``capacity`` bounds what waits here, in bytes, read or not yet in order. */
  constructor(capacity: number) {
    this.#capacity = capacity;
    this.#edge = 65_535; // as the first segment says, which has no room for more
  }

  /** How many bytes can be read. */
  get readable(): number {
    return this.#ready.length;
  }

  /** Whether something arrived that has a gap before it. */
  get hasGap(): boolean {
    return this.#ahead.length > 0;
  }

  /** How many bytes from ``next`` on may be sent to us. */
  window(): number {
    this.#edge = Math.max(this.#edge, this.#wanted());
    return this.#edge - this.next;
  }

  /** By how much the window would grow if it were told now. */
  growth(): number {
    return Math.max(0, this.#wanted() - this.#edge);
  }

  /** Take what is new of a piece that begins at a position, and within the window; whether anything was. */
  accept(position: number, data: Uint8Array, now: number): boolean {
    const start = Math.max(position, this.next);
    const end = Math.min(position + data.length, this.#edge);
    if (start >= end) return false;
    const fresh = data.subarray(start - position, end - position);
    if (start > this.next) {
      this.#pace.lost(this.next, this.#edge, now);
      return this.#keep({ start, end, data: fresh });
    }
    this.#append(fresh);
    this.#joinAhead();
    this.#pace.arrived(this.next, this.#edge, this.#capacity, now);
    return true;
  }

  /** The next bytes in order, at most ``limit``; empty when there are none. */
  read(limit: number): Uint8Array {
    return this.#ready.takeSome(limit);
  }

  /** The ranges beyond the gap, the newest first. */
  blocks(): [number, number][] {
    const ranges: [number, number][] = [];
    for (const piece of this.#ahead) {
      const last = ranges.at(-1);
      if (last !== undefined && last[1] === piece.start) last[1] = piece.end;
      else ranges.push([piece.start, piece.end]);
    }
    const newest = ranges.findIndex(([start, end]) => start <= this.#latest && this.#latest < end);
    if (newest > 0) ranges.unshift(...ranges.splice(newest, 1));
    return ranges.slice(0, BLOCKS);
  }

  /** Where the window should end by now: what nobody reads does not become more, nor what the way does not bear. */
  #wanted(): number {
    return this.next + Math.min(this.#capacity - this.#ready.length, this.#pace.target);
  }

  #append(data: Uint8Array): void {
    // A copy: what arrives is a view of a message of many packets, which would stay alive as long as this does.
    for (let at = 0; at < data.length; ) {
      if (this.#block.length === 0) this.#block = new Uint8Array(BLOCK);
      const part = data.subarray(at, at + this.#block.length);
      this.#block.set(part);
      this.#ready.push(this.#block.subarray(0, part.length));
      this.#block = this.#block.subarray(part.length);
      at += part.length;
    }
    this.next += data.length;
  }

  #keep(piece: Piece): boolean {
    this.#latest = piece.start;
    let low = 0;
    let high = this.#ahead.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#ahead[middle]!.start < piece.start) low = middle + 1;
      else high = middle;
    }
    let { start } = piece;
    let { end } = piece;
    const before = this.#ahead[low - 1];
    if (before !== undefined && before.end > start) start = before.end;
    let behind = low;
    while (behind < this.#ahead.length && this.#ahead[behind]!.end <= end) behind++;
    const after = this.#ahead[behind];
    if (after !== undefined && after.start < end) end = after.start;
    if (start >= end || (behind === low && this.#ahead.length >= MOST_AHEAD)) return false;
    const data = piece.data.slice(start - piece.start, end - piece.start);
    this.#ahead.splice(low, behind - low, { start, end, data });
    return true;
  }

  #joinAhead(): void {
    let used = 0;
    for (const piece of this.#ahead) {
      if (piece.start > this.next) break;
      if (piece.end > this.next) this.#append(piece.data.subarray(this.next - piece.start));
      used++;
    }
    if (used > 0) this.#ahead = this.#ahead.slice(used);
  }
}
