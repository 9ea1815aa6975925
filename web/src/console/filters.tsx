/** What is asked of the list: words, chips with what they would show, and tags. All of it is the address of the page. */

import type { Ref } from "preact";
import { Icon } from "../ui/icons.tsx";
import { item, Menu, note } from "../ui/menu.tsx";
import { Chip, Key, Outside } from "../ui/parts.tsx";
import css from "./filters.module.css";
import type { Fleet } from "./fleet.ts";
import { CHIPS, type Chip as Which } from "./machines.ts";

const NAMES: Readonly<Record<Which, string>> = {
  online: "Online",
  mine: "Mine",
  way: "Way in",
  none: "No way in",
};
const TAGS = 4; // that have a chip of their own; the others are in a menu

function toggled<T>(list: readonly T[], one: T): T[] {
  return list.includes(one) ? list.filter((other) => other !== one) : [...list, one];
}

/** The search over the list. */
export function Search({
  fleet,
  field,
  total,
}: {
  fleet: Fleet;
  field: Ref<HTMLInputElement>;
  total: number;
}) {
  return (
    <label class={css.search}>
      <Icon name="filter" size={17} />
      <span class="heard">Search {total} machines</span>
      <input
        ref={field}
        type="search"
        placeholder="Name, address, person, tag"
        autocomplete="off"
        autocapitalize="none"
        spellcheck={false}
        value={fleet.asked.value.text}
        onInput={(event) => fleet.ask({ text: event.currentTarget.value })}
        onKeyDown={(event) => {
          if (event.key !== "Escape") return;
          fleet.ask({ text: "" });
          event.currentTarget.blur();
        }}
      />
      <Key>/</Key>
    </label>
  );
}

export function Chips({ fleet }: { fleet: Fleet }) {
  const { chips, tags } = fleet.asked.value;
  const counts = fleet.counts.value;
  const own = counts.tags.filter(([tag], at) => at < TAGS || tags.includes(tag));
  const others = counts.tags.filter(([tag]) => !own.some(([known]) => known === tag));
  return (
    <div class={css.chips} role="group" aria-label="Show">
      <Chip
        pressed={chips.length === 0 && tags.length === 0}
        count={counts.all}
        onClick={() => fleet.ask({ chips: [], tags: [] })}
      >
        All
      </Chip>
      {CHIPS.map((chip) => (
        <Chip
          key={chip}
          pressed={chips.includes(chip)}
          count={counts.chips[chip]}
          onClick={() => fleet.ask({ chips: toggled(chips, chip) })}
        >
          {NAMES[chip]}
        </Chip>
      ))}
      {own.map(([tag, count]) => (
        <Chip
          key={tag}
          pressed={tags.includes(tag)}
          count={count}
          onClick={() => fleet.ask({ tags: toggled(tags, tag) })}
        >
          <code>
            <Outside text={tag} limit={40} />
          </code>
        </Chip>
      ))}
      {others.length > 0 && (
        <Menu class={css.more} face={`${others.length} more tags`}>
          <div class={css.tags}>
            {others.map(([tag, count]) => (
              <button
                key={tag}
                type="button"
                class={item}
                onClick={() => fleet.ask({ tags: toggled(tags, tag) })}
              >
                <code>
                  <Outside text={tag} limit={60} />
                </code>
                <span class={note}>{count}</span>
              </button>
            ))}
          </div>
        </Menu>
      )}
    </div>
  );
}
