import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Live } from "../../src/ui/live.ts";

/** A page, and a server that counts who listens. */
class Scene {
  readonly streams: AbortSignal[] = [];
  readonly #heard = new Map<string, () => void>();
  readonly page = { visibilityState: "visible" };
  refusal: Response | undefined;

  constructor() {
    vi.stubGlobal("document", this.page);
    vi.stubGlobal("addEventListener", (kind: string, listener: () => void) =>
      this.#heard.set(kind, listener),
    );
    vi.stubGlobal("fetch", (_: string, { signal }: { signal: AbortSignal }) => {
      if (this.refusal !== undefined) return Promise.resolve(this.refusal);
      this.streams.push(signal);
      const body = new ReadableStream<Uint8Array>({
        start: (stream) =>
          signal.addEventListener("abort", () => stream.error(new DOMException("", "AbortError"))),
      });
      return Promise.resolve({ status: 200, ok: true, body });
    });
  }

  async turns(state: "visible" | "hidden"): Promise<void> {
    this.page.visibilityState = state;
    this.#heard.get("visibilitychange")?.();
    await vi.advanceTimersByTimeAsync(0);
  }

  get open(): number {
    return this.streams.filter((signal) => !signal.aborted).length;
  }
}

let scene: Scene;
let opened: number;
let live: Live;

beforeEach(() => {
  vi.useFakeTimers();
  scene = new Scene();
  opened = 0;
  live = new Live("/events", { open: () => opened++, event: () => undefined });
});
afterEach(() => {
  live.end();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

it("a page that nobody looks at has no stream, and one again when somebody does", async () => {
  live.start();
  await vi.advanceTimersByTimeAsync(0);
  expect([scene.open, opened, live.link.value.state]).toEqual([1, 1, "live"]);
  await scene.turns("hidden");
  expect([scene.open, live.link.value.state]).toEqual([0, "opening"]);
  await vi.advanceTimersByTimeAsync(600_000);
  expect(scene.streams.length).toBe(1); // nothing is tried meanwhile
  await scene.turns("visible");
  // Begun anew, so that what was missed is asked for.
  expect([scene.open, opened, live.link.value.state]).toEqual([1, 2, "live"]);
});

it("a page that was opened behind others begins when somebody looks", async () => {
  scene.page.visibilityState = "hidden";
  live.start();
  await vi.advanceTimersByTimeAsync(600_000);
  expect(scene.streams.length).toBe(0);
  await scene.turns("visible");
  expect(scene.open).toBe(1);
});

it("one that is over stays so", async () => {
  live.start();
  await vi.advanceTimersByTimeAsync(0);
  live.end();
  await scene.turns("hidden");
  await scene.turns("visible");
  expect([scene.open, live.link.value.state]).toEqual([0, "over"]);
});

it("what was over begins again once somebody is signed in, and only then", async () => {
  live.start();
  await vi.advanceTimersByTimeAsync(0);
  live.end();
  live.again();
  await scene.turns("visible");
  expect([scene.streams.length, live.link.value.state]).toEqual([1, "over"]);
  live.back();
  live.back();
  await vi.advanceTimersByTimeAsync(0);
  expect([scene.open, scene.streams.length, live.link.value.state]).toEqual([1, 2, "live"]);
});

it.each([
  [401, { type: "unauthenticated" }, { state: "over", suspended: false }],
  [403, { type: "account-suspended" }, { state: "over", suspended: true }],
])("a refusal of %i with %o ends it", async (status, problem, link) => {
  scene.refusal = Response.json(problem, { status });
  live.start();
  await vi.advanceTimersByTimeAsync(0);
  expect(live.link.value).toEqual(link);
});

it("any other refusal is tried again", async () => {
  scene.refusal = Response.json({ type: "not-permitted" }, { status: 403 });
  live.start();
  await vi.advanceTimersByTimeAsync(0);
  expect(live.link.value.state).toBe("lost");
  scene.refusal = undefined;
  await vi.advanceTimersByTimeAsync(2_000);
  expect(live.link.value.state).toBe("live");
});
