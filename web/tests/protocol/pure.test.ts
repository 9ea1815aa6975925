import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const PROTOCOL = fileURLToPath(new URL("../../src/protocol", import.meta.url));
const files = readdirSync(PROTOCOL, { recursive: true, encoding: "utf8" }).filter((name) =>
  name.endsWith(".ts"),
);

test("the protocols import nothing but each other and noble, and look neither at a clock nor for chance", () => {
  expect(files.length).toBeGreaterThan(20);
  for (const name of files) {
    const source = readFileSync(`${PROTOCOL}/${name}`, "utf8");
    for (const [, from] of source.matchAll(/(?:from|import)\s*\(?"([^"]+)"/g)) {
      expect(from, name).toMatch(/^(\.{1,2}\/|@noble\/)/);
    }
    expect(source, name).not.toMatch(/\bMath\.random|\bDate\b|\bperformance\.|\bsetTimeout|\bcrypto\./);
  }
});

test("no file is too long to be read in one go", () => {
  for (const name of files) {
    expect(readFileSync(`${PROTOCOL}/${name}`, "utf8").split("\n").length, name).toBeLessThanOrEqual(600);
  }
});
