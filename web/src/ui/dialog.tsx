/** Dialogs: the browser's own, which keeps the focus in it. */

import type { ComponentChildren, JSX } from "preact";
import { useId, useLayoutEffect, useRef } from "preact/hooks";
import css from "./dialog.module.css";
import { Icon } from "./icons.tsx";

type Given = Omit<JSX.IntrinsicElements["dialog"], "ref" | "open" | "icon">;

/**
 * What every dialog does. Open while it is drawn; `onClose` is called when the person leaves it: by Escape, or by a press beside it.
 *
 * The focus goes to whatever has `data-first`, else to the first that takes it, and afterwards `back` to where it was; without that
 * whoever draws it says where.
 */
export function Modal({
  onClose,
  back = true,
  children,
  ...given
}: Given & { onClose: () => void; back?: boolean }) {
  const box = useRef<HTMLDialogElement>(null);
  const beside = useRef(false);
  const gone = useRef(false);
  useLayoutEffect(() => {
    const dialog = box.current!;
    dialog.showModal();
    dialog.querySelector<HTMLElement>("[data-first]")?.focus();
    return () => {
      gone.current = true;
      if (back) dialog.close(); // which gives the focus back
    };
  }, []);
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: Escape closes it, as in every dialog of the browser's
    <dialog
      {...given}
      ref={box}
      onClose={() => {
        if (!gone.current) onClose();
      }}
      onPointerDown={(event) => {
        beside.current = event.target === box.current;
      }}
      onClick={(event) => {
        // Who marks a text and lets go beside it does not want to leave.
        if (beside.current && event.target === box.current) box.current?.close();
      }}
    >
      {children}
    </dialog>
  );
}

/** A dialog with a title: a card of facts that is closed, or a question (`ask`) that is answered by its buttons. */
export function Dialog({
  title,
  look = "card",
  onClose,
  children,
}: {
  title: ComponentChildren;
  look?: "card" | "wide" | "ask";
  onClose: () => void;
  children: ComponentChildren;
}) {
  const heading = useId();
  return (
    <Modal class={`${css.dialog} ${css[look]}`} aria-labelledby={heading} onClose={onClose}>
      <div class={css.inside}>
        <header class={css.head}>
          <h2 id={heading}>{title}</h2>
          {look !== "ask" && (
            <button type="button" class={css.close} aria-label="Close" onClick={onClose}>
              <Icon name="close" />
            </button>
          )}
        </header>
        {children}
      </div>
    </Modal>
  );
}
