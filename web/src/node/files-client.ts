/** The page's side of files on a host: calls go to the Worker, progress and pieces come back. */

import type { FileAnswer, FileCall, FromWorker, ToWorker } from "./messages.ts";
import type { Download, Failure, FileEntry, TransferOptions, UploadOptions } from "./types.ts";

/** How much of a download may lie here unread, in bytes. */
const AHEAD = 4 << 20;

/** A call about files that failed, and why. */
export class TransferError extends Error {
  override readonly name = "TransferError";
  readonly failure: Failure;

  constructor(failure: Failure) {
    super(failure.message);
    this.failure = failure;
  }
}

/** Files on a host. Every call rejects with a TransferError, or with the signal's reason where it was given up. */
export interface FilesHandle {
  /** The whole path of the folder where the account begins. */
  home(): Promise<string>;
  list(path: string): Promise<FileEntry[]>;
  makeFolder(path: string): Promise<void>;
  /** Remove a file; with ``folder`` a folder, which has to be empty. */
  remove(path: string, options?: { readonly folder?: boolean }): Promise<void>;
  rename(path: string, to: string): Promise<void>;
  /** Write a file. Where it fails or is given up, what was written stays. */
  upload(path: string, file: Blob, options?: UploadOptions): Promise<void>;
  download(path: string, options?: TransferOptions): Promise<Download>;
}

interface Call {
  readonly done: (answer: FileAnswer) => void;
  readonly failed: (why: unknown) => void;
  readonly progress: (bytes: number) => void;
  readonly size: (size: number | null) => void;
  readonly data: (data: Uint8Array) => void;
}

type FromFiles = Extract<FromWorker, { readonly kind: `files${string}` }>;

const nothing = () => undefined;

export class RemoteFiles {
  readonly #post: (message: ToWorker, transfer?: Transferable[]) => void;
  readonly #calls = new Map<number, Call>();

  constructor(post: (message: ToWorker, transfer?: Transferable[]) => void) {
    this.#post = post;
  }

  /** The files that the host of a terminal has; ``number`` gives a number for each call. */
  of(id: number, number: () => number): FilesHandle {
    const ask = (what: FileCall, options: TransferOptions = {}) =>
      this.#ask(id, number(), what, options) as Promise<unknown>;
    return {
      home: async () => (await ask({ do: "home" })) as string,
      list: async (path) => (await ask({ do: "list", path })) as FileEntry[],
      makeFolder: async (path) => void (await ask({ do: "makeFolder", path })),
      remove: async (path, { folder = false } = {}) => void (await ask({ do: "remove", path, folder })),
      rename: async (path, to) => void (await ask({ do: "rename", path, to })),
      upload: async (path, file, { exclusive = false, ...options } = {}) =>
        void (await ask({ do: "upload", path, file, exclusive }, options)),
      download: (path, options = {}) => this.#download(id, number(), path, options),
    };
  }

  heard(message: FromFiles): void {
    const call = this.#calls.get(message.call);
    if (call === undefined) return;
    if (message.kind === "filesProgress") call.progress(message.bytes);
    else if (message.kind === "filesSize") call.size(message.size);
    else if (message.kind === "filesData") call.data(message.data);
    else {
      this.#calls.delete(message.call);
      if (message.kind === "filesDone") call.done(message.answer);
      else call.failed(new TransferError(message.failure));
    }
  }

  /** The Worker is no more. */
  broken(failure: Failure): void {
    for (const call of this.#calls.keys()) this.heard({ kind: "filesFailed", call, failure });
  }

  #ask(id: number, call: number, what: FileCall, options: TransferOptions): Promise<FileAnswer> {
    const total = what.do === "upload" ? what.file.size : null;
    return new Promise((resolve, reject) => {
      const free = this.#giveUp(call, options.signal, reject);
      if (options.signal?.aborted) return;
      this.#calls.set(call, {
        done: (answer) => {
          free();
          resolve(answer);
        },
        failed: (why) => {
          free();
          reject(why);
        },
        progress: (bytes) => options.progress?.(bytes, total),
        size: nothing,
        data: nothing,
      });
      this.#post({ kind: "files", id, call, what });
    });
  }

  #download(id: number, call: number, path: string, options: TransferOptions): Promise<Download> {
    return new Promise((resolve, reject) => {
      let controller: ReadableStreamDefaultController<Uint8Array> | undefined;
      let size: number | null = null;
      const fail = (why: unknown) => {
        reject(why);
        controller?.error(why);
        controller = undefined;
      };
      const free = this.#giveUp(call, options.signal, fail);
      if (options.signal?.aborted) return;
      this.#calls.set(call, {
        done: () => {
          free();
          controller?.close();
          controller = undefined;
        },
        failed: (why) => {
          free();
          fail(why);
        },
        progress: (bytes) => options.progress?.(bytes, size),
        size: (known) => {
          size = known;
          let unread = 0; // told to the host as it is read, so that what is read slowly is sent slowly
          const stream = new ReadableStream<Uint8Array>(
            {
              start: (one) => {
                controller = one;
              },
              pull: (one) => {
                const left = AHEAD - (one.desiredSize ?? 0);
                if (unread > left) {
                  this.#post({ kind: "filesAck", call, bytes: unread - left });
                  unread = left;
                }
              },
              cancel: () => {
                free();
                controller = undefined;
                this.#cancel(call);
              },
            },
            { highWaterMark: AHEAD, size: (piece) => piece.length },
          );
          this.#calls.set(call, {
            ...this.#calls.get(call)!,
            data: (piece) => {
              unread += piece.length;
              controller?.enqueue(piece);
            },
          });
          resolve({ size, stream });
        },
        data: nothing,
      });
      this.#post({ kind: "files", id, call, what: { do: "download", path } });
    });
  }

  /** Have a signal give a call up; what is returned ends that. */
  #giveUp(call: number, signal: AbortSignal | undefined, fail: (why: unknown) => void): () => void {
    if (signal === undefined) return nothing;
    const stop = () => {
      this.#cancel(call);
      fail(signal.reason);
    };
    if (signal.aborted) fail(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
    return () => signal.removeEventListener("abort", stop);
  }

  #cancel(call: number): void {
    if (this.#calls.delete(call)) this.#post({ kind: "filesCancel", call });
  }
}
