/**
 * Private keys in files: as `ssh-keygen` writes them (PROTOCOL.key of OpenSSH), and in PEM as other programs do.
 *
 * What is read stays in the signer that comes of it.
 */

import { cbc, ctr, gcm } from "@noble/ciphers/aes.js";
import { ed25519 } from "@noble/curves/ed25519.js";
import { p256, p384, p521 } from "@noble/curves/nist.js";
import { fromBase64 } from "../base64.ts";
import { concat, equal, fromHex, ProtocolError, u32 } from "../bytes.ts";
import { toUtf8 } from "../utf8.ts";
import type { Signer } from "./auth.ts";
import { bcryptKey } from "./bcrypt.ts";
import { Der, OBJECT, OCTET_STRING } from "./der.ts";
import { KeyFileError } from "./errors.ts";
import type { Primitives, RsaPrivateKey } from "./primitives.ts";
import { Fields, fields, mpint } from "./wire.ts";

const MAGIC = "openssh-key-v1\0";
/** Longer files are no keys. */
const MAX_FILE = 1 << 17;
/** More rounds than these would keep us busy for minutes. */
const MAX_ROUNDS = 1000;
const CONVERT = "`ssh-keygen -p -f FILE` writes it anew in a form that is known here";

const CIPHERS: ReadonlyMap<string, { readonly key: number; readonly iv: number; readonly tag: number }> =
  new Map([
    ["aes256-ctr", { key: 32, iv: 16, tag: 0 }],
    ["aes192-ctr", { key: 24, iv: 16, tag: 0 }],
    ["aes128-ctr", { key: 16, iv: 16, tag: 0 }],
    ["aes256-cbc", { key: 32, iv: 16, tag: 0 }],
    ["aes256-gcm@openssh.com", { key: 32, iv: 12, tag: 16 }],
    ["aes128-gcm@openssh.com", { key: 16, iv: 12, tag: 16 }],
  ]);

const CURVES = {
  nistp256: { curve: p256, oid: "2a8648ce3d030107" },
  nistp384: { curve: p384, oid: "2b81040022" },
  nistp521: { curve: p521, oid: "2b81040023" },
} as const;
type CurveName = keyof typeof CURVES;
const OIDS = { rsa: "2a864886f70d010101", ec: "2a8648ce3d0201", ed25519: "2b6570" } as const;

/** The key in a file; KeyFileError where it cannot be had, which ``passphrase`` may change. */
export function readKeyFile(
  file: Uint8Array,
  options: { readonly passphrase?: string | undefined; readonly primitives: Primitives },
): Signer {
  try {
    return read(file, options.passphrase, options.primitives);
  } catch (problem) {
    if (problem instanceof KeyFileError) throw problem;
    throw new KeyFileError("broken", "this file is damaged, or is no private key");
  }
}

function read(file: Uint8Array, passphrase: string | undefined, primitives: Primitives): Signer {
  if (file.length > MAX_FILE) throw new KeyFileError("broken", "this file is too long for a private key");
  const text = latin(file);
  if (/^(ssh-|ecdsa-|sk-)\S+ AAAA/.test(text) || text.includes("BEGIN SSH2 PUBLIC KEY"))
    throw new KeyFileError("broken", "this is the public half of a key: the other file is the private one");
  if (text.startsWith("PuTTY-User-Key-File"))
    throw new KeyFileError("kind", "this is a key of PuTTY: PuTTYgen can export it as an OpenSSH key");
  const found = /-----BEGIN ([A-Z0-9 ]+)-----([\s\S]*?)-----END \1-----/.exec(text);
  if (found === null) throw new KeyFileError("broken", "this file is no private key");
  const [, label, body] = found as unknown as [string, string, string];
  if (label === "ENCRYPTED PRIVATE KEY" || /^\s*Proc-Type:.*ENCRYPTED/m.test(body))
    throw new KeyFileError("kind", `this key is encrypted in an old way: ${CONVERT}`);
  const data = fromBase64(body);
  switch (label) {
    case "OPENSSH PRIVATE KEY":
      return openssh(data, passphrase, primitives);
    case "RSA PRIVATE KEY":
      return pkcs1(new Der(data).sequence(), primitives);
    case "EC PRIVATE KEY":
      return sec1(new Der(data).sequence(), undefined);
    case "PRIVATE KEY":
      return pkcs8(new Der(data).sequence(), primitives);
    default:
      throw new KeyFileError("kind", `a file with ${label} is not known here: ${CONVERT}`);
  }
}

function latin(data: Uint8Array): string {
  let text = "";
  for (let at = 0; at < data.length; at += 4096) text += String.fromCharCode(...data.subarray(at, at + 4096));
  return text;
}

// OpenSSH's own form ---------------------------------------------------------------------------------------------------

function openssh(data: Uint8Array, passphrase: string | undefined, primitives: Primitives): Signer {
  const reader = new Fields(data);
  if (latin(reader.bytes(MAGIC.length)) !== MAGIC) throw new ProtocolError("no such file");
  const name = reader.text();
  const kdf = reader.text();
  const options = reader.string();
  if (reader.u32() !== 1) throw new KeyFileError("kind", "this file has several keys");
  const kind = new Fields(reader.string()).text();
  if (kind.startsWith("sk-"))
    throw new KeyFileError("kind", "this key is in a security key, which a page cannot ask for it");
  const sealed = reader.string();
  if (name === "none") return privatePart(sealed, primitives);
  const sizes = CIPHERS.get(name);
  if (sizes === undefined || kdf !== "bcrypt")
    throw new KeyFileError("kind", `this key is encrypted by ${name}, which is not known here: ${CONVERT}`);
  if (passphrase === undefined || passphrase === "")
    throw new KeyFileError("passphrase", "this key has a passphrase");
  const parameters = new Fields(options);
  const salt = parameters.string();
  const rounds = parameters.u32();
  if (rounds < 1 || rounds > MAX_ROUNDS)
    throw new KeyFileError(
      "kind",
      `this key's passphrase takes ${rounds} rounds, at most ${MAX_ROUNDS} are done here`,
    );
  const secret = bcryptKey(toUtf8(passphrase), salt, rounds, sizes.key + sizes.iv);
  const key = secret.subarray(0, sizes.key);
  const iv = secret.subarray(sizes.key);
  const wrong = new KeyFileError("passphrase", "this is not the key's passphrase");
  let text: Uint8Array;
  try {
    if (sizes.tag > 0) text = gcm(key, iv).decrypt(concat(sealed, reader.bytes(sizes.tag)));
    else if (name.endsWith("cbc")) text = cbc(key, iv, { disablePadding: true }).decrypt(sealed);
    else text = ctr(key, iv).decrypt(sealed);
    if (u32(text, 0) !== u32(text, 4)) throw wrong;
  } catch {
    throw wrong;
  }
  return privatePart(text, primitives);
}

function privatePart(text: Uint8Array, primitives: Primitives): Signer {
  const reader = new Fields(text, 8);
  const kind = reader.text();
  if (kind === "ssh-ed25519") {
    reader.string();
    return edwards(reader.string().slice(0, 32));
  }
  if (kind === "ssh-rsa") {
    const [modulus, exponent, secret, inverse, p, q] = Array.from({ length: 6 }, () =>
      reader.mpint().slice(),
    );
    return rsa(
      { modulus: modulus!, exponent: exponent!, secret: secret!, inverse: inverse!, p: p!, q: q! },
      primitives,
    );
  }
  if (kind.startsWith("ecdsa-sha2-")) {
    const curve = reader.text();
    reader.string();
    return ecdsa(curve, reader.mpint());
  }
  throw new KeyFileError("kind", `keys of the kind ${kind.slice(0, 40)} are not known here`);
}

// PEM as others write it -----------------------------------------------------------------------------------------------

function pkcs1(key: Der, primitives: Primitives): Signer {
  key.integer();
  const [modulus, exponent, secret, p, q] = Array.from({ length: 5 }, () => key.integer().slice());
  key.integer();
  key.integer();
  const inverse = key.integer().slice();
  return rsa({ modulus: modulus!, exponent: exponent!, secret: secret!, inverse, p: p!, q: q! }, primitives);
}

function sec1(key: Der, curve: Uint8Array | undefined): Signer {
  key.integer();
  const scalar = key.take(OCTET_STRING);
  const named = curve ?? new Der(key.take(0xa0)).take(OBJECT);
  const name = (Object.keys(CURVES) as CurveName[]).find((one) => equal(fromHex(CURVES[one].oid), named));
  if (name === undefined) throw new KeyFileError("kind", "this key is on a curve that SSH does not have");
  return ecdsa(name, scalar);
}

function pkcs8(file: Der, primitives: Primitives): Signer {
  file.integer();
  const algorithm = file.sequence();
  const object = algorithm.take(OBJECT);
  const key = new Der(file.take(OCTET_STRING));
  if (equal(object, fromHex(OIDS.rsa))) return pkcs1(key.sequence(), primitives);
  if (equal(object, fromHex(OIDS.ec))) return sec1(key.sequence(), algorithm.take(OBJECT));
  if (equal(object, fromHex(OIDS.ed25519))) return edwards(key.take(OCTET_STRING).slice());
  throw new KeyFileError("kind", "a key of this kind is not known here");
}

// What signs -----------------------------------------------------------------------------------------------------------

function edwards(seed: Uint8Array): Signer {
  if (seed.length !== 32) throw new ProtocolError(`a key of ${seed.length} bytes`);
  const kind = "ssh-ed25519";
  return {
    algorithms: [kind],
    blob: fields(kind, ed25519.getPublicKey(seed)),
    sign: (_, message) => fields(kind, ed25519.sign(message, seed)),
  };
}

function ecdsa(name: string, scalar: Uint8Array): Signer {
  if (!Object.hasOwn(CURVES, name))
    throw new KeyFileError("kind", "this key is on a curve that SSH does not have");
  const { curve } = CURVES[name as CurveName];
  const size = curve.lengths.secretKey!;
  const kind = `ecdsa-sha2-${name}`;
  let zeros = 0;
  while (zeros < scalar.length - size)
    if (scalar[zeros++] !== 0) throw new ProtocolError("a scalar too large");
  const key = concat(new Uint8Array(Math.max(0, size - scalar.length)), scalar.subarray(zeros));
  return {
    algorithms: [kind],
    blob: fields(kind, name, curve.getPublicKey(key, false)),
    sign: (_, message) => {
      const both = curve.sign(message, key, { lowS: false });
      const numbers = concat(mpint(both.subarray(0, size)), mpint(both.subarray(size)));
      return fields(kind, numbers);
    },
  };
}

function rsa(key: RsaPrivateKey, primitives: Primitives): Signer {
  if (key.modulus.length * 8 < 2048)
    throw new KeyFileError("kind", `an RSA key of ${key.modulus.length * 8} bits is too short to be safe`);
  return {
    algorithms: ["rsa-sha2-512", "rsa-sha2-256"],
    blob: fields("ssh-rsa", { raw: mpint(key.exponent) }, { raw: mpint(key.modulus) }),
    sign: async (algorithm, message) => {
      const hash = algorithm === "rsa-sha2-512" ? "SHA-512" : "SHA-256";
      return fields(algorithm, await primitives.signRsa(hash, key, message));
    },
  };
}
