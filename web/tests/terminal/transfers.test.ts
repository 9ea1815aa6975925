import { describe, expect, it } from "vitest";
import {
  above,
  below,
  isOver,
  moved,
  nameForHere,
  nameForHost,
  share,
  size,
  type Transfer,
} from "../../src/terminal/transfers.ts";

const one: Transfer = { id: 1, name: "a", way: "up", bytes: 0, total: 100, state: "waits", problem: "" };

describe("a transfer", () => {
  it("moves, and is done with all of its bytes", () => {
    const moving = moved(moved([one], 1, { is: "began" }), 1, { is: "progress", bytes: 40, total: 100 });
    expect(moving[0]).toMatchObject({ state: "moving", bytes: 40 });
    expect(share(moving[0]!)).toBe(0.4);
    expect(moved(moving, 1, { is: "done" })[0]).toMatchObject({ state: "done", bytes: 100 });
  });

  it("never goes back, and nothing happens to it once it is over", () => {
    const later = moved([{ ...one, bytes: 50 }], 1, { is: "progress", bytes: 20, total: null });
    expect(later[0]).toMatchObject({ bytes: 50, total: 100 });
    const stopped = moved([one], 1, { is: "stopped" });
    expect(isOver(stopped[0]!)).toBe(true);
    expect(moved(stopped, 1, { is: "failed", problem: "late" })).toEqual(stopped);
    expect(moved([one], 2, { is: "done" })).toEqual([one]);
  });

  it("of unknown size has no share, an empty one is whole", () => {
    expect(share({ ...one, total: null })).toBeUndefined();
    expect(share({ ...one, total: 0 })).toBe(1);
  });
});

it("paths go down and up, and the root is its own top", () => {
  expect(below("/home/a", "b")).toBe("/home/a/b");
  expect(below("/", "b")).toBe("/b");
  expect(["/home/a", "/home/a/", "/home", "/", ""].map(above)).toEqual(["/home", "/home", "/", "/", "/"]);
});

it("a dropped file's name is one part of a path, or none", () => {
  expect(["a.txt", "../../etc/passwd", ".profile"].map(nameForHost)).toEqual(["a.txt", "passwd", ".profile"]);
  for (const bad of ["", ".", "..", "a/", "a\u0000b", "x".repeat(256)])
    expect(nameForHost(bad)).toBeUndefined();
});

it("a host's name leads nowhere here, and hides nothing", () => {
  expect(nameForHere("../../x\u202egnp.exe")).toBe("__.._x_gnp.exe");
  expect(nameForHere("../../x")).not.toMatch(/[/\\]|^\./u);
  expect(nameForHere("con:a|b?")).toBe("con_a_b_");
  expect(nameForHere(".bashrc")).toBe("_bashrc");
  expect(nameForHere("")).toBe("file");
  expect(Array.from(nameForHere("🜲".repeat(300)))).toHaveLength(120);
});

it("sizes are short", () => {
  expect([0, 999, 1_000, 1_234, 12_345, 999_600, 3.4e8, 5e12, 5e16].map(size)).toEqual([
    "0 B",
    "999 B",
    "1.0 kB",
    "1.2 kB",
    "12 kB",
    "1.0 MB",
    "340 MB",
    "5.0 TB",
    "50000 TB",
  ]);
});
