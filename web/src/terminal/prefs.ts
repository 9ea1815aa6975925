/** What a person chose about terminals, kept by the browser: the size of type, a mode for readers of the screen, how much is kept. */

export interface Prefs {
  fontSize: number; // px
  reader: boolean; // screen-reader mode
  scrollback: number; // lines
  clipboard: Filler[]; // machines that may fill the clipboard unasked
}

/** A machine that a person trusts with their clipboard; by its number, since names go from one machine to another. */
export interface Filler {
  id: number;
  name: string;
}

export interface Keeper {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
}

export const DEFAULT: Prefs = { fontSize: 13, reader: false, scrollback: 5_000, clipboard: [] };
export const SMALLEST = 8;
export const LARGEST = 32;
const MOST_FILLERS = 100;
const MOST_SCROLLBACK = 100_000;
const PREFS = "doorward.terminal.prefs";

/** What is kept; the defaults for what is missing or senseless there. */
export function load(keeper: Keeper): Prefs {
  const kept = parsed(keeper, PREFS);
  return {
    fontSize: within(kept.fontSize, SMALLEST, LARGEST, DEFAULT.fontSize),
    reader: kept.reader === true,
    scrollback: within(kept.scrollback, 100, MOST_SCROLLBACK, DEFAULT.scrollback),
    clipboard: fillers(kept.clipboard),
  };
}

/** A browser that keeps nothing (private windows, a full disk) loses only the choice. */
export function save(keeper: Keeper, prefs: Prefs): void {
  put(keeper, PREFS, prefs);
}

/** Those who may fill the clipboard, with one more; the oldest goes where there are too many. */
export function withFiller(clipboard: readonly Filler[], filler: Filler): Filler[] {
  return [...clipboard.filter(({ id }) => id !== filler.id), filler].slice(-MOST_FILLERS);
}

/** The size after a step; 0 goes back to the first. */
export function resized(size: number, step: number): number {
  return step === 0 ? DEFAULT.fontSize : Math.min(LARGEST, Math.max(SMALLEST, size + step));
}

function fillers(value: unknown): Filler[] {
  if (!Array.isArray(value)) return [];
  return value
    .filter((one): one is Filler => Number.isInteger(one?.id) && typeof one?.name === "string")
    .slice(-MOST_FILLERS);
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
