/**
 * One terminal at work: its place on the tab's node, its screen, and what a person sees of it (pane.ts).
 *
 * What the host prints waits for the screen, and the host waits for what waits: every byte is acknowledged when it was drawn.
 */

import { type Signal, signal } from "@preact/signals";
import type { FilesHandle, HostKeyAnswer, KeyFile, NodeClient, TerminalHandle } from "../node/client.ts";
import { held, type Sticky } from "./keys.ts";
import { type Happening, newPane, next, type Pane } from "./pane.ts";
import { linesOf, type Paster, paster } from "./paste.ts";
import { checkPath, type SafeLink } from "./safety.ts";
import type { Look, Screen, ScreenEvents } from "./screen.ts";

const RESIZE_PAUSE = 60; // ms: of a window that is being drawn larger the host hears the end, not each step
const PASTE_AHEAD = 128 * 1024; // bytes that may lie before the host when the next piece of a paste follows
const PASTE_TURN = 8; // ms between two looks at that
const TITLE_PAUSE = 16; // ms, a frame: of titles that come by the thousand the page has the last of each moment
const CTRL_C = "\u0003";
const PIECE = 1 << 16; // bytes that the screen takes in before it looks whether there is something else to do

/** What a terminal asks of the page around it. */
export interface Around {
  readonly node: NodeClient;
  look(): Look;
  /** The code of the screen, which is large and loaded beside everything else. */
  screen(): Promise<new (look: Look, events: ScreenEvents) => Screen>;
  /** The number of a machine where it is known, else its name. */
  machine(name: string): number | string;
  key(event: KeyboardEvent, session: Session): boolean;
  link(link: SafeLink, shown: string): void;
  clipboard(text: string, session: Session): void;
  /** A paste that would run at once: whether it is meant. */
  manyLines(lines: number, text: string): Promise<boolean>;
  opened(session: Session): void;
  /** Enter was pressed where a shell has ended: what brings another. */
  reopen(session: Session): void;
}

type Answers = (answers: string[] | undefined) => void;

export class Session {
  readonly pane: Signal<Pane>;
  /** Keys of the row that are held for the next character. */
  readonly sticky: Signal<Sticky> = signal({ ctrl: false, alt: false });
  /** Where the screen lives; moved about whole as tabs and splits change. */
  readonly element: HTMLDivElement;
  /** Whether the host may ask to fill the clipboard, or has been told not to any more. */
  clipboard: "ask" | "never" = "ask";
  /** True once the person wanted to choose the account themselves. */
  chose = false;
  readonly #around: Around;
  readonly #paster: Paster;
  #handle: TerminalHandle | undefined;
  #screen: Screen | undefined;
  #early: Uint8Array[] = [];
  #acknowledged = 0;
  #keyAnswer: ((answer: HostKeyAnswer) => void) | undefined;
  #answers: Answers | undefined;
  #resize: ReturnType<typeof setTimeout> | undefined;
  /** Tell the host of a size that it has not heard of. */
  #tell = (): void => {};
  #closed = false;
  #title: string | undefined; // that the host has given, and the page does not have yet
  #titled: ReturnType<typeof setTimeout> | undefined; // since the page had one
  #heardOf = false;
  #half = ""; // of a character that is being typed

  constructor(id: string, machine: string, account: string | null, around: Around) {
    this.#around = around;
    this.pane = signal(newPane(id, machine, account, Date.now()));
    this.element = document.createElement("div");
    this.element.className = "screen";
    this.#paster = paster(
      (bytes) => this.#send(bytes),
      () => this.#taken(),
    );
  }

  get id(): string {
    return this.pane.peek().id;
  }

  get screen(): Screen | undefined {
    return this.#screen;
  }

  files(): FilesHandle | undefined {
    return this.#handle?.files();
  }

  ping(): Promise<number> {
    return this.#handle?.ping() ?? Promise.reject(new Error("no shell is open"));
  }

  // Opening --------------------------------------------------------------------------------------------------------------

  /** Begin, as the pane's account, or another. */
  start(account?: string, keyFile?: KeyFile): void {
    const now = Date.now();
    const chosen = account ?? this.pane.peek().account;
    if (chosen === null) return;
    this.#handle?.forget();
    this.#happens({ is: "chosen", account: chosen, at: now });
    if (!isSecureContext) {
      // Whoever can change the page on its way here has the shell, whatever the page does.
      const failure = { kind: "no-secure-context", message: "", cure: "" } as const;
      this.#happens({ is: "end", status: null, signal: null, failure, at: now });
      return;
    }
    const { columns, rows, machine } = this.pane.peek();
    const handle = this.#around.node.open(
      {
        machine: this.#around.machine(machine),
        name: machine,
        account: chosen,
        columns,
        rows,
        ...(keyFile === undefined ? {} : { keyFile }),
      },
      {
        step: (step) => this.#hears(handle, { is: "step", step }),
        banner: (text) => this.#hears(handle, { is: "banner", text }),
        check: ({ url, code, text }) => {
          const path = checkPath(url, location.href) ?? null;
          this.#hears(handle, { is: "check", path, code, text, at: Date.now() });
        },
        hostKey: (key) =>
          new Promise((resolve) => {
            this.#keyAnswer = resolve;
            this.#hears(handle, { is: "asked", asking: { what: "host-key", key } });
          }),
        ask: (title, text, questions) =>
          new Promise((resolve) => {
            this.#answers = resolve;
            this.#hears(handle, {
              is: "asked",
              asking: { what: "questions", asked: { title, text, questions } },
            });
          }),
        open: () => {
          this.#hears(handle, { is: "open", at: Date.now() });
          if (this.#handle === handle) this.#around.opened(this);
        },
        data: (bytes) => this.#show(handle, bytes),
        link: (state, since) =>
          this.#hears(handle, { is: "link", lost: state === "up" ? null : (since ?? Date.now()) }),
        end: (end) => {
          this.#paster.stop();
          this.#hears(handle, { is: "end", ...end, at: Date.now() });
        },
      },
    );
    this.#handle = handle;
    void this.#prepare();
  }

  /** The same once more: after an end, a refusal, a lost link. */
  again(): void {
    const { phase, account } = this.pane.peek();
    if (phase !== "ended") return;
    if (account === null || this.#handle === undefined) {
      this.#happens({ is: "again", at: Date.now() });
      if (account !== null) this.start(account);
      return;
    }
    this.#screen?.calm();
    this.#title = undefined;
    this.#happens({ is: "again", at: Date.now() });
    this.#handle.again();
    // It opens with the size of then.
    this.#resized(this.#screen?.columns ?? 80, this.#screen?.rows ?? 24);
  }

  /** Ask for the account anew. */
  choose(): void {
    this.#handle?.forget();
    this.#handle = undefined;
    this.chose = true;
    const { id, machine } = this.pane.peek();
    this.pane.value = newPane(id, machine, null, Date.now());
  }

  /** Give up what is being opened. */
  stop(): void {
    this.#keyAnswer?.("refuse");
    this.#answers?.(undefined);
    this.#handle?.close();
  }

  answerKey(answer: HostKeyAnswer): void {
    this.#keyAnswer?.(answer);
    this.#keyAnswer = undefined;
    this.#happens({ is: "answered" });
  }

  answer(answers: string[] | undefined): void {
    this.#answers?.(answers);
    this.#answers = undefined;
    this.#happens({ is: "answered" });
  }

  close(): void {
    this.#closed = true;
    this.stop();
    this.#handle?.forget();
    this.#handle = undefined;
    clearTimeout(this.#resize);
    clearTimeout(this.#titled);
    this.#paster.stop();
    this.#screen?.dispose();
    this.#screen = undefined;
    this.element.remove();
  }

  // Keys and pastes ------------------------------------------------------------------------------------------------------

  /** What a keyboard typed. Enter opens a shell again that has ended. */
  type(text: string): void {
    const { phase, end } = this.pane.peek();
    if (phase === "ended") {
      if (text === "\r" && end?.opened) this.#around.reopen(this);
      return;
    }
    const { ctrl, alt } = this.sticky.peek();
    // What the terminal itself answers begins with an escape, and is nobody's key.
    const typed = (ctrl || alt) && !text.startsWith("\u001b") ? held(text, { ctrl, alt }) : text;
    if (typed !== text) this.sticky.value = { ctrl: false, alt: false };
    if (typed === CTRL_C) this.#paster.stop();
    // Some browsers type what has two code units, as 🚪, one by one: sent alone, each would be no character at all.
    const whole = this.#half + typed;
    this.#half = /[\ud800-\udbff]$/u.test(whole) ? whole.slice(-1) : "";
    this.#send(new TextEncoder().encode(whole.slice(0, whole.length - this.#half.length)));
  }

  async paste(text: string): Promise<void> {
    if (this.pane.peek().phase !== "open") return;
    const bracketed = this.#screen?.bracketed ?? false;
    const lines = linesOf(text);
    if (!bracketed && lines > 0 && !(await this.#around.manyLines(lines, text))) return;
    this.#screen?.focus();
    await this.#paster.paste(text, bracketed);
  }

  // The screen -----------------------------------------------------------------------------------------------------------

  /** Show it here. The screen itself is made once there is something to show. */
  attach(parent: HTMLElement): void {
    if (this.element.parentElement !== parent) parent.append(this.element);
    if (this.#screen !== undefined) this.#screen.fit();
    else void this.#prepare();
  }

  /** About how large the screen will be, before there is one: what a shell is asked for at first. */
  guess(columns: number, rows: number): void {
    if (this.#screen === undefined) this.#happens({ is: "size", columns, rows });
  }

  look(look: Look): void {
    this.#screen?.look(look);
  }

  focus(): void {
    this.#happens({ is: "seen" });
    this.#screen?.focus();
  }

  #preparing = false;

  async #prepare(): Promise<void> {
    if (this.#preparing || this.#screen !== undefined || !this.element.isConnected) return;
    this.#preparing = true;
    const Made = await this.#around.screen();
    this.#preparing = false;
    if (this.#closed || this.#screen !== undefined) return;
    const screen = new Made(this.#around.look(), {
      typed: (text) => this.type(text),
      binary: (bytes) => this.#send(bytes),
      resized: (columns, rows) => this.#resized(columns, rows),
      title: (text) => this.#entitled(text),
      bell: () => this.#happens({ is: "bell" }),
      link: (link, shown) => this.#around.link(link, shown),
      clipboard: (text) => this.#around.clipboard(text, this),
      pasted: (text) => void this.paste(text),
      key: (event) => this.#around.key(event, this),
    });
    this.#screen = screen;
    screen.mount(this.element);
    const early = this.#early;
    this.#early = [];
    for (const bytes of early) this.#draw(bytes);
    if (this.pane.peek().phase === "open" && this.element.offsetParent !== null) screen.focus();
  }

  #show(handle: TerminalHandle, bytes: Uint8Array): void {
    if (handle !== this.#handle) return;
    if (!this.#heardOf) performance.mark("terminal:first-byte"); // how soon it was there, for whoever measures
    this.#heardOf = true;
    if (this.#screen === undefined) this.#early.push(bytes);
    else this.#draw(bytes);
  }

  #draw(bytes: Uint8Array): void {
    const handle = this.#handle;
    for (let at = 0; at < bytes.length; at += PIECE) {
      const piece = bytes.subarray(at, at + PIECE);
      this.#screen?.write(piece, () => {
        // The screen draws many pieces in one go: they are acknowledged in one.
        if (this.#acknowledged === 0) {
          queueMicrotask(() => {
            const count = this.#acknowledged;
            this.#acknowledged = 0;
            handle?.ack(count);
          });
        }
        this.#acknowledged += piece.length;
      });
    }
  }

  #entitled(text: string): void {
    this.#title = text;
    if (this.#titled === undefined) this.#entitle();
  }

  #entitle(): void {
    const text = this.#title;
    this.#title = undefined;
    this.#titled = text === undefined ? undefined : setTimeout(() => this.#entitle(), TITLE_PAUSE);
    if (text !== undefined) this.#happens({ is: "title", text });
  }

  #resized(columns: number, rows: number): void {
    this.#happens({ is: "size", columns, rows });
    clearTimeout(this.#resize);
    this.#tell = () => {
      clearTimeout(this.#resize);
      this.#tell = () => {};
      this.#handle?.resize(columns, rows);
    };
    this.#resize = setTimeout(this.#tell, RESIZE_PAUSE);
  }

  // Within ---------------------------------------------------------------------------------------------------------------

  #send(bytes: Uint8Array): void {
    this.#tell(); // what is typed into a window of a new size is run in one of that size
    try {
      this.#handle?.write(bytes);
    } catch (error) {
      // So much lies before the host that more would only be lost: what is typed now is refused, and the bell says so.
      if (!(error instanceof RangeError)) throw error;
      this.#happens({ is: "bell" });
    }
  }

  /** Wait until the host has taken most of what was sent; at least for the page's next turn. */
  async #taken(): Promise<void> {
    do await new Promise((resolve) => setTimeout(resolve, PASTE_TURN));
    while ((this.#handle?.waiting ?? 0) > PASTE_AHEAD && this.pane.peek().phase === "open");
  }

  #hears(handle: TerminalHandle, what: Happening): void {
    // Not of a connection that another has replaced.
    if (this.#handle === handle) this.#happens(what);
  }

  #happens(what: Happening): void {
    this.pane.value = next(this.pane.peek(), what);
  }
}
