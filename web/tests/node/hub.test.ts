import { expect, test, vi } from "vitest";
import { MESSAGE } from "../../src/protocol/ssh/wire.ts";
import { frame, World } from "../support/world.ts";

test("a terminal goes through its steps, each with a time, and is a shell", async () => {
  const world = new World();
  world.open();
  await world.until(() => world.printed() === "$ ");
  const names = ["node", "relay", "tunnel", "tcp", "hostkey", "signin", "shell"];
  expect(world.steps()).toEqual(names.flatMap((name) => [`${name}:doing`, `${name}:done`]));
  for (const { step } of world.told("step"))
    if (step.state === "done") expect(step.ms).toBeGreaterThanOrEqual(0);
  world.type("ls\n");
  await world.until(() => world.printed() === "$ ls\n");
  expect(world.told("node").at(-1)?.state).toEqual({
    tab: 3,
    addresses: ["100.64.0.3", "fd7a::3"],
    relay: "up",
    retry: null,
    over: null,
  });
});

const CHECK = [
  "# This ssh has to be approved within 10 minutes. Its code is 4711",
  "# https://door.test/check/abcdef",
  "# On the server: doorward ssh checks approve 3",
].join("\r\n");

async function opened(world: World, id = 0): Promise<void> {
  world.open(id);
  await world.until(() => world.told("opened", id).length > 0);
}

test("a check is told as what it is, may take its time, and its end is told", async () => {
  let approve = () => {};
  const waits = new Promise<void>((resolve) => {
    approve = resolve;
  });
  const world = new World({ banners: [CHECK], waits });
  world.open();
  await world.until(() => world.told("check").length > 0);
  expect(world.told("check")[0]!.check).toMatchObject({
    url: "https://door.test/check/abcdef",
    code: "4711",
  });
  expect(world.told("banner")[0]!.text).toContain("has to be approved");
  await world.pass(9 * 60_000);
  expect(world.ended()).toBeUndefined();
  approve();
  await world.until(() => world.printed() === "$ ");
  expect(world.steps().slice(-6)).toEqual([
    "signin:doing",
    "check:doing",
    "check:done",
    "signin:done",
    "shell:doing",
    "shell:done",
  ]);
});

test.each([
  ["no-such-machine", 404, "no-such-machine"],
  ["offline", 409, "offline"],
  ["not-linked", 401, "not-linked"],
  ["account-suspended", 403, "suspended"],
  ["not-allowed", 403, "not-allowed"],
  ["too-many-tabs", 429, "server"],
  ["fresh-proof-needed", 403, "server"],
])("what the server refuses as %s is told in its own words", async (type, status, kind) => {
  const world = new World();
  world.answer = () => ({ status, body: { type, title: "no rule names you", cure: "Ask for one." } });
  world.open();
  await world.until(() => world.ended());
  expect(world.ended()!.failure).toMatchObject({ kind, message: "No rule names you.", cure: "Ask for one." });
  expect(world.ended()!.failure!.detail).toBe(type);
  expect(world.steps()).toEqual(["node:doing", "node:failed"]);
});

test.each([
  ["no answer", () => new Error("fetch failed"), "server"],
  ["no JSON", () => ({ status: 502 }), "server"],
  ["something else", () => ({ status: 200, body: { id: 1, targets: "none" } }), "server"],
] as const)("a server that gives %s is told so", async (_, answer, kind) => {
  const world = new World();
  world.answer = answer;
  world.open();
  await world.until(() => world.ended());
  expect(world.ended()!.failure!.kind).toBe(kind);
});

test("a machine is found by its name, too", async () => {
  const world = new World();
  world.open(0, { machine: "server" });
  await world.until(() => world.told("opened").length > 0);
  expect(world.asked.find(({ path }) => path === "/console/tabs")?.body).toMatchObject({
    machine: 7,
    account: "root",
  });
  world.open(1, { machine: "nobody" });
  await world.until(() => world.ended(1));
  expect(world.ended(1)!.failure!.kind).toBe("no-such-machine");
});

test("a relay that lets nobody in is a proxy's doing, where the server says that all is well", async () => {
  const world = new World();
  world.relay("wss://door.test/derp").up = false;
  world.open();
  await world.until(() => world.ended());
  expect(world.ended()!.failure).toMatchObject({ kind: "relay-blocked", detail: "wss://door.test/derp" });
  expect(world.asked.map(({ path }) => path)).toContain("/console/tabs/3");
  // The next try has the same node, and the relay by now.
  world.relay("wss://door.test/derp").up = true;
  world.hub.hear({ kind: "again", id: 0 });
  await world.until(() => world.told("opened").length > 0);
});

test("a machine at a relay that no page can use is told so", async () => {
  const world = new World();
  world.target = { ...world.target, home_region: "9" };
  world.open();
  await world.until(() => world.ended());
  expect(world.ended()!.failure!.kind).toBe("relay-blocked");
});

test("a machine at another relay is reached there, and answers here", async () => {
  const world = new World();
  world.relayUrls = {
    ...world.relayUrls,
    "2": { name: "far", urls: ["wss://dead.test/derp", "wss://far.test/derp"] },
  };
  world.target = { ...world.target, home_region: "2" };
  const [here, far] = [world.relay("wss://door.test/derp"), world.relay("wss://far.test/derp")];
  here.twist = (packet, out) => (out ? [] : [packet]);
  await opened(world);
  world.type("x");
  await world.until(() => world.printed() === "$ x");
  expect(far.packets).toBeGreaterThan(5);
});

test.each([
  ["is off", { on: false }, "timeout", "does not answer"],
  ["has no SSH", { listens: false }, "ssh-off", "port 22"],
  ["drops what comes to it", { filters: true }, "timeout", "not at port 22"],
])("a machine that %s is told so", async (_, state, kind, words) => {
  const world = new World();
  Object.assign(world.machine, state);
  world.open();
  await world.until(() => world.ended());
  expect(world.ended()!.failure).toMatchObject({ kind, message: expect.stringContaining(words) });
});

test("a key that is not the published one ends it before anything is sent, and says why that can be", async () => {
  const world = new World({ key: 4 });
  world.target = { ...world.target, host_keys: [new World().machine.hostKey] };
  world.open();
  await world.until(() => world.ended());
  const { failure } = world.ended()!;
  expect(failure!.kind).toBe("host-key-changed");
  expect(failure!.cure).toContain("restarting its Tailscale");
  expect(failure!.detail).toMatch(/shown SHA256:.{43}, known SHA256:.{43}/);
  expect(world.told("hostKey")).toEqual([]);
  expect(world.machine.hosts[0]!.requests).toEqual([]);
  // Published keys are never a question, however often it is tried.
  world.hub.hear({ kind: "again", id: 0 });
  await world.until(() => world.told("end").length === 2);
  expect(world.told("hostKey")).toEqual([]);
});

test.each([
  ["A", "no base64"],
  ["AAAA", "no key"],
])("a machine whose published key %s is %s lets nobody in, and asks nobody", async (key) => {
  const world = new World();
  world.target = { ...world.target, host_keys: [`ssh-ed25519 ${key}`] };
  world.open();
  await world.until(() => world.ended());
  expect(world.ended()?.failure?.kind).toBe("host-key-changed");
  expect(world.told("hostKey")).toEqual([]);
});

test("beside a published key that is none the good ones count", async () => {
  const world = new World();
  world.target = { ...world.target, host_keys: ["ssh-ed25519 A", world.machine.hostKey] };
  await opened(world);
});

test("a machine that publishes nonsense keeps nothing of other machines from the page", async () => {
  const world = new World();
  await opened(world);
  const hostile = { ...world.target, machine: 8, name: "hostile", host_keys: ["ssh-ed25519 A"] };
  world.answer = () => ({ status: 200, body: { ...world.tab(), targets: [hostile] } });
  world.hub.hear({ kind: "told" });
  await world.until(() => world.ended());
  expect(world.ended()?.failure?.kind).toBe("policy-ended");
});

test("where no key is known the person is asked, and nothing is sent before the answer", async () => {
  const world = new World();
  world.target = { ...world.target, host_keys: [], host_keys_from: "none" };
  world.open();
  await world.until(() => world.told("hostKey").length > 0);
  const { asked, question } = world.told("hostKey")[0]!;
  expect(asked).toMatchObject({ kind: "ssh-ed25519", known: null });
  expect(asked.fingerprint).toMatch(/^SHA256:/);
  await world.pass(5 * 60_000);
  expect(world.ended()).toBeUndefined(); // who compares fingerprints is not hurried
  expect(world.steps().at(-1)).toBe("hostkey:doing");
  world.hub.hear({ kind: "hostKeyAnswer", question, answer: "remember" });
  await world.until(() => world.told("opened").length > 0);
  const kept = world.asked.find(({ path }) => path.endsWith("/host-key"))!;
  expect(kept).toMatchObject({
    path: "/console/machines/7/host-key",
    body: { key: world.machine.hostKey, replaces: null },
  });
});

test("a host that says nothing more once its key was accepted is given up", async () => {
  const world = new World({
    instead: async (host) => {
      const send = host.server.send.bind(host.server);
      host.server.send = async (payload) => {
        if (payload[0] !== MESSAGE.newKeys) await send(payload);
      };
      await host.server.start();
    },
  });
  world.target = { ...world.target, host_keys: [], host_keys_from: "none" };
  world.open();
  await world.until(() => world.told("hostKey").length > 0);
  const { question } = world.told("hostKey")[0]!;
  world.hub.hear({ kind: "hostKeyAnswer", question, answer: "once" });
  await world.pass(21_000);
  expect(world.ended()?.failure?.kind).toBe("timeout");
});

test("a key that is accepted once is not kept, and not asked for again on this page", async () => {
  const world = new World();
  world.target = { ...world.target, host_keys: [], host_keys_from: "none" };
  world.say = (message) =>
    message.kind === "hostKey"
      ? { kind: "hostKeyAnswer", question: message.question, answer: "once" }
      : undefined;
  await opened(world, 0);
  await opened(world, 1);
  expect(world.told("hostKey")).toHaveLength(1);
  expect(world.asked.some(({ path }) => path.endsWith("/host-key"))).toBe(false);
});

test("a key that is refused ends it", async () => {
  const world = new World();
  world.target = { ...world.target, host_keys: [], host_keys_from: "none" };
  world.say = (message) =>
    message.kind === "hostKey"
      ? { kind: "hostKeyAnswer", question: message.question, answer: "refuse" }
      : undefined;
  world.open();
  await world.until(() => world.ended());
  expect(world.ended()!.failure).toMatchObject({ kind: "refused" });
  expect(world.steps().at(-1)).toBe("hostkey:failed");
});

test("a key that this person has accepted and that is another now is refused, and asked for only when they try again", async () => {
  const old = new World().machine.hostKey;
  const world = new World({ key: 4 });
  world.target = { ...world.target, host_keys: [old], host_keys_from: "you" };
  world.open();
  await world.until(() => world.ended());
  expect(world.ended()!.failure!.kind).toBe("host-key-changed");
  expect(world.told("hostKey")).toEqual([]);
  world.say = (message) =>
    message.kind === "hostKey"
      ? { kind: "hostKeyAnswer", question: message.question, answer: "remember" }
      : undefined;
  world.hub.hear({ kind: "again", id: 0 });
  await world.until(() => world.told("opened").length > 0);
  expect(world.told("hostKey")[0]!.asked.known).toMatch(/^SHA256:/);
  const kept = world.asked.find(({ path }) => path.endsWith("/host-key"))!;
  expect(kept.body).toEqual({ key: world.machine.hostKey, replaces: old });
});

test.each([
  ['tailscale: tailnet policy does not permit you to SSH as user "root"', "not-allowed"],
  ['failed to look up local user "root"', "no-account"],
  ["Go away.", "refused"],
])("who is not let in is told why: %s", async (banner, kind) => {
  const world = new World({ banners: [banner], refuses: ["publickey"] });
  world.open();
  await world.until(() => world.ended());
  expect(world.ended()!.failure).toMatchObject({ kind, detail: expect.stringContaining(banner) });
});

test("a shell that ends at once is told apart from one that was used", async () => {
  const world = new World({ shell: (host) => host.exit(1), typed: (host) => host.exit(0) });
  world.open(0);
  await world.until(() => world.ended(0));
  expect(world.ended(0)).toMatchObject({ status: 1, failure: { kind: "shell-ended-at-once" } });
  const used = new World({ typed: (host) => host.exit(0) });
  await opened(used);
  used.type("exit\n");
  await used.until(() => used.ended());
  expect(used.ended()).toEqual({ status: 0, signal: null, failure: null });
  // The connection is ended, too.
  await used.until(() => used.machine.hosts[0]!.over);
});

test("access that is revoked ends the session with that reason", async () => {
  const world = new World({
    typed: async (host) => {
      await host.printError("Access revoked.\r\n");
      await host.exit(254);
    },
  });
  await opened(world);
  world.type("x");
  await world.until(() => world.ended());
  expect(world.ended()!.failure!.kind).toBe("policy-ended");
});

test("when the relay goes down a session waits, is there again with it, and loses nothing", async () => {
  const world = new World();
  const relay = world.relay("wss://door.test/derp");
  await opened(world);
  relay.up = false;
  relay.cut();
  await world.until(() => world.told("link").length > 0);
  expect(world.told("link")[0]).toMatchObject({ state: "waiting", since: 1_800_000_000_000 + world.now });
  world.type("typed while it was down\n");
  void world.machine.hosts[0]!.print("printed while it was down\n");
  await world.pass(40_000);
  expect(world.told("node").at(-1)!.state.relay).not.toBe("up");
  relay.up = true;
  await world.until(() => world.told("link").length === 2, 20_000);
  await world.until(() => world.printed().length === 2 + 2 * 24 + 2);
  expect(world.printed()).toContain("typed while it was down\n");
  expect(world.printed()).toContain("printed while it was down\n");
  expect(world.ended()).toBeUndefined();
});

test("tries begin at once, become rarer, never come together with those of others, and are not given up", async () => {
  const world = new World();
  const relay = world.relay("wss://door.test/derp");
  await opened(world);
  relay.up = false;
  const begun = world.now;
  relay.cut();
  await world.pass(10 * 60_000);
  const waits = relay.tried.slice(1).map((at, index) => at - (index === 0 ? begun : relay.tried[index]!));
  expect(waits[0]).toBeLessThan(300);
  for (const wait of waits) expect(wait).toBeLessThan(16_000);
  expect(waits.slice(-10).every((wait) => wait > 7000)).toBe(true);
  expect(new Set(waits.slice(-10).map(Math.round)).size).toBeGreaterThan(5);
  // The network is there again, and the page knows: nobody waits for the next turn.
  relay.up = true;
  world.hub.hear({ kind: "wake" });
  await world.until(() => world.told("link").at(-1)?.state === "up", 100);
});

test("when it is tried again is told, and whoever does not want to wait need not, also in a pause", async () => {
  const world = new World();
  const relay = world.relay("wss://door.test/derp");
  await opened(world);
  relay.up = false;
  relay.cut();
  await world.pass(60_000);
  await world.until(() => world.told("node").at(-1)!.state.relay === "waiting");
  const { retry } = world.told("node").at(-1)!.state;
  const wait = retry! - 1_800_000_000_000 - world.now;
  expect(wait).toBeGreaterThan(5000);
  expect(wait).toBeLessThan(16_000);
  const tried = relay.tried.length;
  await world.until(() => relay.tried.length > tried, wait + 10);
  expect(world.told("node").at(-1)!.state.retry).toBe(0);
  await world.until(() => world.told("node").at(-1)!.state.relay === "waiting");
  relay.up = true;
  world.hub.hear({ kind: "retry" });
  await world.until(() => world.told("link").at(-1)?.state === "up", 100);
  expect(world.told("node").at(-1)!.state.retry).toBe(null);
  world.hub.hear({ kind: "retry" }); // nothing to try
  const pause = new Uint8Array(8);
  pause.set([0, 0, 0x27, 0x10, 0, 0, 0x75, 0x30]);
  relay.tell(frame(0x15, pause));
  await world.pass(10);
  relay.cut();
  await world.until(() => world.told("link").at(-1)?.state === "waiting");
  world.hub.hear({ kind: "retry" });
  await world.until(() => world.told("link").at(-1)?.state === "up", 100);
});

test("a relay that asks for a pause gets it", async () => {
  const world = new World();
  const relay = world.relay("wss://door.test/derp");
  await opened(world);
  const tried = relay.tried.length;
  const pause = new Uint8Array(8);
  pause.set([0, 0, 0x27, 0x10, 0, 0, 0x75, 0x30]);
  relay.tell(frame(0x15, pause));
  await world.pass(10);
  relay.cut();
  await world.pass(9000);
  expect(relay.tried).toHaveLength(tried);
  await world.until(() => world.told("link").at(-1)?.state === "up", 5000);
});

test("a relay that is only not heard any more is found out, and left", async () => {
  const world = new World();
  const relay = world.relay("wss://door.test/derp");
  await opened(world);
  const tried = relay.tried.length;
  await world.pass(5 * 60_000);
  expect(relay.tried).toHaveLength(tried); // it answers when it is asked
  relay.dumb = true;
  await world.until(() => relay.tried.length > tried, 60_000);
  relay.dumb = false;
  await world.until(() => world.told("link").at(-1)?.state === "up", 60_000);
  world.type("x");
  await world.until(() => world.printed() === "$ x");
});

test("after two hours of sleep the session goes on", async () => {
  const world = new World();
  const relay = world.relay("wss://door.test/derp");
  await opened(world);
  world.machine.pump();
  relay.up = false;
  relay.cut(); // the other side has seen that we are gone; we sleep before we see it
  world.sleep(2 * 3600_000);
  relay.up = true;
  world.hub.hear({ kind: "wake" });
  world.type("good morning");
  await world.until(() => world.printed() === "$ good morning", 20_000);
  expect(world.ended()).toBeUndefined();
  expect(world.asked.some(({ method, path }) => method === "GET" && path === "/console/tabs/3")).toBe(true);
});

test("a machine that was started anew ends its sessions, and gives new ones", async () => {
  const world = new World();
  await opened(world);
  world.machine.on = false;
  await world.pass(60_000);
  expect(world.ended()).toBeUndefined();
  expect(world.told("link").at(-1)!.state).toBe("waiting"); // nobody typed, and yet it is seen
  world.machine.on = true;
  world.machine.reboot();
  await world.until(() => world.ended(), 120_000);
  expect(world.ended()!.failure!.kind).toBe("lost");
  world.hub.hear({ kind: "again", id: 0 });
  await world.until(() => world.told("opened").length === 2);
});

test("of a terminal that is closed for good nothing is kept, its key file least of all", async () => {
  const world = new World();
  const bytes = new TextEncoder().encode("no key that anybody knows");
  world.open(0, { keyFile: { bytes } });
  // What reads such files is loaded first, which takes true time.
  await vi.waitFor(() => expect(world.ended()).toBeDefined(), { timeout: 20_000 });
  expect(bytes.some((one) => one !== 0)).toBe(true); // it may be tried once more
  world.hub.hear({ kind: "forget", id: 0 });
  expect(bytes.every((one) => one === 0)).toBe(true);
  world.hub.hear({ kind: "again", id: 0 });
  expect(world.ended()!.failure!.message).toBe("This terminal is not known any more.");
  await opened(world, 1);
  world.hub.hear({ kind: "forget", id: 1 });
  expect(world.ended(1)).toMatchObject({ failure: null });
});

test("a machine that never comes back is given up some minutes later", async () => {
  const world = new World();
  await opened(world);
  world.machine.on = false;
  world.type("is anybody there");
  await world.until(() => world.ended(), 15 * 60_000);
  expect(["lost", "timeout"]).toContain(world.ended()!.failure!.kind);
});

test("a machine that has moved to another relay is followed there", async () => {
  const world = new World();
  world.relayUrls = { ...world.relayUrls, "2": { name: "far", urls: ["wss://far.test/derp"] } };
  const [here, far] = [world.relay("wss://door.test/derp"), world.relay("wss://far.test/derp")];
  await opened(world);
  world.target = { ...world.target, home_region: "2" };
  here.twist = (packet, out) => (out ? [] : [packet]);
  world.hub.hear({ kind: "told" });
  await world.until(() => far.connected === 1);
  world.type("x");
  await world.until(() => world.printed() === "$ x");
});

const over = (word: string) => ({
  ...new World().tab(),
  state: "over",
  over: word,
  reason: "the policy has changed",
  cure: "Ask.",
});

test.each([
  [
    "the tab is gone",
    { status: 404, body: { type: "tab-over", title: "this tab is no node", cure: "Open it again." } },
    "lost",
  ],
  [
    "the policy has changed",
    { status: 403, body: { type: "policy-ended", title: "the rule is gone", cure: "Ask." } },
    "policy-ended",
  ],
  [
    "the sign-in is linked to nobody",
    { status: 401, body: { type: "not-linked", title: "your sign-in is not linked", cure: "Ask." } },
    "not-linked",
  ],
  [
    "the person is suspended",
    { status: 403, body: { type: "account-suspended", title: "alice is suspended", cure: "Ask." } },
    "suspended",
  ],
  [
    "it is over",
    {
      status: 200,
      body: over("policy-ended"),
    },
    "policy-ended",
  ],
  ["it was away for too long", { status: 200, body: over("lost") }, "lost"],
  ["somebody has signed out", { status: 200, body: over("session-over") }, "session-over"],
  [
    "the sign-in is over",
    { status: 401, body: { type: "session-over", title: "you are not signed in", cure: "Sign in." } },
    "session-over",
  ],
  ["an administrator has removed it", { status: 200, body: over("removed") }, "lost"],
])("where the server says that %s, everything ends at once and in its words", async (_, answer, kind) => {
  const world = new World();
  await opened(world, 0);
  await opened(world, 1);
  const relay = world.relay("wss://door.test/derp");
  world.answer = ({ method }) => (method === "GET" ? answer : undefined);
  relay.up = false;
  relay.cut();
  await world.until(() => world.ended(0) && world.ended(1), 1000);
  const said = (answer.body as { title?: string; reason?: string }).title ?? "the policy has changed";
  for (const id of [0, 1]) {
    expect(world.ended(id)!.failure!.kind).toBe(kind);
    expect(world.ended(id)!.failure!.message.toLowerCase()).toContain(said);
  }
  expect(world.told("node").at(-1)!.state.over!.kind).toBe(kind);
  const tried = relay.tried.length;
  await world.pass(60_000);
  expect(relay.tried).toHaveLength(tried); // who is not wanted does not knock
});

test("a server that is not reached ends nothing", async () => {
  const world = new World();
  const relay = world.relay("wss://door.test/derp");
  await opened(world);
  world.answer = () => new Error("no network");
  relay.up = false;
  relay.cut();
  await world.pass(5 * 60_000);
  expect(world.ended()).toBeUndefined();
  relay.up = true;
  world.answer = () => undefined;
  await world.until(() => world.told("link").at(-1)?.state === "up", 30_000);
});

test("who is told that something is new looks at once", async () => {
  const world = new World();
  await opened(world);
  world.answer = () => ({
    status: 403,
    body: { type: "policy-ended", title: "the rule is gone", cure: "Ask." },
  });
  world.hub.hear({ kind: "told" });
  await world.until(() => world.ended(), 10);
});

test("after the end of a tab the next terminal has a new node with a new key", async () => {
  const world = new World();
  await opened(world);
  world.answer = ({ path }) =>
    path === "/console/tabs/3" || path.endsWith("/targets")
      ? { status: 404, body: { type: "not-found", title: "there is no such tab" } }
      : undefined;
  world.open(1); // nobody has told us that the server forgot it
  await world.until(() => world.told("opened", 1).length > 0);
  const keys = world.asked.filter(({ path }) => path === "/console/tabs").map(({ body }) => body.node_key);
  expect(new Set(keys).size).toBe(2);
});

test("leaving tells the relay and the server, and ends everything", async () => {
  const world = new World();
  await opened(world);
  world.hub.hear({ kind: "leave" });
  await world.until(() => world.ended(), 10);
  await world.pass(10);
  expect(world.relay("wss://door.test/derp").left).toEqual([4000]);
  expect(world.asked.at(-1)).toMatchObject({ method: "POST", path: "/console/tabs/3/leave" });
});

test("where the policy takes one machine or one account away, what was open there ends, and nothing else", async () => {
  const world = new World();
  world.target = { ...world.target, accounts: ["root", "ann"] };
  world.open(0);
  world.open(1, { account: "ann" });
  await world.until(() => world.told("opened").length === 2);
  world.target = { ...world.target, accounts: ["ann"], account: "ann" };
  world.hub.hear({ kind: "told" });
  await world.until(() => world.ended(0));
  expect(world.ended(0)!.failure).toMatchObject({
    kind: "policy-ended",
    message: expect.stringContaining("root"),
  });
  expect(world.ended(1)).toBeUndefined();
  world.answer = ({ method }) =>
    method === "GET" ? { status: 200, body: { ...world.tab(), targets: [] } } : undefined;
  world.hub.hear({ kind: "told" });
  await world.until(() => world.ended(1));
  expect(world.ended(1)!.failure!.kind).toBe("policy-ended");
  expect(world.told("node").at(-1)!.state.over).toBeNull();
});

test("a machine of which no relay is known is not connected", async () => {
  const world = new World();
  world.target = { ...world.target, home_region: 0 };
  world.open();
  await world.until(() => world.ended());
  expect(world.ended()!.failure!.kind).toBe("offline");
});

test("that nobody is signed in is said in words for people", async () => {
  const answer = {
    status: 401,
    body: { type: "unauthenticated", title: "no token came", cure: "Send one." },
  };
  const world = new World();
  await opened(world);
  world.answer = () => answer;
  world.hub.hear({ kind: "told" });
  world.open(1);
  await world.until(() => world.ended(0) && world.ended(1));
  for (const id of [0, 1]) {
    expect(world.ended(id)!.failure).toMatchObject({ kind: "session-over", detail: "unauthenticated" });
    expect(world.ended(id)!.failure!.message).not.toContain("token");
  }
  // The page knows why before the first of its terminals ends.
  const over = world.heard.findIndex((message) => message.kind === "node" && message.state.over !== null);
  expect(over).toBeGreaterThan(0);
  expect(over).toBeLessThan(world.heard.findIndex(({ kind }) => kind === "end"));
});

test("a machine that hears of the tab a moment later is reached a moment later", async () => {
  const world = new World();
  let late = true;
  world.relay("wss://door.test/derp").twist = (packet, out) => (out && late ? [] : [packet]);
  world.after(600, () => {
    late = false;
  });
  await opened(world);
  expect(world.now).toBeLessThan(2500);
});
