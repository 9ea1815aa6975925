/** What a host says before it lets somebody in: whether it waits for a check, and where that is done. */

import { plain } from "./failures.ts";
import type { Check } from "./types.ts";

// Lines are looked at one by one: nothing in it goes over their ends, or many empty ones would take long.
const LINK = /^[#\t ]*(?:To authenticate, visit:[\t ]*)?(https?:\/\/[\x21-\x7e]+)[\t ]*$/im;
const CODE = /\bcode is ([0-9A-Za-z][0-9A-Za-z-]{1,15})\b/i;
const WAITS = /has to be approved|requires an additional check|to authenticate, visit/i;

/**
 * The check that a banner asks for; undefined for any other banner.
 *
 * Anybody who runs a host can say anything here, so the link is for the page to judge: only one of its own origin is ours.
 */
export function readCheck(banner: string): Check | undefined {
  if (!WAITS.test(banner)) return undefined;
  const link = LINK.exec(banner)?.[1];
  if (link === undefined) return undefined;
  let url: URL;
  try {
    url = new URL(link);
  } catch {
    return undefined;
  }
  // Names in front of an @ are for making one host look like another.
  if (url.username !== "" || url.password !== "") return undefined;
  return { url: url.href, code: CODE.exec(banner)?.[1] ?? null, text: plain(banner) };
}
