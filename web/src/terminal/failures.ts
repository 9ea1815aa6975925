/**
 * What is said where no shell came, or one was lost: what happened, why, what to do. Each kind is a state of its own.
 *
 * The message and the cure of a failure come from whoever saw it (the server, the tab's node); the words here stand around them.
 * Text between backticks is shown as code.
 */

import type { Failure, FailureKind } from "../node/client.ts";
import { cleanLine } from "./safety.ts";

export interface Explained {
  kind: FailureKind;
  /** The door: barred where somebody refused, shut where nobody is there. */
  door: "shut" | "barred";
  /** A short line above the title: what this means for what was sent. */
  state: string;
  title: string;
  why: string;
  steps: string[];
  /** The word on the button; null where trying again cannot help. */
  retry: string | null;
  /** What the page listens for, to try again by itself. */
  listens: string | null;
  /** Signing in is what helps. */
  signIn: boolean;
  /** Where it works, as an address; null where that is here. */
  elsewhere: string | null;
  /** What can be compared. */
  facts: { name: string; text: string; wrong: boolean }[];
  /** Configuration to show, with its name. */
  samples: { name: string; text: string }[];
}

/** Where nobody refused anything: somebody is away, or something has ended. */
export const SHUT: ReadonlySet<FailureKind> = new Set<FailureKind>([
  "no-such-machine",
  "offline",
  "ssh-off",
  "relay-blocked",
  "shell-ended-at-once",
  "session-over",
  "lost",
  "timeout",
  "server",
]);

interface Words {
  state?: string;
  title: string;
  /** Said where nobody has said more; ``always`` has it said instead of what they say, which is no more than the title. */
  why: string;
  always?: boolean;
  /** What to do where nobody has said. */
  steps: string[];
  /** What to do else. */
  more?: string[];
  retry?: string | null;
  listens?: string;
  signIn?: boolean;
  samples?: { name: string; text: string }[];
}

const BEFORE = "Stopped before anything was sent";

function words(
  kind: FailureKind,
  machine: string,
  account: string,
  origin: string,
  secure: string | null,
): Words {
  switch (kind) {
    case "no-such-machine":
      return {
        state: BEFORE,
        title: `There is no machine called ${machine}`,
        why: "It was renamed or removed, or the address has a typing error. Machines that the policy does not let you see look the same.",
        always: true,
        steps: ["Look for it in the list of machines."],
      };
    case "offline":
      return {
        state: BEFORE,
        title: `${machine} is offline`,
        why: "It has no connection to this server: it is asleep or switched off, its network is down, or its `tailscaled` does not run.",
        always: true,
        steps: [],
        more: [`On ${machine}, \`tailscale status\` says what it lacks.`],
        listens: `${machine} to come online`,
      };
    case "ssh-off":
      return {
        state: BEFORE,
        title: `${machine} takes no ssh`,
        why: "Nothing answers on its port 22: Tailscale SSH is not enabled there, and no other ssh server runs.",
        always: true,
        steps: [`On ${machine}, run \`tailscale set --ssh\`.`],
        listens: `${machine} to enable it`,
      };
    case "not-linked":
      return {
        state: BEFORE,
        title: "You are not linked to a user of this tailnet",
        why: "A terminal is a machine of its user, and this sign-in stands for none.",
        steps: ["Ask an administrator to link this sign-in to your user."],
        signIn: true,
      };
    case "suspended":
      return {
        state: "Signed out",
        title: "You are suspended",
        why: "Until that ends, nothing of the tailnet may be used, and signing in again does not help.",
        steps: ["Ask an administrator, who can say why and restore you."],
        more: ["Once you are restored, sign in. This terminal opens by itself then."],
        signIn: true,
        retry: null,
      };
    case "not-allowed":
      return {
        state: BEFORE,
        title: `The policy does not let you enter ${machine} as ${account}`,
        why: "No ssh rule names you, this machine and this account together.",
        steps: ["Choose another account, or ask an administrator for a rule."],
      };
    case "host-key-changed":
      return {
        state: BEFORE,
        title: `${machine} shows a different key`,
        why:
          "The key that answered is not the one that is known for it. Usually it was reinstalled, or an ssh server was installed on it " +
          "a moment ago. Rarely, something else answers in its place.",
        always: true,
        steps: [
          `If it was: restart \`tailscaled\` on ${machine}. It tells this server its keys again. Where it publishes none, an administrator can pin the new one.`,
        ],
        more: ["If nobody reinstalled it, do not go in. Tell an administrator."],
      };
    case "no-common-algorithm":
      return {
        state: BEFORE,
        title: `${machine} and this page have no algorithm in common`,
        why: "Its ssh server is too old, or allows only what this page does not know. Nothing weaker is tried.",
        always: true,
        steps: [
          "Current Tailscale SSH and OpenSSH (from 6.5) have what is needed: curve25519, ed25519 or RSA with SHA-2, AES-GCM or ChaCha20.",
        ],
      };
    case "relay-blocked":
      return {
        state: BEFORE,
        title: "The way to the relay is blocked",
        why:
          "The server answers, but a WebSocket to it does not open. Usually a proxy before it does not pass the upgrade on; " +
          "sometimes a network allows no WebSockets.",
        steps: [
          "If you run the proxy, it needs these lines. `doorward doctor` on the server finds the place.",
        ],
        samples: proxies(origin),
      };
    case "no-account":
      return account === "*"
        ? {
            state: BEFORE,
            title: "`*` is no account",
            why: "The policy lets you in under any name, and the star stands for that. No machine has an account that is called so.",
            steps: ["Choose an account that exists there, for instance `root` or your own name."],
            retry: null,
          }
        : {
            title: `${machine} has no account ${account}`,
            why: "The policy lets you in, but the machine does not know this name, or refused it.",
            always: true,
            steps: [`On ${machine}, \`getent passwd ${account}\` shows whether it is there.`],
          };
    case "shell-ended-at-once":
      return {
        state: "You were in, and out again",
        title: `The shell of ${account} ended at once`,
        why: "The machine let you in and started the shell, which ended before it wrote anything.",
        always: true,
        steps: [
          `Its login shell may be \`nologin\` or \`false\`: \`getent passwd ${account}\` on ${machine} shows it.`,
          "A line in its start-up files (`.profile`, `.bashrc`) may end it.",
        ],
      };
    case "no-secure-context":
      return {
        state: BEFORE,
        title: "This address is not safe enough for a terminal",
        why: "Over plain http a browser gives a page no keys to work with, and anybody on the way could change the page.",
        always: true,
        steps: [secure === null ? "Open the console at its https address." : `Open it at \`${secure}\`.`],
        retry: null,
      };
    case "refused":
      return {
        title: `${machine} refused`,
        why: "The ssh server there did not let you in.",
        steps: ["Choose another account, or try again with a key or a password that it takes."],
      };
    case "session-over":
      return {
        state: "Signed out",
        title: "Your sign-in is over",
        why: "It ran out, or was ended elsewhere. A terminal lives as long as the sign-in it was opened with.",
        steps: ["Sign in again. This terminal opens by itself then."],
        signIn: true,
        retry: null,
      };
    case "policy-ended":
      return {
        title: "The policy ended this terminal",
        why: `It changed, and no longer lets you enter ${machine} as ${account}.`,
        steps: ["Ask an administrator if that was not meant."],
      };
    case "lost":
      return {
        state: "Nothing more arrives",
        title: `The connection to ${machine} is lost`,
        why: "It did not come back in time, or the machine was restarted. What ran in the shell may have gone with it.",
        steps: ["Open it again. A `tmux` or `screen` there would outlive this."],
      };
    case "protocol":
      return {
        state: "Stopped",
        title: `${machine} sent something that makes no sense`,
        why: "What arrived is no valid ssh. This page does not guess what was meant.",
        steps: ["Try again. If it stays, the details help whoever looks after the machine."],
      };
    case "timeout":
      return {
        state: "Nothing came back",
        title: `${machine} did not answer`,
        why: "It is known as online, but nothing came back in time. It may have just gone, or be very busy.",
        steps: [`From another machine, \`tailscale ping ${machine}\` shows whether it is there.`],
        listens: `${machine} to come back`,
      };
    case "server":
      return {
        state: "Nothing was opened",
        title: "The server did not answer as it should",
        why: "The console's server is being restarted, or has a fault.",
        steps: ["Try again in a moment. `doorward doctor` on the server says what is wrong."],
      };
  }
}

/** nginx and Caddy, as docs/guide/proxies.md has them. */
function proxies(origin: string): { name: string; text: string }[] {
  const host = URL.canParse(origin) ? new URL(origin).hostname : "door.example.net";
  return [
    {
      name: "nginx",
      text: [
        "map $http_upgrade $doorward_connection {",
        "    default upgrade;",
        '    ""      "";',
        "}",
        "",
        "# in the server's location /",
        "proxy_http_version 1.1;",
        "proxy_set_header Host $http_host;",
        "proxy_set_header Upgrade $http_upgrade;",
        "proxy_set_header Connection $doorward_connection;",
        "proxy_buffering off;",
        "proxy_read_timeout 1h;",
      ].join("\n"),
    },
    { name: "Caddy", text: `${host} {\n    reverse_proxy 127.0.0.1:8080\n}` },
  ];
}

export const KINDS: readonly FailureKind[] = [
  "no-such-machine",
  "offline",
  "ssh-off",
  "not-linked",
  "suspended",
  "not-allowed",
  "host-key-changed",
  "no-common-algorithm",
  "relay-blocked",
  "no-account",
  "shell-ended-at-once",
  "no-secure-context",
  "refused",
  "session-over",
  "policy-ended",
  "lost",
  "protocol",
  "timeout",
  "server",
];

/**
 * The whole state for a failure.
 *
 * @param origin of the page, for the lines a proxy needs.
 * @param secure the same page at an https address, where this server has one and it is another.
 */
export function explained(
  failure: Failure,
  machine: string,
  account: string | null,
  origin: string,
  secure: string | null = null,
): Explained {
  const told = KINDS.includes(failure.kind) ? failure.kind : "server";
  // Whoever refuses the star does not know that it stands for any name.
  const kind = told === "not-allowed" && account === "*" ? "no-account" : told;
  const own = words(kind, cleanLine(machine, 63), cleanLine(account ?? "that account", 63), origin, secure);
  const message = kind === told ? cleanLine(failure.message, 400) : "";
  const cure = kind === told ? cleanLine(failure.cure, 400) : "";
  const compared = /^shown (SHA256:\S+), known (SHA256:\S+(?:, SHA256:\S+)*)$/u.exec(failure.detail ?? "");
  return {
    kind,
    door: SHUT.has(kind) ? "shut" : "barred",
    state: own.state ?? "Refused",
    title: own.title,
    why: message === "" || own.always ? own.why : sentence(message, machine),
    steps: [...(cure === "" ? own.steps : [sentence(cure, machine)]), ...(own.more ?? [])],
    retry: own.retry === undefined ? "Try again" : own.retry,
    listens: own.listens ?? null,
    signIn: own.signIn ?? false,
    elsewhere: kind === "no-secure-context" ? secure : null,
    facts:
      compared === null || kind !== "host-key-changed"
        ? []
        : [
            ...compared[2]!
              .split(", ")
              .map((text, at) => ({ name: at === 0 ? "known until now" : "or", text, wrong: false })),
            { name: "what answered", text: compared[1]!, wrong: true },
          ],
    samples: own.samples ?? [],
  };
}

/** With a capital and a full stop; a machine that it begins with keeps its name. */
function sentence(text: string, machine: string): string {
  const named = text.startsWith(`${machine} `);
  const first = named ? text : text.slice(0, 1).toUpperCase() + text.slice(1);
  return /[.!?…:]$/u.test(first) ? first : `${first}.`;
}

/** A text with its code parts apart: every second one was between backticks. */
export function coded(text: string): string[] {
  return text.split("`");
}
