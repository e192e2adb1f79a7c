// The helpers of the README for values of applications, run as they stand there, against a node.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { makeTenant, startNode, superuserClient } from "../support/node.mjs";

const readme = readFileSync(new URL("../../../README.md", import.meta.url), "utf8");
const blocks = readme.split("```js").slice(1).map((rest) => rest.split("```")[0]);
const helpers = blocks.find((block) => block.includes("async function cached("));

let node;
let api;

before(async () => {
  node = await startNode();
  const base = await makeTenant(node, "sdk-values");
  const { authStore } = await superuserClient(base);
  api = async (method, path, body) => {
    const headers = { authorization: authStore.token, "content-type": "application/json" };
    const answer = await fetch(base + path, { method, headers, body: body && JSON.stringify(body) });
    return { status: answer.status, body: await answer.json() };
  };
});
after(() => node.stop());

test("each key has its own value, whatever characters it has", async () => {
  const { cached, saved } = new Function("api", `${helpers}; return { cached, saved };`)(api);
  const keys = ["q?x=1", "q?x=2", "a#b", "a#c", "50% off/ü", "plain:key"];
  for (const [at, key] of keys.entries()) assert.equal(await cached(key, 60_000, async () => at), at);
  for (const [at, key] of keys.entries()) {
    const again = await cached(key, 60_000, async () => assert.fail(`${key} is computed again`));
    assert.equal(again, at);
  }
  assert.equal(await saved("a#b", 60_000, async () => "written"), "written");
  assert.equal(await cached("a#b", 60_000, async () => assert.fail("it was saved")), "written");
  assert.equal(await cached("a#c", 60_000, async () => assert.fail("it was kept")), 3);
  const { body } = await api("GET", "/api/cache");
  assert.deepEqual(body.keys, [...keys].sort());
});
