/** Small line drawings, in the weight of the door. A word or a name always stands with them, so none has one of its own. */

const LINES = {
  machines: "M3.5 4h13v5h-13zM3.5 11h13v5h-13zM6.5 6.5v.01M6.5 13.5v.01",
  key: "M12.5 11.5a4 4 0 1 0-3.9-4.9L3.5 11.7v2.8h2.8v-2h2v-2l.7-.6M13.4 6.6v.01",
  search: "M9 14.5a5.5 5.5 0 1 0 0-11 5.5 5.5 0 0 0 0 11zM13 13l3.5 3.5",
  filter: "M3 6h14M6 10h8M8.5 14h3",
  shell:
    "M4.5 3.5h11a1 1 0 0 1 1 1v11a1 1 0 0 1-1 1h-11a1 1 0 0 1-1-1v-11a1 1 0 0 1 1-1zM6.5 8l2 2-2 2M10.5 12.5h3",
  down: "M6 8.5l4 4 4-4",
  copy: "M7.5 7.5h8a1 1 0 0 1 1 1v7a1 1 0 0 1-1 1h-7a1 1 0 0 1-1-1zM12.5 7.5v-3a1 1 0 0 0-1-1h-7a1 1 0 0 0-1 1v7a1 1 0 0 0 1 1h3",
  done: "M4.5 10.5l3.5 3.5 7.5-8",
  close: "M5.5 5.5l9 9M14.5 5.5l-9 9",
  order: "M6.5 4v12M6.5 16l-2.5-2.5M6.5 16l2.5-2.5M13.5 16V4M13.5 4L11 6.5M13.5 4L16 6.5",
  up: "M10 15V5M10 5L6 9M10 5l4 4",
  again: "M15.5 10a5.5 5.5 0 1 1-1.7-4M15.5 3.5v3h-3",
  lost: "M3.5 3.5l13 13M6 11a6 6 0 0 1 2-1.3M12 9.8a6 6 0 0 1 2 1.2M3.5 8.2a10 10 0 0 1 3-1.7M10 5.5a10 10 0 0 1 6.5 2.7M8.4 13.4a2.6 2.6 0 0 1 3.2 0M10 16v.01",
  leave: "M8 16.5H4.5a1 1 0 0 1-1-1v-11a1 1 0 0 1 1-1H8M12.5 13.5L16 10l-3.5-3.5M16 10H7.5",
  light:
    "M10 13.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM10 2.5v1.6M10 15.9v1.6M2.5 10h1.6M15.9 10h1.6M4.7 4.7l1.1 1.1M14.2 14.2l1.1 1.1M4.7 15.3l1.1-1.1M14.2 5.8l1.1-1.1",
} as const;

export type IconName = keyof typeof LINES;

export function Icon({ name, size = 18 }: { name: IconName; size?: number }) {
  return (
    <svg
      width={size}
      height={size}
      viewBox="0 0 20 20"
      fill="none"
      stroke="currentColor"
      stroke-width="1.4"
      stroke-linecap="round"
      stroke-linejoin="round"
      aria-hidden="true"
    >
      <path d={LINES[name]} />
    </svg>
  );
}
