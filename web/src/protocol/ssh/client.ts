/** An SSH connection as a whole: keys, signing in, and any number of sessions over it. */

import { type AuthOptions, authenticate } from "./auth.ts";
import { Channel } from "./channel.ts";
import { SshError } from "./errors.ts";
import { Transport, type TransportOptions } from "./transport.ts";
import { Fields, fields, MESSAGE } from "./wire.ts";

export class SshClient {
  readonly #transport: Transport;
  readonly #channels = new Map<number, Channel>();
  #next = 0;
  #over: { readonly why: unknown } | undefined;
  #pongs: ((answered: boolean) => void)[] = [];
  #unsent = 0;

  private constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** A connection that is signed in; SshError where it could not be. ``keyed`` is called when the host has proven itself. */
  static async connect(
    options: TransportOptions & AuthOptions & { readonly keyed?: (() => void) | undefined },
  ): Promise<SshClient> {
    const transport = new Transport(options);
    await transport.start();
    options.keyed?.();
    await authenticate(transport, options);
    return new SshClient(transport);
  }

  get serverVersion(): string {
    return this.#transport.serverVersion;
  }

  /** A new session; SshError ``channel`` where the server gives none. */
  async session(): Promise<Channel> {
    if (this.#over !== undefined) throw this.#over.why;
    const number = this.#next++;
    const channel = new Channel(
      number,
      (payload) => this.#transport.send(payload),
      (payload) => this.#answer(payload),
    );
    this.#channels.set(number, channel);
    await channel.open();
    return channel;
  }

  /** Hand out what arrives until the connection ends: undefined for an end in order, else why. Never rejects. */
  async run(): Promise<unknown> {
    let why: unknown;
    try {
      for (;;) {
        const payload = await this.#transport.receive();
        if (payload === undefined) break;
        await this.#handle(payload);
      }
      if (this.#channels.size > 0) why = new SshError("lost", "the connection ended");
    } catch (problem) {
      why = problem;
    }
    this.#over = { why: why ?? new SshError("lost", "the connection is over") };
    for (const channel of this.#channels.values()) channel.fail(this.#over.why);
    this.#channels.clear();
    for (const pong of this.#pongs.splice(0)) pong(false);
    return why;
  }

  /** Whether the server still answers. Its answer is all the same to us: it has to say whether it knows the question. */
  async ping(): Promise<boolean> {
    if (this.#over !== undefined) return false;
    const answered = new Promise<boolean>((answer) => {
      this.#pongs.push(answer);
    });
    // Where it cannot be sent the connection is about to end, which answers it.
    this.#transport.send(fields(MESSAGE.globalRequest, "keepalive@openssh.com", true)).catch(() => undefined);
    return answered;
  }

  async rekey(): Promise<void> {
    await this.#transport.rekey();
  }

  async disconnect(): Promise<void> {
    if (this.#over === undefined) await this.#transport.disconnect();
  }

  async #handle(payload: Uint8Array): Promise<void> {
    const number = payload[0]!;
    if (number >= MESSAGE.channelOpenConfirmation && number <= MESSAGE.channelFailure) {
      await this.#forChannel(payload);
    } else if (number === MESSAGE.globalRequest) {
      const reader = new Fields(payload, 1);
      reader.text();
      if (reader.boolean()) await this.#answer(fields(MESSAGE.requestFailure));
    } else if (number === MESSAGE.requestSuccess || number === MESSAGE.requestFailure) {
      this.#pongs.shift()?.(true);
    } else if (number === MESSAGE.channelOpen) {
      // Nothing that a server opens towards us is wanted: no forwarded port, no agent.
      const reader = new Fields(payload, 1);
      reader.text();
      await this.#answer(
        fields(MESSAGE.channelOpenFailure, { u32: reader.u32() }, { u32: 1 }, "not wanted", ""),
      );
    } else if (number !== MESSAGE.authBanner) {
      throw new SshError("protocol", `message ${number} that nobody asked for`);
    }
  }

  /**
   * Send what the server has asked for, without waiting for room.
   *
   * Who waits to write while the server waits for us to read waits for ever. But a server that asks and asks, and
   * reads no answer, has to wait.
   */
  async #answer(payload: Uint8Array): Promise<void> {
    this.#unsent++;
    const sent = this.#transport.send(payload).then(
      () => this.#unsent--,
      () => this.#unsent--,
    );
    if (this.#unsent > 1000) await sent;
  }

  async #forChannel(payload: Uint8Array): Promise<void> {
    const number = new Fields(payload, 1).u32();
    const channel = this.#channels.get(number);
    if (channel === undefined)
      throw new SshError("protocol", `a message for channel ${number}, which there is not`);
    if (await channel.handle(payload)) this.#channels.delete(number);
  }
}
