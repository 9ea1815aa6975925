// A real OpenID provider for tests. Its configuration is one line of JSON on stdin; it says "ready" and ends with stdin.
import { webcrypto } from "node:crypto";
import { createInterface } from "node:readline";

// What newer releases of Node.js have of themselves, for the ones that Debian has.
globalThis.crypto ??= webcrypto;
URL.parse ??= (text, base) => (URL.canParse(text, base) ? new URL(text, base) : null);
const { Provider } = await import("oidc-provider");

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const told = JSON.parse((await lines.next()).value);

const provider = new Provider(told.issuer, {
  clients: told.clients,
  jwks: told.jwks,
  conformIdTokenClaims: told.claims_in_userinfo_only,
  claims: {
    openid: ["sub"],
    email: ["email", "email_verified"],
    profile: ["name", "preferred_username"],
    groups: ["groups"],
  },
  cookies: { keys: ["a key of tests"] },
  enabledJWA: { idTokenSigningAlgValues: ["RS256", "ES256", "EdDSA", "Ed25519", "PS256"] },
  features: { devInteractions: { enabled: true } },
  findAccount: async (_, id) => ({ accountId: id, claims: async () => ({ sub: id, ...told.accounts[id] }) }),
  pkce: { required: () => true },
});

provider.listen(told.port, "127.0.0.1", () => process.stdout.write("ready\n"));
await lines.next(); // the end of stdin
process.exit(0);
