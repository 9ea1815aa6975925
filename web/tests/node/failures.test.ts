import { expect, it } from "vitest";
import { told } from "../../src/node/failures.ts";
import { SshError } from "../../src/protocol/ssh/errors.ts";

const lost = new SshError("lost", "the host closed the connection");

it("a host that hangs up after it has said why is not lost", () => {
  const said = ['tailscale: failed to look up local user "nobody"\n'];
  expect(told(lost, "web-1", "nobody", said)).toMatchObject({ kind: "no-account", detail: said[0] });
});

it("what a host greets with is no reason", () => {
  expect(told(lost, "web-1", "root", ["Unauthorized: access denied.\n"]).kind).toBe("lost");
  expect(told(lost, "web-1", "root", []).kind).toBe("lost");
});
