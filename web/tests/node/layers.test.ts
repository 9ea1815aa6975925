import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const NODE = fileURLToPath(new URL("../../src/node", import.meta.url));
const files = readdirSync(NODE).filter((name) => name.endsWith(".ts"));
/** The page's side: it is in everybody's bundle, and has no need of what makes a node. */
const PAGE = ["client.ts", "files-client.ts", "messages.ts", "types.ts"];

function imports(name: string): string[] {
  const source = readFileSync(`${NODE}/${name}`, "utf8");
  return [...source.matchAll(/^(?:import|export) (?!type )[^;]*?from "([^"]+)";/gms)].map(
    ([, from]) => from!,
  );
}

test("the node imports itself, the protocols and noble; its page's side only itself", () => {
  expect(files.length).toBeGreaterThan(15);
  for (const name of files) {
    for (const from of imports(name)) {
      if (PAGE.includes(name)) expect(PAGE, name).toContain(from.replace("./", ""));
      else expect(from, name).toMatch(/^(\.\/|\.\.\/protocol\/|@noble\/)/);
    }
  }
});

test("only the Worker's entry knows that there is a browser", () => {
  for (const name of files) {
    if (["worker.ts", "environment.ts", ...PAGE].includes(name)) continue;
    const source = readFileSync(`${NODE}/${name}`, "utf8");
    expect(source, name).not.toMatch(
      /\bMath\.random|\bDate\.|\bperformance\.|\bsetTimeout|\bcrypto\.|(?<!\.)\bfetch\(|\bnew WebSocket/,
    );
  }
});

test("no message of a page or of the Worker has a place for the node's key", () => {
  const source = readFileSync(`${NODE}/messages.ts`, "utf8") + readFileSync(`${NODE}/types.ts`, "utf8");
  expect(source).not.toMatch(/privateKey|private_key|nodeKey/);
});

test("no file is too long to be read in one go", () => {
  for (const name of files)
    expect(readFileSync(`${NODE}/${name}`, "utf8").split("\n").length, name).toBeLessThanOrEqual(600);
});
