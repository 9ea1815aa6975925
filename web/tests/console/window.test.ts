import { expect, it } from "vitest";
import { reveal, shownRows } from "../../src/console/window.ts";

it("draws what is seen and a few rows around it, of however many", () => {
  expect(shownRows(10_000, 37, 0, 740)).toEqual({ from: 0, to: 32 });
  expect(shownRows(10_000, 37, 37 * 5_000, 740)).toEqual({ from: 4_988, to: 5_032 });
  expect(shownRows(10_000, 37, 37 * 9_980, 740)).toEqual({ from: 9_968, to: 10_000 });
});

it("draws all of a short list, and nothing of none", () => {
  expect(shownRows(3, 37, 0, 740)).toEqual({ from: 0, to: 3 });
  expect(shownRows(0, 37, 0, 740)).toEqual({ from: 0, to: 0 });
});

it("stands what browsers say while they bounce, or after the list became shorter", () => {
  expect(shownRows(100, 37, -50, 740)).toEqual({ from: 0, to: 32 });
  expect(shownRows(3, 37, 37 * 50, 740)).toEqual({ from: 3, to: 3 });
});

it("scrolls no further than needed, and not at all where the row is seen whole", () => {
  expect(reveal(5, 37, 0, 740)).toBeUndefined();
  expect(reveal(20, 37, 0, 740)).toBe(37);
  expect(reveal(2, 37, 100, 740)).toBe(74);
});
