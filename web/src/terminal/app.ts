/** The page as a whole: its terminals, where they stand, and what is asked over them. No drawing here. */

import { computed, effect, type Signal, signal } from "@preact/signals";
import type { Machine } from "../api/types.ts";
import { type KeyFile, NodeClient, type NodeState } from "../node/client.ts";
import { rememberAccount } from "../ui/accounts.ts";
import { isDark, scheme } from "../ui/scheme.ts";
import { type Command, commandOf } from "./keys.ts";
import * as layouts from "./layout.ts";
import { Directory, named } from "./machines.ts";
import { HEALS, lives, type Pane, SIGNED_OUT, signedOut } from "./pane.ts";
import { load, type Prefs, resized, save } from "./prefs.ts";
import type { SafeLink } from "./safety.ts";
import type { Look, Screen, ScreenEvents } from "./screen.ts";
import { type Around, Session } from "./session.ts";

const KEPT = "doorward.terminal.tabs";

export interface Start {
  base: string;
  tailnet: string;
  version: string;
  machine: string;
  /** Its number; absent where the person sees no such machine. */
  number?: number;
  /** Absent where the address names none. */
  account?: string | null;
  /** Where the console is with https, ending in a slash; absent where there is no such address. */
  secure?: string | null;
}

export type Over =
  | { is: "link"; link: SafeLink; shown: string }
  | { is: "clipboard"; text: string; session: Session }
  | { is: "lines"; lines: number; text: string; answer: (yes: boolean) => void }
  | { is: "close"; session: Session }
  | { is: "palette"; into: "tab" | "split" };

export class App implements Around {
  readonly base: string;
  readonly tailnet: string;
  readonly secure: string | null;
  readonly api: string;
  readonly node: NodeClient;
  readonly directory: Directory;
  readonly mac: boolean;
  readonly layout: Signal<layouts.Layout> = signal(layouts.EMPTY);
  readonly sessions: Signal<ReadonlyMap<string, Session>> = signal(new Map());
  readonly over: Signal<Over | null> = signal(null);
  readonly prefs: Signal<Prefs>;
  readonly nodeState: Signal<NodeState>;
  /** What was open before a reload, beside what the address says. */
  readonly before: Signal<layouts.Kept>;
  /** The terminals beside which a search, or the files, are shown. */
  readonly searching: Signal<string | null> = signal(null);
  readonly filing: Signal<string | null> = signal(null);
  readonly full: Signal<boolean> = signal(false);
  /** When somebody was found to have signed in again, ms. */
  readonly signedIn: Signal<number> = signal(0);
  readonly current = computed(() => this.sessions.value.get(layouts.current(this.layout.value) ?? ""));
  readonly #start: Start;
  #ids = 0;
  #screen: Promise<typeof Screen> | undefined;

  constructor(start: Start, node?: NodeClient) {
    this.#start = start;
    this.base = start.base;
    this.tailnet = start.tailnet;
    this.secure = start.secure ?? null;
    this.api = `${start.base}api/v1`;
    this.mac = /Mac|iPhone|iPad/u.test(navigator.platform);
    this.prefs = signal(load(localStorage));
    this.node = node ?? new NodeClient({ api: this.api });
    this.nodeState = signal(this.node.state);
    this.node.onNode((state) => {
      this.nodeState.value = state;
    });
    this.directory = new Directory(this.api, () => this.node.told());
    const here = { machine: start.machine, account: start.account ?? null };
    this.before = signal(layouts.others(layouts.kept(sessionStorage.getItem(KEPT)), here));
    this.open(here, "tab");
    this.#watch();
    this.directory.start();
  }

  // Terminals ------------------------------------------------------------------------------------------------------------

  /** A terminal more: in a tab of its own, or beside the one that has the keys. */
  open(place: layouts.Place, into: "tab" | "split"): Session | undefined {
    const id = `p${this.#ids++}`;
    const before = this.layout.peek();
    const layout = into === "tab" ? layouts.withTab(before, `t${id}`, id) : layouts.withSplit(before, id);
    if (layouts.current(layout) !== id) return undefined; // no room
    const session = new Session(id, place.machine, place.account, this);
    const known = this.current.peek()?.pane.peek();
    if (known !== undefined) session.guess(known.columns, known.rows);
    this.sessions.value = new Map(this.sessions.peek()).set(id, session);
    this.layout.value = layout;
    if (place.account !== null) this.enter(session, place.account);
    return session;
  }

  /** Go in as this account, which is remembered for the machine. */
  enter(session: Session, account: string, keyFile?: KeyFile): void {
    rememberAccount(session.pane.peek().machine, account);
    session.start(account, keyFile);
  }

  /** Close one; a live one only after a question. */
  close(session: Session, asked = false): void {
    const pane = session.pane.peek();
    if (!asked && pane.phase === "open") {
      this.over.value = { is: "close", session };
      return;
    }
    session.close();
    const left = new Map(this.sessions.peek());
    left.delete(session.id);
    if (this.searching.peek() === session.id) this.searching.value = null;
    if (this.filing.peek() === session.id) this.filing.value = null;
    this.layout.value = layouts.without(this.layout.peek(), session.id);
    this.sessions.value = left;
    if (left.size === 0) location.assign(`${this.base}machines`);
    else this.focus();
  }

  /** What was open before a reload, all of it. */
  openBefore(): void {
    for (const tab of this.before.peek()) {
      for (const [at, place] of tab.entries()) this.open(place, at === 0 ? "tab" : "split");
    }
    this.before.value = [];
  }

  /** Give the keys back to the terminal that has them. */
  focus(): void {
    this.current.peek()?.focus();
  }

  show(layout: layouts.Layout): void {
    this.layout.value = layout;
    this.focus();
  }

  /** Where a person signs in, to come back to this terminal. */
  signInAt(pane: Pane): { href: string; target?: string; rel?: string } {
    const href = `${this.base}signin?next=${encodeURIComponent(layouts.pathOf(this.base, pane))}`;
    // What else is open here stays, and goes on when it hears of the sign-in.
    return this.sessions.value.size > 1 ? { href, target: "_blank", rel: "opener" } : { href };
  }

  reopen(session: Session): void {
    const pane = session.pane.peek();
    if (!signedOut(pane, this.signedIn.peek())) {
      session.again();
      return;
    }
    const { href, target } = this.signInAt(pane);
    open(href, target ?? "_self");
  }

  // Around a session -----------------------------------------------------------------------------------------------------

  look(): Look {
    const { fontSize, reader, scrollback } = this.prefs.peek();
    return { dark: isDark(), fontSize, reader, scrollback };
  }

  screen(): Promise<new (look: Look, events: ScreenEvents) => Screen> {
    this.#screen ??= import("./screen.ts").then(async (module) => {
      await module.fontReady(this.prefs.peek().fontSize);
      return module.Screen;
    });
    return this.#screen;
  }

  machine(name: string): number | string {
    // The one of the address is known before any list is there.
    const { machine, number } = this.#start;
    return this.machineOf(name)?.id ?? (name === machine ? number : undefined) ?? name;
  }

  machineOf(name: string): Machine | undefined {
    return named(this.directory.machines.value ?? [], name);
  }

  #command(event: KeyboardEvent): Command | undefined {
    const altGraph = event.getModifierState("AltGraph");
    const { key, code, ctrlKey, altKey, shiftKey, metaKey } = event;
    return commandOf({ key, code, ctrlKey, altKey, shiftKey, metaKey, altGraph }, this.mac);
  }

  key(event: KeyboardEvent, session: Session): boolean {
    const command = this.#command(event);
    if (command === undefined) return false;
    // By these keys the browser itself pastes, and asks nobody whether it may.
    if (command.do !== "paste" && event.type === "keydown") {
      event.preventDefault();
      this.does(command, session);
    }
    return true;
  }

  link(link: SafeLink, shown: string): void {
    // Where the screen shows the very address, the click was the answer.
    if (!link.disguised && (shown === link.href || `${shown}/` === link.href)) follow(link);
    else this.over.value = { is: "link", link, shown };
  }

  clipboard(text: string, session: Session): void {
    if (session.clipboard === "never") return;
    // One question at a time: what is asked about does not change under the person's hands.
    const ask = () => {
      if (this.over.peek() === null) this.over.value = { is: "clipboard", text, session };
    };
    // Some browsers let nothing be written but after a click or a key: then the question is the click.
    const id = this.machineOf(session.pane.peek().machine)?.id;
    const always = this.prefs.peek().clipboard.some((one) => one.id === id);
    if (always) navigator.clipboard?.writeText(text).catch(ask);
    else ask();
  }

  manyLines(lines: number, text: string): Promise<boolean> {
    if (this.over.peek() !== null) return Promise.resolve(false);
    return new Promise((answer) => {
      this.over.value = {
        is: "lines",
        lines,
        text,
        answer: (yes) => {
          this.over.value = null;
          answer(yes);
          queueMicrotask(() => this.focus());
        },
      };
    });
  }

  opened(session: Session): void {
    const focus = () => {
      if (this.current.peek() === session) session.focus();
    };
    queueMicrotask(focus);
    requestAnimationFrame(focus); // what was hidden under an end takes no focus before it is drawn
  }

  // Commands -------------------------------------------------------------------------------------------------------------

  does(command: Command, session: Session | undefined = this.current.peek()): void {
    switch (command.do) {
      case "new-tab":
      case "palette":
        this.over.value = { is: "palette", into: "tab" };
        return;
      case "split":
        this.over.value = { is: "palette", into: "split" };
        return;
      case "close":
        if (session !== undefined) this.close(session);
        return;
      case "search":
        this.searching.value = session?.id ?? null;
        return;
      case "files":
        this.filing.value = this.filing.peek() === session?.id ? null : (session?.id ?? null);
        if (this.filing.peek() === null) this.focus();
        return;
      case "copy":
        this.copy(session);
        return;
      case "paste":
        return; // the browser does it
      case "tab":
        this.show(layouts.tabAt(this.layout.peek(), command.index));
        return;
      case "pane":
        this.show(layouts.stepped(this.layout.peek(), command.step));
        return;
      case "size":
        this.prefer({ fontSize: resized(this.prefs.peek().fontSize, command.step) });
        return;
      case "full-screen":
        void this.fullScreen();
        return;
    }
  }

  copy(session: Session | undefined): void {
    const text = session?.screen?.selection ?? "";
    if (text !== "") navigator.clipboard?.writeText(text).catch(() => undefined);
  }

  prefer(change: Partial<Prefs>): void {
    this.prefs.value = { ...this.prefs.peek(), ...change };
    save(localStorage, this.prefs.peek());
  }

  /** The whole screen, and with it the keys that a browser keeps for itself elsewhere. */
  async fullScreen(): Promise<void> {
    const { keyboard } = navigator as Navigator & {
      keyboard?: { lock?: (keys?: string[]) => Promise<void>; unlock?: () => void };
    };
    try {
      if (document.fullscreenElement !== null) {
        keyboard?.unlock?.();
        await document.exitFullscreen();
      } else {
        await document.documentElement.requestFullscreen({ navigationUI: "hide" });
        // Escape too goes to the shell then; held down, it leads out.
        await keyboard?.lock?.();
      }
    } catch {
      // A browser or a person that does not want it.
    }
    this.focus();
  }

  // Watching -------------------------------------------------------------------------------------------------------------

  #watch(): void {
    effect(() => {
      void scheme.value; // isDark asks for it only where the person has not chosen
      const look = { ...this.prefs.value, dark: isDark() };
      for (const session of this.sessions.value.values()) session.look(look);
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const session of this.sessions.peek().values()) session.look(this.look());
    });
    // The address is that of the terminal that has the keys; the tab of the browser has its name.
    effect(() => {
      const pane = this.current.value?.pane.value;
      if (pane === undefined) return;
      const path = layouts.pathOf(this.base, pane);
      if (location.pathname !== path) history.replaceState(null, "", path);
      document.title = titleOf(pane, this.tailnet);
    });
    effect(() => {
      const sessions = this.sessions.value;
      const kept = layouts.keep(this.layout.value, (id) => {
        const pane = sessions.get(id)?.pane.value;
        return pane !== undefined && lives(pane) ? pane : undefined;
      });
      try {
        sessionStorage.setItem(KEPT, kept);
      } catch {
        // Nothing is offered after a reload then.
      }
    });
    // Only the tab that is shown draws.
    effect(() => {
      const { tabs, active } = this.layout.value;
      for (const tab of tabs) {
        for (const id of tab.panes) this.sessions.value.get(id)?.screen?.show(tab.id === active);
      }
    });
    // One way into the machine and nothing to choose: straight in.
    effect(() => {
      for (const session of this.sessions.value.values()) {
        const pane = session.pane.value;
        if (pane.phase !== "choosing" || session.chose) continue;
        const machine = this.machineOf(pane.machine);
        if (machine === undefined) continue;
        const [only, ...more] = machine.ways;
        if (only !== undefined && more.length === 0 && !machine.any_account)
          this.enter(session, only.account);
      }
    });
    // What could not be opened because the machine was away is tried again when it is there.
    const was = new Map<number, boolean>();
    effect(() => {
      for (const machine of this.directory.machines.value ?? []) {
        const ready = machine.online && machine.ssh !== "unknown";
        const before = was.get(machine.id);
        was.set(machine.id, ready);
        if (before !== false || !ready) continue;
        for (const session of this.sessions.peek().values()) {
          const { phase, end, machine: name } = session.pane.peek();
          const waits =
            phase === "ended" && end !== null && !end.opened && HEALS.has(end.failure?.kind ?? "");
          if (waits && name.toLowerCase() === machine.name.toLowerCase()) session.again();
        }
      }
    });
    document.addEventListener("fullscreenchange", () => {
      this.full.value = document.fullscreenElement !== null;
    });
    addEventListener("beforeunload", (event) => {
      if ([...this.sessions.peek().values()].some((one) => one.pane.peek().phase === "open"))
        event.preventDefault();
    });
    // The page's keys count wherever the focus is. A screen asks about each of its own; text elsewhere has the clipboard's.
    addEventListener("keydown", (event) => {
      const session = this.current.peek();
      if (session === undefined || event.defaultPrevented || event.isComposing) return;
      if (document.querySelector("dialog[open]") !== null) return;
      const command = this.#command(event)?.do;
      if (command !== undefined && command !== "copy" && command !== "paste") this.key(event, session);
    });
    const back = () => void this.#signedInAgain();
    addEventListener("focus", back);
    document.addEventListener("visibilitychange", back);
  }

  /** Somebody comes back to this page whose sign-in was over: if there is a new one, its terminals go on. */
  async #signedInAgain(): Promise<void> {
    const over = [...this.sessions.peek().values()].filter((one) =>
      SIGNED_OUT.has(one.pane.peek().end?.failure?.kind ?? ""),
    );
    if (over.length === 0 || document.visibilityState !== "visible") return;
    await this.directory.refresh();
    if (this.directory.me.peek()?.signed_in !== true) return;
    this.directory.live.back();
    this.signedIn.value = Date.now();
    for (const session of over) if (!session.pane.peek().end?.opened) session.again();
  }
}

/** Follow a link: in a page of its own that knows nothing of this one. */
export function follow(link: SafeLink): void {
  open(link.href, "_blank", "noopener,noreferrer");
}

export function titleOf(pane: Pane, tailnet: string): string {
  const name = pane.account === null ? pane.machine : `${pane.account}@${pane.machine}`;
  return `${pane.title === "" ? name : `${pane.title} · ${name}`} · ${tailnet}`;
}
