/** SSH's own data types (RFC 4251 section 5), read and written. */

import { concat, ProtocolError, putU32, u32 } from "../bytes.ts";
import { fromUtf8, toUtf8 } from "../utf8.ts";

/** Reads the fields of a message one after the other; ProtocolError where the message ends too early. */
export class Fields {
  readonly #data: Uint8Array;
  #at: number;

  constructor(data: Uint8Array, at = 0) {
    this.#data = data;
    this.#at = at;
  }

  byte(): number {
    return this.bytes(1)[0]!;
  }

  boolean(): boolean {
    return this.byte() !== 0;
  }

  u32(): number {
    return u32(this.bytes(4), 0);
  }

  /** A 64-bit number; ProtocolError where it is beyond what a number here counts exactly. */
  u64(): number {
    const value = this.u32() * 2 ** 32 + this.u32();
    if (!Number.isSafeInteger(value)) throw new ProtocolError("a number too large");
    return value;
  }

  /** The next ``size`` bytes, a view of the message. */
  bytes(size: number): Uint8Array {
    if (this.#at + size > this.#data.length) throw new ProtocolError("a message that ends too early");
    this.#at += size;
    return this.#data.subarray(this.#at - size, this.#at);
  }

  string(): Uint8Array {
    return this.bytes(this.u32());
  }

  /** A string of text; what is no UTF-8 in it becomes the replacement character. */
  text(): string {
    return fromUtf8(this.string());
  }

  names(): string[] {
    const text = this.text();
    return text === "" ? [] : text.split(",");
  }

  /** A number that is not negative, as its bytes without leading zeros. */
  mpint(): Uint8Array {
    const data = this.string();
    if (data.length > 0 && data[0]! >= 128) throw new ProtocolError("a negative number");
    let zeros = 0;
    while (zeros < data.length && data[zeros] === 0) zeros++;
    return data.subarray(zeros);
  }

  rest(): Uint8Array {
    return this.bytes(this.#data.length - this.#at);
  }

  get left(): number {
    return this.#data.length - this.#at;
  }
}

/** A field to be written: a number is one byte, a string or an array gets its length before it. */
export type Field =
  | number
  | string
  | boolean
  | Uint8Array
  | { readonly u32: number }
  | { readonly raw: Uint8Array };

/** The bytes of a message's fields. */
export function fields(...parts: readonly Field[]): Uint8Array {
  return concat(...parts.flatMap(pieces));
}

/** A field in the pieces that it is made of: what is long is copied once, into the message. */
function pieces(part: Field): Uint8Array[] {
  if (typeof part === "number") return [new Uint8Array([part])];
  if (typeof part === "boolean") return [new Uint8Array([part ? 1 : 0])];
  if (typeof part === "string") return withLength(toUtf8(part));
  if (part instanceof Uint8Array) return withLength(part);
  return ["raw" in part ? part.raw : number(part.u32)];
}

function withLength(data: Uint8Array): Uint8Array[] {
  return [number(data.length), data];
}

function number(value: number): Uint8Array {
  const data = new Uint8Array(4);
  putU32(data, 0, value);
  return data;
}

/** A number given as big-endian bytes, in SSH's shortest form. */
export function mpint(value: Uint8Array): Uint8Array {
  let zeros = 0;
  while (zeros < value.length && value[zeros] === 0) zeros++;
  const digits = value.subarray(zeros);
  return fields(digits.length > 0 && digits[0]! >= 128 ? concat(new Uint8Array(1), digits) : digits);
}

/** The messages' numbers (RFC 4250 section 4.1.2, RFC 8308). */
export const MESSAGE = {
  disconnect: 1,
  ignore: 2,
  unimplemented: 3,
  debug: 4,
  serviceRequest: 5,
  serviceAccept: 6,
  extInfo: 7,
  kexInit: 20,
  newKeys: 21,
  kexInitReply: 30, // what a client sends first; its answer is 31
  kexReply: 31,
  authRequest: 50,
  authFailure: 51,
  authSuccess: 52,
  authBanner: 53,
  authInfoRequest: 60, // PK_OK and PASSWD_CHANGEREQ have the same number, by the method that is under way
  authInfoResponse: 61,
  globalRequest: 80,
  requestSuccess: 81,
  requestFailure: 82,
  channelOpen: 90,
  channelOpenConfirmation: 91,
  channelOpenFailure: 92,
  channelWindowAdjust: 93,
  channelData: 94,
  channelExtendedData: 95,
  channelEof: 96,
  channelClose: 97,
  channelRequest: 98,
  channelSuccess: 99,
  channelFailure: 100,
} as const;
