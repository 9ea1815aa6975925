/** Text from outside: a name that somebody else chose is hostile until it is shown. Pure. */

// Drawn as nothing, or turning what stands around them: control and format characters, private use, unusual spaces and fillers.
const UNSEEN =
  /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\u00a0\u115f\u1160\u1680\u2000-\u200a\u202f\u205f\u2800\u3000\u3164\uffa0]|\u034f/gu;

/** The text with every character that nobody would see written out, as `U+202E`; at most `limit` characters of it. */
export function shown(text: string, limit = 255): string {
  const letters = [...text];
  const cut = letters.length > limit ? `${letters.slice(0, limit).join("")}…` : text;
  return cut.replace(UNSEEN, (one) => `U+${one.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")}`);
}
