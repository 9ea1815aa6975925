import { expect, test } from "vitest";
import { SleeplessClock } from "../../src/node/clock.ts";

function setUp() {
  const clocks = { at: 5000, day: 1_700_000_000_000 };
  const clock = new SleeplessClock({ steady: () => clocks.at, wall: () => clocks.day });
  const pass = (steady: number, wall = steady) => {
    clocks.at += steady;
    clocks.day += wall;
    return clock.now();
  };
  return { clock, pass };
}

test("it begins at 0, knows when that was, and goes with both", () => {
  const { clock, pass } = setUp();
  expect(clock.now()).toBe(0);
  expect(clock.epoch).toBe(1_700_000_000_000);
  expect(pass(1500)).toBe(1500);
});

test("a sleep in which one of them stood still has passed", () => {
  const { pass } = setUp();
  pass(1000);
  expect(pass(10, 7_200_000)).toBe(1000 + 7_200_000);
  expect(pass(500)).toBe(1000 + 7_200_000 + 500);
  expect(pass(0, 3_600_000)).toBe(1000 + 7_200_000 + 500 + 3_600_000);
});

test("a time of day that is set back changes nothing, and neither does one set right by a little", () => {
  const { pass } = setUp();
  pass(1000);
  expect(pass(100, -3_600_000)).toBe(1100);
  expect(pass(100, 1600)).toBe(1200);
  expect(pass(100, -1400)).toBe(1300);
  // From there on a sleep is seen, too.
  expect(pass(1, 60_000)).toBeGreaterThan(60_000);
});

test("it never goes back", () => {
  const { pass } = setUp();
  let last = 0;
  for (const [steady, wall] of [
    [5, 5],
    [0, 9000],
    [1, -9000],
    [0, 0],
    [3, 100_000],
    [2, -200_000],
  ] as const) {
    const now = pass(steady, wall);
    expect(now).toBeGreaterThanOrEqual(last);
    last = now;
  }
});
