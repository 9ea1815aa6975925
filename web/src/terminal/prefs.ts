/** What a person chose about terminals, kept by the browser: the size of type, a mode for readers of the screen, how much is kept. */

export interface Prefs {
  fontSize: number; // px
  reader: boolean; // screen-reader mode
  scrollback: number; // lines
}

export interface Keeper {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
}

export const DEFAULT: Prefs = { fontSize: 13, reader: false, scrollback: 5_000 };
export const SMALLEST = 8;
export const LARGEST = 32;
const MOST_SCROLLBACK = 100_000;
const PREFS = "doorward.terminal.prefs";

/** What is kept; the defaults for what is missing or senseless there. */
export function load(keeper: Keeper): Prefs {
  const kept = parsed(keeper, PREFS);
  return {
    fontSize: within(kept.fontSize, SMALLEST, LARGEST, DEFAULT.fontSize),
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
