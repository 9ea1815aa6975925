/**
 * The costly steps of a connection, done once for nothing while the server is asked for a node.
 *
 * The first use of a curve makes its tables, and code that has never run is slow. What the wait is used for, nobody waits for later.
 */

import { ed25519 } from "@noble/curves/ed25519.js";
import { concat, fromHex } from "../protocol/bytes.ts";
import { begin, KEM_CIPHERTEXT } from "../protocol/ssh/kex.ts";

// RFC 8032 section 7.1, the first of its tests: the shortest signature that goes through all of the work.
const KEY = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
const SIGNATURE =
  "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";
const BASE = fromHex(`09${"00".repeat(31)}`); // a point of the other curve (RFC 7748 section 4.1)

/** One after the other, so that what arrives meanwhile comes in between; ``entropy`` gives bytes that nobody can guess, for keys that are thrown away. */
export const STEPS: readonly ((entropy: (size: number) => Uint8Array) => void)[] = [
  (entropy) => {
    begin("mlkem768x25519-sha256", entropy).secret(concat(entropy(KEM_CIPHERTEXT), BASE));
  },
  () => {
    ed25519.verify(fromHex(SIGNATURE), new Uint8Array(0), fromHex(KEY));
  },
];
