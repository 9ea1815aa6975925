import { describe, expect, it } from "vitest";
import {
  DEFAULT,
  type Filler,
  type Keeper,
  load,
  resized,
  save,
  withFiller,
} from "../../src/terminal/prefs.ts";
import { contrast, theme } from "../../src/terminal/themes.ts";

function keeper(): Keeper & { all: Map<string, string> } {
  const all = new Map<string, string>();
  return { all, getItem: (key) => all.get(key) ?? null, setItem: (key, value) => void all.set(key, value) };
}

describe("what a person chose", () => {
  it("is there again", () => {
    const one = keeper();
    const chosen = { fontSize: 16, reader: true, scrollback: 900, clipboard: [{ id: 4, name: "nas" }] };
    save(one, chosen);
    expect(load(one)).toEqual(chosen);
  });

  it("knows each machine that may fill the clipboard once, and no more than a person can look at", () => {
    const web = { id: 1, name: "web-1" };
    const nas = { id: 4, name: "nas" };
    expect(withFiller([web, nas], { id: 1, name: "web-9" })).toEqual([nas, { id: 1, name: "web-9" }]);
    const many = Array.from({ length: 150 }, (_, id) => ({ id, name: `web-${id}` }));
    expect(many.reduce(withFiller, [] as Filler[]).map(({ id }) => id)).toEqual(
      Array.from({ length: 100 }, (_, at) => at + 50),
    );
    const one = keeper();
    one.setItem(
      "doorward.terminal.prefs",
      JSON.stringify({ clipboard: [web, null, 7, { id: "1" }, { id: 2 }] }),
    );
    expect(load(one).clipboard).toEqual([web]);
  });

  it.each(["", "null", "[]", "7", "{", '{"fontSize": 900, "reader": 1, "scrollback": -1, "clipboard": {}}'])(
    "is the default for %j",
    (text) => {
      const one = keeper();
      one.setItem("doorward.terminal.prefs", text);
      expect(load(one)).toEqual(DEFAULT);
    },
  );

  it("holds for the page where a browser keeps nothing", () => {
    const full: Keeper = {
      getItem: () => {
        throw new Error("no");
      },
      setItem: () => {
        throw new Error("full");
      },
    };
    save(full, DEFAULT);
    expect(load(full)).toEqual(DEFAULT);
  });

  it("stays readable", () => {
    expect([resized(13, 1), resized(32, 1), resized(8, -1), resized(20, 0)]).toEqual([14, 32, 8, 13]);
  });
});

describe.each([false, true])("colours, dark: %j", (dark) => {
  const colours = theme(dark);
  const texts = Object.entries(colours).filter(([name]) => !/background|Accent|selection/iu.test(name));

  it.each(texts.filter(([name]) => !(dark && name === "black")))(
    "%s can be read on the ground",
    (_name, colour) => {
      expect(contrast(colour as string, colours.background!)).toBeGreaterThanOrEqual(4.5);
    },
  );

  it("text can be read where it is selected", () => {
    expect(contrast(colours.foreground!, colours.selectionBackground!)).toBeGreaterThanOrEqual(4.5);
  });
});
