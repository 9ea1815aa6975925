/** What connects us with one peer: a tunnel, and the TCP connections inside it. */

import { equal, ProtocolError, u16 } from "./bytes.ts";
import { echoAnswer, type IpPacket, parsePacket, TCP } from "./ip.ts";

import { TcpConnection } from "./tcp/connection.ts";
import { ACK, buildSegment, FIN, parseSegment, RST, type Segment, SYN } from "./tcp/segment.ts";
import { Tunnel, type TunnelEvent } from "./wireguard/tunnel.ts";

/** The ports that ours are taken from (RFC 6335): random, so that nobody can guess one. */
const FIRST_PORT = 49_152;
const PORTS = 16_384;
/** More segments a second that belong to no connection than these are not answered. */
const RESETS = 10;

export interface LinkOptions {
  readonly privateKey: Uint8Array;
  readonly peer: Uint8Array;
  /** Our address and the peer's, both of one version of IP. */
  readonly local: Uint8Array;
  readonly remote: Uint8Array;
  readonly entropy: (size: number) => Uint8Array;
  /** The time of day at ``now`` 0, in milliseconds since 1970. */
  readonly epoch: number;
  /** As the tunnel has it. */
  readonly eager?: boolean;
}

export class Link {
  readonly #options: LinkOptions;
  readonly #tunnel: Tunnel;
  readonly #connections = new Map<number, TcpConnection>();
  #resets = 0;
  #resetsSince = Number.NEGATIVE_INFINITY;
  /** Packets in the tunnel that were no use: of others, or not of TCP. */
  ignored = 0;

  constructor(options: LinkOptions) {
    this.#options = options;
    this.#tunnel = new Tunnel(options);
  }

  get tunnel(): Tunnel {
    return this.#tunnel;
  }

  /** Begin a connection to a port of the peer; what comes of it are its events. */
  connect(port: number, now: number): TcpConnection {
    const connection = new TcpConnection({
      local: this.#options.local,
      localPort: this.#freePort(),
      remote: this.#options.remote,
      remotePort: port,
      entropy: this.#options.entropy,
    });
    this.#connections.set(connection.localPort, connection);
    connection.connect(now);
    return connection;
  }

  /** A message of the peer, as the relay delivered it. */
  receive(message: Uint8Array, now: number): void {
    const data = this.#tunnel.receive(message, now);
    if (data === undefined) return;
    try {
      this.#packet(parsePacket(data), now);
    } catch (problem) {
      if (!(problem instanceof ProtocolError) && !(problem instanceof RangeError)) throw problem;
      this.ignored++;
    }
  }

  events(): TunnelEvent[] {
    return this.#tunnel.events();
  }

  /** Messages for the peer: what connections and tunnel have to say by now. */
  dataToSend(now: number): Uint8Array[] {
    for (const [port, connection] of this.#connections) {
      for (const packet of connection.packets(now)) this.#tunnel.send(packet, now);
      if (connection.closed) this.#connections.delete(port);
    }
    return this.#tunnel.dataToSend();
  }

  nextDeadline(): number | undefined {
    let next = this.#tunnel.nextDeadline();
    for (const connection of this.#connections.values()) {
      const at = connection.nextDeadline();
      if (at !== undefined && (next === undefined || at < next)) next = at;
    }
    return next;
  }

  onDeadline(now: number): void {
    this.#tunnel.onDeadline(now);
    for (const connection of this.#connections.values()) {
      const at = connection.nextDeadline();
      if (at !== undefined && at <= now) connection.onDeadline(now);
    }
  }

  /** The way is there again after a pause: begin a session, and send again what may have been lost. */
  resume(now: number): void {
    this.#tunnel.open(now);
    for (const connection of this.#connections.values()) connection.nudge(now);
  }

  /** Only the peer's own address may be the sender: a session proves who it is, not for whom it speaks. */
  #packet(packet: IpPacket, now: number): void {
    const { local, remote } = this.#options;
    if (!equal(packet.source, remote) || !equal(packet.destination, local)) {
      this.ignored++;
      return;
    }
    if (packet.protocol !== TCP) {
      const answer = echoAnswer(packet);
      if (answer === undefined) this.ignored++;
      else this.#tunnel.send(answer, now);
      return;
    }
    const segment = parseSegment(packet);
    const connection = this.#connections.get(segment.destinationPort);
    if (connection === undefined || connection.remotePort !== segment.sourcePort) this.#unknown(segment, now);
    else connection.receive(segment, now);
  }

  /** Tell the peer that there is no such connection (RFC 9293 section 3.10.7.1), or it would keep its end of one that we gave up. */
  #unknown(segment: Segment, now: number): void {
    this.ignored++;
    if (now - this.#resetsSince >= 1000) {
      this.#resetsSince = now;
      this.#resets = 0;
    }
    if ((segment.flags & RST) !== 0 || this.#resets >= RESETS) return;
    this.#resets++;
    const { local, remote } = this.#options;
    const acknowledges = (segment.flags & ACK) !== 0;
    const length =
      segment.data.length + ((segment.flags & SYN) === 0 ? 0 : 1) + ((segment.flags & FIN) === 0 ? 0 : 1);
    const reset = buildSegment(local, remote, {
      sourcePort: segment.destinationPort,
      destinationPort: segment.sourcePort,
      sequence: acknowledges ? segment.acknowledgement : 0,
      acknowledgement: acknowledges ? 0 : (segment.sequence + length) >>> 0,
      flags: acknowledges ? RST : RST | ACK,
      window: 0,
      data: new Uint8Array(0),
    });
    this.#tunnel.send(reset, now);
  }

  #freePort(): number {
    for (;;) {
      const port = FIRST_PORT + (u16(this.#options.entropy(2), 0) % PORTS);
      if (!this.#connections.has(port)) return port;
    }
  }
}
