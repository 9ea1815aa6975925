/** One machine in the list: who and where it is, and the person's own way in. */

import type { Machine } from "../api/types.ts";
import {
  lastAccount,
  rememberAccount,
  terminalAddress,
  type Way,
  wayInto,
  waysInto,
} from "../ui/accounts.ts";
import { Door, Lamp, type LampState } from "../ui/drawings.tsx";
import { Icon } from "../ui/icons.tsx";
import { group, item, Menu, note } from "../ui/menu.tsx";
import { Account, Arch, Button, Copied, classes, Enter, Outside, Tag } from "../ui/parts.tsx";
import { ago, moment } from "../ui/times.ts";
import type { Lit } from "./fleet.ts";
import css from "./list.module.css";
import { hasWay, systemName } from "./machines.ts";

/** Where a lamp stands. */
export function lampOf(machine: Machine): LampState {
  if (machine.expired) return "expired";
  return machine.online ? "online" : "offline";
}

/** What is said of a way beside its account. */
export function wayNote(machine: Machine, way: Way): string {
  if (!way.asks) return "";
  return machine.ssh === "tailscale" ? "asks for a check" : "the host asks";
}

/** Whose a machine is: its tags, or a person. */
export function Belongs({ machine }: { machine: Machine }) {
  if (machine.tags.length > 0) {
    return (
      <span class={css.tags}>
        {machine.tags.map((tag) => (
          <Tag key={tag} name={tag} />
        ))}
      </span>
    );
  }
  return (
    <span class={css.person}>
      {machine.user_id !== null && <Arch name={machine.user} id={machine.user_id} />}
      <span class={css.cut}>
        <Outside text={machine.user} limit={60} />
      </span>
    </span>
  );
}

/** The person's ways into a machine, each with its door; without one, the shut door and the reason. */
export function Ways({ machine, most = 2 }: { machine: Machine; most?: number }) {
  if (!hasWay(machine)) {
    return (
      <span class={css.none} title={machine.why}>
        <Door state="shut" label="" />
        no way in
      </span>
    );
  }
  const ways = waysInto(machine);
  return (
    <span class={css.ways}>
      {ways.slice(0, most).map((way) => (
        <span key={way.account} class={css.way} title={wayNote(machine, way)}>
          <Door state={way.asks ? "ajar" : "open"} />
          {way.account === null ? <span class={css.any}>any account</span> : <Account name={way.account} />}
        </span>
      ))}
      {ways.length > most && <span class={css.more}>+{ways.length - most}</span>}
    </span>
  );
}

/** Everything one can go in as, with the account that the person names themselves last. */
export function WayItems({ machine, base }: { machine: Machine; base: string }) {
  const last = lastAccount(machine.name);
  return (
    <>
      <div class={group}>
        SSH to <Outside text={machine.name} limit={40} /> as
      </div>
      {machine.ways.map((way) => (
        <a
          key={way.account}
          class={item}
          href={terminalAddress(base, machine.name, way.account)}
          onClick={() => rememberAccount(machine.name, way.account)}
        >
          <Door state={way.check ? "ajar" : "open"} label="" />
          <Account name={way.account} />
          <span class={note}>
            {[way.check && "asks for a check", way.account === last && "last time"]
              .filter(Boolean)
              .join(", ")}
          </span>
        </a>
      ))}
      {machine.any_account && (
        <form
          class={css.other}
          onSubmit={(event) => {
            event.preventDefault();
            const named = new FormData(event.currentTarget as HTMLFormElement).get("account");
            const account = String(named ?? "").trim();
            if (account === "") return;
            rememberAccount(machine.name, account);
            location.assign(terminalAddress(base, machine.name, account));
          }}
        >
          <label>
            {machine.ways.length > 0 ? "Another account" : "Account"}
            <input
              name="account"
              autocomplete="off"
              autocapitalize="none"
              spellcheck={false}
              maxLength={256}
              required
              placeholder={last ?? ""}
            />
          </label>
          <Button type="submit">Go in</Button>
        </form>
      )}
    </>
  );
}

/** The button, with the account that it takes; where there are several, the others beside it. */
export function Ssh({ machine, base, quiet }: { machine: Machine; base: string; quiet: boolean }) {
  if (!hasWay(machine)) return null;
  const last = lastAccount(machine.name);
  const way = wayInto(machine, last);
  if (way === undefined) return null;
  const several = waysInto(machine).length > 1;
  const marked = `ssh-${machine.id}`;
  const named = `${machine.name}${way.account === null ? "" : ` as ${way.account}`}`;
  const face = (
    <>
      <Icon name="shell" size={15} />
      SSH
    </>
  );
  if (way.account === null) {
    return (
      <Menu
        marked={marked}
        label={`SSH to ${machine.name}, and say as whom`}
        class={classes(css.name_it, quiet && css.quiet, way.asks && css.asks)}
        face={face}
      >
        <WayItems machine={machine} base={base} />
      </Menu>
    );
  }
  return (
    <span class={css.ssh}>
      <Enter
        asks={way.asks}
        quiet={quiet}
        href={terminalAddress(base, machine.name, way.account)}
        aria-label={`SSH to ${named}${way.asks ? `, ${wayNote(machine, way)}` : ""}`}
        title={`as ${way.account}`}
        data-ssh={machine.id}
        onClick={(event) => event.stopPropagation()}
      >
        {face}
      </Enter>
      {several && (
        <Menu
          marked={marked}
          label={`Choose as whom to go in to ${machine.name}`}
          class={classes(css.choose, quiet && css.quiet)}
          face={<Icon name="down" size={15} />}
        >
          <WayItems machine={machine} base={base} />
        </Menu>
      )}
    </span>
  );
}

/** What else is to be said beside a machine's name. */
function Said({ machine, here, lit }: { machine: Machine; here: boolean; lit: Lit | undefined }) {
  if (lit === "online") return <span class={css.came}>came online</span>;
  if (lit === "new") return <span class={css.came}>new</span>;
  if (lit === "offline") return <span class={css.said}>went offline</span>;
  if (machine.expired) return <span class={css.bad}>key expired</span>;
  if (here) return <span class={css.said}>you are here</span>;
  if (machine.system) return <span class={css.said}>doorward's own</span>;
  return null;
}

export function Seen({ machine, now }: { machine: Machine; now: number }) {
  if (machine.online) return <>now</>;
  if (machine.last_seen === null) return <>never</>;
  const when = Date.parse(machine.last_seen);
  return (
    <time dateTime={machine.last_seen} title={moment(when)}>
      {ago(when, now)}
    </time>
  );
}

export interface RowProps {
  readonly machine: Machine;
  readonly index: number;
  readonly top: number;
  readonly current: boolean;
  readonly lit: Lit | undefined;
  readonly here: boolean;
  readonly base: string;
  readonly now: number;
  readonly phone: boolean;
  readonly onCurrent: (index: number) => void;
  readonly onOpen: (machine: Machine) => void;
  readonly onFaded: (id: number) => void;
}

export function Row(props: RowProps) {
  const { machine, index, top, current, lit, here, base, now, phone, onCurrent, onOpen, onFaded } = props;
  const name = (
    <>
      <Lamp state={lampOf(machine)} lit={lit !== undefined} />
      <b class={css.machine}>
        <Outside text={machine.name} limit={63} />
      </b>
      <Said machine={machine} here={here} lit={lit} />
    </>
  );
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: the page has the keys of its list
    <div
      role="row"
      aria-rowindex={index + 2}
      tabIndex={current ? 0 : -1}
      data-row={index}
      class={classes(css.row, current && css.current, lit && css.lit, lit === "offline" && css.went)}
      style={{ transform: `translateY(${top}px)` }}
      onPointerMove={() => onCurrent(index)}
      onFocus={() => onCurrent(index)}
      onClick={() => onOpen(machine)}
      onAnimationEnd={(event) => event.target === event.currentTarget && onFaded(machine.id)}
    >
      {phone ? (
        <div role="gridcell" class={css.two}>
          <span class={css.first}>
            {name}
            {!machine.system && <Belongs machine={machine} />}
          </span>
          <span class={css.second}>
            <Ways machine={machine} />
            {!machine.online && machine.last_seen !== null && (
              <span class={css.said}>
                seen <Seen machine={machine} now={now} /> ago
              </span>
            )}
          </span>
        </div>
      ) : (
        <>
          <div role="gridcell" class={css.name}>
            {name}
          </div>
          <div role="gridcell" class={css.belongs}>
            <Belongs machine={machine} />
          </div>
          <div role="gridcell" class={css.address}>
            {machine.addresses[0] !== undefined && <Copied text={machine.addresses[0]} />}
          </div>
          <div role="gridcell" class={css.system}>
            <span class={css.cut}>
              <Outside text={systemName(machine.os)} limit={40} />{" "}
              <span class={css.version}>
                <Outside text={machine.version} limit={20} />
              </span>
            </span>
          </div>
          <div role="gridcell" class={css.seen}>
            <Seen machine={machine} now={now} />
          </div>
          <div role="gridcell" class={css.into}>
            <Ways machine={machine} />
          </div>
        </>
      )}
      <div role="gridcell" class={css.action}>
        <Ssh machine={machine} base={base} quiet={!current && !phone} />
      </div>
    </div>
  );
}
