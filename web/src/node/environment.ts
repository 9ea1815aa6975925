/** What the node needs of where it runs: a browser's Worker, or a test. */

import type { Primitives } from "../protocol/ssh/primitives.ts";

/** What of a WebSocket is used here. */
export interface Socket {
  binaryType: string;
  /** How many bytes given to ``send`` have not left yet. */
  readonly bufferedAmount: number;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  send(data: Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
}

/** What of a fetched answer is used here. */
export interface Answer {
  readonly status: number;
  json(): Promise<unknown>;
}

/** What is fetched: always with the cookie of this origin, and from nowhere else. */
export interface Asked {
  readonly method: "GET" | "POST";
  readonly body?: string;
  /** Whether it is to be sent even where the page ends meanwhile. */
  readonly keepalive?: boolean;
}

export interface Environment {
  /** Milliseconds of a clock that never goes back and does not stop while the machine sleeps. */
  now(): number;
  /** The time of day at ``now`` 0, in milliseconds since 1970. */
  readonly epoch: number;
  /** Bytes that nobody can guess. */
  entropy(size: number): Uint8Array;
  /** Call something later; what is returned gives that up. */
  after(milliseconds: number, call: () => void): () => void;
  /** Open a WebSocket that speaks DERP. */
  socket(url: string): Socket;
  /** Rejects where the server is not reached. */
  fetch(path: string, asked: Asked): Promise<Answer>;
  readonly primitives: Primitives;
  /** The ciphers of SSH that are fast here, the best first; all of them in its own order where it is not said. */
  readonly ciphers?: readonly string[] | undefined;
}

/** Wait; for where nothing else is waited for. */
export function pause(environment: Environment, milliseconds: number): Promise<void> {
  return new Promise((wake) => {
    environment.after(milliseconds, wake);
  });
}

/** Chance between 0 and 1. */
export function chance(environment: Environment): number {
  const [high, low] = environment.entropy(2);
  return (high! * 256 + low!) / 65536;
}
