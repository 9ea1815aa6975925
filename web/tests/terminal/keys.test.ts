import { describe, expect, it } from "vitest";
import { commandOf, held, labels, ROW, type Stroke } from "../../src/terminal/keys.ts";

const NONE = { ctrlKey: false, altKey: false, shiftKey: false, metaKey: false, altGraph: false };
const stroke = (key: string, code: string, held: Partial<Stroke> = {}): Stroke => ({
  key,
  code,
  ...NONE,
  ...held,
});
const CTRL_ALT = { ctrlKey: true, altKey: true };
const CTRL_SHIFT = { ctrlKey: true, shiftKey: true };

describe("the page's keys", () => {
  it.each([
    [stroke("t", "KeyT", CTRL_ALT), { do: "new-tab" }],
    [stroke("d", "KeyD", CTRL_ALT), { do: "split" }],
    [stroke("k", "KeyK", CTRL_ALT), { do: "palette" }],
    [stroke("3", "Digit3", CTRL_ALT), { do: "tab", index: 2 }],
    [stroke("ArrowLeft", "ArrowLeft", CTRL_ALT), { do: "pane", step: -1 }],
    [stroke("+", "Equal", { ...CTRL_ALT, shiftKey: true }), { do: "size", step: 1 }],
    [stroke("F", "KeyF", CTRL_SHIFT), { do: "search" }],
    [stroke("C", "KeyC", CTRL_SHIFT), { do: "copy" }],
    [stroke("V", "KeyV", CTRL_SHIFT), { do: "paste" }],
    [stroke("F11", "F11"), { do: "full-screen" }],
  ])("%j", (one, command) => expect(commandOf(one, false)).toEqual(command));

  it("on a Mac have Cmd for the clipboard, and Option changes no letter", () => {
    expect(commandOf(stroke("c", "KeyC", { metaKey: true }), true)).toEqual({ do: "copy" });
    expect(commandOf(stroke("†", "KeyT", CTRL_ALT), true)).toEqual({ do: "new-tab" });
    expect(commandOf(stroke("¡", "Digit1", CTRL_ALT), true)).toEqual({ do: "tab", index: 0 });
    expect(commandOf(stroke("–", "Minus", CTRL_ALT), true)).toEqual({ do: "size", step: -1 });
    expect(commandOf(stroke("c", "KeyC", { metaKey: true }), false)).toBeUndefined();
  });

  it("follow the letters of the layout, not their places", () => {
    expect(commandOf(stroke("t", "KeyK", CTRL_ALT), false)).toEqual({ do: "new-tab" });
  });
});

describe("the shell's keys", () => {
  it.each([
    stroke("c", "KeyC", { ctrlKey: true }),
    stroke("d", "KeyD", { ctrlKey: true }),
    stroke("w", "KeyW", { ctrlKey: true }),
    stroke("k", "KeyK", { ctrlKey: true }),
    stroke("t", "KeyT", { altKey: true }),
    stroke("x", "KeyX", CTRL_SHIFT),
    stroke("F5", "F5"),
    stroke("Enter", "Enter"),
    stroke("é", "Digit2"),
  ])("%j", (one) => expect(commandOf(one, false)).toBeUndefined());

  it("AltGr makes letters, though Windows calls it Ctrl and Alt", () => {
    expect(commandOf(stroke("€", "KeyE", { ...CTRL_ALT, altGraph: true }), false)).toBeUndefined();
    expect(commandOf(stroke("t", "KeyT", { ...CTRL_ALT, altGraph: true }), false)).toBeUndefined();
  });
});

it("the sill says the keys of this system", () => {
  expect(labels(false).copy).toEqual(["Ctrl", "Shift", "C"]);
  expect(labels(true).copy).toEqual(["Cmd", "C"]);
});

describe("the row of keys", () => {
  it("types what a keyboard would", () => {
    const sent = Object.fromEntries(ROW.map((key) => [key.label, key.sends(false)]));
    expect(sent).toMatchObject({ Esc: "\u001b", Tab: "\t", "←": "\u001b[D", "|": "|", "~": "~" });
    expect(ROW.find((key) => key.label === "↑")?.sends(true)).toBe("\u001bOA");
    expect(new Set(ROW.map((key) => key.name)).size).toBe(ROW.length);
  });

  it("holds Ctrl and Alt for one character", () => {
    expect(held("c", { ctrl: true, alt: false })).toBe("\u0003");
    expect(held("C", { ctrl: true, alt: false })).toBe("\u0003");
    expect(held("[", { ctrl: true, alt: false })).toBe("\u001b");
    expect(held(" ", { ctrl: true, alt: false })).toBe("\u0000");
    expect(held("?", { ctrl: true, alt: false })).toBe("\u007f");
    expect(held("ä", { ctrl: true, alt: false })).toBe("ä");
    expect(held("b", { ctrl: false, alt: true })).toBe("\u001bb");
    expect(held("x", { ctrl: true, alt: true })).toBe("\u001b\u0018");
    expect(held("cd", { ctrl: true, alt: false })).toBe("\u0003d");
    expect(held("", { ctrl: true, alt: true })).toBe("");
  });
});
