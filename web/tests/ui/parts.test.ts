import { describe, expect, it } from "vitest";
import { terminalAddress, wayInto, waysInto } from "../../src/ui/accounts.ts";
import { leafAt } from "../../src/ui/drawings.tsx";
import { nameOf } from "../../src/ui/keys.ts";
import { pause } from "../../src/ui/live.ts";
import { shown } from "../../src/ui/outside.ts";
import { hue } from "../../src/ui/parts.tsx";
import { EventParser } from "../../src/ui/sse.ts";
import { ago, left } from "../../src/ui/times.ts";
import { methodName } from "../../src/ui/words.ts";
import { machine } from "../support/machines.ts";

describe("text from outside", () => {
  it("shows what nobody would see, and nothing else", () => {
    expect(shown("web-1")).toBe("web-1");
    expect(shown("dürer 你好 🙂")).toBe("dürer 你好 🙂");
    expect(shown("a\u202eb\u200bc\nd\u00a0e\u034f\ufeff")).toBe("aU+202EbU+200BcU+000AdU+00A0eU+034FU+FEFF");
    expect(shown("\u{e0041}")).toBe("U+E0041");
  });

  it("ends somewhere, between letters", () => {
    expect(shown("🙂🙂🙂", 2)).toBe("🙂🙂…");
    expect(shown("abc", 3)).toBe("abc");
  });
});

describe("server-sent events", () => {
  const STREAM =
    ': listening\n\nevent: machines\ndata: {"a":\ndata: 1}\n\n: still here\n\ndata:x\n\nevent: none\n\nid: 4\nevent: session\ndata\n\n';
  const EVENTS = [
    { event: "machines", data: '{"a":\n1}' },
    { event: "message", data: "x" },
    { event: "session", data: "" },
  ];

  it("are whole in whatever pieces they come, with any end of line", () => {
    for (const text of [STREAM, STREAM.replaceAll("\n", "\r\n"), STREAM.replaceAll("\n", "\r")]) {
      for (const size of [1, 2, 3, 7, 1000]) {
        const parser = new EventParser();
        const found = [];
        for (let at = 0; at < text.length; at += size) found.push(...parser.push(text.slice(at, at + size)));
        // A lone return at the very end waits for what may follow it.
        found.push(...parser.push(": end\n"));
        expect(found).toEqual(EVENTS);
      }
    }
  });

  it("end, or the stream is not ours", () => {
    const parser = new EventParser();
    expect(() => {
      for (let at = 0; at < 40; at += 1) parser.push("x".repeat(1024 * 1024));
    }).toThrow(RangeError);
  });
});

it("waits longer from try to try, never too long, and not as all others do", () => {
  expect([0, 1, 2, 9].map((tries) => pause(tries, 1))).toEqual([1_000, 2_000, 4_000, 30_000]);
  expect(pause(0, 0)).toBe(500);
});

describe("a way in", () => {
  const web = machine({ name: "web", ways: [["deploy"], ["root", true]] });
  const any = machine({ name: "any", ways: [["ann"]], any_account: true, any_check: true });

  it("is the one taken last, while the policy has it", () => {
    expect(wayInto(web, null)).toEqual({ account: "deploy", asks: false });
    expect(wayInto(web, "root")).toEqual({ account: "root", asks: true });
    expect(wayInto(web, "gone")).toEqual({ account: "deploy", asks: false });
    expect(wayInto(any, "mine")).toEqual({ account: "mine", asks: true });
    expect(wayInto(machine({}), "deploy")).toBeUndefined();
  });

  it("is at first the one that can do the least harm, and asks for nothing", () => {
    expect(
      wayInto(machine({ ways: [["root"], ["web", true], ["zed"]], any_account: true }), null)?.account,
    ).toBe("zed");
    expect(wayInto(machine({ ways: [["root"], ["web", true]] }), null)?.account).toBe("web");
    expect(wayInto(machine({ ways: [["root", true]], any_account: true }), null)?.account).toBe("root");
    expect(wayInto(machine({ any_account: true }), null)?.account).toBeNull();
  });

  it("into a machine with a server of its own is asked for by that", () => {
    expect(waysInto(machine({ ssh: "unknown", any_account: true }))).toEqual([{ account: null, asks: true }]);
  });

  it("is an address, whatever the names hold", () => {
    expect(terminalAddress("/", "web", null)).toBe("/terminal/web");
    expect(terminalAddress("/t/", "a/b", "x?y*")).toBe("/t/terminal/a%2Fb/x%3Fy*");
  });
});

it("names keys as the tables do", () => {
  const key = (name: string, more: object = {}) =>
    nameOf({ key: name, ctrlKey: false, metaKey: false, altKey: false, shiftKey: false, ...more });
  expect(key("j")).toBe("J");
  expect(key("S", { shiftKey: true })).toBe("Shift+S");
  expect(key("?", { shiftKey: true })).toBe("?");
  expect(key("k", { metaKey: true })).toBe("Ctrl+K");
  expect(key("ArrowDown")).toBe("ArrowDown");
  expect(key("Tab", { shiftKey: true })).toBe("Shift+Tab");
});

it("says how long ago in the least room", () => {
  const now = 1e12;
  expect([0, -5e3, 61e3, 3.7e6, 9e7].map((past) => ago(now - past, now))).toEqual([
    "now",
    "now",
    "1 min",
    "1 h",
    "1 d",
  ]);
  expect([0, 450e3, 1e6, -1e3].map((past) => left(now - past, now))).toEqual([1, 0.5, 0, 1]);
});

it("has a person's colour from their number, as the server's own pages have it", () => {
  expect([1, 2, 3, 4, 5, 6, 7, 100, 4711].map(hue)).toEqual([3, 0, 4, 1, 4, 2, 0, 1, 1]);
  expect(new Set(Array.from({ length: 60 }, (_, id) => hue(id))).size).toBe(5);
});

it("says by what somebody signed in", () => {
  expect(["passkey:4", "provider:corp", "recovery", "link", ""].map(methodName)).toEqual([
    "passkey",
    "corp",
    "recovery code",
    "one-time link",
    "signed in",
  ]);
});

it("draws the same door as the server's pages do", () => {
  expect(leafAt(0.4).leaf).toBe("M46 22L121.48 29.35L121.48 195.37L46 182z");
  expect(leafAt(0).leaf).toBe("M46 22L134 22L134 182L46 182z");
});
