import { describe, expect, it } from "vitest";
import type { Failure, Step } from "../../src/node/client.ts";
import {
  counted,
  doorOf,
  duration,
  ending,
  type Happening,
  lines,
  lives,
  newPane,
  next,
  type Pane,
  signedOut,
  turned,
  word,
} from "../../src/terminal/pane.ts";

const FAILURE: Failure = { kind: "offline", message: "web-1 is offline", cure: "wake it" };
const step = (name: Step["name"], state: Step["state"], ms?: number, detail?: string): Happening => ({
  is: "step",
  step: { name, state, ...(ms === undefined ? {} : { ms }), ...(detail === undefined ? {} : { detail }) },
});
const after = (...all: Happening[]): Pane => all.reduce(next, newPane("p1", "web-1", "deploy", 1_000));

const THERE: Happening[] = [
  step("node", "done", 5),
  step("relay", "done", 36, "fra over WebSocket"),
  step("tunnel", "done", 90),
  step("tcp", "done", 6),
  step("hostkey", "done", 12, "SHA256:x"),
  step("signin", "done", 50),
  step("shell", "done", 10),
];

it("a terminal without an account asks for one", () => {
  const pane = newPane("p1", "web-1", null, 0);
  expect([pane.phase, word(pane), doorOf(pane)]).toEqual(["choosing", "as whom", "ajar"]);
  const chosen = next(pane, { is: "chosen", account: "root", at: 7 });
  expect([chosen.phase, chosen.account, chosen.since]).toEqual(["opening", "root", 7]);
});

describe("while it opens", () => {
  it("the steps are told in their order, in people's words, with their times", () => {
    const pane = after(
      step("relay", "done", 36, "fra"),
      step("node", "done", 5),
      step("tunnel", "done", 90),
      step("tcp", "doing"),
    );
    expect(lines(pane)).toEqual([
      { name: "relay", state: "done", ms: 41, detail: "fra" },
      { name: "tunnel", state: "doing", ms: null, detail: "" },
      { name: "host key", state: "waits", ms: null, detail: "" },
      { name: "ssh", state: "waits", ms: null, detail: "" },
      { name: "shell", state: "waits", ms: null, detail: "" },
    ]);
    expect(turned(pane)).toBe(0.2);
    expect(turned(after(...THERE))).toBe(1);
  });

  it("a step that failed is seen where it failed", () => {
    const pane = after(step("node", "done", 1), step("relay", "failed", 3, "no WebSocket"));
    expect(lines(pane)[0]).toEqual({ name: "relay", state: "failed", ms: null, detail: "no WebSocket" });
    expect(turned(pane)).toBe(0);
  });

  it("a check waits for a person, and is gone when the shell comes", () => {
    const asked: Happening = {
      is: "check",
      path: "/check/abcdefgh",
      code: "H4\u00079K",
      text: "# Code\u001b",
      at: 5_000,
    };
    const waits = after(step("check", "doing"), asked, { ...asked, at: 9_000 });
    expect(waits.check).toEqual({ path: "/check/abcdefgh", code: "H4 9K", text: "# Code", since: 5_000 });
    expect([word(waits), doorOf(waits)]).toEqual(["check", "ajar"]);
    expect(lines(waits).map((line) => line.name)).toContain("check");
    expect(next(waits, step("check", "done", 4_000)).check).toBeNull();
    expect(next(waits, step("shell", "doing")).check).toBeNull();
    expect(next(waits, { is: "open", at: 9 }).check).toBeNull();
  });

  it("a question stands until it is answered, or nothing is left to ask for", () => {
    const asking = {
      what: "host-key",
      key: { fingerprint: "SHA256:x", kind: "ssh-ed25519", known: null },
    } as const;
    const asked = after({ is: "asked", asking });
    expect([asked.asking, word(asked)]).toEqual([asking, "asks"]);
    expect(next(asked, { is: "answered" }).asking).toBeNull();
    const end: Happening = { is: "end", status: null, signal: null, failure: FAILURE, at: 1 };
    expect(next(asked, end).asking).toBeNull();
    expect(next(next(asked, end), { is: "asked", asking }).asking).toBeNull();
  });

  it("the words of a host's questions are cleaned", () => {
    const asked = {
      title: "Two\u0007",
      text: "a\u001b[2J\nb",
      questions: [{ text: "Pass\u202eword: ", echo: false }],
    };
    expect(after({ is: "asked", asking: { what: "questions", asked } }).asking).toEqual({
      what: "questions",
      asked: { title: "Two", text: "a[2J\nb", questions: [{ text: "Pass word:", echo: false }] },
    });
  });

  it("banners are kept together, cleaned", () => {
    expect(after({ is: "banner", text: "one\u001b[2J" }, { is: "banner", text: "two" }).banner).toBe(
      "one[2J\ntwo",
    );
  });
});

it("who is signed out has to sign in first, until they have", () => {
  const ended = (kind: Failure["kind"]) =>
    after(
      ...THERE,
      { is: "open", at: 2 },
      { is: "end", status: null, signal: null, failure: { ...FAILURE, kind }, at: 9 },
    );
  expect(signedOut(ended("session-over"), 0)).toBe(true);
  expect(signedOut(ended("not-linked"), 8)).toBe(true);
  expect(signedOut(ended("session-over"), 10)).toBe(false);
  expect(signedOut(ended("lost"), 0)).toBe(false);
  expect(signedOut(after(...THERE), 0)).toBe(false);
  const words = (["session-over", "not-linked", "policy-ended", "timeout"] as const).map((kind) =>
    word(ended(kind)),
  );
  expect(words).toEqual(["signed out", "signed out", "no way in", "lost"]);
});

describe("a page that is loaded again offers", () => {
  const end = (kind: Failure["kind"] | null): Happening => ({
    is: "end",
    status: kind === null ? 0 : null,
    signal: null,
    failure: kind === null ? null : { ...FAILURE, kind },
    at: 9,
  });
  const open: Happening = { is: "open", at: 2 };

  it.each([
    ["one that opens", after(...THERE)],
    ["one that is open", after(...THERE, open)],
    ["one that was lost", after(...THERE, open, end("lost"))],
    ["one that waits for its machine", after(end("offline"))],
    ["one that waits for its person", after(end("session-over"))],
  ])("%s", (_, pane) => expect(lives(pane)).toBe(true));

  it.each([
    ["none that nobody has chosen an account for", newPane("p1", "web-1", null, 0)],
    ["none whose shell has ended", after(...THERE, open, end(null))],
    ["none that was refused", after(end("not-allowed"))],
  ])("%s", (_, pane) => expect(lives(pane)).toBe(false));
});

describe("an open shell", () => {
  const open = after(...THERE, { is: "open", at: 2_000 });

  it("is live", () => {
    expect([open.phase, doorOf(open), word(open)]).toEqual(["open", "open", ""]);
  });

  it("that loses its link waits, and goes on", () => {
    const lost = next(open, { is: "link", lost: 3_000 });
    expect([lost.phase, lost.waiting, word(lost)]).toEqual(["open", 3_000, "no link"]);
    expect(next(lost, { is: "link", lost: null }).waiting).toBeNull();
  });

  it("has a title by its host, cleaned, and a bell until it is looked at", () => {
    expect(next(open, { is: "title", text: "vim\u0007\u202e x" }).title).toBe("vim x");
    const rang = next(open, { is: "bell" });
    expect(next(rang, { is: "bell" })).toBe(rang); // nothing to draw anew
    expect(rang.rang).toBe(true);
    expect(next(rang, { is: "seen" }).rang).toBe(false);
    expect(next(open, { is: "seen" })).toBe(open);
  });

  it.each([
    [0, null, "ended 0", "The shell ended."],
    [3, null, "ended 3", "The shell ended with exit status 3."],
    [null, "KILL", "ended KILL", "The shell was ended by signal KILL."],
    [null, null, "ended", "The shell ended without an exit status."],
  ])("ends: status %j, signal %j", (status, signal, tab, sentence) => {
    const ended = next(open, { is: "end", status, signal, failure: null, at: 9 });
    expect([word(ended), ending(ended.end!), doorOf(ended)]).toEqual([tab, sentence, "shut"]);
    expect(ended.end?.opened).toBe(true);
  });

  it("can be opened again, and knows nothing of before but its size", () => {
    const sized = next(open, { is: "size", columns: 120, rows: 40 });
    const ended = next(sized, { is: "end", status: 1, signal: null, failure: null, at: 9 });
    const again = next(ended, { is: "again", at: 10 });
    expect(again).toEqual({ ...newPane("p1", "web-1", "deploy", 10), columns: 120, rows: 40 });
  });
});

it("what was refused is barred, what is away or was lost is shut", () => {
  const end: Happening = { is: "end", status: null, signal: null, failure: FAILURE, at: 9 };
  const refused = after({ ...end, failure: { ...FAILURE, kind: "not-allowed" } });
  expect([doorOf(refused), word(refused)]).toEqual(["barred", "stopped"]);
  expect([doorOf(after(end)), word(after(end))]).toEqual(["shut", "stopped"]);
  const lost = after(...THERE, { is: "open", at: 1 }, end);
  expect([doorOf(lost), word(lost)]).toEqual(["shut", "lost"]);
});

it("nothing happens to a terminal after its end", () => {
  const ended = after({ is: "end", status: 0, signal: null, failure: null, at: 9 });
  for (const late of [
    step("relay", "doing"),
    { is: "check", path: null, code: null, text: "", at: 1 },
    { is: "link", lost: 4 },
    { is: "end", status: 1, signal: null, failure: FAILURE, at: 10 },
  ] satisfies Happening[]) {
    expect(next(ended, late)).toBe(ended);
  }
});

it("times are short", () => {
  expect([41.4, 1_204, 123_000].map(duration)).toEqual(["41 ms", "1.20 s", "2 min 3 s"]);
  expect([42_000, 725_000, -5].map(counted)).toEqual(["0:42", "12:05", "0:00"]);
});
