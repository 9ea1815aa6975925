/** Times as people read them. Pure: what time it is now is an argument, in milliseconds. */

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** How long ago, in the least room: `now`, `4 min`, `6 h`, `3 d`. A time ahead is `now`. */
export function ago(when: number, now: number): string {
  const past = now - when;
  if (past < MINUTE) return "now";
  if (past < HOUR) return `${Math.floor(past / MINUTE)} min`;
  if (past < DAY) return `${Math.floor(past / HOUR)} h`;
  return `${Math.floor(past / DAY)} d`;
}

/** The time of day, `09:41`, where the reader is. */
export function clock(when: number): string {
  return new Date(when).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });
}

/** The whole moment, for a tooltip. */
export function moment(when: number): string {
  return new Date(when).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

/** How much is left of the time in which a proof is good, from 1 to 0. */
export function left(proven: number, now: number, lifetime = 15 * MINUTE): number {
  return Math.min(1, Math.max(0, 1 - (now - proven) / lifetime));
}
