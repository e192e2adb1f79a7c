// Starts one Tenantry node in a temporary folder and hands out SDK clients for it.
// Keeps true: every suite runs against the real binary over loopback; nothing survives the suite.
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import PocketBase from "pocketbase";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "../../..");
const binary = process.env.TENANTRY_BIN ?? join(root, "target/debug/tenantry");
export const superuser = { email: "root@example.com", password: "correct-horse-battery" };

async function freePort() {
  const server = createServer();
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return port;
}

/** Starts a node; call `stop()` in an `after` hook. */
export async function startNode() {
  const folder = mkdtempSync(join(tmpdir(), "tenantry-sdk-"));
  const made = spawnSync(
    binary,
    ["superuser", "create", superuser.email, "--password-stdin", "--data-dir", folder],
    { input: superuser.password + "\n", encoding: "utf8" },
  );
  if (made.status !== 0) throw new Error(`superuser create failed: ${made.stderr}`);
  const url = `http://127.0.0.1:${await freePort()}`;
  const child = spawn(binary, ["serve", "--listen", url.slice(7), "--data-dir", folder], { stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  child.stdout.on("data", (chunk) => (log += chunk));
  child.stderr.on("data", (chunk) => (log += chunk));
  for (let attempt = 0; ; attempt += 1) {
    try {
      const answer = await fetch(`${url}/api/health`);
      if (answer.ok) break;
    } catch {
      // not listening yet
    }
    if (child.exitCode !== null || attempt > 200) throw new Error(`the node did not start:\n${log}`);
    await new Promise((later) => setTimeout(later, 50));
  }
  return {
    url,
    folder,
    async stop() {
      const gone = new Promise((exited) => child.once("exit", (code) => exited(code)));
      child.kill("SIGTERM");
      const code = await gone;
      rmSync(folder, { recursive: true, force: true });
      if (code !== 0) throw new Error(`the node ended with ${code}:\n${log}`);
    },
  };
}

/** An SDK client for `base`, with the SDK's cancelling of twin requests switched off. */
export function client(base) {
  const pb = new PocketBase(base);
  pb.autoCancellation(false);
  return pb;
}

/** A client that is logged in as the node's superuser. */
export async function superuserClient(base) {
  const pb = client(base);
  await pb.collection("_superusers").authWithPassword(superuser.email, superuser.password);
  return pb;
}

/** Makes a tenant and returns the base URL an app would be given. */
export async function makeTenant(node, slug, blueprint) {
  const pb = await superuserClient(node.url);
  await pb.send("/api/tenants", { method: "POST", body: { name: slug, slug, ...(blueprint ? { blueprint } : {}) } });
  return `${node.url}/t/${slug}`;
}
