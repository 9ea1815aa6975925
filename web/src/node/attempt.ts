/**
 * One try of a terminal, from the first step to its end: it connects, signs in, and carries a shell.
 *
 * Whatever goes wrong, also what should never, ends this try and nothing else.
 */

import { equal } from "../protocol/bytes.ts";
import type { Signer } from "../protocol/ssh/auth.ts";
import type { Channel } from "../protocol/ssh/channel.ts";
import { SshClient } from "../protocol/ssh/client.ts";
import { SshError } from "../protocol/ssh/errors.ts";
import { fingerprint, keyKind } from "../protocol/ssh/hostkeys.ts";
import type { Target } from "./api.ts";
import { readCheck } from "./checks.ts";
import type { Environment } from "./environment.ts";
import { changedKey, closedPort, Failed, failure, filtered, lost, plain, silent, told } from "./failures.ts";
import { Printer } from "./printer.ts";
import { Steps } from "./steps.ts";
import { Disconnected, type Stream } from "./stream.ts";
import type { Tab } from "./tab.ts";
import type { End, Failure, Question, TerminalEvents, TerminalRequest } from "./types.ts";

/** How long each part may take where nobody is asked, in milliseconds. */
const PATIENCE = { tunnel: 20_000, tcp: 15_000, hostkey: 20_000, signin: 30_000, shell: 20_000 } as const;
/** A shell that ends so soon, with nothing typed, was none. */
const AT_ONCE = 3000;
/** After so much silence the host is asked whether it is there, and has so long before people are told. */
const SILENCE = 30_000;
const ANSWER = 15_000;
/** How long a connection that nobody uses may take to end. */
const GOODBYE = 3000;
/** Banners beyond these are of nobody who wants to be read. */
const MAX_BANNERS = 50;

/** What a try needs of the node around it. */
export interface Means {
  readonly environment: Environment;
  /** The tab that may reach a machine, and the machine. */
  reach(machine: number | string, account: string): Promise<{ tab: Tab; target: Target }>;
  /** Have the server remember a host key. */
  remember(target: Target, key: Uint8Array, replaces: Uint8Array | undefined): Promise<void>;
  /** Keys that the person has accepted for as long as this page is there, by machine. */
  readonly accepted: Map<number, Uint8Array>;
  /** The port where SSH is. */
  readonly port: number;
}

/** What a try tells: what the page is told of the terminal, and how much of the input has been taken. */
export interface AttemptEvents extends Omit<TerminalEvents, "data"> {
  data(bytes: Uint8Array<ArrayBuffer>): void;
  wrote(bytes: number): void;
}

/** What an earlier try of the same terminal has found out: that the person's own key of the host is an old one. */
export interface Earlier {
  readonly keyChanged: boolean;
}

export class Attempt {
  readonly #means: Means;
  readonly #request: TerminalRequest;
  readonly #events: AttemptEvents;
  readonly #earlier: Earlier;
  readonly #steps: Steps;
  readonly #printer: Printer;
  #size: { columns: number; rows: number };
  #over = false;
  #stream: Stream | undefined;
  #client: SshClient | undefined;
  #channel: Channel | undefined;
  #unwatch: () => void = () => undefined;
  #cancel: (() => void) | undefined; // of what is waited for
  #late: Failure | undefined; // why we gave up waiting
  #ended: Failure | undefined; // of the tab
  #banners: string[] = [];
  #hostKey: Uint8Array | undefined; // accepted in this connection
  #keyFailure: Failure | undefined;
  #openedAt = 0;
  #heardAt = 0;
  #typed = false;
  #revoked = false;
  #waitingSince: number | undefined;
  #resizing = false;
  #users = 0; // of the connection beside the shell
  #shellOver = false;
  /** Whether the host's key was not the one that this person had accepted. */
  keyChanged = false;

  constructor(means: Means, request: TerminalRequest, events: AttemptEvents, earlier: Earlier) {
    this.#means = means;
    this.#request = request;
    this.#events = events;
    this.#earlier = earlier;
    this.#size = { columns: request.columns, rows: request.rows };
    const { environment } = means;
    this.#steps = new Steps(
      () => environment.now(),
      (step) => this.#tell(() => events.step(step)),
    );
    this.#printer = new Printer(environment, (data) => this.#tell(() => events.data(data)));
  }

  get over(): boolean {
    return this.#over;
  }

  /** Do it all. Never rejects. */
  async run(): Promise<void> {
    let end: End;
    try {
      end = await this.#whole();
    } catch (problem) {
      end = { status: null, signal: null, failure: this.#why(problem) };
    }
    this.#finish(end);
  }

  /** The person wants no more of it. */
  close(): void {
    this.#finish({ status: null, signal: null, failure: null });
  }

  /** Input; resolves when it is on its way. */
  async write(data: Uint8Array): Promise<void> {
    this.#typed = true;
    // What comes too late for the session goes nowhere, as at any terminal.
    await this.#channel?.write(data).catch(() => undefined);
    this.#tell(() => this.#events.wrote(data.length));
  }

  ack(bytes: number): void {
    this.#printer.ack(bytes);
  }

  /** Storms of sizes are for those who drag windows: the host hears the last one. */
  resize(columns: number, rows: number): void {
    this.#size = { columns, rows };
    if (this.#channel === undefined || this.#resizing) return;
    this.#resizing = true;
    void this.#sendSize(this.#channel);
  }

  /** How long the host takes to answer, in milliseconds; undefined where it does not. */
  async ping(): Promise<number | undefined> {
    const { environment } = this.#means;
    const begun = environment.now();
    if (this.#client === undefined || !(await this.#client.ping())) return undefined;
    return environment.now() - begun;
  }

  /** Use the connection for something else than the shell; it stays until ``done`` is called for each use. */
  borrow(): { client: SshClient; done: () => void } {
    if (this.#client === undefined || this.#over) throw new Failed(lost(this.#request.name));
    this.#users++;
    let used = true;
    const done = () => {
      if (!used) return;
      used = false;
      this.#users--;
      if (this.#shellOver) this.#release();
    };
    return { client: this.#client, done };
  }

  async #whole(): Promise<End> {
    const { environment, port } = this.#means;
    const { machine, account } = this.#request;
    this.#steps.begin("node");
    const signers = await this.#signers();
    const { tab, target } = await this.#means.reach(machine, account);
    this.#alive();
    this.#steps.done("node", tab.addresses[0]);
    this.#steps.begin("relay");
    this.#steps.done("relay", await tab.connected(target));
    this.#alive();
    this.#steps.begin("tunnel");
    this.#limit(PATIENCE.tunnel, silent(target.name));
    this.#unwatch = tab.watch(target, {
      account,
      tunnel: () => this.#tunnelled(),
      link: (up) => this.#link(up),
      over: (why) => {
        this.#ended = why;
        this.#stream?.abort();
        this.#finish({ status: null, signal: null, failure: why });
      },
    });
    const stream = tab.connect(target, port);
    this.#stream = stream;
    stream.opened.then(
      () => this.#connected(),
      () => undefined,
    );
    const client = await this.#signIn(stream, target, signers);
    this.#alive();
    this.#client = client;
    this.#heardAt = environment.now();
    void client.run();
    this.#steps.begin("shell");
    this.#limit(PATIENCE.shell, failure("timeout", `${target.name} gives no shell.`, "Open it again."));
    const channel = await client.session();
    const ready = [
      channel.pty({ term: "xterm-256color", ...this.#size }),
      // Many programs ask for it before they show all colours. Most hosts do not accept it, which does no harm.
      channel.environment("COLORTERM", "truecolor"),
      channel.shell(),
    ];
    for (const one of ready) one.catch(() => undefined);
    await ready[0];
    await ready[2];
    this.#alive();
    this.#channel = channel;
    this.#limit(undefined);
    this.#steps.done("shell");
    this.#openedAt = environment.now();
    this.#tell(() => this.#events.open());
    this.#watchSilence();
    return this.#session(channel, target);
  }

  async #session(channel: Channel, target: Target): Promise<End> {
    await Promise.all([this.#print(() => channel.read()), this.#print(() => channel.readError(), true)]);
    await this.#printer.finish();
    const exit = await channel.ended();
    const status = exit.status ?? null;
    const signal = exit.signal === undefined ? null : plain(exit.signal, 40);
    let why: Failure | null = null;
    if (this.#revoked) {
      why = failure(
        "policy-ended",
        `The policy does not let you in to ${target.name} any more.`,
        "Ask an administrator if you still need it.",
        "Access revoked.",
      );
    } else if (!this.#typed && this.#means.environment.now() - this.#openedAt < AT_ONCE) {
      why = failure(
        "shell-ended-at-once",
        `The shell on ${target.name} ended at once${status === null ? "" : `, with status ${status}`}.`,
        "Look at the shell of this account there: it may be one that lets nobody work, or its start file may fail.",
      );
    }
    return { status, signal, failure: why };
  }

  async #print(read: () => Promise<Uint8Array | undefined>, errors = false): Promise<void> {
    for (let data = await read(); data !== undefined; data = await read()) {
      this.#heardAt = this.#means.environment.now();
      // Tailscale's SSH says so on the error output, which a terminal has no other use for.
      if (errors && data.length < 200) this.#revoked ||= /Access revoked/.test(String.fromCharCode(...data));
      await this.#printer.print(data);
    }
  }

  // Connecting ------------------------------------------------------------------------------------------------------

  async #signers(): Promise<Signer[]> {
    const file = this.#request.keyFile;
    if (file === undefined) return [];
    // Most people never need it, so it is not part of what everybody waits for.
    const { readKeyFile } = await import("../protocol/ssh/keyfile.ts");
    const { primitives } = this.#means.environment;
    return [readKeyFile(file.bytes, { passphrase: file.passphrase, primitives })];
  }

  #tunnelled(): void {
    if (this.#client !== undefined || this.#hostKey !== undefined) return;
    this.#steps.done("tunnel");
    this.#steps.begin("tcp");
    this.#limit(PATIENCE.tcp, filtered(this.#request.name));
  }

  #connected(): void {
    this.#steps.done("tcp");
    this.#steps.begin("hostkey");
    this.#limit(PATIENCE.hostkey, this.#mute());
  }

  #mute(): Failure {
    const { name } = this.#request;
    const cure = "Look at its SSH server, and open it again.";
    return failure("timeout", `${name} does not speak SSH in time.`, cure);
  }

  async #signIn(stream: Stream, target: Target, signers: readonly Signer[]): Promise<SshClient> {
    const { environment } = this.#means;
    const known = this.#known(target);
    try {
      return await SshClient.connect({
        stream,
        primitives: environment.primitives,
        ciphers: environment.ciphers,
        entropy: environment.entropy,
        knownKinds: known.length === 0 ? undefined : known.map(keyKind),
        accept: (key) => this.#accept(target, known, key),
        keyed: () => {
          this.#steps.done("hostkey", fingerprint(this.#hostKey!));
          this.#steps.begin("signin");
          this.#limit(PATIENCE.signin, this.#slow(target));
        },
        user: this.#request.account,
        signers,
        banner: (text) => this.#banner(text),
        ask: (title, text, questions) => this.#question(title, text, questions),
      }).then((client) => {
        this.#steps.done("check");
        this.#steps.done("signin");
        return client;
      });
    } catch (problem) {
      if (stream.over === "refused") throw new Failed(closedPort(target.name));
      if (this.#keyFailure !== undefined) throw new Failed(this.#keyFailure);
      const noKind = problem instanceof SshError && problem.failure === "no-common" && known.length > 0;
      if (noKind && problem.message.includes("host key"))
        throw new Failed(this.#changed(target, "another kind", known));
      throw problem;
    }
  }

  /** The keys that are known of the host; for one that was accepted here, that one. */
  #known(target: Target): readonly Uint8Array[] {
    const asksAnew = target.hostKeysFrom === "you" && this.#earlier.keyChanged;
    const accepted = this.#means.accepted.get(target.machine);
    if (accepted !== undefined && (target.hostKeysFrom === "none" || asksAnew)) return [accepted];
    return asksAnew ? [] : target.hostKeys;
  }

  /** Judge the host's key. Until it is accepted nothing is sent that an impostor could use. */
  async #accept(target: Target, known: readonly Uint8Array[], key: Uint8Array): Promise<boolean> {
    // New keys in the middle of a connection are proven by the key that it began with.
    if (this.#hostKey !== undefined) return equal(this.#hostKey, key);
    if (known.length > 0) {
      if (known.some((one) => equal(one, key))) {
        this.#hostKey = key.slice();
        return true;
      }
      this.#keyFailure = this.#changed(target, fingerprint(key), known);
      return false;
    }
    const before = target.hostKeys[0];
    this.#limit(undefined);
    const kind = keyKind(key);
    const answer = await this.#events.hostKey({
      fingerprint: fingerprint(key),
      kind: plain(kind, 40),
      known: before === undefined ? null : fingerprint(before),
    });
    if (this.#over || answer === "refuse") return false;
    if (answer === "remember") await this.#means.remember(target, key, before);
    this.#limit(PATIENCE.hostkey, this.#mute());
    this.#means.accepted.set(target.machine, key.slice());
    this.#hostKey = key.slice();
    return true;
  }

  #changed(target: Target, seen: string, known: readonly Uint8Array[]): Failure {
    this.keyChanged = target.hostKeysFrom === "you";
    this.#means.accepted.delete(target.machine);
    const prints = known.map(fingerprint).join(", ");
    return changedKey(target.name, seen, prints, target.hostKeysFrom);
  }

  #banner(text: string): void {
    this.#heardAt = this.#means.environment.now();
    if (this.#banners.length >= MAX_BANNERS) throw new SshError("protocol", "banners without end");
    const words = plain(text.replace(/\r\n?/g, "\n"), 10_000);
    this.#banners.push(words);
    this.#tell(() => this.#events.banner(words));
    const check = readCheck(words);
    if (check === undefined) return;
    this.#limit(undefined); // how long somebody may take is for the server to say
    this.#steps.begin("check");
    this.#tell(() => this.#events.check(check));
  }

  async #question(
    title: string,
    text: string,
    questions: readonly Question[],
  ): Promise<string[] | undefined> {
    this.#limit(undefined);
    const shown = questions.map(({ text: question, echo }) => ({ text: plain(question), echo }));
    const answers = await this.#events.ask(plain(title), plain(text, 4000), shown);
    if (!this.#over) this.#limit(PATIENCE.signin, this.#slow({ name: this.#request.name }));
    return answers;
  }

  #slow({ name }: { readonly name: string }): Failure {
    return failure("timeout", `${name} does not decide whether you may come in.`, "Open it again.");
  }

  // While it lasts ----------------------------------------------------------------------------------------------------

  #link(up: boolean): void {
    if (up) {
      if (this.#waitingSince === undefined) return;
      this.#waitingSince = undefined;
      this.#tell(() => this.#events.link("up"));
    } else if (this.#waitingSince === undefined) {
      const { environment } = this.#means;
      const since = Math.round(environment.epoch + environment.now());
      this.#waitingSince = since;
      this.#tell(() => this.#events.link("waiting", since));
    }
  }

  /** A host that was switched off says nothing, and neither does one whose person reads: so it is asked. */
  #watchSilence(): void {
    const { environment } = this.#means;
    const quiet = environment.now() - this.#heardAt;
    this.#wait(Math.max(SILENCE - quiet, 1000), () => {
      if (environment.now() - this.#heardAt < SILENCE) return this.#watchSilence();
      let answered = false;
      void this.ping().then((ms) => {
        if (ms === undefined || this.#over) return;
        answered = true;
        this.#heardAt = environment.now();
        this.#link(true);
        this.#watchSilence();
      });
      this.#wait(ANSWER, () => {
        if (!answered) this.#link(false);
      });
    });
  }

  async #sendSize(channel: Channel): Promise<void> {
    let sent: { columns: number; rows: number } | undefined;
    while (sent !== this.#size && !this.#over) {
      sent = this.#size;
      await channel.resize(sent).catch(() => undefined);
    }
    this.#resizing = false;
  }

  // Its end -----------------------------------------------------------------------------------------------------------

  /** Give up where something takes longer; undefined: it may take as long as it does. */
  #limit(milliseconds: number | undefined, why?: Failure): void {
    this.#cancel?.();
    this.#cancel = undefined;
    if (milliseconds === undefined || why === undefined || this.#over) return;
    this.#wait(milliseconds, () => {
      this.#late = why;
      this.#finish({ status: null, signal: null, failure: why });
    });
  }

  #wait(milliseconds: number, call: () => void): void {
    this.#cancel?.();
    this.#cancel = this.#over ? undefined : this.#means.environment.after(milliseconds, call);
  }

  #why(problem: unknown): Failure {
    const { name, account } = this.#request;
    if (this.#ended !== undefined) return this.#ended;
    if (this.#late !== undefined) return this.#late;
    const over = this.#stream?.over;
    const broken = problem instanceof SshError && problem.failure === "lost";
    if (broken && over !== undefined && over !== "ended")
      return told(new Disconnected(over), name, account, []);
    return told(problem, name, account, this.#banners);
  }

  #finish(end: End): void {
    if (this.#over) return;
    if (end.failure !== null) this.#steps.failed(end.failure.message);
    this.#over = true;
    this.#cancel?.();
    this.#unwatch();
    this.#printer.close();
    this.#shellOver = true;
    void this.#channel?.close().catch(() => undefined);
    this.#release();
    this.#events.end(end);
  }

  /** Nobody uses the connection any more. */
  #release(): void {
    if (this.#users > 0) return;
    const stream = this.#stream;
    if (this.#client === undefined) {
      stream?.abort();
      return;
    }
    const gone = () => stream?.close();
    this.#client.disconnect().then(gone, gone);
    // Where the host takes nothing any more it cannot be said to it.
    this.#means.environment.after(GOODBYE, () => stream?.abort());
  }

  #alive(): void {
    if (this.#over) throw new SshError("lost", "it was given up");
  }

  /** Nothing is told after the end. */
  #tell(tell: () => void): void {
    if (!this.#over) tell();
  }
}
