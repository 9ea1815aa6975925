/** Base64 (RFC 4648) without a browser's own functions, which know only text. */

import { ProtocolError } from "./bytes.ts";

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const VALUES = new Map(Array.from(ALPHABET, (character, value) => [character, value]));

export function toBase64(data: Uint8Array): string {
  let text = "";
  for (let at = 0; at < data.length; at += 3) {
    const left = data.length - at;
    const group = (data[at]! << 16) | ((data[at + 1] ?? 0) << 8) | (data[at + 2] ?? 0);
    text += ALPHABET[group >> 18]! + ALPHABET[(group >> 12) & 63]!;
    text += left > 1 ? ALPHABET[(group >> 6) & 63]! : "=";
    text += left > 2 ? ALPHABET[group & 63]! : "=";
  }
  return text;
}

/** ProtocolError for text that is no base64; white space and missing padding are allowed. */
export function fromBase64(text: string): Uint8Array {
  const digits = text.replace(/\s+/g, "").replace(/={1,2}$/, "");
  if (digits.length % 4 === 1) throw new ProtocolError("base64 that ends too early");
  const out = new Uint8Array(Math.floor((digits.length * 3) / 4));
  let bits = 0;
  let have = 0;
  let at = 0;
  for (const digit of digits) {
    const value = VALUES.get(digit);
    if (value === undefined) throw new ProtocolError(`${JSON.stringify(digit)} is no digit of base64`);
    bits = ((bits << 6) | value) & 0xffff;
    have += 6;
    if (have >= 8) {
      have -= 8;
      out[at++] = (bits >> have) & 255;
    }
  }
  return out;
}
