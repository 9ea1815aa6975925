/**
 * The screen of a terminal: xterm.js behind the few things that this page asks of one.
 *
 * It is given bytes and gives bytes; what a host's escape sequences may do beside drawing is decided in safety.ts. What is not
 * needed for the first paint (WebGL, search) is loaded after it, and the tables of grapheme clusters once something needs them.
 */

import { FitAddon } from "@xterm/addon-fit";
import type { SearchAddon } from "@xterm/addon-search";
import type { WebglAddon } from "@xterm/addon-webgl";
import { type ILink, Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import { styling } from "./cssom.ts";
import { hasGraphics } from "./graphics.ts";
import { cleanLine, linksIn, offeredToClipboard, type SafeLink, safeLink } from "./safety.ts";
import { FINDS, theme } from "./themes.ts";

export const FONT =
  '"JetBrains Mono Variable", "Symbols Nerd Font", ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace';
/** JetBrains Mono at 13 px is 17 px high; the design has 19. */
const LINE_HEIGHT = 1.12;
const ADVANCE = 0.6; // em, of each letter of JetBrains Mono, where nothing rounds it
const MOST_WRAPPED = 20; // rows of one long line that are looked at for addresses
const SETTLED = 500; // ms
/** From the first byte of U+0300 on: below that every letter is one cell, with or without the tables of grapheme clusters. */
const WIDE = 0xcc;
const WIDTHS_WAIT = 20_000; // ms for which a screen stands still for those tables, which come from where its bytes do
const FONT_WAIT = 400; // ms; later the other face is replaced where it stands

/** What a terminal that was left in any state is brought back by, without losing what it shows: modes off, and a new line. */
const CALM =
  "\u001b[!p\u001b[?1l\u001b[?9l\u001b[?1000l\u001b[?1002l\u001b[?1003l\u001b[?1004l\u001b[?1006l\u001b[?2004l" +
  "\u001b[?25h\u001b(B\u001b[0m\r\n\u001b[J";
const LEAVE = "\u001b[?1049l"; // the other buffer of editors and pagers

export interface Look {
  dark: boolean;
  fontSize: number;
  reader: boolean;
  scrollback: number;
}

export interface ScreenEvents {
  /** Keys, mouse and the terminal's own answers, as bytes for the host. */
  typed(text: string): void;
  binary(bytes: Uint8Array): void;
  resized(columns: number, rows: number): void;
  title(text: string): void;
  bell(): void;
  /** A person clicked an address; ``shown`` is what the screen has in its place. */
  link(link: SafeLink, shown: string): void;
  /** The host offers a text to the clipboard. */
  clipboard(text: string): void;
  pasted(text: string): void;
  /** True where the page has taken a key, and the shell does not get it. */
  key(event: KeyboardEvent): boolean;
}

export class Screen {
  readonly #terminal: Terminal;
  readonly #fit = new FitAddon();
  readonly #events: ScreenEvents;
  readonly #away = new AbortController();
  #search: Promise<SearchAddon> | undefined;
  #found: ((index: number, count: number) => void) | undefined;
  #webgl: WebglAddon | undefined;
  #drawsFast = true;
  #dark: boolean;
  #frame = 0;
  #widths = false; // whether they were asked for
  #held: [data: Uint8Array | string, done: (() => void) | undefined][] | undefined; // what is shown once they are there
  #watch: ResizeObserver | undefined;
  #shown = true;

  constructor(look: Look, events: ScreenEvents) {
    this.#events = events;
    this.#dark = look.dark;
    this.#terminal = new Terminal({
      allowProposedApi: true, // grapheme clusters and marks of a search are proposed still
      altClickMovesCursor: true,
      cursorBlink: false,
      customGlyphs: true,
      drawBoldTextInBrightColors: false,
      fontFamily: FONT,
      fontSize: look.fontSize,
      fontWeight: 430,
      fontWeightBold: 650,
      lineHeight: LINE_HEIGHT,
      linkHandler: { activate: (_event, text, range) => this.#follow(text, this.#textOf(range)) },
      logLevel: "off", // what a host sends is not for the console
      minimumContrastRatio: 3,
      rescaleOverlappingGlyphs: true,
      rightClickSelectsWord: false,
      scrollback: look.scrollback,
      screenReaderMode: look.reader,
      theme: theme(look.dark),
      windowOptions: {}, // none: no reports of titles, no moving of windows
    });
    const { parser } = this.#terminal;
    parser.registerOscHandler(52, (data) => {
      const text = offeredToClipboard(data);
      if (text !== undefined) events.clipboard(text);
      return true;
    });
    this.#terminal.onData((text) => events.typed(text));
    this.#terminal.onBinary((text) => events.binary(Uint8Array.from(text, (one) => one.charCodeAt(0) & 255)));
    this.#terminal.onResize(({ cols, rows }) => events.resized(cols, rows));
    this.#terminal.onTitleChange((text) => events.title(cleanLine(text)));
    this.#terminal.onBell(() => events.bell());
    this.#terminal.attachCustomKeyEventHandler((event) => !events.key(event));
    this.#terminal.loadAddon(this.#fit);
    this.#terminal.registerLinkProvider({
      provideLinks: (row, found) => found(this.#linksAt(row - 1)),
    });
  }

  /** Put it on the page; once. It keeps to the size of its parent from then on. */
  mount(parent: HTMLElement): void {
    styling(document);
    this.#terminal.open(parent);
    const signal = this.#away.signal;
    // Before xterm's own, which would send the whole of it in one piece, and what a clipboard hides with it.
    parent.addEventListener("paste", (event) => this.#paste(event), { capture: true, signal });
    this.#watch = new ResizeObserver(() => this.fit());
    this.#watch.observe(parent);
    this.fit();
    document.fonts.addEventListener("loadingdone", () => this.#fontCame(), { signal });
    // Costly to begin, and of use only once much is printed: not on the way to the first prompt.
    const late = setTimeout(() => void this.#drawFast(), SETTLED);
    signal.addEventListener("abort", () => clearTimeout(late));
  }

  /** Show bytes; ``done`` is called once they are, which is when more may come. */
  write(data: Uint8Array, done: () => void): void {
    if (!this.#widths && needsWidths(data)) void this.#measured();
    this.#put(data, done);
  }

  #put(data: Uint8Array | string, done?: () => void): void {
    if (this.#held === undefined) this.#terminal.write(data, done);
    else this.#held.push([data, done]);
  }

  /** Load the tables of grapheme clusters, before the first of what they are about is drawn. */
  async #measured(): Promise<void> {
    this.#widths = true;
    this.#held = [];
    const loaded = import("@xterm/addon-unicode-graphemes").then(({ UnicodeGraphemesAddon }) => {
      if (!this.#away.signal.aborted) this.#terminal.loadAddon(new UnicodeGraphemesAddon());
    });
    // Without them it has the widths that terminals always had; everything else works.
    const given = new Promise((up) => setTimeout(up, WIDTHS_WAIT));
    await Promise.race([loaded.catch(() => undefined), given]);
    const held = this.#held;
    this.#held = undefined;
    if (this.#away.signal.aborted) return;
    for (const [data, done] of held) this.#terminal.write(data, done);
  }

  /** A new shell on the same screen: nothing of what the last one had switched on is left, and what it showed stays. */
  calm(): void {
    // Only from there: elsewhere it would put the cursor where it was last kept.
    const elsewhere = this.#terminal.buffer.active.type === "alternate";
    this.#put(elsewhere ? LEAVE + CALM : CALM);
  }

  focus(): void {
    this.#terminal.focus();
  }

  get columns(): number {
    return this.#terminal.cols;
  }

  get rows(): number {
    return this.#terminal.rows;
  }

  get selection(): string {
    return this.#terminal.getSelection();
  }

  get bracketed(): boolean {
    return this.#terminal.modes.bracketedPasteMode;
  }

  get applicationKeys(): boolean {
    return this.#terminal.modes.applicationCursorKeysMode;
  }

  /** All that is on it and above it, as text. */
  get text(): string {
    const buffer = this.#terminal.buffer.active;
    const rows: string[] = [];
    for (let row = 0; row < buffer.length; row++) {
      const line = buffer.getLine(row);
      const text = line?.translateToString(true) ?? "";
      if (line?.isWrapped && rows.length > 0) rows[rows.length - 1] += text;
      else rows.push(text);
    }
    return rows.join("\n").trimEnd();
  }

  look({ dark, fontSize, reader, scrollback }: Look): void {
    const { options } = this.#terminal;
    this.#dark = dark;
    options.theme = theme(dark);
    options.screenReaderMode = reader;
    options.scrollback = scrollback;
    if (options.fontSize !== fontSize) {
      options.fontSize = fontSize;
      if (this.#webgl !== undefined) options.letterSpacing = this.#spacing();
      this.fit();
    }
  }

  /** Whether anybody sees it. A page has only so many WebGL contexts: a hidden screen gives its own back. */
  show(shown: boolean): void {
    if (this.#shown === shown) return;
    this.#shown = shown;
    if (shown) {
      void this.#drawFast();
      this.fit();
    } else {
      this.#webgl?.dispose();
      this.#webgl = undefined;
    }
  }

  /** Take the size of the parent, with the next frame: of a storm of sizes only the last counts. */
  fit(): void {
    if (this.#frame !== 0) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      if (this.#terminal.element?.offsetParent) this.#fit.fit();
    });
  }

  /** Find a text, the next one up or down. Undefined in ``text`` ends the search. */
  async find(
    text: string | undefined,
    backwards: boolean,
    found?: (index: number, count: number) => void,
  ): Promise<void> {
    this.#search ??= import("@xterm/addon-search").then((module) => {
      const addon = new module.SearchAddon({ highlightLimit: 1_000 });
      this.#terminal.loadAddon(addon);
      addon.onDidChangeResults(({ resultIndex, resultCount }) => this.#found?.(resultIndex, resultCount));
      return addon;
    });
    const search = await this.#search;
    this.#found = found;
    if (text === undefined || text === "") {
      search.clearDecorations();
      this.#terminal.clearSelection();
      return;
    }
    const options = { decorations: FINDS[this.#dark ? "dark" : "light"] };
    if (backwards) search.findPrevious(text, options);
    else search.findNext(text, { ...options, incremental: false });
  }

  dispose(): void {
    cancelAnimationFrame(this.#frame);
    this.#away.abort();
    this.#watch?.disconnect();
    this.#terminal.dispose();
  }

  // After the first paint ------------------------------------------------------------------------------------------------

  async #drawFast(): Promise<void> {
    if (!this.#drawsFast || this.#webgl !== undefined || !this.#shown) return;
    this.#drawsFast = hasGraphics();
    if (!this.#drawsFast) return;
    try {
      const { WebglAddon } = await import("@xterm/addon-webgl");
      if (this.#away.signal.aborted || this.#webgl !== undefined || !this.#shown) return;
      const addon = new WebglAddon();
      this.#terminal.loadAddon(addon);
      this.#webgl = addon;
      this.#terminal.options.letterSpacing = this.#spacing();
      this.fit();
      // The browser took it away (sleep, a driver, too many): the page draws itself from then on.
      addon.onContextLoss(() => {
        this.#webgl = undefined;
        this.#drawsFast = false;
        addon.dispose();
        this.#terminal.options.letterSpacing = 0;
        this.fit();
      });
    } catch {
      this.#drawsFast = false; // no WebGL here: xterm draws with elements
    }
  }

  /** WebGL draws in whole points of the screen and cuts what is left of a cell; where that is most of one, it gets one back. */
  #spacing(): number {
    const wide = letterWidth(this.#terminal.options.fontSize ?? 13) * devicePixelRatio;
    return wide % 1 >= 0.5 ? 1 : 0;
  }

  /** A face has come: what was drawn and measured with another is drawn and measured again. */
  #fontCame(): void {
    const { options } = this.#terminal;
    options.fontFamily = `${FONT}, monospace`;
    options.fontFamily = FONT;
    this.#webgl?.clearTextureAtlas();
    this.#terminal.refresh(0, this.#terminal.rows - 1);
    this.fit();
  }

  // Links and the clipboard ----------------------------------------------------------------------------------------------

  #paste(event: ClipboardEvent): void {
    event.preventDefault();
    event.stopImmediatePropagation();
    const text = event.clipboardData?.getData("text/plain") ?? "";
    if (text !== "") this.#events.pasted(text);
  }

  #follow(address: string, shown: string): void {
    const link = safeLink(address);
    if (link !== undefined) this.#events.link(link, shown);
  }

  #textOf(range: ILink["range"]): string {
    const buffer = this.#terminal.buffer.active;
    let text = "";
    for (let row = range.start.y; row <= range.end.y; row++) {
      const from = row === range.start.y ? range.start.x - 1 : 0;
      const to = row === range.end.y ? range.end.x : this.#terminal.cols;
      text += buffer.getLine(row - 1)?.translateToString(true, from, to) ?? "";
    }
    return cleanLine(text);
  }

  /** The addresses in the line that a row belongs to, wrapped rows and all; each character knows its cell. */
  #linksAt(row: number): ILink[] | undefined {
    const buffer = this.#terminal.buffer.active;
    let first = row;
    while (first > 0 && row - first < MOST_WRAPPED && buffer.getLine(first)?.isWrapped) first -= 1;
    let text = "";
    const cells: { x: number; y: number }[] = [];
    for (let y = first; y - first < MOST_WRAPPED * 2; y++) {
      const line = buffer.getLine(y);
      if (line === undefined || (y > first && !line.isWrapped)) break;
      for (let x = 0; x < line.length; x++) {
        const cell = line.getCell(x);
        if (cell === undefined || cell.getWidth() === 0) continue;
        const characters = cell.getChars() || " ";
        for (let at = 0; at < characters.length; at++) cells.push({ x: x + 1, y: y + 1 });
        text += characters;
      }
    }
    const links = linksIn(text).map((found): ILink => {
      const start = cells[found.at]!;
      const end = cells[found.at + found.text.length - 1]!;
      return {
        range: { start, end },
        text: found.text,
        activate: () => this.#follow(found.text, found.text),
      };
    });
    return links.length === 0 ? undefined : links;
  }
}

/** Whether there is anything in it that may be another than one cell wide. A loop, since all that is printed goes through it. */
function needsWidths(data: Uint8Array): boolean {
  for (let at = 0; at < data.length; at++) if (data[at]! >= WIDE) return true;
  return false;
}

/** How wide a letter is drawn, in pixels of the page: browsers on some systems round it. */
function letterWidth(fontSize: number): number {
  const context = document.createElement("canvas").getContext("2d");
  if (context === null) return fontSize * ADVANCE;
  context.font = `${fontSize}px ${FONT}`;
  return context.measureText("W").width;
}

/** The face of terminals, asked for and waited for a moment: cells are measured by it. */
export async function fontReady(fontSize: number): Promise<void> {
  const timeout = new Promise<void>((resolve) => setTimeout(resolve, FONT_WAIT));
  const face = document.fonts.load(`430 ${fontSize}px "JetBrains Mono Variable"`).then(() => undefined);
  await Promise.race([face.catch(() => undefined), timeout]);
}
