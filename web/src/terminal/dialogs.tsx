/** What is asked over the page. */

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Dialog, Modal } from "../ui/dialog.tsx";
import { Door } from "../ui/drawings.tsx";
import { Outside } from "../ui/parts.tsx";
import { type App, follow, type Over } from "./app.ts";
import { offers } from "./finding.ts";
import { Keys } from "./parts.tsx";
import { withFiller } from "./prefs.ts";
import { cleanLines } from "./safety.ts";

const PREVIEW = 600; // characters of a text that is asked about

export function Dialogs({ app }: { app: App }) {
  const over = app.over.value;
  if (over === null) return null;
  switch (over.is) {
    case "link":
      return <AskLink key="link" app={app} over={over} />;
    case "clipboard":
      return <AskClipboard key="clipboard" app={app} over={over} />;
    case "lines":
      return <AskLines key="lines" over={over} />;
    case "close":
      return <AskClose key="close" app={app} over={over} />;
    case "palette":
      return <Palette key="palette" app={app} over={over} />;
  }
}

type Of<Kind extends Over["is"]> = { app: App; over: Extract<Over, { is: Kind }> };

function end(app: App): void {
  app.over.value = null;
  queueMicrotask(() => app.focus());
}

function AskLink({ app, over }: Of<"link">) {
  return (
    <Dialog look="ask" title={`Open ${over.link.host}?`} onClose={() => end(app)}>
      {over.shown !== "" && (
        <p>
          The terminal shows it as “<Outside text={over.shown} limit={80} />
          ”.
        </p>
      )}
      <pre class="preview">{over.link.href}</pre>
      {over.link.disguised && (
        <p class="problem">
          A name stood before the host in this address, to look like another. It was left out.
        </p>
      )}
      <p class="buttons">
        <button type="button" class="press" data-first onClick={() => end(app)}>
          Stay here
        </button>
        <button
          type="button"
          class="press main"
          onClick={() => {
            follow(over.link);
            end(app);
          }}
        >
          Open it
        </button>
      </p>
    </Dialog>
  );
}

function AskClipboard({ app, over }: Of<"clipboard">) {
  const always = useSignal(false);
  const { machine } = over.session.pane.peek();
  const known = app.machineOf(machine);
  const say = (yes: boolean) => {
    if (!yes) over.session.clipboard = "never";
    else {
      if (always.peek() && known !== undefined) {
        const { id, name } = known;
        app.prefer({ clipboard: withFiller(app.prefs.peek().clipboard, { id, name }) });
      }
      navigator.clipboard?.writeText(over.text).catch(() => undefined);
    }
    end(app);
  };
  return (
    <Dialog look="ask" title={`Let ${machine} fill your clipboard?`} onClose={() => end(app)}>
      <p>
        It offers {over.text.length} {over.text.length === 1 ? "character" : "characters"}. What you paste
        next would be this:
      </p>
      <pre class="preview">{cleanLines(over.text, PREVIEW)}</pre>
      {known !== undefined && (
        <label class="menu-line">
          <input
            type="checkbox"
            checked={always.value}
            onChange={(event) => {
              always.value = event.currentTarget.checked;
            }}
          />
          Do not ask again for {machine}
        </label>
      )}
      <p class="buttons">
        <button type="button" class="press" data-first onClick={() => say(false)}>
          Not in this terminal
        </button>
        <button type="button" class="press main" onClick={() => say(true)}>
          Fill it
        </button>
      </p>
    </Dialog>
  );
}

function AskLines({ over }: { over: Extract<Over, { is: "lines" }> }) {
  return (
    <Dialog look="ask" title={`Paste ${over.lines + 1} lines?`} onClose={() => over.answer(false)}>
      <p>What runs there does not know of pastes: each line runs as soon as it arrives.</p>
      <pre class="preview">{cleanLines(over.text, PREVIEW)}</pre>
      <p class="buttons">
        <button type="button" class="press" data-first onClick={() => over.answer(false)}>
          Leave it
        </button>
        <button type="button" class="press main" onClick={() => over.answer(true)}>
          Paste them
        </button>
      </p>
    </Dialog>
  );
}

function AskClose({ app, over }: Of<"close">) {
  const { machine, account } = over.session.pane.peek();
  return (
    <Dialog look="ask" title={`Close ${machine} as ${account}?`} onClose={() => end(app)}>
      <p>The shell ends, and what runs in it.</p>
      <p class="buttons">
        <button type="button" class="press" data-first onClick={() => end(app)}>
          Keep it
        </button>
        <button
          type="button"
          class="press danger"
          onClick={() => {
            app.over.value = null;
            app.close(over.session, true);
          }}
        >
          Close it
        </button>
      </p>
    </Dialog>
  );
}

function Palette({ app, over }: Of<"palette">) {
  const typed = useSignal("");
  const at = useSignal(0);
  const list = useRef<HTMLDivElement>(null);
  const found = offers(app.directory.machines.value ?? [], typed.value);
  const chosen = Math.min(at.value, found.length - 1);
  useEffect(() => {
    list.current?.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: "nearest" });
  }, [chosen]);
  const go = (index: number, other: boolean) => {
    const offer = found[index];
    if (offer === undefined || offer.door === "shut") return;
    const into = other === (over.into === "tab") ? "split" : "tab";
    app.over.value = null;
    app.open({ machine: offer.machine, account: offer.account }, into);
    queueMicrotask(() => app.focus());
  };
  return (
    <Modal back={false} class="palette" aria-labelledby="palette-title" onClose={() => end(app)}>
      <h2 id="palette-title">{over.into === "tab" ? "New terminal" : "Beside this one"}</h2>
      <input
        class="palette-field"
        data-first
        role="combobox"
        aria-label="Machine or account"
        aria-expanded="true"
        aria-controls="offers"
        aria-autocomplete="list"
        {...(found.length > 0 ? { "aria-activedescendant": `offer-${chosen}` } : {})}
        placeholder="Machine or account"
        autocomplete="off"
        spellcheck={false}
        value={typed.value}
        onInput={(event) => {
          typed.value = event.currentTarget.value;
          at.value = 0;
        }}
        onKeyDown={(event) => {
          if (event.key === "ArrowDown") at.value = Math.min(found.length - 1, chosen + 1);
          else if (event.key === "ArrowUp") at.value = Math.max(0, chosen - 1);
          else if (event.key === "Enter") go(chosen, event.ctrlKey || event.metaKey);
          else return;
          event.preventDefault();
        }}
      />
      <div ref={list} id="offers" class="offers" role="listbox" aria-label="Ways in">
        {found.map((offer, index) => (
          <div
            key={`${offer.machine}/${offer.account}`}
            id={`offer-${index}`}
            role="option"
            tabIndex={-1}
            aria-selected={index === chosen}
            aria-disabled={offer.door === "shut"}
            onPointerMove={() => {
              at.value = index;
            }}
            onClick={(event) => go(index, event.ctrlKey || event.metaKey)}
            onKeyDown={() => undefined}
          >
            <Door state={offer.door} label="" />
            <b>
              <Outside text={offer.machine} limit={63} />
            </b>
            {offer.account !== null && (
              <>
                as <code>{offer.account}</code>
              </>
            )}
            <span class={`offer-note ${offer.door}`}>{offer.note}</span>
          </div>
        ))}
      </div>
      {found.length === 0 && (
        <p class="quiet-line">
          {app.directory.machines.value === null
            ? "Asking for the machines."
            : "No machine or account is called so."}
        </p>
      )}
      <p class="palette-keys">
        <Keys keys={["↑", "↓"]} /> choose <Keys keys={["Enter"]} />{" "}
        {over.into === "tab" ? "in a tab" : "beside"} <Keys keys={["Ctrl", "Enter"]} />{" "}
        {over.into === "tab" ? "beside" : "in a tab"}
      </p>
    </Modal>
  );
}
