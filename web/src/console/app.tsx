/** The machines page: what is asked, what is found, what is true now, and every key of it. */

import { signal } from "@preact/signals";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Console, Machine, Machines, MachinesEvent, SessionEvent } from "../api/types.ts";
import type { Common } from "../ui/bootstrap.ts";
import { Dialog } from "../ui/dialog.tsx";
import { Frame, LiveState, Plate } from "../ui/frame.tsx";
import { Icon } from "../ui/icons.tsx";
import { type Keys, listen } from "../ui/keys.ts";
import { Live } from "../ui/live.ts";
import { Button, copy, Key } from "../ui/parts.tsx";
import { turn } from "../ui/scheme.ts";
import css from "./app.module.css";
import { Details } from "./details.tsx";
import { joinCommand, NoMachines, NothingFound } from "./empty.tsx";
import { Chips, Search } from "./filters.tsx";
import { type Change, Fleet, told } from "./fleet.ts";
import { List } from "./list.tsx";
import { ALL, readAsked, writeAsked } from "./machines.ts";
import { type Offer, offersOf, Palette } from "./palette.tsx";

/** What the server puts into the page. */
export interface Start extends Common {
  /** Where machines join. */
  readonly control: string;
  readonly you: Console;
  /** The first machines by name; all of them only if there are few. */
  readonly machines: readonly Machine[];
}

const SAID_EVERY = 5_000; // milliseconds between sentences for those who hear the page
const TICK = 1_000;

const KEYS: readonly (readonly [key: string, what: string])[] = [
  ["J K", "move in the list; arrows do too"],
  ["Enter", "look at the machine"],
  ["S", "SSH, as the account taken last"],
  ["Shift S", "SSH, choose as whom"],
  ["C", "copy the address"],
  ["/", "search the list"],
  ["Ctrl K", "go to, run"],
  ["T", "light, dark, or as the system"],
  ["?", "these keys"],
  ["Esc", "back"],
];

/** What goes on around the list, beyond what is drawn: the stream, the clock, and what was heard. */
export class Hall {
  readonly fleet: Fleet;
  readonly live: Live;
  readonly you;
  readonly now = signal(Date.now());
  readonly said = signal("");
  readonly glint = signal(0);
  readonly #api: string;
  /** Somebody reads the list: nothing moves under them. */
  reading = false;
  #unsaid: Change[] = [];
  #saidAt = 0;
  #glinted = 0;

  constructor(start: Start) {
    this.#api = `${start.base}api/v1/console`;
    this.fleet = new Fleet(start.machines, readAsked(location.search));
    this.you = signal(start.you);
    if (start.machines.length >= start.you.counts.machines) this.fleet.whole.value = true;
    this.live = new Live(`${this.#api}/events`, {
      open: () => void this.#all(),
      event: ({ event, data }) => {
        if (event === "session")
          return this.live.end((JSON.parse(data) as SessionEvent).state === "suspended");
        if (event !== "machines") return;
        const { changed, removed } = JSON.parse(data) as MachinesEvent;
        this.#tell(this.fleet.change(changed, removed, this.reading));
      },
    });
    setInterval(() => this.#tick(), TICK);
    this.live.start();
  }

  /** All machines, whenever the stream has begun: what happened before is in the answer, what happens after comes by the stream. */
  async #all(): Promise<void> {
    const [you, machines] = await Promise.all([
      ask<Console>(this.#api),
      ask<Machines>(`${this.#api}/machines`),
    ]);
    if (you !== undefined) this.you.value = you;
    if (machines !== undefined) this.#tell(this.fleet.replace(machines.machines, this.reading));
  }

  #tell(changes: readonly Change[]): void {
    if (changes.length === 0) return;
    this.#unsaid.push(...changes);
    if (Date.now() - this.#glinted > 2_000) {
      this.#glinted = Date.now();
      this.glint.value += 1;
    }
  }

  #tick(): void {
    const now = Date.now();
    this.now.value = now;
    if (this.#unsaid.length > 0 && now - this.#saidAt > SAID_EVERY) {
      this.said.value = told(this.#unsaid);
      this.#unsaid = [];
      this.#saidAt = now;
    }
  }
}

async function ask<T>(address: string): Promise<T | undefined> {
  try {
    const answer = await fetch(address, { cache: "no-store" });
    return answer.ok ? ((await answer.json()) as T) : undefined;
  } catch {
    return undefined; // the stream is down too, and says so
  }
}

/** Whether the page is as narrow as a phone. */
function usePhone(): boolean {
  const query = useMemo(() => matchMedia("(width < 720px)"), []);
  const [phone, setPhone] = useState(query.matches);
  useEffect(() => {
    const changed = () => setPhone(query.matches);
    query.addEventListener("change", changed);
    return () => query.removeEventListener("change", changed);
  }, [query]);
  return phone;
}

/** A menu of ways in that a key opens: it is drawn with its row. */
function openMenu(machine: Machine): boolean {
  const button = document.querySelector<HTMLElement>(`[data-menu="ssh-${machine.id}"]`);
  button?.click();
  return button !== null;
}

function AllKeys({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Keys" onClose={onClose}>
      <dl class={css.allkeys}>
        {KEYS.map(([key, what]) => (
          <div key={key}>
            <dt>
              {key.split(" ").map((one) => (
                <Key key={one}>{one}</Key>
              ))}
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
    </Dialog>
  );
}

type Shown = { what: "palette" } | { what: "keys" } | { what: "machine"; id: number } | undefined;

export function App({ start, hall }: { start: Start; hall: Hall }) {
  const { base } = start;
  const { fleet, live } = hall;
  const phone = usePhone();
  const field = useRef<HTMLInputElement>(null);
  const [current, setCurrent] = useState(-1);
  const [led, setLed] = useState({ to: 0, times: 0 });
  const [shown, setShown] = useState<Shown>();
  const you = hall.you.value;
  const rows = fleet.rows.value;
  const counts = fleet.counts.value;
  const link = live.link.value;
  const asked = fleet.asked.value;
  const usual = writeAsked({ ...asked, sort: "name", down: false }) === "";
  const coming = fleet.whole.value || !usual ? 0 : Math.max(0, you.counts.machines - counts.all);
  const total = fleet.whole.value ? counts.all : Math.max(counts.all, you.counts.machines);
  const online = fleet.whole.value ? counts.chips.online : you.counts.online;
  const openTo = fleet.whole.value ? counts.open : undefined;
  const others = [...fleet.all.values()].some((machine) => !machine.system);
  const isEmpty = fleet.whole.value && !others;

  useEffect(() => {
    const query = writeAsked(asked);
    if (query !== location.search) history.replaceState(null, "", `${location.pathname}${query}`);
  }, [asked]);

  // Keys may come faster than the page is drawn: they go by what is true, not by what was drawn last.
  const at = useRef(-1);
  const stand = (index: number) => {
    at.current = index;
    setCurrent(index);
  };
  useEffect(() => {
    const move = (step: number) => {
      const count = fleet.rows.value.length;
      if (count === 0) return;
      const to = Math.min(count - 1, Math.max(0, at.current + step));
      stand(to);
      setLed(({ times }) => ({ to, times: times + 1 }));
    };
    const here = () => fleet.rows.value[at.current];
    const keys: Keys = {
      J: () => move(1),
      K: () => move(at.current < 0 ? 1 : -1),
      ArrowDown: () => move(1),
      ArrowUp: () => move(at.current < 0 ? 1 : -1),
      Home: () => move(Number.NEGATIVE_INFINITY),
      End: () => move(Number.POSITIVE_INFINITY),
      Enter: (event) => {
        const target = event.target instanceof Element ? event.target.closest("a, button") : null;
        const machine = here();
        if (target instanceof HTMLElement) target.click();
        else if (machine) setShown({ what: "machine", id: machine.id });
      },
      S: () => {
        const machine = here();
        if (!machine) return;
        const button = document.querySelector<HTMLElement>(`[data-ssh="${machine.id}"]`);
        if (button) button.click();
        else openMenu(machine);
      },
      "Shift+S": () => {
        const machine = here();
        if (machine && !openMenu(machine)) setShown({ what: "machine", id: machine.id });
      },
      C: () => {
        const address = here()?.addresses[0];
        if (address !== undefined) void copy(address);
        else if (fleet.whole.value) void copy(joinCommand(start.control));
      },
      T: () => turn(base),
      "/": () => field.current?.focus(),
      "?": () => setShown({ what: "keys" }),
      "Ctrl+K": () => setShown({ what: "palette" }),
    };
    return listen(keys);
  }, [fleet, base, start.control]);

  const offers = useMemo<Offer[]>(() => {
    if (shown?.what !== "palette") return [];
    const act = (name: string, what: () => void): Offer => ({
      id: `do-${name}`,
      group: "Do",
      words: name.toLowerCase(),
      name,
      icon: "light",
      note: "",
      act: what,
    });
    return [
      ...offersOf(fleet.all.values(), base, (machine) => setShown({ what: "machine", id: machine.id })),
      {
        id: "go-me",
        group: "Go to",
        words: "my sign-ins passkeys me",
        name: "My sign-ins",
        icon: "key",
        note: "",
        address: `${base}me`,
      },
      act("Switch light and dark", () => turn(base)),
      act("Show all machines", () => fleet.ask(ALL)),
    ];
  }, [shown, base]);

  const looked = shown?.what === "machine" ? fleet.all.get(shown.id) : undefined;
  const over = link.state === "over";
  const waiting = fleet.waiting.value;

  return (
    <>
      <Frame
        tailnet={start.tailnet}
        base={base}
        lost={link.state === "lost" || over}
        glint={hall.glint.value}
        entries={[
          { name: "Machines", icon: "machines", address: `${base}machines`, count: total, here: true },
          { name: "My sign-ins", icon: "key", address: `${base}me` },
        ]}
        search={
          phone ? (
            isEmpty ? null : (
              <Search fleet={fleet} field={field} total={total} />
            )
          ) : (
            <button type="button" class={css.goto} onClick={() => setShown({ what: "palette" })}>
              <Icon name="search" size={17} />
              <span>Go to, run</span>
              <Key>Ctrl K</Key>
            </button>
          )
        }
        plate={<Plate you={you} now={hall.now.value} base={base} />}
        state={
          over && link.suspended ? (
            <span class={css.over} role="status">
              <b>{you.user.name} is suspended.</b> An administrator can say why, and restore you.
            </span>
          ) : over ? (
            <span class={css.over} role="status">
              <b>You are signed out.</b>
              <a href={`${base}signin?next=${encodeURIComponent(location.pathname + location.search)}`}>
                Sign in again
              </a>
            </span>
          ) : (
            <LiveState link={link} now={hall.now.value} again={() => live.again()} />
          )
        }
        facts={
          <>
            <b>{online}</b> of {total} online
          </>
        }
        keys={
          isEmpty
            ? [
                ["C", "copy"],
                ["?", "all keys"],
              ]
            : [
                ["J K", "move"],
                ["Enter", "look"],
                ["S", "SSH"],
                ["/", "search"],
                ["?", "all keys"],
              ]
        }
      >
        {isEmpty ? (
          <NoMachines control={start.control} live={link.state === "live"} />
        ) : (
          <>
            <header class={css.top}>
              <h1>Machines</h1>
              {phone ? (
                <p>
                  {online} of {total} online
                </p>
              ) : (
                <p>
                  {online === 0 ? "None is online." : `${online} online.`}{" "}
                  {openTo !== undefined &&
                    (openTo === 0
                      ? "You have a way into none of them."
                      : `You have a way into ${openTo} of them.`)}
                </p>
              )}
            </header>
            <div class={css.tools}>
              {!phone && <Search fleet={fleet} field={field} total={total} />}
              <Chips fleet={fleet} />
              {waiting > 0 && (
                <Button small onClick={() => fleet.settle()}>
                  {waiting} new
                </Button>
              )}
            </div>
            <List
              fleet={fleet}
              current={Math.min(current, rows.length - 1)}
              led={led}
              here={you.device}
              base={base}
              now={hall.now.value}
              phone={phone}
              coming={coming}
              empty={<NothingFound onAll={() => fleet.ask({ ...ALL, sort: asked.sort, down: asked.down })} />}
              onCurrent={stand}
              onOpen={(machine) => setShown({ what: "machine", id: machine.id })}
              onReading={(reading) => {
                hall.reading = reading;
              }}
            />
          </>
        )}
        <p class="heard" aria-live="polite">
          {hall.said.value}
        </p>
      </Frame>
      {shown?.what === "palette" && (
        <Palette
          offers={offers}
          who={`${you.user.name}, ${you.user.role}`}
          onClose={() => setShown((now) => (now?.what === "palette" ? undefined : now))}
        />
      )}
      {shown?.what === "keys" && <AllKeys onClose={() => setShown(undefined)} />}
      {looked !== undefined && (
        <Details
          key={looked.id}
          machine={looked}
          base={base}
          onClose={() => setShown((now) => (now?.what === "machine" ? undefined : now))}
        />
      )}
    </>
  );
}
