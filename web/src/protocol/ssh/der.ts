/** As much of DER (X.690) as private keys are written in. */

import { ProtocolError } from "../bytes.ts";

export const INTEGER = 0x02;
export const OCTET_STRING = 0x04;
export const OBJECT = 0x06;
export const SEQUENCE = 0x30;

/** Reads values one after the other; ProtocolError where they are not what is expected. */
export class Der {
  readonly #data: Uint8Array;
  #at = 0;

  constructor(data: Uint8Array) {
    this.#data = data;
  }

  get left(): number {
    return this.#data.length - this.#at;
  }

  /** The kind of the next value; undefined at the end. */
  get next(): number | undefined {
    return this.#data[this.#at];
  }

  /** What is in the next value, which has to be of this kind. */
  take(kind: number): Uint8Array {
    if (this.#byte() !== kind) throw new ProtocolError("no such value in this DER");
    let length = this.#byte();
    if (length >= 0x80) {
      const size = length & 0x7f;
      if (size === 0 || size > 3) throw new ProtocolError("a length that DER does not have here");
      length = 0;
      for (let at = 0; at < size; at++) length = length * 256 + this.#byte();
    }
    if (length > this.left) throw new ProtocolError("DER that ends too early");
    this.#at += length;
    return this.#data.subarray(this.#at - length, this.#at);
  }

  sequence(): Der {
    return new Der(this.take(SEQUENCE));
  }

  /** A number that is not negative, without leading zeros. */
  integer(): Uint8Array {
    const data = this.take(INTEGER);
    if (data.length === 0 || data[0]! >= 128) throw new ProtocolError("a number that cannot be");
    let zeros = 0;
    while (zeros < data.length && data[zeros] === 0) zeros++;
    return data.subarray(zeros);
  }

  #byte(): number {
    const value = this.#data[this.#at++];
    if (value === undefined) throw new ProtocolError("DER that ends too early");
    return value;
  }
}
