/**
 * One terminal: what it is doing, as a value, and what each thing that happens makes of it.
 *
 *     choosing ──▶ opening ──▶ open ──▶ ended
 *                     │  ▲               │
 *                     └──┼── (failed) ──▶│
 *                        └───── again ───┘
 *
 * While it opens, a person may be needed: a check, a host's key, a password. While it is open, its link may be lost: the screen
 * stays, and the shell goes on when the link is back.
 */

import type { Failure, FailureKind, Step, StepName } from "../node/client.ts";
import { SHUT } from "./failures.ts";
import { cleanLine, cleanLines } from "./safety.ts";

export type Phase = "choosing" | "opening" | "open" | "ended";

export interface Check {
  /** Where it is decided, at our own origin; null where the host gave no address of ours. */
  path: string | null;
  code: string | null;
  text: string;
  since: number; // ms
}

export interface HostKey {
  fingerprint: string;
  kind: string;
  known: string | null;
}

export interface Questions {
  title: string;
  text: string;
  questions: { text: string; echo: boolean }[];
}

export type Asking = { what: "host-key"; key: HostKey } | { what: "questions"; asked: Questions };

export interface End {
  status: number | null;
  signal: string | null;
  failure: Failure | null;
  at: number; // ms
  /** True where a shell was there before: then its screen stays. */
  opened: boolean;
}

export interface Pane {
  id: string;
  machine: string;
  account: string | null;
  phase: Phase;
  since: number; // ms, when it began to open, or was open
  steps: Step[];
  banner: string;
  check: Check | null;
  asking: Asking | null;
  /** When the link was lost, ms; null while it is there. */
  waiting: number | null;
  end: End | null;
  title: string;
  /** True after a bell that nobody looked at. */
  rang: boolean;
  columns: number;
  rows: number;
}

export type Happening =
  | { is: "chosen"; account: string; at: number }
  | { is: "step"; step: Step }
  | { is: "banner"; text: string }
  | { is: "check"; path: string | null; code: string | null; text: string; at: number }
  | { is: "asked"; asking: Asking }
  | { is: "answered" }
  | { is: "open"; at: number }
  | { is: "link"; lost: number | null }
  | { is: "end"; status: number | null; signal: string | null; failure: Failure | null; at: number }
  | { is: "again"; at: number }
  | { is: "title"; text: string }
  | { is: "bell" }
  | { is: "seen" }
  | { is: "size"; columns: number; rows: number };

export function newPane(id: string, machine: string, account: string | null, at: number): Pane {
  return {
    id,
    machine,
    account,
    phase: account === null ? "choosing" : "opening",
    since: at,
    steps: [],
    banner: "",
    check: null,
    asking: null,
    waiting: null,
    end: null,
    title: "",
    rang: false,
    columns: 80,
    rows: 24,
  };
}

export function next(pane: Pane, now: Happening): Pane {
  switch (now.is) {
    case "chosen":
      return { ...afresh(pane, now.at), account: now.account };
    case "again":
      return pane.account === null ? { ...pane, phase: "choosing", end: null } : afresh(pane, now.at);
    case "step":
      return pane.phase === "opening" ? stepped(pane, now.step) : pane;
    case "banner":
      return { ...pane, banner: cleanLines(`${pane.banner}\n${now.text}`) };
    case "check":
      if (pane.phase !== "opening") return pane;
      return {
        ...pane,
        check: {
          path: now.path,
          code: now.code === null ? null : cleanLine(now.code, 16),
          text: cleanLines(now.text),
          since: pane.check?.since ?? now.at,
        },
      };
    case "asked":
      return pane.phase === "ended" ? pane : { ...pane, asking: cleaned(now.asking) };
    case "answered":
      return { ...pane, asking: null };
    case "open":
      return { ...pane, phase: "open", since: now.at, check: null, asking: null, waiting: null, end: null };
    case "link":
      return pane.phase === "ended" ? pane : { ...pane, waiting: now.lost };
    case "end": {
      if (pane.phase === "ended") return pane;
      const { status, signal, failure, at } = now;
      return {
        ...pane,
        phase: "ended",
        check: null,
        asking: null,
        waiting: null,
        end: { status, signal, failure, at, opened: pane.phase === "open" },
      };
    }
    case "title":
      return { ...pane, title: cleanLine(now.text) };
    case "bell":
      return pane.rang ? pane : { ...pane, rang: true }; // of a thousand bells nobody hears more than one
    case "seen":
      return pane.rang ? { ...pane, rang: false } : pane;
    case "size":
      return { ...pane, columns: now.columns, rows: now.rows };
  }
}

/** A question of the host's, as it may be shown. */
function cleaned(asking: Asking): Asking {
  if (asking.what === "host-key") return asking;
  const { title, text, questions } = asking.asked;
  return {
    what: "questions",
    asked: {
      title: cleanLine(title, 80),
      text: cleanLines(text),
      questions: questions.map((one) => ({ ...one, text: cleanLine(one.text, 200) })),
    },
  };
}

function afresh(pane: Pane, at: number): Pane {
  const { columns, rows } = pane;
  return { ...newPane(pane.id, pane.machine, pane.account, at), phase: "opening", columns, rows };
}

function stepped(pane: Pane, step: Step): Pane {
  const at = pane.steps.findIndex((one) => one.name === step.name);
  const steps = at < 0 ? [...pane.steps, step] : pane.steps.with(at, step);
  // The shell is being asked for: whatever was to be checked has been.
  const passed = (step.name === "check" && step.state === "done") || step.name === "shell";
  return { ...pane, steps, check: passed ? null : pane.check };
}

// What a person sees of the steps -------------------------------------------------------------------------------------------

export interface Line {
  name: "relay" | "tunnel" | "host key" | "ssh" | "check" | "shell";
  state: "waits" | "doing" | "done" | "failed";
  ms: number | null;
  detail: string;
}

const PARTS: readonly [Line["name"], readonly StepName[]][] = [
  ["relay", ["node", "relay"]],
  ["tunnel", ["tunnel", "tcp"]],
  ["host key", ["hostkey"]],
  ["ssh", ["signin"]],
  ["check", ["check"]],
  ["shell", ["shell"]],
];
const TURNED: Record<Line["name"], number> = {
  relay: 0.2,
  tunnel: 0.45,
  "host key": 0.6,
  ssh: 0.8,
  check: 0.8,
  shell: 1,
};

/** The steps in their order, also those that are still to come; a check only where one was asked for. */
export function lines(pane: Pane): Line[] {
  const found: Line[] = [];
  for (const [name, parts] of PARTS) {
    const steps = parts.flatMap((part) => pane.steps.filter((step) => step.name === part));
    if (name === "check" && steps.length === 0) continue;
    const last = steps.at(-1);
    const failed = steps.find((step) => step.state === "failed");
    const complete = last?.state === "done" && last.name === parts.at(-1);
    found.push({
      name,
      state: last === undefined ? "waits" : failed ? "failed" : complete ? "done" : "doing",
      ms: complete ? steps.reduce((sum, step) => sum + (step.ms ?? 0), 0) : null,
      detail: cleanLine((failed ?? [...steps].reverse().find((step) => step.detail))?.detail ?? "", 160),
    });
  }
  return found;
}

/** How far the drawn door has turned, 0 to 1. */
export function turned(pane: Pane): number {
  const done = lines(pane).filter((line) => line.state === "done");
  return done.reduce((most, line) => Math.max(most, TURNED[line.name]), 0);
}

/** The door beside a terminal's name: a person may enter, has something to do first, is out, or was refused. */
export function doorOf(pane: Pane): "open" | "ajar" | "shut" | "barred" {
  if (pane.phase === "ended") {
    const failure = pane.end?.opened ? null : pane.end?.failure;
    return failure && !SHUT.has(failure.kind) ? "barred" : "shut";
  }
  return pane.phase === "open" ? "open" : "ajar";
}

/** What ended a shell that was there, where that is not its connection. */
const LEFT: Partial<Record<FailureKind, string>> = {
  "session-over": "signed out",
  "not-linked": "signed out",
  "policy-ended": "no way in",
};

/** One word beside a tab's name; empty while all is well. */
export function word(pane: Pane): string {
  if (pane.phase === "choosing") return "as whom";
  if (pane.check !== null) return "check";
  if (pane.asking !== null) return "asks";
  if (pane.phase === "opening") return "opening";
  if (pane.waiting !== null) return "no link";
  if (pane.end === null) return "";
  if (!pane.end.opened) return "stopped";
  if (pane.end.failure !== null) return LEFT[pane.end.failure.kind] ?? "lost";
  if (pane.end.signal !== null) return `ended ${cleanLine(pane.end.signal, 12)}`;
  return pane.end.status === null ? "ended" : `ended ${pane.end.status}`;
}

/** Failures that end by themselves when the machine is there again. */
export const HEALS: ReadonlySet<string> = new Set(["offline", "ssh-off", "timeout"]);
/** Failures that end by signing in. */
export const SIGNED_OUT: ReadonlySet<string> = new Set(["session-over", "not-linked", "suspended"]);

/** Whether signing in has to come first; `signedIn` is when somebody was last seen to have done so, ms. */
export function signedOut(pane: Pane, signedIn: number): boolean {
  const { phase, end } = pane;
  return phase === "ended" && end !== null && SIGNED_OUT.has(end.failure?.kind ?? "") && end.at > signedIn;
}

/** Whether a page that is loaded again should offer it: it was, or is still to be, a terminal that nobody has ended. */
export function lives(pane: Pane): boolean {
  if (pane.phase === "choosing") return false;
  if (pane.phase !== "ended" || pane.end === null) return true;
  const { failure, opened } = pane.end;
  return failure !== null && (opened || HEALS.has(failure.kind) || failure.kind === "session-over");
}

/** How a shell ended, as a sentence. */
export function ending(end: End): string {
  if (end.failure !== null) return cleanLine(end.failure.message, 400);
  if (!end.opened) return "You stopped it. No shell was opened.";
  if (end.signal !== null) return `The shell was ended by signal ${cleanLine(end.signal, 20)}.`;
  if (end.status === null) return "The shell ended without an exit status.";
  return end.status === 0 ? "The shell ended." : `The shell ended with exit status ${end.status}.`;
}

/** Times of steps: "41 ms", "1.20 s", "2 min 3 s". */
export function duration(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1_000).toFixed(2)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.floor((ms % 60_000) / 1_000)} s`;
}

/** A clock that counts: "0:42", "12:05". */
export function counted(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1_000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}
