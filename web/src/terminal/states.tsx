/** What stands in a terminal's place while there is no shell: the account, the steps, questions, a check, what went wrong. */

import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { lastAccount, wayInto, waysInto } from "../ui/accounts.ts";
import { Door, LargeDoor } from "../ui/drawings.tsx";
import { Account } from "../ui/parts.tsx";
import type { App } from "./app.ts";
import { Failed } from "./failed.tsx";
import { type Explained, explained } from "./failures.ts";
import type { Check, HostKey, Line, Pane, Questions } from "./pane.ts";
import { counted, duration, lines, turned } from "./pane.ts";
import { Icon } from "./parts.tsx";
import type { Session } from "./session.ts";
import { first, KeyFile, type Of, Stage, useNow } from "./stage.tsx";

// As whom -----------------------------------------------------------------------------------------------------------------

/** What helps where no account does. */
const NO_WAY = {
  system: "There is nothing to enter on it: go to another machine.",
  other: "An administrator can change that: ask for it.",
};

export function Choosing({ app, session, pane }: Of) {
  const typed = useSignal("");
  const machines = app.directory.machines.value;
  const machine = app.machineOf(pane.machine);
  if (machines === null) return <p class="quiet-line">Asking which accounts you may use.</p>;
  if (machine === undefined) {
    return <Failed app={app} session={session} pane={pane} state={notHere(pane)} />;
  }
  const ways = waysInto(machine);
  const preferred = wayInto(machine, lastAccount(machine.name));
  if (ways.length === 0) {
    const state = explained(
      { kind: "not-allowed", message: machine.why, cure: NO_WAY[machine.system ? "system" : "other"] },
      machine.name,
      "anybody",
      location.origin,
    );
    const none = {
      state: "No way in",
      title: `You have no way into ${machine.name}`,
      steps: ["Ask an administrator for a rule that names you."],
      retry: null,
    };
    return <Failed app={app} session={session} pane={pane} state={{ ...state, ...none }} />;
  }
  const free = ways.find((way) => way.account === null);
  return (
    <Stage door="ajar" turn={0.4}>
      <h2>As whom?</h2>
      <p>
        The policy lets you into {machine.name} as {free === undefined ? "these" : "any account"}.
      </p>
      <ul class="accounts">
        {machine.ways.map(({ account, check, rule }) => (
          <li key={account}>
            <button
              type="button"
              class={`go ${check ? "asks" : ""}`}
              {...first(preferred?.account === account)}
              onClick={() => app.enter(session, account)}
            >
              <Door state={check ? "ajar" : "open"} label="" />
              <Account name={account} />
            </button>
            <span class="reason">
              {check ? "asks for a check first" : "straight in"}
              {rule !== null && `, by ${rule.name} in line ${rule.line}`}
            </span>
          </li>
        ))}
      </ul>
      {free !== undefined && (
        <form
          class="typed-account"
          onSubmit={(event) => {
            event.preventDefault();
            const account = typed.value.trim();
            if (account !== "") app.enter(session, account);
          }}
        >
          <label for={`account-${session.id}`}>
            {machine.ways.length === 0 ? "Account" : "Another account"}
          </label>
          <input
            id={`account-${session.id}`}
            class="field mono"
            autocomplete="off"
            autocapitalize="none"
            spellcheck={false}
            maxLength={64}
            placeholder={app.directory.me.value?.user.name ?? ""}
            value={typed.value}
            onInput={(event) => {
              typed.value = event.currentTarget.value;
            }}
            {...first(machine.ways.length === 0)}
          />
          <button type="submit" class={`go ${free.asks ? "asks" : ""}`}>
            Enter
          </button>
        </form>
      )}
    </Stage>
  );
}

function notHere(pane: Pane): Explained {
  return explained({ kind: "no-such-machine", message: "", cure: "" }, pane.machine, null, location.origin);
}

// Opening -----------------------------------------------------------------------------------------------------------------

const DOING: Record<Line["name"], string> = {
  relay: "connecting",
  tunnel: "shaking hands",
  "host key": "comparing",
  ssh: "signing in",
  check: "waiting for a yes",
  shell: "waiting for the first byte",
};

export function Opening({ session, pane }: Of) {
  const now = useNow();
  return (
    <div class="opening">
      <LargeDoor state="open" label="opening" opening={turned(pane)} />
      <ol class="steps" aria-label="Steps">
        {lines(pane).map((line) => (
          <li key={line.name} class={line.state}>
            <span class="mark">{line.state === "done" && <Icon name="done" size={15} />}</span>
            <span class="step-name">{line.name}</span>
            <span class="step-detail">
              {line.detail || (line.state === "doing" ? DOING[line.name] : "")}
              {line.name === "ssh" && line.state !== "waits" && line.detail === "" && (
                <>
                  {" "}
                  as <Account name={pane.account ?? ""} />
                </>
              )}
            </span>
            <span class="step-time">
              {line.ms !== null && duration(line.ms)}
              {line.state === "doing" && now.value - pane.since > 1_500 && counted(now.value - pane.since)}
            </span>
          </li>
        ))}
      </ol>
      {pane.banner !== "" && <pre class="banner">{pane.banner}</pre>}
      <p class="promise">The server passes sealed packets. It never sees a byte of this session.</p>
      <button type="button" class="press quiet" onClick={() => session.stop()}>
        Stop
      </button>
    </div>
  );
}

/** The steps in one line, for the head of a terminal that waits. */
export function StepLine({ pane }: { pane: Pane }) {
  return (
    <span class="step-line">
      {lines(pane).map((line) => (
        <span key={line.name} class={line.state}>
          {line.state === "done" && <Icon name="done" size={13} />}
          {line.name === "check" && line.state !== "done" && <Door state="ajar" label="" />}
          {line.name}
        </span>
      ))}
    </span>
  );
}

// A check -----------------------------------------------------------------------------------------------------------------

/** Opens the page of the check in a small window; the door's pages let nobody frame them, so that no click is stolen. */
function openCheck(address: string): Window | null {
  const width = 520;
  const height = Math.min(820, screen.availHeight);
  const left = Math.round(window.screenX + (window.outerWidth - width) / 2);
  const top = Math.round(window.screenY + (window.outerHeight - height) / 2);
  return window.open(
    address,
    "doorward-check",
    `popup,width=${width},height=${height},left=${left},top=${top}`,
  );
}

export function Checking({ app, session, pane, check }: Of & { check: Check }) {
  const now = useNow();
  const small = useRef<Window | null>(null);
  const copied = useSignal(false);
  // The shell goes on by itself; the small window has nothing more to say then.
  useEffect(() => () => small.current?.close(), []);
  const address = check.path === null ? null : `${location.origin}${app.base.slice(0, -1)}${check.path}`;
  const rule = app
    .machineOf(pane.machine)
    ?.ways.find((way) => way.account === pane.account && way.check)?.rule;
  return (
    <Stage door="ajar" turn={0.4}>
      <p class="state ajar">
        <Door state="ajar" label="" />A check is due
      </p>
      <h2>{pane.machine} wants to know it is still you</h2>
      <p>
        {rule ? `Rule ${rule.name}, line ${rule.line}, asks` : "The policy asks"} for a yes before anyone
        becomes <Account name={pane.account ?? ""} />.
      </p>
      {check.code !== null && (
        <div class="code">
          <output class="code-letters" aria-label="Code">
            {check.code}
          </output>
          <span>The approval page must show the same code. If not, say no.</span>
        </div>
      )}
      <p class="buttons">
        {address !== null && (
          <a
            class="go asks"
            href={address}
            target="_blank"
            rel="noopener opener"
            data-first
            onClick={(event) => {
              const opened = openCheck(address);
              if (opened === null) return; // popups are blocked: the link opens a page instead
              event.preventDefault();
              small.current = opened;
            }}
          >
            <Icon name="finger" size={20} />
            Check now
          </a>
        )}
        {address !== null && (
          <button
            type="button"
            class="press"
            onClick={() => {
              navigator.clipboard?.writeText(address).then(
                () => {
                  copied.value = true;
                },
                () => undefined,
              );
            }}
          >
            <Icon name="copy" />
            {copied.value ? "Copied" : "Copy the link"}
          </button>
        )}
        <button type="button" class="press quiet" onClick={() => session.stop()}>
          Stop
        </button>
      </p>
      <p class="waited">
        Waiting for {counted(now.value - check.since)}. The shell opens by itself after the yes.
      </p>
      <figure class="says">
        <figcaption>{pane.machine} says</figcaption>
        <pre>{check.text}</pre>
      </figure>
    </Stage>
  );
}

// The host's key ----------------------------------------------------------------------------------------------------------

export function AskHostKey({ session, pane, asked }: Of & { asked: HostKey }) {
  return (
    <Stage door="ajar" turn={0.4}>
      <p class="state ajar">
        <Icon name="key" />
        Nothing was sent yet
      </p>
      <h2>Is this the key of {pane.machine}?</h2>
      <p>
        {pane.machine} publishes no keys that this page could compare. Compare it with what{" "}
        <code>ssh-keygen -lf</code> says there of the key in <code>/etc/ssh</code>, or ask who looks after it.
      </p>
      <dl class="facts">
        {asked.known !== null && (
          <div>
            <dt>known until now</dt>
            <dd>
              <code>{asked.known}</code>
            </dd>
          </div>
        )}
        <div>
          <dt>what answered</dt>
          <dd>
            <code class={asked.known === null ? "" : "wrong"}>{asked.fingerprint}</code>
          </dd>
        </div>
        <div>
          <dt>kind</dt>
          <dd>
            <code>{asked.kind}</code>
          </dd>
        </div>
      </dl>
      <p class="buttons">
        <button type="button" class="go asks" onClick={() => session.answerKey("remember")}>
          It is, remember it
        </button>
        <button type="button" class="press" onClick={() => session.answerKey("once")}>
          Only this once
        </button>
        <button type="button" class="press" data-first onClick={() => session.answerKey("refuse")}>
          No, stop
        </button>
      </p>
      <p class="waited">
        Remembered keys are kept at the server, for you and this machine. Another key is refused then.
      </p>
    </Stage>
  );
}

// Questions of the host ---------------------------------------------------------------------------------------------------

export function AskQuestions({ app, session, pane, asked }: Of & { asked: Questions }) {
  const form = useRef<HTMLFormElement>(null);
  return (
    <Stage door="ajar" turn={0.4}>
      <p class="state ajar">
        <Door state="ajar" label="" />
        {pane.machine} asks
      </p>
      <h2>{asked.title || `Sign in to ${pane.machine}`}</h2>
      {asked.text !== "" && <pre class="banner">{asked.text}</pre>}
      <form
        ref={form}
        class="questions"
        onSubmit={(event) => {
          event.preventDefault();
          session.answer(asked.questions.map((_, at) => field(form.current!, at).value));
        }}
      >
        {asked.questions.map(({ text, echo }, at) => (
          <div class="question" key={text}>
            <label for={`answer-${session.id}-${at}`}>{text.trim() || "Answer"}</label>
            <Answer id={`answer-${session.id}-${at}`} at={at} echo={echo} />
          </div>
        ))}
        <p class="buttons">
          <button type="submit" class="go asks">
            Answer
          </button>
          <button type="button" class="press quiet" onClick={() => session.answer(undefined)}>
            Stop
          </button>
        </p>
      </form>
      <KeyFile app={app} session={session} pane={pane} />
      <p class="waited">The answers go to {pane.machine} alone, inside ssh. This server does not see them.</p>
    </Stage>
  );
}

function Answer({ id, at, echo }: { id: string; at: number; echo: boolean }) {
  const shared = {
    id,
    name: `answer-${at}`,
    class: "field mono",
    autocomplete: "off",
    spellcheck: false,
    ...first(at === 0),
  };
  return echo ? (
    <input type="text" autocapitalize="none" {...shared} />
  ) : (
    <input type="password" {...shared} />
  );
}

function field(form: HTMLFormElement, at: number): HTMLInputElement {
  return form.elements.namedItem(`answer-${at}`) as HTMLInputElement;
}

/** Which of these a terminal shows; null where its screen is what there is to see. */
export function stateOf(app: App, session: Session, pane: Pane): ComponentChildren {
  const of = { app, session, pane };
  if (pane.phase === "choosing") return <Choosing {...of} />;
  if (pane.asking?.what === "host-key") return <AskHostKey {...of} asked={pane.asking.key} />;
  if (pane.asking?.what === "questions") return <AskQuestions {...of} asked={pane.asking.asked} />;
  if (pane.check !== null) return <Checking {...of} check={pane.check} />;
  if (pane.phase === "opening") return <Opening {...of} />;
  if (pane.end !== null && !pane.end.opened) {
    if (pane.end.failure !== null) return <Failed {...of} />;
  }
  return null;
}
