/** Randomness that is the same in every run (xorshift); for tests only. */

export class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = (seed * 2654435761) >>> 0 || 1;
  }

  /** At least 0, less than 1. */
  roll(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return this.#state / 2 ** 32;
  }

  bytes(size: number): Uint8Array {
    const data = new Uint8Array(size);
    for (let at = 0; at < size; at++) data[at] = this.roll() * 256;
    return data;
  }
}
