// Collections, auth and tenants as the SDK drives them.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { client, makeTenant, startNode, superuser, superuserClient } from "../support/node.mjs";

let node;
let base;
let pb;

before(async () => {
  node = await startNode();
  base = await makeTenant(node, "sdk-collections");
  pb = await superuserClient(base);
});

after(async () => node?.stop());

test("the node's superuser logs in without a tenant and with one", async () => {
  for (const url of [node.url, base]) {
    const answer = await client(url).collection("_superusers").authWithPassword(superuser.email, superuser.password);
    assert.equal(answer.record.email, superuser.email);
    assert.ok(answer.token.split(".").length === 3);
  }
});

test("a wrong password is refused without a hint", async () => {
  const guest = client(base);
  const known = await guest.collection("_superusers").authWithPassword(superuser.email, "wrong-wrong-wrong").catch((error) => error);
  const unknown = await guest.collection("_superusers").authWithPassword("nobody@example.com", "wrong-wrong-wrong").catch((error) => error);
  assert.equal(known.status, 400);
  assert.deepEqual(known.response.message, unknown.response.message);
  assert.deepEqual(known.response.data, unknown.response.data);
});

test("collections: create, list, rename, change fields, delete", async () => {
  const made = await pb.collections.create({ name: "notes", type: "base", fields: [{ name: "text", type: "text" }, { name: "n", type: "number" }] });
  assert.deepEqual(made.fields.map((field) => field.name).slice(0, 3), ["id", "text", "n"]);
  const kept = await pb.collection("notes").create({ text: "kept", n: 3 });
  const renamed = await pb.collections.update("notes", { name: "memos", fields: [...made.fields, { name: "extra", type: "bool" }] });
  assert.equal(renamed.name, "memos");
  const record = await pb.collection("memos").getOne(kept.id);
  assert.deepEqual([record.text, record.n, record.extra], ["kept", 3, false]);
  const dropped = await pb.collections.update("memos", { fields: renamed.fields.filter((field) => field.name !== "n") });
  assert.ok(!dropped.fields.some((field) => field.name === "n"));
  assert.equal((await pb.collection("memos").getOne(kept.id)).n, undefined);
  assert.ok((await pb.collections.getFullList()).some((collection) => collection.name === "memos"));
  await pb.collections.truncate("memos");
  assert.equal((await pb.collection("memos").getFullList()).length, 0);
  assert.equal(await pb.collections.delete("memos"), true);
});

test("auth collections: register, log in, refresh, see only what is allowed", async () => {
  await pb.collections.create({
    name: "people", type: "auth", createRule: "", listRule: "@request.auth.id != ''", viewRule: "id = @request.auth.id", updateRule: "id = @request.auth.id",
    fields: [{ name: "nick", type: "text" }],
  });
  const guest = client(base);
  const ada = await guest.collection("people").create({ email: "ada@example.com", password: "ada-ada-ada-1", passwordConfirm: "ada-ada-ada-1", nick: "ada" });
  assert.equal(ada.email, undefined, "the address is hidden from a stranger");
  await guest.collection("people").create({ email: "bob@example.com", password: "bob-bob-bob-1", passwordConfirm: "bob-bob-bob-1", nick: "bob" });
  const auth = await guest.collection("people").authWithPassword("ada@example.com", "ada-ada-ada-1");
  assert.equal(auth.record.email, "ada@example.com");
  const refreshed = await guest.collection("people").authRefresh();
  assert.ok(refreshed.token);
  const listed = await guest.collection("people").getFullList({ sort: "nick" });
  assert.deepEqual(listed.map((person) => [person.nick, person.email]), [["ada", "ada@example.com"], ["bob", undefined]]);
  const changed = await guest.collection("people").update(ada.id, { nick: "ada l" });
  assert.equal(changed.nick, "ada l");
});

test("a view collection reads through to its sources", async () => {
  await pb.collections.create({ name: "sales", type: "base", fields: [{ name: "shop", type: "text" }, { name: "amount", type: "number" }] });
  for (const [shop, amount] of [["a", 1], ["a", 2], ["b", 5]]) await pb.collection("sales").create({ shop, amount });
  await pb.collections.create({ name: "totals", type: "view", listRule: "", viewQuery: "SELECT min(id) AS id, shop, sum(amount) AS total FROM sales GROUP BY shop" });
  const totals = await client(base).collection("totals").getFullList({ sort: "shop" });
  assert.deepEqual(totals.map((row) => [row.shop, row.total]), [["a", 3], ["b", 5]]);
});

test("two tenants hold the same names apart", async () => {
  const other = await makeTenant(node, "sdk-other");
  const otherPb = await superuserClient(other);
  await otherPb.collections.create({ name: "sales", type: "base", listRule: "", fields: [{ name: "shop", type: "text" }] });
  assert.equal((await client(other).collection("sales").getFullList()).length, 0);
});
