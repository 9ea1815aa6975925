/**
 * A stream of events that is kept up: read with fetch, which unlike EventSource says why it was refused and shows that it lives.
 *
 * The server sends a line at least every 15 s. Where none came for 40 s nobody is there any more, whatever the socket says. Then it
 * is tried again, soon at first and later every 30 s, and at once when the browser comes back to its network or its window.
 *
 * A page that nobody looks at has no stream. A browser opens six connections to a host (over HTTP/1.1) and no more, and each stream
 * takes one for as long as it lasts: the seventh page could ask for nothing.
 */

import { type Signal, signal } from "@preact/signals";
import { EventParser, type ServerEvent } from "./sse.ts";

const SILENCE = 40_000;
const FIRST = 1_000;
const LAST = 30_000;

export type Link =
  | { readonly state: "opening" }
  | { readonly state: "live" }
  /** `since` and `next` in milliseconds of the clock. */
  | { readonly state: "lost"; readonly since: number; readonly next: number }
  /** Nobody is signed in here any more; whoever was may be suspended, and signing in is of no use to them. */
  | { readonly state: "over"; readonly suspended: boolean };

export interface Listener {
  /** The stream has begun: whatever happens from now on will be told. */
  open(): void;
  event(event: ServerEvent): void;
}

/** How long to wait before the next try: longer each time, and not all browsers at once. `random` from 0 to 1. */
export function pause(tries: number, random: number): number {
  const most = Math.min(LAST, FIRST * 2 ** tries);
  return most / 2 + (most / 2) * random;
}

async function isSuspension(answer: Response): Promise<boolean> {
  const problem: unknown = await answer.json();
  return (
    typeof problem === "object" &&
    problem !== null &&
    "type" in problem &&
    problem.type === "account-suspended"
  );
}

export class Live {
  readonly link: Signal<Link> = signal<Link>({ state: "opening" });
  readonly #url: string;
  readonly #listener: Listener;
  #tries = 0;
  #heard = Date.now();
  #retry: ReturnType<typeof setTimeout> | undefined;
  #current: AbortController | undefined;

  constructor(url: string, listener: Listener) {
    this.#url = url;
    this.#listener = listener;
  }

  /** Begin, and go on until the page is gone. */
  start(): void {
    addEventListener("online", () => this.again());
    addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") this.#wake();
      else this.#rest();
    });
    if (document.visibilityState === "visible") void this.#open();
  }

  #wake(): void {
    if (this.link.value.state === "opening" && this.#current === undefined) void this.#open();
    else this.again();
  }

  #rest(): void {
    if (this.link.value.state === "over") return;
    clearTimeout(this.#retry);
    const current = this.#current;
    this.#current = undefined; // so that its end is no loss
    current?.abort();
    this.link.value = { state: "opening" };
  }

  /** Try at once, if it is not up. */
  again(): void {
    const { state } = this.link.value;
    const silent = state === "live" && Date.now() - this.#heard > SILENCE;
    if (state !== "lost" && !silent) return;
    clearTimeout(this.#retry);
    this.#current?.abort();
    void this.#open();
  }

  /** Somebody is signed in here again: what was over begins anew. */
  back(): void {
    if (this.link.value.state !== "over") return;
    this.link.value = { state: "opening" };
    if (document.visibilityState === "visible") void this.#open();
  }

  /** It is over: nothing is tried any more. */
  end(suspended = false): void {
    clearTimeout(this.#retry);
    this.link.value = { state: "over", suspended };
    this.#current?.abort();
  }

  async #open(): Promise<void> {
    const abort = new AbortController();
    this.#current = abort;
    let watch = setTimeout(() => abort.abort(), SILENCE);
    const heard = () => {
      this.#heard = Date.now();
      clearTimeout(watch);
      watch = setTimeout(() => abort.abort(), SILENCE);
    };
    try {
      const answer = await fetch(this.#url, {
        headers: { Accept: "text/event-stream" },
        cache: "no-store",
        signal: abort.signal,
      });
      if (answer.status === 401) return this.end();
      if (answer.status === 403 && (await isSuspension(answer))) return this.end(true);
      if (!answer.ok || answer.body === null) throw new Error(`the stream was refused: ${answer.status}`);
      heard();
      this.#tries = 0;
      this.link.value = { state: "live" };
      this.#listener.open();
      const parser = new EventParser();
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        heard();
        for (const event of parser.push(value)) this.#listener.event(event);
      }
    } catch {
      // Whatever ended it: what is shown is old from now on, and it is tried again.
    } finally {
      clearTimeout(watch);
    }
    if (this.#current === abort) this.#lost();
  }

  #lost(): void {
    const before = this.link.value;
    if (before.state === "over") return;
    const wait = pause(this.#tries, Math.random());
    this.#tries += 1;
    const since = before.state === "lost" ? before.since : this.#heard;
    this.link.value = { state: "lost", since, next: Date.now() + wait };
    this.#retry = setTimeout(() => void this.#open(), wait);
  }
}
