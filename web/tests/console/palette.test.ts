import { expect, it } from "vitest";
import { found, offersOf } from "../../src/console/palette.tsx";
import { machine } from "../support/machines.ts";

const offers = offersOf(
  [
    machine({ id: 1, name: "my-web", ways: [["deploy"]] }),
    machine({ id: 2, name: "web-1", ways: [["deploy"], ["root", true]], online: false }),
    machine({ id: 3, name: "shut" }),
    machine({ id: 4, name: "any", any_account: true, tags: ["tag:web"] }),
  ],
  "/tailnet/",
  () => undefined,
);
const said = (text: string) =>
  found(offers, text).map(({ group, name, account }) => [group, name, account].filter(Boolean).join(" "));

it("offers each way in with its door, and each machine to look at", () => {
  expect(said("")).toEqual([
    "Enter my-web deploy",
    "Enter web-1 deploy",
    "Enter web-1 root",
    "Go to my-web",
    "Go to web-1",
    "Go to shut",
    "Go to any",
  ]);
  const root = offers.find(({ account }) => account === "root");
  expect(root).toMatchObject({
    door: "ajar",
    note: "offline, asks for a check",
    address: "/tailnet/terminal/web-1/root",
  });
});

it("has what begins with the words first", () => {
  expect(said("web")).toEqual([
    "Enter web-1 deploy",
    "Enter web-1 root",
    "Enter my-web deploy",
    "Go to web-1",
    "Go to my-web",
    "Go to any",
  ]);
  expect(said("WEB root")).toEqual(["Enter web-1 root"]);
  expect(said("nothing")).toEqual([]);
});

it("offers a few of each kind", () => {
  const many = Array.from({ length: 50 }, (_, at) =>
    machine({ id: at, name: `web-${at}`, ways: [["deploy"]] }),
  );
  expect(
    found(
      offersOf(many, "/", () => undefined),
      "web",
    ),
  ).toHaveLength(12);
});
