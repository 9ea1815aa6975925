/** UTF-8 without a browser's TextEncoder, so that it is there wherever this code runs. */

/** The bytes of a text; half a surrogate pair becomes the replacement character. */
export function toUtf8(text: string): Uint8Array {
  const out = new Uint8Array(text.length * 3);
  let at = 0;
  for (const character of text) {
    let code = character.codePointAt(0)!;
    if (code >= 0xd800 && code <= 0xdfff) code = 0xfffd;
    if (code < 0x80) {
      out[at++] = code;
    } else if (code < 0x800) {
      out[at++] = 0xc0 | (code >> 6);
      out[at++] = 0x80 | (code & 63);
    } else if (code < 0x10000) {
      out[at++] = 0xe0 | (code >> 12);
      out[at++] = 0x80 | ((code >> 6) & 63);
      out[at++] = 0x80 | (code & 63);
    } else {
      out[at++] = 0xf0 | (code >> 18);
      out[at++] = 0x80 | ((code >> 12) & 63);
      out[at++] = 0x80 | ((code >> 6) & 63);
      out[at++] = 0x80 | (code & 63);
    }
  }
  return out.slice(0, at);
}

/** The text of some bytes; each byte that fits into no character becomes a replacement character. */
export function fromUtf8(data: Uint8Array): string {
  let text = "";
  for (let at = 0; at < data.length; ) {
    const [code, size] = character(data, at);
    text += String.fromCodePoint(code);
    at += size;
  }
  return text;
}

const LEAST = [0, 0x80, 0x800, 0x10000];

function character(data: Uint8Array, at: number): [number, number] {
  const first = data[at]!;
  if (first < 0x80) return [first, 1];
  const more =
    first >= 0xc2 && first < 0xe0
      ? 1
      : first >= 0xe0 && first < 0xf0
        ? 2
        : first >= 0xf0 && first < 0xf5
          ? 3
          : 0;
  if (more === 0 || at + more >= data.length) return [0xfffd, 1];
  let code = first & (0x3f >> more);
  for (let step = 1; step <= more; step++) {
    const next = data[at + step]!;
    if ((next & 0xc0) !== 0x80) return [0xfffd, 1];
    code = (code << 6) | (next & 63);
  }
  const wrong = code < LEAST[more]! || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff);
  return wrong ? [0xfffd, 1] : [code, more + 1];
}
