// The page behind the links in mails, in a real browser: at the node's address and behind a tenant's prefix.
// Keeps true: links are taken from the mails as they are; the page runs under the policy it is sent with.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { eventually, register, startNode } from "../../oidc/support/node.mjs";

const password = "correct horse battery";
let node;
let browser;
let complaints;

before(async () => {
  node = await startNode((url) => ({ TENANTRY__HTTP__PUBLIC_URL: url }));
  const executablePath = process.env.CHROMIUM_BIN ?? "/usr/bin/chromium";
  browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
  await node.tenant("acme");
});

after(async () => {
  await browser?.close();
  await node?.stop();
});

/** The link in a mail to `email` that holds `wanted`. */
async function link(email, wanted) {
  return eventually(`a mail to ${email} with ${wanted}`, () => {
    const mails = node.outbox().filter((text) => text.includes(`To: ${email}`));
    const texts = mails.map((text) => text.replaceAll("=\r\n", "").replaceAll("=3D", "="));
    return texts.flatMap((text) => [...text.matchAll(/href="([^"]+)"/g)]).map(([, href]) => href).find((href) => href.includes(wanted));
  });
}

/** Opens `href`; whatever the browser complains about is noted. */
async function open(href) {
  complaints = [];
  const page = await (await browser.newContext()).newPage();
  page.on("console", (said) => said.type() === "error" && complaints.push(said.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.goto(href);
  return page;
}

async function login(base, identity, password) {
  return node.call("POST", `${base}/api/collections/users/auth-with-password`, { body: { identity, password } });
}

for (const base of ["", "/t/acme"]) {
  const users = `${base}/api/collections/users`;

  test(`an address is confirmed at "${base}/_/", once somebody says so`, async () => {
    const { id } = await register(node, base, "ada@example.com", password);
    await node.call("POST", `${users}/request-verification`, { body: { email: "ada@example.com" } });
    const href = await link("ada@example.com", `${base}/_/#/auth/confirm-verification/`);
    const page = await open(href);
    const verified = async () => {
      const { token } = (await login(base, "ada@example.com", password)).body;
      return (await node.call("GET", `${users}/records/${id}`, { token })).body.verified;
    };
    await page.getByRole("button", { name: "Confirm the address" }).waitFor();
    assert.equal(await verified(), false, "opening the link confirms nothing");
    assert.equal(page.url(), `${node.url}${base}/_/`, "the token left the address bar");
    await page.getByRole("button", { name: "Confirm the address" }).click();
    await page.getByText("Your address is confirmed.").waitFor();
    assert.equal(await verified(), true);
    assert.deepEqual(complaints, []);
  });

  test(`a password is set at "${base}/_/", and what is refused is told`, async () => {
    await node.call("POST", `${users}/request-password-reset`, { body: { email: "ada@example.com" } });
    const href = await link("ada@example.com", `${base}/_/#/auth/confirm-password-reset/`);
    const page = await open(href);
    const [first, again] = [page.getByLabel("New password"), page.getByLabel("The same again")];
    for (const field of [first, again]) assert.equal(await field.getAttribute("type"), "password");
    const send = async (one, two) => {
      await first.fill(one);
      await again.fill(two);
      await page.getByRole("button", { name: "Set the password" }).click();
    };
    await send("password1", "password1");
    await page.getByText("too easily guessed").waitFor();
    await send("four blue lamps", "four green lamps");
    await page.getByText("Values don't match.").waitFor();
    await page.getByRole("checkbox", { name: "Show what I type" }).check();
    assert.equal(await first.getAttribute("type"), "text");
    await send("four blue lamps", "four blue lamps");
    await page.getByText("Your new password is set.").waitFor();
    assert.equal((await login(base, "ada@example.com", "four blue lamps")).status, 200);
    // The link worked once.
    const late = await open(href);
    await late.getByLabel("New password").fill("five blue lamps");
    await late.getByLabel("The same again").fill("five blue lamps");
    await late.getByRole("button", { name: "Set the password" }).click();
    await late.getByRole("alert").waitFor();
    assert.equal((await login(base, "ada@example.com", "four blue lamps")).status, 200);
  });

  test(`an address is changed at "${base}/_/" with the password`, async () => {
    const { token } = (await login(base, "ada@example.com", "four blue lamps")).body;
    await node.call("POST", `${users}/request-email-change`, { token, body: { newEmail: "lovelace@example.com" } });
    const page = await open(await link("lovelace@example.com", `${base}/_/#/auth/confirm-email-change/`));
    await page.getByLabel("Password", { exact: true }).fill("four blue lamps");
    await page.getByRole("button", { name: "Use the new address" }).click();
    await page.getByText("Your account has the new address.").waitFor();
    assert.equal((await login(base, "lovelace@example.com", "four blue lamps")).status, 200);
    assert.deepEqual(complaints, []);
  });

  test(`an account is made at "${base}/_/" by whoever registered it, with the password alone`, async () => {
    const quiet = { quietRegistration: { enabled: true } };
    assert.equal((await node.call("PATCH", users, { token: await node.root(), body: quiet })).status, 200);
    const email = "eve@example.com";
    const registered = await node.call("POST", `${users}/records`, { body: { email, password, passwordConfirm: password } });
    assert.equal(registered.status, 202);
    const href = await link(email, `${base}/_/#/auth/confirm-verification/`);
    const page = await open(href);
    const chosen = page.getByLabel("The password you chose");
    const make = async (page, text) => {
      await page.getByLabel("The password you chose").fill(text);
      await page.getByRole("button", { name: "Make the account" }).click();
    };
    await chosen.waitFor();
    assert.equal(await chosen.getAttribute("type"), "password");
    assert.equal(page.url(), `${node.url}${base}/_/`, "the token left the address bar");
    assert.deepEqual(complaints, []);
    await make(page, "four green lamps");
    await page.getByText("Must be the password that was chosen").waitFor();
    assert.equal((await login(base, email, password)).status, 400, "nothing is made yet");
    await make(page, password);
    await page.getByText("Your account is made.").waitFor();
    const entered = await login(base, email, password);
    assert.equal(entered.status, 200);
    assert.equal(entered.body.record.verified, true);
    // The link worked once, and says nothing of what it made.
    const late = await open(href);
    await make(late, password);
    await late.getByRole("alert").waitFor();
  });
}

test("without a whole link there is nothing to do", async () => {
  for (const rest of ["", "#/auth/confirm-verification/", "#/auth/constructor/x.y.z", "#/auth/confirm-verification/<b>"]) {
    const page = await open(`${node.url}/_/${rest}`);
    await page.getByText("Nothing to do here").waitFor();
  }
  assert.deepEqual(complaints, []);
});
