import { expect, test } from "vitest";
import { ascii, concat } from "../../src/protocol/bytes.ts";
import { parseAddress } from "../../src/protocol/ip.ts";
import { fields, MESSAGE } from "../../src/protocol/ssh/wire.ts";
import { ACK, buildSegment, RST, SYN } from "../../src/protocol/tcp/segment.ts";
import { Dice } from "../support/deterministic.ts";
import type { Host } from "../support/host.ts";
import { frame, World } from "../support/world.ts";

async function opened(world: World, id = 0): Promise<void> {
  world.open(id);
  await world.until(() => world.told("opened", id).length > 0, 120_000);
}

/** What a relay may do to the packets that it is given, and a session has to stand. */
const RELAYS: Record<string, (dice: Dice) => (packet: Uint8Array) => Uint8Array[]> = {
  "drops some": (dice) => (packet) => (dice.roll() < 0.1 ? [] : [packet]),
  "repeats them": () => (packet) => [packet, packet, packet],
  "repeats old ones": (dice) => {
    const kept: Uint8Array[] = [];
    return (packet) => {
      kept.push(packet.slice());
      return [packet, kept[Math.floor(dice.roll() * kept.length)]!];
    };
  },
  "changes their order": () => {
    let held: Uint8Array | undefined;
    return (packet) => {
      const before = held;
      held = before === undefined && packet.length > 100 ? packet.slice() : undefined;
      if (held !== undefined) return [];
      return before === undefined ? [packet] : [packet, before];
    };
  },
  "forges some": (dice) => (packet) => {
    const forged = packet.slice();
    forged[Math.floor(dice.roll() * forged.length)]! ^= 1 + Math.floor(dice.roll() * 255);
    return [forged, packet];
  },
  "cuts some off": (dice) => (packet) => [
    packet.subarray(0, Math.floor(dice.roll() * packet.length)),
    packet,
  ],
  "adds its own": (dice) => (packet) => [
    dice.bytes(Math.floor(dice.roll() * 200)),
    packet,
    new Uint8Array(0),
  ],
};

test.each(Object.keys(RELAYS))(
  "a relay that %s can delay a session, and neither change nor end it",
  async (name) => {
    const world = new World();
    const twist = { out: RELAYS[name]!(new Dice(21)), in: RELAYS[name]!(new Dice(22)) };
    world.relay("wss://door.test/derp").twist = (packet, out) => (out ? twist.out : twist.in)(packet);
    await opened(world);
    const text = "0123456789".repeat(2000);
    world.type(text);
    await world.until(() => world.printed().length >= text.length + 2, 30 * 60_000);
    expect(world.printed()).toBe(`$ ${text}`);
    expect(world.ended()).toBeUndefined();
  },
);

test("a relay that floods with what nobody asked for ends nothing", async () => {
  const world = new World();
  const relay = world.relay("wss://door.test/derp");
  await opened(world);
  const dice = new Dice(3);
  for (let packet = 0; packet < 3000; packet++) {
    relay.tell(frame(5, dice.bytes(32), dice.bytes(100))); // in the name of strangers
    relay.tell(frame(5, world.machine.key, dice.bytes(148))); // in the name of the machine
  }
  world.type("x");
  await world.until(() => world.printed() === "$ x");
  expect(relay.tried).toHaveLength(1);
});

test("a relay that asks and asks, and takes no answer, has few kept for it", async () => {
  const world = new World();
  const relay = world.relay("wss://door.test/derp");
  await opened(world);
  relay.takes = false;
  for (let round = 0; round < 10_000; round++) relay.tell(frame(0x12, new Uint8Array(1000)));
  await world.pass(5);
  expect(relay.waiting).toBeGreaterThan(1 << 20);
  expect(relay.waiting).toBeLessThan(5 << 20);
  relay.takeAgain();
  world.type("x");
  await world.until(() => world.printed() === "$ x");
});

test.each([
  ["frames that are too long", new Uint8Array([5, 255, 255, 255, 255])],
  ["another greeting", ascii("HTTP/1.1 200 OK\r\n\r\nhello")],
  ["a packet without a sender", frame(5, new Uint8Array(3))],
])("a relay that says %s is left, and tried again", async (_, words) => {
  const world = new World();
  const relay = world.relay("wss://door.test/derp");
  await opened(world);
  const tried = relay.tried.length;
  relay.tell(words);
  await world.until(() => relay.tried.length > tried, 5000);
  world.type("x");
  await world.until(() => world.printed() === "$ x");
});

test("a relay that speaks nonsense from the beginning is one that blocks", async () => {
  const world = new World();
  world.relay("wss://door.test/derp").greeting = new Uint8Array([5, 255, 255, 255, 255]);
  world.relay("wss://door.test/derp").dumb = true;
  world.open();
  await world.until(() => world.ended(), 120_000);
  expect(world.ended()!.failure!.kind).toBe("relay-blocked");
});

test("a machine that sends what is no packet, or none of this connection, changes nothing", async () => {
  const world = new World();
  await opened(world);
  const dice = new Dice(9);
  const [own, other] = [parseAddress("100.64.0.3"), parseAddress("100.64.0.9")];
  const machine = parseAddress("100.64.0.2");
  const ports = () => 49_152 + Math.floor(dice.roll() * 16_384);
  for (let round = 0; round < 500; round++) {
    const segment = {
      sourcePort: 22,
      destinationPort: ports(),
      sequence: Math.floor(dice.roll() * 2 ** 32),
      acknowledgement: Math.floor(dice.roll() * 2 ** 32),
      flags: Math.floor(dice.roll() * 64),
      window: Math.floor(dice.roll() * 65_536),
      data: dice.bytes(Math.floor(dice.roll() * 1000)),
    };
    world.machine.inject(dice.bytes(Math.floor(dice.roll() * 200)));
    world.machine.inject(buildSegment(machine, own, segment));
    world.machine.inject(buildSegment(other, own, segment)); // in the name of somebody else
    const damaged = buildSegment(machine, own, segment);
    damaged[20 + Math.floor(dice.roll() * (damaged.length - 20))]! ^= 1;
    world.machine.inject(damaged);
  }
  await world.pass(5000);
  world.type("x");
  await world.until(() => world.printed() === "$ x");
  expect(world.ended()).toBeUndefined();
});

test("a machine that guesses at the connection ends it only by the one number that is right", async () => {
  const world = new World();
  await opened(world);
  const [own, machine] = [parseAddress("100.64.0.3"), parseAddress("100.64.0.2")];
  const [port] = world.machine.ports;
  for (const flags of [RST, RST | ACK, SYN, SYN | ACK, ACK]) {
    for (const sequence of [0, 1, 2 ** 31, 2 ** 32 - 1]) {
      const segment = {
        sourcePort: 22,
        destinationPort: port!,
        sequence,
        acknowledgement: 5,
        flags,
        window: 0,
      };
      world.machine.inject(buildSegment(machine, own, { ...segment, data: new Uint8Array(0) }));
    }
  }
  await world.pass(5000);
  world.type("x");
  await world.until(() => world.printed() === "$ x");
});

/** What a host may say in place of what it should; each ends that terminal, and no other. */
const HOSTS: Record<string, (host: Host) => Promise<void>> = {
  "another protocol": (host) => host.server.raw(ascii("HTTP/1.1 400 Bad Request\r\n\r\n".repeat(30))),
  "lines without end": async (host) => {
    for (let line = 0; line < 1000; line++) await host.server.raw(ascii(`${"x".repeat(200)}\r\n`));
  },
  "a packet that is too long": (host) =>
    host.server.raw(concat(ascii("SSH-2.0-x\r\n"), new Uint8Array([127, 255, 255, 255, 0, 0, 0, 0]))),
  "a packet of nothing": (host) => host.server.raw(concat(ascii("SSH-2.0-x\r\n"), new Uint8Array(64))),
  "noise behind its name": (host) => host.server.raw(concat(ascii("SSH-2.0-x\r\n"), new Dice(4).bytes(4000))),
};

test.each(Object.keys(HOSTS))("a host that says %s ends its own terminal, and says why", async (name) => {
  const world = new World({ instead: HOSTS[name]! });
  world.open();
  await world.until(() => world.ended(), 120_000);
  expect(world.ended()!.failure!.kind).toBe("protocol");
  expect(world.told("node").at(-1)!.state.over).toBeNull();
});

/** The same in the middle of a session, each by somebody who types. */
const SESSIONS: Record<string, (host: Host) => Promise<void>> = {
  "a message that there is not": (host) => host.server.send(fields(200, "what")),
  "an empty message": (host) => host.server.send(new Uint8Array(0)),
  "data for a channel that there is not": (host) =>
    host.server.send(fields(MESSAGE.channelData, { u32: 77 }, "x")),
  "more than it may": async (host) => {
    for (let piece = 0; piece < 200; piece++)
      await host.server.send(fields(MESSAGE.channelData, { u32: 0 }, new Uint8Array(30_000)));
  },
  "a string that ends too early": (host) =>
    host.server.send(fields(MESSAGE.channelData, { u32: 0 }, { u32: 1000 })),
  "a packet that was changed": (host) => host.server.raw(new Uint8Array(64).fill(1)),
};

test.each(Object.keys(SESSIONS))("a host that sends %s ends its own session, and no other", async (name) => {
  const world = new World({
    typed: async (host, data) => {
      if (String.fromCharCode(...data) === "go") await SESSIONS[name]!(host);
      else await host.print(data);
    },
  });
  world.acks = name !== "more than it may";
  await opened(world, 0);
  await opened(world, 1);
  world.type("go", 0);
  await world.until(() => world.ended(0), 120_000);
  expect(world.ended(0)!.failure!.kind).toBe("protocol");
  world.type("fine", 1);
  await world.until(() => world.printed(1) === "$ fine");
  expect(world.ended(1)).toBeUndefined();
});

test("what a host says is shown without what would change how it is read", async () => {
  const nasty = "\u001b[31mred\u001b]0;title\u0007\r\n\u202etxt.exe\u0000 line";
  const world = new World({
    banners: [nasty, "#  see https://evil.test/x\u202e\r\n"],
    refuses: ["password\u001b[2J"],
  });
  world.open();
  await world.until(() => world.ended());
  const texts = [...world.told("banner").map(({ text }) => text), JSON.stringify(world.ended())];
  for (const text of texts) expect(text).not.toMatch(/(?!\n)[\p{Cc}\p{Cf}]/u);
  expect(world.told("check")).toEqual([]);
});

test.each([
  ["# Its code is 12\r\n# https://user@door.test/check/x\r\nhas to be approved"],
  ["has to be approved\njavascript:alert(1)"],
  ["has to be approved, see https://door.test/check/x for more"],
])("what is no link of a check is none: %s", async (banner) => {
  const world = new World({ banners: [banner] });
  await opened(world);
  expect(world.told("check")).toEqual([]);
});

test("banners without end are ended", async () => {
  const world = new World({ banners: Array.from({ length: 100 }, (_, at) => `line ${at}`) });
  world.open();
  await world.until(() => world.ended());
  expect(world.ended()!.failure!.kind).toBe("protocol");
  expect(world.told("banner").length).toBeLessThanOrEqual(50);
});

test("messages of a page that make no sense are of no effect", async () => {
  const world = new World();
  await opened(world);
  world.hub.hear({ kind: "write", id: 9, data: new Uint8Array(3) });
  world.hub.hear({ kind: "ack", id: 0, bytes: -5 });
  world.hub.hear({ kind: "ack", id: 0, bytes: 1e9 });
  world.hub.hear({ kind: "close", id: 9 });
  world.hub.hear({ kind: "hostKeyAnswer", question: 99, answer: "remember" });
  world.hub.hear({ kind: "filesAck", call: 99, bytes: 1 });
  world.hub.hear({ kind: "filesCancel", call: 99 });
  world.hub.hear({ kind: "again", id: 0 }); // it is not over
  world.hub.hear({ kind: "again", id: 9 });
  expect(world.ended(9)!.failure!.kind).toBe("lost");
  world.type("x");
  await world.until(() => world.printed() === "$ x");
});
