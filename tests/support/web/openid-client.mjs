// A relying party by openid-client.
import * as client from "openid-client";
import { serve, shiftClock } from "./lines.mjs";

const METHODS = {
  client_secret_basic: (said) => client.ClientSecretBasic(said.secret),
  client_secret_post: (said) => client.ClientSecretPost(said.secret),
  none: () => client.None(),
};
let config, back, checks, claims, device, proofs;
let tokens = {};

async function authentication(said) {
  if (said.method !== "private_key_jwt") return METHODS[said.method ?? "client_secret_basic"](said);
  const key = await crypto.subtle.importKey("jwk", said.key, { name: "ECDSA", namedCurve: "P-256" }, false, ["sign"]);
  return client.PrivateKeyJwt({ key, kid: said.key.kid });
}

function keep(response) {
  tokens = { ...tokens, ...response };
  claims = response.claims() ?? claims;
  return { claims, scope: response.scope, expires_in: response.expires_in, token_type: response.token_type, refresh: Boolean(response.refresh_token) };
}

/** Bind what comes next to a key that was just made (RFC 9449). */
async function newKey() {
  proofs = { DPoP: client.getDPoPHandle(config, await client.randomDPoPKeyPair("ES256")) };
}

await serve({
  async discover(said) {
    if (said.skew) shiftClock(said.skew);
    back = said.redirect_uri;
    const how = await authentication(said);
    config = await client.discovery(new URL(said.issuer), said.client_id, { id_token_signed_response_alg: said.algorithm }, how);
    client.enableNonRepudiationChecks(config); // the signature of the ID token, too
    if (said.dpop) await newKey();
    return config.serverMetadata();
  },
  async register(said) {
    back = said.redirect_uri;
    const wanted = { redirect_uris: [back], client_name: "by itself", token_endpoint_auth_method: "none" };
    config = await client.dynamicClientRegistration(new URL(said.issuer), wanted, client.None());
    client.enableNonRepudiationChecks(config);
    return config.clientMetadata();
  },
  async start(said) {
    const verifier = client.randomPKCECodeVerifier();
    checks = { pkceCodeVerifier: verifier, expectedState: client.randomState(), expectedNonce: client.randomNonce() };
    const { pushed, ...more } = said;
    const asked = {
      redirect_uri: back,
      scope: "openid profile email offline_access",
      state: checks.expectedState,
      nonce: checks.expectedNonce,
      code_challenge: await client.calculatePKCECodeChallenge(verifier),
      code_challenge_method: "S256",
      ...more,
    };
    const build = pushed ? client.buildAuthorizationUrlWithPAR : client.buildAuthorizationUrl;
    return (await build(config, asked)).href;
  },
  async finish(said) {
    const given = { ...checks, ...(said.verifier ? { pkceCodeVerifier: said.verifier } : {}) };
    return keep(await client.authorizationCodeGrant(config, new URL(said.url), given, undefined, proofs));
  },
  newKey,
  userinfo: (said) => client.fetchUserInfo(config, tokens.access_token, claims.sub, said.bearer ? undefined : proofs),
  async refresh(said) {
    const before = tokens.refresh_token;
    const found = keep(await client.refreshTokenGrant(config, said.token ?? before, said.parameters, proofs));
    return { ...found, before, after: tokens.refresh_token };
  },
  introspect: (said) => client.tokenIntrospection(config, said.token ?? tokens.access_token),
  async revoke(said) {
    await client.tokenRevocation(config, said.token ?? tokens[said.which ?? "refresh_token"]);
  },
  async own(said) {
    tokens = await client.clientCredentialsGrant(config, said.parameters);
    return { expires_in: tokens.expires_in, access: tokens.access_token };
  },
  async device() {
    device = await client.initiateDeviceAuthorization(config, { scope: "openid profile offline_access" });
    return { user_code: device.user_code, link: device.verification_uri_complete, interval: device.interval };
  },
  async poll() {
    return keep(await client.pollDeviceAuthorizationGrant(config, device));
  },
  later: (said) => shiftClock(said.seconds),
  leave: (said) => client.buildEndSessionUrl(config, { ...said, id_token_hint: tokens.id_token }).href,
  signed: () => JSON.parse(Buffer.from(tokens.id_token.split(".")[0], "base64url")),
  access: () => tokens.access_token,
});
