import { describe, expect, it } from "vitest";
import {
  ALL,
  type Asked,
  arrange,
  count,
  matches,
  readAsked,
  systemName,
  writeAsked,
} from "../../src/console/machines.ts";
import { machine } from "../support/machines.ts";

const FLEET = [
  machine({ id: 1, name: "web-10", tags: ["tag:prod"], ways: [["deploy"], ["root", true]] }),
  machine({
    id: 2,
    name: "web-2",
    tags: ["tag:prod", "tag:db"],
    online: false,
    last_seen: "2026-11-01T10:00:00Z",
  }),
  machine({ id: 3, name: "laptop", user: "alice", user_id: 7, yours: true, os: "macOS", any_account: true }),
  machine({ id: 4, name: "Nas", user: "dave", user_id: 9, online: false, last_seen: "2026-11-02T10:00:00Z" }),
  machine({ id: 5, name: "old", user: "dave", user_id: 9, online: false, addresses: [] }),
];

const names = (asked: Partial<Asked>) => arrange(FLEET, { ...ALL, ...asked }).map(({ name }) => name);

describe("what is asked of the list", () => {
  it("is the query of the page, both ways", () => {
    const asked: Asked = {
      text: "web prod",
      chips: ["online", "way"],
      tags: ["tag:a", "tag:b"],
      sort: "seen",
      down: true,
    };
    expect(readAsked(writeAsked(asked))).toEqual(asked);
    expect(writeAsked(asked)).toBe("?q=web+prod&show=online&show=way&tag=tag%3Aa&tag=tag%3Ab&sort=-seen");
    expect(writeAsked(ALL)).toBe("");
    expect(readAsked("")).toEqual(ALL);
  });

  it("leaves out what means nothing", () => {
    expect(readAsked("?show=gone&show=mine&sort=-nothing&tag=x&tag=x")).toEqual({
      ...ALL,
      chips: ["mine"],
      tags: ["x"],
    });
    expect(writeAsked({ ...ALL, down: true })).toBe("?sort=-name");
    expect(readAsked("?sort=-name")).toEqual({ ...ALL, down: true });
  });
});

describe("what is found", () => {
  it("has every word in some field", () => {
    expect(names({ text: "web TAG:DB" })).toEqual(["web-2"]);
    expect(names({ text: "root" })).toEqual(["web-10"]);
    expect(names({ text: "100.64.0.3" })).toEqual(["laptop"]);
    expect(names({ text: "  dave " })).toEqual(["Nas", "old"]);
    expect(names({ text: "web alice" })).toEqual([]);
  });

  it("has every chip, and one of the tags", () => {
    expect(names({ chips: ["online", "way"] })).toEqual(["laptop", "web-10"]);
    expect(names({ chips: ["mine"] })).toEqual(["laptop"]);
    expect(names({ chips: ["none"] })).toEqual(["Nas", "old", "web-2"]);
    expect(names({ chips: ["way", "none"] })).toEqual([]);
    expect(names({ tags: ["tag:db", "tag:gone"] })).toEqual(["web-2"]);
    expect(matches(FLEET[0], { ...ALL, tags: ["tag:prod"], chips: ["online"] })).toBe(true);
  });

  it("finds across fields no word that none of them has", () => {
    expect(names({ text: "web-10dave" })).toEqual([]);
    expect(names({ text: "\n" })).toHaveLength(5);
  });
});

describe("the order", () => {
  it("is by name, with numbers by their size, and either way round", () => {
    expect(names({})).toEqual(["laptop", "Nas", "old", "web-2", "web-10"]);
    expect(names({ down: true })).toEqual(["web-10", "web-2", "old", "Nas", "laptop"]);
  });

  it("has who is there first, then who was there last, and who never was at the end", () => {
    expect(names({ sort: "seen" })).toEqual(["laptop", "web-10", "Nas", "web-2", "old"]);
    expect(names({ sort: "seen", down: true })).toEqual(["old", "web-2", "Nas", "laptop", "web-10"]);
  });

  it("has addresses as numbers, and machines without one last", () => {
    expect(names({ sort: "address" })).toEqual(["web-10", "web-2", "laptop", "Nas", "old"]);
  });

  it("goes by owner or tags, by system, by ways", () => {
    expect(names({ sort: "belongs" })).toEqual(["laptop", "Nas", "old", "web-10", "web-2"]);
    expect(names({ sort: "system" }).at(-1)).toBe("laptop");
    expect(names({ sort: "way" })).toEqual(["web-10", "laptop", "Nas", "old", "web-2"]);
  });
});

it("counts each kind", () => {
  expect(count(FLEET)).toEqual({
    all: 5,
    chips: { online: 2, mine: 1, way: 2, none: 3 },
    tags: [
      ["tag:prod", 2],
      ["tag:db", 1],
    ],
    open: 2,
  });
  expect(count([])).toEqual({ all: 0, chips: { online: 0, mine: 0, way: 0, none: 0 }, tags: [], open: 0 });
});

it("names systems as people do, and those it does not know as they name themselves", () => {
  expect(["linux", "macOS", "windows", "plan9"].map(systemName)).toEqual([
    "Linux",
    "macOS",
    "Windows",
    "plan9",
  ]);
});

it("finds its way among ten thousand", () => {
  const many = Array.from({ length: 10_000 }, (_, at) => machine({ id: at + 1, name: `node-${at}` }));
  expect(arrange(many, { ...ALL, text: "node-99" })).toHaveLength(111);
});
