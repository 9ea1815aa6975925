/** The page around the terminals: tabs and the person in the beam above, the node and the keys on the sill below. */

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Door, Lamp } from "../ui/drawings.tsx";
import { Arch, Outside } from "../ui/parts.tsx";
import { choose, SCHEMES, scheme } from "../ui/scheme.ts";
import { clock } from "../ui/times.ts";
import type { App } from "./app.ts";
import { Dialogs } from "./dialogs.tsx";
import { labels } from "./keys.ts";
import * as layouts from "./layout.ts";
import { isClosed } from "./machines.ts";
import { doorOf, signedOut, word } from "./pane.ts";
import { Terminal } from "./panes.tsx";
import { Icon, IconButton, Keys } from "./parts.tsx";

export function Frame({ app }: { app: App }) {
  const { tabs, active } = app.layout.value;
  const tab = tabs.find((one) => one.id === active);
  const current = app.current.value?.pane.value;
  return (
    <div class={`terminals ${app.full.value ? "full" : ""}`}>
      <Lintel app={app} />
      <Before app={app} />
      <main class={`panes panes-${tab?.panes.length ?? 0}`} id="room">
        {tab?.panes.map((id) => {
          const session = app.sessions.value.get(id);
          return session && <Terminal key={id} app={app} session={session} />;
        })}
      </main>
      <Sill app={app} />
      <Dialogs app={app} />
      <p class="heard" aria-live="polite">
        {current && `${current.machine}: ${word(current) || (current.phase === "open" ? "open" : "")}`}
      </p>
    </div>
  );
}

function Lintel({ app }: { app: App }) {
  const { tabs, active } = app.layout.value;
  const me = app.directory.me.value;
  const strip = useRef<HTMLDivElement>(null);
  useEffect(() => {
    strip.current
      ?.querySelector('[aria-selected="true"]')
      ?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [active]);
  return (
    <header class="lintel">
      <h1 class="heard">Terminals</h1>
      <a class="home" href={`${app.base}machines`} aria-label="Machines" title="Machines">
        <Door state="open" label="" size={20} />
      </a>
      <div
        ref={strip}
        class="strip"
        role="tablist"
        aria-label="Terminals"
        onKeyDown={(event) => {
          const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
          if (step === 0) return;
          event.preventDefault();
          const at = tabs.findIndex((tab) => tab.id === active);
          app.layout.value = layouts.tabAt(app.layout.peek(), (at + step + tabs.length) % tabs.length);
          queueMicrotask(() => strip.current?.querySelector<HTMLElement>('[aria-selected="true"]')?.focus());
        }}
      >
        {tabs.map((tab) => (
          <TabOf key={tab.id} app={app} tab={tab} chosen={tab.id === active} />
        ))}
      </div>
      <IconButton icon="plus" name="New terminal" onClick={() => app.does({ do: "new-tab" })} />
      <span class="space" />
      <IconButton icon="split" name="Split" roomy onClick={() => app.does({ do: "split" })} />
      <Type app={app} />
      <IconButton
        roomy
        icon="full"
        name={app.full.value ? "Leave full screen" : "Full screen"}
        onClick={() => app.does({ do: "full-screen" })}
      />
      {me !== null && (
        <a class="plate" href={`${app.base}me`}>
          <Arch name={me.user.name} id={me.user.id} />
          <b>
            <Outside text={me.user.name} limit={40} />
          </b>
          {me.device !== null && (
            <span class="from">
              from <Outside text={me.device} limit={40} />
            </span>
          )}
        </a>
      )}
    </header>
  );
}

function TabOf({ app, tab, chosen }: { app: App; tab: layouts.Tab; chosen: boolean }) {
  const session = app.sessions.value.get(tab.focus);
  if (session === undefined) return null;
  const pane = session.pane.value;
  const all = tab.panes.flatMap((id) => app.sessions.value.get(id) ?? []);
  const closed = pane.phase === "choosing" && isClosed(app.directory.machines.value, pane.machine);
  const says = closed ? "no way in" : word(pane);
  const door = closed ? "barred" : doorOf(pane);
  const close = () => {
    for (const one of all) app.close(one);
  };
  const rang = !chosen && all.some((one) => one.pane.value.rang);
  return (
    <div class={`tab ${chosen ? "chosen" : ""}`}>
      <button
        type="button"
        role="tab"
        aria-selected={chosen}
        tabIndex={chosen ? 0 : -1}
        aria-controls="room"
        onClick={() => app.show({ ...app.layout.peek(), active: tab.id })}
        aria-keyshortcuts="Delete"
        onKeyDown={(event) => {
          if (event.key === "Delete") close();
        }}
        onAuxClick={(event) => {
          if (event.button === 1) close();
        }}
      >
        <Door state={door} label="" />
        <span class="tab-name">
          <Outside text={pane.machine} limit={63} />
        </span>
        {pane.account !== null && <code>{pane.account}</code>}
        {all.length > 1 && <span class="tab-more">+{all.length - 1}</span>}
        {says !== "" && <span class={`tab-word ${door}`}>{says}</span>}
        {rang && <span class="tab-word ajar">bell</span>}
      </button>
      {/* For the pointer; the keyboard has Delete on the tab, and readers hear of that. */}
      <button
        type="button"
        class="icon-button"
        aria-hidden="true"
        tabIndex={-1}
        title="Close"
        onClick={close}
      >
        <Icon name="close" size={15} />
      </button>
    </div>
  );
}

/** How the type looks, and the whole page. */
function Type({ app }: { app: App }) {
  const open = useSignal(false);
  const box = useRef<HTMLDivElement>(null);
  const { fontSize, reader, clipboard } = app.prefs.value;
  useEffect(() => {
    if (!open.value) return;
    const away = (event: Event) => {
      if (!box.current?.contains(event.target as Node)) open.value = false;
    };
    const leave = (event: KeyboardEvent) => {
      if (event.key !== "Escape") return;
      open.value = false;
      app.focus();
    };
    addEventListener("pointerdown", away);
    addEventListener("keydown", leave);
    return () => {
      removeEventListener("pointerdown", away);
      removeEventListener("keydown", leave);
    };
  }, [open.value]);
  return (
    <div class="type" ref={box}>
      <button
        type="button"
        class="icon-button"
        aria-label="Type and colours"
        title="Type and colours"
        aria-expanded={open.value}
        onClick={() => {
          open.value = !open.value;
        }}
      >
        <Icon name="type" />
      </button>
      {open.value && (
        <div class="menu">
          <div class="menu-line">
            <span>Size of type</span>
            <button
              type="button"
              class="press"
              aria-label="Smaller"
              onClick={() => app.does({ do: "size", step: -1 })}
            >
              −
            </button>
            <output>{fontSize}</output>
            <button
              type="button"
              class="press"
              aria-label="Larger"
              onClick={() => app.does({ do: "size", step: 1 })}
            >
              +
            </button>
          </div>
          <fieldset class="menu-line">
            <legend>Colours</legend>
            {SCHEMES.map((one) => (
              <label key={one}>
                <input
                  type="radio"
                  name="scheme"
                  checked={scheme.value === one}
                  onChange={() => choose(one, app.base)}
                />
                {one}
              </label>
            ))}
          </fieldset>
          <label class="menu-line">
            <input
              type="checkbox"
              checked={reader}
              onChange={(event) => app.prefer({ reader: event.currentTarget.checked })}
            />
            Read the screen out (for screen readers)
          </label>
          {clipboard.length > 0 && (
            <>
              <p class="menu-head">May fill your clipboard unasked</p>
              <ul class="fillers">
                {clipboard.map(({ id, name }) => (
                  <li key={id} class="menu-line">
                    <Outside text={name} limit={63} />
                    <button
                      type="button"
                      class="press"
                      aria-label={`Ask again for ${name}`}
                      onClick={() => app.prefer({ clipboard: clipboard.filter((one) => one.id !== id) })}
                    >
                      Ask again
                    </button>
                  </li>
                ))}
              </ul>
            </>
          )}
        </div>
      )}
    </div>
  );
}

/** What was open before a reload. */
function Before({ app }: { app: App }) {
  const count = app.before.value.reduce((sum, tab) => sum + tab.length, 0);
  if (count === 0) return null;
  const names = [...new Set(app.before.value.flat().map((place) => place.machine))];
  return (
    <p class="before" role="status">
      <span>
        {count === 1 ? "One more terminal was" : `${count} more terminals were`} open here:{" "}
        {names.slice(0, 4).join(", ")}
        {names.length > 4 && ` and ${names.length - 4} more`}.
      </span>
      <button type="button" class="press" onClick={() => app.openBefore()}>
        Open {count === 1 ? "it" : "them"} again
      </button>
      <button
        type="button"
        class="press quiet"
        onClick={() => {
          app.before.value = [];
        }}
      >
        No
      </button>
    </p>
  );
}

const RELAYS = {
  none: "not connected yet",
  connecting: "connecting",
  up: "connected",
  waiting: "connection lost",
} as const;

function Sill({ app }: { app: App }) {
  const node = app.nodeState.value;
  const pane = app.current.value?.pane.value;
  const keys = labels(app.mac);
  const link = app.directory.live.link.value;
  const dashed = node.relay === "waiting" || link.state === "lost";
  const bad = pane?.phase === "ended" && pane.end?.failure;
  return (
    <footer class={`sill ${dashed ? "lost" : ""} ${bad ? "bad" : ""}`}>
      <Lamp state={node.relay === "up" ? "online" : node.relay === "none" ? "offline" : "waits"} label="" />
      {node.over === null ? (
        <>
          <span>
            <b>One node for all tabs</b>
            <span class="wide">
              {node.addresses.length > 0 && ` ${node.addresses[0]}`}, gone when this window closes
            </span>
          </span>
          <span class="wide">relay {RELAYS[node.relay]}</span>
        </>
      ) : (
        <span>
          <b>No node any more</b>
          <span class="wide">, a new shell makes another</span>
        </span>
      )}
      {link.state === "lost" && <span>server not heard since {clock(link.since)}</span>}
      <span class="space" />
      {pane?.phase === "ended" && pane.end?.opened ? (
        <span class="hint">
          <Keys keys={["Enter"]} /> {signedOut(pane, app.signedIn.value) ? "sign in" : "open again"}
        </span>
      ) : (
        <>
          <span class="hint">
            <Keys keys={keys.newTab} /> new tab
          </span>
          <span class="hint">
            <Keys keys={keys.split} /> split
          </span>
          <span class="hint">
            <Keys keys={keys.search} /> search
          </span>
        </>
      )}
    </footer>
  );
}
