/** The machines that this person sees, as they are now: asked for at first, then told of each change by the server. */

import { type Signal, signal } from "@preact/signals";
import type { Console, Machine, Machines, MachinesEvent } from "../api/types.ts";
import { waysInto } from "../ui/accounts.ts";
import { Live } from "../ui/live.ts";
import type { ServerEvent } from "../ui/sse.ts";

/** The list after an event. */
export function after(machines: readonly Machine[], event: MachinesEvent): Machine[] {
  const gone = new Set([...event.removed, ...event.changed.map((one) => one.id)]);
  const all = [...machines.filter((one) => !gone.has(one.id)), ...event.changed];
  return all.sort((one, other) =>
    one.name < other.name ? -1 : one.name > other.name ? 1 : one.id - other.id,
  );
}

/** The machine by the name in an address, which may be in other letters. */
export function named(machines: readonly Machine[], name: string): Machine | undefined {
  const low = name.toLowerCase();
  return machines.find((one) => one.name.toLowerCase() === low);
}

/** Whether it is known that there is no way into the machine of this name: it is not there, or lets this person in as nobody. */
export function isClosed(machines: readonly Machine[] | null, name: string): boolean {
  if (machines === null) return false;
  const machine = named(machines, name);
  return machine === undefined || waysInto(machine).length === 0;
}

export class Directory {
  /** Null until they are known. */
  readonly machines: Signal<Machine[] | null> = signal(null);
  readonly me: Signal<Console | null> = signal(null);
  readonly live: Live;
  readonly #api: string;
  readonly #told: (event: "tab" | "session") => void;

  /**
   * @param api where the API is, as `/api/v1`.
   * @param told that something about this page's node, or about who is signed in, has changed.
   */
  constructor(api: string, told: (event: "tab" | "session") => void) {
    this.#api = api;
    this.#told = told;
    this.live = new Live(`${api}/console/events`, {
      // What was missed meanwhile is asked for as a whole.
      open: () => void this.refresh(),
      event: (event) => this.#heard(event),
    });
  }

  /** Ask who sits here and what there is, and listen from then on. */
  start(): void {
    this.live.start();
  }

  async refresh(): Promise<void> {
    const [me, machines] = await Promise.all([
      this.#get<Console>("/console"),
      this.#get<Machines>("/console/machines"),
    ]);
    if (me !== undefined) this.me.value = me;
    if (machines !== undefined) this.machines.value = machines.machines;
  }

  #heard({ event, data }: ServerEvent): void {
    if (event === "machines") {
      this.machines.value = after(this.machines.peek() ?? [], JSON.parse(data) as MachinesEvent);
    } else if (event === "tab" || event === "session") {
      this.#told(event);
    }
  }

  async #get<T>(path: string): Promise<T | undefined> {
    try {
      const answer = await fetch(this.#api + path, { headers: { accept: "application/json" } });
      return answer.ok ? ((await answer.json()) as T) : undefined;
    } catch {
      return undefined; // no connection: the terminals say so, and the stream comes back by itself
    }
  }
}
