/** The list: as long as it may be, only the rows that are seen are drawn. Keyboard and pointer share one current row. */

import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Machine } from "../api/types.ts";
import { Icon } from "../ui/icons.tsx";
import { Skeleton } from "../ui/parts.tsx";
import type { Fleet } from "./fleet.ts";
import css from "./list.module.css";
import type { Column } from "./machines.ts";
import { Row } from "./row.tsx";
import { reveal, shownRows } from "./window.ts";

const HEAD: readonly (readonly [Column, string])[] = [
  ["name", "Name"],
  ["belongs", "Belongs to"],
  ["address", "Address"],
  ["system", "System, client"],
  ["seen", "Seen"],
  ["way", "Your way in"],
];

/** Heights of a row, in pixels, as in the styles. */
export const ROW = { wide: 37, phone: 68 } as const;

function Head({ fleet }: { fleet: Fleet }) {
  const { sort, down } = fleet.asked.value;
  return (
    <div role="row" aria-rowindex={1} class={css.head}>
      {HEAD.map(([column, name]) => (
        <div
          key={column}
          role="columnheader"
          class={css[column === "way" ? "into" : column]}
          aria-sort={sort === column ? (down ? "descending" : "ascending") : undefined}
        >
          <button type="button" onClick={() => fleet.ask({ sort: column, down: sort === column && !down })}>
            {name}
            {sort === column && (
              <span class={down ? css.down : css.up}>
                <Icon name="up" size={13} />
              </span>
            )}
          </button>
        </div>
      ))}
      <div role="columnheader" class={css.action}>
        <span class="heard">Go in</span>
      </div>
    </div>
  );
}

export function List({
  fleet,
  current,
  led,
  here,
  base,
  now,
  phone,
  coming,
  empty,
  onCurrent,
  onOpen,
  onReading,
}: {
  fleet: Fleet;
  current: number;
  /** Where keys have led, and how often they have led anywhere. */
  led: { readonly to: number; readonly times: number };
  /** The device that the page is open on. */
  here: string | null;
  base: string;
  now: number;
  phone: boolean;
  /** Rows that the page has yet to be told of. */
  coming: number;
  /** What stands there when nothing is found. */
  empty: ComponentChildren;
  onCurrent: (index: number) => void;
  onOpen: (machine: Machine) => void;
  /** Somebody has the pointer or the focus in the list. */
  onReading: (reading: boolean) => void;
}) {
  const box = useRef<HTMLDivElement>(null);
  const due = useRef<number | undefined>(undefined); // the row that gets the focus once it is drawn
  const [view, setView] = useState({ top: 0, room: 900 });
  const height = phone ? ROW.phone : ROW.wide;
  const rows = fleet.rows.value;
  const total = rows.length + coming;

  useLayoutEffect(() => {
    const element = box.current;
    if (element === null) return;
    const look = () => setView({ top: element.scrollTop, room: element.clientHeight });
    const watch = new ResizeObserver(look);
    watch.observe(element);
    element.addEventListener("scroll", look, { passive: true });
    return () => {
      watch.disconnect();
      element.removeEventListener("scroll", look);
    };
  }, []);

  // A row that a key has led to is brought into sight, and has the focus once it is drawn.
  useEffect(() => {
    const element = box.current;
    if (element === null || led.times === 0) return;
    const to = reveal(led.to, height, element.scrollTop, element.clientHeight);
    if (to !== undefined) element.scrollTop = to;
    due.current = led.to;
  }, [led.times]);

  useEffect(() => {
    if (due.current === undefined) return;
    const row = box.current?.querySelector<HTMLElement>(`[data-row="${due.current}"]`);
    if (!row) return;
    due.current = undefined;
    // Who has gone on to write something meanwhile is not called back.
    if (!(document.activeElement instanceof HTMLInputElement)) row.focus({ preventScroll: true });
  });

  const { from, to } = shownRows(total, height, view.top, view.room);
  const drawn = [];
  for (let index = from; index < to; index += 1) {
    const machine = rows[index];
    if (machine === undefined) {
      drawn.push(
        <div
          key={`coming-${index}`}
          class={css.coming}
          aria-hidden="true"
          style={{ transform: `translateY(${index * height}px)` }}
        >
          <Skeleton width={2} />
          <Skeleton width={1} />
          <Skeleton width={3} />
        </div>,
      );
      continue;
    }
    drawn.push(
      <Row
        key={machine.id}
        machine={machine}
        index={index}
        top={index * height}
        current={index === current}
        lit={fleet.lit.value.get(machine.id)}
        here={machine.name === here}
        base={base}
        now={now}
        phone={phone}
        onCurrent={onCurrent}
        onOpen={onOpen}
        onFaded={(id) => fleet.fade(id)}
      />,
    );
  }

  return (
    <div
      class={css.list}
      role="grid"
      aria-label="Machines"
      aria-rowcount={total + 1}
      aria-readonly="true"
      onPointerEnter={() => onReading(true)}
      onPointerLeave={() => onReading(false)}
    >
      {!phone && <Head fleet={fleet} />}
      <div ref={box} class={css.scroll} role="rowgroup" data-list tabIndex={current < 0 ? 0 : -1}>
        {total === 0 ? (
          empty
        ) : (
          <div class={css.rows} role="presentation" style={{ height: `${total * height}px` }}>
            {drawn}
          </div>
        )}
      </div>
    </div>
  );
}
