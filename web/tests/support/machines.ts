/** Machines for tests of the console: one as the server describes it, with what is given changed. */

import type { Machine } from "../../src/api/types.ts";

type Given = Partial<Omit<Machine, "ways">> & { ways?: (readonly [account: string, check?: boolean])[] };

export function machine({ ways = [], ...given }: Given): Machine {
  const id = given.id ?? 1;
  return {
    id,
    name: `machine-${id}`,
    user: "tagged-devices",
    user_id: null,
    tags: [],
    addresses: [`100.64.0.${id}`, `fd7a:115c:a1e0::${id}`],
    os: "linux",
    version: "1.102.4",
    online: true,
    last_seen: null,
    expired: false,
    yours: false,
    system: false,
    ssh: "tailscale",
    any_account: false,
    any_check: false,
    why: "",
    ...given,
    ways: ways.map(([account, check = false]) => ({ account, check, rule: { name: "ssh[0]", line: 3 } })),
  };
}
