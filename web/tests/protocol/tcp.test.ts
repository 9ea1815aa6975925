import { describe, expect, test } from "vitest";
import { concat, ProtocolError } from "../../src/protocol/bytes.ts";
import {
  buildPacket,
  checksum,
  echoAnswer,
  ICMP6,
  parseAddress,
  parsePacket,
} from "../../src/protocol/ip.ts";
import { Receiver } from "../../src/protocol/tcp/receiver.ts";
import {
  ACK,
  buildSegment,
  FIN,
  parseSegment,
  RST,
  type Segment,
  SYN,
} from "../../src/protocol/tcp/segment.ts";
import { Dice } from "../support/deterministic.ts";
import { Listener, LOCAL, Network, REMOTE } from "../support/network.ts";

const MB = 1 << 20;

function pattern(size: number, seed = 3): Uint8Array {
  return new Dice(seed).bytes(size);
}

/** Whether both are the same bytes, said shortly where they are not. */
function same(one: Uint8Array, two: Uint8Array): void {
  expect(one.length).toBe(two.length);
  expect(Buffer.compare(one, two)).toBe(0);
}

function fromPeer(_: Network, fields: Partial<Segment>): Segment {
  return {
    sourcePort: 22,
    destinationPort: 50_000,
    sequence: 0xfffffff1,
    acknowledgement: (0xffffff80 + 1) >>> 0,
    flags: ACK,
    window: 1000,
    data: new Uint8Array(0),
    ...fields,
  };
}

describe("a connection", () => {
  test("opens, carries both ways, and ends in order", () => {
    const net = new Network();
    net.open();
    expect(net.events).toEqual([{ kind: "open" }]);
    const up = pattern(300_000);
    const down = pattern(400_000, 4);
    net.upload(up);
    net.listener.sender.write(down);
    net.pass(10_000);
    same(concat(...net.listener.got), up);
    same(concat(...net.got), down);
    net.connection.close();
    net.pass(1000);
    expect(net.listener.ended).toBe(true);
    net.listener.sender.finish();
    net.pass(5000);
    expect(net.events.filter(({ kind }) => kind !== "readable" && kind !== "writable").slice(1)).toEqual([
      { kind: "finished" },
      { kind: "closed", why: "ended" },
    ]);
    expect(net.connection.retransmitted).toBe(0);
  });

  test("a peer that did not hear that its end was heard is told again", () => {
    const net = new Network();
    net.open();
    net.listener.sender.write(pattern(1000)); // so that it knows how long the way is
    net.connection.close();
    net.pass(100);
    let deaf = 0;
    net.lose = (out) => out && deaf++ === 0; // the last word of ours, and nothing after it
    net.listener.sender.finish();
    net.pass(900);
    expect(deaf).toBeGreaterThan(0);
    expect(net.listener.sender.finished).toBe(true);
    net.pass(5000);
    expect(net.events.at(-1)).toEqual({ kind: "closed", why: "ended" });
  });

  test("what the peer has sent before its end can be read after it", () => {
    const net = new Network();
    net.open();
    net.reads = false;
    net.listener.sender.write(pattern(5000));
    net.listener.sender.finish();
    net.pass(500);
    expect(net.events.map(({ kind }) => kind)).toContain("finished");
    let read = 0;
    while (net.connection.readable > 0) read += net.connection.read().length;
    expect(read).toBe(5000);
  });

  test("is refused where nobody listens", () => {
    const net = new Network();
    net.lose = () => true;
    net.connection.connect(0);
    net.pass(1);
    net.inject(fromPeer(net, { flags: RST | ACK, sequence: 0 }));
    expect(net.events).toEqual([{ kind: "closed", why: "refused" }]);
  });

  test("is given up when nobody answers", () => {
    const net = new Network();
    net.lose = () => true;
    net.open();
    net.pass(200_000);
    expect(net.events).toEqual([{ kind: "closed", why: "unreachable" }]);
    expect(net.packetsOut).toBe(7);
  });

  test("is given up when the peer is gone, after some minutes and not before", () => {
    const net = new Network();
    net.open();
    net.lose = () => true;
    net.connection.write(pattern(100));
    net.pass(180_000);
    expect(net.events.length).toBe(1);
    net.pass(180_000);
    expect(net.events.at(-1)).toEqual({ kind: "closed", why: "unreachable" });
  });

  test("goes on after a pause of a minute as soon as it is told that the way is there again", () => {
    const net = new Network();
    net.open();
    net.lose = () => true;
    net.connection.write(pattern(100));
    net.pass(60_000);
    net.lose = () => false;
    net.connection.nudge(net.now);
    net.pass(50);
    same(concat(...net.listener.got), pattern(100));
  });

  test("ended by us at once tells the peer", () => {
    const net = new Network();
    net.open();
    const before = net.packetsOut;
    net.connection.abort();
    const [packet] = net.connection.packets(net.now);
    expect(parseSegment(parsePacket(packet!)).flags & RST).toBe(RST);
    expect(net.packetsOut).toBe(before);
  });
});

describe("loss, delay and disorder", () => {
  test.each([1, 2, 3, 4, 5])("nothing is lost, doubled or mixed up (%i)", (seed) => {
    const net = new Network({ loss: 0.05, jitter: 6, seed });
    net.open();
    net.pass(20_000, () => net.events.length > 0);
    const up = pattern(200_000, seed);
    const down = pattern(200_000, seed + 100);
    net.upload(up);
    net.listener.sender.write(down);
    const done = () => {
      return (
        net.listener.got.reduce((sum, one) => sum + one.length, 0) === up.length &&
        net.got.reduce((sum, one) => sum + one.length, 0) === down.length
      );
    };
    net.pass(300_000, done);
    same(concat(...net.listener.got), up);
    same(concat(...net.got), down);
  });

  test("an upload keeps a good part of its speed where 2 % is lost", () => {
    const time = (loss: number) => {
      const net = new Network({ loss, delay: 2.5, rate: 5000 });
      net.open();
      const start = net.now;
      net.upload(pattern(4 * MB));
      const all = () => net.listener.receiver.next >= 4 * MB;
      net.pass(600_000, all);
      expect(all()).toBe(true);
      return net.now - start;
    };
    // A sender that waits for its timer at each loss takes more than ten times as long.
    expect(time(0.02) / time(0)).toBeLessThan(4);
  });

  test("a lost tail is found by a probe, without waiting for the timer", () => {
    const net = new Network({ delay: 20 });
    net.open();
    net.upload(pattern(5000));
    net.pass(1000);
    let dropped = 0;
    net.lose = (out, packet) => out && parseSegment(packet).data.length > 0 && dropped++ === 0;
    const start = net.now;
    net.upload(pattern(500));
    net.pass(5000, () => net.listener.receiver.next === 5500);
    expect(dropped).toBeGreaterThanOrEqual(2);
    expect(net.now - start).toBeLessThan(200 + 20);
  });

  test("packets that overtake each other are not taken for lost ones without end", () => {
    const net = new Network({ jitter: 3, delay: 10, rate: 2000 });
    net.open();
    net.upload(pattern(MB));
    net.pass(60_000, () => net.listener.receiver.next >= MB);
    same(concat(...net.listener.got), pattern(MB));
    expect(net.connection.retransmitted).toBeLessThan(170); // of 850
  });
});

describe("windows", () => {
  test("what nobody reads stops the sender, and reading lets it go on", () => {
    const net = new Network({}, { receiveBuffer: 50_000 });
    net.open();
    net.reads = false;
    net.listener.sender.write(pattern(200_000));
    net.pass(5000);
    expect(net.connection.readable).toBeLessThanOrEqual(65_535);
    expect(net.connection.readable).toBeGreaterThan(30_000);
    net.reads = true;
    net.pass(20_000, () => net.got.reduce((sum, one) => sum + one.length, 0) === 200_000);
    same(concat(...net.got), pattern(200_000));
  });

  test("a shut window is asked about for as long as it stays shut", () => {
    const listener = new Listener(10_000);
    const net = new Network({}, {}, listener);
    listener.reads = false;
    net.open();
    net.upload(pattern(200_000));
    net.pass(900_000);
    expect(net.events.some(({ kind }) => kind === "closed")).toBe(false);
    listener.reads = true;
    listener.take();
    net.pass(120_000, () => listener.receiver.next >= 200_000);
    same(concat(...listener.got), pattern(200_000));
  });

  test("no more waits to be sent than there is room for, and room is told of", () => {
    const net = new Network({ rate: 100 }, { sendBuffer: 20_000 });
    net.open();
    expect(net.connection.room).toBe(20_000);
    net.connection.write(pattern(20_000));
    expect(net.connection.room).toBe(0);
    expect(() => net.connection.write(pattern(1))).toThrow(RangeError);
    net.pass(2000);
    expect(net.events.map(({ kind }) => kind)).toContain("writable");
  });

  test.each([
    ["a long one", 10, 5000],
    ["a short one", 1, 10_000],
    ["a very short one", 0.2, 10_000],
  ])(
    "the receiver finds a window that the way bears, %s: little is lost, and the way is filled",
    (_, delay, rate) => {
      const net = new Network({ delay, rate, queue: 32 });
      net.open();
      const size = 16 * MB;
      net.listener.sender.write(pattern(MB));
      let written = MB;
      const start = net.now;
      const all = () => {
        if (net.listener.sender.room > 8 * MB && written < size) {
          net.listener.sender.write(pattern(MB));
          written += MB;
        }
        return net.got.reduce((sum, one) => sum + one.length, 0) >= size;
      };
      net.pass(60_000, all);
      const ideal = size / rate;
      expect(net.now - start).toBeLessThan(ideal * 1.6);
      expect(net.lost / (size / 1240)).toBeLessThan(0.01);
    },
  );

  test("the receiver's queue keeps pieces in order whatever comes when", () => {
    const dice = new Dice(9);
    for (let round = 0; round < 40; round++) {
      const whole = dice.bytes(3000);
      const receiver = new Receiver(10_000);
      let guard = 0;
      while (receiver.next < whole.length && guard++ < 5000) {
        const start = 50 * Math.floor((dice.roll() * whole.length) / 50);
        const size = 1 + Math.floor(dice.roll() * 200);
        receiver.accept(start, whole.subarray(start, start + size), guard);
        for (const [from, to] of receiver.blocks()) expect(from).toBeLessThan(to);
        expect(receiver.blocks().length).toBeLessThanOrEqual(4);
      }
      const parts: Uint8Array[] = [];
      while (receiver.readable > 0) parts.push(receiver.read(1000));
      same(concat(...parts), whole);
      expect(receiver.blocks()).toEqual([]);
    }
  });
});

describe("what somebody else may send", () => {
  test("single bytes with gaps between them are kept up to a point, and what was not comes again", () => {
    const receiver = new Receiver(MB);
    const whole = pattern(60_000);
    let kept = 0;
    for (let at = 1; at < whole.length; at += 2)
      if (receiver.accept(at, whole.subarray(at, at + 1), at)) kept++;
    expect(kept).toBeGreaterThan(1000);
    expect(kept).toBeLessThan(5000);
    for (let at = 0; at < whole.length; at += 1000) receiver.accept(at, whole.subarray(at, at + 1000), at);
    same(receiver.read(MB), whole);
    expect(receiver.hasGap).toBe(false);
  });

  test("a reset counts only with the very next number", () => {
    const net = new Network();
    net.open();
    for (const offset of [1, 1000, -1, 2 ** 31]) {
      net.inject(fromPeer(net, { flags: RST, sequence: (0xfffffff1 + offset) >>> 0 }));
    }
    expect(net.events.length).toBe(1);
    net.inject(fromPeer(net, { flags: RST }));
    expect(net.events.at(-1)).toEqual({ kind: "closed", why: "reset" });
  });

  test("a peer that has finished can still end it, and still be heard where nothing more fits", () => {
    const net = new Network({}, { receiveBuffer: 0 });
    net.open();
    net.pass(100);
    net.upload(pattern(100));
    net.pass(1);
    net.inject(fromPeer(net, { flags: ACK | FIN }));
    const behind = 0xfffffff2; // its end has a number of its own
    net.inject(fromPeer(net, { sequence: behind, acknowledgement: (0xffffff80 + 101) >>> 0 }));
    expect(net.connection.room).toBe(MB);
    net.inject(fromPeer(net, { sequence: 0xfffffff1, flags: RST }));
    expect(net.events.at(-1)).toEqual({ kind: "finished" });
    net.inject(fromPeer(net, { sequence: behind, flags: RST }));
    expect(net.events.at(-1)).toEqual({ kind: "closed", why: "reset" });
  });

  test("a second opening, numbers from elsewhere and what was never sent change nothing", () => {
    const net = new Network();
    net.open();
    net.inject(fromPeer(net, { flags: SYN }));
    net.inject(fromPeer(net, { acknowledgement: 12, data: pattern(10) }));
    net.inject(fromPeer(net, { sequence: 77, data: pattern(10) }));
    net.inject(fromPeer(net, { flags: 0, data: pattern(10) }));
    expect(net.got).toEqual([]);
    net.upload(pattern(1000));
    net.pass(500);
    same(concat(...net.listener.got), pattern(1000));
  });

  test("answers to nonsense are few", () => {
    const net = new Network();
    net.open();
    const before = net.packetsOut;
    for (let count = 0; count < 500; count++) net.inject(fromPeer(net, { flags: SYN }));
    expect(net.packetsOut - before).toBeLessThanOrEqual(10);
  });

  test("any bytes are parsed or refused, never worse", () => {
    const dice = new Dice(21);
    const good = buildSegment(
      LOCAL,
      REMOTE,
      fromPeer(new Network(), { mss: 1200, scale: 7, sackPermitted: true, data: pattern(30) }),
    );
    for (let round = 0; round < 5000; round++) {
      const data =
        dice.roll() < 0.5
          ? dice.bytes(Math.floor(dice.roll() * 100))
          : good.slice(0, Math.floor(dice.roll() * (good.length + 1)));
      for (let flips = 0; flips < 3 && data.length > 0; flips++)
        data[Math.floor(dice.roll() * data.length)]! ^= 1 << Math.floor(dice.roll() * 8);
      try {
        const packet = parsePacket(data);
        echoAnswer(packet);
        parseSegment(packet);
      } catch (problem) {
        expect(problem).toBeInstanceOf(ProtocolError);
      }
    }
  });
});

describe("IP", () => {
  test("addresses as people write them", () => {
    expect(parseAddress("100.64.0.1")).toEqual(new Uint8Array([100, 64, 0, 1]));
    const six = new Uint8Array(16);
    six.set([0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0]);
    six[15] = 3;
    expect(parseAddress("fd7a:115c:a1e0::3")).toEqual(six);
    expect(parseAddress("::")).toEqual(new Uint8Array(16));
    expect(parseAddress("1:2:3:4:5:6:7:8")[15]).toBe(8);
    for (const bad of [
      "",
      "1.2.3",
      "1.2.3.256",
      "01.2.3.4",
      "1::2::3",
      "12345::",
      "1:2:3:4:5:6:7:8:9",
      "::g",
      "1:2:3:4:5:6:7::8:9",
    ]) {
      expect(() => parseAddress(bad)).toThrow(ProtocolError);
    }
  });

  test("a ping is answered, four and six", () => {
    const four = buildPacket(REMOTE, LOCAL, 1, 12);
    four.set([8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8], 20);
    const answer = parsePacket(echoAnswer(parsePacket(four))!);
    expect([answer.source, answer.destination]).toEqual([LOCAL, REMOTE]);
    expect(answer.payload[0]).toBe(0);
    expect(checksum(answer.payload)).toBe(0);
    expect(answer.payload.subarray(4)).toEqual(new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]));
    const six = buildPacket(parseAddress("fd7a::2"), parseAddress("fd7a::3"), ICMP6, 8);
    six.set([128, 0], 40);
    expect(echoAnswer(parsePacket(six))![40]).toBe(129);
    expect(echoAnswer(parsePacket(buildPacket(REMOTE, LOCAL, 1, 12)))).toBeUndefined();
  });

  test("padding behind a packet is not part of it", () => {
    const packet = buildSegment(REMOTE, LOCAL, fromPeer(new Network(), { data: pattern(3) }));
    expect(parseSegment(parsePacket(concat(packet, new Uint8Array(13)))).data).toEqual(pattern(3));
  });
});
