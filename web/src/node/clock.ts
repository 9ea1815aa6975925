/** A clock that neither goes back nor stops while the machine sleeps, made of two that each do one of these. */

/** Less than this is a clock set right, not a sleep. */
const SLEPT = 2000;

export interface Clocks {
  /** Milliseconds since some moment; may stand still during a sleep, never goes back. */
  steady(): number;
  /** Milliseconds since 1970; may be set anew at any time. */
  wall(): number;
}

/** Tells milliseconds since it was made. What the time of day has run ahead of the steady clock counts as passed. */
export class SleeplessClock {
  readonly #clocks: Clocks;
  readonly #begun: number;
  #ahead: number;
  #slept = 0;
  /** The time of day at its beginning. */
  readonly epoch: number;

  constructor(clocks: Clocks) {
    this.#clocks = clocks;
    this.#begun = clocks.steady();
    this.epoch = clocks.wall();
    this.#ahead = this.epoch - this.#begun;
  }

  now(): number {
    const steady = this.#clocks.steady();
    const ahead = this.#clocks.wall() - steady;
    if (ahead - this.#ahead > SLEPT) this.#slept += ahead - this.#ahead;
    // Also where it was set back: from there on it is what sleeps are measured against.
    if (Math.abs(ahead - this.#ahead) > SLEPT) this.#ahead = ahead;
    return steady - this.#begun + this.#slept;
  }
}
