/**
 * The door and the lamp. The door is the sign for access, and the lamp for presence, and neither is ever anything else.
 * The server's pages draw the same door from the same numbers.
 */

import css from "./drawings.module.css";

export type DoorState = "open" | "ajar" | "shut" | "barred";

export const DOOR_SAYS: Readonly<Record<DoorState, string>> = {
  open: "may enter",
  ajar: "asks first",
  shut: "no way in",
  barred: "refused",
};

const LEAF = { open: "M4 2.6 5.8 4.4v11.2L4 14z", ajar: "M4 2.6 9.9 3.4v11.4L4 14z" };

/** The door as small as a letter. Named for those who do not see it, unless a word beside it says the same (`label=""`). */
export function Door({ state, label, size = 16 }: { state: DoorState; label?: string; size?: number }) {
  const name = label ?? DOOR_SAYS[state];
  const said = name === "" ? { "aria-hidden": true as const } : { role: "img" as const, "aria-label": name };
  return (
    <svg
      class={`${css.glyph} ${css[state]}`}
      width={size}
      height={(size * 17) / 16}
      viewBox="0 0 16 17"
      {...said}
    >
      {state === "open" || state === "ajar" ? (
        <>
          <path class={css.gap} d="M4 2.6h8V14H4z" />
          <path class={css.leaf} d={LEAF[state]} />
        </>
      ) : (
        <path class={css.flat} d="M4 2.6h8V14H4z" />
      )}
      {state === "shut" && <circle class={css.dot} cx="10" cy="8.6" r=".9" />}
      {state === "barred" && <path class={css.across} d="M2 8.4h12" />}
      <path
        class={css.line}
        d="M3.4 14V3.2a1.4 1.4 0 0 1 1.4-1.4h6.4a1.4 1.4 0 0 1 1.4 1.4V14M1.2 14.4h13.6"
      />
    </svg>
  );
}

const [LEFT, RIGHT, TOP, FOOT, TURN, DROP, LIFT] = [46, 134, 22, 182, 1.35, 26, 0.55];

type Point = readonly [number, number];

/** The outline of a shape; at most two decimals. */
function closed(points: readonly Point[]): string {
  return `M${points.map(([x, y]) => `${+x.toFixed(2)} ${+y.toFixed(2)}`).join("L")}z`;
}

/** What of the large door there is to draw when its leaf has turned by `opening`, from 0 to 1. */
export function leafAt(opening: number) {
  const angle = TURN * opening;
  const edge = LEFT + (RIGHT - LEFT) * Math.cos(angle);
  const drop = DROP * Math.sin(angle);
  /** A point of the leaf: `along` from the hinge to the free edge, `down` from its top to its foot. */
  const point = (along: number, down: number): Point => {
    const [top, foot] = [TOP + LIFT * drop * along, FOOT + drop * along];
    return [LEFT + (edge - LEFT) * along, top + (foot - top) * down];
  };
  const panel = (left: number, right: number, top: number, foot: number): string =>
    closed([point(left, top), point(right, top), point(right, foot), point(left, foot)]);
  const [[x, top], [, foot]] = [point(1, 0), point(1, 1)];
  return {
    leaf: panel(0, 1, 0, 1),
    panels: [panel(0.16, 0.845, 0.065, 0.46), panel(0.16, 0.845, 0.6, 0.925)],
    edge: closed([
      [x, top],
      [x + 2.2, top - 0.6],
      [x + 2.2, foot - 0.8],
      [x, foot],
    ]),
    knob: point(0.88, 0.535),
    opening: closed([
      [LEFT, TOP],
      [RIGHT, TOP],
      [RIGHT, FOOT],
      [LEFT, FOOT],
    ]),
    spill: closed([
      [edge, FOOT],
      [RIGHT, FOOT],
      [RIGHT + 26, 232],
      [edge + 14, 232],
    ]),
  };
}

/** The door at a moment that matters. `opening` is how far it has turned, from 0 to 1. */
export function LargeDoor({
  state,
  label,
  opening,
  width = 180,
}: {
  state: DoorState;
  label: string;
  opening?: number;
  width?: number;
}) {
  const turned = opening ?? { open: 1, ajar: 0.4, shut: 0, barred: 0 }[state];
  const drawn = leafAt(turned);
  return (
    <svg
      class={`${css.large} ${css[state]}`}
      width={width}
      height={(width * 232) / 180}
      viewBox="0 0 180 232"
      role="img"
      aria-label={label}
    >
      {turned > 0 && (
        <>
          <linearGradient id="door-glow" x1="0" y1="0" x2="0" y2="1">
            <stop class={css.lit1} offset="0" />
            <stop class={css.lit2} offset="1" />
          </linearGradient>
          <linearGradient id="door-spill" x1="0" y1="0" x2="0" y2="1">
            <stop class={css.lit2} offset="0" />
            <stop class={css.lit0} offset="1" />
          </linearGradient>
          <path d={drawn.opening} fill="url(#door-glow)" />
          <path d={drawn.spill} fill="url(#door-spill)" />
        </>
      )}
      <path class={css.board} d={drawn.leaf} />
      {drawn.panels.map((panel) => (
        <path key={panel} class={css.panel} d={panel} />
      ))}
      {turned > 0 && <path class={css.edge} d={drawn.edge} />}
      <circle class={css.knob} cx={drawn.knob[0]} cy={drawn.knob[1]} r="3" />
      <path class={css.frame} d="M39 182V24a9 9 0 0 1 9-9h84a9 9 0 0 1 9 9v158M14 182h152" />
      {state === "barred" && (
        <>
          <path class={css.bar} d="M30 99h120v14H30z" />
          <path class={css.post} d="M24 93h7v26h-7zM149 93h7v26h-7z" />
        </>
      )}
    </svg>
  );
}

export type LampState = "online" | "offline" | "waits" | "expired";

/** Whether somebody is there. `lit` for the two seconds after it changed. */
export function Lamp({ state, lit = false, label }: { state: LampState; lit?: boolean; label?: string }) {
  const name = label ?? state;
  const said = name === "" ? { "aria-hidden": true as const } : { role: "img" as const, "aria-label": name };
  return (
    <svg
      class={`${css.lamp} ${css[state]} ${lit ? css.halo : ""}`}
      width="14"
      height="14"
      viewBox="0 0 14 14"
      {...said}
    >
      {lit && <circle class={css.ring} cx="7" cy="7" r="7" />}
      {state === "online" && <circle class={css.full} cx="7" cy="7" r="4" />}
      {state === "offline" && <circle class={css.hollow} cx="7" cy="7" r="3.25" />}
      {state === "waits" && (
        <>
          <circle class={css.hollow} cx="7" cy="7" r="3.25" />
          <path class={css.full} d="M7 3.75a3.25 3.25 0 0 1 0 6.5z" />
        </>
      )}
      {state === "expired" && (
        <>
          <circle class={css.hollow} cx="7" cy="7" r="3.25" />
          <path class={css.hollow} d="M4.8 4.8l4.4 4.4" />
        </>
      )}
    </svg>
  );
}
