/** A way between a connection and its peer, with delay, a rate and loss, in a time that a test makes pass. */

import { type IpPacket, parseAddress, parsePacket } from "../../src/protocol/ip.ts";
import { TcpConnection, type TcpEvent, type TcpOptions } from "../../src/protocol/tcp/connection.ts";
import { Receiver } from "../../src/protocol/tcp/receiver.ts";
import {
  ACK,
  buildSegment,
  FIN,
  PSH,
  parseSegment,
  type Segment,
  SYN,
} from "../../src/protocol/tcp/segment.ts";
import { type Piece, Sender } from "../../src/protocol/tcp/sender.ts";
import { Dice } from "./deterministic.ts";

export const LOCAL = parseAddress("100.64.0.3");
export const REMOTE = parseAddress("100.64.0.2");
const THEIR_FIRST = 0xfffffff0; // so that numbers wrap soon

/** The end that listens: as much of one as a test needs, made of the same halves. */
export class Listener {
  readonly sender: Sender;
  readonly receiver: Receiver;
  readonly got: Uint8Array[] = [];
  #opened = false;
  #port = 0;
  #theirs = 0;
  #finAt: number | undefined;
  #out: Uint8Array[] = [];
  ended = false;
  /** Whether what arrives is taken out at once. */
  reads = true;

  constructor(capacity = 1 << 20) {
    this.sender = new Sender(1 << 24);
    this.receiver = new Receiver(capacity);
  }

  receive(segment: Segment, now: number): void {
    if ((segment.flags & SYN) !== 0) {
      this.#port = segment.sourcePort;
      this.#theirs = (segment.sequence + 1) >>> 0;
      if (!this.#opened) this.sender.opened(Math.min(segment.mss ?? 536, 1240), segment.window, undefined);
      this.#opened = true;
      this.#send({ sequence: THEIR_FIRST, flags: SYN | ACK, mss: 1240, scale: 7, sackPermitted: true });
      return;
    }
    const una = this.sender.acknowledged;
    const acked = una + ((segment.acknowledgement - (THEIR_FIRST + una)) | 0);
    const sack = (segment.sack ?? []).map(([start, end]): [number, number] => {
      const from = (wire: number) => una + ((wire - (THEIR_FIRST + una)) | 0);
      return [from(start), from(end)];
    });
    this.sender.acknowledge(acked, segment.window << 7, sack, now);
    const position = this.receiver.next + ((segment.sequence - (this.#theirs + this.receiver.next)) | 0);
    if (segment.data.length > 0) this.receiver.accept(position, segment.data, now);
    if ((segment.flags & FIN) !== 0) this.#finAt = position + segment.data.length;
    if (this.#finAt === this.receiver.next) this.ended = true;
    this.take();
    if (segment.data.length > 0 || (segment.flags & FIN) !== 0) this.#send({ flags: ACK });
  }

  take(): void {
    while (this.reads && this.receiver.readable > 0) this.got.push(this.receiver.read(1 << 20));
  }

  /** Say again how much room there is. */
  tell(): void {
    this.#send({ flags: ACK });
  }

  packets(now: number): Uint8Array[] {
    if (this.#opened) for (const piece of this.sender.pieces(now)) this.#piece(piece);
    return this.#out.splice(0);
  }

  nextDeadline(): number | undefined {
    return this.sender.nextDeadline();
  }

  onDeadline(now: number): void {
    for (const piece of this.sender.onDeadline(now)) this.#piece(piece);
  }

  #piece(piece: Piece): void {
    this.#send({
      sequence: (THEIR_FIRST + piece.start) >>> 0,
      flags: ACK | PSH | (piece.fin ? FIN : 0),
      data: piece.data,
    });
  }

  #send(segment: Partial<Segment> & { flags: number }): void {
    this.#out.push(
      buildSegment(REMOTE, LOCAL, {
        sourcePort: 22,
        destinationPort: this.#port,
        sequence: (THEIR_FIRST + this.sender.next) >>> 0,
        acknowledgement: (this.#theirs + this.receiver.next + (this.ended ? 1 : 0)) >>> 0,
        window: Math.min(this.receiver.window() >>> 7, 65535),
        data: new Uint8Array(0),
        sack: this.receiver.blocks().map(([start, end]): [number, number] => {
          return [(this.#theirs + start) >>> 0, (this.#theirs + end) >>> 0];
        }),
        ...segment,
      }),
    );
  }
}

interface Travelling {
  readonly at: number;
  readonly order: number;
  readonly out: boolean;
  readonly data: Uint8Array;
}

export interface Way {
  /** Milliseconds in each direction. */
  readonly delay?: number;
  /** The part of packets that are lost, each way. */
  readonly loss?: number;
  /** Bytes a millisecond; what comes faster waits, and of what waits no more than ``queue`` packets do. */
  readonly rate?: number;
  readonly queue?: number;
  /** Milliseconds that single packets may be late, so that others overtake them. */
  readonly jitter?: number;
  readonly seed?: number;
}

export class Network {
  now = 0;
  readonly connection: TcpConnection;
  readonly listener: Listener;
  readonly events: TcpEvent[] = [];
  readonly got: Uint8Array[] = [];
  /** Whether what arrives at the connection is read at once. */
  reads = true;
  /** Whether a packet is lost for a reason of the test's own. */
  lose: (out: boolean, packet: IpPacket) => boolean = () => false;
  packetsOut = 0;
  lost = 0;
  readonly #dice: Dice;
  readonly #way: Required<Way>;
  #travelling: Travelling[] = [];
  #order = 0;
  #free = { in: 0, out: 0 };
  #source: Uint8Array = new Uint8Array(0);

  constructor(way: Way = {}, options: Partial<TcpOptions> = {}, listener = new Listener()) {
    this.#way = { delay: 5, loss: 0, rate: Number.POSITIVE_INFINITY, queue: 32, jitter: 0, seed: 1, ...way };
    this.#dice = new Dice(this.#way.seed);
    this.listener = listener;
    this.connection = new TcpConnection({
      local: LOCAL,
      localPort: 50_000,
      remote: REMOTE,
      remotePort: 22,
      entropy: () => new Uint8Array([0xff, 0xff, 0xff, 0x80]),
      ...options,
    });
  }

  open(): void {
    this.connection.connect(this.now);
    this.#move();
    this.pass(4 * this.#way.delay + 10);
  }

  /** Send all of this as fast as there is room; it goes on as time passes. */
  upload(data: Uint8Array): void {
    this.#source = data;
    this.#move();
  }

  /** Let time pass; stops early once ``until`` holds. */
  pass(milliseconds: number, until: () => boolean = () => false): void {
    const end = this.now + milliseconds;
    this.#move();
    while (!until()) {
      const arrival = this.#travelling[0]?.at;
      const deadlines = [this.connection.nextDeadline(), this.listener.nextDeadline(), arrival];
      const next = Math.min(...deadlines.map((at) => at ?? Number.POSITIVE_INFINITY));
      if (next > end) {
        this.now = end;
        return;
      }
      this.now = Math.max(this.now, next);
      while (this.#travelling[0] !== undefined && this.#travelling[0].at <= this.now) this.#arrive();
      if ((this.connection.nextDeadline() ?? Number.POSITIVE_INFINITY) <= this.now)
        this.connection.onDeadline(this.now);
      if ((this.listener.nextDeadline() ?? Number.POSITIVE_INFINITY) <= this.now)
        this.listener.onDeadline(this.now);
      this.#move();
    }
  }

  /** Put a segment of the peer's, or of somebody who says so, on the way. */
  inject(segment: Segment): void {
    this.connection.receive(segment, this.now);
    this.#move();
  }

  #arrive(): void {
    const { out, data } = this.#travelling.shift()!;
    const segment = parseSegment(parsePacket(data));
    if (out) this.listener.receive(segment, this.now);
    else this.connection.receive(segment, this.now);
  }

  #move(): void {
    this.events.push(...this.connection.events());
    while (this.reads && this.connection.readable > 0) this.got.push(this.connection.read());
    const room = Math.min(this.connection.room, this.#source.length);
    if (room > 0) {
      this.connection.write(this.#source.subarray(0, room));
      this.#source = this.#source.subarray(room);
    }
    for (const data of this.connection.packets(this.now)) this.#carry(true, data);
    for (const data of this.listener.packets(this.now)) this.#carry(false, data);
  }

  #carry(out: boolean, data: Uint8Array): void {
    if (out) this.packetsOut++;
    const side = out ? "out" : "in";
    const waits = (Math.max(0, this.#free[side] - this.now) * this.#way.rate) / 1280;
    const full = Number.isFinite(this.#way.rate) && waits > this.#way.queue;
    if (full || this.#dice.roll() < this.#way.loss || this.lose(out, parsePacket(data))) {
      this.lost++;
      return;
    }
    this.#free[side] = Math.max(this.#free[side], this.now) + data.length / this.#way.rate;
    const at = this.#free[side] + this.#way.delay + this.#dice.roll() * this.#way.jitter;
    const packet = { at, order: this.#order++, out, data };
    let index = this.#travelling.length;
    while (index > 0 && this.#travelling[index - 1]!.at > at) index--;
    this.#travelling.splice(index, 0, packet);
  }
}
