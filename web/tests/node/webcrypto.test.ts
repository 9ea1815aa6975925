import { createPrivateKey, generateKeyPairSync, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import { p256, p384, p521 } from "@noble/curves/nist.js";
import { expect, test, vi } from "vitest";
import { ciphers, primitives, WORTH_IT } from "../../src/node/webcrypto.ts";
import { ascii, concat } from "../../src/protocol/bytes.ts";
import { cipherNames } from "../../src/protocol/ssh/kex.ts";
import { portable } from "../../src/protocol/ssh/portable.ts";
import { Dice } from "../support/deterministic.ts";

const subtle = crypto.subtle as SubtleCrypto;
const ours = primitives(subtle);
const dice = new Dice(8);
const MESSAGE = ascii("a message");

const bytes = (text: string | undefined) => new Uint8Array(Buffer.from(text!, "base64url"));

/** One that knows nothing: what an older browser is for a curve. */
const ignorant = {
  importKey: () => Promise.reject(new Error("NotSupportedError")),
} as unknown as SubtleCrypto;

test.each([16, 32])(
  "AES-GCM with %i bytes of key is the same for every size, whoever does it",
  async (size) => {
    const key = dice.bytes(size);
    const [one, other] = [await ours.aesGcm(key), await portable.aesGcm(key)];
    for (const length of [
      0,
      1,
      28,
      WORTH_IT - 17,
      WORTH_IT - 16,
      WORTH_IT - 1,
      WORTH_IT,
      WORTH_IT + 1,
      32_800,
    ]) {
      const [nonce, text, extra] = [dice.bytes(12), dice.bytes(length), dice.bytes(4)];
      const sealed = await one.seal(nonce, text, extra);
      expect(sealed).toEqual(await other.seal(nonce, text, extra));
      expect(await one.open(nonce, sealed, extra)).toEqual(text);
      for (const wrong of [
        [dice.bytes(12), sealed, extra],
        [nonce, sealed, dice.bytes(4)],
        [nonce, concat(sealed.subarray(0, -1), new Uint8Array([sealed.at(-1)! ^ 1])), extra],
      ] as const)
        await expect((async () => one.open(...wrong))()).rejects.toThrow();
    }
  },
);

test("small packets are not sent to another thread and back", async () => {
  const encrypt = vi.spyOn(subtle, "encrypt");
  const aead = await ours.aesGcm(dice.bytes(16));
  expect(aead.seal(dice.bytes(12), new Uint8Array(60), new Uint8Array(4))).toBeInstanceOf(Uint8Array);
  expect(encrypt).not.toHaveBeenCalled();
  await aead.seal(dice.bytes(12), new Uint8Array(WORTH_IT), new Uint8Array(4));
  expect(encrypt).toHaveBeenCalledOnce();
  encrypt.mockRestore();
});

test.each([
  ["P-256", p256],
  ["P-384", p384],
  ["P-521", p521],
] as const)("signatures on %s are judged alike, with a browser's help and without", async (name, curve) => {
  const key = curve.utils.randomSecretKey();
  const point = curve.getPublicKey(key, false);
  const signature = curve.sign(MESSAGE, key, { lowS: false });
  for (const judge of [ours, primitives(undefined), primitives(ignorant)]) {
    expect(await judge.verifyEcdsa(name, point, signature, MESSAGE)).toBe(true);
    expect(await judge.verifyEcdsa(name, point, signature, ascii("another"))).toBe(false);
    expect(await judge.verifyEcdsa(name, point.slice(0, 9), signature, MESSAGE)).toBe(false);
    expect(await judge.verifyEcdsa(name, point, signature.slice(1), MESSAGE)).toBe(false);
  }
});

test("signatures by RSA are made and judged alike", async () => {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const jwk = privateKey.export({ format: "jwk" });
  const key = {
    modulus: bytes(jwk.n),
    exponent: bytes(jwk.e),
    secret: bytes(jwk.d),
    p: bytes(jwk.p),
    q: bytes(jwk.q),
    inverse: bytes(jwk.qi),
  };
  for (const hash of ["SHA-256", "SHA-512"] as const) {
    const signature = await ours.signRsa(hash, key, MESSAGE);
    expect(signature).toEqual(await portable.signRsa(hash, key, MESSAGE));
    expect(await primitives(ignorant).signRsa(hash, key, MESSAGE)).toEqual(signature);
    for (const judge of [ours, primitives(undefined), primitives(ignorant)]) {
      expect(await judge.verifyRsa(hash, key, signature, MESSAGE)).toBe(true);
      expect(await judge.verifyRsa(hash, key, signature, ascii("another"))).toBe(false);
      expect(await judge.verifyRsa(hash, key, signature.slice(1), MESSAGE)).toBe(false);
      expect(await judge.verifyRsa(hash, key, concat(new Uint8Array(1), signature), MESSAGE)).toBe(false);
    }
  }
});

test("a signature that begins with zeros may come without them", async () => {
  const vectors = readFileSync(new URL("../../../tests/vectors/keyfiles.json", import.meta.url), "utf8");
  const { file } = JSON.parse(vectors).keys.find(({ name }: { name: string }) => name === "rsa-pem");
  const privateKey = createPrivateKey(file);
  const message = ascii("message 125");
  const signature = new Uint8Array(sign("sha256", message, privateKey));
  expect(signature[0]).toBe(0);
  const { n, e } = privateKey.export({ format: "jwk" });
  const key = { modulus: bytes(n), exponent: bytes(e) };
  for (const judge of [ours, portable])
    expect(await judge.verifyRsa("SHA-256", key, signature.subarray(1), message)).toBe(true);
});

test("with a browser's help AES comes first, and nothing that is known is left out", () => {
  expect([...ciphers(subtle)!].sort()).toEqual(cipherNames().sort());
  expect(ciphers(subtle)![0]).toContain("aes");
  expect(ciphers(undefined)).toBeUndefined();
});
