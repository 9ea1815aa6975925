/**
 * What a host may make this page do, and what not.
 *
 * Everything a terminal receives is text by a stranger: a file that somebody prints may hold any escape sequence. So a title is cut
 * and cleaned, a link is shown before it is followed, a clipboard may be filled after a question and is never read, and no sequence
 * makes the terminal type the stranger's words back into the shell.
 */

const MOST_TITLE = 120; // characters; what a tab and a window can show
const MOST_LINK = 2_000; // characters; longer ones are no addresses that a person can look at
export const MOST_CLIPBOARD = 256 * 1024; // bytes that a host may offer to the clipboard

/** Characters that are not seen, or that turn the direction of what follows: they could make one text look like another. */
const UNSEEN = /[\p{Cc}\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/gu;

/** A line of text from outside as it may stand in a title: no control characters, no direction marks, and an end. */
export function cleanLine(text: string, most: number = MOST_TITLE): string {
  const plain = text
    .slice(0, most * 8)
    .replace(UNSEEN, " ")
    .replace(/\s+/gu, " ")
    .trim();
  const characters = Array.from(plain);
  return characters.length > most ? `${characters.slice(0, most - 1).join("")}…` : plain;
}

/** Several lines from outside (a banner, a prompt): the lines stay, everything else that is not seen goes. */
export function cleanLines(text: string, most: number = 4_000): string {
  return text
    .slice(0, most)
    .replace(/\r\n?/gu, "\n")
    .split("\n")
    .map((line) => line.replaceAll("\t", "    ").replace(UNSEEN, ""))
    .join("\n")
    .trim();
}

export interface SafeLink {
  href: string;
  /** The host as the browser will reach it (punycode, so no letter can pretend to be another). */
  host: string;
  /** True where the address carries a name or password, which only serves to look like another host. */
  disguised: boolean;
}

/** An address that may be opened after a question: http and https alone. Undefined for everything else. */
export function safeLink(text: string): SafeLink | undefined {
  if (text.length > MOST_LINK || text.search(UNSEEN) >= 0) return undefined;
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return undefined;
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") return undefined;
  const disguised = url.username !== "" || url.password !== "";
  url.username = "";
  url.password = "";
  return { href: url.href, host: url.host, disguised };
}

/** Web addresses in a line of a terminal: where they begin, and what they are. A bracket or a full stop after one is not part of it. */
export function linksIn(line: string): { at: number; text: string }[] {
  const found: { at: number; text: string }[] = [];
  for (const match of line.matchAll(/https?:\/\/[^\s"'<>\\^`{|}\p{Cc}]+/giu)) {
    let text = match[0].replace(/[.,;:!?]+$/u, "");
    while (/[)\]]$/u.test(text) && !balanced(text)) text = text.slice(0, -1).replace(/[.,;:!?]+$/u, "");
    if (safeLink(text) !== undefined) found.push({ at: match.index, text });
  }
  return found;
}

function balanced(text: string): boolean {
  const [open, close] = text.endsWith(")") ? ["(", ")"] : ["[", "]"];
  return text.split(open!).length >= text.split(close!).length;
}

/**
 * What an OSC 52 sequence offers to the clipboard: "c;BASE64".
 *
 * Undefined for a question ("c;?": what is in the clipboard is nobody's business), for another selection, for what is too
 * long, and for what is no UTF-8 text.
 */
export function offeredToClipboard(data: string): string | undefined {
  const cut = data.indexOf(";");
  if (cut < 0 || data.length - cut > (MOST_CLIPBOARD * 4) / 3 + 8) return undefined;
  const targets = data.slice(0, cut);
  const content = data.slice(cut + 1);
  if (!/^[cps0-7]*$/u.test(targets) || content === "" || content === "?") return undefined;
  if (!/^[A-Za-z0-9+/]+={0,2}$/u.test(content)) return undefined;
  try {
    const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/**
 * The page of a check, at our own origin.
 *
 * The address comes through the host's banner, so its words are the host's: only the path of a check is taken from it, and that
 * is opened here and nowhere else. Undefined where it is no such path.
 */
export function checkPath(address: string, base: string): string | undefined {
  try {
    const path = new URL(address, base).pathname;
    const match = /\/check\/([A-Za-z0-9_-]{8,128})$/u.exec(path);
    return match === null ? undefined : `/check/${match[1]}`;
  } catch {
    return undefined;
  }
}
