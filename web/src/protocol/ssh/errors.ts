/** What can go wrong with an SSH connection, told apart by what a person can do about it. */

import { ProtocolError } from "../bytes.ts";

/**
 * ``protocol``: the other side does not follow the protocol. ``no-common``: there is no algorithm that both know.
 * ``host-key``: the key is not the one expected. ``signature``: whoever answered does not have the key it shows.
 * ``refused``: no way of signing in was accepted. ``disconnected``: the server said so. ``lost``: the connection ended.
 */
export type SshFailure =
  | "protocol"
  | "no-common"
  | "host-key"
  | "signature"
  | "refused"
  | "disconnected"
  | "lost"
  | "channel";

export class SshError extends ProtocolError {
  override readonly name = "SshError";
  readonly failure: SshFailure;

  constructor(failure: SshFailure, message: string) {
    super(message);
    this.failure = failure;
  }
}

/** ``passphrase``: one is needed, or this one is wrong. ``kind``: a key that is not known here. ``broken``: no key at all. */
export type KeyFileProblem = "passphrase" | "kind" | "broken";

/** A file cannot be used as a private key. The message is for people. */
export class KeyFileError extends ProtocolError {
  override readonly name = "KeyFileError";
  readonly problem: KeyFileProblem;

  constructor(problem: KeyFileProblem, message: string) {
    super(message);
    this.problem = problem;
  }
}
