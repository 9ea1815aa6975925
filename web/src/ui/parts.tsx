/** The parts that every page is made of. */

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Icon } from "./icons.tsx";
import { shown } from "./outside.ts";
import css from "./parts.module.css";

/** Joins the names of classes that apply. */
export function classes(...names: (string | false | undefined)[]): string {
  return names.filter(Boolean).join(" ");
}

/** A name that somebody else chose: its direction ends with it, and nothing in it is unseen. */
export function Outside({ text, limit }: { text: string; limit?: number }) {
  return <bdi>{shown(text, limit)}</bdi>;
}

/** The colour of a person's arch: the same for the same id, on every page of ours. */
export function hue(id: number): number {
  return (Math.imul(id, 0x9e3779b1) >>> 16) % 5;
}

/** A person. The name always stands beside it. */
export function Arch({ name, id, size = 20 }: { name: string; id: number; size?: number }) {
  const letter = [...name].find((one) => /[\p{L}\p{N}]/u.test(one)) ?? "?";
  const box = useRef<HTMLSpanElement>(null);
  useEffect(() => box.current?.style.setProperty("--size", `${size}px`), [size]);
  return (
    <span ref={box} class={`${css.arch} ${css[`hue${hue(id)}`]}`} aria-hidden="true">
      {letter.toUpperCase()}
    </span>
  );
}

/** A tag names; its left edge is thick. */
export function Tag({ name }: { name: string }) {
  return (
    <span class={css.tag}>
      <Outside text={name} limit={60} />
    </span>
  );
}

/** An account is what a machine reads, and so in mono. */
export function Account({ name }: { name: string }) {
  return (
    <code class={css.account}>
      <Outside text={name} limit={64} />
    </code>
  );
}

/** A key as it is written on the sill. */
export function Key({ children }: { children: ComponentChildren }) {
  return <kbd class={css.key}>{children}</kbd>;
}

export type Kind = "main" | "normal" | "quiet" | "danger";

type ButtonProps = Omit<JSX.IntrinsicElements["button"], "class" | "size"> & { kind?: Kind; small?: boolean };

/** A button says what it does with a verb. */
export function Button({ kind = "normal", small = false, children, ...rest }: ButtonProps) {
  return (
    <button type="button" {...rest} class={classes(css.button, css[kind], small && css.small)}>
      {children}
    </button>
  );
}

/** A way in: a square foot, and a sill that says before the click whether something is asked first. */
export function Enter({
  asks,
  quiet = false,
  children,
  ...rest
}: {
  asks: boolean;
  quiet?: boolean;
  href: string;
  title?: string;
  "aria-label"?: string;
  "data-ssh"?: number;
  onClick?: (event: MouseEvent) => void;
  children: ComponentChildren;
}) {
  return (
    <a
      {...rest}
      data-asks={asks || undefined}
      class={classes(css.button, css.enter, asks && css.asks, quiet && css.rest)}
    >
      {children}
    </a>
  );
}

/** A chip filters. */
export function Chip({
  pressed,
  count,
  children,
  ...rest
}: Omit<JSX.IntrinsicElements["button"], "class" | "size"> & { pressed: boolean; count?: number }) {
  return (
    <button type="button" {...rest} class={css.chip} aria-pressed={pressed}>
      {children}
      {count !== undefined && <span class={css.count}>{count}</span>}
    </button>
  );
}

/** Puts a text where it can be pasted; true if the browser let it. */
export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // not asked for by a person, or no secure page: nothing was copied, and nothing says so
  }
}

/** A value that a click copies, and that says so in its place for a moment. */
export function Copied({ text, children }: { text: string; children?: ComponentChildren }) {
  const [done, setDone] = useState(false);
  useEffect(() => {
    if (!done) return;
    const over = setTimeout(() => setDone(false), 1200);
    return () => clearTimeout(over);
  }, [done]);
  const press = async (event: Event) => {
    event.stopPropagation();
    setDone(await copy(text));
  };
  return (
    <button
      type="button"
      class={css.copied}
      onClick={press}
      aria-label={`Copy ${text}`}
      title={`Copy ${text}`}
    >
      <span class={classes(css.value, done && css.away)}>{children ?? <code>{text}</code>}</span>
      {done ? (
        <span class={css.said} role="status">
          <Icon name="done" size={14} />
          copied
        </span>
      ) : (
        <Icon name="copy" size={14} />
      )}
    </button>
  );
}

/** A command line to paste. */
export function Command({ text }: { text: string }) {
  const [done, setDone] = useState(false);
  return (
    <div class={css.command}>
      <code>
        <span aria-hidden="true">$ </span>
        {text}
      </code>
      <Button kind="quiet" small onClick={async () => setDone(await copy(text))} aria-label={`Copy ${text}`}>
        <Icon name={done ? "done" : "copy"} size={15} />
        {done ? "Copied" : "Copy"}
      </Button>
    </div>
  );
}

/** Rows that are coming, in their shape. */
export function Skeleton({ width }: { width: 1 | 2 | 3 }) {
  return <span class={`${css.skeleton} ${css[`width${width}`]}`} />;
}
