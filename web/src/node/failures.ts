/** What can go wrong, as people are told it: what happened, and what helps. */

import { ProtocolError } from "../protocol/bytes.ts";
import { KeyFileError, SshError } from "../protocol/ssh/errors.ts";
import { Disconnected } from "./stream.ts";
import type { Failure, FailureKind } from "./types.ts";

/** A failure on its way to the person. */
export class Failed extends Error {
  override readonly name = "Failed";
  readonly failure: Failure;
  /** What the server answered, as HTTP has it; 0 where it was not the server that said no. */
  readonly status: number;

  constructor(failure: Failure, status = 0) {
    super(failure.message);
    this.failure = failure;
    this.status = status;
  }

  /** Whether asking again is of no use: the server has understood, and says no. */
  get final(): boolean {
    return this.status >= 400 && this.status < 500 && this.status !== 408 && this.status !== 429;
  }
}

/** What the server says, which names its reasons by words, as a kind of failure of ours. */
const REASONS: Readonly<Record<string, FailureKind>> = {
  "no-such-machine": "no-such-machine",
  offline: "offline",
  "not-linked": "not-linked",
  "account-suspended": "suspended",
  "not-allowed": "not-allowed",
  "policy-ended": "policy-ended",
  "session-over": "session-over",
  "tab-over": "lost",
  "host-key-changed": "host-key-changed",
};

/** A failure of kind ``kind``; ``detail`` is what others said, shortened and without control characters. */
export function failure(kind: FailureKind, message: string, cure: string, detail?: string): Failure {
  const words = detail === undefined ? "" : plain(detail);
  return { kind, message, cure, ...(words === "" ? {} : { detail: words }) };
}

/** What the server answered in place of what was asked for. */
export function refusal(status: number, answer: unknown): Failure {
  const problem = typeof answer === "object" && answer !== null ? (answer as Record<string, unknown>) : {};
  const word = typeof problem.type === "string" ? problem.type : "";
  const title = typeof problem.title === "string" ? plain(problem.title) : "";
  const cure = typeof problem.cure === "string" ? plain(problem.cure) : "";
  const kind = REASONS[word] ?? "server";
  // What the API says of this is for programs.
  if (status === 401 && kind !== "not-linked") return signedOut(word);
  return {
    kind,
    message: sentence(title) || `The server answers ${status}.`,
    cure: cure || "Try again in a moment.",
    ...(word === "" ? {} : { detail: word }),
  };
}

function signedOut(word: string): Failure {
  return failure("session-over", "You are not signed in here any more.", "Sign in, and open it again.", word);
}

export function unreachable(detail?: string): Failure {
  return failure(
    "server",
    "The server is not reached.",
    "Look whether this device is online, and open it again.",
    detail,
  );
}

/** No relay lets us in. */
export function blocked(url: string): Failure {
  return failure(
    "relay-blocked",
    "The relay is not reached, though the server is.",
    "A proxy on the way may hold back WebSockets: it has to pass on Upgrade, Connection and Sec-WebSocket-Protocol for /derp.",
    url,
  );
}

/** The host has no relay that a page may use. */
export function unreachableRegion(name: string): Failure {
  return failure(
    "relay-blocked",
    `${name} is at a relay that a browser cannot use.`,
    "The relay needs a certificate that browsers trust; or bring the machine to a relay that has one.",
  );
}

/** The host is at no relay. */
export function atNoRelay(name: string): Failure {
  return failure(
    "offline",
    `${name} is not connected.`,
    "It may be asleep or switched off. Look at it, and open it again.",
  );
}

/** The policy gives no way to the host any more. */
export function notAllowedAnyMore(name: string, account: string): Failure {
  return failure(
    "policy-ended",
    `The policy does not let you in to ${name} as ${quoted(account)} any more.`,
    "Ask an administrator if you still need it.",
  );
}

/** Nothing comes back from the host. */
export function silent(name: string): Failure {
  return failure(
    "timeout",
    `${name} does not answer.`,
    "It may be asleep or switched off, or have no way to its relay. Look at it, and open it again.",
  );
}

export function closedPort(name: string): Failure {
  return failure(
    "ssh-off",
    `${name} has no SSH at port 22.`,
    "On the machine: `tailscale set --ssh`, or start its SSH server.",
  );
}

export function filtered(name: string): Failure {
  return failure(
    "timeout",
    `${name} answers, but not at port 22.`,
    "Either the policy does not allow TCP to port 22, or a firewall on the machine drops it.",
  );
}

/** The key that a host shows is not the one that is known. */
export function changedKey(name: string, seen: string, known: string, from: string): Failure {
  const cures: Readonly<Record<string, string>> = {
    node: "If SSH or the system was set up anew there, restarting its Tailscale publishes the new key.",
    pinned: "If the machine was set up anew, an administrator has to pin its new key.",
    you: "If you know that it was set up anew, open it again: you will be asked about the new key.",
  };
  return failure(
    "host-key-changed",
    `${name} shows another host key than the one that is known.`,
    `Nothing was sent to it. ${cures[from] ?? cures.node} If nobody changed anything, somebody may be in between.`,
    `shown ${seen}, known ${known}`,
  );
}

/** How a connection that cannot go on is told; ``banners`` is what the host said while signing in. */
export function told(problem: unknown, name: string, account: string, banners: readonly string[]): Failure {
  if (problem instanceof Failed) return problem.failure;
  if (problem instanceof KeyFileError)
    return failure(
      "refused",
      sentence(problem.message),
      "Choose another file, or type the passphrase again.",
    );
  if (problem instanceof SshError) return bySsh(problem, name, account, banners);
  if (problem instanceof Disconnected) {
    if (problem.why === "unreachable") return silent(name);
    return hungUp(banners.join("\n"), name, account) ?? lost(name, `the connection was ${problem.why}`);
  }
  if (problem instanceof ProtocolError || problem instanceof RangeError)
    return failure("protocol", `${name} does not follow the protocol.`, UPDATE, problem.message);
  return failure("protocol", "This page met something that it does not understand.", UPDATE, String(problem));
}

const UPDATE = "Update the software there; if it stays so, open it by `ssh` to see more.";

export function lost(name: string, detail?: string): Failure {
  return failure(
    "lost",
    `The connection with ${name} is gone.`,
    "It may have been restarted. Open it again for a new shell.",
    detail,
  );
}

function bySsh(problem: SshError, name: string, account: string, banners: readonly string[]): Failure {
  const said = banners.join("\n");
  const { message } = problem;
  switch (problem.failure) {
    case "no-common":
      return failure(
        "no-common-algorithm",
        `${name} and this page know no way in common to protect the connection.`,
        "Its SSH server is too old, or set up too narrowly: it needs curve25519-sha256, and ChaCha20-Poly1305 or AES-GCM.",
        message,
      );
    case "host-key":
      return failure("refused", `You did not accept the key of ${name}.`, "Open it again to be asked again.");
    case "signature":
      return failure(
        "protocol",
        `Who answers for ${name} does not have the key that it shows.`,
        "Nothing was sent to it. Look who is in between.",
        message,
      );
    case "lost":
    case "channel":
      return problem.failure === "lost"
        ? (hungUp(said, name, account) ?? lost(name, message))
        : failure("refused", `${name} gives no shell.`, "Look at the settings of its SSH server.", message);
    case "refused":
    case "disconnected":
      return denied(said, message, name, account);
    default:
      return failure("protocol", `${name} does not follow the protocol.`, UPDATE, message);
  }
}

/** Tailscale's SSH may hang up without another word than its banner; what other hosts greet with is no reason. */
function hungUp(said: string, name: string, account: string): Failure | undefined {
  return /^tailscale: /m.test(said) ? byBanner(said, name, account) : undefined;
}

/** Tailscale's SSH says in its banner why it lets nobody in. */
function byBanner(said: string, name: string, account: string): Failure | undefined {
  if (/failed to look ?up local user|unknown user|user .* does not exist/i.test(said))
    return failure(
      "no-account",
      `${name} has no account ${quoted(account)}.`,
      "Choose another account, or make this one on the machine.",
      said,
    );
  if (/policy does not permit|permission denied|access denied|not permitted/i.test(said))
    return failure(
      "not-allowed",
      `The policy does not let you in to ${name} as ${quoted(account)}.`,
      "Choose another account, or ask an administrator for an ssh rule.",
      said,
    );
  return undefined;
}

function denied(said: string, message: string, name: string, account: string): Failure {
  const known = byBanner(said, name, account);
  if (known !== undefined) return known;
  return failure(
    "refused",
    `${name} does not let ${quoted(account)} in.`,
    "Look whether the account is right, and what its SSH server accepts.",
    said === "" ? message : `${message}\n${said}`,
  );
}

/** Text of others for people: no control characters but line ends, and not without end. */
export function plain(text: string, limit = 1000): string {
  return text.slice(0, limit).replace(/(?!\n)[\p{Cc}\p{Cf}]/gu, "");
}

function quoted(text: string): string {
  return `“${plain(text, 80)}”`;
}

function sentence(text: string): string {
  if (text === "") return "";
  const whole = text.slice(0, 1).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}
