/** As whom a person goes in somewhere: what the policy offers, and what they took the last time. */

import type { Machine } from "../api/types.ts";

/** An account to go in as. `account` is null where the person has to say which. */
export interface Way {
  readonly account: string | null;
  /** They have to do something first: a check, or what the host itself asks for. */
  readonly asks: boolean;
}

/** All that a machine offers, in the policy's order; the account that the person may name themselves is last. */
export function waysInto(machine: Machine): Way[] {
  const ways: Way[] = machine.ways.map(({ account, check }) => ({ account, asks: check }));
  if (machine.any_account)
    ways.push({ account: null, asks: machine.any_check || machine.ssh !== "tailscale" });
  return ways;
}

/**
 * The way to take without asking: the one taken last, if it is still there, else the one that can do the least harm and asks for
 * nothing: an account that is not root before root, one that goes straight in before one that asks. Undefined for none.
 */
export function wayInto(machine: Machine, last: string | null): Way | undefined {
  const ways = waysInto(machine);
  const known = last === null ? undefined : ways.find((way) => way.account === last);
  if (known !== undefined) return known;
  const own = ways.find((way) => way.account === null);
  if (last !== null && own !== undefined) return { account: last, asks: own.asks };
  const weight = ({ account, asks }: Way) =>
    (account === null ? 4 : account === "root" ? 2 : 0) + (asks ? 1 : 0);
  return ways.toSorted((one, other) => weight(one) - weight(other))[0];
}

const KEY = "doorward:account:";

/** The account that was last used on a machine, in this browser. */
export function lastAccount(machine: string): string | null {
  try {
    return localStorage.getItem(KEY + machine);
  } catch {
    return null; // a browser that keeps nothing
  }
}

/** Remember it. */
export function rememberAccount(machine: string, account: string): void {
  try {
    localStorage.setItem(KEY + machine, account);
  } catch {
    // a browser that keeps nothing asks again
  }
}

/** Where a terminal is. */
export function terminalAddress(base: string, machine: string, account: string | null): string {
  const path = `${base}terminal/${encodeURIComponent(machine)}`;
  return account === null ? path : `${path}/${encodeURIComponent(account)}`;
}
