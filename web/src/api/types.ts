// Made from the API's own types by `python -m tests.test_web_types`; change those.

/** An account that the person may ask for on a machine. */
export interface AccountWay {
  account: string;
  check: boolean;
  rule: RulePlace | null;
}

/** Who sits where: the first thing that a page asks. */
export interface Console {
  tailnet: string;
  version: string;
  user: Me;
  signed_in: boolean;
  method: string;
  proven: string | null;
  device: string | null;
  counts: Counts;
}

/** How many machines the person sees, has online, and gets in to. */
export interface Counts {
  machines: number;
  online: number;
  ways: number;
}

/** One fault in a policy, by its place in the text that was sent. */
export interface Diagnostic {
  line: number;
  column: number;
  message: string;
  cure?: string;
}

/** A machine as the person sees it. */
export interface Machine {
  id: number;
  name: string;
  user: string;
  user_id: number | null;
  tags: string[];
  addresses: string[];
  os: string;
  version: string;
  online: boolean;
  last_seen: string | null;
  expired: boolean;
  yours: boolean;
  system: boolean;
  ssh: "other" | "tailscale" | "unknown";
  ways: AccountWay[];
  any_account: boolean;
  any_check: boolean;
  why: string;
}

/** The machines that the person sees, by name. */
export interface Machines {
  machines: Machine[];
}

/** Event ``machines``: those that are new or others than before, and the ids of those that the person sees no more. */
export interface MachinesEvent {
  changed: Machine[];
  removed: number[];
}

/** The person before the page. */
export interface Me {
  id: number;
  name: string;
  display_name: string;
  role: "admin" | "auditor" | "billing-admin" | "it-admin" | "member" | "network-admin" | "owner";
}

/** An error, as RFC 9457 has it (application/problem+json). */
export interface Problem {
  type: string;
  title: string;
  status: number;
  cure?: string;
  place?: string;
  diagnostics?: Diagnostic[];
  request?: string;
}

/** A rule of the policy. */
export interface RulePlace {
  name: string;
  line: number;
}

/** Event ``session``: nobody is signed in here any more; ``suspended`` where that is why, and signing in is of no use. */
export interface SessionEvent {
  state: "over" | "suspended";
}

/** Event ``tab``: one of this session's is over, or what it may reach is not as before. */
export interface TabEvent {
  id: number;
  state: "on" | "over";
  over: string;
  reason: string;
  cure: string;
  target_changed: Target[];
}

/** A machine that a tab may reach at TCP port 22, and all that it needs to know for it. */
export interface Target {
  machine: number;
  name: string;
  dns_name: string;
  node_key: string;
  addresses: string[];
  home_region: number;
  online: boolean;
  ssh: "other" | "tailscale" | "unknown";
  host_keys: string[];
  host_keys_from: "node" | "none" | "pinned" | "you";
  accounts: string[];
  account: string;
  check: boolean;
}
