import { expect, test } from "vitest";
import type { FileEntry } from "../../src/node/client.ts";
import { Folder } from "../../src/terminal/files.tsx";
import type { Session } from "../../src/terminal/session.ts";

function folder(entries: readonly Partial<FileEntry>[]): Folder {
  const files = { home: async () => "/home/ann", list: async () => [...entries] };
  return new Folder({ files: () => files } as unknown as Session);
}

test("folders stand before files, both by name", async () => {
  const shown = folder([
    { name: "b", folder: false },
    { name: "a", folder: false },
    { name: "z", folder: true },
  ]);
  await shown.go();
  expect(shown.path.value).toBe("/home/ann");
  expect(shown.entries.value?.map(({ name }) => name)).toEqual(["z", "a", "b"]);
  expect(shown.more.value).toBe(0);
});

test("of a host's hundred thousand files so many are drawn as somebody looks through", async () => {
  const many = Array.from({ length: 100_000 }, (_, at) => ({ name: `file ${at}`, folder: at === 99_999 }));
  const shown = folder(many);
  await shown.go("/many");
  expect(shown.entries.value?.length).toBeLessThanOrEqual(2_000);
  expect(shown.entries.value?.[0]?.name).toBe("file 99999"); // a folder is not lost among files
  expect(shown.entries.value!.length + shown.more.value).toBe(100_000);
});
