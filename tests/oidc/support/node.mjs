// Starts one Tenantry node in a temporary folder, with the settings a suite needs.
// Keeps true: every suite runs against the real binary over loopback; nothing survives the suite.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "../../..");
const binary = process.env.TENANTRY_BIN ?? join(root, "target/debug/tenantry");
export const superuser = { email: "root@example.com", password: "correct-horse-battery" };

export async function freePort() {
  const server = createServer();
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return port;
}

/** Asks until `probe` gives something; the deadline is there to end a broken run, not to measure. */
export async function eventually(what, probe) {
  for (let attempt = 0; attempt < 1200; attempt += 1) {
    const found = await probe();
    if (found) return found;
    await new Promise((later) => setTimeout(later, 50));
  }
  throw new Error(`never happened: ${what}`);
}

function filesBelow(folder) {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? filesBelow(path) : [path];
  });
}

/** A node; `env`, or what it says of the node's address, is added to its environment. Call `stop()` in an `after` hook. */
export async function startNode(env = {}) {
  const folder = mkdtempSync(join(tmpdir(), "tenantry-oidc-"));
  const made = spawnSync(
    binary,
    ["superuser", "create", superuser.email, "--password-stdin", "--data-dir", folder],
    { input: superuser.password + "\n", encoding: "utf8" },
  );
  if (made.status !== 0) throw new Error(`superuser create failed: ${made.stderr}`);
  const url = `http://127.0.0.1:${await freePort()}`;
  const settings = { ...process.env, TENANTRY__OUTBOUND__PRIVATE_ALLOWED: "127.0.0.1", ...(typeof env === "function" ? env(url) : env) };
  let log = "";
  let child;
  const start = async () => {
    child = spawn(binary, ["serve", "--listen", url.slice(7), "--data-dir", folder], {
      stdio: ["ignore", "pipe", "pipe"],
      env: settings,
    });
    child.stdout.on("data", (chunk) => (log += chunk));
    child.stderr.on("data", (chunk) => (log += chunk));
    await eventually("the node answers", async () => {
      if (child.exitCode !== null) throw new Error(`the node did not start:\n${log}`);
      return fetch(`${url}/api/health`).then((answer) => answer.ok, () => false);
    });
  };
  const end = async () => {
    const gone = new Promise((exited) => child.once("exit", (code) => exited(code)));
    child.kill("SIGTERM");
    const code = await gone;
    if (code !== 0) throw new Error(`the node ended with ${code}:\n${log}`);
  };
  await start();
  const node = {
    url,
    folder,
    log: () => log,
    /** One JSON request; answers `{status, body, headers}`. */
    async call(method, path, { token, body } = {}) {
      const answer = await fetch(`${url}${path}`, {
        method,
        redirect: "manual",
        headers: { "content-type": "application/json", ...(token ? { authorization: token } : {}) },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await answer.text();
      let parsed = text;
      try {
        parsed = JSON.parse(text);
      } catch {
        // not JSON
      }
      return { status: answer.status, body: parsed, headers: answer.headers };
    },
    /** The superuser's token; made once. */
    async root() {
      node.rootToken ??= (
        await node.call("POST", "/api/collections/_superusers/auth-with-password", {
          body: { identity: superuser.email, password: superuser.password },
        })
      ).body.token;
      return node.rootToken;
    },
    /** Makes a tenant; returns its path prefix. */
    async tenant(slug) {
      const made = await node.call("POST", "/api/tenants", { token: await node.root(), body: { name: slug, slug } });
      if (made.status >= 300) throw new Error(JSON.stringify(made.body));
      return `/t/${slug}`;
    },
    /** The mails that wait in the outbox folder; one that is still being written has another name. */
    outbox() {
      const folder_ = join(folder, "outbox");
      const mails = existsSync(folder_) ? filesBelow(folder_).filter((path) => path.endsWith(".eml")) : [];
      return mails.map((path) => readFileSync(path, "utf8"));
    },
    /** The files of the data folder that hold `text`. */
    filesWith(text) {
      return filesBelow(folder).filter((path) => readFileSync(path).includes(text));
    },
    /** Ends the node and starts it again on the same folder. */
    async restart() {
      await end();
      await start();
    },
    async stop() {
      await end();
      rmSync(folder, { recursive: true, force: true });
    },
  };
  return node;
}

/** Registers somebody with a password. */
export async function register(node, base, email, password = "correct horse battery") {
  const made = await node.call("POST", `${base}/api/collections/users/records`, {
    body: { email, password, passwordConfirm: password },
  });
  if (made.status !== 200) throw new Error(JSON.stringify(made.body));
  return made.body;
}

/** Marks an account's address as confirmed, as its manager may. */
export async function verify(node, base, id) {
  const done = await node.call("PATCH", `${base}/api/collections/users/records/${id}`, {
    token: await node.root(),
    body: { verified: true },
  });
  if (done.status !== 200) throw new Error(JSON.stringify(done.body));
}
