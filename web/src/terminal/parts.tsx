/** Small parts that only the terminal's page has. */

import type { JSX } from "preact";
import { Icon as SharedIcon, type IconName as SharedName } from "../ui/icons.tsx";
import { Key } from "../ui/parts.tsx";
import { coded } from "./failures.ts";

const LINES = {
  plus: "M12 5v14M5 12h14",
  split:
    "M4 5.5A1.5 1.5 0 0 1 5.5 4h13A1.5 1.5 0 0 1 20 5.5v13a1.5 1.5 0 0 1-1.5 1.5h-13A1.5 1.5 0 0 1 4 18.5zM12 4v16",
  full: "M4 9V5.5A1.5 1.5 0 0 1 5.5 4H9M15 4h3.5A1.5 1.5 0 0 1 20 5.5V9M20 15v3.5a1.5 1.5 0 0 1-1.5 1.5H15M9 20H5.5A1.5 1.5 0 0 1 4 18.5V15",
  files: "M12 15V4M7.5 8.5 12 4l4.5 4.5M4 15v3.5A1.5 1.5 0 0 0 5.5 20h13a1.5 1.5 0 0 0 1.5-1.5V15",
  folder:
    "M3.5 7A1.5 1.5 0 0 1 5 5.5h4.5l2 2.5H19a1.5 1.5 0 0 1 1.5 1.5V17a1.5 1.5 0 0 1-1.5 1.5H5A1.5 1.5 0 0 1 3.5 17z",
  file: "M14 3.5H7A1.5 1.5 0 0 0 5.5 5v14A1.5 1.5 0 0 0 7 20.5h10a1.5 1.5 0 0 0 1.5-1.5V8zM14 3.5V8h4.5",
  download: "M12 4v11M7.5 10.5 12 15l4.5-4.5M4 15v3.5A1.5 1.5 0 0 0 5.5 20h13a1.5 1.5 0 0 0 1.5-1.5V15",
  finger:
    "M5 14v-2a7 7 0 0 1 14 0v1M8 18c.6-1.5.9-3 .9-5v-1a3.1 3.1 0 0 1 6.2 0v1c0 2.5-.4 4.6-1.2 6.5M12 12v1.5c0 2.6-.5 4.8-1.5 6.8M18.8 16.5c-.1 1-.3 1.9-.6 2.8",
  type: "M3 18 8 6h1l5 12M4.7 14h7.6M15.5 18l3-7.5h.7L22 18M16.5 15.5h4.5",
  stop: "M12 21a9 9 0 1 1 0-18 9 9 0 0 1 0 18zM9 9l6 6M15 9l-6 6",
} as const;

type OwnName = keyof typeof LINES;
export type IconName = OwnName | SharedName;

/** An icon of all pages, or of this one. */
export function Icon({ name, size = 18 }: { name: IconName; size?: number }) {
  if (!(name in LINES)) return <SharedIcon name={name as SharedName} size={size} />;
  return (
    <svg class="icon" viewBox="0 0 24 24" width={size} height={size} aria-hidden="true">
      <path d={LINES[name as OwnName]} />
    </svg>
  );
}

export function Keys({ keys }: { keys: string[] }) {
  return (
    <span class="keys">
      {keys.map((key) => (
        <Key key={key}>{key}</Key>
      ))}
    </span>
  );
}

/** Words with code between backticks. */
export function Words({ text }: { text: string }) {
  return <>{coded(text).map((part, at) => (at % 2 === 1 ? <code key={part}>{part}</code> : part))}</>;
}

interface Bare extends Omit<JSX.IntrinsicElements["button"], "icon" | "name" | "class"> {
  icon: IconName;
  /** What it does; for readers, and as a tooltip. */
  name: string;
  /** Not on a phone, which has no room for it. */
  roomy?: boolean;
}

export function IconButton({ icon, name, roomy = false, ...others }: Bare) {
  return (
    <button
      type="button"
      class={roomy ? "icon-button roomy" : "icon-button"}
      title={name}
      aria-label={name}
      {...others}
    >
      <Icon name={icon} />
    </button>
  );
}
