/**
 * What the node in a Worker lives in, for tests: a server, relays, machines with SSH, and a time that a test makes pass.
 *
 * The relay and the machines do what real ones do, with the same protocols; what goes between them can be lost, changed and
 * held back. Nothing waits for real time.
 */

import { x25519 } from "@noble/curves/ed25519.js";
import type { Environment, Socket } from "../../src/node/environment.ts";
import { Hub } from "../../src/node/hub.ts";
import type { FromWorker, ToWorker } from "../../src/node/messages.ts";
import { toBase64 } from "../../src/protocol/base64.ts";
import { Box } from "../../src/protocol/box.ts";
import { ascii, ByteQueue, concat, putU32, toHex, u32 } from "../../src/protocol/bytes.ts";
import { parsePacket } from "../../src/protocol/ip.ts";
import { portable } from "../../src/protocol/ssh/portable.ts";
import type { Duplex } from "../../src/protocol/ssh/transport.ts";
import { ACK, buildSegment, parseSegment, RST, type Segment, SYN } from "../../src/protocol/tcp/segment.ts";
import { Tunnel } from "../../src/protocol/wireguard/tunnel.ts";
import { Dice } from "./deterministic.ts";
import { Host, type HostOptions } from "./host.ts";
import { Listener, LOCAL, REMOTE } from "./network.ts";

const MAGIC = new Uint8Array([0x44, 0x45, 0x52, 0x50, 0xf0, 0x9f, 0x94, 0x91]);
/** A way of a millisecond between everybody. */
const WAY = 1;

type Told<Kind extends FromWorker["kind"]> = Extract<FromWorker, { readonly kind: Kind }>;
export type Asked = {
  readonly method: string;
  readonly path: string;
  readonly body: Record<string, unknown>;
};

export class World {
  now = 0;
  readonly heard: FromWorker[] = [];
  readonly hub: Hub;
  readonly relays = new Map<string, Relay>();
  readonly machine: Machine;
  readonly asked: Asked[] = [];
  /** What the server answers in place of what it would; an Error is no answer. */
  answer: (asked: Asked) => { status: number; body?: unknown } | Error | undefined = () => undefined;
  /** Answers to questions of the host. */
  say: (message: FromWorker) => ToWorker | undefined = () => undefined;
  /** Whether what is printed is acknowledged at once. */
  acks = true;
  target: Record<string, unknown>;
  relayUrls: Record<string, { name: string; urls: string[] }> = {
    "1": { name: "here", urls: ["wss://door.test/derp"] },
  };
  #timers: { at: number; order: number; call: () => void }[] = [];
  #order = 0;
  readonly #dice = new Dice(11);

  constructor(options: HostOptions = {}) {
    this.machine = new Machine(this, options);
    this.relay("wss://door.test/derp");
    this.target = {
      machine: 7,
      name: "server",
      dns_name: "server.tail.test",
      node_key: `nodekey:${toHex(this.machine.key)}`,
      addresses: ["100.64.0.2"],
      home_region: "1",
      online: true,
      ssh: "tailscale",
      host_keys: [this.machine.hostKey],
      host_keys_from: "node",
      accounts: ["root"],
      account: "root",
      check: false,
    };
    const environment: Environment = {
      now: () => this.now,
      epoch: 1_800_000_000_000,
      entropy: (size) => this.#dice.bytes(size),
      after: (milliseconds, call) => this.after(milliseconds, call),
      socket: (url) => this.#socket(url),
      fetch: async (path, { method, body }) => this.#fetch(path, method, body),
      primitives: portable,
    };
    this.hub = new Hub(environment, (message) => this.#told(message));
    this.hub.hear({ kind: "start", api: "/api/v1" });
  }

  /** A relay at an address. */
  relay(url: string): Relay {
    const known = this.relays.get(url) ?? new Relay(this);
    this.relays.set(url, known);
    return known;
  }

  open(id = 0, more: Record<string, unknown> = {}): void {
    const request = { machine: 7, name: "server", account: "root", columns: 80, rows: 24, ...more };
    this.hub.hear({ kind: "open", id, request });
  }

  type(text: string, id = 0): void {
    this.hub.hear({ kind: "write", id, data: ascii(text) });
  }

  /** All that was told of one kind, of one terminal where it is of one. */
  told<Kind extends FromWorker["kind"]>(kind: Kind, id?: number): Told<Kind>[] {
    return this.heard.filter(
      (one): one is Told<Kind> =>
        one.kind === kind && (id === undefined || (one as { id?: number }).id === id),
    );
  }

  /** What a terminal has printed. */
  printed(id = 0): string {
    return new TextDecoder().decode(concat(...this.told("data", id).map(({ data }) => data)));
  }

  /** How a terminal ended; undefined while it has not. */
  ended(id = 0) {
    return this.told("end", id).at(-1)?.end;
  }

  /** The steps of a terminal, as `node:done`. */
  steps(id = 0): string[] {
    return this.told("step", id).map(({ step }) => `${step.name}:${step.state}`);
  }

  after(milliseconds: number, call: () => void): () => void {
    const timer = { at: this.now + Math.max(0, milliseconds), order: this.#order++, call };
    let index = this.#timers.length;
    while (index > 0 && this.#timers[index - 1]!.at > timer.at) index--;
    this.#timers.splice(index, 0, timer);
    return () => {
      const at = this.#timers.indexOf(timer);
      if (at >= 0) this.#timers.splice(at, 1);
    };
  }

  /** Let time pass until something is so; fails where it is not by then. */
  async until(holds: () => unknown, milliseconds = 60_000): Promise<void> {
    if (!(await this.pass(milliseconds, holds))) {
      const last = this.heard.slice(-8).map((one) => JSON.stringify(one).slice(0, 300));
      throw new Error(`not within ${milliseconds} ms: ${holds}\n${last.join("\n")}`);
    }
  }

  /** Let time pass; stops early once ``until`` holds, and says whether it did. */
  async pass(milliseconds: number, until: () => unknown = () => false): Promise<boolean> {
    const end = this.now + milliseconds;
    for (;;) {
      await new Promise(setImmediate); // all promises that can be kept are
      if (until()) return true;
      const next = this.#timers[0];
      if (next === undefined || next.at > end) {
        this.now = end;
        return false;
      }
      this.#timers.shift();
      this.now = Math.max(this.now, next.at);
      next.call();
    }
  }

  /** The machine sleeps: time passes, and nothing happens. */
  sleep(milliseconds: number): void {
    this.now += milliseconds;
  }

  #told(message: FromWorker): void {
    this.heard.push(structuredClone(message));
    const { acks } = this;
    if (message.kind === "data" && acks) {
      const { id, data } = message;
      this.after(0, () => this.hub.hear({ kind: "ack", id, bytes: data.length }));
    }
    const answer = this.say(message);
    if (answer !== undefined) this.after(WAY, () => this.hub.hear(answer));
  }

  #socket(url: string): Socket {
    const relay = this.relays.get(url);
    if (relay === undefined) throw new Error("this page may not connect there");
    return relay.connect();
  }

  async #fetch(path: string, method: string, body: string | undefined) {
    await new Promise<void>((wake) => {
      this.after(WAY, wake);
    });
    const asked = {
      method,
      path: path.replace("/api/v1", ""),
      body: body === undefined ? {} : JSON.parse(body),
    };
    this.asked.push(asked);
    const answer = this.answer(asked) ?? this.#usual(asked);
    if (answer instanceof Error) throw answer;
    return { status: answer.status, json: async () => structuredClone(answer.body) };
  }

  #usual({ method, path }: Asked): { status: number; body?: unknown } {
    if (path === "/console/machines") return { status: 200, body: { machines: [{ id: 7, name: "server" }] } };
    if (path.endsWith("/leave") || path.endsWith("/host-key")) return { status: 204 };
    if (path.endsWith("/targets")) return { status: 200, body: this.target };
    return { status: method === "POST" ? 201 : 200, body: this.tab() };
  }

  tab(): Record<string, unknown> {
    return {
      id: 3,
      state: "on",
      addresses: ["100.64.0.3", "fd7a::3"],
      grace: 900,
      relays: { home: "1", regions: this.relayUrls },
      targets: [this.target],
    };
  }
}

/** A relay: lets in whoever comes, and passes packets on to the machine and back. */
export class Relay {
  readonly #world: World;
  readonly #private = new Uint8Array(32).fill(9);
  #sockets: FakeSocket[] = [];
  /** Whether it can be reached. */
  up = true;
  /** Whether it is reached, and says nothing. */
  dumb = false;
  /** Whether it takes what is sent to it; what is not taken waits. */
  takes = true;
  /** What becomes of a packet; ``out`` is on its way from the tab. */
  twist: (packet: Uint8Array, out: boolean) => Uint8Array[] = (packet) => [packet];
  /** What it says when it has let somebody in. */
  greeting: Uint8Array = new Uint8Array(0);
  /** With which code each socket was closed by the tab. */
  readonly left: (number | undefined)[] = [];
  /** When each was opened. */
  readonly tried: number[] = [];
  packets = 0;

  constructor(world: World) {
    this.#world = world;
  }

  get connected(): number {
    return this.#sockets.length;
  }

  connect(): Socket {
    this.tried.push(this.#world.now);
    const socket = new FakeSocket(this.#world, (data) => this.#received(socket, data));
    socket.takes = () => this.takes;
    socket.left = (code) => {
      this.left.push(code);
      this.#sockets = this.#sockets.filter((one) => one !== socket);
    };
    this.#world.after(WAY, () => {
      if (!this.up) return socket.end();
      this.#sockets.push(socket);
      if (!this.dumb) socket.deliver(frame(1, MAGIC, x25519.getPublicKey(this.#private)));
    });
    return socket;
  }

  /** End all connections, as a relay does that goes down. */
  cut(): void {
    for (const socket of this.#sockets.splice(0)) socket.end();
  }

  /** How many bytes wait at tabs that it does not take. */
  get waiting(): number {
    return this.#sockets.reduce((sum, socket) => sum + socket.bufferedAmount, 0);
  }

  /** Take again what is sent. */
  takeAgain(): void {
    this.takes = true;
    for (const socket of this.#sockets) socket.drain();
  }

  /** Say something to everybody who is connected. */
  tell(data: Uint8Array): void {
    for (const socket of this.#sockets) socket.deliver(data);
  }

  /** A packet of the machine for the tab. */
  deliver(from: Uint8Array, packet: Uint8Array): void {
    if (this.dumb) return;
    for (const one of this.twist(packet, false)) this.tell(frame(5, from, one));
  }

  #received(socket: FakeSocket, data: Uint8Array): void {
    socket.queue.push(data);
    for (;;) {
      const header = socket.queue.peek(5);
      if (header === undefined || this.dumb) return;
      const whole = socket.queue.take(5 + u32(header, 1));
      if (whole === undefined) return;
      const payload = whole.subarray(5);
      if (whole[0] === 2) {
        const box = new Box(this.#private, payload.subarray(0, 32));
        box.open(payload.subarray(32));
        socket.deliver(frame(3, box.seal(new Uint8Array(24).fill(1), ascii('{"version":2}'))));
        if (this.greeting.length > 0) socket.deliver(this.greeting);
        this.#world.machine.peer(payload.slice(0, 32));
      } else if (whole[0] === 4) {
        this.packets++;
        for (const one of this.twist(payload.slice(32), true)) this.#world.machine.receive(one, this);
      } else if (whole[0] === 0x12) socket.deliver(frame(0x13, payload));
    }
  }
}

class FakeSocket implements Socket {
  binaryType = "";
  bufferedAmount = 0;
  onopen = null;
  onmessage: Socket["onmessage"] = null;
  onclose: Socket["onclose"] = null;
  readonly queue = new ByteQueue();
  readonly #world: World;
  readonly #received: (data: Uint8Array) => void;
  left: (code?: number) => void = () => undefined;
  /** Whether its other end takes what is sent. */
  takes: () => boolean = () => true;
  #unsent: Uint8Array[] = [];
  #open = true;

  constructor(world: World, received: (data: Uint8Array) => void) {
    this.#world = world;
    this.#received = received;
  }

  send(data: Uint8Array): void {
    this.bufferedAmount += data.length;
    this.#unsent.push(data.slice());
    this.drain();
  }

  /** Send what waits, where the relay takes anything. */
  drain(): void {
    if (!this.takes()) return;
    for (const data of this.#unsent.splice(0)) {
      this.bufferedAmount -= data.length;
      this.#world.after(WAY, () => {
        if (this.#open) this.#received(data);
      });
    }
  }

  deliver(data: Uint8Array): void {
    const copy = data.slice();
    this.#world.after(WAY, () => {
      if (this.#open) this.onmessage?.({ data: copy.buffer });
    });
  }

  close(code?: number): void {
    this.#open = false;
    this.left(code);
  }

  end(): void {
    this.#open = false;
    this.#world.after(WAY, () => this.onclose?.({ code: 1006, reason: "" }));
  }
}

/** A machine behind the relay: a tunnel, TCP at port 22, and a host of SSH for each connection. */
export class Machine {
  readonly #world: World;
  readonly #options: HostOptions;
  readonly #private = new Uint8Array(32).fill(5);
  readonly key = x25519.getPublicKey(new Uint8Array(32).fill(5));
  readonly hostKey: string;
  #tunnel: Tunnel | undefined;
  #relay: Relay | undefined;
  #connections = new Map<number, Connection>();
  #cancel: (() => void) | undefined;
  #peer: Uint8Array | undefined;
  /** The hosts, one for each connection, in order. */
  readonly hosts: Host[] = [];
  /** Whether it is switched on, has something at port 22, and lets packets to it through. */
  on = true;
  listens = true;
  filters = false;
  handshakes = 0;

  constructor(world: World, options: HostOptions) {
    this.#world = world;
    this.#options = options;
    this.hostKey = `ssh-ed25519 ${toBase64(Host.blob(options))}`;
  }

  /** It is told of the tab. */
  peer(key: Uint8Array): void {
    if (this.#peer !== undefined && toHex(this.#peer) === toHex(key)) return;
    this.#peer = key;
    this.#newTunnel();
  }

  /** The tab's ports that are connected. */
  get ports(): number[] {
    return [...this.#connections.keys()];
  }

  /** Send something through the tunnel, whatever it is. */
  inject(packet: Uint8Array): void {
    this.#tunnel!.send(packet, this.#world.now);
    this.pump();
  }

  /** It starts anew, and has forgotten everything. */
  reboot(): void {
    this.#connections.clear();
    this.#newTunnel();
  }

  receive(message: Uint8Array, relay: Relay): void {
    if (!this.on || this.#tunnel === undefined) return;
    this.#relay = relay;
    if (message[0] === 1) this.handshakes++;
    const data = this.#tunnel.receive(message, this.#world.now);
    if (data !== undefined) this.#packet(data);
    this.pump();
  }

  pump(): void {
    const { now } = this.#world;
    if (this.#tunnel === undefined || !this.on) return;
    this.#cancel?.();
    for (const connection of this.#connections.values()) {
      const at = connection.listener.nextDeadline();
      if (at !== undefined && at <= now) connection.listener.onDeadline(now);
      connection.look();
      for (const packet of connection.listener.packets(now)) this.#tunnel.send(packet, now);
    }
    if ((this.#tunnel.nextDeadline() ?? Number.POSITIVE_INFINITY) <= now) this.#tunnel.onDeadline(now);
    for (const message of this.#tunnel.dataToSend()) this.#relay?.deliver(this.key, message);
    const deadlines = [...this.#connections.values()].map(({ listener }) => listener.nextDeadline());
    const next = Math.min(...[...deadlines, this.#tunnel.nextDeadline()].map((at) => at ?? 1e12));
    if (next < 1e12) this.#cancel = this.#world.after(next - now, () => this.pump());
  }

  #newTunnel(): void {
    this.#tunnel = new Tunnel({
      privateKey: this.#private,
      peer: this.#peer!,
      entropy: (size) => new Dice(this.#world.now + 77 + size).bytes(size),
      epoch: 1_800_000_000_000,
    });
  }

  #packet(data: Uint8Array): void {
    const packet = parsePacket(data);
    const segment = parseSegment(packet);
    if (this.filters) return;
    let connection = this.#connections.get(segment.sourcePort);
    if (connection === undefined) {
      if ((segment.flags & SYN) === 0 || !this.listens) {
        this.#reset(segment);
        return;
      }
      connection = new Connection(() => this.#world.after(0, () => this.pump()));
      this.#connections.set(segment.sourcePort, connection);
      const host = new Host(connection, this.#options);
      this.hosts.push(host);
      void host.run();
    }
    if ((segment.flags & RST) !== 0) {
      this.#connections.delete(segment.sourcePort);
      connection.end();
    } else connection.listener.receive(segment, this.#world.now);
  }

  /** As any system answers what belongs to no connection. */
  #reset(segment: Segment): void {
    if ((segment.flags & RST) !== 0) return;
    const syn = (segment.flags & SYN) !== 0;
    const answer = buildSegment(REMOTE, LOCAL, {
      sourcePort: segment.destinationPort,
      destinationPort: segment.sourcePort,
      sequence: syn ? 0 : segment.acknowledgement,
      acknowledgement: (segment.sequence + (syn ? 1 : segment.data.length)) >>> 0,
      flags: RST | ACK,
      window: 0,
      data: new Uint8Array(0),
    });
    this.#tunnel!.send(answer, this.#world.now);
  }
}

/** A connection at the machine, as streams. */
class Connection implements Duplex {
  readonly listener = new Listener();
  readonly #moved: () => void;
  #waiting: (() => void)[] = [];
  #over = false;

  constructor(moved: () => void) {
    this.#moved = moved;
  }

  look(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  async read(): Promise<Uint8Array | undefined> {
    for (;;) {
      const data = this.listener.got.shift();
      if (data !== undefined) return data;
      if (this.#over || this.listener.ended) return undefined;
      await this.#change();
    }
  }

  async write(data: Uint8Array): Promise<void> {
    for (let at = 0; at < data.length; ) {
      if (this.#over) throw new Error("the tab has gone");
      const size = Math.min(this.listener.sender.room, data.length - at);
      if (size > 0) this.listener.sender.write(data.subarray(at, at + size));
      at += size;
      this.#moved();
      if (size === 0) await this.#change();
    }
  }

  close(): void {
    this.listener.sender.finish();
    this.#moved();
  }

  end(): void {
    this.#over = true;
    this.look();
  }

  #change(): Promise<void> {
    return new Promise((wake) => {
      this.#waiting.push(wake);
    });
  }
}

/** A frame of DERP. */
export function frame(type: number, ...parts: Uint8Array[]): Uint8Array {
  const payload = concat(...parts);
  const header = new Uint8Array(5);
  header[0] = type;
  putU32(header, 1, payload.length);
  return concat(header, payload);
}
