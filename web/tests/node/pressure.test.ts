import { expect, test } from "vitest";
import { ON_ITS_WAY, Printer } from "../../src/node/printer.ts";
import { WINDOW } from "../../src/protocol/ssh/channel.ts";
import { World } from "../support/world.ts";

async function opened(world: World): Promise<void> {
  world.open();
  await world.until(() => world.told("opened").length > 0);
}

test("a page that does not keep up makes the program wait, and gets everything in the end", async () => {
  let printed = 0;
  const world = new World({
    shell: async (host) => {
      const piece = new Uint8Array(100_000).fill(120);
      for (; printed < 60; printed++) await host.print(piece);
    },
  });
  world.acks = false;
  await opened(world);
  await world.pass(60_000);
  const got = () => world.told("data").reduce((sum, { data }) => sum + data.length, 0);
  expect(got()).toBeLessThanOrEqual(ON_ITS_WAY + (1 << 20));
  expect(got() + WINDOW).toBeGreaterThan(printed * 100_000 - 100_000); // no more left the host than may be on the way
  expect(printed).toBeLessThan(50);
  world.acks = true;
  world.hub.hear({ kind: "ack", id: 0, bytes: got() });
  await world.until(() => got() === 6_000_000, 20 * 60_000);
});

test("a paste of a megabyte goes as fast as the host takes it, and is told as it goes", async () => {
  const world = new World({ typed: () => undefined, window: 300_000 });
  await opened(world);
  const paste = new Uint8Array(1 << 20).fill(97);
  for (let at = 0; at < paste.length; at += 1 << 18)
    world.hub.hear({ kind: "write", id: 0, data: paste.slice(at, at + (1 << 18)) });
  await world.pass(30_000);
  const wrote = () => world.told("wrote").reduce((sum, { bytes }) => sum + bytes, 0);
  expect(wrote()).toBe(1 << 18); // the second piece waits for room
  await world.machine.hosts[0]!.widen(1 << 20);
  await world.until(() => wrote() === 1 << 20);
  await world.until(() => world.machine.hosts[0]!.typed.reduce((sum, size) => sum + size, 0) === 1 << 20);
});

test("a storm of sizes reaches the host as few, the last of them for certain", async () => {
  const world = new World();
  await opened(world);
  for (let columns = 20; columns < 220; columns++) {
    world.hub.hear({ kind: "resize", id: 0, columns, rows: 50 });
    if (columns % 20 === 0) await world.pass(1);
  }
  const [host] = world.machine.hosts;
  await world.until(() => host!.sizes.at(-1)?.[0] === 219);
  expect(host!.sizes.length).toBeLessThan(60);
});

test("a size that comes before the shell is the size that it begins with", async () => {
  const world = new World();
  world.open();
  await world.pass(2);
  world.hub.hear({ kind: "resize", id: 0, columns: 132, rows: 43 });
  await world.until(() => world.told("opened").length > 0);
  expect(world.machine.hosts[0]!.begun).toEqual([132, 43]);
});

test("output is gathered, but the first after a pause goes at once", async () => {
  const world = new World();
  const sent: number[] = [];
  const printer = new Printer({ ...environmentOf(world) }, (data) => sent.push(data.length));
  await printer.print(new Uint8Array(1));
  expect(sent).toEqual([1]);
  for (let piece = 0; piece < 10; piece++) await printer.print(new Uint8Array(5));
  expect(sent).toEqual([1]);
  await world.pass(10);
  expect(sent).toEqual([1, 50]);
  await printer.print(new Uint8Array(600_000));
  expect(sent).toEqual([1, 50, 600_000]);
  await printer.finish();
});

test("of a flood the page has a few large pieces, and after it what comes goes at once", async () => {
  const world = new World();
  const sent: number[] = [];
  const printer = new Printer({ ...environmentOf(world) }, (data) => {
    sent.push(data.length);
    printer.ack(data.length);
  });
  for (let millisecond = 0; millisecond < 400; millisecond++) {
    await printer.print(new Uint8Array(10_000));
    await world.pass(1);
  }
  await world.pass(50);
  expect(sent.reduce((sum, size) => sum + size)).toBe(4_000_000);
  expect(sent.length).toBeLessThan(20);
  expect(sent.at(-2)).toBeGreaterThanOrEqual(300_000);
  await world.pass(500);
  const before = sent.length;
  for (let frame = 0; frame < 30; frame++) {
    await printer.print(new Uint8Array(8_000)); // what a program paints is no flood
    expect(sent.length).toBe(before + frame + 1);
    await world.pass(16);
  }
});

test("who closes a terminal in the middle of anything is told that it has ended, and nothing else", async () => {
  for (let at = 0; at < 40; at++) {
    const world = new World({ banners: ["hello"] });
    world.open();
    await world.pass(at / 2);
    world.hub.hear({ kind: "close", id: 0 });
    const heard = world.heard.length;
    expect(world.ended()).toEqual({ status: null, signal: null, failure: null });
    await world.pass(60_000);
    expect(world.heard.slice(heard).filter((message) => message.kind !== "node")).toEqual([]);
    for (const host of world.machine.hosts) expect(host.over, `closed after ${at / 2} ms`).toBe(true);
  }
});

function environmentOf(world: World) {
  return {
    now: () => world.now,
    epoch: 0,
    entropy: () => new Uint8Array(0),
    after: (milliseconds: number, call: () => void) => world.after(milliseconds, call),
    socket: () => {
      throw new Error("none");
    },
    fetch: () => Promise.reject(new Error("none")),
    primitives: {} as never,
  };
}
