/**
 * A tab's protocols against a real node, from Node.js: prints one line of JSON.
 *
 *     node session.ts FILE    FILE: {"url", "private", "peer", "local", "remote", "keys", "user", "loss", "folder"}
 */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { fromBase64, toBase64 } from "../../src/protocol/base64.ts";
import { concat, fromHex } from "../../src/protocol/bytes.ts";
import { parseAddress } from "../../src/protocol/ip.ts";
import { SshClient } from "../../src/protocol/ssh/client.ts";
import { keyKind } from "../../src/protocol/ssh/hostkeys.ts";
import { portable } from "../../src/protocol/ssh/portable.ts";
import { Sftp } from "../../src/protocol/ssh/sftp.ts";
import { Dice } from "../support/deterministic.ts";
import { random, Wire } from "../support/shell.ts";

const asked = JSON.parse(readFileSync(process.argv[2]!, "utf8"));
const keys: string[] = asked.keys;

async function connected(cipher?: string, kind?: string): Promise<{ client: SshClient; banners: string[] }> {
  const stream = await wire.connect(22);
  const banners: string[] = [];
  const client = await SshClient.connect({
    stream,
    primitives: portable,
    entropy: random,
    accept: (key) => keys.includes(toBase64(key)),
    knownKinds: kind === undefined ? keys.map((key) => keyKind(fromBase64(key))) : [kind],
    user: asked.user,
    banner: (text) => banners.push(text),
    ciphers: cipher === undefined ? undefined : [cipher],
  });
  void client.run();
  return { client, banners };
}

/** What a command prints, and how it ends. */
async function output(client: SshClient, command: string, pty = false): Promise<[string, unknown]> {
  const channel = await client.session();
  if (pty) await channel.pty({ term: "xterm-256color", columns: 101, rows: 37 });
  await channel.exec(command);
  const parts: Uint8Array[] = [];
  for (let part = await channel.read(); part !== undefined; part = await channel.read()) parts.push(part);
  return [new TextDecoder().decode(concat(...parts)), await channel.ended()];
}

const wire = await Wire.open(asked.url, {
  privateKey: fromHex(asked.private),
  peer: fromHex(asked.peer),
  local: parseAddress(asked.local),
  remote: parseAddress(asked.remote),
});
const dice = new Dice(1);
wire.lose = () => dice.roll() < asked.loss;

const { client } = await connected();
const said: Record<string, unknown> = { server: client.serverVersion };
said.status = await output(client, "echo out; echo err >&2; exit 3");
said.size = await output(client, "stty size", true);
said.term = await output(client, "echo $TERM", true);

const ways: Record<string, string> = {};
for (const cipher of ["chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com", "aes256-gcm@openssh.com"]) {
  const { client: other } = await connected(cipher);
  await other.rekey();
  ways[cipher] = (await output(other, "echo $((6*7))"))[0];
  await other.disconnect();
}
for (const kind of new Set(keys.map((key) => keyKind(fromBase64(key))))) {
  const { client: other } = await connected(undefined, kind);
  ways[kind] = (await output(other, "echo $((6*7))"))[0];
  await other.disconnect();
}
said.ways = ways;

const content = new Dice(2).bytes(asked.loss > 0 ? 300_000 : 3_000_000);
const sftp = await Sftp.start(await client.session());
const path = `${asked.folder}/from-a-tab`;
await sftp.write(path, [content]);
const hash = createHash("sha256");
for await (const piece of sftp.read(path)) hash.update(piece);
said.same = hash.digest("hex") === createHash("sha256").update(content).digest("hex");
said.entry = (await sftp.list(asked.folder)).find(({ name }) => name === "from-a-tab")?.size;
await sftp.remove(path);

try {
  await SshClient.connect({
    stream: await wire.connect(22),
    primitives: portable,
    entropy: random,
    accept: () => false,
    user: asked.user,
    banner: () => undefined,
  });
} catch (problem) {
  said.stranger = (problem as { failure?: string }).failure;
}
said.refused = wire.link.tunnel.refused;
console.log(JSON.stringify(said));
process.exit(0);
