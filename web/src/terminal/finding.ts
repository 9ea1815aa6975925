/** What the palette offers for what somebody typed: every account that they may use, with its door. Pure. */

import type { Machine } from "../api/types.ts";

export interface Offer {
  machine: string;
  /** Null where the person names the account. */
  account: string | null;
  door: "open" | "ajar" | "shut";
  /** Beside it: what is asked first, or why there is no way in. */
  note: string;
}

const MOST = 40; // rows; who looks for more types another letter

/** Every word that was typed is in the machine's name, its account, a tag or its owner's name; names that begin so come first. */
export function offers(machines: readonly Machine[], typed: string): Offer[] {
  const words = typed
    .toLowerCase()
    .split(/\s+/u)
    .filter((word) => word !== "" && word !== "as");
  const found: { offer: Offer; rank: number }[] = [];
  for (const machine of machines) {
    if (machine.system) continue;
    for (const offer of of(machine)) {
      const rank = ranked(machine, offer, words);
      if (rank !== undefined) found.push({ offer, rank });
    }
  }
  found.sort((one, other) => one.rank - other.rank);
  return found.slice(0, MOST).map(({ offer }) => offer);
}

function of(machine: Machine): Offer[] {
  const { name } = machine;
  if (!machine.online) return [{ machine: name, account: null, door: "shut", note: "offline" }];
  const ways = machine.ways.map(
    ({ account, check }): Offer => ({
      machine: name,
      account,
      door: check ? "ajar" : "open",
      note: check ? "asks for a check" : "",
    }),
  );
  if (machine.any_account) {
    ways.push({
      machine: name,
      account: null,
      // A host with an ssh server of its own asks for what it wants, as the list of machines says.
      door: machine.any_check || machine.ssh !== "tailscale" ? "ajar" : "open",
      note: "any account",
    });
  }
  return ways.length > 0 ? ways : [{ machine: name, account: null, door: "shut", note: "no way in" }];
}

/** The less the better; undefined where a word is nowhere. */
function ranked(machine: Machine, offer: Offer, words: readonly string[]): number | undefined {
  const name = machine.name.toLowerCase();
  const account = offer.account?.toLowerCase() ?? "";
  const others = [...machine.tags, machine.user].map((one) => one.toLowerCase());
  let rank = { open: 0, ajar: 1, shut: 20 }[offer.door];
  for (const word of words) {
    if (name.startsWith(word)) rank += 0;
    else if (account.startsWith(word)) rank += 2;
    else if (name.includes(word)) rank += 4;
    else if (account.includes(word) || others.some((one) => one.includes(word))) rank += 8;
    else return undefined;
  }
  return rank;
}
