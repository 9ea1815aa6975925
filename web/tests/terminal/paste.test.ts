import { describe, expect, it } from "vitest";
import { BEGIN, END, linesOf, paster, pieces, typed } from "../../src/terminal/paste.ts";

const joined = (parts: Iterable<Uint8Array>) => Buffer.concat([...parts]).toString("utf8");

it("what is pasted is what a keyboard could have sent", () => {
  expect(typed("a\r\nb\nc\rd\te")).toBe("a\rb\rc\rd\te");
  expect(typed("ls\u001b[201~\nrm -rf /\u0003\u0000\u009b\u007f")).toBe("ls[201~\rrm -rf /");
});

it("counts the lines that would run", () => {
  expect(linesOf("one")).toBe(0);
  expect(linesOf("one\ntwo\r\nthree\n")).toBe(3);
});

it("the bracket around a paste cannot be closed from inside", () => {
  const sent = joined(pieces(`x${END}y${BEGIN}`, true));
  expect(sent).toBe(`${BEGIN}x[201~y[200~${END}`);
});

it("a megabyte goes in pieces, none of which is large, and arrives whole", () => {
  const text = "päste 🚪 ".repeat(100_000);
  const parts = [...pieces(text, false)];
  expect(Math.max(...parts.map((part) => part.length))).toBeLessThanOrEqual(16 * 1024);
  expect(joined(parts)).toBe(text);
});

describe("pastes one after the other", () => {
  function counted() {
    const sent: Uint8Array[] = [];
    let turns = 0;
    const one = paster(
      (bytes) => sent.push(bytes),
      async () => {
        turns += 1;
      },
    );
    return { one, sent, turns: () => turns };
  }

  it("do not mix, and give the page its turn between", async () => {
    const { one, sent, turns } = counted();
    await Promise.all([one.paste("a".repeat(40_000), false), one.paste("b", false)]);
    expect(joined(sent)).toBe(`${"a".repeat(40_000)}b`);
    expect(turns()).toBe(4);
    expect(one.busy).toBe(false);
  });

  it("can be stopped, and leave no bracket open", async () => {
    const sent: Uint8Array[] = [];
    const one = paster(
      (bytes) => sent.push(bytes),
      async () => one.stop(),
    );
    const done = one.paste("x".repeat(100_000), true);
    expect(one.busy).toBe(true);
    await done;
    const all = joined(sent);
    expect(all.length).toBeLessThan(40_000);
    expect(all.startsWith(BEGIN)).toBe(true);
    expect(all.endsWith(END)).toBe(true);
    await one.paste("later", false);
    expect(joined(sent).endsWith("later")).toBe(true);
  });
});
