/** Which rows of a long list are drawn: those that are seen, and some around them. Pure. */

export interface Shown {
  /** The first row that is drawn, and the one after the last. */
  readonly from: number;
  readonly to: number;
}

const MARGIN = 12; // rows beyond both ends: what a flick of the wheel brings before the next frame

/** What to draw of `rows` rows of `height` each, when `top` is scrolled away and `room` is seen. */
export function shownRows(rows: number, height: number, top: number, room: number): Shown {
  const first = Math.floor(Math.max(0, top) / height);
  const last = Math.ceil((Math.max(0, top) + room) / height);
  const from = Math.max(0, Math.min(first - MARGIN, rows));
  return { from, to: Math.max(from, Math.min(rows, last + MARGIN)) };
}

/** How far to scroll so that a row is seen whole; `undefined` where it is. */
export function reveal(row: number, height: number, top: number, room: number): number | undefined {
  const start = row * height;
  if (start < top) return start;
  if (start + height > top + room) return start + height - room;
  return undefined;
}
