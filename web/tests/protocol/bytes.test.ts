import { describe, expect, test } from "vitest";
import { fromBase64, toBase64 } from "../../src/protocol/base64.ts";
import { ByteQueue, concat, equal, fromHex, ProtocolError, toHex, u32 } from "../../src/protocol/bytes.ts";
import { fromUtf8, toUtf8 } from "../../src/protocol/utf8.ts";
import { Dice } from "../support/deterministic.ts";

describe("bytes", () => {
  test("hexadecimal digits there and back, and nothing else", () => {
    const data = Uint8Array.from({ length: 256 }, (_, value) => value);
    expect(fromHex(toHex(data))).toEqual(data);
    for (const bad of ["0", "0g", " 00", "0x00"]) expect(() => fromHex(bad)).toThrow(ProtocolError);
  });

  test("equal only where every byte is", () => {
    expect(equal(fromHex("0102"), fromHex("0102"))).toBe(true);
    expect(equal(fromHex("0102"), fromHex("0103"))).toBe(false);
    expect(equal(fromHex("0102"), fromHex("01"))).toBe(false);
  });

  test("a number beyond the end is an error, not a zero", () => {
    expect(() => u32(fromHex("000000"), 0)).toThrow(RangeError);
    expect(u32(fromHex("ffffffff"), 0)).toBe(2 ** 32 - 1);
  });

  test("a queue gives back what was put in, however it is cut", () => {
    const dice = new Dice(1);
    for (let round = 0; round < 200; round++) {
      const whole = dice.bytes(Math.floor(dice.roll() * (round < 4 ? 6000 : 2000)));
      const slow = round < 4; // so that many pieces wait
      const queue = new ByteQueue();
      const out: Uint8Array[] = [];
      let pushed = 0;
      let taken = 0;
      while (taken < whole.length) {
        const size = Math.floor(dice.roll() * 50);
        const piece = whole.subarray(pushed, pushed + size);
        queue.push(dice.roll() < 0.5 ? piece : piece.slice());
        pushed = Math.min(whole.length, pushed + size);
        expect(queue.length).toBe(pushed - taken);
        const want = slow && pushed < whole.length ? 1 : Math.floor(dice.roll() * 60);
        const got = dice.roll() < 0.5 ? queue.take(want) : queue.takeSome(want);
        if (got === undefined) expect(want).toBeGreaterThan(pushed - taken);
        else out.push(got.slice());
        taken += got?.length ?? 0;
      }
      expect(concat(...out)).toEqual(whole);
    }
  });

  test("a flood of single bytes is gathered, so that it takes no more than there is of it", () => {
    const queue = new ByteQueue();
    const whole = new Dice(4).bytes(100_000);
    for (const byte of whole) queue.push(new Uint8Array([byte]));
    const parts: Uint8Array[] = [];
    while (queue.length > 0) parts.push(queue.takeSome(queue.length));
    expect(parts.length).toBeLessThan(150);
    expect(Buffer.compare(concat(...parts), whole)).toBe(0);
  });

  test("what lies side by side is taken as one without a copy", () => {
    const whole = Uint8Array.from({ length: 100 }, (_, value) => value);
    const queue = new ByteQueue();
    for (let at = 0; at < 100; at += 10) queue.push(whole.subarray(at, at + 10));
    const got = queue.take(95)!;
    expect(got).toEqual(whole.subarray(0, 95));
    expect(got.buffer).toBe(whole.buffer);
    expect(queue.takeSome(100)).toEqual(whole.subarray(95));
    queue.push(whole.subarray(0, 10));
    queue.push(whole.subarray(20, 30)); // not side by side
    expect(queue.take(20)).toEqual(concat(whole.subarray(0, 10), whole.subarray(20, 30)));
  });
});

describe("base64", () => {
  test("as everybody else's", () => {
    const dice = new Dice(2);
    for (let size = 0; size < 100; size++) {
      const data = dice.bytes(size);
      expect(toBase64(data)).toBe(Buffer.from(data).toString("base64"));
      expect(fromBase64(toBase64(data))).toEqual(data);
    }
  });

  test("what is none is refused", () => {
    for (const bad of ["A", "AAAA!", "====", "AA-_"]) expect(() => fromBase64(bad)).toThrow(ProtocolError);
    expect(fromBase64(" QUI\n=")).toEqual(new Uint8Array([65, 66]));
  });
});

describe("UTF-8", () => {
  test("as everybody else's, good or bad", () => {
    const dice = new Dice(3);
    for (const text of [
      "",
      "plain",
      "größe",
      "日本語",
      "🖥️ and 👩‍👩‍👧",
      "\u0000\u007f\u0080\u07ff\u0800\uffff",
    ]) {
      expect(toUtf8(text)).toEqual(new TextEncoder().encode(text));
      expect(fromUtf8(toUtf8(text))).toBe(text);
    }
    expect(toUtf8("\ud800x")).toEqual(new TextEncoder().encode("\ud800x"));
    for (let round = 0; round < 2000; round++) {
      const data = dice.bytes(Math.floor(dice.roll() * 12));
      expect(toUtf8(fromUtf8(data)).length).toBeLessThanOrEqual(3 * data.length);
      const good = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
      try {
        const text = good.decode(data);
        expect(fromUtf8(data)).toBe(text);
      } catch {
        expect(fromUtf8(data)).toContain("\ufffd");
      }
    }
  });
});
