import { expect, test } from "vitest";
import { STEPS } from "../../src/node/warm.ts";

test("what is done for nothing is all of it, with keys of its own", () => {
  const asked: number[] = [];
  for (const step of STEPS) {
    step((size) => {
      asked.push(size);
      return crypto.getRandomValues(new Uint8Array(size));
    });
  }
  expect(asked).toContain(64); // of the lattice's keys
  expect(asked).toContain(32); // of the curve's
});
