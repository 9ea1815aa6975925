/** Signing in (RFC 4252, RFC 4256): what Tailscale's SSH needs, which is nothing, and what an ordinary sshd may ask. */

import { SshError } from "./errors.ts";
import type { Transport } from "./transport.ts";
import { Fields, fields, MESSAGE } from "./wire.ts";

/** One question of a server; ``echo`` says whether the answer may be seen while it is typed. */
export interface Question {
  readonly text: string;
  readonly echo: boolean;
}

/** A key pair that signs; what it signs with never leaves it. */
export interface Signer {
  /** The kinds of signatures it makes, the best first, as `rsa-sha2-512`. */
  readonly algorithms: readonly string[];
  /** The public key, as SSH writes it. */
  readonly blob: Uint8Array;
  /** The signature of a message, as SSH writes it. */
  sign(algorithm: string, message: Uint8Array): Uint8Array | Promise<Uint8Array>;
}

export interface AuthOptions {
  readonly user: string;
  readonly signers?: readonly Signer[] | undefined;
  /** What the server wants people to read, such as where to confirm that they are there. */
  readonly banner: (text: string) => void;
  /** Ask the person; undefined where they would not answer. */
  readonly ask?:
    | ((title: string, text: string, questions: readonly Question[]) => Promise<string[] | undefined>)
    | undefined;
}

const SERVICE = "ssh-connection";
const MAX_ROUNDS = 50;

/** Sign in; SshError ``refused``, naming the ways that the server has, when none of ours is accepted. */
export async function authenticate(transport: Transport, options: AuthOptions): Promise<void> {
  await transport.send(fields(MESSAGE.serviceRequest, "ssh-userauth"));
  // Sent before the service is accepted: it saves the time to there and back, and tells nothing but a name.
  await transport.send(fields(MESSAGE.authRequest, options.user, SERVICE, "none"));
  const accepted = await next(transport, options);
  if (accepted[0] !== MESSAGE.serviceAccept) throw unexpected(accepted);
  let ways = outcome(await next(transport, options));
  for (const signer of options.signers ?? []) {
    if (ways === undefined) return;
    if (ways.includes("publickey")) ways = await bySignature(transport, options, signer, ways);
  }
  for (let round = 0; round < 3 && ways !== undefined && options.ask !== undefined; round++) {
    if (ways.includes("keyboard-interactive")) ways = await byQuestions(transport, options);
    else if (ways.includes("password")) ways = await byPassword(transport, options);
    else break;
  }
  if (ways !== undefined) {
    throw new SshError(
      "refused",
      `the host does not let ${options.user} in; it accepts ${ways.join(", ") || "nothing"}`,
    );
  }
}

/** Send a request; the ways that may go on, or undefined once we are in. */
async function attempt(
  transport: Transport,
  options: AuthOptions,
  request: Uint8Array,
): Promise<string[] | undefined> {
  await transport.send(request);
  return outcome(await next(transport, options));
}

function outcome(payload: Uint8Array): string[] | undefined {
  if (payload[0] === MESSAGE.authSuccess) return undefined;
  if (payload[0] !== MESSAGE.authFailure) throw unexpected(payload);
  return new Fields(payload, 1).names();
}

/** The signature covers the name of this connection, so that no other server can use it. */
async function bySignature(
  transport: Transport,
  options: AuthOptions,
  signer: Signer,
  ways: string[],
): Promise<string[] | undefined> {
  const known = transport.extensions.get("server-sig-algs")?.split(",");
  const algorithm = signer.algorithms.find((name) => known === undefined || known.includes(name));
  if (algorithm === undefined) return ways;
  const request = fields(
    MESSAGE.authRequest,
    options.user,
    SERVICE,
    "publickey",
    true,
    algorithm,
    signer.blob,
  );
  const signature = await signer.sign(algorithm, fields(transport.session, { raw: request }));
  return attempt(transport, options, fields({ raw: request }, signature));
}

async function byQuestions(transport: Transport, options: AuthOptions): Promise<string[] | undefined> {
  await transport.send(fields(MESSAGE.authRequest, options.user, SERVICE, "keyboard-interactive", "", ""));
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const payload = await next(transport, options);
    if (payload[0] !== MESSAGE.authInfoRequest) return outcome(payload);
    const reader = new Fields(payload, 1);
    const title = reader.text();
    const text = reader.text();
    reader.text();
    const questions: Question[] = [];
    for (let count = reader.u32(); count > 0; count--) {
      if (questions.length === 32) throw new SshError("protocol", "too many questions");
      questions.push({ text: reader.text(), echo: reader.boolean() });
    }
    const answers = questions.length === 0 ? [] : await options.ask!(title, text, questions);
    if (answers === undefined) throw new SshError("refused", "signing in was given up");
    await transport.send(fields(MESSAGE.authInfoResponse, { u32: answers.length }, ...answers));
  }
  throw new SshError("protocol", "questions without end");
}

async function byPassword(transport: Transport, options: AuthOptions): Promise<string[] | undefined> {
  const answers = await options.ask!("", "", [{ text: `Password of ${options.user}: `, echo: false }]);
  if (answers === undefined) throw new SshError("refused", "signing in was given up");
  return attempt(
    transport,
    options,
    fields(MESSAGE.authRequest, options.user, SERVICE, "password", false, answers[0] ?? ""),
  );
}

/** The next message that is no banner. */
async function next(transport: Transport, options: AuthOptions): Promise<Uint8Array> {
  for (;;) {
    const payload = await transport.receive();
    if (payload === undefined) throw new SshError("lost", "the connection ended while signing in");
    if (payload[0] !== MESSAGE.authBanner) return payload;
    options.banner(new Fields(payload, 1).text());
  }
}

function unexpected(payload: Uint8Array): SshError {
  return new SshError("protocol", `message ${payload[0]} while signing in`);
}
