// Signing in at a real OpenID provider: accounts, links, tenants, secrets, and the official SDK's manual flow.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import PocketBase from "pocketbase";
import { eventually, register, startNode, verify } from "../support/node.mjs";
import { callback, client, signIn, startProvider } from "../support/provider.mjs";

let provider;
let node;
let base;

async function setUp(base_, more = {}) {
  const done = await node.call("PATCH", `${base_}/api/collections/users`, {
    token: await node.root(),
    body: {
      oauth2: {
        enabled: true,
        mappedFields: { name: "name" },
        providers: [
          { name: "acme", displayName: "Acme", clientId: client.id, clientSecret: client.secret, issuer: provider.issuer, ...more },
        ],
      },
    },
  });
  assert.equal(done.status, 200, JSON.stringify(done.body));
  return done.body;
}

async function methods(base_ = base) {
  return (await node.call("GET", `${base_}/api/collections/users/auth-methods`)).body.oauth2;
}

/** Asks for a sign-in, signs `login` in, and returns the body that finishes it. */
async function begin(login, base_ = base) {
  const [offer] = (await methods(base_)).providers;
  const back = await signIn(offer.authURL + encodeURIComponent(callback), login);
  assert.equal(back.state, offer.state);
  return { provider: "acme", code: back.code, codeVerifier: offer.codeVerifier, redirectURL: callback, state: back.state };
}

function finish(body, { base: base_ = base, token } = {}) {
  return node.call("POST", `${base_}/api/collections/users/auth-with-oauth2`, { body, token });
}

async function enter(login, options = {}) {
  return finish(await begin(login, options.base), options);
}

before(async () => {
  provider = await startProvider();
  node = await startNode();
  base = await node.tenant("acme");
  await setUp(base);
});

after(async () => {
  await node?.stop();
  await provider?.stop();
});

describe("a sign-in", () => {
  test("is offered with PKCE, a state and a nonce, each new every time", async () => {
    const [one, two] = [await methods(), await methods()].map((offer) => offer.providers[0]);
    const query = new URL(one.authURL).searchParams;
    assert.equal(query.get("code_challenge_method"), "S256");
    assert.equal(query.get("code_challenge"), one.codeChallenge);
    assert.equal(query.get("state"), one.state);
    assert.ok(query.get("nonce") && query.get("nonce") !== one.state);
    assert.ok(one.authURL.endsWith("&redirect_uri="));
    assert.equal(one.displayName, "Acme");
    for (const member of ["state", "codeVerifier", "codeChallenge"]) assert.notEqual(one[member], two[member]);
  });

  test("makes an account once and finds it again", async () => {
    provider.people.set("ada", { email: "ada@example.com", email_verified: true, name: "Ada" });
    const first = await enter("ada");
    assert.equal(first.status, 200, JSON.stringify(first.body));
    assert.equal(first.body.meta.isNew, true);
    assert.deepEqual(
      [first.body.record.email, first.body.record.verified, first.body.record.name],
      ["ada@example.com", true, "Ada"],
    );
    assert.ok(first.body.meta.accessToken);
    const again = await enter("ada");
    assert.equal(again.body.meta.isNew, false);
    assert.equal(again.body.record.id, first.body.record.id);
    // The subject counts: another address at the provider is still Ada.
    provider.people.set("ada", { email: "ada@elsewhere.example", email_verified: true });
    assert.equal((await enter("ada")).body.record.id, first.body.record.id);
    const whoami = await node.call("POST", `${base}/api/collections/users/auth-refresh`, { token: again.body.token, body: {} });
    assert.equal(whoami.status, 200);
  });

  test("with ?session=1 gives a session", async () => {
    const body = await begin("ada");
    const answer = await node.call("POST", `${base}/api/collections/users/auth-with-oauth2?session=1`, { body });
    assert.ok(answer.body.refreshToken && answer.body.sessionId);
  });

  test("cannot be used twice", async () => {
    const body = await begin("ada");
    assert.equal((await finish(body)).status, 200);
    const replay = await finish(body);
    assert.equal(replay.status, 400);
    assert.equal(replay.body.data.codeVerifier.code, "validation_invalid_verifier");
  });

  test("is bound to its verifier, its state and its provider's own check", async () => {
    const [one, two] = [await begin("ada"), await begin("ada")];
    // A verifier of ours, but not the one of this code: the provider sees it (PKCE).
    const swapped = await finish({ ...one, codeVerifier: two.codeVerifier, state: undefined });
    assert.deepEqual([swapped.status, swapped.body.code], [400, "oauth_refused"]);
    const foreign = await finish({ ...two, codeVerifier: "x".repeat(59) });
    assert.equal(foreign.body.data.codeVerifier.code, "validation_invalid_verifier");
    const third = await begin("ada");
    const state = await finish({ ...third, state: one.state });
    assert.equal(state.body.data.state.code, "validation_invalid_state");
    const unknown = await finish({ ...third, provider: "other" });
    assert.equal(unknown.body.data.provider.code, "validation_in_invalid");
    const empty = await finish({});
    assert.deepEqual(Object.keys(empty.body.data).sort(), ["code", "codeVerifier", "provider", "redirectURL"]);
  });

  test("with another sign-in's nonce is refused", async () => {
    const [offer] = (await methods()).providers;
    const url = new URL(offer.authURL + encodeURIComponent(callback));
    url.searchParams.set("nonce", "somebody-elses");
    const back = await signIn(url.href, "ada");
    const answer = await finish({ provider: "acme", code: back.code, codeVerifier: offer.codeVerifier, redirectURL: callback });
    assert.deepEqual([answer.status, answer.body.code], [400, "oauth_refused"]);
    assert.match(answer.body.message, /another sign-in/);
  });

  test("can be part of a create rule and carries createData", async () => {
    const token = await node.root();
    const rule = "@request.context = 'oauth2' && @request.body.name = 'Grace'";
    await node.call("PATCH", `${base}/api/collections/users`, { token, body: { createRule: rule } });
    provider.people.set("grace", { email: "grace@example.com", email_verified: true });
    const refused = await enter("grace");
    assert.equal(refused.status, 400);
    const made = await finish({ ...(await begin("grace")), createData: { name: "Grace", verified: true } });
    assert.equal(made.status, 400, "nobody verifies themselves");
    const fine = await finish({ ...(await begin("grace")), createData: { name: "Grace" } });
    assert.equal(fine.status, 200, JSON.stringify(fine.body));
    await node.call("PATCH", `${base}/api/collections/users`, { token, body: { createRule: "" } });
  });
});

describe("an account that was there before", () => {
  test("is linked if both sides stand by the address", async () => {
    const account = await register(node, base, "both@example.com");
    await verify(node, base, account.id);
    provider.people.set("both", { email: "both@example.com", email_verified: true });
    const answer = await enter("both");
    assert.equal(answer.body.record.id, account.id);
  });

  test("is not linked if the provider does not vouch for the address", async () => {
    const account = await register(node, base, "boss@example.com");
    await verify(node, base, account.id);
    provider.people.set("liar", { email: "boss@example.com", email_verified: false });
    const answer = await enter("liar");
    assert.deepEqual([answer.status, answer.body.code], [400, "oauth_unverified"]);
  });

  test("registered by somebody else first is not linked; a reset gives it to its owner and to nobody else", async () => {
    const email = "victim@example.com";
    // The attacker registers the victim's address, keeps a session and makes a key.
    const planted = await register(node, base, email, "attackers password");
    const login = { identity: email, password: "attackers password" };
    const attacker = await node.call("POST", `${base}/api/collections/users/auth-with-password`, { body: login });
    const backdoor = { name: "backdoor", scopes: { collections: ["users"], operations: ["read"] } };
    const key = await node.call("POST", `${base}/api/keys`, { token: attacker.body.token, body: backdoor });
    assert.equal(key.status, 200, JSON.stringify(key.body));
    // A provider identity of the attacker's own cannot be tied to it either.
    provider.people.set("mallory", { email: "mallory@example.com", email_verified: true });
    const own = { ...(await begin("mallory")), password: "attackers password" };
    const tied = await finish(own, { token: attacker.body.token });
    assert.deepEqual([tied.status, tied.body.code], [400, "oauth_unverified"]);
    // The victim comes by the provider.
    provider.people.set("victim", { email, email_verified: true });
    const refused = await enter("victim");
    assert.deepEqual([refused.status, refused.body.code], [400, "oauth_unverified"]);
    assert.match(refused.body.message, /Reset its password/);
    // ... and does what the answer says.
    await node.call("POST", `${base}/api/collections/users/request-password-reset`, { body: { email } });
    const mail = await eventually("the mail is in the outbox", () => node.outbox().find((text) => text.includes(email)));
    const token = /eyJ[\w-]+\.[\w-]+\.[\w-]+/.exec(mail.slice(mail.indexOf("\r\n\r\n")).replaceAll("=\r\n", ""))[0];
    const password = "victims own password";
    const reset = await node.call("POST", `${base}/api/collections/users/confirm-password-reset`, {
      body: { token, password, passwordConfirm: password },
    });
    assert.equal(reset.status, 204, JSON.stringify(reset.body));
    const entered = await enter("victim");
    assert.equal(entered.status, 200, JSON.stringify(entered.body));
    assert.equal(entered.body.record.id, planted.id);
    for (const credential of [attacker.body.token, key.body.secret ?? key.body.key]) {
      const used = await node.call("GET", `${base}/api/collections/users/records/${planted.id}`, { token: credential });
      assert.equal(used.status, 404, "what the attacker kept is worth nothing");
    }
    assert.equal((await node.call("POST", `${base}/api/collections/users/auth-with-password`, { body: login })).status, 400);
  });

  test("is linked and unlinked by its owner, and by nobody else", async () => {
    const account = await register(node, base, "owner@example.com");
    await verify(node, base, account.id);
    const owner = new PocketBase(node.url + base);
    await owner.collection("users").authWithPassword("owner@example.com", "correct horse battery");
    // Another address at the provider: only being logged in ties the two.
    provider.people.set("owner-at-acme", { email: "private@example.com", email_verified: true });
    const token = owner.authStore.token;
    // A password that is shown has to be the right one, however fresh the token is.
    for (const password of ["", "wrong horse battery"]) {
      const refused = await finish({ ...(await begin("owner-at-acme")), password }, { token });
      assert.equal(refused.status, 400);
      assert.equal(refused.body.data.password.code, "validation_invalid_password", JSON.stringify(refused.body));
    }
    const password = "correct horse battery";
    const linked = await finish({ ...(await begin("owner-at-acme")), password }, { token });
    assert.equal(linked.body.record?.id, account.id, JSON.stringify(linked.body));
    // A new way in ends what came before it.
    const before = await node.call("GET", `${base}/api/collections/users/records/${account.id}`, { token });
    assert.equal(before.status, 404);
    owner.authStore.save(linked.body.token, linked.body.record);
    const [link] = await owner.collection("users").listExternalAuths(account.id);
    assert.deepEqual([link.provider, link.providerId], ["acme", "owner-at-acme"]);
    // A second identity at the same provider has to wait for the first to go.
    provider.people.set("second", { email: "second@example.com", email_verified: true });
    const second = await finish({ ...(await begin("second")), password }, { token: owner.authStore.token });
    assert.equal(second.status, 400);
    assert.equal(second.body.data.provider?.code, "validation_provider_already_linked", JSON.stringify(second.body));
    // One that began a moment ago needs no password, and goes on.
    await owner.collection("users").unlinkExternalAuth(account.id, "acme");
    const fresh = await node.call("POST", `${base}/api/collections/users/auth-with-password?session=1`, {
      body: { identity: "owner@example.com", password },
    });
    const again = await enter("owner-at-acme", { token: fresh.body.token });
    assert.equal(again.body.record?.id, account.id, JSON.stringify(again.body));
    const turned = await node.call("POST", `${base}/api/collections/users/auth-refresh`, {
      body: { refreshToken: fresh.body.refreshToken },
    });
    assert.equal(turned.status, 200, JSON.stringify(turned.body));
    owner.authStore.save(again.body.token, again.body.record);
    const [relinked] = await owner.collection("users").listExternalAuths(account.id);

    await register(node, base, "other@example.com");
    const other = new PocketBase(node.url + base);
    await other.collection("users").authWithPassword("other@example.com", "correct horse battery");
    assert.deepEqual(await other.collection("users").listExternalAuths(account.id), []);
    await assert.rejects(other.collection("_externalAuths").delete(relinked.id), { status: 404 });
    await assert.rejects(owner.collection("_externalAuths").create({ provider: "x" }), { status: 403 });

    await owner.collection("users").unlinkExternalAuth(account.id, "acme");
    const apart = await enter("owner-at-acme");
    assert.notEqual(apart.body.record.id, account.id);
    assert.equal(apart.body.meta.isNew, true);
  });

  test("and is gone takes its identity with it", async () => {
    provider.people.set("leaver", { email: "leaver@example.com", email_verified: true });
    const first = await enter("leaver");
    const id = first.body.record.id;
    const gone = await node.call("DELETE", `${base}/api/collections/users/records/${id}`, { token: first.body.token });
    assert.equal(gone.status, 204);
    // Somebody registers under the same id; the old identity must not open it.
    const password = "correct horse battery";
    const taken = await node.call("POST", `${base}/api/collections/users/records`, {
      body: { id, email: "squatter@example.com", password, passwordConfirm: password },
    });
    assert.equal(taken.status, 200, JSON.stringify(taken.body));
    const again = await enter("leaver");
    assert.notEqual(again.body.record.id, id);
  });
});

describe("the official SDK", () => {
  test("signs in with its manual code flow", async () => {
    provider.people.set("sdk", { email: "sdk@example.com", email_verified: true });
    const pb = new PocketBase(node.url + base);
    const offer = (await pb.collection("users").listAuthMethods()).oauth2.providers.find((one) => one.name === "acme");
    const back = await signIn(offer.authURL + callback, "sdk");
    assert.equal(back.state, offer.state);
    const done = await pb.collection("users").authWithOAuth2Code(offer.name, back.code, offer.codeVerifier, callback);
    assert.equal(done.record.email, "sdk@example.com");
    assert.ok(pb.authStore.isValid);
    assert.equal(done.meta.isNew, true);
  });
});

describe("another tenant", () => {
  test("shares neither sign-ins nor identities", async () => {
    const elsewhere = await node.tenant("other");
    await setUp(elsewhere);
    provider.people.set("tess", { email: "tess@example.com", email_verified: true });
    const here = await enter("tess");
    const crossed = await finish(await begin("tess"), { base: elsewhere });
    assert.equal(crossed.body.data.codeVerifier.code, "validation_invalid_verifier");
    const there = await enter("tess", { base: elsewhere });
    assert.equal(there.body.meta.isNew, true);
    assert.notEqual(there.body.record.id, here.body.record.id);
    const used = await node.call("POST", `${elsewhere}/api/collections/users/auth-refresh`, { token: here.body.token, body: {} });
    assert.equal(used.status, 401);
  });
});

describe("client secrets", () => {
  test("are written and never read, at rest or anywhere else", async () => {
    const shown = await setUp(base);
    assert.ok(!JSON.stringify(shown).includes(client.secret));
    const token = await node.root();
    for (const path of ["/api/collections/users", "/api/collections", "/api/changes?since=0", "/api/audit"]) {
      const answer = await node.call("GET", base + path, { token });
      assert.ok(!JSON.stringify(answer.body).includes(client.secret), path);
    }
    assert.deepEqual(node.filesWith(client.secret), [], "the secret is nowhere on disk in the clear");
    assert.ok(!node.log().includes(client.secret));
    // Sent back without it, as an editor would: it is kept.
    const [{ clientSecret, ...rest }] = shown.oauth2.providers;
    assert.equal(clientSecret, undefined);
    await node.call("PATCH", `${base}/api/collections/users`, { token, body: { oauth2: { ...shown.oauth2, providers: [rest] } } });
    assert.equal((await enter("ada")).status, 200);
  });
});

describe("providers that cannot work", () => {
  test("are refused with the member to set", async () => {
    const token = await node.root();
    const cases = [
      [{ name: "nobody-knows", clientId: "x" }, "authURL"],
      [{ name: "google" }, "clientId"],
      [{ name: "acme", clientId: "x", issuer: "not a url" }, "issuer"],
    ];
    for (const [entry, member] of cases) {
      const answer = await node.call("PATCH", `${base}/api/collections/users`, { token, body: { oauth2: { providers: [entry] } } });
      assert.equal(answer.status, 400);
      assert.ok(JSON.stringify(answer.body).includes(`providers.0.${member}`) || JSON.stringify(answer.body.data).includes(member));
    }
    await setUp(base);
  });

  test("are left out while the node may not reach them", async () => {
    const shut = await startNode({ TENANTRY__OUTBOUND__PRIVATE_ALLOWED: "" });
    try {
      const done = await shut.call("PATCH", "/api/collections/users", {
        token: await shut.root(),
        body: { oauth2: { enabled: true, providers: [{ name: "acme", clientId: "x", issuer: provider.issuer }] } },
      });
      assert.equal(done.status, 200);
      const answer = await shut.call("GET", "/api/collections/users/auth-methods");
      assert.deepEqual(answer.body.oauth2, { enabled: true, providers: [] });
      // The log is written beside the answer.
      await eventually("the log names the setting", () => /private_allowed/.test(shut.log()));
    } finally {
      await shut.stop();
    }
  });

  test("the redirect page repeats nothing", async () => {
    for (const method of ["GET", "POST"]) {
      const answer = await node.call(method, "/api/oauth2-redirect?code=%3Cscript%3E&state=x");
      assert.ok(!String(answer.body).includes("<script>") && answer.headers.get("content-security-policy"));
    }
  });
});
