// Mails through a real SMTP server: delivery, templates, TLS, a server that is down, refusals, limits, alerts.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { eventually, freePort, register, startNode } from "../support/node.mjs";
import { startSink } from "../support/sink.mjs";

let certificates;
let tls;
let sink;
let node;
let base;

const password = "correct horse battery";

before(async () => {
  certificates = mkdtempSync(join(tmpdir(), "tenantry-ca-"));
  const [key, cert] = ["key.pem", "cert.pem"].map((name) => join(certificates, name));
  const made = spawnSync("openssl", [
    ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"],
    ...["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"],
    ...["-keyout", key, "-out", cert],
  ]);
  assert.equal(made.status, 0, String(made.stderr));
  tls = { key: readFileSync(key), cert: readFileSync(cert) };
  sink = await startSink();
  node = await startNode({
    TENANTRY__MAIL__SMTP_HOST: "127.0.0.1",
    TENANTRY__MAIL__SMTP_PORT: String(sink.port),
    TENANTRY__MAIL__SMTP_ENCRYPTION: "none",
    TENANTRY__MAIL__SENDER_ADDRESS: "node@example.com",
    TENANTRY__MAIL__RETRY_MS: "100",
    TENANTRY__MAIL__CA_FILES: cert,
    TENANTRY__LIMITS__MAILS_ASKED_PER_IP_MAX: "0",
    TENANTRY__LIMITS__MAILS_ASKED_MAX: "4",
  });
  base = await node.tenant("mails");
});

after(async () => {
  await node?.stop();
  await sink?.stop();
  if (certificates) rmSync(certificates, { recursive: true, force: true });
});

const users = (path, body, more = {}) => node.call("POST", `${base}/api/collections/users/${path}`, { body, ...more });

async function settings(body, base_ = base) {
  const answer = await node.call("PATCH", `${base_}/api/settings`, { token: await node.root(), body });
  assert.equal(answer.status, 200, JSON.stringify(answer.body));
  return answer.body;
}

/** The one mail to `address` once it is there. */
async function mailTo(address, where = sink) {
  return eventually(`a mail to ${address}`, () => where.to(address)[0]);
}

function queued(slugless = "queue") {
  const outbox = join(node.folder, "outbox");
  const folders = existsSync(outbox) ? readdirSync(outbox).map((tenant) => join(outbox, tenant, slugless)) : [];
  return folders.filter(existsSync).flatMap((folder) => readdirSync(folder).filter((name) => !name.startsWith(".")));
}

describe("mails", () => {
  test("leave by the node's server, as text and HTML, and work", async () => {
    const address = "ada@example.com";
    await register(node, base, address);
    assert.equal((await users("request-password-reset", { email: address })).status, 204);
    const mail = await mailTo(address);
    assert.equal(mail.from, "node@example.com");
    assert.match(mail.text, /multipart\/alternative/);
    assert.match(mail.plain, /Reset your mails password/);
    const token = /eyJ[\w-]+\.[\w-]+\.[\w-]+/.exec(mail.plain)[0];
    const next = "another horse battery";
    assert.equal((await users("confirm-password-reset", { token, password: next, passwordConfirm: next })).status, 204);
    assert.equal((await users("auth-with-password", { identity: address, password: next })).status, 200);
    await eventually("the queue is empty", () => queued().length === 0);
  });

  test("are not sent to addresses nobody has, and the answers are the same", async () => {
    const known = await users("request-password-reset", { email: "ada@example.com" });
    const unknown = await users("request-password-reset", { email: "nobody@example.com" });
    assert.deepEqual([known.status, known.body], [unknown.status, unknown.body]);
    await eventually("the second mail to the known one", () => sink.to("ada@example.com").length === 2);
    assert.deepEqual(sink.to("nobody@example.com"), []);
  });

  test("are written by the tenant's own templates and sender, escaped", async () => {
    await settings({ meta: { appName: "A<b>&\"Co", appURL: "https://app.example.com/", senderName: "Grüße, \"Co\"", senderAddress: "hello@tenant.example" } });
    const done = await node.call("PATCH", `${base}/api/collections/users`, {
      token: await node.root(),
      body: { verificationTemplate: { subject: "{APP_NAME}: hello {RECORD:name}", body: "<p>{RECORD:name} <a href=\"{ACTION_URL}\">x</a> {APP_URL} {RECORD:tokenKey}</p>" } },
    });
    assert.equal(done.status, 200, JSON.stringify(done.body));
    const name = "<script>alert(1)</script>\r\nBcc: evil@example.com";
    const made = await users("records", { email: "eve@example.com", password, passwordConfirm: password, name });
    assert.equal(made.status, 200);
    await users("request-verification", { email: "eve@example.com" });
    const mail = await mailTo("eve@example.com");
    assert.equal(mail.from, "hello@tenant.example");
    const [headers] = mail.text.split("\r\n\r\n");
    assert.ok(!/^bcc:/im.test(headers), headers);
    assert.equal(mail.to.length, 1);
    const html = mail.plain.slice(mail.plain.indexOf("text/html"));
    assert.ok(!html.includes("<script>") && html.includes("&lt;script&gt;"));
    assert.match(html, /https:\/\/app\.example\.com\/_\/#\/auth\/confirm-verification\/eyJ/);
    assert.match(html, /\{RECORD:tokenKey\}/, "hidden fields are not filled in");
    await settings({ meta: { appName: "", appURL: "", senderName: "", senderAddress: "" } });
  });

  test("carry one-time codes", async () => {
    await node.call("PATCH", `${base}/api/collections/users`, { token: await node.root(), body: { otp: { enabled: true } } });
    await register(node, base, "otto@example.com");
    const asked = await users("request-otp", { email: "otto@example.com" });
    const mail = await mailTo("otto@example.com");
    const code = /\b\d{8}\b/.exec(mail.plain)[0];
    const entered = await users("auth-with-otp", { otpId: asked.body.otpId, password: code });
    assert.equal(entered.status, 200, JSON.stringify(entered.body));
  });
});

describe("a server that is down", () => {
  test("gets the mails once it is up again", async () => {
    await register(node, base, "later@example.com");
    const { port, mails } = sink;
    await sink.stop();
    await users("request-password-reset", { email: "later@example.com" });
    await eventually("the mail waits", () => queued().length === 1);
    await eventually("it was tried", () => /not taken yet/.test(node.log()));
    sink = await startSink({ port });
    sink.mails.push(...mails);
    await mailTo("later@example.com");
    await eventually("the queue is empty", () => queued().length === 0);
  });

  test("gets them from the next run of the node as well", async () => {
    const down = await freePort();
    const late = await startNode({
      TENANTRY__MAIL__SMTP_HOST: "127.0.0.1",
      TENANTRY__MAIL__SMTP_PORT: String(down),
      TENANTRY__MAIL__SMTP_ENCRYPTION: "none",
      TENANTRY__MAIL__RETRY_MS: "100",
    });
    try {
      await register(late, "", "late@example.com");
      await late.call("POST", "/api/collections/users/request-password-reset", { body: { email: "late@example.com" } });
      await eventually("it was tried", () => /not taken yet/.test(late.log()));
      await late.restart();
      const up = await startSink({ port: down });
      await mailTo("late@example.com", up);
      await up.stop();
    } finally {
      await late.stop();
    }
  });

  test("that says not now is asked again, one that says never is not", async () => {
    await register(node, base, "busy@example.com");
    sink.refuse = 450;
    await users("request-password-reset", { email: "busy@example.com" });
    await eventually("it waits", () => queued().length === 1);
    sink.refuse = undefined;
    await mailTo("busy@example.com");
    await register(node, base, "gone@example.com");
    sink.refuse = 550;
    await users("request-password-reset", { email: "gone@example.com" });
    await eventually("it is given up", () => queued("failed").length === 1);
    sink.refuse = undefined;
    assert.deepEqual(sink.to("gone@example.com"), []);
    assert.equal(queued().length, 0);
  });
});

describe("a tenant's own server", () => {
  test("is spoken to by STARTTLS with a login, and its password is never shown", async () => {
    const auth = { user: "mailer", password: "sm+p s3cret" };
    const own = await startSink({ tls, auth });
    const smtp = { enabled: true, host: "localhost", port: own.port, username: auth.user, password: auth.password };
    const shown = await settings({ smtp });
    assert.equal(shown.smtp.encryption, "starttls");
    assert.ok(!JSON.stringify(shown).includes(auth.password));
    const read = await node.call("GET", `${base}/api/settings`, { token: await node.root() });
    assert.equal(read.body.smtp.password, undefined);
    assert.deepEqual(node.filesWith(auth.password), []);
    await register(node, base, "tess@example.com");
    await users("request-password-reset", { email: "tess@example.com" });
    const mail = await mailTo("tess@example.com", own);
    assert.equal(mail.secure, true);
    assert.deepEqual(own.sessions, ["PLAIN"]);
    // Another tenant still uses the node's.
    const other = await node.tenant("plain");
    await register(node, other, "pia@example.com");
    await node.call("POST", `${other}/api/collections/users/request-password-reset`, { body: { email: "pia@example.com" } });
    await mailTo("pia@example.com");
    assert.deepEqual(own.to("pia@example.com"), []);
    await own.stop();
  });

  test("without STARTTLS gets nothing, and trying it out says why", async () => {
    const bare = await startSink();
    await settings({ smtp: { enabled: true, host: "localhost", port: bare.port, username: "", password: "" } });
    const token = await node.root();
    const tried = await node.call("POST", `${base}/api/settings/test/email`, { token, body: { email: "root@example.com" } });
    assert.equal(tried.status, 400);
    assert.match(tried.body.data.smtp.message, /STARTTLS|TLS/i);
    await settings({ smtp: { encryption: "none" } });
    const fine = await node.call("POST", `${base}/api/settings/test/email`, { token, body: { email: "root@example.com" } });
    assert.equal(fine.status, 204, JSON.stringify(fine.body));
    assert.equal(bare.to("root@example.com").length, 1);
    await settings({ smtp: { enabled: false } });
    await bare.stop();
  });

  test("is set by superusers alone, and mistakes are named", async () => {
    const login = await users("auth-with-password", { identity: "tess@example.com", password });
    for (const token of [undefined, login.body.token]) {
      assert.ok([401, 403].includes((await node.call("GET", `${base}/api/settings`, { token })).status));
      assert.ok([401, 403].includes((await node.call("PATCH", `${base}/api/settings`, { token, body: {} })).status));
    }
    const token = await node.root();
    const cases = [
      [{ meta: { senderAddress: "not an address" } }, "senderAddress"],
      [{ meta: { appURL: "javascript:alert(1)" } }, "appURL"],
      [{ meta: { senderName: "a\r\nBcc: x@y.z" } }, "senderName"],
      [{ smtp: { enabled: true, host: "" } }, "host"],
      [{ smtp: { port: 0 } }, "port"],
      [{ smtp: { encryption: "ssl" } }, "encryption"],
      [{ smtp: { host: "mail.example.com", username: "u", encryption: "none" } }, "encryption"],
      [{ s3: {} }, "s3"],
    ];
    for (const [body, member] of cases) {
      const answer = await node.call("PATCH", `${base}/api/settings`, { token, body });
      assert.equal(answer.status, 400, JSON.stringify(body));
      assert.ok(answer.body.errors.some((one) => one.field.endsWith(member)), JSON.stringify(answer.body.errors));
    }
  });
});

describe("limits", () => {
  test("say no to who asks on and on, known address or not", async () => {
    await register(node, base, "flooded@example.com");
    const answers = [];
    for (const email of ["flooded@example.com", "never@example.com"]) {
      const statuses = [];
      for (let attempt = 0; attempt < 6; attempt += 1) statuses.push((await users("request-password-reset", { email })).status);
      answers.push(statuses);
    }
    assert.deepEqual(answers[0], [204, 204, 204, 204, 429, 429]);
    assert.deepEqual(answers[1], answers[0]);
    const refused = await users("request-otp", { email: "flooded@example.com" });
    assert.deepEqual([refused.status, refused.body.code], [429, "rate_limited"]);
    assert.ok(Number(refused.headers.get("retry-after")) > 0);
  });
});

describe("a login from a new place", () => {
  test("is told to the account's owner, the first is not", async () => {
    const traveller = await register(node, base, "traveller@example.com");
    const enter = (agent) =>
      fetch(`${node.url}${base}/api/collections/users/auth-with-password`, {
        method: "POST",
        headers: { "content-type": "application/json", "user-agent": agent },
        body: JSON.stringify({ identity: "traveller@example.com", password }),
      });
    assert.equal((await enter("Home <b>Browser</b>")).status, 200);
    await eventually("the first place is noted", async () => {
      const found = await node.call("GET", `${base}/api/collections/_authOrigins/records?perPage=200`, { token: await node.root() });
      return found.body.items.some((row) => row.recordRef === traveller.id);
    });
    assert.equal((await enter("Home <b>Browser</b>")).status, 200);
    assert.equal((await enter("Strange <i>Phone</i>")).status, 200);
    const mail = await mailTo("traveller@example.com");
    const html = mail.plain.slice(mail.plain.indexOf("text/html"));
    assert.ok(html.includes("Strange &lt;i&gt;Phone") && html.includes("127.0.0.1"));
    assert.equal(sink.to("traveller@example.com").length, 1);
  });
});
