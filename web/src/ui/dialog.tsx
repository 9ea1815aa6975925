/** A dialog: the browser's own, which keeps the focus in it and gives it back. */

import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";
import css from "./dialog.module.css";
import { Icon } from "./icons.tsx";

/** Open while it is drawn; `onClose` is called when the person leaves it. */
export function Dialog({
  title,
  wide = false,
  onClose,
  children,
}: {
  title: ComponentChildren;
  wide?: boolean;
  onClose: () => void;
  children: ComponentChildren;
}) {
  const box = useRef<HTMLDialogElement>(null);
  const heading = useId();
  useEffect(() => {
    box.current?.showModal();
  }, []);
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: Escape closes it, as in every dialog of the browser's
    <dialog
      ref={box}
      class={wide ? `${css.dialog} ${css.wide}` : css.dialog}
      aria-labelledby={heading}
      onClose={onClose}
      onClick={(event) => event.target === box.current && box.current?.close()}
    >
      <div class={css.inside}>
        <header class={css.head}>
          <h2 id={heading}>{title}</h2>
          <button type="button" class={css.close} aria-label="Close" onClick={() => box.current?.close()}>
            <Icon name="close" />
          </button>
        </header>
        {children}
      </div>
    </dialog>
  );
}
