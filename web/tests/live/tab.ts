/**
 * A tab's protocols as a program that does what it is told, one line of JSON at a time, and answers each with one.
 *
 *     {"do": "dial", "url", "private", "peer", "local", "remote"}   the relay, and a tunnel to the peer
 *     {"do": "ssh", "user", "keys"}                                  a shell that repeats what it hears; its process id
 *     {"do": "say", "text", "within"}                                what comes back of it, within so many seconds
 *     {"do": "reach", "port", "within"}                              whether a port of the peer answers
 *     {"do": "cut", "code"}                                          the relay's connection ends
 *     {"do": "redial", "url"}                                        and begins anew, with the same key
 */

import { createInterface } from "node:readline";
import { toBase64 } from "../../src/protocol/base64.ts";
import { fromHex } from "../../src/protocol/bytes.ts";
import { parseAddress } from "../../src/protocol/ip.ts";
import { SshClient } from "../../src/protocol/ssh/client.ts";
import { portable } from "../../src/protocol/ssh/portable.ts";
import { random, Wire } from "../support/shell.ts";

type Asked = Record<string, string> & { keys: string[]; port: number; within: number; code?: number };

let wire: Wire;
let heard = "";
let write: (text: string) => Promise<void> = async () => undefined;
let wake = () => {};

function within<T>(seconds: number, work: Promise<T>): Promise<T | undefined> {
  return Promise.race([work, new Promise<undefined>((late) => setTimeout(late, seconds * 1000))]);
}

/** Wait until something like this was heard, and take all up to its end. */
async function hears(pattern: RegExp): Promise<RegExpMatchArray> {
  for (;;) {
    const found = heard.match(pattern);
    if (found !== null) {
      heard = heard.slice(found.index! + found[0].length);
      return found;
    }
    await new Promise<void>((resolve) => {
      wake = resolve;
    });
  }
}

async function ssh(asked: Asked): Promise<Record<string, unknown>> {
  const client = await SshClient.connect({
    stream: await wire.connect(22),
    primitives: portable,
    entropy: random,
    accept: (key) => asked.keys.includes(toBase64(key)),
    user: asked.user!,
    banner: (text) => process.stdout.write(`${JSON.stringify({ banner: text })}\n`),
  });
  void client.run().catch(() => undefined);
  const channel = await client.session();
  // On a terminal, whose end is the end of what runs there.
  await channel.pty({ term: "dumb", columns: 80, rows: 24 });
  await channel.exec("stty -echo; echo pid $$; exec cat");
  const encoder = new TextEncoder();
  const decoder = new TextDecoder();
  write = (text) => channel.write(encoder.encode(text));
  void (async () => {
    for (let part = await channel.read(); part !== undefined; part = await channel.read()) {
      heard += decoder.decode(part, { stream: true });
      wake();
    }
  })().catch(() => undefined);
  return { pid: Number((await hears(/pid (\d+)\r?\n/))[1]) };
}

async function act(asked: Asked): Promise<Record<string, unknown>> {
  switch (asked.do) {
    case "dial":
      wire = await Wire.open(asked.url!, {
        privateKey: fromHex(asked.private!),
        peer: fromHex(asked.peer!),
        local: parseAddress(asked.local!),
        remote: parseAddress(asked.remote!),
      });
      return {};
    case "ssh":
      return ssh(asked);
    case "say": {
      await write(`${asked.text}\n`);
      const found = await within(asked.within, hears(new RegExp(`${asked.text}\r?\n`)));
      return { heard: found !== undefined, connected: wire.connected };
    }
    case "reach": {
      const opened = wire.connect(asked.port).then(
        () => "open",
        () => "refused",
      );
      return { port: (await within(asked.within, opened)) ?? "silent" };
    }
    case "cut":
      wire.cut(asked.code);
      return {};
    case "redial":
      await wire.dial(asked.url!);
      return {};
    default:
      throw new Error(`what is ${asked.do}?`);
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer: Record<string, unknown>;
  try {
    answer = { did: await act(JSON.parse(line)) };
  } catch (error) {
    answer = { failed: String((error as Error).message ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(0);
