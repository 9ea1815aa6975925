/** The files of a terminal's host: a list, uploads by drop or choice, downloads; all by the terminal's own connection. */

import { type Signal, signal, useComputed, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { type FileEntry, type FilesHandle, TransferError } from "../node/client.ts";
import { Dialog } from "../ui/dialog.tsx";
import { Outside } from "../ui/parts.tsx";
import type { App } from "./app.ts";
import { Icon, IconButton } from "./parts.tsx";
import type { Session } from "./session.ts";
import {
  above,
  below,
  isOver,
  type Moved,
  moved,
  nameForHere,
  nameForHost,
  share,
  size,
  type Transfer,
} from "./transfers.ts";

/** Bytes of a download that are kept here until it is whole; a browser that can write files as they come keeps none. */
const MOST_KEPT = 1 << 30;

/** Entries of a folder that are drawn: nobody looks through more of them, and a page that draws a host's million stands still. */
const MOST_DRAWN = 2_000;

/** What the panel of a session knows; it outlives the panel, as its transfers do. */
export class Folder {
  readonly path: Signal<string | null> = signal(null);
  readonly entries: Signal<FileEntry[] | null> = signal(null);
  /** How many there are beside these. */
  readonly more: Signal<number> = signal(0);
  readonly problem: Signal<string> = signal("");
  readonly transfers: Signal<Transfer[]> = signal([]);
  /** A file that is there already, and what to do about it. */
  readonly asking: Signal<{ name: string; answer: (over: boolean) => void } | null> = signal(null);
  readonly #session: Session;
  readonly #stops = new Map<number, AbortController>();
  #next = 0;
  #uploads: Promise<void> = Promise.resolve();

  constructor(session: Session) {
    this.#session = session;
  }

  get #files(): FilesHandle {
    const files = this.#session.files();
    if (files === undefined) throw new Error("no shell is open");
    return files;
  }

  /** Show a folder; the account's home without a path. */
  async go(path?: string): Promise<void> {
    this.problem.value = "";
    try {
      const there = path ?? (await this.#files.home());
      const entries = await this.#files.list(there);
      const sorted = entries
        .filter((one) => one.name !== "." && one.name !== "..")
        .sort((one, other) => Number(other.folder) - Number(one.folder) || (one.name < other.name ? -1 : 1));
      this.path.value = there;
      this.entries.value = sorted.slice(0, MOST_DRAWN);
      this.more.value = Math.max(0, sorted.length - MOST_DRAWN);
    } catch (error) {
      this.problem.value = told(error);
    }
  }

  /** Send files to the folder that is shown, one after the other. */
  upload(files: Iterable<File>): void {
    for (const file of files) {
      const name = nameForHost(file.name);
      const id = this.#begin(file.name, "up", file.size);
      if (name === undefined) {
        this.#happens(id, { is: "failed", problem: "this name means something else to a host" });
        continue;
      }
      this.#uploads = this.#uploads.then(() => this.#send(id, name, file));
    }
  }

  async #send(id: number, name: string, file: File): Promise<void> {
    const stop = this.#stops.get(id);
    if (stop === undefined || stop.signal.aborted) return;
    try {
      const folder = this.path.peek() ?? (await this.#files.home());
      const path = below(folder, name);
      const there = (await this.#files.list(folder)).find((one) => one.name === name);
      if (there?.folder) throw new Error("a folder has this name");
      if (there !== undefined && !(await this.#mayReplace(name))) return this.#happens(id, { is: "stopped" });
      this.#happens(id, { is: "began" });
      await this.#files.upload(path, file, {
        exclusive: there === undefined,
        signal: stop.signal,
        progress: (bytes, total) => this.#happens(id, { is: "progress", bytes, total }),
      });
      this.#happens(id, { is: "done" });
      if (this.path.peek() === folder) await this.go(folder);
    } catch (error) {
      this.#happens(id, stop.signal.aborted ? { is: "stopped" } : { is: "failed", problem: told(error) });
    }
  }

  /** Bring a file here: where the browser can, straight into a file that the person chose. */
  async download(name: string): Promise<void> {
    const folder = this.path.peek();
    if (folder === null) return;
    const id = this.#begin(name, "down", null);
    const stop = this.#stops.get(id)!;
    try {
      const into = await chosenFile(nameForHere(name));
      if (into === "none") return this.#happens(id, { is: "stopped" });
      this.#happens(id, { is: "began" });
      const { size: total, stream } = await this.#files.download(below(folder, name), {
        signal: stop.signal,
        progress: (bytes, whole) => this.#happens(id, { is: "progress", bytes, total: whole }),
      });
      if (into !== undefined) await stream.pipeTo(into, { signal: stop.signal });
      else if (total !== null && total > MOST_KEPT) {
        await stream.cancel();
        throw new Error(`it has ${size(total)}; this browser can take ${size(MOST_KEPT)} at once`);
      } else save(nameForHere(name), await collected(stream, stop.signal));
      this.#happens(id, { is: "done" });
    } catch (error) {
      this.#happens(id, stop.signal.aborted ? { is: "stopped" } : { is: "failed", problem: told(error) });
    }
  }

  stop(id: number): void {
    this.#stops.get(id)?.abort(new DOMException("stopped", "AbortError"));
    this.#happens(id, { is: "stopped" });
  }

  /** Take what is over off the list. */
  tidy(): void {
    this.transfers.value = this.transfers.peek().filter((one) => !isOver(one));
  }

  #mayReplace(name: string): Promise<boolean> {
    return new Promise((resolve) => {
      this.asking.value = {
        name,
        answer: (over) => {
          this.asking.value = null;
          resolve(over);
        },
      };
    });
  }

  #begin(name: string, way: Transfer["way"], total: number | null): number {
    const id = this.#next++;
    this.#stops.set(id, new AbortController());
    const one: Transfer = { id, name, way, bytes: 0, total, state: "waits", problem: "" };
    this.transfers.value = [...this.transfers.peek(), one];
    return id;
  }

  #happens(id: number, what: Moved): void {
    this.transfers.value = moved(this.transfers.peek(), id, what);
  }
}

const folders = new WeakMap<Session, Folder>();

export function folderOf(session: Session): Folder {
  let folder = folders.get(session);
  if (folder === undefined) {
    folder = new Folder(session);
    folders.set(session, folder);
  }
  return folder;
}

interface Picker {
  showSaveFilePicker?: (options: { suggestedName: string }) => Promise<FileSystemFileHandle>;
}

/** A file that the person chose to write to; undefined where the browser has no such thing, "none" where they chose none. */
async function chosenFile(name: string): Promise<WritableStream<Uint8Array> | "none" | undefined> {
  const picker = (window as Picker).showSaveFilePicker;
  if (picker === undefined) return undefined;
  try {
    const handle = await picker.call(window, { suggestedName: name });
    return (await handle.createWritable()) as unknown as WritableStream<Uint8Array>;
  } catch (error) {
    return error instanceof DOMException && error.name === "AbortError" ? "none" : undefined;
  }
}

async function collected(stream: ReadableStream<Uint8Array>, signal: AbortSignal): Promise<Blob> {
  const parts: BlobPart[] = [];
  let kept = 0;
  const reader = stream.getReader();
  for (;;) {
    signal.throwIfAborted();
    const { value, done } = await reader.read();
    if (done) return new Blob(parts, { type: "application/octet-stream" });
    kept += value.length;
    if (kept > MOST_KEPT) {
      await reader.cancel();
      throw new Error(`this browser can take ${size(MOST_KEPT)} at once`);
    }
    parts.push(value as Uint8Array<ArrayBuffer>);
  }
}

function save(name: string, content: Blob): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function told(error: unknown): string {
  if (error instanceof TransferError) return error.failure.message;
  return error instanceof Error ? error.message : String(error);
}

// The panel ---------------------------------------------------------------------------------------------------------------

export function Files({ app, session }: { app: App; session: Session }) {
  const folder = folderOf(session);
  const pick = useRef<HTMLInputElement>(null);
  const busy = useComputed(() => folder.transfers.value.some((one) => !isOver(one)));
  const typed = useSignal("");
  const open = session.pane.value.phase === "open";
  useEffect(() => {
    if (folder.path.peek() === null) void folder.go();
  }, [folder]);
  const path = folder.path.value;
  return (
    <aside class="files" aria-label={`Files of ${session.pane.value.machine}`}>
      <header>
        <form
          onSubmit={(event) => {
            event.preventDefault();
            void folder.go(typed.value || undefined);
          }}
        >
          <label class="heard" for={`path-${session.id}`}>
            Folder
          </label>
          <input
            id={`path-${session.id}`}
            class="field mono"
            autocomplete="off"
            spellcheck={false}
            value={path ?? ""}
            onInput={(event) => {
              typed.value = event.currentTarget.value;
            }}
          />
        </form>
        <IconButton
          icon="up"
          name="The folder above"
          disabled={path === null}
          onClick={() => void folder.go(above(path ?? "/"))}
        />
        <IconButton icon="again" name="Look again" onClick={() => void folder.go(path ?? undefined)} />
        <IconButton
          icon="close"
          name="Close files"
          onClick={() => {
            app.filing.value = null;
            session.focus();
          }}
        />
      </header>
      {folder.problem.value !== "" && (
        <p class="problem" role="alert">
          {folder.problem.value}
        </p>
      )}
      <ul class="entries">
        {folder.entries.value?.map((entry) => (
          <li key={entry.name}>
            <button
              type="button"
              disabled={!open}
              onClick={(event) => {
                if (entry.folder) void folder.go(below(path ?? "/", entry.name));
                else {
                  void folder.download(entry.name);
                  // Who has a mouse goes on typing in the shell: here the next space would get it again.
                  if (event.detail > 0) session.focus();
                }
              }}
              title={entry.folder ? "Open" : "Download"}
            >
              <Icon name={entry.folder ? "folder" : "file"} size={16} />
              <Outside text={entry.name} />
              <span class="entry-size">{!entry.folder && entry.size !== undefined && size(entry.size)}</span>
            </button>
          </li>
        ))}
        {folder.entries.value?.length === 0 && (
          <li class="quiet-line">Nothing is in this folder. Drop files to send them here.</li>
        )}
        {folder.more.value > 0 && (
          <li class="quiet-line">
            {folder.more.value} more are not shown. For a folder among them, write its path above.
          </li>
        )}
      </ul>
      <footer>
        <input
          ref={pick}
          type="file"
          multiple
          hidden
          onChange={(event) => {
            folder.upload(event.currentTarget.files ?? []);
            event.currentTarget.value = "";
          }}
        />
        <button type="button" class="press" disabled={!open} onClick={() => pick.current?.click()}>
          <Icon name="files" size={16} />
          Send files here
        </button>
        {folder.transfers.value.length > 0 && (
          <>
            <ul class="transfers" aria-label="Transfers">
              {folder.transfers.value.map((one) => (
                <Moving key={one.id} one={one} stop={() => folder.stop(one.id)} />
              ))}
            </ul>
            {!busy.value && (
              <button type="button" class="press quiet" onClick={() => folder.tidy()}>
                Clear the list
              </button>
            )}
          </>
        )}
      </footer>
      {folder.asking.value !== null && (
        <Dialog
          look="ask"
          title={`Replace ${nameForHere(folder.asking.value.name)}?`}
          onClose={() => folder.asking.value?.answer(false)}
        >
          <p>
            {session.pane.value.machine} has a file of this name in {path}. It is written anew, and what was
            in it is gone.
          </p>
          <p class="buttons">
            <button type="button" class="press" data-first onClick={() => folder.asking.value?.answer(false)}>
              Keep it
            </button>
            <button type="button" class="press danger" onClick={() => folder.asking.value?.answer(true)}>
              Replace it
            </button>
          </p>
        </Dialog>
      )}
    </aside>
  );
}

function Moving({ one, stop }: { one: Transfer; stop: () => void }) {
  const part = share(one);
  return (
    <li class={one.state}>
      <Icon name={one.way === "up" ? "files" : "download"} size={15} />
      <Outside text={one.name} limit={60} />
      <span class="transfer-state">
        {one.state === "done" && size(one.bytes)}
        {one.state === "waits" && "waits"}
        {one.state === "stopped" && "stopped"}
        {one.state === "moving" &&
          (one.total === null ? size(one.bytes) : `${size(one.bytes)} of ${size(one.total)}`)}
      </span>
      {!isOver(one) && <IconButton icon="close" name={`Stop ${nameForHere(one.name)}`} onClick={stop} />}
      {one.state === "moving" && (
        <progress
          aria-label={nameForHere(one.name)}
          {...(part === undefined ? {} : { value: part })}
          max={1}
        />
      )}
      {one.state === "failed" && <span class="problem">{one.problem}</span>}
    </li>
  );
}
