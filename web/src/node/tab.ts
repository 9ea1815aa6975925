/**
 * The node of this tab: its key, the relays it is connected with, and its tunnels to the machines that it may reach.
 *
 * The key is made here and never leaves. While the way to a relay is gone, time stands still for what goes over it: no
 * connection counts the tries that could not arrive.
 */

import { x25519 } from "@noble/curves/ed25519.js";
import { equal, toHex } from "../protocol/bytes.ts";
import { parseAddress } from "../protocol/ip.ts";
import { Link } from "../protocol/link.ts";
import type { Api, Registered, Target } from "./api.ts";
import { type Environment, pause } from "./environment.ts";
import {
  atNoRelay,
  blocked,
  Failed,
  failure,
  lost,
  notAllowedAnyMore,
  told,
  unreachableRegion,
} from "./failures.ts";
import { LEFT, Relay } from "./relay.ts";
import { Stream } from "./stream.ts";
import type { Failure } from "./types.ts";

/** What the server says where it does not know at which relay a machine is. */
const NOWHERE = "0";
/** So often a relay is tried before people are told that something holds it back. */
const TRIES = 4;
/** How soon the server is asked again where it did not answer, at first and at last. */
const FIRST_LOOK = 1000;
const LAST_LOOK = 30_000;
/** How long it may take where somebody waits for what comes of it. */
const LOOK_SOON = 3000;

/** What a tunnel to a machine tells those who use it. */
export interface PeerEvents {
  /** As whom it is used. */
  readonly account: string;
  /** A tunnel is there; again with each new session. */
  tunnel(): void;
  /** Whether packets can get through, as far as is known. */
  link(up: boolean): void;
  /** It will never work again. */
  over(why: Failure): void;
}

class Peer {
  target: Target;
  readonly link: Link;
  readonly streams = new Set<Stream>();
  readonly watchers = new Set<PeerEvents>();
  answers = true; // whether it has answered lately

  constructor(target: Target, link: Link) {
    this.target = target;
    this.link = link;
  }
}

export class Tab {
  readonly #environment: Environment;
  readonly #api: Api;
  readonly #changed: () => void;
  readonly #privateKey: Uint8Array;
  #registered: Registered | undefined;
  readonly #relays = new Map<string, Relay>();
  readonly #peers = new Map<string, Peer>(); // by node key in hexadecimal digits
  readonly #waiting = new Set<() => void>(); // for a change of a relay
  #over: Failure | undefined;
  #cancel: (() => void) | undefined; // of the next deadline
  #scheduled = false;
  #looking: Promise<void> | undefined;
  #making: Promise<void> | undefined; // while the server is asked for a node

  /** ``changed`` is told whenever its state is another. */
  constructor(environment: Environment, api: Api, changed: () => void) {
    this.#environment = environment;
    this.#api = api;
    this.#changed = changed;
    this.#privateKey = environment.entropy(32);
  }

  get id(): number | string | null {
    return this.#registered?.id ?? null;
  }

  get addresses(): readonly string[] {
    return this.#registered?.addresses ?? [];
  }

  /** Why it is no more; undefined while it is. */
  get over(): Failure | undefined {
    return this.#over;
  }

  get relay(): "none" | "connecting" | "up" | "waiting" {
    const state = this.#over === undefined ? this.#home()?.state : "closed";
    return state === undefined || state === "closed" ? "none" : state;
  }

  /** When a relay that is away is tried again, in milliseconds since 1970; 0 while one is being tried, null where none is away. */
  get retry(): number | null {
    if (this.#over !== undefined) return null;
    const tries = [...this.#relays.values()].flatMap((relay) => relay.next ?? []);
    if (tries.length === 0) return null;
    const soonest = Math.min(...tries);
    return soonest === 0 ? 0 : Math.round(this.#environment.epoch + soonest);
  }

  /** Have the server allow this tab to reach a machine as an account; Failed where it does not. */
  async reach(machine: number, account: string): Promise<Target> {
    while (this.#making !== undefined) await this.#making;
    this.#alive();
    if (this.#registered === undefined) {
      let made = () => {};
      this.#making = new Promise((resolve) => {
        made = resolve;
      });
      try {
        return await this.#make(machine, account);
      } finally {
        this.#making = undefined;
        made();
      }
    }
    const target = await this.#api.addTarget(this.#registered.id, machine, account);
    this.#alive();
    return target;
  }

  async #make(machine: number, account: string): Promise<Target> {
    const key = `nodekey:${toHex(x25519.getPublicKey(this.#privateKey))}`;
    const registered = await this.#api.makeTab(key, machine, account);
    if (this.#over !== undefined) this.#api.leave(registered.id); // left while it was made
    this.#alive();
    this.#registered = registered;
    this.#relayOf(registered.relays.home);
    this.#changed();
    const target = registered.targets.find((one) => one.machine === machine);
    if (target === undefined)
      throw new Failed(failure("server", "The server names no machine.", "Try again."));
    return target;
  }

  /** Begin to connect with what a machine is reached by, and wait for it; the relay's address. */
  async connected(target: Target): Promise<string> {
    const home = this.#relayOf(this.#registered!.relays.home);
    const theirs = this.#relayOf(target.region);
    if (target.region === NOWHERE) throw new Failed(atNoRelay(target.name));
    if (home === undefined || theirs === undefined) throw new Failed(unreachableRegion(target.name));
    home.again();
    theirs.again();
    for (;;) {
      this.#alive();
      if (home.state === "up" && theirs.state === "up") return theirs.url;
      for (const relay of [home, theirs]) {
        // Looked up first: where the server says that the tab is no more, it is not the relay's fault.
        if (relay.state === "waiting" && relay.times === 0 && relay.tries >= TRIES) {
          await Promise.race([this.look(), pause(this.#environment, LOOK_SOON)]);
          this.#alive();
          throw new Failed(blocked(relay.url));
        }
      }
      await new Promise<void>((wake) => {
        this.#waiting.add(wake);
      });
    }
  }

  /** Be told about a machine's tunnel, which begins now where there is none; what is returned ends that. */
  watch(target: Target, events: PeerEvents): () => void {
    const peer = this.#peer(target);
    peer.watchers.add(events);
    if (peer.link.tunnel.isOpen(this.#environment.now())) events.tunnel();
    else peer.link.tunnel.open(this.#environment.now());
    this.#soon();
    return () => peer.watchers.delete(events);
  }

  /** Connect to a port of a machine. */
  connect(target: Target, port: number): Stream {
    const peer = this.#peer(target);
    const stream = new Stream(peer.link.connect(port, this.#environment.now()), () => this.#soon());
    peer.streams.add(stream);
    this.#soon();
    return stream;
  }

  /** Whether what is sent to a machine can get there, as far as is known. */
  isUp(target: Target): boolean {
    const peer = this.#peers.get(toHex(target.nodeKey));
    return peer?.answers === true && this.#relays.get(target.region)?.state === "up" && this.relay === "up";
  }

  /** Something may have changed while nobody looked: the network, or hours of sleep. */
  wake(): void {
    for (const relay of this.#relays.values()) relay.wake();
    this.#soon();
  }

  /** Somebody wants it back now: try every relay that is away, whatever wait it is in. */
  again(): void {
    for (const relay of this.#relays.values()) relay.again();
  }

  /** Ask the server whether this tab is still there, and end it where it is not. Never rejects. */
  look(): Promise<void> {
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined;
    });
    return this.#looking;
  }

  async #look(): Promise<void> {
    for (let wait = FIRST_LOOK; this.#registered !== undefined; wait = Math.min(2 * wait, LAST_LOOK)) {
      if (this.#over !== undefined) return;
      try {
        this.#told(await this.#api.look(this.#registered.id));
        return;
      } catch (problem) {
        if (problem instanceof Failed && problem.final) {
          this.end(gone(problem.failure));
          return;
        }
      }
      // While it is not reached nothing is known, and nothing is given up.
      await pause(this.#environment, wait);
    }
  }

  /** Be gone for good: the server and the relay are told. */
  leave(): void {
    if (this.#registered !== undefined && this.#over === undefined) this.#api.leave(this.#registered.id);
    this.end(failure("lost", "This page was left.", "Open it again."), LEFT);
  }

  /** Nothing goes any more, and everybody is told why. */
  end(why: Failure, code = 1000): void {
    if (this.#over !== undefined) return;
    this.#over = why;
    this.#cancel?.();
    this.#changed();
    for (const relay of this.#relays.values()) relay.close(code);
    for (const peer of this.#peers.values()) this.#endPeer(peer, why);
    this.#privateKey.fill(0);
    this.#wakeAll();
  }

  // Relays --------------------------------------------------------------------------------------------------------

  #home(): Relay | undefined {
    return this.#registered === undefined ? undefined : this.#relays.get(this.#registered.relays.home);
  }

  /** The relay of a region, connected from now on; undefined for a region that no page can use. */
  #relayOf(region: string): Relay | undefined {
    const known = this.#relays.get(region);
    if (known !== undefined) return known;
    const urls = this.#registered!.relays.urls.get(region);
    if (urls === undefined) return undefined;
    const relay = new Relay({
      environment: this.#environment,
      urls,
      privateKey: this.#privateKey,
      home: region === this.#registered!.relays.home,
      packet: (from, packet) => this.#arrived(from, packet),
      arrived: () => this.#pump(),
      changed: (state) => this.#relayChanged(region, state),
    });
    this.#relays.set(region, relay);
    return relay;
  }

  #relayChanged(region: string, state: string): void {
    const relay = this.#relays.get(region);
    if (this.#over !== undefined || relay === undefined) return;
    const home = region === this.#registered?.relays.home;
    for (const peer of this.#peers.values()) {
      if (!home && peer.target.region !== region) continue;
      if (state === "up" && relay.times > 1) peer.link.resume(this.#environment.now());
      this.#tellLink(peer);
    }
    // A relay that ends the connection may do so because the tab is no more.
    if (state === "waiting" && relay.times > 0 && relay.tries === 0) void this.look();
    // And one that stays away may have moved.
    if (state === "waiting" && relay.tries > 0 && relay.tries % 4 === 0) void this.look();
    this.#wakeAll();
    this.#changed();
    this.#soon();
  }

  #wakeAll(): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const wake of waiting) wake();
  }

  // Machines --------------------------------------------------------------------------------------------------------

  #peer(target: Target): Peer {
    const name = toHex(target.nodeKey);
    const known = this.#peers.get(name);
    if (known !== undefined) {
      known.target = target;
      return known;
    }
    const ours = this.addresses.map((one) => parseAddress(one.replace(/\/\d+$/, "")));
    const pair = [4, 16]
      .map((size) => [ours, target.addresses].map((some) => some.find((one) => one.length === size)))
      .find(([local, remote]) => local !== undefined && remote !== undefined);
    if (pair === undefined) throw new Failed(notAllowedAnyMore(target.name, target.accounts?.at(-1) ?? ""));
    const link = new Link({
      privateKey: this.#privateKey,
      peer: target.nodeKey,
      local: pair[0]!,
      remote: pair[1]!,
      entropy: this.#environment.entropy,
      epoch: this.#environment.epoch,
      eager: true,
    });
    const peer = new Peer(target, link);
    this.#peers.set(name, peer);
    return peer;
  }

  /** What the server says by now: a machine may be at another relay, or not be itself any more. */
  #told(now: Registered): void {
    if (now.over !== undefined) {
      const { kind, reason, cure } = now.over;
      this.end(failure(kind, reason || "The server has ended this.", cure || "Open it again."));
      return;
    }
    this.#registered = { ...now, addresses: now.addresses.length > 0 ? now.addresses : this.addresses };
    this.#relayOf(now.relays.home);
    for (const [name, peer] of this.#peers) {
      const target = now.targets.find((one) => one.machine === peer.target.machine);
      if (target === undefined) {
        this.#peers.delete(name);
        this.#endPeer(peer, notAllowedAnyMore(peer.target.name, [...peer.watchers][0]?.account ?? ""));
        continue;
      }
      for (const watcher of [...peer.watchers]) {
        if (target.accounts !== undefined && !target.accounts.includes(watcher.account))
          watcher.over(notAllowedAnyMore(target.name, watcher.account));
      }
      if (equal(target.nodeKey, peer.target.nodeKey)) {
        peer.target = target;
        this.#relayOf(target.region);
      } else {
        this.#peers.delete(name);
        this.#endPeer(peer, lost(target.name, "it has a new key"));
      }
    }
  }

  #endPeer(peer: Peer, why: Failure): void {
    for (const stream of peer.streams) {
      stream.abort();
      stream.look();
    }
    for (const watcher of [...peer.watchers]) watcher.over(why);
    peer.link.tunnel.close();
  }

  #tellLink(peer: Peer): void {
    const up = this.isUp(peer.target);
    for (const watcher of [...peer.watchers]) watcher.link(up);
  }

  #arrived(from: Uint8Array, packet: Uint8Array): void {
    const peer = this.#peers.get(toHex(from));
    if (peer === undefined) return; // nobody whom we have asked for anything
    try {
      peer.link.receive(packet, this.#environment.now());
    } catch (problem) {
      this.#peers.delete(toHex(from));
      this.#endPeer(peer, told(problem, peer.target.name, "", []));
    }
  }

  // What is to be sent ------------------------------------------------------------------------------------------------

  /** Once for all that happens in one turn. */
  #soon(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      this.#pump();
    });
  }

  #pump(): void {
    if (this.#over !== undefined) return;
    const now = this.#environment.now();
    let next: number | undefined;
    for (const peer of this.#peers.values()) {
      const relay = this.#relays.get(peer.target.region);
      const up = relay?.state === "up" && this.#home()?.state === "up";
      const due = up ? peer.link.nextDeadline() : undefined;
      if (due !== undefined && due <= now) peer.link.onDeadline(now);
      for (const stream of peer.streams) {
        stream.look();
        if (stream.over !== undefined) peer.streams.delete(stream);
      }
      if (!up) continue;
      for (const message of peer.link.dataToSend(now)) relay.send(peer.target.nodeKey, message);
      for (const event of peer.link.events()) {
        const established = event.kind === "established";
        if (peer.answers !== established) {
          peer.answers = established;
          this.#tellLink(peer);
        }
        if (established) for (const watcher of [...peer.watchers]) watcher.tunnel();
      }
      const at = peer.link.nextDeadline();
      if (at !== undefined && (next === undefined || at < next)) next = at;
    }
    for (const relay of this.#relays.values()) relay.flush();
    this.#cancel?.();
    this.#cancel = undefined;
    if (next !== undefined) {
      this.#cancel = this.#environment.after(Math.max(0, Math.ceil(next - now)), () => this.#pump());
    }
  }

  #alive(): void {
    if (this.#over !== undefined) throw new Failed(this.#over);
  }
}

/** The server knows this tab no more: what it said, as the end of what there was. */
function gone(why: Failure): Failure {
  if (why.kind === "not-linked" || why.kind === "suspended" || why.kind === "session-over") return why;
  const kind = why.kind === "policy-ended" || why.kind === "not-allowed" ? "policy-ended" : "lost";
  return { ...why, kind };
}
