/** What is pasted: made safe for a shell, and sent in pieces so that a megabyte neither freezes the page nor swallows Ctrl C. */

const PIECE = 16 * 1024; // bytes: a few packets, so that what is typed meanwhile waits for milliseconds
export const BEGIN = "\u001b[200~"; // xterm's bracketed paste
export const END = "\u001b[201~";

/**
 * The text as a keyboard could have sent it: lines end in CR, and no control character but the tab is left.
 *
 * An escape character in a clipboard can end the bracket around the paste and run what follows it; so there is none.
 */
export function typed(text: string): string {
  return text.replace(/\r?\n/gu, "\r").replace(/(?![\t\r])\p{Cc}/gu, "");
}

/** How many lines would run at once, were the text typed into a shell that does not know of pastes. */
export function linesOf(text: string): number {
  return typed(text).split("\r").length - 1;
}

/** The bytes to send, in pieces. ``bracketed`` where the program at the other end asked to be told of pastes. */
export function* pieces(text: string, bracketed: boolean): Generator<Uint8Array> {
  const safe = typed(text);
  const bytes = new TextEncoder().encode(bracketed ? `${BEGIN}${safe}${END}` : safe);
  for (let at = 0; at < bytes.length; at += PIECE) yield bytes.subarray(at, at + PIECE);
}

export interface Paster {
  /** Send it, after what is being sent already. Resolves when the last piece was handed over or it was stopped. */
  paste(text: string, bracketed: boolean): Promise<void>;
  /** Forget what was not sent yet; the bracket is closed where one was open. */
  stop(): void;
  readonly busy: boolean;
}

/**
 * Hands pieces to ``send``, each when ``ready`` says so.
 *
 * @param ready resolves when the next piece may go: after the page has had its turn, so that keys and drawing come between.
 */
export function paster(send: (bytes: Uint8Array) => void, ready: () => Promise<void>): Paster {
  let last: Promise<void> = Promise.resolve();
  let pending = 0;
  let generation = 0;
  async function run(text: string, bracketed: boolean, mine: number): Promise<void> {
    let begun = false;
    try {
      for (const piece of pieces(text, bracketed)) {
        if (mine !== generation) {
          if (begun && bracketed) send(new TextEncoder().encode(END));
          return;
        }
        send(piece);
        begun = true;
        await ready();
      }
    } finally {
      pending -= 1;
    }
  }
  return {
    paste(text, bracketed) {
      pending += 1;
      const mine = generation;
      last = last.then(() => run(text, bracketed, mine));
      return last;
    },
    stop() {
      generation += 1;
    },
    get busy() {
      return pending > 0;
    },
  };
}
