/** Ctrl K: go in somewhere, go to a page, do something; answered from what the page knows, as fast as one types. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Machine } from "../api/types.ts";
import { rememberAccount, terminalAddress, waysInto } from "../ui/accounts.ts";
import { Modal } from "../ui/dialog.tsx";
import { Door, type DoorState } from "../ui/drawings.tsx";
import { Icon, type IconName } from "../ui/icons.tsx";
import { Account, Key, Outside } from "../ui/parts.tsx";
import css from "./palette.module.css";
import { wayNote } from "./row.tsx";

export interface Offer {
  readonly id: string;
  readonly group: "Enter" | "Go to" | "Do";
  /** What is searched. */
  readonly words: string;
  readonly door?: DoorState;
  readonly icon?: IconName;
  readonly name: string;
  readonly account?: string;
  readonly note: string;
  /** An address is gone to, also in a new tab; anything else is done. */
  readonly address?: string;
  readonly act?: () => void;
}

/** The ways into machines, and the machines themselves, as offers. */
export function offersOf(
  machines: Iterable<Machine>,
  base: string,
  show: (machine: Machine) => void,
): Offer[] {
  const enter: Offer[] = [];
  const look: Offer[] = [];
  for (const machine of machines) {
    for (const way of waysInto(machine)) {
      const { account } = way;
      if (account === null) continue; // nobody has said yet as whom
      enter.push({
        id: `enter-${machine.id}-${account}`,
        group: "Enter",
        words: `${machine.name} ${account}`.toLowerCase(),
        door: way.asks ? "ajar" : "open",
        name: machine.name,
        account,
        note: [!machine.online && "offline", wayNote(machine, way)].filter(Boolean).join(", "),
        address: terminalAddress(base, machine.name, account),
        act: () => rememberAccount(machine.name, account),
      });
    }
    look.push({
      id: `look-${machine.id}`,
      group: "Go to",
      words: [machine.name, machine.user, ...machine.tags, ...machine.addresses].join(" ").toLowerCase(),
      icon: "machines",
      name: machine.name,
      note: machine.online ? "online" : "offline",
      act: () => show(machine),
    });
  }
  return [...enter, ...look];
}

const MOST = { Enter: 6, "Go to": 6, Do: 6 } as const;

/** What is offered for some words: names that begin with them first, a few of each kind. */
export function found(offers: readonly Offer[], text: string): Offer[] {
  const sought = text.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = offers.filter((offer) => sought.every((word) => offer.words.includes(word)));
  const begins = (offer: Offer) => (sought.length > 0 && offer.words.startsWith(sought[0]) ? 0 : 1);
  const ordered = fits.sort((one, other) => begins(one) - begins(other));
  return (["Enter", "Go to", "Do"] as const).flatMap((group) =>
    ordered.filter((offer) => offer.group === group).slice(0, MOST[group]),
  );
}

export function Palette({
  offers,
  who,
  onClose,
}: {
  offers: readonly Offer[];
  who: string;
  onClose: () => void;
}) {
  const list = useRef<HTMLDivElement>(null);
  const [text, setText] = useState("");
  const [chosen, setChosen] = useState(0);
  const shown = useMemo(() => found(offers, text), [offers, text]);
  const at = Math.min(chosen, Math.max(0, shown.length - 1));
  useEffect(() => {
    list.current?.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: "nearest" });
  }, [at, shown]);

  const take = (offer: Offer | undefined, elsewhere: boolean) => {
    if (offer === undefined) return;
    if (elsewhere && offer.address !== undefined) {
      offer.act?.();
      open(offer.address, "_blank", "noopener");
      return;
    }
    onClose();
    offer.act?.();
    if (offer.address !== undefined) location.assign(offer.address);
  };
  const pressed = (event: KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step !== undefined && shown.length > 0) setChosen((at + step + shown.length) % shown.length);
    else if (event.key === "Enter") take(shown[at], event.ctrlKey || event.metaKey);
    else return;
    event.preventDefault();
  };

  return (
    <Modal class={css.palette} aria-label="Go to, run" onClose={onClose}>
      <div class={css.ask}>
        <Icon name="search" size={20} />
        <input
          type="text"
          role="combobox"
          aria-label="Where to, or what to do"
          aria-expanded="true"
          aria-controls="offers"
          aria-activedescendant={shown[at] && `offer-${shown[at].id}`}
          autocomplete="off"
          autocapitalize="none"
          spellcheck={false}
          value={text}
          onInput={(event) => {
            setText(event.currentTarget.value);
            setChosen(0);
          }}
          onKeyDown={pressed}
        />
        <span class={css.who}>
          as <b>{who}</b>
        </span>
      </div>
      <div ref={list} class={css.offers} id="offers" role="listbox" aria-label="Offers">
        {shown.length === 0 && (
          <div class={css.nothing} role="option" aria-selected="false" aria-disabled="true">
            Nothing here is called that.
          </div>
        )}
        {shown.map((offer, index) => (
          <div key={offer.id} role="presentation">
            {offer.group !== shown[index - 1]?.group && (
              <div class={css.group} role="presentation">
                {offer.group}
              </div>
            )}
            {/* biome-ignore lint/a11y/useKeyWithClickEvents: the field above has the keys */}
            <div
              id={`offer-${offer.id}`}
              class={css.offer}
              role="option"
              aria-selected={index === at}
              onPointerMove={() => setChosen(index)}
              onClick={(event) => take(offer, event.ctrlKey || event.metaKey)}
            >
              {offer.door !== undefined && <Door state={offer.door} />}
              {offer.icon !== undefined && <Icon name={offer.icon} />}
              <span class={css.name}>
                <b>
                  <Outside text={offer.name} limit={63} />
                </b>
                {offer.account !== undefined && (
                  <>
                    {" as "}
                    <Account name={offer.account} />
                  </>
                )}
              </span>
              <span class={css.note}>{offer.note}</span>
              {index === at && <Key>Enter</Key>}
            </div>
          </div>
        ))}
      </div>
      <div class={css.foot} aria-hidden="true">
        <span>
          <Key>↑</Key>
          <Key>↓</Key> choose
        </span>
        <span>
          <Key>Enter</Key> go
        </span>
        <span>
          <Key>Ctrl</Key>
          <Key>Enter</Key> in a new tab
        </span>
      </div>
    </Modal>
  );
}
