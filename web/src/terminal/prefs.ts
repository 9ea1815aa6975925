/** What a person chose about terminals, kept by the browser: the size of type, colours, the account last used per machine. */

export interface Prefs {
  fontSize: number; // px
  scheme: "system" | "light" | "dark";
  reader: boolean; // screen-reader mode
  scrollback: number; // lines
}

export interface Keeper {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
}

export const DEFAULT: Prefs = { fontSize: 13, scheme: "system", reader: false, scrollback: 5_000 };
export const SMALLEST = 8;
export const LARGEST = 32;
const MOST_SCROLLBACK = 100_000;
const PREFS = "doorward.terminal.prefs";
const ACCOUNTS = "doorward.terminal.accounts";
const MOST_ACCOUNTS = 200; // machines whose account is remembered

/** What is kept; the defaults for what is missing or senseless there. */
export function load(keeper: Keeper): Prefs {
  const kept = parsed(keeper, PREFS);
  const scheme = kept.scheme;
  return {
    fontSize: within(kept.fontSize, SMALLEST, LARGEST, DEFAULT.fontSize),
    scheme: scheme === "light" || scheme === "dark" ? scheme : "system",
    reader: kept.reader === true,
    scrollback: within(kept.scrollback, 100, MOST_SCROLLBACK, DEFAULT.scrollback),
  };
}

/** A browser that keeps nothing (private windows, a full disk) loses only the choice. */
export function save(keeper: Keeper, prefs: Prefs): void {
  put(keeper, PREFS, prefs);
}

/** The size after a step; 0 goes back to the first. */
export function resized(size: number, step: number): number {
  return step === 0 ? DEFAULT.fontSize : Math.min(LARGEST, Math.max(SMALLEST, size + step));
}

/** The account that was last used on a machine, by the machine's name. */
export function lastAccount(keeper: Keeper, machine: string): string | undefined {
  const kept = parsed(keeper, ACCOUNTS)[machine];
  return typeof kept === "string" ? kept : undefined;
}

export function rememberAccount(keeper: Keeper, machine: string, account: string): void {
  const { [machine]: _before, ...others } = parsed(keeper, ACCOUNTS);
  const newest = Object.entries(others).slice(-(MOST_ACCOUNTS - 1));
  put(keeper, ACCOUNTS, { ...Object.fromEntries(newest), [machine]: account });
}

function parsed(keeper: Keeper, key: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(keeper.getItem(key) ?? "{}");
    return typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : {};
  } catch {
    return {};
  }
}

function put(keeper: Keeper, key: string, value: object): void {
  try {
    keeper.setItem(key, JSON.stringify(value));
  } catch {
    // Nothing is kept then; what is chosen holds for this page.
  }
}

function within(value: unknown, least: number, most: number, otherwise: number): number {
  return typeof value === "number" && Number.isInteger(value) && value >= least && value <= most
    ? value
    : otherwise;
}
