import { x25519 } from "@noble/curves/ed25519.js";
import { describe, expect, test } from "vitest";
import { concat, toHex } from "../../src/protocol/bytes.ts";
import { ReplayWindow } from "../../src/protocol/wireguard/session.ts";
import {
  KEEPALIVE_TIMEOUT,
  REKEY_AFTER_TIME,
  REKEY_TIMEOUT,
  Tunnel,
} from "../../src/protocol/wireguard/tunnel.ts";
import { Dice } from "../support/deterministic.ts";

const EPOCH = 1_780_000_000_000;

/** Two ends of a tunnel, a way between them that a test may spoil, and one clock. */
class Pair {
  now = 1000;
  readonly dice: Dice;
  readonly one: Tunnel;
  readonly two: Tunnel;
  readonly got: { one: string[]; two: string[] } = { one: [], two: [] };
  readonly sent: { from: "one" | "two"; message: Uint8Array }[] = [];
  lose: (from: "one" | "two", message: Uint8Array) => boolean = () => false;

  constructor(seed = 7, eager = false) {
    this.dice = new Dice(seed);
    const keys = [this.dice.bytes(32), this.dice.bytes(32)] as const;
    const make = (own: 0 | 1) =>
      new Tunnel({
        privateKey: keys[own],
        peer: x25519.getPublicKey(keys[1 - own]!),
        entropy: (size) => this.dice.bytes(size),
        epoch: EPOCH,
        eager: eager && own === 0,
      });
    this.one = make(0);
    this.two = make(1);
  }

  /** Carry everything until nobody has anything to say. */
  carry(): void {
    for (let rounds = 0; rounds < 50; rounds++) {
      const messages = [
        ...this.one.dataToSend().map((message) => ({ from: "one" as const, message })),
        ...this.two.dataToSend().map((message) => ({ from: "two" as const, message })),
      ];
      if (messages.length === 0) return;
      for (const { from, message } of messages) {
        this.sent.push({ from, message });
        if (this.lose(from, message)) continue;
        const to = from === "one" ? "two" : "one";
        const packet = this[to].receive(message, this.now);
        if (packet !== undefined) this.got[to].push(text(packet));
      }
    }
    throw new Error("they talk without end");
  }

  /** Let time pass, with every deadline on the way. */
  pass(milliseconds: number): void {
    const end = this.now + milliseconds;
    for (;;) {
      const next = Math.min(this.one.nextDeadline() ?? Infinity, this.two.nextDeadline() ?? Infinity);
      if (next > end) break;
      this.now = Math.max(this.now, next);
      this.one.onDeadline(this.now);
      this.two.onDeadline(this.now);
      this.carry();
    }
    this.now = end;
  }

  say(from: "one" | "two", what: string): void {
    this[from].send(packet(what), this.now);
    this.carry();
  }

  types(from?: "one" | "two"): number[] {
    return this.sent
      .filter((one) => from === undefined || one.from === from)
      .map(({ message }) => message[0]!);
  }
}

/** Not an IP packet: the tunnel does not look inside. Its length comes first, since padding stays. */
function packet(what: string): Uint8Array {
  return concat(new Uint8Array([what.length]), new TextEncoder().encode(what));
}

function text(data: Uint8Array): string {
  return new TextDecoder().decode(data.subarray(1, 1 + data[0]!));
}

describe("a tunnel", () => {
  test("opens with the first packet, which waits for it", () => {
    const pair = new Pair();
    pair.say("one", "hello");
    expect(pair.got.two).toEqual(["hello"]);
    expect(pair.types()).toEqual([1, 2, 4]);
    expect(pair.one.events()).toEqual([{ kind: "established" }]);
    expect(pair.two.events()).toEqual([{ kind: "established" }]);
    pair.say("two", "and hello to you");
    expect(pair.got.one).toEqual(["and hello to you"]);
    expect(pair.types()).toEqual([1, 2, 4, 4]);
  });

  test("messages have the sizes of the protocol, packets padded to 16", () => {
    const pair = new Pair();
    pair.one.open(pair.now);
    pair.carry();
    expect(pair.sent.map(({ message }) => message.length)).toEqual([148, 92, 32]);
    pair.say("one", "x".repeat(20));
    expect(pair.sent.at(-1)!.message.length).toBe(16 + 32 + 16);
  });

  test("both may begin at once", () => {
    const pair = new Pair();
    pair.one.send(packet("from one"), pair.now);
    pair.two.send(packet("from two"), pair.now);
    pair.carry();
    pair.pass(20_000);
    pair.say("one", "again");
    pair.say("two", "again");
    expect(pair.got.two).toEqual(["from one", "again"]);
    expect(pair.got.one).toEqual(["from two", "again"]);
  });

  test("asks again while nobody answers, gives up after 90 s, and begins anew with the next packet", () => {
    const pair = new Pair();
    pair.lose = () => true;
    pair.say("one", "is anybody there");
    pair.pass(100_000);
    const tries = pair.types().length;
    expect(tries).toBeGreaterThanOrEqual(16);
    expect(tries).toBeLessThanOrEqual(19);
    expect(pair.one.events()).toEqual([{ kind: "lost" }]);
    expect(pair.one.nextDeadline()).toBeUndefined();
    pair.lose = () => false;
    pair.say("one", "now");
    expect(pair.got.two).toEqual(["now"]);
  });

  test("every try carries a later time, even where the clock of the machine goes back", () => {
    const pair = new Pair();
    pair.lose = () => true;
    for (let count = 0; count < 3; count++) {
      pair.one.send(packet("x"), pair.now);
      pair.pass(REKEY_TIMEOUT + 1000);
    }
    // All of them reach the other side, in order: none is taken for an old one.
    for (const { message } of pair.sent) pair.two.receive(message, pair.now);
    expect(pair.two.refused).toBe(0);
    // The same ones once more are.
    for (const { message } of pair.sent) pair.two.receive(message, pair.now + 10_000);
    expect(pair.two.refused).toBe(pair.sent.length);
  });

  test("is renewed by who began it, after two minutes, without losing a packet", () => {
    const pair = new Pair();
    const said: string[] = [];
    for (let second = 0; second < 400; second++) {
      pair.say(second % 2 === 0 ? "one" : "two", `${second}`);
      said.push(`${second}`);
      pair.pass(1000);
    }
    expect([...pair.got.one, ...pair.got.two].map(Number).sort((a, b) => a - b)).toEqual(said.map(Number));
    expect(pair.types("one").filter((type) => type === 1).length).toBe(
      Math.floor(400_000 / REKEY_AFTER_TIME) + 1,
    );
    expect(pair.types("two").filter((type) => type === 1).length).toBe(0);
  });

  test("who only listens says so after ten seconds, once", () => {
    const pair = new Pair();
    pair.say("one", "hello");
    const before = pair.sent.length;
    pair.pass(KEEPALIVE_TIMEOUT - 1);
    expect(pair.sent.length).toBe(before);
    pair.pass(60_000);
    expect(pair.sent.slice(before).map(({ from, message }) => [from, message.length])).toEqual([["two", 32]]);
  });

  test("who hears nothing after speaking makes a new session after fifteen seconds", () => {
    const pair = new Pair();
    pair.say("one", "hello");
    pair.lose = (from) => from === "two";
    pair.say("one", "still there?");
    const before = pair.types("one").length;
    pair.pass(KEEPALIVE_TIMEOUT + REKEY_TIMEOUT + 10);
    expect(pair.types("one").slice(before)).toContain(1);
  });

  test("a new tunnel with the same key takes the place of the one before at once", () => {
    const pair = new Pair();
    pair.say("one", "before");
    const again = new Pair();
    again.now = pair.now + 5000;
    again.one.open(again.now);
    for (const message of again.one.dataToSend()) pair.two.receive(message, again.now);
    const answers = pair.two.dataToSend();
    expect(answers.map((message) => message[0])).toEqual([2]);
    again.one.receive(answers[0]!, again.now);
    expect(again.one.isOpen(again.now)).toBe(true);
  });

  test("keys that are too old are forgotten", () => {
    const pair = new Pair();
    pair.say("one", "hello");
    const kept = pair.sent.at(-1)!.message;
    pair.lose = () => true;
    pair.pass(600_000);
    expect(pair.two.receive(kept, pair.now)).toBeUndefined();
    expect(pair.one.isOpen(pair.now)).toBe(false);
  });
});

describe("what a hostile relay may do", () => {
  test("a message that comes again, or is changed, is dropped and counted", () => {
    const pair = new Pair();
    pair.say("one", "once");
    const { message } = pair.sent.at(-1)!;
    expect(pair.two.receive(message, pair.now)).toBeUndefined();
    expect(pair.two.refused).toBe(1);
    for (let at = 0; at < message.length; at++) {
      const changed = message.slice();
      changed[at]! ^= 1;
      expect(pair.two.receive(changed, pair.now)).toBeUndefined();
    }
    expect(pair.two.refused).toBe(1 + message.length);
    pair.say("one", "goes on");
    expect(pair.got.two).toEqual(["once", "goes on"]);
  });

  test("messages may come in another order", () => {
    const pair = new Pair();
    pair.say("one", "first");
    for (let count = 0; count < 100; count++) pair.one.send(packet(`${count}`), pair.now);
    const messages = pair.one.dataToSend().reverse();
    const got = messages.map((message) => text(pair.two.receive(message, pair.now)!));
    expect(got).toEqual(Array.from({ length: 100 }, (_, count) => `${99 - count}`));
  });

  test("garbage of any length changes nothing", () => {
    const pair = new Pair();
    pair.say("one", "hello");
    const dice = new Dice(11);
    for (let count = 0; count < 2000; count++) {
      const garbage = dice.bytes(Math.floor(dice.roll() * 200));
      if (garbage.length > 4 && dice.roll() < 0.8) garbage.set([1 + Math.floor(dice.roll() * 4), 0, 0, 0]);
      pair.two.receive(garbage, pair.now);
    }
    expect(pair.two.dataToSend()).toEqual([]);
    expect(pair.two.refused).toBe(2000);
    pair.say("one", "still");
    expect(pair.got.two).toEqual(["hello", "still"]);
  });

  test("a handshake of somebody else is refused", () => {
    const pair = new Pair();
    const stranger = new Tunnel({
      privateKey: pair.dice.bytes(32),
      peer: x25519.getPublicKey(new Dice(7).bytes(32)),
      entropy: (size) => pair.dice.bytes(size),
      epoch: EPOCH,
    });
    stranger.open(pair.now);
    for (const message of stranger.dataToSend()) pair.one.receive(message, pair.now);
    expect(pair.one.refused).toBe(1);
    expect(pair.one.dataToSend()).toEqual([]);
  });

  test("a flood of handshakes has to show a cookie, and who can goes on", () => {
    const pair = new Pair();
    // The peer's own, kept back by the relay and let go at once.
    pair.lose = () => true;
    for (let count = 0; count < 14; count++) {
      pair.one.send(packet("x"), pair.now);
      pair.pass(REKEY_TIMEOUT + 400);
    }
    const flood = pair.sent.splice(0).map(({ message }) => message);
    for (const message of flood) pair.two.receive(message, pair.now);
    const answers = pair.two.dataToSend();
    expect(new Set(answers.map((message) => message[0]))).toEqual(new Set([2, 3]));
    // The cookie for its latest message: the next try carries it, and is answered although the flood goes on.
    pair.lose = () => false;
    pair.one.receive(answers.at(-1)!, pair.now);
    expect(pair.one.refused).toBe(0);
    pair.now += 400;
    const tried: Uint8Array[] = [];
    while (tried.length === 0) {
      pair.now = pair.one.nextDeadline()!;
      pair.one.onDeadline(pair.now);
      tried.push(...pair.one.dataToSend());
    }
    for (let count = 0; count < 20; count++) pair.two.receive(flood[0]!, pair.now);
    pair.two.dataToSend();
    for (const message of tried) pair.two.receive(message, pair.now);
    expect(toHex(tried[0]!.subarray(132))).not.toBe("00".repeat(16));
    expect(pair.two.dataToSend().map((message) => message[0])).toEqual([2]);
  });
});

describe("the window of numbers seen", () => {
  test("agrees with a set that forgets nothing, within its width", () => {
    const dice = new Dice(5);
    const window = new ReplayWindow();
    const seen = new Set<number>();
    let newest = 0;
    for (let count = 0; count < 50_000; count++) {
      const jump = dice.roll() < 0.001 ? 20_000 : 40;
      const number = Math.max(0, newest + Math.floor(dice.roll() * jump * 2) - jump);
      const late = newest - number >= ReplayWindow.SIZE;
      expect(window.accept(number)).toBe(!late && !seen.has(number));
      seen.add(number);
      newest = Math.max(newest, number);
    }
  });

  test("numbers beyond 32 bits are counted like others", () => {
    const window = new ReplayWindow();
    expect(window.accept(2 ** 40)).toBe(true);
    expect(window.accept(2 ** 40)).toBe(false);
    expect(window.accept(2 ** 40 - 1)).toBe(true);
    expect(window.accept(5)).toBe(false);
  });
});

test("one who is eager asks soon again at first, and like everybody else once there was an answer", () => {
  const pair = new Pair(7, true);
  const asked: number[] = [];
  pair.lose = (from, message) => {
    if (from === "one" && message[0] === 1) asked.push(pair.now);
    return true;
  };
  pair.one.open(pair.now);
  pair.carry();
  pair.pass(20_000);
  const waits = asked.slice(1).map((at, index) => at - asked[index]!);
  expect(waits.slice(0, 4).map((wait) => Math.floor(Math.log2(wait / 399)))).toEqual([0, 1, 2, 3]);
  for (const wait of waits.slice(4)) expect(wait).toBeGreaterThanOrEqual(REKEY_TIMEOUT);
  pair.lose = () => false;
  pair.pass(6000);
  expect(pair.one.isOpen(pair.now)).toBe(true);
  asked.length = 0;
  pair.lose = (from, message) => {
    if (from === "one" && message[0] === 1) asked.push(pair.now);
    return true;
  };
  pair.one.open(pair.now);
  pair.carry();
  pair.pass(REKEY_TIMEOUT + 1000);
  expect(asked).toHaveLength(2);
});
