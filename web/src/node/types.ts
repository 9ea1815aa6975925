/** What a page and the node in its Worker know of each other: the words of both, and none of how it is done. */

/** What a terminal goes through until there is a shell, in this order. */
export type StepName = "node" | "relay" | "tunnel" | "tcp" | "hostkey" | "signin" | "check" | "shell";

/** One step; ``ms`` is how long it took, ``detail`` what it found. */
export interface Step {
  readonly name: StepName;
  readonly state: "doing" | "done" | "failed";
  readonly ms?: number;
  readonly detail?: string;
}

export type FailureKind =
  | "no-such-machine"
  | "offline"
  | "ssh-off"
  | "not-linked"
  | "suspended"
  | "not-allowed"
  | "host-key-changed"
  | "no-common-algorithm"
  | "relay-blocked"
  | "no-account"
  | "shell-ended-at-once"
  | "no-secure-context"
  | "refused"
  | "session-over"
  | "policy-ended"
  | "lost"
  | "protocol"
  | "timeout"
  | "server";

/** What went wrong and what helps; ``detail`` is what others said of it, in their own words. */
export interface Failure {
  readonly kind: FailureKind;
  readonly message: string;
  readonly cure: string;
  readonly detail?: string;
}

/** A question of the host to the person; ``echo`` says whether the answer may be seen while it is typed. */
export interface Question {
  readonly text: string;
  readonly echo: boolean;
}

/** A key that is not known of a host; ``known`` is the fingerprint of another that was accepted before. */
export interface HostKeyQuestion {
  readonly fingerprint: string;
  /** As `ssh-ed25519`. */
  readonly kind: string;
  readonly known: string | null;
}

/** ``once`` is not kept; ``remember`` is kept at the server, for this person and this machine. */
export type HostKeyAnswer = "once" | "remember" | "refuse";

/**
 * Somebody has to say yes before the host lets us in.
 *
 * ``url`` comes from the host: only one of the page's own origin is ours, and may be opened as ours.
 */
export interface Check {
  readonly url: string;
  readonly code: string | null;
  readonly text: string;
}

/** How a session ended; ``failure`` is null where it ended as sessions do. */
export interface End {
  readonly status: number | null;
  readonly signal: string | null;
  readonly failure: Failure | null;
}

/** What a terminal tells its page, in the order in which it happens. Nothing comes after ``end`` but after ``again``. */
export interface TerminalEvents {
  step(step: Step): void;
  /** What the host wants people to read before they are in. */
  banner(text: string): void;
  check(check: Check): void;
  /** Nothing but keys has been exchanged with the host, and nothing will be before the answer. */
  hostKey(question: HostKeyQuestion): Promise<HostKeyAnswer>;
  /** undefined gives up. */
  ask(title: string, text: string, questions: Question[]): Promise<string[] | undefined>;
  /** The shell is there. */
  open(): void;
  /** What it prints. No more comes than has been acknowledged by ``ack``, but for a window. */
  data(bytes: Uint8Array): void;
  /** ``waiting``: the way to the host is gone, since ``since`` (milliseconds since 1970), and is looked for. */
  link(state: "up" | "waiting", since?: number): void;
  end(end: End): void;
}

/** A private key from a file. It is read in the Worker, and neither stored nor sent. */
export interface KeyFile {
  readonly bytes: Uint8Array;
  readonly passphrase?: string;
}

export interface TerminalRequest {
  /** The machine's number, or its name. */
  readonly machine: number | string;
  /** What the page calls it. */
  readonly name: string;
  readonly account: string;
  readonly columns: number;
  readonly rows: number;
  readonly keyFile?: KeyFile;
}

/** One of a folder; what the host does not tell is absent. ``modified`` is in seconds since 1970. */
export interface FileEntry {
  readonly name: string;
  readonly folder: boolean;
  readonly size?: number;
  readonly mode?: number;
  readonly modified?: number;
}

/** What a transfer is told and can be told; ``total`` is null where nobody knows it. */
export interface TransferOptions {
  readonly progress?: (bytes: number, total: number | null) => void;
  readonly signal?: AbortSignal;
}

export interface UploadOptions extends TransferOptions {
  /** Fail where there is such a file already, instead of writing it anew. */
  readonly exclusive?: boolean;
}

/** What a host sends of a file. Not reading it makes the host wait. */
export interface Download {
  readonly size: number | null;
  readonly stream: ReadableStream<Uint8Array>;
}

/** What a node of a tab is: its own addresses, and how it is connected. */
export interface NodeState {
  readonly tab: number | string | null;
  readonly addresses: readonly string[];
  readonly relay: "none" | "connecting" | "up" | "waiting";
  /** When a relay that is away is tried again, in milliseconds since 1970; 0 while one is being tried, null where none is away. */
  readonly retry: number | null;
  /** Why it is no more, once it is. */
  readonly over: Failure | null;
}
