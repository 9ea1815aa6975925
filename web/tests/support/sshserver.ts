/** A server of SSH for tests, which can be told to misbehave at any point. Its keys and ciphers are its own work. */

import { ed25519, x25519 } from "@noble/curves/ed25519.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { ml_kem768 } from "@noble/post-quantum/ml-kem.js";
import { ascii, ByteQueue, concat, putU32, u32 } from "../../src/protocol/bytes.ts";
import { CIPHERS, cipher, type PacketCipher, plain } from "../../src/protocol/ssh/ciphers.ts";
import { derive } from "../../src/protocol/ssh/kex.ts";
import { portable } from "../../src/protocol/ssh/portable.ts";
import type { Duplex } from "../../src/protocol/ssh/transport.ts";
import { Fields, fields, MESSAGE, mpint } from "../../src/protocol/ssh/wire.ts";

/** Two streams, each other's other end. */
export function pipe(): [Duplex & { close(): void }, Duplex & { close(): void }] {
  const queues = [new ByteQueue(), new ByteQueue()];
  const waiting: (() => void)[][] = [[], []];
  let closed = false;
  const end = (reads: 0 | 1) => ({
    read: async () => {
      while (queues[reads]!.length === 0) {
        if (closed) return undefined;
        await new Promise<void>((wake) => waiting[reads]!.push(wake));
      }
      return queues[reads]!.takeSome(1 << 20);
    },
    write: async (data: Uint8Array) => {
      if (closed) throw new Error("closed");
      queues[1 - reads]!.push(data.slice());
      for (const wake of waiting[1 - reads]!.splice(0)) wake();
    },
    close: () => {
      closed = true;
      for (const wake of waiting.flatMap((one) => one.splice(0))) wake();
    },
  });
  return [end(0), end(1)];
}

export interface ServerOptions {
  readonly exchange?: string;
  readonly cipher?: string;
  readonly strict?: boolean;
  /** What is said in place of the version line. */
  readonly greeting?: string;
  /** Whether the key exchange's signature is somebody else's. */
  readonly impostor?: boolean;
  /** What its host key is made of. */
  readonly key?: number;
  /** Messages to put before the answer of the key exchange. */
  readonly before?: readonly Uint8Array[];
}

export class TestServer {
  readonly hostKey: Uint8Array;
  readonly blob: Uint8Array;
  readonly #options: Required<ServerOptions>;
  readonly #stream: Duplex;
  readonly #incoming = new ByteQueue();
  #cipherIn: PacketCipher = plain;
  #cipherOut: PacketCipher = plain;
  #in = 0;
  #out = 0;
  #session: Uint8Array | undefined;
  #theirs = "";
  #kexInit: Uint8Array | undefined;

  constructor(stream: Duplex, options: ServerOptions = {}) {
    this.#stream = stream;
    this.#options = {
      exchange: "curve25519-sha256",
      cipher: "chacha20-poly1305@openssh.com",
      strict: true,
      greeting: "SSH-2.0-Test",
      impostor: false,
      before: [],
      key: 3,
      ...options,
    };
    this.hostKey = new Uint8Array(32).fill(this.#options.key);
    this.blob = fields("ssh-ed25519", ed25519.getPublicKey(this.hostKey));
  }

  /** Version and keys; afterwards the client is about to ask for its service. */
  async start(): Promise<void> {
    await this.#stream.write(ascii(`${this.#options.greeting}\r\n`));
    let line = "";
    while (!line.endsWith("\r\n")) line += String.fromCharCode((await this.#bytes(1))[0]!);
    this.#theirs = line.trim();
    await this.rekey();
    const theirs = await this.receive();
    await this.exchange(theirs);
  }

  /** Offer new keys; the client's own offer is to be given to ``exchange``. */
  async rekey(): Promise<void> {
    const { exchange, cipher: name, strict } = this.#options;
    const exchanges =
      strict && this.#session === undefined ? `${exchange},kex-strict-s-v00@openssh.com` : exchange;
    this.#kexInit = fields(
      MESSAGE.kexInit,
      { raw: new Uint8Array(16) },
      exchanges,
      "ssh-ed25519",
      name,
      name,
      ...["", "", "none", "none", "", ""],
      false,
      { u32: 0 },
    );
    await this.send(this.#kexInit);
  }

  async exchange(theirs: Uint8Array): Promise<void> {
    if (this.#kexInit === undefined) await this.rekey();
    const request = new Fields(await this.receive(), 1).string();
    const ephemeral = crypto.getRandomValues(new Uint8Array(32));
    const own = x25519.getPublicKey(ephemeral);
    let secret: Uint8Array;
    let answer: Uint8Array;
    if (this.#options.exchange.startsWith("mlkem")) {
      const { cipherText, sharedSecret } = ml_kem768.encapsulate(request.slice(0, 1184));
      const curve = x25519.getSharedSecret(ephemeral, request.slice(1184));
      secret = fields(sha256(concat(sharedSecret, curve)));
      answer = concat(cipherText, own);
    } else {
      secret = mpint(x25519.getSharedSecret(ephemeral, request));
      answer = own;
    }
    const about = fields(
      this.#theirs,
      this.#options.greeting,
      theirs,
      this.#kexInit!,
      this.blob,
      request,
      answer,
    );
    const hash = sha256(concat(about, secret));
    const signer = this.#options.impostor ? new Uint8Array(32).fill(4) : this.hostKey;
    for (const message of this.#options.before) await this.send(message);
    await this.send(
      fields(MESSAGE.kexReply, this.blob, answer, fields("ssh-ed25519", ed25519.sign(hash, signer))),
    );
    this.#session ??= hash;
    await this.send(fields(MESSAGE.newKeys));
    const name = this.#options.cipher;
    const size = CIPHERS.get(name)!;
    const key = (letter: string, length: number) => derive(secret, hash, letter, this.#session!, length);
    this.#cipherOut = await cipher(name, key("D", size.key), key("B", size.iv), portable);
    if (this.#options.strict) this.#out = 0;
    const message = await this.receive();
    if (message[0] !== MESSAGE.newKeys) throw new Error(`message ${message[0]} instead of new keys`);
    this.#cipherIn = await cipher(name, key("C", size.key), key("A", size.iv), portable);
    if (this.#options.strict) this.#in = 0;
    this.#kexInit = undefined;
  }

  /** Accept the service and whoever wants to sign in. */
  async letIn(): Promise<void> {
    await this.receive();
    await this.send(fields(MESSAGE.serviceAccept, "ssh-userauth"));
    await this.receive();
    await this.send(fields(MESSAGE.authSuccess));
  }

  /** Confirm a session; the client's number for it. */
  async confirm(window = 1 << 20, maximum = 32_768): Promise<number> {
    const request = new Fields(await this.receive(), 1);
    request.text();
    const number = request.u32();
    await this.send(
      fields(MESSAGE.channelOpenConfirmation, { u32: number }, { u32: 9 }, { u32: window }, { u32: maximum }),
    );
    return number;
  }

  async send(payload: Uint8Array): Promise<void> {
    const data = await this.#cipherOut.seal(this.#out, framed(payload, this.#cipherOut));
    this.#out++;
    await this.#stream.write(data);
  }

  /** Send bytes as they are. */
  raw(data: Uint8Array): Promise<void> {
    return this.#stream.write(data);
  }

  async receive(): Promise<Uint8Array> {
    while (this.#incoming.length < 4) await this.#more();
    const length = this.#cipherIn.length(this.#in, this.#incoming.peek(4)!);
    const packet = await this.#cipherIn.open(this.#in++, await this.#bytes(4 + length + this.#cipherIn.tag));
    return packet.slice(5, 4 + u32(packet, 0) - packet[4]!);
  }

  async #bytes(size: number): Promise<Uint8Array> {
    while (this.#incoming.length < size) await this.#more();
    return this.#incoming.take(size)!;
  }

  async #more(): Promise<void> {
    const data = await this.#stream.read();
    if (data === undefined) throw new Error("the client has gone");
    this.#incoming.push(data);
  }
}

function framed(payload: Uint8Array, way: PacketCipher): Uint8Array {
  const counted = (way === plain ? 5 : 1) + payload.length;
  const padding = way.block - (counted % way.block) + way.block;
  const packet = new Uint8Array(5 + payload.length + padding);
  putU32(packet, 0, 1 + payload.length + padding);
  packet[4] = padding;
  packet.set(payload, 5);
  return packet;
}
