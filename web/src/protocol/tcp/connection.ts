/**
 * One TCP connection that we open (RFC 9293), as a pure object: segments and the time go in, segments come out.
 *
 * Back-pressure goes both ways: what nobody reads shuts the window, and ``room`` says how much may be written.
 */

import { u32 } from "../bytes.ts";
import { headerLength, MTU } from "../ip.ts";
import { Receiver } from "./receiver.ts";
import { ACK, buildSegment, FIN, PSH, RST, type Segment, SYN } from "./segment.ts";
import { type Piece, Sender } from "./sender.ts";

const SCALE = 7;
const SYN_TIMEOUT = 1000;
const SYN_TRIES = 7;
const DELAYED_ACK = 20;
/** Long enough for a last segment that comes again; nobody else can have the same ports (they are random). */
const TIME_WAIT = 1000;
/** More than these bogus segments a second are not answered (RFC 5961 section 7). */
const CHALLENGES = 10;

/** Why a connection is over. ``ended`` is the ordinary end: both sides said so. */
export type Ending = "ended" | "refused" | "reset" | "unreachable" | "aborted";

export type TcpEvent =
  | { readonly kind: "open" }
  | { readonly kind: "readable" }
  | { readonly kind: "writable" }
  /** The peer will send no more; what it sent can still be read. */
  | { readonly kind: "finished" }
  | { readonly kind: "closed"; readonly why: Ending };

type State = "new" | "syn-sent" | "open" | "time-wait" | "closed";

export interface TcpOptions {
  readonly local: Uint8Array;
  readonly localPort: number;
  readonly remote: Uint8Array;
  readonly remotePort: number;
  /** Bytes that nobody can guess: the first sequence number must be none that others know. */
  readonly entropy: (size: number) => Uint8Array;
  /** What may wait to be read, in bytes. */
  readonly receiveBuffer?: number;
  /** What may wait to be sent or acknowledged, in bytes. */
  readonly sendBuffer?: number;
}

export class TcpConnection {
  readonly #options: TcpOptions;
  readonly #sender: Sender;
  readonly #receiver: Receiver;
  readonly #first: number; // our initial sequence number
  #theirs = 0; // the peer's, of its first byte of data
  #state: State = "new";
  #peerScale = 0;
  #scale = 0;
  #sackUsed = false;

  #synAt = 0;
  #synTries = 0;
  #finAt: number | undefined; // the position of the peer's end
  #finSeen = false;
  #wasFull = false;

  #out: Uint8Array[] = [];
  #events: TcpEvent[] = [];
  #ackNow = false;
  #unacknowledged = 0; // segments with data since our last acknowledgement
  #ackAt: number | undefined;
  #timerAt: number | undefined; // SYN and TIME-WAIT
  #challenges: number[] = [];

  constructor(options: TcpOptions) {
    this.#options = options;
    this.#first = u32(options.entropy(4), 0);
    this.#sender = new Sender(options.sendBuffer ?? 1 << 20);
    this.#receiver = new Receiver(options.receiveBuffer ?? 1 << 20);
  }

  get localPort(): number {
    return this.#options.localPort;
  }

  get remotePort(): number {
    return this.#options.remotePort;
  }

  get closed(): boolean {
    return this.#state === "closed";
  }

  /** How many more bytes may be written now. */
  get room(): number {
    return this.#state === "open" || this.#state === "syn-sent" ? this.#sender.room : 0;
  }

  /** How many bytes can be read now. */
  get readable(): number {
    return this.#receiver.readable;
  }

  /** How many segments were sent more than once. */
  get retransmitted(): number {
    return this.#sender.retransmitted;
  }

  connect(now: number): void {
    if (this.#state !== "new") throw new Error("a connection is opened once");
    this.#state = "syn-sent";
    this.#syn(now);
  }

  /** Send bytes, at most ``room`` of them (RangeError beyond); they are copied. */
  write(data: Uint8Array): void {
    this.#sender.write(data);
    this.#wasFull ||= this.#sender.room === 0;
  }

  /** Read at most ``limit`` bytes of what has arrived in order; empty where there is nothing. */
  read(limit = Number.POSITIVE_INFINITY): Uint8Array {
    const data = this.#receiver.read(limit);
    // The peer is told of room only when it is worth a packet (RFC 9293 section 3.8.6.2.2).
    if (this.#state === "open" && this.#receiver.growth() >= 2 * this.#mss()) this.#ackNow = true;
    return data;
  }

  /** No more will be written; what was is still delivered. */
  close(): void {
    if (this.#state === "new") this.#end("ended");
    else this.#sender.finish();
  }

  /** End at once, without caring for what is under way. */
  abort(): void {
    if (this.#state === "open") this.#emit({ start: this.#sender.next, flags: RST | ACK });
    if (this.#state !== "closed") this.#end("aborted");
  }

  /** The way to the peer is there again after a pause: what is unanswered is sent anew without waiting for its time. */
  nudge(now: number): void {
    if (this.#state === "syn-sent") this.#timerAt = now;
    this.#sender.nudge(now);
  }

  /** A segment of the peer for our port. */
  receive(segment: Segment, now: number): void {
    if (this.#state === "syn-sent") this.#opening(segment, now);
    else if (this.#state === "open" || this.#state === "time-wait") this.#arrived(segment, now);
  }

  events(): TcpEvent[] {
    const events = this.#events;
    this.#events = [];
    return events;
  }

  /** The IP packets to be sent now. */
  packets(now: number): Uint8Array[] {
    if (this.#state === "open") {
      const gap = this.#ackNow && this.#receiver.hasGap;
      for (const piece of this.#sender.pieces(now)) this.#send(piece);
      if (gap || this.#ackNow) this.#acknowledge();
    } else if (this.#state === "time-wait" && this.#ackNow) {
      this.#acknowledge(); // the peer says its end again: ours did not arrive
    }
    const packets = this.#out;
    this.#out = [];
    return packets;
  }

  nextDeadline(): number | undefined {
    if (this.#state === "closed" || this.#state === "new") return undefined;
    let next = this.#timerAt;
    const others = this.#state === "open" ? [this.#ackAt, this.#sender.nextDeadline()] : [];
    for (const at of others) if (at !== undefined && (next === undefined || at < next)) next = at;
    return next;
  }

  onDeadline(now: number): void {
    if (this.#timerAt !== undefined && this.#timerAt <= now) {
      this.#timerAt = undefined;
      if (this.#state === "time-wait") this.#end("ended");
      else if (this.#state === "syn-sent") this.#syn(now);
    }
    if (this.#state !== "open") return;
    if (this.#ackAt !== undefined && this.#ackAt <= now) this.#ackNow = true;
    for (const piece of this.#sender.onDeadline(now)) this.#send(piece);
    if (this.#sender.hopeless) {
      this.#emit({ start: this.#sender.next, flags: RST | ACK });
      this.#end("unreachable");
    }
  }

  #syn(now: number): void {
    if (this.#synTries === SYN_TRIES) {
      this.#end("unreachable");
      return;
    }
    this.#synAt = now;
    this.#timerAt = now + SYN_TIMEOUT * 2 ** this.#synTries++;
    this.#out.push(
      buildSegment(this.#options.local, this.#options.remote, {
        sourcePort: this.#options.localPort,
        destinationPort: this.#options.remotePort,
        sequence: this.#first,
        acknowledgement: 0,
        flags: SYN,
        window: 65535,
        data: new Uint8Array(0),
        mss: this.#mss(),
        scale: SCALE,
        sackPermitted: true,
      }),
    );
  }

  #opening(segment: Segment, now: number): void {
    const ours = (segment.flags & ACK) !== 0 && segment.acknowledgement === (this.#first + 1) >>> 0;
    if ((segment.flags & RST) !== 0) {
      if (ours) this.#end("refused");
      return;
    }
    // Both sides opening at once is for those who listen; we do not.
    if (!ours || (segment.flags & SYN) === 0) return;
    this.#state = "open";
    this.#timerAt = undefined;
    this.#theirs = (segment.sequence + 1) >>> 0;
    if (segment.scale !== undefined) {
      this.#peerScale = segment.scale;
      this.#scale = SCALE;
    }
    this.#sackUsed = segment.sackPermitted === true;
    const mss = Math.min(this.#mss(), Math.max(segment.mss ?? 536, 64));
    this.#sender.opened(mss, segment.window, this.#synTries === 1 ? now - this.#synAt : undefined);
    this.#ackNow = true;
    this.#events.push({ kind: "open" });
  }

  #arrived(segment: Segment, now: number): void {
    const position = this.#receiver.next + ((segment.sequence - this.#wire(this.#receiver.next)) | 0);
    const size = segment.data.length;
    const window = this.#receiver.window();
    const expected = this.#receiver.next + (this.#finSeen ? 1 : 0); // the peer's end has a number, too
    const inside = position + size >= this.#receiver.next && position <= expected + window;
    if ((segment.flags & RST) !== 0) {
      // Only the very next number ends it: others can be guessed (RFC 5961 section 3).
      if (position === expected) this.#end("reset");
      else if (inside) this.#challenge(now);
      return;
    }
    if ((segment.flags & SYN) !== 0) {
      this.#challenge(now);
      return;
    }
    if ((segment.flags & ACK) === 0) return;
    if (!inside) {
      this.#ackNow = true; // most often it came twice, since our acknowledgement was lost
      return;
    }
    const acknowledged =
      this.#sender.acknowledged + ((segment.acknowledgement - (this.#first + this.#sender.acknowledged)) | 0);
    const sack = this.#ranges(segment);
    if (!this.#sender.acknowledge(acknowledged, segment.window << this.#peerScale, sack, now)) {
      this.#challenge(now);
      return;
    }
    if (this.#wasFull && this.#sender.room > 0) {
      this.#wasFull = false;
      this.#events.push({ kind: "writable" });
    }
    if (size > 0) this.#data(position, segment.data, now);
    if ((segment.flags & FIN) !== 0) this.#finAt = position + size;
    this.#endOfStream();
    if (this.#finSeen && this.#sender.finished) this.#linger(now);
  }

  #data(position: number, data: Uint8Array, now: number): void {
    const before = this.#receiver.next;
    const gap = this.#receiver.hasGap;
    const fresh = this.#receiver.accept(position, data, now);
    if (this.#receiver.next > before && this.#events.at(-1)?.kind !== "readable")
      this.#events.push({ kind: "readable" });
    this.#unacknowledged++;
    if (!fresh || gap || this.#receiver.hasGap || this.#unacknowledged >= 2) this.#ackNow = true;
    else this.#ackAt ??= now + DELAYED_ACK;
  }

  #endOfStream(): void {
    if (this.#finAt === undefined) return;
    if (this.#finSeen) {
      this.#ackNow = true; // it came again
    } else if (this.#receiver.next === this.#finAt) {
      this.#finSeen = true;
      this.#ackNow = true;
      this.#events.push({ kind: "finished" });
    }
  }

  #linger(now: number): void {
    if (this.#state !== "time-wait") this.#acknowledge();
    else if (!this.#ackNow) return;
    this.#state = "time-wait";
    this.#timerAt = now + TIME_WAIT; // anew with each time that the peer says its end (RFC 9293 section 3.10.7.4)
  }

  #ranges(segment: Segment): [number, number][] {
    if (!this.#sackUsed || segment.sack === undefined) return [];
    const base = this.#sender.acknowledged;
    const from = (wire: number) => base + ((wire - (this.#first + base)) | 0);
    return segment.sack.map(([start, end]) => [from(start), from(end)]);
  }

  #send(piece: Piece): void {
    let flags = ACK;
    if (piece.push) flags |= PSH;
    if (piece.fin) flags |= FIN;
    this.#emit({ start: piece.start, flags, data: piece.data });
  }

  #acknowledge(): void {
    this.#emit({ start: this.#sender.next, flags: ACK });
  }

  #challenge(now: number): void {
    this.#challenges = this.#challenges.filter((at) => now - at < 1000);
    if (this.#challenges.length >= CHALLENGES) return;
    this.#challenges.push(now);
    this.#acknowledge();
  }

  /** Every segment says what has arrived, so each counts as an acknowledgement. */
  #emit(segment: { start: number; flags: number; data?: Uint8Array }): void {
    this.#ackNow = false;
    this.#ackAt = undefined;
    this.#unacknowledged = 0;
    const sack = this.#sackUsed ? this.#receiver.blocks() : [];
    // Beside data they would make the packet too long for the tunnel.
    const blocks = segment.data !== undefined && segment.data.length > 0 ? [] : sack;
    this.#out.push(
      buildSegment(this.#options.local, this.#options.remote, {
        sourcePort: this.#options.localPort,
        destinationPort: this.#options.remotePort,
        sequence: (this.#first + segment.start) >>> 0,
        acknowledgement: (this.#wire(this.#receiver.next) + (this.#finSeen ? 1 : 0)) >>> 0,
        flags: segment.flags,
        window: Math.min(this.#receiver.window() >>> this.#scale, 65535),
        data: segment.data ?? new Uint8Array(0),
        sack: blocks.map(([start, end]) => [this.#wire(start), this.#wire(end)]),
      }),
    );
  }

  #wire(position: number): number {
    return (this.#theirs + position) >>> 0;
  }

  #mss(): number {
    return MTU - headerLength(this.#options.local) - 20;
  }

  #end(why: Ending): void {
    this.#state = "closed";
    this.#timerAt = this.#ackAt = undefined;
    this.#events.push({ kind: "closed", why });
  }
}
