/** The machines as a list: what is asked of it, which of them that are, and in which order. Pure. */

import type { Machine } from "../api/types.ts";
import { waysInto } from "../ui/accounts.ts";

export type Column = "name" | "belongs" | "address" | "system" | "seen" | "way";
export const COLUMNS: readonly Column[] = ["name", "belongs", "address", "system", "seen", "way"];

export type Chip = "online" | "mine" | "way" | "none";
export const CHIPS: readonly Chip[] = ["online", "mine", "way", "none"];

/** What a person asks to see. It is the query of the page's address, so that it can be kept and sent. */
export interface Asked {
  readonly text: string;
  readonly chips: readonly Chip[];
  readonly tags: readonly string[];
  readonly sort: Column;
  readonly down: boolean;
}

export const ALL: Asked = { text: "", chips: [], tags: [], sort: "name", down: false };

/** From a query; what means nothing there is left out. */
export function readAsked(query: string): Asked {
  const given = new URLSearchParams(query);
  const order = given.get("sort") ?? "name";
  const column = COLUMNS.find((one) => one === order.replace(/^-/, ""));
  return {
    text: given.get("q") ?? "",
    chips: CHIPS.filter((chip) => given.getAll("show").includes(chip)),
    tags: [...new Set(given.getAll("tag"))],
    sort: column ?? "name",
    down: column !== undefined && order.startsWith("-"),
  };
}

/** The query for it; empty for everything in the usual order. */
export function writeAsked(asked: Asked): string {
  const query = new URLSearchParams();
  if (asked.text !== "") query.set("q", asked.text);
  for (const chip of asked.chips) query.append("show", chip);
  for (const tag of asked.tags) query.append("tag", tag);
  if (asked.sort !== "name" || asked.down) query.set("sort", `${asked.down ? "-" : ""}${asked.sort}`);
  const text = query.toString();
  return text === "" ? "" : `?${text}`;
}

/** Whether the person gets in from here. */
export function hasWay(machine: Machine): boolean {
  return machine.ways.length > 0 || machine.any_account;
}

const IS: Readonly<Record<Chip, (machine: Machine) => boolean>> = {
  online: (machine) => machine.online,
  mine: (machine) => machine.yours,
  way: hasWay,
  none: (machine) => !hasWay(machine),
};

/** What a search looks at, in lower case. */
function words(machine: Machine): string {
  const ways = machine.ways.map((way) => way.account);
  return [
    machine.name,
    machine.user,
    ...machine.tags,
    ...machine.addresses,
    machine.os,
    machine.version,
    ...ways,
  ]
    .join("\n")
    .toLowerCase();
}

/** Whether a machine is asked for: all words are found, all chips hold, and one of the tags. */
export function matches(machine: Machine, asked: Asked): boolean {
  if (!asked.chips.every((chip) => IS[chip](machine))) return false;
  if (asked.tags.length > 0 && !asked.tags.some((tag) => machine.tags.includes(tag))) return false;
  const sought = asked.text.toLowerCase().split(/\s+/).filter(Boolean);
  if (sought.length === 0) return true;
  const text = words(machine);
  return sought.every((word) => text.includes(word));
}

// Numbers in names by their size: web-2 before web-10.
const BY_NAME = new Intl.Collator("en", { numeric: true });

/** An IPv4 address as a number; after all of them what is none. */
function addressNumber(machine: Machine): number {
  const parts = (machine.addresses[0] ?? "").split(".");
  return parts.length === 4 ? parts.reduce((sum, part) => sum * 256 + Number(part), 0) : 2 ** 32;
}

function seen(machine: Machine): number {
  if (machine.online) return Number.POSITIVE_INFINITY;
  return machine.last_seen === null ? Number.NEGATIVE_INFINITY : Date.parse(machine.last_seen);
}

function compare(left: Machine, right: Machine, by: Column): number {
  switch (by) {
    case "belongs": {
      const [one, other] = [left, right].map((each) => each.tags.join(" ") || each.user);
      return BY_NAME.compare(one, other);
    }
    case "address":
      return addressNumber(left) - addressNumber(right);
    case "system":
      return BY_NAME.compare(`${left.os} ${left.version}`, `${right.os} ${right.version}`);
    case "seen": {
      const [one, other] = [seen(left), seen(right)];
      return one === other ? 0 : other > one ? 1 : -1; // the latest first
    }
    case "way":
      return waysInto(right).length - waysInto(left).length;
    default:
      return 0;
  }
}

/** The machines asked for, in the order asked for; equals by name. */
export function arrange(machines: Iterable<Machine>, asked: Asked): Machine[] {
  const found = [...machines].filter((machine) => matches(machine, asked));
  const sign = asked.down ? -1 : 1;
  return found.sort((left, right) => {
    const order = asked.sort === "name" ? 0 : compare(left, right, asked.sort);
    const byName = BY_NAME.compare(left.name, right.name) || left.id - right.id;
    return sign * order || (asked.sort === "name" ? sign : 1) * byName;
  });
}

export interface Counts {
  readonly all: number;
  readonly chips: Readonly<Record<Chip, number>>;
  /** Tags, the most used first. */
  readonly tags: readonly (readonly [tag: string, count: number])[];
  /** Online and with a way in. */
  readonly open: number;
}

/** How many there are of each kind. */
export function count(machines: Iterable<Machine>): Counts {
  const chips = { online: 0, mine: 0, way: 0, none: 0 };
  const tags = new Map<string, number>();
  let [all, open] = [0, 0];
  for (const machine of machines) {
    all += 1;
    for (const chip of CHIPS) if (IS[chip](machine)) chips[chip] += 1;
    if (machine.online && hasWay(machine)) open += 1;
    for (const tag of machine.tags) tags.set(tag, (tags.get(tag) ?? 0) + 1);
  }
  const ordered = [...tags].sort(([one, many], [other, more]) => more - many || BY_NAME.compare(one, other));
  return { all, chips, tags: ordered, open };
}

const SYSTEMS: Readonly<Record<string, string>> = {
  linux: "Linux",
  macos: "macOS",
  darwin: "macOS",
  windows: "Windows",
  ios: "iOS",
  android: "Android",
  freebsd: "FreeBSD",
  js: "a browser",
};

/** What people call an operating system. */
export function systemName(os: string): string {
  return SYSTEMS[os.toLowerCase()] ?? os;
}
