/** What the node asks of the server: a tab, what it may reach, and whether it is still there. */

import { fromBase64, toBase64 } from "../protocol/base64.ts";
import { fromHex } from "../protocol/bytes.ts";
import { parseAddress } from "../protocol/ip.ts";
import { keyKind } from "../protocol/ssh/hostkeys.ts";
import { fields } from "../protocol/ssh/wire.ts";
import type { Environment } from "./environment.ts";
import { Failed, failure, plain, refusal, unreachable } from "./failures.ts";
import type { FailureKind } from "./types.ts";

/** A server that has not answered by then will not, in milliseconds. */
const PATIENCE = 20_000;

/** Who a host key is known from: the machine itself, an administrator, this person, or nobody. */
export type KeysFrom = "node" | "pinned" | "you" | "none";

/** A machine that this tab may reach. */
export interface Target {
  readonly machine: number;
  readonly name: string;
  readonly nodeKey: Uint8Array;
  readonly addresses: readonly Uint8Array[];
  readonly region: string;
  /** As SSH writes them. */
  readonly hostKeys: readonly Uint8Array[];
  readonly hostKeysFrom: KeysFrom;
  /** As whom this tab may sign in there; undefined where the server does not say. */
  readonly accounts: readonly string[] | undefined;
}

/** Where the relays are: by region, each with its addresses. */
export interface Relays {
  readonly home: string;
  readonly urls: ReadonlyMap<string, readonly string[]>;
}

/** What the server knows of this tab. */
export interface Registered {
  readonly id: number | string;
  /** As people write them. */
  readonly addresses: readonly string[];
  readonly relays: Relays;
  readonly targets: readonly Target[];
  /** Why it is no more, where it is not: what happened, as a sentence, and what helps. */
  readonly over: { readonly kind: FailureKind; readonly reason: string; readonly cure: string } | undefined;
}

export class Api {
  readonly #environment: Environment;
  readonly #base: string;

  /** ``base`` is where the API is, as `/api/v1`. */
  constructor(environment: Environment, base: string) {
    this.#environment = environment;
    this.#base = base;
  }

  /** Ask for a node with this public key that reaches one machine. All here reject with Failed. */
  async makeTab(nodeKey: string, machine: number, account: string): Promise<Registered> {
    return readTab(await this.#ask("POST", "/console/tabs", { node_key: nodeKey, machine, account }));
  }

  async addTarget(tab: number | string, machine: number, account: string): Promise<Target> {
    return readTarget(await this.#ask("POST", `${path(tab)}/targets`, { machine, account }));
  }

  /** How the tab is; Failed where it is not ours any more. */
  async look(tab: number | string): Promise<Registered> {
    return readTab(await this.#ask("GET", path(tab)));
  }

  /** Be forgotten. Nobody waits for the answer. */
  leave(tab: number | string): void {
    const url = `${this.#base}${path(tab)}/leave`;
    this.#environment.fetch(url, { method: "POST", keepalive: true }).catch(() => undefined);
  }

  /** Have the server remember that this is the machine's key, for this person. */
  async acceptKey(
    machine: number,
    key: Uint8Array,
    kind: string,
    replaces: Uint8Array | undefined,
  ): Promise<void> {
    const line = (blob: Uint8Array, name: string) => `${name} ${toBase64(blob)}`;
    await this.#ask("POST", `/console/machines/${machine}/host-key`, {
      key: line(key, kind),
      replaces: replaces === undefined ? null : line(replaces, kindOf(replaces)),
    });
  }

  /** The number of a machine that is known by its name. */
  async machine(name: string): Promise<number> {
    const machines = list(object(await this.#ask("GET", "/console/machines")).machines).map(object);
    const found = machines.find((one) => one.name === name)?.id;
    if (typeof found === "number") return found;
    throw new Failed(
      failure(
        "no-such-machine",
        `There is no machine ${name} that you may see.`,
        "Look at the list of machines.",
      ),
    );
  }

  async #ask(method: "GET" | "POST", where: string, body?: unknown): Promise<unknown> {
    let status: number;
    let answer: unknown;
    try {
      const asked = this.#environment.fetch(this.#base + where, {
        method,
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const got = await this.#soon(asked);
      status = got.status;
      answer = status === 204 ? null : await this.#soon(got.json()).catch(() => undefined);
    } catch (problem) {
      throw new Failed(unreachable(String((problem as Error).message ?? problem)));
    }
    if (status < 200 || status > 299) throw new Failed(refusal(status, answer), status);
    return answer;
  }

  #soon<T>(asked: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const cancel = this.#environment.after(PATIENCE, () => reject(new Error("it does not answer")));
      asked.then(resolve, reject).finally(cancel);
    });
  }
}

function path(tab: number | string): string {
  return `/console/tabs/${encodeURIComponent(tab)}`;
}

/** The kind of a key, for a line of it. The server gave it, so it is well-formed. */
function kindOf(blob: Uint8Array): string {
  const size = (blob[2]! << 8) | blob[3]!;
  return String.fromCharCode(...blob.subarray(4, 4 + size));
}

/** By which words the server says why a tab is no more; after any other, and "lost", a new one can be had at once. */
const ENDS: Readonly<Record<string, FailureKind>> = {
  "policy-ended": "policy-ended",
  "session-over": "session-over",
};

// What the server answers is taken apart here alone; whatever is missing is found at once, and named. -----------------

function readTab(answer: unknown): Registered {
  const tab = object(answer);
  const relays = object(tab.relays);
  const urls = new Map<string, string[]>();
  for (const [region, value] of Object.entries(object(relays.regions))) {
    const addresses = list(object(value).urls).map(text);
    if (addresses.length > 0) urls.set(region, addresses);
  }
  const id = tab.id;
  if (typeof id !== "number" && typeof id !== "string") throw strange("id");
  const over = tab.state === "over" ? { kind: ENDS[String(tab.over)] ?? "lost", ...words(tab) } : undefined;
  return {
    id,
    addresses: tab.addresses === undefined ? [] : list(tab.addresses).map(text),
    relays: { home: String(relays.home), urls },
    targets: list(tab.targets).map(readTarget),
    over,
  };
}

function words(tab: Record<string, unknown>): { reason: string; cure: string } {
  return { reason: plain(String(tab.reason ?? "")), cure: plain(String(tab.cure ?? "")) };
}

function readTarget(answer: unknown): Target {
  const target = object(answer);
  if (typeof target.machine !== "number") throw strange("machine");
  const key = /^nodekey:([0-9a-f]{64})$/.exec(text(target.node_key))?.[1];
  if (key === undefined) throw strange("node_key");
  const from = target.host_keys_from;
  if (from !== "node" && from !== "pinned" && from !== "you" && from !== "none")
    throw strange("host_keys_from");
  return {
    machine: target.machine,
    name: text(target.name),
    nodeKey: fromHex(key),
    addresses: list(target.addresses).map((one) => parseAddress(text(one).replace(/\/\d+$/, ""))),
    region: String(target.home_region),
    hostKeys: readKeys(list(target.host_keys).map(text)),
    hostKeysFrom: from,
    accounts: target.accounts === undefined ? undefined : list(target.accounts).map(text),
  };
}

/**
 * The keys of a host. Its own client publishes them, so they may be anything: one that cannot be read is nobody's.
 *
 * Where none can, one is left that no host has: a host of which keys are known is not one of which none are.
 */
function readKeys(lines: readonly string[]): Uint8Array[] {
  const keys = lines.flatMap((line) => {
    try {
      const key = fromBase64(line.trim().split(/\s+/)[1] ?? "");
      keyKind(key);
      return [key];
    } catch {
      return [];
    }
  });
  return keys.length > 0 || lines.length === 0 ? keys : [fields("unreadable")];
}

function object(value: unknown): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw strange("an object");
  return value as Record<string, unknown>;
}

function list(value: unknown): unknown[] {
  if (!Array.isArray(value)) throw strange("a list");
  return value;
}

function text(value: unknown): string {
  if (typeof value !== "string") throw strange("a text");
  return value;
}

function strange(what: string): Failed {
  return new Failed(
    failure(
      "server",
      "The server answers something that this page does not understand.",
      "Load the page anew: the server may have been updated.",
      `${what} is missing`,
    ),
  );
}
