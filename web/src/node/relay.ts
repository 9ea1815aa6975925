/**
 * One relay, kept connected: a WebSocket that is opened again whenever it is lost.
 *
 * It is tried at once after a loss, then after longer and longer waits, never at the same moment as others who lost it
 * together with us. A socket can be dead for minutes before a browser says so; who hears nothing asks.
 */

import { DerpClient } from "../protocol/derp.ts";
import { chance, type Environment, type Socket } from "./environment.ts";

const SECOND = 1000;
/** A relay that has not let us in by then will not. */
const PATIENCE = 10 * SECOND;
/** The first waits between two tries double up to the last. */
const FIRST_WAIT = 250;
const LONGEST_WAIT = 15 * SECOND;
/** After so much silence the relay is asked whether it is there, and has so long to answer. */
export const SILENCE = 20 * SECOND;
export const ANSWER = 6 * SECOND;
/** Packets that would wait behind more than this are dropped: late ones are of no use, and are sent again anyway. */
const MAX_BUFFERED = 4 << 20;
/** The page has left, and will not come back: the node need not be kept. */
export const LEFT = 4000;

export type RelayState = "connecting" | "up" | "waiting" | "closed";

export interface RelayOptions {
  readonly environment: Environment;
  /** Where it is, as `wss://door.example/derp`; several are tried in turn. */
  readonly urls: readonly string[];
  readonly privateKey: Uint8Array;
  /** Whether others reach us here. */
  readonly home: boolean;
  readonly packet: (from: Uint8Array, packet: Uint8Array) => void;
  /** What arrived together has been handed over. */
  readonly arrived: () => void;
  /** It is up, or is not any more. */
  readonly changed: (state: RelayState) => void;
}

export class Relay {
  readonly #options: RelayOptions;
  #state: RelayState = "connecting";
  #socket: Socket | undefined;
  #derp: DerpClient | undefined;
  #cancel: (() => void) | undefined; // of the one thing that is waited for
  #heardAt = 0;
  #asked = false; // whether we wait for an answer
  #tries = 0; // since it was last up
  #turn = 0; // which of the addresses
  #holdUntil = 0; // the relay has asked for a pause
  #nextAt = 0;
  /** How often it was up. */
  times = 0;

  constructor(options: RelayOptions) {
    this.#options = options;
    this.#connect();
  }

  get state(): RelayState {
    return this.#state;
  }

  get url(): string {
    return this.#options.urls[this.#turn % this.#options.urls.length]!;
  }

  /** How often it was tried in vain since it was last up. */
  get tries(): number {
    return this.#tries;
  }

  /** When it is tried again, by the environment's clock; 0 while it is being tried, undefined where there is nothing to try. */
  get next(): number | undefined {
    if (this.#state === "waiting") return this.#nextAt;
    return this.#state === "connecting" ? 0 : undefined;
  }

  /** Give it a packet for a node; it goes with ``flush``, and is lost while there is no connection. */
  send(to: Uint8Array, packet: Uint8Array): void {
    if (this.#state !== "up" || this.#socket!.bufferedAmount > MAX_BUFFERED) return;
    this.#derp!.send(to, packet, this.#options.environment.now());
  }

  flush(): void {
    // A relay that asks and asks, and takes no answer, has none kept for it.
    while (this.#socket !== undefined && this.#socket.bufferedAmount <= MAX_BUFFERED) {
      const data = this.#derp!.dataToSend();
      if (data === undefined) return;
      this.#socket.send(data as Uint8Array<ArrayBuffer>);
    }
  }

  /** Something may have changed, such as the network: try at once, or ask at once whether it is still there. */
  wake(): void {
    if (this.#state === "waiting" && this.#options.environment.now() >= this.#holdUntil) this.#connect();
    else if (this.#state === "up" && !this.#asked) this.#ask();
  }

  /** Somebody wants it now: try as if it had not been tried, also where it has asked for a pause. */
  again(): void {
    if (this.#state !== "waiting") return;
    this.#tries = 0;
    this.#connect();
  }

  /** Not any more; LEFT says that it is for good. */
  close(code = 1000): void {
    if (this.#state === "closed") return;
    this.#drop(code);
    this.#become("closed");
  }

  #connect(): void {
    const { environment, privateKey, home } = this.#options;
    this.#drop();
    this.#become("connecting");
    this.#derp = new DerpClient({ privateKey, nonce: environment.entropy(24), home });
    let socket: Socket;
    try {
      socket = environment.socket(this.url);
    } catch {
      this.#lost(); // an address that is none, or that this page may not connect to
      return;
    }
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      if (socket === this.#socket) this.#arrived(data);
    };
    socket.onclose = () => {
      if (socket === this.#socket) this.#lost();
    };
    this.#socket = socket;
    this.#later(PATIENCE, () => this.#lost());
  }

  #arrived(data: unknown): void {
    const now = this.#options.environment.now();
    this.#heardAt = now;
    this.#asked = false;
    try {
      if (!(data instanceof ArrayBuffer)) throw new TypeError("text from the relay");
      this.#derp!.receive(new Uint8Array(data), now);
    } catch {
      this.#lost(); // nothing that comes after it could be understood
      return;
    }
    for (const event of this.#derp!.events()) {
      if (event.kind === "packet") this.#options.packet(event.from, event.packet);
      else if (event.kind === "ready") this.#up();
      else if (event.kind === "restarting") this.#restarting(event.reconnectIn);
    }
    this.flush();
    this.#options.arrived();
  }

  #up(): void {
    this.#tries = 0;
    this.times++;
    this.#watch();
    this.#become("up");
  }

  /** It says that it will be back, and how long it takes: believed up to a minute. */
  #restarting(reconnectIn: number): void {
    const spread = chance(this.#options.environment) * 500;
    this.#holdUntil = this.#options.environment.now() + Math.min(reconnectIn, 60 * SECOND) + spread;
  }

  #watch(): void {
    this.#later(SILENCE, () => {
      if (this.#options.environment.now() - this.#heardAt >= SILENCE) this.#ask();
      else this.#watch();
    });
  }

  #ask(): void {
    this.#asked = true;
    this.#derp!.ping();
    this.flush();
    this.#later(ANSWER, () => {
      if (this.#asked) this.#lost();
      else this.#watch();
    });
  }

  #lost(): void {
    if (this.#state === "closed") return;
    const { environment } = this.#options;
    const wasUp = this.#state === "up";
    this.#drop();
    if (!wasUp) {
      this.#tries++;
      this.#turn++;
    }
    const longest = wasUp ? FIRST_WAIT : Math.min(FIRST_WAIT * 2 ** this.#tries, LONGEST_WAIT);
    const wait = longest * (0.5 + chance(environment) / 2);
    const pause = Math.max(wait, this.#holdUntil - environment.now());
    this.#nextAt = environment.now() + pause;
    this.#later(pause, () => this.#connect());
    this.#become("waiting");
  }

  #drop(code = 1000): void {
    this.#cancel?.();
    this.#cancel = undefined;
    const socket = this.#socket;
    this.#socket = this.#derp = undefined;
    this.#asked = false;
    if (socket === undefined) return;
    socket.onmessage = socket.onclose = null;
    socket.close(code);
  }

  #later(milliseconds: number, call: () => void): void {
    this.#cancel?.();
    this.#cancel = this.#options.environment.after(milliseconds, call);
  }

  #become(state: RelayState): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#options.changed(state);
  }
}
