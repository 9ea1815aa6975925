/**
 * What goes between a page and its Worker, as plain objects; bytes are handed over, not copied.
 *
 * Terminals and calls are numbered by the page, questions by the Worker.
 */

import type {
  Check,
  End,
  Failure,
  FileEntry,
  HostKeyAnswer,
  HostKeyQuestion,
  NodeState,
  Question,
  Step,
  TerminalRequest,
} from "./types.ts";

/** What can be asked about files; each has one answer. */
export type FileCall =
  | { readonly do: "list"; readonly path: string }
  | { readonly do: "home" }
  | { readonly do: "makeFolder"; readonly path: string }
  | { readonly do: "remove"; readonly path: string; readonly folder: boolean }
  | { readonly do: "rename"; readonly path: string; readonly to: string }
  | { readonly do: "upload"; readonly path: string; readonly file: Blob; readonly exclusive: boolean }
  | { readonly do: "download"; readonly path: string };

export type FileAnswer = FileEntry[] | string | null;

export type ToWorker =
  | { readonly kind: "start"; readonly api: string }
  | { readonly kind: "open"; readonly id: number; readonly request: TerminalRequest }
  | { readonly kind: "write"; readonly id: number; readonly data: Uint8Array }
  | { readonly kind: "ack"; readonly id: number; readonly bytes: number }
  | { readonly kind: "resize"; readonly id: number; readonly columns: number; readonly rows: number }
  | { readonly kind: "close"; readonly id: number }
  | { readonly kind: "forget"; readonly id: number } // closed, and never opened again
  | { readonly kind: "again"; readonly id: number }
  | { readonly kind: "ping"; readonly id: number; readonly call: number }
  | { readonly kind: "hostKeyAnswer"; readonly question: number; readonly answer: HostKeyAnswer }
  | { readonly kind: "askAnswer"; readonly question: number; readonly answers: string[] | undefined }
  | { readonly kind: "files"; readonly id: number; readonly call: number; readonly what: FileCall }
  | { readonly kind: "filesAck"; readonly call: number; readonly bytes: number }
  | { readonly kind: "filesCancel"; readonly call: number }
  | { readonly kind: "told" } // the server has said something of the tab: look
  | { readonly kind: "wake" }
  | { readonly kind: "retry" }
  | { readonly kind: "leave" };

export type FromWorker =
  | { readonly kind: "node"; readonly state: NodeState }
  | { readonly kind: "step"; readonly id: number; readonly step: Step }
  | { readonly kind: "banner"; readonly id: number; readonly text: string }
  | { readonly kind: "check"; readonly id: number; readonly check: Check }
  | {
      readonly kind: "hostKey";
      readonly id: number;
      readonly question: number;
      readonly asked: HostKeyQuestion;
    }
  | {
      readonly kind: "ask";
      readonly id: number;
      readonly question: number;
      readonly title: string;
      readonly text: string;
      readonly questions: Question[];
    }
  | { readonly kind: "opened"; readonly id: number }
  | { readonly kind: "data"; readonly id: number; readonly data: Uint8Array }
  | { readonly kind: "wrote"; readonly id: number; readonly bytes: number }
  | { readonly kind: "link"; readonly id: number; readonly state: "up" | "waiting"; readonly since?: number }
  | { readonly kind: "end"; readonly id: number; readonly end: End }
  | { readonly kind: "pong"; readonly call: number; readonly ms: number | null }
  | { readonly kind: "filesDone"; readonly call: number; readonly answer: FileAnswer }
  | { readonly kind: "filesFailed"; readonly call: number; readonly failure: Failure }
  | { readonly kind: "filesProgress"; readonly call: number; readonly bytes: number }
  | { readonly kind: "filesSize"; readonly call: number; readonly size: number | null }
  | { readonly kind: "filesData"; readonly call: number; readonly data: Uint8Array };
