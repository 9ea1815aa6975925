import { readFileSync } from "node:fs";
import { x25519 } from "@noble/curves/ed25519.js";
import { describe, expect, test } from "vitest";
import { Box } from "../../src/protocol/box.ts";
import { ascii, concat, equal, fromHex, ProtocolError, toHex } from "../../src/protocol/bytes.ts";
import { DerpClient, MAX_PACKET } from "../../src/protocol/derp.ts";
import { Dice } from "../support/deterministic.ts";

const vectors = JSON.parse(
  readFileSync(new URL("../../../tests/vectors/derp.json", import.meta.url), "utf8"),
);
const [introduction, answer] = vectors.boxes;
const client = fromHex(introduction.client_private);
const server = fromHex(introduction.server_private);
const nonce = fromHex(introduction.nonce);

function frame(type: number, ...parts: Uint8Array[]): Uint8Array {
  const payload = concat(...parts);
  return concat(
    new Uint8Array([type, 0, payload.length >> 16, payload.length >> 8, payload.length]),
    payload,
  );
}

function greeting(): Uint8Array {
  return frame(1, fromHex("44455250f09f9491"), x25519.getPublicKey(server));
}

function admitted(options: { info?: string; home?: boolean } = {}): DerpClient {
  const derp = new DerpClient({ privateKey: client, nonce, home: options.home ?? true });
  derp.receive(greeting(), 0);
  derp.dataToSend();
  const box = new Box(server, x25519.getPublicKey(client));
  derp.receive(frame(3, box.seal(nonce, ascii(options.info ?? '{"version":2}'))), 0);
  expect(derp.events()).toEqual([{ kind: "ready" }]);
  return derp;
}

describe("a relay's client", () => {
  test("introduces itself as stock clients do, and understands the answer", () => {
    const derp = new DerpClient({ privateKey: client, nonce, home: true });
    derp.receive(greeting(), 0);
    expect(toHex(derp.dataToSend()!)).toBe(introduction.frame);
    derp.receive(fromHex(answer.frame), 0);
    expect(derp.events()).toEqual([{ kind: "ready" }]);
    expect(toHex(derp.dataToSend()!)).toBe("070000000101");
  });

  test("understands frames however they are cut", () => {
    const dice = new Dice(4);
    const stream = concat(
      greeting(),
      fromHex(answer.frame),
      frame(5, new Uint8Array(32).fill(7), ascii("a packet")),
      frame(6),
      frame(99, ascii("of a later version")),
      frame(8, new Uint8Array(32).fill(9), new Uint8Array([1])),
      frame(0x14, ascii("too\u0007 many")),
      frame(0x15, new Uint8Array([0, 0, 0, 100, 0, 0, 3, 232])),
    );
    for (let round = 0; round < 50; round++) {
      const derp = new DerpClient({ privateKey: client, nonce, home: false });
      for (let at = 0; at < stream.length; ) {
        const size = 1 + Math.floor(dice.roll() * 40);
        derp.receive(stream.subarray(at, at + size), 0);
        at += size;
      }
      expect(derp.events()).toEqual([
        { kind: "ready" },
        { kind: "packet", from: new Uint8Array(32).fill(7), packet: ascii("a packet") },
        { kind: "gone", peer: new Uint8Array(32).fill(9) },
        { kind: "health", problem: "too? many" },
        { kind: "restarting", reconnectIn: 100, tryFor: 1000 },
      ]);
    }
  });

  test("sends packets once it is let in, joined into one message", () => {
    const derp = admitted();
    derp.dataToSend();
    derp.send(new Uint8Array(32).fill(1), ascii("one"), 0);
    derp.send(new Uint8Array(32).fill(2), ascii("two"), 0);
    expect(derp.dataToSend()).toEqual(
      concat(
        frame(4, new Uint8Array(32).fill(1), ascii("one")),
        frame(4, new Uint8Array(32).fill(2), ascii("two")),
      ),
    );
    expect(derp.dataToSend()).toBeUndefined();
    expect(() => derp.send(new Uint8Array(32), new Uint8Array(MAX_PACKET + 1), 0)).toThrow(RangeError);
  });

  test("drops packets before it is let in, and counts them", () => {
    const derp = new DerpClient({ privateKey: client, nonce, home: true });
    derp.send(new Uint8Array(32), ascii("early"), 0);
    expect(derp.dropped).toBe(1);
    expect(derp.dataToSend()).toBeUndefined();
  });

  test("keeps to the relay's own limit", () => {
    const derp = admitted({
      info: '{"version":2,"TokenBucketBytesPerSecond":1000,"TokenBucketBytesBurst":500}',
    });
    derp.dataToSend();
    for (let packet = 0; packet < 10; packet++) derp.send(new Uint8Array(32), new Uint8Array(100), 0);
    expect(derp.dropped).toBe(5);
    derp.send(new Uint8Array(32), new Uint8Array(100), 100);
    expect(derp.dropped).toBe(5);
  });

  test("no message is longer than a stock relay reads, and all of them are what was said", () => {
    const derp = admitted({ home: false });
    const peer = new Uint8Array(32).fill(3);
    const packets = Array.from({ length: 60 }, (_, at) => new Uint8Array(1 + 37 * at).fill(at));
    packets.push(new Uint8Array(MAX_PACKET).fill(7));
    for (const packet of packets) derp.send(peer, packet, 0);
    const messages: Uint8Array[] = [];
    for (let data = derp.dataToSend(); data !== undefined; data = derp.dataToSend()) messages.push(data);
    expect(Math.max(...messages.map(({ length }) => length))).toBeLessThanOrEqual(32_768);
    expect(messages.length).toBeLessThan(10);
    const said = concat(...packets.map((packet) => frame(0x04, peer, packet)));
    expect(equal(concat(...messages), said)).toBe(true);
  });

  test("asks whether the relay is there, and is told", () => {
    const derp = admitted({ home: false });
    derp.ping();
    expect(derp.dataToSend()).toEqual(frame(0x12, new Uint8Array(8)));
    derp.receive(frame(0x13, new Uint8Array(8)), 0);
    expect(derp.events()).toEqual([{ kind: "pong" }]);
  });

  test("answers pings, but does not keep answers without end", () => {
    const derp = admitted({ home: false });
    derp.receive(frame(0x12, ascii("12345678")), 0);
    expect(derp.dataToSend()).toEqual(frame(0x13, ascii("12345678")));
    for (let ping = 0; ping < 5000; ping++) derp.receive(frame(0x12, ascii("12345678")), 0);
    expect(derp.dataToSend()!.length).toBeLessThanOrEqual(1024 * 13);
  });

  test.each([
    ["no relay", frame(1, ascii("not DERP"), new Uint8Array(32))],
    ["a key of small order", frame(1, fromHex("44455250f09f9491"), new Uint8Array(32))],
    ["a short greeting", frame(1, fromHex("44455250f09f9491"))],
    ["admission before the key", frame(3, new Uint8Array(60))],
    ["a frame that is too long", fromHex("0500200000")],
    ["admission sealed by somebody else", concat(greeting(), frame(3, new Uint8Array(80)))],
    ["admission that is too short", concat(greeting(), frame(3, new Uint8Array(8)))],
    ["a packet from nobody", concat(greeting(), fromHex(answer.frame), frame(5, ascii("short")))],
  ])("%s ends the connection", (_, bytes) => {
    const derp = new DerpClient({ privateKey: client, nonce, home: true });
    expect(() => derp.receive(bytes, 0)).toThrow(ProtocolError);
  });

  test.each(["[]", "null", "no JSON", "12"])("information that is %s is refused", (info) => {
    const derp = new DerpClient({ privateKey: client, nonce, home: true });
    derp.receive(greeting(), 0);
    const box = new Box(server, x25519.getPublicKey(client));
    expect(() => derp.receive(frame(3, box.seal(nonce, ascii(info))), 0)).toThrow(ProtocolError);
  });
});
