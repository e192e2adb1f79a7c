// The README's examples of the cache for applications, run as they stand there: shell lines with curl, helpers in JavaScript.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { makeTenant, startNode, superuserClient } from "../support/node.mjs";

const readme = readFileSync(new URL("../../../README.md", import.meta.url), "utf8");
const section = readme.split("### Values and locks for applications")[1].split("\n## ")[0];
const block = (language) => section.split("```" + language + "\n")[1].split("```")[0];

let node;
let base;
let pb;
let record;

before(async () => {
  node = await startNode();
  base = await makeTenant(node, "acme");
  // A superuser of the node, as $TOKEN of the README's first ten minutes.
  pb = await superuserClient(node.url);
  const made = await superuserClient(base);
  await made.collections.create({ name: "notes", type: "base", fields: [{ name: "title", type: "text" }] });
  record = await made.collection("notes").create({ title: "old" });
});

after(async () => node?.stop());

/** Sends JSON with the token and answers with status and body, as the README says of `api`. */
async function api(method, path, body) {
  const answer = await fetch(base + path, {
    method,
    headers: { authorization: pb.authStore.token, "content-type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await answer.text();
  return { status: answer.status, body: text ? JSON.parse(text) : null };
}

describe("the shell lines", () => {
  test("ask, set, write through and lock", async () => {
    const lines = block("sh").replaceAll("localhost:8090", node.url.slice(7)).replaceAll("RECORD", record.id);
    const ran = spawnSync("sh", ["-eu", "-c", lines.replaceAll(/\bcurl /g, "curl -sS ")], {
      env: { ...process.env, TOKEN: pb.authStore.token, no_proxy: "127.0.0.1" },
      encoding: "utf8",
    });
    assert.equal(ran.status, 0, ran.stderr);
    const said = ran.stdout.split(/(?<=\})(?=\{)/).map((text) => JSON.parse(text));
    const [asked, set, through, lock] = said;
    assert.equal(said.length, 4, ran.stdout);
    assert.equal(asked.code, "key_not_found");
    assert.deepEqual([set, through], [{ set: true }, { set: true }]);
    assert.match(lock.fence, /^\d{20}$/);
    const kept = await api("GET", `/api/cache/note:${record.id}`);
    assert.equal(kept.body.value.title, "new");
    assert.deepEqual(kept.body.value, (await api("GET", `/api/collections/notes/records/${record.id}`)).body);
    assert.ok(kept.body.ttlMs > 0 && kept.body.ttlMs <= 60000);
    assert.deepEqual((await api("GET", "/api/cache/report:today")).body.value, { sales: 12 });
    assert.equal((await api("POST", "/api/locks/nightly", {})).status, 409);
    const renewed = await api("PATCH", "/api/locks/nightly", { token: lock.token, leaseMs: 60000 });
    assert.equal(renewed.body.fence, lock.fence);
    assert.equal((await api("DELETE", `/api/locks/nightly?token=${lock.token}`)).status, 204);
    assert.ok((await api("POST", "/api/locks/nightly", {})).body.fence > lock.fence);
  });
});

describe("the helpers", () => {
  const { cached, saved } = new Function("api", `${block("js")}; return { cached, saved };`)(api);

  test("cached computes once and whoever was quicker stays", async () => {
    let computed = 0;
    const compute = async () => ({ n: (computed += 1) });
    assert.deepEqual(await cached("once", 60000, compute), { n: 1 });
    assert.deepEqual(await cached("once", 60000, compute), { n: 1 });
    assert.equal(computed, 1);
    // Somebody else sets it while this one computes.
    await cached("raced", 60000, async () => {
      await api("PUT", "/api/cache/raced", { value: "quicker" });
      return "slower";
    });
    assert.equal((await api("GET", "/api/cache/raced")).body.value, "quicker");
  });

  test("saved writes the record first and the cache last", async () => {
    const key = `saved:${record.id}`;
    const write = async () => (await api("PATCH", `/api/collections/notes/records/${record.id}`, { title: "saved" })).body;
    assert.equal((await saved(key, 60000, write)).title, "saved");
    assert.equal((await api("GET", `/api/cache/${key}`)).body.value.title, "saved");
    await assert.rejects(saved(key, 60000, async () => Promise.reject(new Error("refused"))));
    assert.equal((await api("GET", `/api/cache/${key}`)).body.value.title, "saved", "what was not written is not kept");
  });
});
