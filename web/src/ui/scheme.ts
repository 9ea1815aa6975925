/** Light or dark: what the system says, or what the person chose. The choice is a cookie, so that the server draws the first frame right. */

import { signal } from "@preact/signals";

export type Scheme = "system" | "light" | "dark";
export const SCHEMES: readonly Scheme[] = ["system", "light", "dark"];

const COOKIE = "doorward-scheme";

function current(): Scheme {
  const chosen = document.documentElement.dataset.scheme;
  return chosen === "light" || chosen === "dark" ? chosen : "system";
}

/** What is chosen now. */
export const scheme = signal<Scheme>(current());

/** Choose. Kept for a year, for all pages of this host; `base` is the console's path. */
export function choose(next: Scheme, base: string): void {
  const root = document.documentElement;
  if (next === "system") delete root.dataset.scheme;
  else root.dataset.scheme = next;
  const secure = location.protocol === "https:" ? "; secure" : "";
  const age = next === "system" ? 0 : 365 * 86400;
  // biome-ignore lint/suspicious/noDocumentCookie: the Cookie Store interface is not in every browser
  document.cookie = `${COOKIE}=${next}; path=${base}; max-age=${age}; samesite=lax${secure}`;
  scheme.value = next;
}

/** The next one, for a key. */
export function turn(base: string): void {
  choose(SCHEMES[(SCHEMES.indexOf(scheme.value) + 1) % SCHEMES.length], base);
}

/** Whether the page is dark now. */
export function isDark(): boolean {
  if (scheme.value !== "system") return scheme.value === "dark";
  return matchMedia("(prefers-color-scheme: dark)").matches;
}
