/** The receiving half of a TCP connection: puts in order what arrives, and says how much more may come. */

import { ByteQueue } from "../bytes.ts";

/** Positions are byte numbers counted from the first byte of the stream, which never wrap. */
interface Piece {
  readonly start: number;
  readonly end: number;
  readonly data: Uint8Array;
}

/** As many ranges fit into an acknowledgement (40 bytes of options). */
const BLOCKS = 4;

export class Receiver {
  readonly #capacity: number;
  readonly #ready = new ByteQueue();
  #ahead: Piece[] = []; // out of order, sorted, not overlapping
  #latest = 0; // where the newest piece out of order began: its range is told first (RFC 2018 section 4)
  #edge: number; // the end of the window as it was told; it never moves back (RFC 9293 section 3.8.6)
  /** The position of the next byte that is missing. */
  next = 0;

  /** ``capacity`` bounds what waits here, in bytes, read or not yet in order. */
  constructor(capacity: number) {
    this.#capacity = capacity;
    this.#edge = capacity;
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
    const edge = this.next + this.#capacity - this.#ready.length;
    if (edge > this.#edge) this.#edge = edge;
    return this.#edge - this.next;
  }

  /** By how much the window would grow if it were told now. */
  growth(): number {
    return Math.max(0, this.next + this.#capacity - this.#ready.length - this.#edge);
  }

  /** Take what is new of a piece that begins at a position, and within the window; whether anything was. */
  accept(position: number, data: Uint8Array): boolean {
    const start = Math.max(position, this.next);
    const end = Math.min(position + data.length, this.#edge);
    if (start >= end) return false;
    const fresh = data.subarray(start - position, end - position);
    if (start > this.next) return this.#keep({ start, end, data: fresh });
    this.#append(fresh);
    this.#joinAhead();
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

  #append(data: Uint8Array): void {
    // A copy: what arrives is a view of a message of many packets, which would stay alive as long as this does.
    this.#ready.push(data.slice());
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
    if (start >= end) return false;
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
