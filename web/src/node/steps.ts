/** What a terminal goes through until there is a shell, each step with its time. */

import type { Step, StepName } from "./types.ts";

export class Steps {
  readonly #now: () => number;
  readonly #say: (step: Step) => void;
  readonly #begun = new Map<StepName, number>();

  constructor(now: () => number, say: (step: Step) => void) {
    this.#now = now;
    this.#say = say;
  }

  begin(name: StepName): void {
    if (this.#begun.has(name)) return;
    this.#begun.set(name, this.#now());
    this.#say({ name, state: "doing" });
  }

  done(name: StepName, detail?: string): void {
    const begun = this.#begun.get(name);
    if (begun === undefined || begun < 0) return;
    this.#begun.set(name, -1);
    this.#say({ name, state: "done", ms: this.#since(begun), ...(detail === undefined ? {} : { detail }) });
  }

  /** Whatever was being done has failed. */
  failed(detail: string): void {
    for (const [name, begun] of this.#begun) {
      if (begun >= 0) this.#say({ name, state: "failed", ms: this.#since(begun), detail });
      this.#begun.set(name, -1);
    }
  }

  #since(begun: number): number {
    return Math.round((this.#now() - begun) * 10) / 10;
  }
}
