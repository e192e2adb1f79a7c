// Two methods of logging in, as the SDK drives them: the first is answered with an mfaId, the second completes it.
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { client, makeTenant, startNode, superuserClient } from "../support/node.mjs";

const password = "correct-horse-battery";
let node;
let base;

before(async () => {
  node = await startNode();
  base = await makeTenant(node, "sdk-mfa");
  const pb = await superuserClient(base);
  await pb.collections.update("users", { mfa: { enabled: true }, otp: { enabled: true } });
  await pb.collection("users").create({ email: "ada@example.com", password, passwordConfirm: password });
});

after(async () => node?.stop());

/** The code in the mail to `to` that is not among `seen`. */
async function mailedCode(to, seen) {
  const outbox = join(node.folder, "outbox");
  for (let attempt = 0; attempt < 1200; attempt += 1) {
    const folders = existsSync(outbox) ? readdirSync(outbox).map((name) => join(outbox, name)) : [];
    const files = folders.flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)));
    for (const file of files.filter((file) => file.endsWith(".eml") && !seen.has(file))) {
      const text = readFileSync(file, "utf8");
      const code = /<strong>(\d+)<\/strong>/.exec(text);
      if (code && text.includes(to)) {
        seen.add(file);
        return code[1];
      }
    }
    await new Promise((later) => setTimeout(later, 50));
  }
  throw new Error(`no mail to ${to}`);
}

test("a password and a mailed code log in together, in either order", async () => {
  const seen = new Set();
  const users = client(base).collection("users");
  const methods = await users.listAuthMethods();
  assert.equal(methods.mfa.enabled, true);

  const first = await users.authWithPassword("ada@example.com", password).catch((error) => error);
  assert.equal(first.status, 401);
  assert.ok(first.response.mfaId);
  const asked = await users.requestOTP("ada@example.com");
  const code = await mailedCode("ada@example.com", seen);
  const grant = await users.authWithOTP(asked.otpId, code, { mfaId: first.response.mfaId });
  assert.equal(grant.record.email, "ada@example.com");
  assert.ok(grant.token);

  const other = await users.requestOTP("ada@example.com");
  const half = await users.authWithOTP(other.otpId, await mailedCode("ada@example.com", seen)).catch((error) => error);
  assert.equal(half.status, 401);
  const again = await users.authWithPassword("ada@example.com", password, { mfaId: half.response.mfaId });
  assert.equal(again.record.id, grant.record.id);
  const used = await users.authWithPassword("ada@example.com", password, { mfaId: half.response.mfaId }).catch((error) => error);
  assert.equal(used.status, 400);
});

test("the same method twice is not two methods", async () => {
  const users = client(base).collection("users");
  const first = await users.authWithPassword("ada@example.com", password).catch((error) => error);
  const again = await users.authWithPassword("ada@example.com", password, { mfaId: first.response.mfaId }).catch((error) => error);
  assert.equal(again.status, 400);
  assert.equal(again.response.data.mfaId.code, "validation_mfa_same_method");
});
