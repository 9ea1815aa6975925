import { describe, expect, it } from "vitest";
import type { Machine } from "../../src/api/types.ts";
import { offers } from "../../src/terminal/finding.ts";
import { after, named } from "../../src/terminal/machines.ts";

function machine(id: number, name: string, more: Partial<Machine> = {}): Machine {
  const rest = {
    user: "alice",
    tags: [],
    addresses: [],
    os: "linux",
    version: "1",
    online: true,
    last_seen: null,
  };
  const access = { expired: false, yours: true, system: false, ssh: "tailscale" as const, why: "" };
  const way = { account: "deploy", check: false, rule: null };
  return {
    id,
    name,
    ...rest,
    ...access,
    ways: [way],
    any_account: false,
    any_check: false,
    ...more,
  } as Machine;
}

const MACHINES = [
  machine(1, "web-1", {
    ways: [
      { account: "deploy", check: false, rule: null },
      { account: "root", check: true, rule: null },
    ],
  }),
  machine(2, "db-1", { tags: ["tag:prod"], ways: [{ account: "postgres", check: true, rule: null }] }),
  machine(3, "nas", { ways: [], any_account: true, user: "dave" }),
  machine(7, "printer", { ways: [], any_account: true, ssh: "unknown" }),
  machine(4, "runner", { ways: [] }),
  machine(5, "pi", { online: false }),
  machine(6, "door", { system: true }),
];
const said = (typed: string) =>
  offers(MACHINES, typed).map((one) => `${one.machine}/${one.account ?? "?"} ${one.door}`);

describe("the palette", () => {
  it("offers every way in, what goes straight in first, and what cannot be entered last", () => {
    expect(said("")).toEqual([
      "web-1/deploy open",
      "nas/? open",
      "web-1/root ajar",
      "db-1/postgres ajar",
      "printer/? ajar",
      "runner/? shut",
      "pi/? shut",
    ]);
    expect(offers(MACHINES, "").map((one) => one.note)).toEqual([
      "",
      "any account",
      "asks for a check",
      "asks for a check",
      "any account",
      "no way in",
      "offline",
    ]);
  });

  it("finds by machine, account, tag and owner, each word of them", () => {
    expect(said("web root")).toEqual(["web-1/root ajar"]);
    expect(said("WEB-1 as dep")).toEqual(["web-1/deploy open"]);
    expect(said("prod")).toEqual(["db-1/postgres ajar"]);
    expect(said("dave")).toEqual(["nas/? open"]);
    expect(said("r")[0]).toBe("web-1/root ajar");
    expect(said("nothing")).toEqual([]);
  });

  it("does not offer doorward's own node", () => {
    expect(said("door")).toEqual([]);
  });
});

describe("the machines", () => {
  it("are changed in place, by name", () => {
    const changed = after(MACHINES, { changed: [machine(2, "a-db"), machine(9, "new")], removed: [1, 4] });
    expect(changed.map((one) => one.name)).toEqual(["a-db", "door", "nas", "new", "pi", "printer"]);
  });

  it("are found by the name in an address, in any letters", () => {
    expect(named(MACHINES, "WEB-1")?.id).toBe(1);
    expect(named(MACHINES, "web")).toBeUndefined();
  });
});
