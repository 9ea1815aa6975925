import { expect, it } from "vitest";
import { Fleet, told } from "../../src/console/fleet.ts";
import { ALL } from "../../src/console/machines.ts";
import { machine } from "../support/machines.ts";

const [a, b, c] = [1, 2, 3].map((id) => machine({ id, name: `web-${id}` }));
const names = (fleet: Fleet) => fleet.rows.value.map(({ name }) => name);

it("shows the first machines, and then all", () => {
  const fleet = new Fleet([a], ALL);
  expect([names(fleet), fleet.whole.value]).toEqual([["web-1"], false]);
  expect(fleet.replace([a, b], true)).toEqual([]); // known all along: nothing happened
  expect([names(fleet), fleet.whole.value]).toEqual([["web-1", "web-2"], true]);
});

it("takes changes in place, and lights what came or went", () => {
  const fleet = new Fleet([a, b], ALL);
  const gone = { ...b, online: false };
  expect(fleet.change([gone, { ...a, version: "2" }], [], false)).toEqual([
    { name: "web-2", what: "offline" },
  ]);
  expect(fleet.rows.value).toEqual([{ ...a, version: "2" }, gone]);
  expect([...fleet.lit.value]).toEqual([[2, "offline"]]);
  expect(fleet.change([b], [], false)).toEqual([{ name: "web-2", what: "online" }]);
  fleet.fade(2);
  expect(fleet.lit.value.size).toBe(0);
  expect(fleet.counts.value.chips.online).toBe(2);
});

it("moves no row under who reads: what is new waits, what no longer fits stays, what is gone goes", () => {
  const fleet = new Fleet([a, b], { ...ALL, chips: ["online"] });
  fleet.change([c, { ...a, online: false }], [2], true);
  expect(names(fleet)).toEqual(["web-1"]);
  expect(fleet.waiting.value).toBe(1);
  fleet.settle();
  expect([names(fleet), fleet.waiting.value]).toEqual([["web-3"], 0]);
});

it("settles by itself while nobody reads, and whenever something else is asked", () => {
  const fleet = new Fleet([a], ALL);
  fleet.change([b], [], false);
  expect(names(fleet)).toEqual(["web-1", "web-2"]);
  fleet.change([c], [], true);
  fleet.ask({ down: true });
  expect(names(fleet)).toEqual(["web-3", "web-2", "web-1"]);
});

it("knows after a lost connection what happened meanwhile", () => {
  const fleet = new Fleet([a, b], ALL);
  fleet.replace([a, b], false);
  expect(fleet.replace([{ ...a, online: false }, c], false)).toEqual([
    { name: "web-1", what: "offline" },
    { name: "web-3", what: "new" },
  ]);
  expect(names(fleet)).toEqual(["web-1", "web-3"]);
});

it("tells in one sentence, and many as a number", () => {
  expect(told([])).toBe("");
  expect(
    told([
      { name: "web-1", what: "online" },
      { name: "b", what: "offline" },
    ]),
  ).toBe("web-1 came online, b went offline.");
  expect(told(Array.from({ length: 4 }, () => ({ name: "x", what: "new" as const })))).toBe(
    "4 machines changed.",
  );
});
