/** A menu below its button. The browser closes it when one goes elsewhere; arrows move in it. */

import type { ComponentChildren } from "preact";
import { useId, useRef } from "preact/hooks";
import css from "./menu.module.css";

const ITEMS = "a[href], button:not([disabled]), input";

/** Puts a menu below its button, and to its right edge, inside the window. */
function place(menu: HTMLElement, button: HTMLElement): void {
  const [at, room] = [button.getBoundingClientRect(), menu.getBoundingClientRect()];
  const below = at.bottom + 6 + room.height <= innerHeight;
  const top = below ? at.bottom + 6 : Math.max(8, at.top - 6 - room.height);
  const left = Math.min(Math.max(8, at.right - room.width), innerWidth - room.width - 8);
  menu.style.setProperty("top", `${top}px`);
  menu.style.setProperty("left", `${left}px`);
}

function move(event: KeyboardEvent): void {
  if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
  const menu = event.currentTarget as HTMLElement;
  const items = [...menu.querySelectorAll<HTMLElement>(ITEMS)];
  const at = items.indexOf(document.activeElement as HTMLElement);
  const next = (at + (event.key === "ArrowDown" ? 1 : -1) + items.length) % items.length;
  items[next]?.focus();
  event.preventDefault();
  event.stopPropagation();
}

/** `button` is what opens it: it gets the properties that make it do so. */
export function Menu({
  label,
  class: name = "",
  face,
  children,
  marked,
}: {
  /** What the button is called, for those who do not see its face; `undefined` where its face says it. */
  label?: string;
  class?: string;
  face: ComponentChildren;
  children: ComponentChildren;
  /** A name by which a key finds the button: `data-menu`. */
  marked?: string;
}) {
  const id = useId();
  const button = useRef<HTMLButtonElement>(null);
  const menu = useRef<HTMLDivElement>(null);
  const toggled = (event: Event) => {
    const { newState } = event as ToggleEvent;
    button.current?.setAttribute("aria-expanded", String(newState === "open"));
    if (newState !== "open" || menu.current === null || button.current === null) return;
    place(menu.current, button.current);
    menu.current.querySelector<HTMLElement>(ITEMS)?.focus();
  };
  return (
    <>
      <button
        ref={button}
        type="button"
        class={name}
        popovertarget={id}
        aria-label={label}
        aria-expanded="false"
        aria-haspopup="true"
        data-menu={marked}
        onClick={(event) => event.stopPropagation()}
      >
        {face}
      </button>
      {/* biome-ignore lint/a11y/noStaticElementInteractions: keys that bubble up from what is in it */}
      <div
        ref={menu}
        id={id}
        popover="auto"
        class={css.menu}
        onToggle={toggled}
        onKeyDown={move}
        onClick={(event) => event.stopPropagation()}
      >
        {children}
      </div>
    </>
  );
}

export const item = css.item;
export const note = css.note;
export const group = css.group;
