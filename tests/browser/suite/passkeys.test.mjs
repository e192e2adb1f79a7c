// Passkeys in a real browser: what pages send is what the node takes, at the node's address and at a tenant's own.
// Keeps true: the browser is the system's chromium; its authenticator is the one of its developer tools.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { register, startNode } from "../../oidc/support/node.mjs";

const password = "correct horse battery";
let node;
let browser;

before(async () => {
  // An address has no passkeys; the name of this machine has.
  node = await startNode((url) => ({ TENANTRY__HTTP__PUBLIC_URL: url.replace("127.0.0.1", "localhost") }));
  const executablePath = process.env.CHROMIUM_BIN ?? "/usr/bin/chromium";
  browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
  await node.tenant("acme");
});

after(async () => {
  await browser?.close();
  await node?.stop();
});

/** A page of `host` with an authenticator, and ways to use both. */
async function visit(host) {
  const origin = node.url.replace("127.0.0.1", host);
  const context = await browser.newContext({ bypassCSP: true });
  const page = await context.newPage();
  await page.goto(`${origin}/api/health`);
  const tools = await context.newCDPSession(page);
  await tools.send("WebAuthn.enable");
  const { authenticatorId } = await tools.send("WebAuthn.addVirtualAuthenticator", {
    options: {
      protocol: "ctap2",
      transport: "internal",
      hasResidentKey: true,
      hasUserVerification: true,
      isUserVerified: true,
      automaticPresenceSimulation: true,
    },
  });
  await page.evaluate(() => {
    window.api = async (path, body, token) => {
      const headers = { "content-type": "application/json", ...(token ? { authorization: token } : {}) };
      const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
      return { status: answer.status, ...(await answer.json()) };
    };
    window.add = async (users, token, password) => {
      const began = await api(`${users}/passkeys/begin`, { password }, token);
      const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(began.publicKey);
      const made = await navigator.credentials.create({ publicKey });
      const body = { challengeId: began.challengeId, credential: made.toJSON(), name: "Laptop" };
      return api(`${users}/passkeys`, body, token);
    };
    window.enter = async (users, more) => {
      const asked = await api(`${users}/auth-with-passkey/begin`, {});
      const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(asked.publicKey);
      const shown = await navigator.credentials.get({ publicKey });
      const body = { challengeId: asked.challengeId, credential: shown.toJSON(), ...more };
      return api(`${users}/auth-with-passkey`, body);
    };
  });
  return {
    add: (users, token) =>
      page.evaluate(([users, token, password]) => window.add(users, token, password), [users, token, password]),
    enter: (users, more = {}) => page.evaluate(([users, more]) => window.enter(users, more), [users, more]),
    verifies: (isUserVerified) => tools.send("WebAuthn.setUserVerified", { authenticatorId, isUserVerified }),
    credentials: async () => (await tools.send("WebAuthn.getCredentials", { authenticatorId })).credentials,
    close: () => context.close(),
  };
}

/** A user of the tenant at `base`, logged in by password. */
async function user(base, email) {
  const made = await register(node, base, email, password);
  const body = { identity: email, password };
  const grant = (await node.call("POST", `${base}/api/collections/users/auth-with-password`, { body })).body;
  return { id: made.id, token: grant.token };
}

test("a passkey is made, is kept by the browser, and logs in without a name", async () => {
  const ada = await user("/t/acme", "ada@example.com");
  const users = "/t/acme/api/collections/users";
  const page = await visit("localhost");
  const added = await page.add(users, ada.token);
  assert.equal(added.status, 200, JSON.stringify(added));
  assert.equal(added.rpId, "localhost");
  const kept = await page.credentials();
  assert.equal(kept.length, 1);
  assert.ok(kept[0].isResidentCredential);
  for (const _ of [1, 2]) {
    const grant = await page.enter(users);
    assert.equal(grant.status, 200, JSON.stringify(grant));
    assert.equal(grant.record.id, ada.id);
    const listed = await node.call("GET", `${users}/passkeys`, { token: grant.token });
    assert.notEqual(listed.body.items[0].lastUsed, "");
  }
  // The browser knows from the list of excluded ones that it has a passkey of this account.
  await assert.rejects(page.add(users, added.token), /InvalidStateError/);
  await page.close();
});

test("a user who is not verified is not let in", async () => {
  const users = "/t/acme/api/collections/users";
  const eve = await user("/t/acme", "eve@example.com");
  const page = await visit("localhost");
  await page.add(users, eve.token);
  await page.verifies(false);
  await assert.rejects(page.enter(users), /NotAllowedError/);
  await page.verifies(true);
  assert.equal((await page.enter(users)).status, 200);
  await page.close();
});

test("a tenant's own host has passkeys of its own, and they complete a login of two methods", async () => {
  const bob = await user("/t/acme", "bob@example.com");
  const users = "/api/collections/users";
  const page = await visit("acme.localhost");
  const added = await page.add(users, bob.token);
  assert.equal(added.rpId, "acme.localhost", JSON.stringify(added));
  assert.equal((await page.enter(users)).record.id, bob.id);

  const options = { token: await node.root(), body: { mfa: { enabled: true } } };
  assert.equal((await node.call("PATCH", `/t/acme${users}`, options)).status, 200);
  const body = { identity: "bob@example.com", password };
  const half = await node.call("POST", `/t/acme${users}/auth-with-password`, { body });
  assert.equal(half.status, 401);
  const grant = await page.enter(users, { mfaId: half.body.mfaId });
  assert.equal(grant.status, 200, JSON.stringify(grant));
  await page.close();
});
