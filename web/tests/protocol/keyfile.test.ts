import { createPublicKey, generateKeyPairSync, verify as nodeVerify } from "node:crypto";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { toBase64 } from "../../src/protocol/base64.ts";
import { ascii, fromHex, toHex } from "../../src/protocol/bytes.ts";
import { bcryptKey } from "../../src/protocol/ssh/bcrypt.ts";
import { KeyFileError } from "../../src/protocol/ssh/errors.ts";
import { verify } from "../../src/protocol/ssh/hostkeys.ts";
import { readKeyFile } from "../../src/protocol/ssh/keyfile.ts";
import { portable } from "../../src/protocol/ssh/portable.ts";
import { Fields } from "../../src/protocol/ssh/wire.ts";
import { toUtf8 } from "../../src/protocol/utf8.ts";
import { Dice } from "../support/deterministic.ts";

interface Vector {
  readonly name: string;
  readonly file: string;
  readonly public: string;
  readonly passphrase?: string;
}
const vectors = JSON.parse(
  readFileSync(new URL("../../../tests/vectors/keyfiles.json", import.meta.url), "utf8"),
);
const keys: Vector[] = vectors.keys;
const refused: Vector[] = vectors.refused;
const MESSAGE = ascii("what is signed");

function problemOf(file: string | Uint8Array, passphrase?: string): [string, string] {
  try {
    readKeyFile(typeof file === "string" ? toUtf8(file) : file, { passphrase, primitives: portable });
  } catch (problem) {
    expect(problem).toBeInstanceOf(KeyFileError);
    return [(problem as KeyFileError).problem, (problem as KeyFileError).message];
  }
  throw new Error("it was read");
}

test.each(keys)(
  "$name is read, is the key that it should be, and signs",
  async ({ file, passphrase, ...key }) => {
    const signer = readKeyFile(toUtf8(file), { passphrase, primitives: portable });
    expect(toBase64(signer.blob)).toBe(key.public.split(" ")[1]);
    for (const algorithm of signer.algorithms) {
      const signature = await signer.sign(algorithm, MESSAGE);
      expect(await verify(algorithm, signer.blob, signature, MESSAGE, portable)).toBe(true);
      expect(await verify(algorithm, signer.blob, signature, ascii("something else"), portable)).toBe(false);
    }
    expect(JSON.stringify(signer)).not.toContain("secret");
  },
);

test("signatures by RSA are the same as others make", async () => {
  const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const pem = privateKey.export({ type: "pkcs8", format: "pem" }) as string;
  const signer = readKeyFile(toUtf8(pem), { primitives: portable });
  for (const [algorithm, hash] of [
    ["rsa-sha2-512", "sha512"],
    ["rsa-sha2-256", "sha256"],
  ] as const) {
    const parts = new Fields(await signer.sign(algorithm, MESSAGE));
    expect(parts.text()).toBe(algorithm);
    expect(
      nodeVerify(
        hash,
        MESSAGE,
        createPublicKey(publicKey.export({ type: "spki", format: "pem" })),
        parts.string(),
      ),
    ).toBe(true);
  }
});

test.each(keys.filter(({ passphrase }) => passphrase !== undefined))(
  "$name wants its passphrase, and no other",
  ({ file }) => {
    expect(problemOf(file)).toEqual(["passphrase", "this key has a passphrase"]);
    expect(problemOf(file, "")).toEqual(["passphrase", "this key has a passphrase"]);
    expect(problemOf(file, "wrong")).toEqual(["passphrase", "this is not the key's passphrase"]);
  },
);

test.each(refused)(
  "$name is encrypted in a way that is not known here, which is said with the cure",
  ({ file }) => {
    const [problem, message] = problemOf(file, "correct horse");
    expect(problem).toBe("kind");
    expect(message).toContain("ssh-keygen -p -f FILE");
  },
);

test("files that are something else are told apart", () => {
  expect(problemOf(keys[0]!.public)[1]).toContain("public half");
  expect(problemOf("PuTTY-User-Key-File-3: ssh-ed25519\n")).toMatchObject(["kind", /PuTTYgen/]);
  expect(problemOf("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----")[0]).toBe("kind");
  expect(problemOf("hello")).toEqual(["broken", "this file is no private key"]);
  expect(problemOf(new Uint8Array(1 << 20))[0]).toBe("broken");
  expect(problemOf(new Uint8Array(0))[0]).toBe("broken");
});

test("a damaged file is refused, wherever the damage is", () => {
  const dice = new Dice(5);
  for (const { file, passphrase, name } of keys) {
    if (name.includes("aes")) continue; // each try would take its rounds
    const lines = file.split("\n");
    for (let round = 0; round < 30; round++) {
      const at = 1 + Math.floor(dice.roll() * (lines.length - 3));
      const column = Math.floor(dice.roll() * lines[at]!.length);
      const line = `${lines[at]!.slice(0, column)}${dice.roll() < 0.5 ? "A" : ""}${lines[at]!.slice(column + 1)}`;
      const damaged = [...lines.slice(0, at), line, ...lines.slice(at + 1)].join("\n");
      try {
        readKeyFile(toUtf8(damaged), { passphrase, primitives: portable }); // what is not looked at may be damaged
      } catch (problem) {
        expect(problem, name).toBeInstanceOf(KeyFileError);
      }
    }
    const body = lines.slice(1, -2).join("");
    const cut = [lines[0], body.slice(0, 4 * Math.floor(body.length / 8)), lines.at(-2)].join("\n");
    expect(problemOf(cut)[0], name).toBe("broken");
  }
});

test("an RSA key that is damaged inside signs nothing", async () => {
  const { file } = keys.find(({ name }) => name === "rsa-pem")!;
  const lines = file.trimEnd().split("\n");
  // In its last line is the inverse of one half, which only signing looks at.
  const damaged = [...lines.slice(0, -3), lines.at(-3)!.replace(/^.{4}/, "AAAA"), ...lines.slice(-2)].join(
    "\n",
  );
  const signer = readKeyFile(toUtf8(damaged), { primitives: portable });
  await expect(async () => signer.sign("rsa-sha2-256", MESSAGE)).rejects.toThrow(/damaged/);
});

test.each(vectors.bcrypt as { rounds: number; passphrase: string; salt: string; key: string }[])(
  "bcrypt_pbkdf with $rounds rounds",
  ({ rounds, passphrase, salt, key }) => {
    const got = bcryptKey(toUtf8(passphrase), fromHex(salt), rounds, key.length / 2);
    expect(toHex(got)).toBe(key);
  },
);

test("a passphrase that would take minutes is not begun", () => {
  const { file } = keys.find(({ name }) => name === "ed25519-aes256-ctr")!;
  const body = file.split("\n").slice(1, -2).join("");
  const data = Uint8Array.from(atob(body), (character) => character.charCodeAt(0));
  // The number of rounds, and behind it that of the keys.
  const place = data.findIndex((_, at) => /^000000(10|18)00000001/.test(toHex(data.subarray(at, at + 8))));
  expect(place).toBeGreaterThan(0);
  data.set([0x7f, 0xff, 0xff, 0xff], place);
  const text = `-----BEGIN OPENSSH PRIVATE KEY-----\n${toBase64(data)}\n-----END OPENSSH PRIVATE KEY-----`;
  expect(problemOf(text, "correct horse")).toMatchObject(["kind", /rounds/]);
});
