/**
 * The machines that the page knows, and what became of them while it looked.
 *
 * Changes are taken in place. Which rows are shown, and in which order, stays as it is while somebody reads: a machine that would now
 * be shown waits until they let it in (`waiting`), and one that would not any more stays until then.
 */

import { computed, type ReadonlySignal, type Signal, signal } from "@preact/signals";
import type { Machine } from "../api/types.ts";
import { type Asked, arrange, type Counts, count, matches } from "./machines.ts";

/** What happened to a machine a moment ago. */
export type Lit = "online" | "offline" | "new";

export interface Change {
  readonly name: string;
  readonly what: Lit;
}

export class Fleet {
  /** What is asked of the list. */
  readonly asked: Signal<Asked>;
  /** True once the page has all machines, and not only the first. */
  readonly whole = signal(false);
  /** Ids whose presence changed a moment ago, each with what happened. */
  readonly lit = signal<ReadonlyMap<number, Lit>>(new Map());
  readonly #machines = signal<ReadonlyMap<number, Machine>>(new Map());
  readonly #shown = signal<readonly number[]>([]);
  readonly counts: ReadonlySignal<Counts>;
  readonly rows: ReadonlySignal<readonly Machine[]>;
  /** How many machines would be shown that are not. */
  readonly waiting: ReadonlySignal<number>;

  constructor(first: readonly Machine[], asked: Asked) {
    this.asked = signal(asked);
    this.#machines.value = byId(first);
    this.counts = computed(() => count(this.#machines.value.values()));
    this.rows = computed(() => {
      const known = this.#machines.value;
      return this.#shown.value.flatMap((id) => known.get(id) ?? []);
    });
    this.waiting = computed(() => {
      const shown = new Set(this.#shown.value);
      let due = 0;
      for (const machine of this.#machines.value.values())
        if (!shown.has(machine.id) && matches(machine, this.asked.value)) due += 1;
      return due;
    });
    this.settle();
  }

  get all(): ReadonlyMap<number, Machine> {
    return this.#machines.value;
  }

  /** Show what is asked for as of now. */
  settle(): void {
    this.#shown.value = arrange(this.#machines.value.values(), this.asked.value).map((machine) => machine.id);
  }

  /** Ask for something else. */
  ask(asked: Partial<Asked>): void {
    this.asked.value = { ...this.asked.value, ...asked };
    this.settle();
  }

  /** All machines as of now; `still` while somebody reads the list. */
  replace(machines: readonly Machine[], still: boolean): Change[] {
    const first = !this.whole.value;
    const changes = first ? [] : this.#compare(machines);
    this.#machines.value = byId(machines);
    this.whole.value = true;
    if (first || !still) this.settle();
    this.#light(changes);
    return changes.map(({ change }) => change);
  }

  /** Some of them have changed, or are gone. What became of them, for those who hear the page. */
  change(changed: readonly Machine[], removed: readonly number[], still: boolean): Change[] {
    const changes = this.#compare(changed);
    const machines = new Map(this.#machines.value);
    for (const id of removed) machines.delete(id);
    for (const machine of changed) machines.set(machine.id, machine);
    this.#machines.value = machines;
    if (!still) this.settle();
    this.#light(changes);
    return changes.map(({ change }) => change);
  }

  /** A change is lit for a moment, and then is simply true. */
  fade(id: number): void {
    const lit = new Map(this.lit.value);
    lit.delete(id);
    this.lit.value = lit;
  }

  #compare(changed: readonly Machine[]): { id: number; change: Change }[] {
    return changed.flatMap((machine) => {
      const before = this.#machines.value.get(machine.id);
      const what =
        before === undefined
          ? "new"
          : before.online === machine.online
            ? undefined
            : machine.online
              ? "online"
              : "offline";
      return what === undefined ? [] : [{ id: machine.id, change: { name: machine.name, what } }];
    });
  }

  #light(changes: readonly { id: number; change: Change }[]): void {
    if (changes.length === 0) return;
    const lit = new Map(this.lit.value);
    for (const { id, change } of changes) lit.set(id, change.what);
    this.lit.value = lit;
  }
}

function byId(machines: readonly Machine[]): ReadonlyMap<number, Machine> {
  return new Map(machines.map((machine) => [machine.id, machine]));
}

/** Changes as one sentence for those who hear the page; empty for none. */
export function told(changes: readonly Change[]): string {
  const first = changes[0];
  if (first === undefined) return "";
  if (changes.length > 3) return `${changes.length} machines changed.`;
  const said = { online: "came online", offline: "went offline", new: "is new" };
  return `${changes.map(({ name, what }) => `${name} ${said[what]}`).join(", ")}.`;
}
