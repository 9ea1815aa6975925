/** Keys of a page. Single letters count only where nobody is typing. */

export type Keys = Readonly<Record<string, (event: KeyboardEvent) => void>>;

const FIELDS = "input, textarea, select, [contenteditable]";

/** The name of a key as it is written in a table of keys: `Shift+S`, `Ctrl+K`, `/`, `ArrowDown`. Cmd is Ctrl. */
export function nameOf(
  event: Pick<KeyboardEvent, "key" | "ctrlKey" | "metaKey" | "altKey" | "shiftKey">,
): string {
  const letter = event.key.length === 1 && event.key.toLowerCase() !== event.key.toUpperCase();
  const parts = [];
  if (event.ctrlKey || event.metaKey) parts.push("Ctrl");
  if (event.altKey) parts.push("Alt");
  if (event.shiftKey && (letter || event.key.length > 1)) parts.push("Shift");
  parts.push(letter ? event.key.toUpperCase() : event.key);
  return parts.join("+");
}

/** Have these keys do something while the page is there; returns what ends it. A dialog that is open has all keys to itself. */
export function listen(keys: Keys): () => void {
  const pressed = (event: KeyboardEvent) => {
    if (event.defaultPrevented || event.isComposing) return;
    const name = nameOf(event);
    const act = keys[name];
    if (act === undefined || document.querySelector("dialog[open]") !== null) return;
    const typing = event.target instanceof Element && event.target.closest(FIELDS) !== null;
    if (typing && !name.startsWith("Ctrl+")) return;
    event.preventDefault();
    act(event);
  };
  addEventListener("keydown", pressed);
  return () => removeEventListener("keydown", pressed);
}
