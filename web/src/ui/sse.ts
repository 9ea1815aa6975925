/** Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html, 9.2.6), as far as we send them. Pure. */

export interface ServerEvent {
  readonly event: string;
  readonly data: string;
}

/** The longest event we take, in characters; a stream that goes beyond is not ours. */
const LONGEST = 32 * 1024 * 1024;

/** Takes text as it comes, in any pieces, and gives whole events. Comments count as nothing, but show that the stream lives. */
export class EventParser {
  #rest = "";
  #event = "";
  #data: string[] = [];

  /** The events that end in this piece. Throws RangeError for one that does not end. */
  push(text: string): ServerEvent[] {
    const found: ServerEvent[] = [];
    const whole = this.#rest + text;
    // A return at the very end may be half of a line's end.
    const keep = whole.endsWith("\r") ? 1 : 0;
    const lines = whole.slice(0, whole.length - keep).split(/\r\n|\n|\r/);
    this.#rest = lines.pop()! + whole.slice(whole.length - keep);
    if (this.#rest.length > LONGEST) throw new RangeError("an event does not end");
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length > 0)
          found.push({ event: this.#event || "message", data: this.#data.join("\n") });
        this.#event = "";
        this.#data = [];
        continue;
      }
      const colon = line.indexOf(":");
      const name = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
      if (name === "event") this.#event = value;
      else if (name === "data") this.#data.push(value);
    }
    return found;
  }
}
