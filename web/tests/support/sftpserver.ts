/** As much of a server of SFTP as transfers need, in memory. Its files are as long as a test says. */

import { ByteQueue, concat, u32 } from "../../src/protocol/bytes.ts";
import type { Carrier } from "../../src/protocol/ssh/sftp.ts";
import { type Field, Fields, fields } from "../../src/protocol/ssh/wire.ts";

export class MemoryServer implements Carrier {
  /** How much there is of what can be read, by path. */
  readonly sizes = new Map<string, number>();
  reads = 0;
  writes = 0;
  open = 0;
  /** Whether writes are answered. */
  answers = true;
  closed = false;
  readonly #incoming = new ByteQueue();
  readonly #ready: Uint8Array[] = [];
  readonly #handles = new Map<string, string>();
  readonly #parts: Uint8Array[] = [];
  #next = 0;
  #wake: () => void = () => undefined;

  /** All that was written, in the order in which it came. */
  get written(): Uint8Array {
    return concat(...this.#parts);
  }

  async subsystem(): Promise<void> {}

  async read(): Promise<Uint8Array | undefined> {
    while (this.#ready.length === 0) {
      if (this.closed) return undefined;
      await new Promise<void>((wake) => {
        this.#wake = wake;
      });
    }
    return this.#ready.shift();
  }

  async write(data: Uint8Array): Promise<void> {
    this.#incoming.push(data.slice());
    for (;;) {
      const head = this.#incoming.peek(4);
      const packet = head && this.#incoming.take(4 + u32(head, 0));
      if (packet === undefined) return;
      const answer = this.#answer(packet.subarray(4));
      if (answer !== undefined) this.#push(answer);
    }
  }

  async close(): Promise<void> {
    this.closed = true;
    this.#wake();
  }

  /** Answer the writes that were not. */
  release(): void {
    this.answers = true;
    for (const id of this.#unanswered.splice(0)) this.#push(fields(101, { u32: id }, { u32: 0 }, "", ""));
  }

  readonly #unanswered: number[] = [];

  /** What is answered to a request; undefined where it is not, yet. */
  #answer(packet: Uint8Array): Uint8Array | undefined {
    if (packet[0] === 1) return fields(2, { u32: 3 });
    const reader = new Fields(packet, 1);
    const id = reader.u32();
    const say = (kind: number, ...more: Field[]) => fields(kind, { u32: id }, ...more);
    const status = (code: number) => say(101, { u32: code }, "", "");
    const first = reader.text();
    switch (packet[0]) {
      case 3: {
        if (this.sizes.get(first) === undefined && (reader.u32() & 2) === 0) return status(2);
        const handle = `handle-${this.#next++}`;
        this.#handles.set(handle, first);
        this.open++;
        return say(102, handle);
      }
      case 4:
        this.open--;
        return status(0);
      case 5: {
        const at = reader.u64();
        const size = Math.min(reader.u32(), (this.sizes.get(this.#handles.get(first)!) ?? 0) - at);
        this.reads++;
        return size <= 0 ? status(1) : say(103, new Uint8Array(size).fill(at / 32_768));
      }
      case 6: {
        reader.u64();
        this.writes++;
        this.#parts.push(reader.string().slice());
        if (this.answers) return status(0);
        this.#unanswered.push(id);
        return undefined;
      }
      case 14:
        return status(first.startsWith("/root") ? 3 : 0);
      case 17: {
        const size = this.sizes.get(first);
        return size === undefined
          ? status(2)
          : say(105, { u32: 1 }, { u32: Math.floor(size / 2 ** 32) }, { u32: size % 2 ** 32 });
      }
      default:
        return status(8);
    }
  }

  #push(payload: Uint8Array): void {
    this.#ready.push(fields(payload));
    this.#wake();
  }
}
