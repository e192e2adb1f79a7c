// An issuer that lies, in every way an identity token can be wrong, and one that changes its keys.
import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { startLiar } from "../support/liar.mjs";
import { startNode } from "../support/node.mjs";

let liar;
let node;

before(async () => {
  liar = await startLiar();
  await liar.addKey("k1", "RS256");
  liar.published = [liar.keys[0].jwk];
  node = await startNode();
  const done = await node.call("PATCH", "/api/collections/users", {
    token: await node.root(),
    body: { oauth2: { enabled: true, providers: [{ name: "liar", clientId: "me", clientSecret: "hush", issuer: liar.issuer }] } },
  });
  assert.equal(done.status, 200, JSON.stringify(done.body));
});

after(async () => {
  await node?.stop();
  await liar?.stop();
});

beforeEach(() => {
  liar.claims = {};
  liar.token = liar.sign;
});

/** A sign-in whose identity token holds `claims`; the nonce is right unless they say otherwise. */
async function enter(claims = {}) {
  const [offer] = (await node.call("GET", "/api/collections/users/auth-methods")).body.oauth2.providers;
  liar.claims = { nonce: new URL(offer.authURL).searchParams.get("nonce"), ...claims };
  return node.call("POST", "/api/collections/users/auth-with-oauth2", {
    body: { provider: "liar", code: "c", codeVerifier: offer.codeVerifier, redirectURL: "https://app.example.com/" },
  });
}

async function refused(claims) {
  const answer = await enter(claims);
  assert.deepEqual([answer.status, answer.body.code], [400, "oauth_refused"], JSON.stringify([claims, answer.body]));
}

const now = () => Math.floor(Date.now() / 1000);

test("an honest token is accepted, with the secret where the issuer wants it", async () => {
  const answer = await enter();
  assert.equal(answer.status, 200, JSON.stringify(answer.body));
  const asked = liar.asked.at(-1);
  assert.deepEqual([asked.client_id, asked.client_secret, asked.grant_type], ["me", "hush", "authorization_code"]);
  assert.ok(asked.code_verifier.length >= 43);
});

test("every wrong claim is refused", async () => {
  await refused({ iss: "https://elsewhere.example" });
  await refused({ iss: `${liar.issuer}/` });
  await refused({ aud: "somebody-else" });
  await refused({ aud: ["me", "somebody-else"] });
  await refused({ azp: "somebody-else" });
  await refused({ exp: now() - 3600 });
  await refused({ exp: undefined });
  await refused({ nbf: now() + 3600 });
  await refused({ iat: now() + 3600 });
  await refused({ nonce: "another" });
  await refused({ nonce: undefined });
  await refused({ sub: "" });
  await refused({ sub: undefined });
});

test("a sign-in weaker or older than asked for is refused, whatever was asked", async () => {
  const set = async (extra) => {
    const provider = { name: "liar", clientId: "me", clientSecret: "hush", issuer: liar.issuer, extra };
    const body = { oauth2: { enabled: true, providers: [provider] } };
    return node.call("PATCH", "/api/collections/users", { token: await node.root(), body });
  };
  try {
    assert.equal((await set({ maxAge: "soon" })).status, 400);
    assert.equal((await set({ acrValues: ["mfa", "phrh"], maxAge: 300 })).status, 200);
    const [offer] = (await node.call("GET", "/api/collections/users/auth-methods")).body.oauth2.providers;
    const asked = new URL(offer.authURL).searchParams;
    assert.deepEqual([asked.get("acr_values"), asked.get("max_age")], ["mfa phrh", "300"]);
    await refused({});
    await refused({ acr: "pwd", auth_time: now() });
    await refused({ acr: "mfa" });
    await refused({ acr: "mfa", auth_time: now() - 3600 });
    const strong = await enter({ acr: "phrh", auth_time: now() - 10 });
    assert.equal(strong.status, 200, JSON.stringify(strong.body));
  } finally {
    await set({});
  }
});

test("a token nobody signed, or signed with what is public, is refused", async () => {
  liar.token = liar.unsigned;
  await refused();
  liar.token = (claims) => liar.hmac(claims, liar.keys[0].jwk.n, "k1");
  await refused();
  liar.token = (claims) => liar.hmac(claims, "hush", "k1");
  await refused();
  liar.token = async (claims) => (await liar.sign(claims)).slice(0, -8) + "AAAAAAAA";
  await refused();
  liar.token = () => "not.a.token";
  await refused();
  liar.token = () => undefined;
  await refused();
});

test("a profile of somebody else beside the token is refused", async () => {
  // Without an address in the token the profile is asked, and it names another subject.
  await refused({ email: undefined });
});

test("a new key is found by its id; one that is never published is not asked for without end", async () => {
  for (const algorithm of ["ES256", "EdDSA"]) {
    const key = await liar.addKey(`new-${algorithm}`, algorithm);
    liar.published = [key.jwk];
    const answer = await enter();
    assert.equal(answer.status, 200, `${algorithm}: ${JSON.stringify(answer.body)}`);
  }
  await liar.addKey("never-published", "RS256");
  const before_ = liar.fetched;
  for (let attempt = 0; attempt < 12; attempt += 1) await refused();
  assert.ok(liar.fetched - before_ <= 6, `${liar.fetched - before_} fetches`);
});

test("metadata about another issuer is not believed", async () => {
  liar.discovery = { issuer: "https://accounts.example" };
  const fresh = await startNode();
  try {
    await fresh.call("PATCH", "/api/collections/users", {
      token: await fresh.root(),
      body: { oauth2: { enabled: true, providers: [{ name: "liar", clientId: "me", issuer: liar.issuer }] } },
    });
    const answer = await fresh.call("GET", "/api/collections/users/auth-methods");
    assert.deepEqual(answer.body.oauth2.providers, []);
    assert.match(fresh.log(), /they must be the same/);
  } finally {
    liar.discovery = {};
    await fresh.stop();
  }
});
