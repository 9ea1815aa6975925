import { createHash, generateKeyPairSync, sign as nodeSign } from "node:crypto";
import { ed25519 } from "@noble/curves/ed25519.js";
import { describe, expect, test } from "vitest";
import { ascii, concat, equal, fromHex } from "../../src/protocol/bytes.ts";
import type { Channel } from "../../src/protocol/ssh/channel.ts";
import { WINDOW } from "../../src/protocol/ssh/channel.ts";
import { SshClient } from "../../src/protocol/ssh/client.ts";
import { SshError, type SshFailure } from "../../src/protocol/ssh/errors.ts";
import { fingerprint, verify } from "../../src/protocol/ssh/hostkeys.ts";
import { portable } from "../../src/protocol/ssh/portable.ts";
import { Fields, fields, MESSAGE, mpint } from "../../src/protocol/ssh/wire.ts";
import { Dice } from "../support/deterministic.ts";
import { pipe, type ServerOptions, TestServer } from "../support/sshserver.ts";

const random = (size: number) => crypto.getRandomValues(new Uint8Array(size));

interface Meeting {
  readonly server: TestServer;
  readonly connecting: Promise<SshClient>;
  readonly banners: string[];
  readonly close: () => void;
}

function meet(
  options: ServerOptions = {},
  more: Partial<Parameters<typeof SshClient.connect>[0]> = {},
): Meeting {
  const [here, there] = pipe();
  const server = new TestServer(there, options);
  const banners: string[] = [];
  const connecting = SshClient.connect({
    stream: here,
    primitives: portable,
    entropy: random,
    accept: (key) => equal(key, server.blob),
    user: "ann",
    banner: (text) => banners.push(text),
    ...more,
  });
  connecting.catch(() => undefined);
  return { server, connecting, banners, close: () => here.close() };
}

async function signedIn(
  options: ServerOptions = {},
): Promise<Meeting & { client: SshClient; ended: Promise<unknown> }> {
  const meeting = meet(options);
  await meeting.server.start();
  await meeting.server.letIn();
  const client = await meeting.connecting;
  return { ...meeting, client, ended: client.run() };
}

async function withSession(window?: number, maximum?: number) {
  const all = await signedIn();
  const opening = all.client.session();
  const number = await all.server.confirm(window, maximum);
  return { ...all, channel: await opening, number };
}

async function failure(what: Promise<unknown>): Promise<SshFailure | string> {
  try {
    await what;
    return "none";
  } catch (problem) {
    return problem instanceof SshError ? problem.failure : `${problem}`;
  }
}

async function everything(channel: Channel): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for (let part = await channel.read(); part !== undefined; part = await channel.read()) parts.push(part);
  return concat(...parts);
}

describe("keys", () => {
  const exchanges = ["curve25519-sha256", "curve25519-sha256@libssh.org", "mlkem768x25519-sha256"];
  const ciphers = ["chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com", "aes256-gcm@openssh.com"];
  const both = exchanges.flatMap((exchange) =>
    ciphers.flatMap((cipher) => [true, false].map((strict) => ({ exchange, cipher, strict }))),
  );

  test.each(both)("$exchange with $cipher, strict: $strict, renewed by either side", async (options) => {
    const { server, client } = await signedIn(options);
    await client.rekey();
    await server.exchange(await server.receive());
    await server.rekey();
    await server.exchange(await server.receive());
    const opening = client.session();
    const number = await server.confirm();
    await server.send(fields(MESSAGE.channelData, { u32: number }, "after three sets of keys"));
    await server.send(fields(MESSAGE.channelEof, { u32: number }));
    expect(await everything(await opening)).toEqual(ascii("after three sets of keys"));
  });

  test("what is sent while keys change waits for them", async () => {
    const { server, channel, client } = await withSession();
    const asking = client.rekey();
    const writing = channel.write(ascii("meanwhile"));
    await asking;
    await server.exchange(await server.receive());
    expect((await server.receive())[0]).toBe(MESSAGE.channelData);
    await writing;
  });

  test("a host that does not have the key it shows", async () => {
    const { server, connecting } = meet({ impostor: true });
    server.start().catch(() => undefined);
    expect(await failure(connecting)).toBe("signature");
  });

  test("a host whose key is another than the one expected, before anything is said to it", async () => {
    const { server, connecting } = meet({}, { accept: () => false });
    const started = server.start();
    expect(await failure(connecting)).toBe("host-key");
    started.catch(() => undefined);
  });

  test("nothing in common names what the host has", async () => {
    const { server, connecting } = meet({ exchange: "diffie-hellman-group1-sha1" });
    server.start().catch(() => undefined);
    await expect(connecting).rejects.toThrow(/diffie-hellman-group1-sha1/);
  });

  test("kinds of host keys that are not known of the host are not offered", async () => {
    const { server, connecting } = meet({}, { knownKinds: ["ssh-rsa"] });
    server.start().catch(() => undefined);
    expect(await failure(connecting)).toBe("no-common");
  });

  test.each([
    ["a message before the answer", [fields(MESSAGE.ignore, "x")]],
    ["a message of signing in before any keys", [fields(MESSAGE.authSuccess)]],
  ])("%s is refused", async (_, before) => {
    const { server, connecting } = meet({ before });
    server.start().catch(() => undefined);
    expect(await failure(connecting)).toBe("protocol");
  });

  test.each(["SSH-1.5-old", "HTTP/1.1 400 Bad Request", "x".repeat(300)])(
    "a server that says %s",
    async (greeting) => {
      const { server, connecting, close } = meet({ greeting });
      server.start().catch(() => undefined);
      await server.raw(ascii("\n".repeat(60)));
      expect(await failure(connecting)).toBe("protocol");
      close();
    },
  );

  test.each(ciphers)("a packet of %s that was changed ends the connection", async (cipher) => {
    const { server, ended, client } = await signedIn({ cipher });
    const opening = client.session();
    await server.receive();
    await server.raw(random(64));
    expect(await failure(opening)).not.toBe("none");
    expect(await ended).toBeDefined();
  });
});

describe("signing in", () => {
  test("banners are shown, and the name of who signs in is sent", async () => {
    const { server, connecting, banners } = meet();
    await server.start();
    await server.receive();
    await server.send(fields(MESSAGE.serviceAccept, "ssh-userauth"));
    const request = new Fields(await server.receive(), 1);
    expect([request.text(), request.text(), request.text()]).toEqual(["ann", "ssh-connection", "none"]);
    await server.send(fields(MESSAGE.authBanner, "open https://door/check/1\n", ""));
    await server.send(fields(MESSAGE.authSuccess));
    await connecting;
    expect(banners).toEqual(["open https://door/check/1\n"]);
  });

  test("a key signs for this connection and no other", async () => {
    const secret = new Uint8Array(32).fill(9);
    const blob = fields("ssh-ed25519", ed25519.getPublicKey(secret));
    let signed: Uint8Array | undefined;
    const { server, connecting } = meet(
      {},
      {
        signers: [
          {
            algorithms: ["ssh-ed25519"],
            blob,
            sign: (_, message) => {
              signed = message;
              return fields("ssh-ed25519", ed25519.sign(message, secret));
            },
          },
        ],
      },
    );
    await server.start();
    await server.receive();
    await server.send(fields(MESSAGE.serviceAccept, "ssh-userauth"));
    await server.receive();
    await server.send(fields(MESSAGE.authFailure, "publickey", false));
    const request = await server.receive();
    const reader = new Fields(request, 1);
    const texts = [reader.text(), reader.text(), reader.text(), reader.boolean(), reader.text()];
    expect(texts).toEqual(["ann", "ssh-connection", "publickey", true, "ssh-ed25519"]);
    expect(reader.string()).toEqual(blob);
    expect(await verify("ssh-ed25519", blob, reader.string(), signed!, portable)).toBe(true);
    expect(new Fields(signed!).string().length).toBe(32);
    await server.send(fields(MESSAGE.authSuccess));
    await connecting;
  });

  test("questions are asked, and answered in their order", async () => {
    const asked: unknown[] = [];
    const { server, connecting } = meet(
      {},
      {
        ask: async (title, text, questions) => {
          asked.push(title, text, ...questions);
          return ["secret", "123456"];
        },
      },
    );
    await server.start();
    await server.receive();
    await server.send(fields(MESSAGE.serviceAccept, "ssh-userauth"));
    await server.receive();
    await server.send(fields(MESSAGE.authFailure, "keyboard-interactive,password", false));
    await server.receive();
    await server.send(
      fields(MESSAGE.authInfoRequest, "Login", "please", "", { u32: 2 }, "Password: ", false, "Code: ", true),
    );
    const answer = new Fields(await server.receive(), 1);
    expect([answer.u32(), answer.text(), answer.text()]).toEqual([2, "secret", "123456"]);
    await server.send(fields(MESSAGE.authSuccess));
    await connecting;
    expect(asked).toEqual([
      "Login",
      "please",
      { text: "Password: ", echo: false },
      { text: "Code: ", echo: true },
    ]);
  });

  test("a refusal names the ways that there are", async () => {
    const { server, connecting } = meet();
    await server.start();
    await server.receive();
    await server.send(fields(MESSAGE.serviceAccept, "ssh-userauth"));
    await server.receive();
    await server.send(fields(MESSAGE.authFailure, "publickey,hostbased", false));
    await expect(connecting).rejects.toThrow(/ann.*publickey, hostbased/);
  });

  test("a server that ends the connection says why", async () => {
    const { server, connecting } = meet();
    await server.start();
    await server.send(fields(MESSAGE.disconnect, { u32: 2 }, "Too many authentication failures", ""));
    await expect(connecting).rejects.toThrow("Too many authentication failures");
  });
});

describe("sessions", () => {
  test("a status, a signal, and nothing at all", async () => {
    const { server, client } = await signedIn();
    const ends = [
      [fields("exit-status", false, { u32: 3 }), { status: 3 }],
      [fields("exit-signal", false, "KILL", false, "killed", ""), { signal: "KILL", message: "killed" }],
      [undefined, {}],
    ] as const;
    for (const [said, expected] of ends) {
      const opening = client.session();
      const number = await server.confirm();
      const channel = await opening;
      if (said !== undefined)
        await server.send(fields(MESSAGE.channelRequest, { u32: number }, { raw: said }));
      await server.send(fields(MESSAGE.channelClose, { u32: number }));
      expect((await server.receive())[0]).toBe(MESSAGE.channelClose);
      expect(await channel.ended()).toEqual(expected);
      expect(await channel.read()).toBeUndefined();
    }
  });

  test("writing keeps to the window and to the size of packets", async () => {
    const { server, channel } = await withSession(100, 40);
    const writing = channel.write(random(150));
    const sizes: number[] = [];
    const next = async () => new Fields(await server.receive(), 5).string().length;
    for (let count = 0; count < 3; count++) sizes.push(await next());
    expect(sizes).toEqual([40, 40, 20]);
    await server.send(fields(MESSAGE.channelWindowAdjust, { u32: 0 }, { u32: 1000 }));
    sizes.push(await next(), await next());
    expect(sizes).toEqual([40, 40, 20, 40, 10]);
    await writing;
  });

  test("the server is given room as what it sent is read, and not before", async () => {
    const { server, channel, number } = await withSession();
    const block = new Uint8Array(32_768);
    for (let sent = 0; sent < WINDOW; sent += block.length) {
      await server.send(fields(MESSAGE.channelData, { u32: number }, block));
    }
    let adjusted = false;
    const adjust = server.receive().then((payload) => {
      adjusted = true;
      return new Fields(payload, 5).u32();
    });
    await new Promise((wait) => setTimeout(wait, 20));
    expect(adjusted).toBe(false);
    for (let read = 0; read < WINDOW / 4; ) read += (await channel.read())!.length;
    expect(await adjust).toBeGreaterThanOrEqual(WINDOW / 4);
  });

  test("a server that sends more than it may is cut off", async () => {
    const { server, ended, number } = await withSession();
    const block = new Uint8Array(200_000);
    for (let sent = 0; sent <= WINDOW; sent += block.length) {
      await server.send(fields(MESSAGE.channelData, { u32: number }, block));
    }
    expect(await failure(ended.then((why) => Promise.reject(why)))).toBe("protocol");
  });

  test("what is refused is said so", async () => {
    const { server, channel } = await withSession();
    const asking = channel.subsystem("sftp");
    await server.receive();
    await server.send(fields(MESSAGE.channelFailure, { u32: 0 }));
    await expect(asking).rejects.toThrow("the server refuses the subsystem sftp");
    const { server: other, client } = await signedIn();
    const opening = client.session();
    await other.receive();
    await other.send(fields(MESSAGE.channelOpenFailure, { u32: 0 }, { u32: 1 }, "no more sessions", ""));
    await expect(opening).rejects.toThrow("no more sessions");
  });

  test("nothing that the server opens towards us is accepted", async () => {
    const { server } = await signedIn();
    await server.send(
      fields(MESSAGE.channelOpen, "auth-agent@openssh.com", { u32: 5 }, { u32: 1 }, { u32: 1 }),
    );
    expect((await server.receive())[0]).toBe(MESSAGE.channelOpenFailure);
    await server.send(fields(MESSAGE.globalRequest, "hostkeys-00@openssh.com", true));
    expect((await server.receive())[0]).toBe(MESSAGE.requestFailure);
  });

  test("a ping is answered with yes, with no, or by the end", async () => {
    const { server, client, close } = await signedIn();
    for (const answer of [MESSAGE.requestSuccess, MESSAGE.requestFailure]) {
      const ping = client.ping();
      await server.receive();
      await server.send(fields(answer));
      expect(await ping).toBe(true);
    }
    const ping = client.ping();
    close();
    expect(await ping).toBe(false);
  });

  test("a connection that is lost rejects what waits", async () => {
    const { channel, close, ended } = await withSession();
    const reading = channel.read();
    close();
    expect(await failure(reading)).toBe("lost");
    expect(await failure(channel.ended())).toBe("lost");
    expect(await ended).toBeInstanceOf(SshError);
  });

  test("any message that a server may send is handled or ends the connection, never worse", async () => {
    const dice = new Dice(31);
    for (let round = 0; round < 60; round++) {
      const { server, number, close, ended, channel } = await withSession();
      channel.read().catch(() => undefined);
      for (let count = 0; count < 5; count++) {
        const kind = Math.floor(dice.roll() * 101);
        const body = dice.bytes(Math.floor(dice.roll() * 40));
        const message =
          dice.roll() < 0.6 ? fields(kind, { u32: number }, { raw: body }) : fields(kind, { raw: body });
        if (kind !== MESSAGE.kexInit) await server.send(message).catch(() => undefined);
      }
      setTimeout(close, 1);
      const why = await ended;
      if (why !== undefined) expect(why).toBeInstanceOf(Error);
      if (why !== undefined && !(why instanceof SshError)) expect(`${why}`).toMatch(/ProtocolError|closed/);
    }
  });
});

describe("signatures of hosts", () => {
  const message = ascii("what was agreed upon");

  test.each([
    ["P-256", "nistp256", "sha256", 32],
    ["P-384", "nistp384", "sha384", 48],
    ["P-521", "nistp521", "sha512", 66],
  ] as const)("ECDSA on %s, made by somebody else", async (namedCurve, name, hash, size) => {
    const pair = generateKeyPairSync("ec", { namedCurve });
    const jwk = pair.publicKey.export({ format: "jwk" });
    const point = concat(
      new Uint8Array([4]),
      Buffer.from(jwk.x!, "base64url"),
      Buffer.from(jwk.y!, "base64url"),
    );
    const blob = fields(`ecdsa-sha2-${name}`, name, point);
    const raw = nodeSign(hash, message, { key: pair.privateKey, dsaEncoding: "ieee-p1363" });
    const rs = concat(mpint(raw.subarray(0, size)), mpint(raw.subarray(size)));
    const signature = fields(`ecdsa-sha2-${name}`, rs);
    expect(await verify(`ecdsa-sha2-${name}`, blob, signature, message, portable)).toBe(true);
    expect(await verify(`ecdsa-sha2-${name}`, blob, signature, ascii("something else"), portable)).toBe(
      false,
    );
    expect(await verify("ssh-ed25519", blob, signature, message, portable)).toBe(false);
  });

  test.each([
    ["rsa-sha2-256", "sha256"],
    ["rsa-sha2-512", "sha512"],
  ])("%s, made by somebody else", async (algorithm, hash) => {
    const pair = generateKeyPairSync("rsa", { modulusLength: 2048 });
    const jwk = pair.publicKey.export({ format: "jwk" });
    const [n, e] = [Buffer.from(jwk.n!, "base64url"), Buffer.from(jwk.e!, "base64url")];
    const blob = concat(fields("ssh-rsa"), mpint(e), mpint(n));
    const raw = nodeSign(hash, message, pair.privateKey);
    expect(await verify(algorithm, blob, fields(algorithm, raw), message, portable)).toBe(true);
    expect(await verify(algorithm, blob, fields(algorithm, raw), ascii("else"), portable)).toBe(false);
    expect(await verify(algorithm, blob, fields("ssh-rsa", raw), message, portable)).toBe(false);
    const changed = raw.slice();
    changed[100]! ^= 1;
    expect(await verify(algorithm, blob, fields(algorithm, changed), message, portable)).toBe(false);
  });

  test("a short RSA key is refused", async () => {
    const blob = concat(
      fields("ssh-rsa"),
      mpint(new Uint8Array([1, 0, 1])),
      mpint(new Uint8Array(128).fill(0xff)),
    );
    await expect(
      verify("rsa-sha2-256", blob, fields("rsa-sha2-256", random(128)), message, portable),
    ).rejects.toThrow(/1024/);
  });

  test("a fingerprint is the one that ssh shows", () => {
    const blob = fields("ssh-ed25519", fromHex("00".repeat(32)));
    const digest = createHash("sha256").update(blob).digest("base64").replace(/=+$/, "");
    expect(fingerprint(blob)).toBe(`SHA256:${digest}`);
  });
});
