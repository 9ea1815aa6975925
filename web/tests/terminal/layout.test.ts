import { describe, expect, it } from "vitest";
import {
  current,
  EMPTY,
  focused,
  keep,
  kept,
  MOST_TABS,
  others,
  pathOf,
  stepped,
  tabAt,
  without,
  withSplit,
  withTab,
} from "../../src/terminal/layout.ts";

const one = withTab(EMPTY, "t1", "p1");
const two = withTab(one, "t2", "p2");
const split = withSplit(two, "p3");

it("a new tab stands after the active one and has the keys", () => {
  expect(current(EMPTY)).toBeUndefined();
  expect(current(two)).toBe("p2");
  expect(withTab(tabAt(two, 0), "t3", "p9").tabs.map((tab) => tab.id)).toEqual(["t1", "t3", "t2"]);
});

it("a split stands beside what has the keys, four at most", () => {
  expect(split.tabs[1]).toEqual({ id: "t2", panes: ["p2", "p3"], focus: "p3" });
  const full = withSplit(withSplit(split, "p4"), "p5");
  expect(withSplit(full, "p6")).toEqual(full);
  expect(withSplit(EMPTY, "p1")).toEqual(EMPTY);
});

it("the keys go round the panes of a tab", () => {
  expect(current(stepped(split, 1))).toBe("p2");
  expect(current(stepped(split, -1))).toBe("p2");
  expect(current(stepped(stepped(split, 1), 1))).toBe("p3");
});

it("a tab goes with its last terminal, and its neighbour has the keys", () => {
  expect(current(without(split, "p3"))).toBe("p2");
  expect(current(without(split, "p2"))).toBe("p3");
  expect(without(one, "p1")).toEqual({ tabs: [], active: "" });
  expect(without(two, "p2").active).toBe("t1");
  expect(without(two, "p1")).toEqual({ tabs: [two.tabs[1]], active: "t2" });
  expect(without(two, "nothing")).toBe(two);
});

it("tabs are chosen by their number; nine is the last", () => {
  expect(tabAt(two, 0).active).toBe("t1");
  expect(tabAt(two, 8).active).toBe("t2");
  expect(tabAt(two, 5)).toBe(two);
  expect(focused(two, "p1").active).toBe("t1");
  expect(focused(two, "p7")).toBe(two);
});

it("there are no more tabs than anybody could look at", () => {
  let layout = EMPTY;
  for (let at = 0; at < MOST_TABS + 5; at++) layout = withTab(layout, `t${at}`, `p${at}`);
  expect(layout.tabs).toHaveLength(MOST_TABS);
});

it("a terminal has an address of its own", () => {
  expect(pathOf("/", { machine: "web-1", account: null })).toBe("/terminal/web-1");
  expect(pathOf("/door/", { machine: "web-1", account: "a/b c?" })).toBe("/door/terminal/web-1/a%2Fb%20c%3F");
});

describe("over a reload", () => {
  const places: Record<string, { machine: string; account: string | null }> = {
    p1: { machine: "web-1", account: "deploy" },
    p2: { machine: "db-1", account: null },
    p3: { machine: "web-1", account: "deploy" },
  };

  it("what was open is known again", () => {
    expect(kept(keep(split, (pane) => places[pane]))).toEqual([[places.p1], [places.p2, places.p3]]);
    expect(kept(keep(split, () => undefined))).toEqual([]);
  });

  it("the one that is open already is not offered, its twin is", () => {
    const all = [[places.p1!], [places.p2!, places.p3!]];
    expect(others(all, places.p1!)).toEqual([[places.p2, places.p3]]);
    expect(others(all, { machine: "nas", account: null })).toEqual(all);
  });

  it.each([null, "", "{", "7", "{}", "[1]", "[[1]]", '[[["web-1"]]]', '[[["", null]]]', '[[["web-1", 5]]]'])(
    "%j is nothing",
    (text) => {
      expect(kept(text)).toEqual([]);
    },
  );
});
