/** What the states of a terminal without a shell are made of. */

import { type Signal, useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { DOOR_SAYS, type DoorState, LargeDoor } from "../ui/drawings.tsx";
import type { App } from "./app.ts";
import type { Pane } from "./pane.ts";
import type { Session } from "./session.ts";

/** A terminal, as every part of the page is given it. */
export interface Of {
  app: App;
  session: Session;
  pane: Pane;
}

/** Now, every second while somebody looks at a clock that counts. */
export function useNow(): Signal<number> {
  const now = useSignal(Date.now());
  useEffect(() => {
    const timer = setInterval(() => {
      now.value = Date.now();
    }, 1_000);
    return () => clearInterval(timer);
  }, []);
  return now;
}

/** Marks what the keys go to first. */
export function first(yes: boolean): object {
  return yes ? { "data-first": true } : {};
}

/** The door at the left, the words at the right. */
export function Stage({
  door,
  turn,
  children,
}: {
  door: DoorState;
  turn: number;
  children: ComponentChildren;
}) {
  const words = useRef<HTMLDivElement>(null);
  useEffect(() => {
    // Keys go to the first thing to do, unless somebody is typing elsewhere.
    const busy = document.activeElement?.closest("dialog, input, .xterm") ?? null;
    if (busy === null || busy.closest(".pane") === words.current?.closest(".pane")) {
      words.current?.querySelector<HTMLElement>("[data-first]")?.focus({ preventScroll: true });
    }
  }, []);
  return (
    <div class="stage">
      <LargeDoor state={door} label={DOOR_SAYS[door]} opening={turn} />
      <div class="stage-words" ref={words}>
        {children}
      </div>
    </div>
  );
}

/** A private key from a file: read into the part of this page that connects, and forgotten with it. */
export function KeyFile({ app, session, pane }: Of) {
  const file = useSignal<File | null>(null);
  const phrase = useSignal("");
  const enter = async () => {
    const chosen = file.peek();
    if (chosen === null || pane.account === null) return;
    const bytes = new Uint8Array(await chosen.arrayBuffer());
    const passphrase = phrase.peek();
    app.enter(session, pane.account, passphrase === "" ? { bytes } : { bytes, passphrase });
  };
  return (
    <details class="key-file">
      <summary>Sign in with a private key</summary>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void enter();
        }}
      >
        <label>
          Key file
          <input
            type="file"
            onChange={(event) => {
              file.value = event.currentTarget.files?.[0] ?? null;
            }}
          />
        </label>
        <label>
          Its passphrase, if it has one
          <input
            class="field mono"
            type="password"
            autocomplete="off"
            value={phrase.value}
            onInput={(event) => {
              phrase.value = event.currentTarget.value;
            }}
          />
        </label>
        <button type="submit" class="press" disabled={file.value === null}>
          {file.value === null ? "Choose a file first" : "Enter with this key"}
        </button>
        <p class="waited">It is read in this page alone, never sent, and forgotten when the page closes.</p>
      </form>
    </details>
  );
}
