/** The doorway that every page stands in: the lintel above, the jamb at the left, the sill below, and the room. */

import type { ComponentChildren } from "preact";
import type { Console } from "../api/types.ts";
import { Door, Lamp } from "./drawings.tsx";
import css from "./frame.module.css";
import { Icon, type IconName } from "./icons.tsx";
import type { Link } from "./live.ts";
import { group, item, Menu, note } from "./menu.tsx";
import { Arch, Button, classes, Key, Outside } from "./parts.tsx";
import { choose, SCHEMES, scheme } from "./scheme.ts";
import { ago, clock, left } from "./times.ts";
import { methodName } from "./words.ts";

export interface Entry {
  readonly name: string;
  readonly icon: IconName;
  readonly address: string;
  readonly count?: number;
  readonly here?: boolean;
}

/** Who is asking, in which role, from where, and how it is known. Its foot drains while the proof ages. */
export function Plate({ you, now, base }: { you: Console; now: number; base: string }) {
  const { user } = you;
  const proven = you.proven === null ? undefined : Date.parse(you.proven);
  const from = you.device === null ? "" : `, from ${you.device}`;
  const known =
    proven === undefined
      ? "known by this device"
      : `${methodName(you.method)} ${now - proven < 60_000 ? "just now" : `${ago(proven, now)} ago`}`;
  const full = proven === undefined ? 0 : left(proven, now);
  return (
    <Menu
      class={css.plate}
      face={
        <>
          <Arch name={user.name} id={user.id} size={30} />
          <span class={css.who}>
            <b>
              <Outside text={user.name} limit={40} />
            </b>
            <span class={css.known}>
              <span class={css.role}>
                {user.role}
                {from} <span aria-hidden="true">·</span>{" "}
              </span>
              {known}
            </span>
          </span>
          <svg class={css.gauge} viewBox="0 0 100 2" preserveAspectRatio="none" aria-hidden="true">
            <path d={`M0 1H${(full * 100).toFixed(1)}`} />
          </svg>
        </>
      }
    >
      <div class={css.account}>
        <b>
          <Outside text={user.display_name} limit={60} />
        </b>
        <span>
          {user.role}
          {from}, {known}
        </span>
      </div>
      <div class={group} id="scheme">
        Colours
      </div>
      <div class={css.schemes} role="group" aria-labelledby="scheme">
        {SCHEMES.map((one) => (
          <button
            key={one}
            type="button"
            class={item}
            aria-pressed={scheme.value === one}
            onClick={() => choose(one, base)}
          >
            {{ system: "As the system", light: "Light", dark: "Dark" }[one]}
            {scheme.value === one && (
              <span class={note}>
                <Icon name="done" size={15} />
              </span>
            )}
          </button>
        ))}
      </div>
      <a class={item} href={`${base}me`}>
        <Icon name="key" />
        My sign-ins
      </a>
      {you.signed_in ? (
        <form method="post" action={`${base}signout`}>
          <button type="submit" class={item}>
            <Icon name="leave" />
            Sign out
          </button>
        </form>
      ) : (
        <a
          class={item}
          href={`${base}signin?next=${encodeURIComponent(location.pathname + location.search)}`}
        >
          <Icon name="leave" />
          Sign in
          <span class={note}>to open a terminal</span>
        </a>
      )}
    </Menu>
  );
}

/** Whether what is shown is true now, and since when not. */
export function LiveState({ link, now, again }: { link: Link; now: number; again: () => void }) {
  if (link.state === "lost") {
    const seconds = Math.max(0, Math.ceil((link.next - now) / 1000));
    return (
      <span class={css.state} role="status">
        <Icon name="lost" size={16} />
        <span>
          <b>Connection lost.</b> Shown as of {clock(link.since)}.
          <span aria-hidden="true">{seconds > 0 ? ` Trying again in ${seconds} s.` : " Trying again."}</span>
        </span>
        <Button kind="quiet" small onClick={again}>
          Retry
        </Button>
      </span>
    );
  }
  return (
    <span class={css.state}>
      <Lamp state={link.state === "live" ? "online" : "waits"} label="" />
      <b>{link.state === "live" ? "Live" : "Connecting"}</b>
    </span>
  );
}

export function Frame({
  tailnet,
  base,
  entries,
  search,
  plate,
  state,
  facts,
  keys,
  lost,
  glint,
  children,
}: {
  tailnet: string;
  base: string;
  entries: readonly Entry[];
  /** What stands in the middle of the lintel. */
  search: ComponentChildren;
  plate: ComponentChildren;
  state: ComponentChildren;
  /** What is true now, beside the state. */
  facts: ComponentChildren;
  keys: readonly (readonly [key: string, what: string])[];
  lost: boolean;
  /** Rises with each event on the wire. */
  glint: number;
  children: ComponentChildren;
}) {
  return (
    <div class={css.frame}>
      <a class={css.skip} href="#room">
        To the content
      </a>
      <header class={css.lintel}>
        <a class={css.brand} href={base}>
          <Door state="open" label="" size={21} />
          <span>
            <Outside text={tailnet} limit={63} />
          </span>
        </a>
        <div class={css.search}>{search}</div>
        {plate}
      </header>
      <nav class={css.jamb} aria-label="Pages">
        {entries.map((entry) => (
          <a
            key={entry.name}
            class={css.entry}
            href={entry.address}
            title={entry.name}
            aria-current={entry.here ? "page" : undefined}
          >
            <Icon name={entry.icon} size={19} />
            <span class={css.words}>{entry.name}</span>
            {entry.count !== undefined && <span class={css.number}>{entry.count}</span>}
          </a>
        ))}
      </nav>
      <main id="room" class={css.room} tabIndex={-1}>
        {children}
      </main>
      <footer class={classes(css.sill, lost && css.lost)}>
        {glint > 0 && <span key={glint} class={css.glint} />}
        {state}
        <span class={css.facts}>{facts}</span>
        <span class={css.keys}>
          {keys.map(([key, what]) => (
            <span key={key}>
              {key.split(" ").map((one) => (
                <Key key={one}>{one}</Key>
              ))}
              {what}
            </span>
          ))}
        </span>
      </footer>
    </div>
  );
}
