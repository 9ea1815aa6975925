import { effect } from "@preact/signals";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { NodeClient, TerminalEvents, TerminalHandle, TerminalRequest } from "../../src/node/client.ts";
import type { Look, Screen, ScreenEvents } from "../../src/terminal/screen.ts";
import { type Around, Session } from "../../src/terminal/session.ts";

beforeEach(() => {
  vi.useFakeTimers();
  const element = { className: "", isConnected: true, offsetParent: null, remove: () => undefined };
  vi.stubGlobal("document", { createElement: () => ({ ...element }) });
  vi.stubGlobal("isSecureContext", true);
  vi.stubGlobal("location", { href: "https://door.test/terminal/server" });
});

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

/** A shell that is open, with a screen that draws nothing. */
async function opened(): Promise<{ session: Session; screen: ScreenEvents; end: () => void }> {
  let node: TerminalEvents | undefined;
  let screen: ScreenEvents | undefined;
  class Blank {
    columns = 80;
    rows = 24;
    constructor(_: Look, events: ScreenEvents) {
      screen = events;
    }
    mount(): void {}
    calm(): void {}
  }
  const handle = { waiting: 0, resize: () => undefined, again: () => undefined };
  const around = {
    node: {
      open: (_: TerminalRequest, events: TerminalEvents) => {
        node = events;
        return handle as unknown as TerminalHandle;
      },
    } as unknown as NodeClient,
    look: () => ({}) as Look,
    screen: async () => Blank as unknown as new (look: Look, events: ScreenEvents) => Screen,
    machine: () => 7,
    opened: () => undefined,
  } as unknown as Around;
  const session = new Session("p0", "server", "root", around);
  session.start();
  await vi.advanceTimersByTimeAsync(0);
  node!.open();
  const end = () => node!.end({ status: 0, signal: null, failure: null });
  return { session, screen: screen!, end };
}

test("of titles and bells by the thousand the page draws a few, and has the last title", async () => {
  const { session, screen } = await opened();
  let drawn = 0;
  effect(() => {
    void session.pane.value;
    drawn++;
  });
  screen.title("first");
  expect(session.pane.value.title).toBe("first"); // at once
  for (let at = 0; at < 10_000; at++) {
    screen.title(`title ${at}`);
    screen.bell();
  }
  await vi.advanceTimersByTimeAsync(1000);
  expect(session.pane.value.title).toBe("title 9999");
  expect(session.pane.value.rang).toBe(true);
  expect(drawn).toBeLessThan(6);
  screen.title("");
  await vi.advanceTimersByTimeAsync(1000);
  expect(session.pane.value.title).toBe("");
});

test("a title of the last moment is not that of the next shell", async () => {
  const { session, screen, end } = await opened();
  screen.title("last");
  screen.title("the very last");
  end();
  session.again();
  await vi.advanceTimersByTimeAsync(1000);
  expect(session.pane.value).toMatchObject({ phase: "opening", title: "" });
});
