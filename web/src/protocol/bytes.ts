/** Reading and writing the integers and byte strings that every wire format here is made of. */

/** What arrived does not follow the protocol. The message says what was seen and what was expected. */
export class ProtocolError extends Error {
  override readonly name: string = "ProtocolError";
}

/** One array with all parts, one after the other. */
export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) length += part.length;
  const whole = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/**
 * Whether two arrays hold the same bytes.
 *
 * Takes the same time wherever they differ, so that it may compare what an attacker guesses at.
 */
export function equal(one: Uint8Array, two: Uint8Array): boolean {
  if (one.length !== two.length) return false;
  let different = 0;
  for (let at = 0; at < one.length; at++) different |= one[at]! ^ two[at]!;
  return different === 0;
}

const HEX = Array.from({ length: 256 }, (_, value) => value.toString(16).padStart(2, "0"));

/** Lower-case hexadecimal digits, two for each byte. */
export function toHex(data: Uint8Array): string {
  let text = "";
  for (const value of data) text += HEX[value];
  return text;
}

/** The bytes that hexadecimal digits stand for; ProtocolError when they are none. */
export function fromHex(text: string): Uint8Array {
  if (text.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(text)) throw new ProtocolError("no hexadecimal digits");
  const data = new Uint8Array(text.length / 2);
  for (let at = 0; at < data.length; at++) data[at] = Number.parseInt(text.slice(2 * at, 2 * at + 2), 16);
  return data;
}

/** The bytes of text that has only ASCII characters. */
export function ascii(text: string): Uint8Array {
  const data = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code > 127) throw new ProtocolError(`a character outside ASCII at ${at}`);
    data[at] = code;
  }
  return data;
}

/** Big-endian numbers in an array; each throws a RangeError beyond its end. */
export function u16(data: Uint8Array, at: number): number {
  if (at + 2 > data.length) throw new RangeError("beyond the end");
  return (data[at]! << 8) | data[at + 1]!;
}

export function u32(data: Uint8Array, at: number): number {
  if (at + 4 > data.length) throw new RangeError("beyond the end");
  return ((data[at]! << 24) | (data[at + 1]! << 16) | (data[at + 2]! << 8) | data[at + 3]!) >>> 0;
}

export function putU16(data: Uint8Array, at: number, value: number): void {
  data[at] = value >>> 8;
  data[at + 1] = value;
}

export function putU32(data: Uint8Array, at: number, value: number): void {
  data[at] = value >>> 24;
  data[at + 1] = value >>> 16;
  data[at + 2] = value >>> 8;
  data[at + 3] = value;
}

/** Little-endian numbers, as WireGuard has them. */
export function u32le(data: Uint8Array, at: number): number {
  if (at + 4 > data.length) throw new RangeError("beyond the end");
  return (data[at]! | (data[at + 1]! << 8) | (data[at + 2]! << 16) | (data[at + 3]! << 24)) >>> 0;
}

export function putU32le(data: Uint8Array, at: number, value: number): void {
  data[at] = value;
  data[at + 1] = value >>> 8;
  data[at + 2] = value >>> 16;
  data[at + 3] = value >>> 24;
}

/** Where so many pieces wait, those that are smaller than this are gathered in blocks: each by itself takes a hundred bytes more. */
const MANY = 64;
const SMALL = 256;
const BLOCK = 4096;

/**
 * Bytes that arrive in pieces and are taken in pieces of other sizes.
 *
 * A piece that lies within one that arrived is a view of it, not a copy: whoever keeps it must not change it. What waits takes
 * about as much memory as there are bytes, however small the pieces are that somebody else has cut it into.
 */
export class ByteQueue {
  #parts: Uint8Array[] = [];
  #first = 0; // the index of the first part not used up; shifting an array for each would cost its length
  #length = 0;
  #block = new Uint8Array(0); // what is left of the last one

  /** How many bytes wait. */
  get length(): number {
    return this.#length;
  }

  push(data: Uint8Array): void {
    if (data.length === 0) return;
    this.#length += data.length;
    if (this.#joined(data)) return;
    if (data.length >= SMALL || this.#parts.length - this.#first < MANY) this.#parts.push(data);
    else this.#gather(data);
  }

  /** The next ``size`` bytes, left where they are; undefined while there are not so many. */
  peek(size: number): Uint8Array | undefined {
    if (size > this.#length) return undefined;
    if (size === 0) return new Uint8Array(0);
    const first = this.#parts[this.#first]!;
    if (first.length < size) this.#join(size);
    return this.#parts[this.#first]!.subarray(0, size);
  }

  /** The next ``size`` bytes; undefined, and nothing is taken, while there are not so many. */
  take(size: number): Uint8Array | undefined {
    const data = this.peek(size);
    if (data !== undefined) this.#drop(size);
    return data;
  }

  /** Up to ``size`` bytes, as many as lie together; empty when none wait. */
  takeSome(size: number): Uint8Array {
    const first = this.#parts[this.#first];
    if (first === undefined) return new Uint8Array(0);
    const data = first.subarray(0, Math.min(size, first.length));
    this.#drop(data.length);
    return data;
  }

  clear(): void {
    this.#parts = [];
    this.#first = 0;
    this.#length = 0;
  }

  /** Neighbours in one block of memory need no copy to be one. */
  #joined(data: Uint8Array): boolean {
    const last = this.#parts.length > this.#first ? this.#parts.at(-1)! : data;
    if (last.byteOffset + last.length !== data.byteOffset || last.buffer !== data.buffer) return false;
    const both = new Uint8Array(last.buffer, last.byteOffset, last.length + data.length);
    this.#parts[this.#parts.length - 1] = both;
    return true;
  }

  #gather(data: Uint8Array): void {
    if (this.#block.length < data.length) this.#block = new Uint8Array(BLOCK);
    const piece = this.#block.subarray(0, data.length);
    piece.set(data);
    this.#block = this.#block.subarray(data.length);
    if (!this.#joined(piece)) this.#parts.push(piece);
  }

  #join(size: number): void {
    const pieces: Uint8Array[] = [];
    let have = 0;
    let at = this.#first;
    while (have < size) {
      const part = this.#parts[at++]!;
      pieces.push(part);
      have += part.length;
    }
    this.#parts = [concat(...pieces), ...this.#parts.slice(at)];
    this.#first = 0;
  }

  #drop(size: number): void {
    this.#length -= size;
    let left = size;
    while (left > 0) {
      const first = this.#parts[this.#first]!;
      if (first.length > left) {
        this.#parts[this.#first] = first.subarray(left);
        return;
      }
      left -= first.length;
      this.#first++;
    }
    if (this.#first > 64 && this.#first * 2 > this.#parts.length) {
      this.#parts = this.#parts.slice(this.#first);
      this.#first = 0;
    }
  }
}
