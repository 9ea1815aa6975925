/** What is said where no shell came: what happened, why, and what to do; with what was tried. */

import { useSignal } from "@preact/signals";
import { waysInto } from "../ui/accounts.ts";
import { Door } from "../ui/drawings.tsx";
import { type Explained, explained } from "./failures.ts";
import { duration, lines } from "./pane.ts";
import { Icon, Words } from "./parts.tsx";
import { first, KeyFile, type Of, Stage } from "./stage.tsx";

/** Failures after which a key of the person's own may help. */
const SIGNS: ReadonlySet<string> = new Set(["refused", "no-account"]);

export function Failed({ app, session, pane, state }: Of & { state?: Explained }) {
  const details = useSignal(false);
  const failure = pane.end?.failure ?? null;
  const told =
    state ??
    explained(
      failure ?? { kind: "server", message: "", cure: "" },
      pane.machine,
      pane.account,
      location.origin,
      app.secure === null ? null : `${app.secure}${location.pathname.slice(app.base.length)}`,
    );
  const machine = app.machineOf(pane.machine);
  const elsewhere =
    failure?.kind !== "no-secure-context" &&
    machine !== undefined &&
    waysInto(machine).some((way) => way.account !== pane.account);
  return (
    <Stage door={told.door} turn={0}>
      <p class={`state ${told.door}`}>
        {told.door === "barred" ? <Icon name="stop" /> : <Door state="shut" label="" />}
        {told.state}
      </p>
      <h2>
        <Words text={told.title} />
      </h2>
      <p>
        <Words text={told.why} />
      </p>
      {told.facts.length > 0 && (
        <dl class="facts">
          {told.facts.map(({ name, text, wrong }) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>
                <code class={wrong ? "wrong" : ""}>{text}</code>
              </dd>
            </div>
          ))}
        </dl>
      )}
      <h3>What to do</h3>
      <ol class="cures">
        {told.steps.map((step) => (
          <li key={step}>
            <Words text={step} />
          </li>
        ))}
      </ol>
      {told.samples.map(({ name, text }) => (
        <figure key={name} class="says whole">
          <figcaption>{name}</figcaption>
          <pre>{text}</pre>
        </figure>
      ))}
      <p class="buttons">
        {told.elsewhere !== null && (
          <a class="press main" href={told.elsewhere} data-first>
            Open it there
          </a>
        )}
        {told.signIn && (
          <a class="press main" {...app.signInAt(pane)} data-first>
            Sign in
          </a>
        )}
        {told.retry !== null && (
          <button
            type="button"
            class={`press ${told.signIn ? "" : "main"}`}
            {...first(!told.signIn)}
            onClick={() => session.again()}
          >
            <Icon name="again" />
            {told.retry}
          </button>
        )}
        {elsewhere && (
          <button type="button" class="press" onClick={() => session.choose()}>
            Another account
          </button>
        )}
        {(pane.steps.length > 0 || failure?.detail) && (
          <button
            type="button"
            class="press"
            aria-expanded={details.value}
            onClick={() => {
              details.value = !details.value;
            }}
          >
            What was tried
          </button>
        )}
        <a class="press quiet" href={`${app.base}machines`}>
          Back to machines
        </a>
      </p>
      {details.value && (
        <div class="tried">
          <ol class="steps">
            {lines(pane).map((line) => (
              <li key={line.name} class={line.state}>
                <span class="mark">
                  {line.state === "done" && <Icon name="done" size={15} />}
                  {line.state === "failed" && <Icon name="close" size={15} />}
                </span>
                <span class="step-name">{line.name}</span>
                <span class="step-detail">{line.detail}</span>
                <span class="step-time">{line.ms !== null && duration(line.ms)}</span>
              </li>
            ))}
          </ol>
          {failure?.detail && <pre class="banner">{failure.detail}</pre>}
        </div>
      )}
      {SIGNS.has(told.kind) && machine?.ssh !== "tailscale" && (
        <KeyFile app={app} session={session} pane={pane} />
      )}
      {pane.banner !== "" && (
        <figure class="says">
          <figcaption>{pane.machine} says</figcaption>
          <pre>{pane.banner}</pre>
        </figure>
      )}
      {told.listens !== null && (
        <p class="waited">Listening for {told.listens}. This page goes on by itself then.</p>
      )}
      <p class="kind">
        <code>{told.kind}</code>
      </p>
    </Stage>
  );
}
