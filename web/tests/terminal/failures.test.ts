import { describe, expect, it } from "vitest";
import { coded, explained, KINDS } from "../../src/terminal/failures.ts";

const ORIGIN = "https://door.example.net";
const say = (kind: string, account: string | null = "deploy") =>
  explained({ kind: kind as "server", message: "", cure: "" }, "web-1", account, ORIGIN);

describe.each(KINDS)("%s", (kind) => {
  const state = say(kind);

  it("is a state of its own, says why, and what to do", () => {
    expect(state.kind).toBe(kind);
    expect(state.steps.length).toBeGreaterThan(0);
    for (const text of [state.title, state.why, state.state, ...state.steps]) {
      expect(text.length).toBeGreaterThan(4);
      expect(coded(text).length % 2, text).toBe(1); // each backtick has its other
      expect(text).not.toMatch(/!|please|oops|something went wrong/iu);
    }
  });

  it("can be tried again, or says what to do first", () => {
    expect(state.retry !== null || state.signIn || kind === "no-secure-context").toBe(true);
  });
});

it("no two kinds have the same title", () => {
  expect(new Set(KINDS.map((kind) => say(kind).title)).size).toBe(KINDS.length);
});

it("whoever saw it has the first word, and the first cure", () => {
  const state = explained(
    { kind: "not-allowed", message: "no rule names group:dev for web-1", cure: "add one\u202e" },
    "web-1",
    "root",
    ORIGIN,
  );
  expect(state.why).toBe("No rule names group:dev for web-1.");
  expect(state.steps).toEqual(["Add one."]);
});

it("a machine's name stays as it is, also where a sentence begins with it", () => {
  const failure = { kind: "not-allowed", message: "web-1 is suspended", cure: "" } as const;
  expect(explained(failure, "web-1", "root", ORIGIN).why).toBe("web-1 is suspended.");
});

it("a title is not said again below it", () => {
  const failure = { kind: "no-account", message: "web-1 has no account “deploy”.", cure: "" } as const;
  expect(explained(failure, "web-1", "deploy", ORIGIN).why).toMatch(/does not know this name/u);
});

it("the star is no account", () => {
  expect(say("no-account", "*")).toMatchObject({ title: "`*` is no account", retry: null });
  expect(say("no-account").title).toBe("web-1 has no account deploy");
  // Whatever the server says of it, which takes it for a name.
  const refused = { kind: "not-allowed", message: "No rule names *.", cure: "Ask for one." } as const;
  expect(explained(refused, "web-1", "*", ORIGIN)).toEqual(say("no-account", "*"));
});

it("a blocked relay shows the lines for the proxies, with the name of this door", () => {
  const samples = say("relay-blocked").samples;
  expect(samples.map((one) => one.name)).toEqual(["nginx", "Caddy"]);
  expect(samples[0]?.text).toContain("proxy_set_header Upgrade $http_upgrade;");
  expect(samples[1]?.text).toContain("door.example.net {");
});

it("a page without https names the address that has it, where there is one", () => {
  const failure = { kind: "no-secure-context", message: "", cure: "" } as const;
  const there = explained(failure, "web-1", "deploy", ORIGIN, `${ORIGIN}/terminal/web-1/deploy`);
  expect(there.elsewhere).toBe(`${ORIGIN}/terminal/web-1/deploy`);
  expect(there.steps).toEqual([`Open it at \`${ORIGIN}/terminal/web-1/deploy\`.`]);
  expect(say("no-secure-context").elsewhere).toBe(null);
});

it("the door is barred where somebody refused, and shut where nobody did", () => {
  expect(say("not-allowed")).toMatchObject({ door: "barred", state: "Stopped before anything was sent" });
  expect(say("offline")).toMatchObject({ door: "shut" });
  expect(say("timeout")).toMatchObject({ door: "shut", state: "Nothing came back" });
});

it("an unknown kind is a fault of the server's, not of the page", () => {
  expect(say("nonsense").kind).toBe("server");
});

it("a changed key stands beside the known one", () => {
  const failure = {
    kind: "host-key-changed",
    message: "m",
    cure: "c",
    detail: "shown SHA256:new, known SHA256:old",
  } as const;
  const state = explained(failure, "web-1", "root", ORIGIN);
  expect(state.facts).toEqual([
    { name: "known until now", text: "SHA256:old", wrong: false },
    { name: "what answered", text: "SHA256:new", wrong: true },
  ]);
  const several = explained(
    { ...failure, detail: `${failure.detail}, SHA256:other` },
    "web-1",
    "root",
    ORIGIN,
  );
  expect(several.facts.map(({ text }) => text)).toEqual(["SHA256:old", "SHA256:other", "SHA256:new"]);
  expect(state.steps).toEqual(["C.", "If nobody reinstalled it, do not go in. Tell an administrator."]);
  expect(explained({ ...failure, kind: "lost" }, "web-1", "root", ORIGIN).facts).toEqual([]);
});
