/** Files on a host, in the Worker: one SFTP session for each connection, calls and transfers side by side on it. */

import { concat } from "../protocol/bytes.ts";
import type { SshClient } from "../protocol/ssh/client.ts";
import { SshError } from "../protocol/ssh/errors.ts";
import { type Entry, isFolder, Sftp, SftpError } from "../protocol/ssh/sftp.ts";
import type { Environment } from "./environment.ts";
import { Failed, failure, lost, plain, told } from "./failures.ts";
import type { FileAnswer, FileCall, FromWorker } from "./messages.ts";
import type { Failure, FileEntry } from "./types.ts";

/** How much of a download may be on its way to the page, in bytes. */
const ON_ITS_WAY = 4 << 20;
/** How much of a file is read at once for an upload. */
const SLICE = 1 << 20;
/** What a page takes at once costs it about the same whether it is little or much: so much of a download goes together. */
const TOGETHER = 1 << 18;
/** Progress is told so often at most, in milliseconds, and what was gathered waits no longer once more of it has come. */
const TELL = 100;

/** A connection that is kept while it is used. */
export interface Borrowed {
  readonly client: SshClient;
  readonly done: () => void;
}

/** A transfer under way, as far as the page can move it. */
interface Transfer {
  unread: number;
  cancelled: boolean;
  wake: () => void;
}

class Cancelled extends Error {}

export class Transfers {
  readonly #environment: Environment;
  readonly #say: (message: FromWorker, transfer?: Transferable[]) => void;
  readonly #sessions = new WeakMap<SshClient, Promise<Sftp>>();
  readonly #calls = new Map<number, Transfer>();

  constructor(environment: Environment, say: (message: FromWorker, transfer?: Transferable[]) => void) {
    this.#environment = environment;
    this.#say = say;
  }

  /** Do what the page asks for on a host called ``name``, and tell it. Never rejects. */
  async run(call: number, what: FileCall, name: string, borrow: () => Borrowed): Promise<void> {
    const transfer: Transfer = { unread: 0, cancelled: false, wake: () => undefined };
    this.#calls.set(call, transfer);
    let used: Borrowed | undefined;
    try {
      used = borrow();
      const sftp = await this.#session(used.client);
      const answer = await this.#do(sftp, call, what, transfer);
      if (!transfer.cancelled) this.#say({ kind: "filesDone", call, answer });
    } catch (problem) {
      if (used !== undefined && isOver(problem)) this.#sessions.delete(used.client);
      if (!transfer.cancelled) this.#say({ kind: "filesFailed", call, failure: wrong(problem, what, name) });
    } finally {
      this.#calls.delete(call);
      used?.done();
    }
  }

  /** The page has read so much of a download. */
  ack(call: number, bytes: number): void {
    const transfer = this.#calls.get(call);
    if (transfer === undefined) return;
    transfer.unread = Math.max(0, transfer.unread - Math.max(0, bytes));
    transfer.wake();
  }

  /** The page wants no more of it; nothing more is told of it. */
  cancel(call: number): void {
    const transfer = this.#calls.get(call);
    if (transfer === undefined) return;
    transfer.cancelled = true;
    transfer.wake();
  }

  #session(client: SshClient): Promise<Sftp> {
    const known = this.#sessions.get(client);
    if (known !== undefined) return known;
    const begun = client.session().then((channel) => Sftp.start(channel));
    begun.catch(() => this.#sessions.delete(client));
    this.#sessions.set(client, begun);
    return begun;
  }

  async #do(sftp: Sftp, call: number, what: FileCall, transfer: Transfer): Promise<FileAnswer> {
    switch (what.do) {
      case "home":
        return sftp.realPath(".");
      case "list":
        return (await sftp.list(what.path)).map(entry);
      case "makeFolder":
        await sftp.makeFolder(what.path);
        return null;
      case "remove":
        await (what.folder ? sftp.removeFolder(what.path) : sftp.remove(what.path));
        return null;
      case "rename":
        await sftp.rename(what.path, what.to);
        return null;
      case "upload":
        await this.#upload(sftp, call, what, transfer);
        return null;
      case "download":
        await this.#download(sftp, call, what.path, transfer);
        return null;
    }
  }

  async #upload(
    sftp: Sftp,
    call: number,
    what: Extract<FileCall, { readonly do: "upload" }>,
    transfer: Transfer,
  ): Promise<void> {
    const wrote = this.#progress(call, transfer, what.file.size);
    await sftp.write(what.path, pieces(what.file, transfer), wrote, { exclusive: what.exclusive });
  }

  async #download(sftp: Sftp, call: number, path: string, transfer: Transfer): Promise<void> {
    const { size } = await sftp.stat(path);
    this.#say({ kind: "filesSize", call, size: size ?? null });
    const progress = this.#progress(call, transfer, size);
    let parts: Uint8Array[] = [];
    let gathered = 0;
    let whole = 0;
    let saidAt = this.#environment.now();
    const send = () => {
      const data = concat(...parts);
      parts = [];
      gathered = 0;
      whole += data.length;
      saidAt = this.#environment.now();
      transfer.unread += data.length;
      this.#say({ kind: "filesData", call, data }, [data.buffer]);
      progress(whole);
    };
    for await (const piece of sftp.read(path)) {
      if (transfer.cancelled) throw new Cancelled();
      parts.push(piece);
      gathered += piece.length;
      if (gathered >= TOGETHER || this.#environment.now() - saidAt >= TELL) send();
      while (transfer.unread > ON_ITS_WAY && !transfer.cancelled) {
        await new Promise<void>((wake) => {
          transfer.wake = wake;
        });
      }
    }
    if (gathered > 0 && !transfer.cancelled) send();
  }

  /** Tells the page now and then how many bytes have moved, and for certain when it is ``all`` of them. */
  #progress(call: number, transfer: Transfer, all: number | undefined): (bytes: number) => void {
    let toldAt = Number.NEGATIVE_INFINITY;
    return (bytes) => {
      const now = this.#environment.now();
      if (bytes !== all && now - toldAt < TELL) return;
      toldAt = now;
      if (!transfer.cancelled) this.#say({ kind: "filesProgress", call, bytes });
    };
  }
}

/** What is in a file of the person's; the next slice is read while one is sent. */
async function* pieces(file: Blob, transfer: Transfer): AsyncGenerator<Uint8Array, void, void> {
  const read = (at: number) => {
    const slice = file.slice(at, at + SLICE).arrayBuffer();
    slice.catch(() => undefined);
    return slice;
  };
  let next = file.size > 0 ? read(0) : undefined;
  for (let at = 0; next !== undefined; ) {
    let data: Uint8Array;
    try {
      data = new Uint8Array(await next);
    } catch {
      throw new Failed(
        failure(
          "refused",
          "The file cannot be read on this device any more.",
          "It may have changed: choose it again.",
        ),
      );
    }
    at += SLICE;
    next = at < file.size ? read(at) : undefined;
    if (transfer.cancelled) throw new Cancelled();
    yield data;
  }
}

function entry({ name, size, mode, modified }: Entry): FileEntry {
  return {
    name,
    folder: isFolder({ mode }),
    ...(size === undefined ? {} : { size }),
    ...(mode === undefined ? {} : { mode }),
    ...(modified === undefined ? {} : { modified }),
  };
}

function isOver(problem: unknown): boolean {
  return (problem instanceof SftpError && problem.status === "lost") || problem instanceof SshError;
}

const REFUSALS: Readonly<Record<string, [string, string]>> = {
  missing: ["There is no such file or folder", "Look at the path."],
  denied: ["The account may not do this", "Choose another folder, or another account."],
  unsupported: ["The host cannot do this", "Do it in the terminal."],
};

function wrong(problem: unknown, what: FileCall, name: string): Failure {
  if (problem instanceof SftpError) {
    if (problem.status === "lost") return lost(name, problem.message);
    const [message, cure] = REFUSALS[problem.status] ?? [
      "The host refuses",
      "Look at the file in the terminal.",
    ];
    const path = what.do === "home" ? "." : plain(what.path, 400);
    return failure("refused", `${message}: ${path}`, cure, problem.message);
  }
  if (problem instanceof SshError && problem.failure === "channel") {
    return failure(
      "refused",
      `${name} offers no file transfer.`,
      "Its SSH server needs the subsystem sftp.",
      problem.message,
    );
  }
  return told(problem, name, "", []);
}
