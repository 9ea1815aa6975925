/**
 * The page's side of the node in its Worker: one node, any number of terminals on it.
 *
 * The Worker is made with the first terminal. Keys are made there, and nothing of them comes here.
 */

import { type FilesHandle, RemoteFiles } from "./files-client.ts";
import type { FromWorker, ToWorker } from "./messages.ts";
import type { NodeState, TerminalEvents, TerminalRequest } from "./types.ts";

export type { FilesHandle } from "./files-client.ts";
export { TransferError } from "./files-client.ts";
export type * from "./types.ts";

/** More input than this that the host has not taken is refused: it would all be lost with the page. */
export const MAX_WAITING = 64 << 20;
/** Input goes in pieces, so that what is typed meanwhile does not wait for a copy of all of it. */
const PIECE = 1 << 18;

export interface TerminalHandle {
  /** Send input; RangeError where more than MAX_WAITING bytes would wait. Before ``open`` and after ``end`` it goes nowhere. */
  write(data: Uint8Array): void;
  /** How many bytes of input the host has not taken yet. */
  readonly waiting: number;
  /** So many bytes of what ``data`` gave have been dealt with. */
  ack(bytes: number): void;
  resize(columns: number, rows: number): void;
  close(): void;
  /** Close it for good: nothing is told of it any more, and nothing of it is kept, a key file least of all. */
  forget(): void;
  /** The files of the same host, by the same connection. */
  files(): FilesHandle;
  /** Begin anew, after the end. */
  again(): void;
  /** How long the host takes to answer, in milliseconds; rejects where it does not. */
  ping(): Promise<number>;
}

/** What of a Worker is used here. */
export interface WorkerLike {
  postMessage(message: ToWorker, transfer: Transferable[]): void;
  addEventListener(kind: "message", listener: (event: { data: FromWorker }) => void): void;
  addEventListener(kind: "error", listener: (event: { message?: string }) => void): void;
  terminate(): void;
}

/** What of a window is used here. */
export interface PageLike {
  addEventListener(kind: string, listener: (event: { persisted?: boolean }) => void): void;
  readonly navigator: { sendBeacon(url: string, body: string): boolean };
}

export interface NodeOptions {
  /** Where the API is, as `/api/v1`. */
  readonly api: string;
  readonly workerUrl?: string | URL;
  /** In place of a new Worker, and of the window; for tests. */
  readonly worker?: () => WorkerLike;
  readonly page?: PageLike;
}

export class NodeClient {
  readonly #options: NodeOptions;
  readonly #page: PageLike;
  #worker: WorkerLike | undefined;
  readonly #terminals = new Map<number, Terminal>();
  readonly #pings = new Map<number, { answer: (ms: number) => void; fail: (why: Error) => void }>();
  readonly #files: RemoteFiles;
  #next = 0;
  #watchers: ((state: NodeState) => void)[] = [];
  #state: NodeState = { tab: null, addresses: [], relay: "none", retry: null, over: null };

  constructor(options: NodeOptions) {
    this.#options = options;
    this.#page = options.page ?? (globalThis as unknown as PageLike);
    this.#files = new RemoteFiles((message, transfer) => this.#post(message, transfer));
    const wake = () => this.#worker?.postMessage({ kind: "wake" }, []);
    for (const kind of ["online", "pageshow", "focus"]) this.#page.addEventListener(kind, wake);
    // On the document, and heard at the window, since it bubbles.
    this.#page.addEventListener("visibilitychange", wake);
    this.#page.addEventListener("pagehide", (event) => {
      // A page that may come back keeps its node: the server keeps it for a while, too.
      if (event.persisted !== true) this.leave();
    });
  }

  /** What the node is now. */
  get state(): NodeState {
    return this.#state;
  }

  /** Open a terminal. What comes of it, its failure too, is told to ``events``. */
  open(request: TerminalRequest, events: TerminalEvents): TerminalHandle {
    const id = this.#next++;
    const call = () => this.#next++;
    const terminal = new Terminal(id, events, {
      post: (message, transfer) => this.#post(message, transfer),
      files: () => this.#files.of(id, call),
      forget: () => {
        if (this.#terminals.delete(id)) this.#worker?.postMessage({ kind: "forget", id }, []);
      },
      ping: () =>
        new Promise((answer, fail) => {
          const number = call();
          this.#pings.set(number, { answer, fail });
          this.#post({ kind: "ping", id, call: number });
        }),
    });
    this.#terminals.set(id, terminal);
    this.#post({ kind: "open", id, request });
    return terminal;
  }

  /** Be told of the node, now and at each change; the answer ends it. */
  onNode(watch: (state: NodeState) => void): () => void {
    this.#watchers.push(watch);
    watch(this.#state);
    return () => {
      this.#watchers = this.#watchers.filter((one) => one !== watch);
    };
  }

  /** The server has told something about the tab, in the page's stream of events: have the node look. */
  told(): void {
    this.#worker?.postMessage({ kind: "told" }, []);
  }

  /** Try at once to get back what is lost, whatever wait it is in. */
  retry(): void {
    this.#worker?.postMessage({ kind: "retry" }, []);
  }

  /** Be gone at once: the server forgets the node, and all terminals end. */
  leave(): void {
    if (this.#worker === undefined) return;
    // The Worker may not live long enough to say it; a beacon outlives the page.
    const { tab } = this.#state;
    if (tab !== null && this.#state.over === null) {
      this.#page.navigator.sendBeacon(
        `${this.#options.api}/console/tabs/${encodeURIComponent(tab)}/leave`,
        "",
      );
    }
    this.#worker.postMessage({ kind: "leave" }, []);
  }

  #post(message: ToWorker, transfer: Transferable[] = []): void {
    if (this.#worker === undefined) {
      this.#worker = this.#options.worker?.() ?? this.#start();
      this.#worker.addEventListener("message", ({ data }) => this.#heard(data));
      this.#worker.addEventListener("error", ({ message: why }) => this.#broken(why ?? ""));
      this.#worker.postMessage({ kind: "start", api: this.#options.api }, []);
    }
    this.#worker.postMessage(message, transfer);
  }

  #start(): WorkerLike {
    const { workerUrl } = this.#options;
    // Written out in one piece, since that is what the bundler looks for.
    const worker =
      workerUrl === undefined
        ? new Worker(new URL("./worker.ts", import.meta.url), { type: "module", name: "node" })
        : new Worker(workerUrl, { type: "module", name: "node" });
    return worker as unknown as WorkerLike;
  }

  #heard(message: FromWorker): void {
    switch (message.kind) {
      case "node":
        this.#state = message.state;
        for (const watch of this.#watchers) watch(message.state);
        return;
      case "pong": {
        const waiting = this.#pings.get(message.call);
        this.#pings.delete(message.call);
        if (message.ms === null) waiting?.fail(new Error("the host does not answer"));
        else waiting?.answer(message.ms);
        return;
      }
      case "filesDone":
      case "filesFailed":
      case "filesProgress":
      case "filesSize":
      case "filesData":
        this.#files.heard(message);
        return;
      default:
        this.#terminals.get(message.id)?.heard(message);
    }
  }

  /** The Worker itself has failed, or was never loaded: no terminal is left waiting. */
  #broken(why: string): void {
    const failure = {
      kind: "server",
      message: "The part of this page that connects to machines has stopped.",
      cure: "Load the page anew. If it stays so, an extension or a proxy may hold back its script.",
      ...(why === "" ? {} : { detail: why }),
    } as const;
    const state = { ...this.#state, relay: "none", retry: null, over: failure } as const;
    this.#heard({ kind: "node", state });
    for (const id of this.#terminals.keys())
      this.#heard({ kind: "end", id, end: { status: null, signal: null, failure } });
    for (const call of this.#pings.keys()) this.#heard({ kind: "pong", call, ms: null });
    this.#files.broken(failure);
    this.#worker?.terminate();
    this.#worker = undefined; // the next terminal has a new one
  }
}

type FromTerminal = Extract<FromWorker, { readonly id: number }>;

interface Means {
  readonly post: (message: ToWorker, transfer?: Transferable[]) => void;
  readonly files: () => FilesHandle;
  readonly forget: () => void;
  readonly ping: () => Promise<number>;
}

class Terminal implements TerminalHandle {
  readonly #id: number;
  readonly #events: TerminalEvents;
  readonly #means: Means;
  #waiting = 0;
  #open = false;
  #over = false;

  constructor(id: number, events: TerminalEvents, means: Means) {
    this.#id = id;
    this.#events = events;
    this.#means = means;
  }

  get waiting(): number {
    return this.#waiting;
  }

  write(data: Uint8Array): void {
    if (!this.#open || data.length === 0) return;
    if (this.#waiting + data.length > MAX_WAITING)
      throw new RangeError(`${this.#waiting} bytes of input wait already`);
    this.#waiting += data.length;
    for (let at = 0; at < data.length; at += PIECE) {
      const piece = data.slice(at, at + PIECE);
      this.#means.post({ kind: "write", id: this.#id, data: piece }, [piece.buffer]);
    }
  }

  ack(bytes: number): void {
    if (this.#open) this.#means.post({ kind: "ack", id: this.#id, bytes });
  }

  resize(columns: number, rows: number): void {
    this.#means.post({ kind: "resize", id: this.#id, columns, rows });
  }

  close(): void {
    if (!this.#over) this.#means.post({ kind: "close", id: this.#id });
  }

  forget(): void {
    this.#over = true;
    this.#open = false;
    this.#means.forget();
  }

  files(): FilesHandle {
    return this.#means.files();
  }

  again(): void {
    if (!this.#over) return;
    this.#over = false;
    this.#means.post({ kind: "again", id: this.#id });
  }

  ping(): Promise<number> {
    return this.#means.ping();
  }

  heard(message: FromTerminal): void {
    const events = this.#events;
    switch (message.kind) {
      case "step":
        events.step(message.step);
        return;
      case "banner":
        events.banner(message.text);
        return;
      case "check":
        events.check(message.check);
        return;
      case "opened":
        this.#open = true;
        events.open();
        return;
      case "data":
        events.data(message.data);
        return;
      case "wrote":
        this.#waiting = Math.max(0, this.#waiting - message.bytes);
        return;
      case "link":
        events.link(message.state, message.since);
        return;
      case "end":
        if (this.#over) return;
        this.#over = true;
        this.#open = false;
        this.#waiting = 0;
        events.end(message.end);
        return;
      case "hostKey": {
        const { question } = message;
        events.hostKey(message.asked).then(
          (answer) => this.#means.post({ kind: "hostKeyAnswer", question, answer }),
          // A page that cannot ask has not been told yes.
          () => this.#means.post({ kind: "hostKeyAnswer", question, answer: "refuse" }),
        );
        return;
      }
      case "ask": {
        const { question } = message;
        events.ask(message.title, message.text, message.questions).then(
          (answers) => this.#means.post({ kind: "askAnswer", question, answers }),
          () => this.#means.post({ kind: "askAnswer", question, answers: undefined }),
        );
        return;
      }
    }
  }
}
