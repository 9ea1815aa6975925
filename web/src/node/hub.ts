/** All of the node that has no browser in it: the page's messages go in, what the page is to be told comes out. */

import { keyKind } from "../protocol/ssh/hostkeys.ts";
import { Api, type Target } from "./api.ts";
import { Attempt, type Means } from "./attempt.ts";
import type { Environment } from "./environment.ts";
import { Failed, failure } from "./failures.ts";
import type { FromWorker, ToWorker } from "./messages.ts";
import { Tab } from "./tab.ts";
import { Transfers } from "./transfers.ts";
import type { TerminalRequest } from "./types.ts";

/** Tells the page; what is in ``transfer`` is handed over. */
export type Say = (message: FromWorker, transfer?: Transferable[]) => void;

interface Terminal {
  request: TerminalRequest;
  attempt: Attempt;
}

type Answered = { readonly id: number; readonly answer: (value: unknown) => void };

export class Hub {
  readonly #environment: Environment;
  readonly #say: Say;
  readonly #port: number;
  readonly #transfers: Transfers;
  readonly #accepted = new Map<number, Uint8Array>();
  readonly #terminals = new Map<number, Terminal>();
  readonly #questions = new Map<number, Answered>();
  #question = 0;
  #api: Api | undefined;
  #current: Tab | undefined;

  /** ``port`` is where hosts have SSH. */
  constructor(environment: Environment, say: Say, port = 22) {
    this.#environment = environment;
    this.#say = say;
    this.#port = port;
    this.#transfers = new Transfers(environment, say);
  }

  hear(message: ToWorker): void {
    switch (message.kind) {
      case "start":
        this.#api = new Api(this.#environment, message.api);
        return;
      case "open":
        this.#open(message.id, message.request, false);
        return;
      case "again":
        this.#again(message.id);
        return;
      case "hostKeyAnswer":
        this.#answered(message.question, message.answer);
        return;
      case "askAnswer":
        this.#answered(message.question, message.answers);
        return;
      case "filesAck":
        this.#transfers.ack(message.call, message.bytes);
        return;
      case "filesCancel":
        this.#transfers.cancel(message.call);
        return;
      case "told":
        void this.#current?.look();
        return;
      case "wake":
        this.#current?.wake();
        return;
      case "retry":
        this.#current?.again();
        return;
      case "leave":
        this.#current?.leave();
        return;
      default:
        this.#toTerminal(message);
    }
  }

  #toTerminal(message: Extract<ToWorker, { readonly id: number }>): void {
    const terminal = this.#terminals.get(message.id);
    switch (message.kind) {
      case "write":
        void terminal?.attempt.write(message.data);
        return;
      case "ack":
        terminal?.attempt.ack(message.bytes);
        return;
      case "resize": {
        const { columns, rows } = message;
        if (terminal === undefined) return;
        terminal.request = { ...terminal.request, columns, rows };
        terminal.attempt.resize(columns, rows);
        return;
      }
      case "close":
        terminal?.attempt.close();
        return;
      case "forget":
        terminal?.attempt.close();
        terminal?.request.keyFile?.bytes.fill(0);
        this.#terminals.delete(message.id);
        return;
      case "ping":
        void this.#ping(message.call, terminal);
        return;
      case "files":
        void this.#transfers.run(message.call, message.what, terminal?.request.name ?? "", () => {
          if (terminal === undefined) throw new Failed(unknown());
          return terminal.attempt.borrow();
        });
        return;
    }
  }

  #open(id: number, request: TerminalRequest, keyChanged: boolean): void {
    const say = this.#say;
    const attempt = new Attempt(
      this.#means(),
      request,
      {
        step: (step) => say({ kind: "step", id, step }),
        banner: (text) => say({ kind: "banner", id, text }),
        check: (check) => say({ kind: "check", id, check }),
        hostKey: (asked) => this.#ask(id, (question) => say({ kind: "hostKey", id, question, asked })),
        ask: (title, text, questions) =>
          this.#ask(id, (question) => say({ kind: "ask", id, question, title, text, questions })),
        open: () => say({ kind: "opened", id }),
        data: (data) => say({ kind: "data", id, data }, [data.buffer]),
        wrote: (bytes) => say({ kind: "wrote", id, bytes }),
        link: (state, since) => say({ kind: "link", id, state, ...(since === undefined ? {} : { since }) }),
        end: (end) => {
          for (const [question, asked] of this.#questions)
            if (asked.id === id) this.#questions.delete(question);
          say({ kind: "end", id, end });
        },
      },
      { keyChanged },
    );
    this.#terminals.set(id, { request, attempt });
    void attempt.run();
  }

  #again(id: number): void {
    const terminal = this.#terminals.get(id);
    if (terminal === undefined)
      this.#say({ kind: "end", id, end: { status: null, signal: null, failure: unknown() } });
    else if (terminal.attempt.over) this.#open(id, terminal.request, terminal.attempt.keyChanged);
  }

  async #ping(call: number, terminal: Terminal | undefined): Promise<void> {
    const ms = await terminal?.attempt.ping().catch(() => undefined);
    this.#say({ kind: "pong", call, ms: ms ?? null });
  }

  #ask<Value>(id: number, say: (question: number) => void): Promise<Value> {
    const question = this.#question++;
    return new Promise((answer) => {
      this.#questions.set(question, { id, answer: answer as (value: unknown) => void });
      say(question);
    });
  }

  #answered(question: number, value: unknown): void {
    const asked = this.#questions.get(question);
    this.#questions.delete(question);
    asked?.answer(value);
  }

  #means(): Means {
    return {
      environment: this.#environment,
      port: this.#port,
      accepted: this.#accepted,
      reach: (machine, account) => this.#reach(machine, account),
      remember: async (target, key, replaces) => {
        await this.#api!.acceptKey(target.machine, key, keyKind(key), replaces);
      },
    };
  }

  async #reach(machine: number | string, account: string): Promise<{ tab: Tab; target: Target }> {
    if (this.#api === undefined) throw new Error("the page has not said where the server is");
    const number = typeof machine === "number" ? machine : await this.#api.machine(machine);
    for (;;) {
      const tab = this.#tab(this.#api);
      const fresh = tab.id === null;
      try {
        return { tab, target: await tab.reach(number, account) };
      } catch (problem) {
        // A tab that the server has forgotten meanwhile is no reason to send anybody away: there are new ones.
        if (fresh || !(problem instanceof Failed) || !problem.final) throw problem;
        await tab.look();
        if (tab.over === undefined) throw problem;
      }
    }
  }

  /** The node as it is, or a new one with a new key where there is none any more. */
  #tab(api: Api): Tab {
    if (this.#current === undefined || this.#current.over !== undefined) {
      const tab: Tab = new Tab(this.#environment, api, () => {
        if (tab !== this.#current) return;
        const { id, addresses, relay, retry, over } = tab;
        this.#say({ kind: "node", state: { tab: id, addresses, relay, retry, over: over ?? null } });
      });
      this.#current = tab;
    }
    return this.#current;
  }
}

function unknown() {
  return failure("lost", "This terminal is not known any more.", "Open a new one.");
}
