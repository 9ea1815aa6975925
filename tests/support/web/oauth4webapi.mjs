// A relying party by oauth4webapi, which leaves every step to the program.
import * as oauth from "oauth4webapi";
import { serve, shiftClock } from "./lines.mjs";

let server, app, how, back, waits, claims, device, proofs;
let tokens = {};

async function authentication(said) {
  if (said.method === "none") return oauth.None();
  if (said.method === "client_secret_post") return oauth.ClientSecretPost(said.secret);
  if (said.method !== "private_key_jwt") return oauth.ClientSecretBasic(said.secret);
  const key = await crypto.subtle.importKey("jwk", said.key, { name: "ECDSA", namedCurve: "P-256" }, false, ["sign"]);
  return oauth.PrivateKeyJwt({ key, kid: said.key.kid });
}

async function keep(response, found) {
  if (found.id_token) await oauth.validateApplicationLevelSignature(server, response);
  tokens = { ...tokens, ...found };
  claims = oauth.getValidatedIdTokenClaims(found) ?? claims;
  return { claims, scope: found.scope, expires_in: found.expires_in, token_type: found.token_type, refresh: Boolean(found.refresh_token) };
}

/** Bind what comes next to a key that was just made (RFC 9449). */
async function newKey() {
  proofs = oauth.DPoP(app, await oauth.generateKeyPair("ES256"));
}

/** Ask, and once more where the issuer wants a word of its own in the proof; the library has it by then. */
async function asked(request, read) {
  try {
    return await read(await request());
  } catch (error) {
    if (!oauth.isDPoPNonceError(error)) throw error;
    return await read(await request());
  }
}

await serve({
  async discover(said) {
    if (said.skew) shiftClock(said.skew);
    back = said.redirect_uri;
    how = await authentication(said);
    app = { client_id: said.client_id, id_token_signed_response_alg: said.algorithm };
    const issuer = new URL(said.issuer);
    // RFC 8414 here; the other program of this folder reads OpenID Connect's document.
    server = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { algorithm: "oauth2" }));
    if (said.dpop) await newKey();
    return server;
  },
  async register(said) {
    back = said.redirect_uri;
    how = oauth.None();
    const issuer = new URL(said.issuer);
    server = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { algorithm: "oauth2" }));
    const wanted = { redirect_uris: [back], client_name: "by itself too", token_endpoint_auth_method: "none" };
    app = await oauth.processDynamicClientRegistrationResponse(await oauth.dynamicClientRegistrationRequest(server, wanted));
    return app;
  },
  async start({ pushed, ...more }) {
    waits = { verifier: oauth.generateRandomCodeVerifier(), state: oauth.generateRandomState(), nonce: oauth.generateRandomNonce() };
    const asked = new URLSearchParams({
      client_id: app.client_id,
      redirect_uri: back,
      response_type: "code",
      scope: "openid profile email offline_access",
      state: waits.state,
      nonce: waits.nonce,
      code_challenge: await oauth.calculatePKCECodeChallenge(waits.verifier),
      code_challenge_method: "S256",
      ...more,
    });
    const url = new URL(server.authorization_endpoint);
    url.search = asked;
    if (pushed) {
      const response = await oauth.pushedAuthorizationRequest(server, app, how, asked);
      const { request_uri } = await oauth.processPushedAuthorizationResponse(server, app, response);
      url.search = new URLSearchParams({ client_id: app.client_id, request_uri });
    }
    return url.href;
  },
  async finish(said) {
    const answer = oauth.validateAuthResponse(server, app, new URL(said.url), waits.state);
    const options = { expectedNonce: waits.nonce, requireIdToken: true };
    return asked(
      () => oauth.authorizationCodeGrantRequest(server, app, how, answer, back, said.verifier ?? waits.verifier, { DPoP: proofs }),
      async (response) => keep(response, await oauth.processAuthorizationCodeResponse(server, app, response, options)),
    );
  },
  newKey,
  userinfo: (said) =>
    asked(
      () => oauth.userInfoRequest(server, app, tokens.access_token, { DPoP: said.bearer ? undefined : proofs }),
      (response) => oauth.processUserInfoResponse(server, app, claims.sub, response),
    ),
  async refresh(said) {
    const before = tokens.refresh_token;
    const options = { additionalParameters: said.parameters, DPoP: proofs };
    const found = await asked(
      () => oauth.refreshTokenGrantRequest(server, app, how, said.token ?? before, options),
      async (response) => keep(response, await oauth.processRefreshTokenResponse(server, app, response)),
    );
    return { ...found, before, after: tokens.refresh_token };
  },
  async introspect(said) {
    const response = await oauth.introspectionRequest(server, app, how, said.token ?? tokens.access_token);
    return oauth.processIntrospectionResponse(server, app, response);
  },
  async revoke(said) {
    const token = said.token ?? tokens[said.which ?? "refresh_token"];
    await oauth.processRevocationResponse(await oauth.revocationRequest(server, app, how, token));
  },
  async own(said) {
    const response = await oauth.clientCredentialsGrantRequest(server, app, how, new URLSearchParams(said.parameters));
    tokens = await oauth.processClientCredentialsResponse(server, app, response);
    return { expires_in: tokens.expires_in, access: tokens.access_token };
  },
  async device() {
    const wanted = { scope: "openid profile offline_access" };
    const response = await oauth.deviceAuthorizationRequest(server, app, how, wanted);
    device = await oauth.processDeviceAuthorizationResponse(server, app, response);
    return { user_code: device.user_code, link: device.verification_uri_complete, interval: device.interval };
  },
  async poll() {
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, device.interval * 1000));
      const response = await oauth.deviceCodeGrantRequest(server, app, how, device.device_code);
      try {
        return await keep(response, await oauth.processDeviceCodeResponse(server, app, response));
      } catch (error) {
        if (error.error !== "authorization_pending") throw error;
      }
    }
  },
  later: (said) => shiftClock(said.seconds),
  leave(said) {
    const url = new URL(server.end_session_endpoint);
    url.search = new URLSearchParams({ ...said, id_token_hint: tokens.id_token });
    return url.href;
  },
  signed: () => JSON.parse(Buffer.from(tokens.id_token.split(".")[0], "base64url")),
  access: () => tokens.access_token,
});
