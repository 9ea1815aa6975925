/** Files on their way: names and paths of a host, and how far each transfer is. */

export interface Transfer {
  id: number;
  name: string;
  way: "up" | "down";
  bytes: number;
  total: number | null;
  state: "waits" | "moving" | "done" | "failed" | "stopped";
  /** What went wrong, where something did. */
  problem: string;
}

export type Moved =
  | { is: "began" }
  | { is: "progress"; bytes: number; total: number | null }
  | { is: "done" }
  | { is: "failed"; problem: string }
  | { is: "stopped" };

const OVER: ReadonlySet<Transfer["state"]> = new Set(["done", "failed", "stopped"]);

export function isOver(transfer: Transfer): boolean {
  return OVER.has(transfer.state);
}

export function moved(transfers: readonly Transfer[], id: number, what: Moved): Transfer[] {
  return transfers.map((one) => (one.id !== id || isOver(one) ? one : after(one, what)));
}

function after(one: Transfer, what: Moved): Transfer {
  switch (what.is) {
    case "began":
      return { ...one, state: "moving" };
    case "progress":
      return { ...one, bytes: Math.max(one.bytes, what.bytes), total: what.total ?? one.total };
    case "done":
      return { ...one, state: "done", bytes: one.total ?? one.bytes };
    case "failed":
      return { ...one, state: "failed", problem: what.problem };
    case "stopped":
      return { ...one, state: "stopped" };
  }
}

/** A path below a folder. */
export function below(folder: string, name: string): string {
  return folder.endsWith("/") ? folder + name : `${folder}/${name}`;
}

/** The folder that holds a path; the root holds itself. */
export function above(path: string): string {
  const cut = path.replace(/\/+$/u, "").lastIndexOf("/");
  return cut <= 0 ? "/" : path.slice(0, cut);
}

/**
 * A name that a dropped file may have on a host: one part of a path.
 *
 * Undefined for what would lead elsewhere, or is no name at all.
 */
export function nameForHost(name: string): string | undefined {
  const last = name.split("/").at(-1) ?? "";
  return last === "" || last === "." || last === ".." || last.includes("\u0000") || last.length > 255
    ? undefined
    : last;
}

/** A name that a host's file gets here: nothing in it leads elsewhere, is unseen, or means something to a system. */
export function nameForHere(name: string): string {
  const plain = name.replace(/[\p{Cc}\p{Cf}\p{Cs}/\\:*?"<>|]/gu, "_").replace(/^\.+|[. ]+$/gu, "_");
  return Array.from(plain).slice(0, 120).join("") || "file";
}

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** "0 B", "1.2 kB", "340 MB": thousands, as disks count. */
export function size(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1_000;
    unit += 1;
  }
  return `${unit === 0 || value >= 9.95 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

/** How far it is, from 0 to 1; undefined where nobody knows how much there is. */
export function share(transfer: Transfer): number | undefined {
  if (transfer.total === null) return undefined;
  return transfer.total === 0 ? 1 : Math.min(1, transfer.bytes / transfer.total);
}
