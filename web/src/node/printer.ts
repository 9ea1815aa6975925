/**
 * What a session prints, on its way to the page: gathered, and no more of it than the page keeps up with.
 *
 * What is not acknowledged is not read from the session, whose window then stays shut: in the end the program waits.
 */

import type { Environment } from "./environment.ts";

/** How much may be on its way to the page, in bytes. */
export const ON_ITS_WAY = 1 << 20;
/** Pieces that come within so many milliseconds go together: a message for each costs more than what is in it. */
const TOGETHER = 4;
/**
 * Of a flood a page shows as many pictures as there are messages, and each may take it longer than the text in between: nobody
 * reads it, so there is one in so many milliseconds. A flood comes at a megabyte a second and more; what a full-screen
 * program paints is most often less.
 */
const TOGETHER_IN_FLOOD = 50;
const FLOOD = 1 << 16;
/** What came so many milliseconds ago counts half of what comes now. */
const HALF_LIFE = 40;
/** More than this does not wait. */
const ENOUGH = 1 << 19;

export class Printer {
  readonly #environment: Environment;
  readonly #send: (data: Uint8Array<ArrayBuffer>) => void;
  #parts: Uint8Array[] = [];
  #size = 0;
  #sentAt = Number.NEGATIVE_INFINITY;
  #lately = 0; // bytes, the older the less
  #cameAt = Number.NEGATIVE_INFINITY;
  #cancel: (() => void) | undefined;
  #unread = 0;
  #waiting: (() => void)[] = [];
  #closed = false;

  constructor(environment: Environment, send: (data: Uint8Array<ArrayBuffer>) => void) {
    this.#environment = environment;
    this.#send = send;
  }

  /** Take some output; resolves when there may be more. The first after a pause goes at once. */
  async print(data: Uint8Array): Promise<void> {
    this.#parts.push(data);
    this.#size += data.length;
    const now = this.#environment.now();
    this.#lately = this.#lately * 2 ** ((this.#cameAt - now) / HALF_LIFE) + data.length;
    this.#cameAt = now;
    const left = this.#sentAt + (this.#lately >= FLOOD ? TOGETHER_IN_FLOOD : TOGETHER) - now;
    if (this.#size >= ENOUGH || left <= 0) this.#flush();
    else this.#cancel ??= this.#environment.after(left, () => this.#flush());
    while (this.#unread + this.#size > ON_ITS_WAY && !this.#closed) {
      await new Promise<void>((wake) => {
        this.#waiting.push(wake);
      });
    }
  }

  ack(bytes: number): void {
    this.#unread = Math.max(0, this.#unread - Math.max(0, bytes));
    this.#wake();
  }

  /** Send what is left. */
  async finish(): Promise<void> {
    this.#flush();
  }

  /** Nobody reads any more: nothing waits. */
  close(): void {
    this.#closed = true;
    this.#cancel?.();
    this.#wake();
  }

  #flush(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    if (this.#size === 0 || this.#closed) return;
    const whole = new Uint8Array(this.#size);
    let at = 0;
    for (const part of this.#parts) {
      whole.set(part, at);
      at += part.length;
    }
    this.#parts = [];
    this.#size = 0;
    this.#sentAt = this.#environment.now();
    this.#unread += whole.length;
    this.#send(whole);
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }
}
