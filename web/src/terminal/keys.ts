/**
 * Which keys are the page's. All others belong to the shell.
 *
 * Ctrl Alt and Ctrl Shift are what shells leave free. On a Mac the clipboard, search and the size of the type have Cmd, as everywhere there.
 */

export type Command =
  | { do: "new-tab" }
  | { do: "split" }
  | { do: "close" }
  | { do: "search" }
  | { do: "copy" }
  | { do: "paste" }
  | { do: "palette" }
  | { do: "files" }
  | { do: "tab"; index: number }
  | { do: "pane"; step: 1 | -1 }
  | { do: "size"; step: 1 | -1 | 0 }
  | { do: "full-screen" };

export interface Stroke {
  key: string;
  code: string;
  ctrlKey: boolean;
  altKey: boolean;
  shiftKey: boolean;
  metaKey: boolean;
  /** True where AltGr makes a letter: Windows reports it as Ctrl and Alt. */
  altGraph: boolean;
}

const WITH_CTRL_ALT: Record<string, Command> = {
  T: { do: "new-tab" },
  D: { do: "split" },
  W: { do: "close" },
  K: { do: "palette" },
  U: { do: "files" },
  "=": { do: "size", step: 1 },
  "+": { do: "size", step: 1 },
  "-": { do: "size", step: -1 },
  "0": { do: "size", step: 0 },
  ArrowRight: { do: "pane", step: 1 },
  ArrowDown: { do: "pane", step: 1 },
  ArrowLeft: { do: "pane", step: -1 },
  ArrowUp: { do: "pane", step: -1 },
};
const WITH_CTRL_SHIFT: Record<string, Command> = {
  F: { do: "search" },
  C: { do: "copy" },
  V: { do: "paste" },
};
const WITH_META: Record<string, Command> = {
  F: { do: "search" },
  C: { do: "copy" },
  V: { do: "paste" },
  "=": { do: "size", step: 1 },
  "+": { do: "size", step: 1 },
  "-": { do: "size", step: -1 },
  "0": { do: "size", step: 0 },
};

/** The page's command for a key, or undefined where it is the shell's. */
export function commandOf(stroke: Stroke, mac: boolean): Command | undefined {
  if (stroke.altGraph) return undefined;
  const key = name(stroke);
  if (mac && stroke.metaKey && !stroke.ctrlKey && !stroke.altKey) return WITH_META[key];
  if (stroke.metaKey || !stroke.ctrlKey) {
    const plain = !stroke.metaKey && !stroke.altKey && !stroke.shiftKey;
    return plain && stroke.key === "F11" ? { do: "full-screen" } : undefined;
  }
  if (stroke.altKey) {
    if (/^[1-9]$/u.test(key)) return { do: "tab", index: Number(key) - 1 };
    return stroke.shiftKey && key !== "+" ? undefined : WITH_CTRL_ALT[key];
  }
  return stroke.shiftKey ? WITH_CTRL_SHIFT[key] : undefined;
}

/** The key's letter as its layout has it; by its place where modifiers have made something else of it (Option on a Mac). */
function name(stroke: Stroke): string {
  const key = stroke.key.length === 1 ? stroke.key.toUpperCase() : stroke.key;
  if (/^[A-Z0-9=+-]$/u.test(key) || key.length > 1) {
    const digit = /^Digit([0-9])$/u.exec(stroke.code);
    return digit !== null && !/^[A-Z0-9]$/u.test(key) && stroke.altKey ? digit[1]! : key;
  }
  const place = /^(?:Key([A-Z])|Digit([0-9]))$/u.exec(stroke.code);
  if (place !== null) return (place[1] ?? place[2])!;
  return stroke.code === "Equal" ? "=" : stroke.code === "Minus" ? "-" : key;
}

/** Words on the sill for a command's key. */
export function labels(
  mac: boolean,
): Record<"newTab" | "split" | "search" | "palette" | "copy" | "paste", string[]> {
  const alt = mac ? ["Ctrl", "Option"] : ["Ctrl", "Alt"];
  const clip = mac ? ["Cmd"] : ["Ctrl", "Shift"];
  return {
    newTab: [...alt, "T"],
    split: [...alt, "D"],
    search: [...clip, "F"],
    palette: [...alt, "K"],
    copy: [...clip, "C"],
    paste: [...clip, "V"],
  };
}

// The row of keys that phones lack ----------------------------------------------------------------------------------------

export interface RowKey {
  label: string;
  /** For readers of the screen. */
  name: string;
  /** What is typed; a function of whether the program wants application cursor keys (DECCKM). */
  sends: (application: boolean) => string;
  sticky?: "ctrl" | "alt";
}

const arrow = (final: string) => (application: boolean) => `\u001b${application ? "O" : "["}${final}`;
const always = (text: string) => () => text;

export const ROW: readonly RowKey[] = [
  { label: "Esc", name: "Esc", sends: always("\u001b") },
  { label: "Tab", name: "Tab", sends: always("\t") },
  { label: "Ctrl", name: "Ctrl, for the next key", sends: always(""), sticky: "ctrl" },
  { label: "Alt", name: "Alt, for the next key", sends: always(""), sticky: "alt" },
  { label: "←", name: "Left", sends: arrow("D") },
  { label: "↓", name: "Down", sends: arrow("B") },
  { label: "↑", name: "Up", sends: arrow("A") },
  { label: "→", name: "Right", sends: arrow("C") },
  { label: "|", name: "Bar", sends: always("|") },
  { label: "-", name: "Minus", sends: always("-") },
  { label: "/", name: "Slash", sends: always("/") },
  { label: "~", name: "Tilde", sends: always("~") },
];

export interface Sticky {
  ctrl: boolean;
  alt: boolean;
}

/** What is sent for typed text while Ctrl or Alt of the row is held: for its first character, then they are let go. */
export function held(text: string, sticky: Sticky): string {
  const [first, ...others] = Array.from(text);
  if (first === undefined) return text;
  // A phone's keyboard sends words at once; only their first character is meant.
  let sent = sticky.ctrl ? control(first) : first;
  if (sticky.alt) sent = `\u001b${sent}`;
  return sent + others.join("");
}

/** The control character of a key, as terminals have it since ASCII: the low five bits; "?" is DEL. */
function control(character: string): string {
  if (character === "?") return "\u007f";
  if (character === " ") return "\u0000";
  const upper = character.toUpperCase();
  return /^[@-_]$/u.test(upper) ? String.fromCharCode(upper.charCodeAt(0) & 31) : character;
}
