/** A terminal's place on the page: its head, its screen or what stands in that place, and what lies over its edge. */

import { useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { Door } from "../ui/drawings.tsx";
import { Account, Outside } from "../ui/parts.tsx";
import { clock } from "../ui/times.ts";
import type { App } from "./app.ts";
import { ROW } from "./keys.ts";
import * as layouts from "./layout.ts";
import { isClosed } from "./machines.ts";
import { counted, doorOf, ending, type Pane, signedOut } from "./pane.ts";
import { Icon, IconButton } from "./parts.tsx";
import type { Session } from "./session.ts";
import { type Of, useNow } from "./stage.tsx";
import { StepLine, stateOf } from "./states.tsx";

/** The panel of files is loaded when it is first asked for. */
function Files({ app, session }: { app: App; session: Session }) {
  const loaded = useSignal<typeof import("./files.tsx") | null>(null);
  useEffect(() => {
    void import("./files.tsx").then((module) => {
      loaded.value = module;
    });
  }, []);
  return loaded.value && <loaded.value.Files app={app} session={session} />;
}

export function Terminal({ app, session }: { app: App; session: Session }) {
  const pane = session.pane.value;
  const place = useRef<HTMLDivElement>(null);
  const dropping = useSignal(false);
  const current = app.current.value === session;
  const state = stateOf(app, session, pane);
  const shown = state === null;
  // It has its place before there is a shell, which is asked for with the size that is left.
  const opens = pane.phase === "opening" && pane.check === null && pane.asking === null;
  useLayoutEffect(() => {
    guess(place.current!, app, session);
    session.attach(place.current!);
  }, [session]);
  // A screen that was hidden has to measure itself, and the keys go to it.
  useEffect(() => {
    if (!shown) return;
    session.screen?.fit();
    if (current) session.focus();
  }, [shown, current]);
  return (
    <section
      class={`pane ${current ? "current" : ""} ${dropping.value ? "dropping" : ""}`}
      aria-label={`${pane.machine}${pane.account === null ? "" : ` as ${pane.account}`}`}
      onFocusCapture={() => {
        if (!current) app.layout.value = layouts.focused(app.layout.peek(), session.id);
      }}
      onDragOver={(event) => {
        if (pane.phase !== "open" || !event.dataTransfer?.types.includes("Files")) return;
        event.preventDefault();
        event.dataTransfer.dropEffect = "copy";
        dropping.value = true;
      }}
      onDragLeave={() => {
        dropping.value = false;
      }}
      onDrop={(event) => {
        dropping.value = false;
        const files = [...(event.dataTransfer?.files ?? [])];
        if (pane.phase !== "open" || files.length === 0) return;
        event.preventDefault();
        app.filing.value = session.id;
        void import("./files.tsx").then(({ folderOf }) => folderOf(session).upload(files));
      }}
    >
      <Head app={app} session={session} pane={pane} />
      <div class="pane-room">
        <div class="pane-main">
          <div ref={place} class="screen-place" {...(shown ? {} : { "data-away": true })} />
          {state}
          {app.searching.value === session.id && <Search app={app} session={session} />}
          {dropping.value && <p class="drop-here">Drop to send to {pane.machine}</p>}
        </div>
        {app.filing.value === session.id && <Files app={app} session={session} />}
      </div>
      {shown && <Edge app={app} session={session} pane={pane} />}
      {current && (shown || opens) && <Row session={session} />}
    </section>
  );
}

/** How many cells there will be, about: JetBrains Mono is 0.6 em wide, and its lines are 19 px high at 13. */
function guess(place: HTMLElement, app: App, session: Session): void {
  const { fontSize } = app.prefs.peek();
  const { width, height } = place.getBoundingClientRect();
  if (width === 0 || height === 0) return;
  session.guess(
    Math.max(20, Math.floor((width - 40) / (fontSize * 0.6))),
    Math.max(4, Math.floor(height / (fontSize * 1.47))),
  );
}

function Head({ app, session, pane }: Of) {
  const open = pane.phase === "open";
  const closed = pane.phase === "choosing" && isClosed(app.directory.machines.value, pane.machine);
  return (
    <header class="pane-head">
      <Door state={closed ? "barred" : doorOf(pane)} label="" />
      <b>
        <Outside text={pane.machine} limit={63} />
      </b>
      {pane.account !== null && (
        <span class="as">
          as <Account name={pane.account} />
        </span>
      )}
      {pane.check !== null && <StepLine pane={pane} />}
      {pane.title !== "" && (
        <span class="pane-title">
          <Outside text={pane.title} limit={80} />
        </span>
      )}
      <span class="space" />
      {open && (
        <>
          <span class="cells">
            {pane.columns}×{pane.rows}
          </span>
          <IconButton
            icon="files"
            name="Files"
            aria-pressed={app.filing.value === session.id}
            onClick={() => app.does({ do: "files" }, session)}
          />
          <IconButton icon="search" name="Search" onClick={() => app.does({ do: "search" }, session)} />
        </>
      )}
      {app.layout.value.tabs.some((tab) => tab.panes.includes(session.id) && tab.panes.length > 1) && (
        <IconButton icon="close" name={`Close ${pane.machine}`} onClick={() => app.close(session)} />
      )}
    </header>
  );
}

/** Below a screen: a link that is lost, a shell that has ended. */
function Edge({ app, session, pane }: Of) {
  if (pane.phase === "ended" && pane.end !== null) {
    return (
      <div class={`edge ${pane.end.failure === null ? "" : "shut"}`} role="status">
        <Door state="shut" label="" />
        <span>
          {ending(pane.end)}
          {pane.end.failure?.cure && ` ${pane.end.failure.cure}`}
        </span>
        <span class="space" />
        {signedOut(pane, app.signedIn.value) ? (
          <a class="press" {...app.signInAt(pane)}>
            Sign in
          </a>
        ) : (
          <button type="button" class="go" onClick={() => session.again()}>
            Open again
          </button>
        )}
      </div>
    );
  }
  return pane.waiting === null ? null : <Lost app={app} pane={pane} since={pane.waiting} />;
}

/** The link is gone: since when, and when it is looked for again. Where the relay is there, it is the machine that says nothing. */
function Lost({ app, pane, since }: { app: App; pane: Pane; since: number }) {
  const now = useNow();
  const { retry } = app.nodeState.value;
  return (
    <div class="edge ajar" role="status">
      <Icon name="lost" />
      <span>
        {retry === null
          ? `${pane.machine} has not answered since ${clock(since)}.`
          : `Connection to ${pane.machine} lost at ${clock(since)}.`}
        <span class="wide"> What is shown stays, and the shell goes on when it is back.</span>
      </span>
      <span class="space" />
      <span class="cells" aria-hidden="true">
        {retry === null ? counted(now.value - since) : <Trying left={retry - now.value} />}
      </span>
      {retry !== null && (
        <button
          type="button"
          class="press"
          onClick={() => {
            app.node.retry();
            app.focus();
          }}
        >
          Try now
        </button>
      )}
    </div>
  );
}

function Trying({ left }: { left: number }) {
  const seconds = Math.ceil(left / 1_000);
  if (seconds <= 0) return <>Trying now</>;
  return (
    <>
      <span class="wide">Trying again in </span>
      {seconds} s
    </>
  );
}

function Search({ app, session }: { app: App; session: Session }) {
  const field = useRef<HTMLInputElement>(null);
  const count = useSignal("");
  const find = (backwards: boolean) =>
    void session.screen?.find(field.current?.value, backwards, (index, of) => {
      count.value = of === 0 ? "none" : `${index + 1} of ${of}`;
    });
  const end = () => {
    void session.screen?.find(undefined, false);
    app.searching.value = null;
    session.focus();
  };
  // Before the next key comes: it is of what is sought, and no command for the shell.
  useLayoutEffect(() => field.current?.focus(), []);
  return (
    <search>
      <form
        class="search"
        onSubmit={(event) => {
          event.preventDefault();
          find(true);
        }}
        onKeyDown={(event) => {
          if (event.key === "Escape") end();
          if (event.key === "Enter" && event.shiftKey) {
            event.preventDefault();
            find(false);
          }
        }}
      >
        <label class="heard" for={`search-${session.id}`}>
          Search in what {session.pane.value.machine} has shown
        </label>
        <input
          ref={field}
          id={`search-${session.id}`}
          class="field mono"
          placeholder="Search"
          autocomplete="off"
          spellcheck={false}
          onInput={() => find(true)}
        />
        <output class="cells">{count.value}</output>
        <IconButton icon="up" name="The one above" onClick={() => find(true)} />
        <IconButton icon="down" name="The one below" onClick={() => find(false)} />
        <IconButton icon="close" name="Close search" onClick={end} />
      </form>
    </search>
  );
}

/** The keys that a phone's keyboard lacks. Pressing one leaves that keyboard where it is. */
function Row({ session }: { session: Session }) {
  const { ctrl, alt } = session.sticky.value;
  return (
    <div class="key-row" role="toolbar" aria-label="Keys">
      {ROW.map((key) => (
        <button
          key={key.label}
          type="button"
          aria-label={key.name}
          {...(key.sticky === undefined ? {} : { "aria-pressed": key.sticky === "ctrl" ? ctrl : alt })}
          onPointerDown={(event) => event.preventDefault()}
          onClick={() => {
            if (key.sticky !== undefined) {
              session.sticky.value = { ctrl, alt, [key.sticky]: !(key.sticky === "ctrl" ? ctrl : alt) };
            } else session.type(key.sends(session.screen?.applicationKeys ?? false));
          }}
        >
          {key.label}
        </button>
      ))}
    </div>
  );
}
