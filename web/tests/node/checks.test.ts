import { expect, test } from "vitest";
import { readCheck } from "../../src/node/checks.ts";

test("a check is found in the words of each kind of host, with its code where there is one", () => {
  const stock =
    "# Tailscale SSH requires an additional check.\n# To authenticate, visit: https://door.test/check/abc\n";
  expect(readCheck(stock)).toMatchObject({ url: "https://door.test/check/abc", code: null });
  const ours =
    "This login has to be approved.\n\n  https://door.test/check/abc \n\nThe code is H4-9K there.\n";
  expect(readCheck(ours)).toMatchObject({ url: "https://door.test/check/abc", code: "H4-9K" });
});

test("what names no link of its own line, or hides its host, is no check", () => {
  for (const words of [
    "Welcome to https://door.test/check/abc",
    "It has to be approved at https://door.test/check/abc by you.",
    "It has to be approved:\nhttps://door.test@evil.test/check/abc",
    "It has to be approved:\nhttps://[",
  ])
    expect(readCheck(words)).toBeUndefined();
});

test("a host that sends nothing but lines costs no time", () => {
  // They take half a minute where a line is looked for from each line on, and milliseconds where not.
  for (let turn = 0; turn < 300; turn++)
    expect(readCheck(`It has to be approved${"\n".repeat(9_900)}`)).toBeUndefined();
}, 15_000);
