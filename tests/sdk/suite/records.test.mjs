// The records contract as an unmodified PocketBase app sees it, under /t/{tenant}.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { ClientResponseError } from "pocketbase";
import { client, makeTenant, startNode, superuserClient } from "../support/node.mjs";

let node;
let base;
let pb;

before(async () => {
  node = await startNode();
  base = await makeTenant(node, "sdk-records");
  pb = await superuserClient(base);
  await pb.collections.create({
    name: "authors",
    type: "base",
    listRule: "",
    viewRule: "",
    fields: [
      { name: "name", type: "text", required: true },
      { name: "secret", type: "text", hidden: true },
    ],
    indexes: ["CREATE UNIQUE INDEX idx_authors_name ON authors (name)"],
  });
  const authors = await pb.collections.getOne("authors");
  await pb.collections.create({
    name: "posts",
    type: "base",
    listRule: "published = true",
    viewRule: "published = true",
    fields: [
      { name: "title", type: "text", required: true, max: 80 },
      { name: "body", type: "editor" },
      { name: "published", type: "bool" },
      { name: "score", type: "number" },
      { name: "tags", type: "select", values: ["red", "green", "blue"], maxSelect: 3 },
      { name: "author", type: "relation", collectionId: authors.id, maxSelect: 1, cascadeDelete: true },
      { name: "editors", type: "relation", collectionId: authors.id, maxSelect: 5 },
      { name: "meta", type: "json" },
      { name: "when", type: "date" },
      { name: "place", type: "geoPoint" },
      { name: "created", type: "autodate", onCreate: true },
      { name: "updated", type: "autodate", onCreate: true, onUpdate: true },
    ],
  });
});

after(async () => node?.stop());

async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof ClientResponseError, String(error));
    return error;
  }
  return assert.fail("the request should have been refused");
}

describe("records", () => {
  test("create returns the whole record in the wire shape", async () => {
    const ada = await pb.collection("authors").create({ name: "Ada" });
    assert.match(ada.id, /^[a-z0-9]{15}$/);
    assert.equal(ada.collectionName, "authors");
    const post = await pb.collection("posts").create({
      title: "First", body: "<p>hello</p>", published: true, score: 1.5, tags: ["red", "blue"], author: ada.id,
      editors: [ada.id], meta: { nested: [1, "two", null] }, when: "2024-05-06 07:08:09.123Z", place: { lon: 13.4, lat: 52.5 },
    });
    assert.deepEqual(post.tags, ["red", "blue"]);
    assert.equal(post.author, ada.id);
    assert.deepEqual(post.editors, [ada.id]);
    assert.deepEqual(post.meta, { nested: [1, "two", null] });
    assert.equal(post.when, "2024-05-06 07:08:09.123Z");
    assert.deepEqual(post.place, { lon: 13.4, lat: 52.5 });
    assert.match(post.created, /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z$/);
    const empty = await pb.collection("posts").create({ title: "Empty" });
    assert.deepEqual(
      [empty.body, empty.published, empty.score, empty.tags, empty.author, empty.editors, empty.when],
      ["", false, 0, [], "", [], ""],
    );
  });

  test("getOne, update with modifiers, delete", async () => {
    const made = await pb.collection("posts").create({ title: "Modify", score: 10, tags: ["red"] });
    const changed = await pb.collection("posts").update(made.id, { "score+": 5, "tags+": "green" });
    assert.equal(changed.score, 15);
    assert.deepEqual(changed.tags, ["red", "green"]);
    const less = await pb.collection("posts").update(made.id, { "score-": 3, "tags-": "red" });
    assert.equal(less.score, 12);
    assert.deepEqual(less.tags, ["green"]);
    assert.equal(await pb.collection("posts").delete(made.id), true);
    assert.equal((await failure(pb.collection("posts").getOne(made.id))).status, 404);
  });

  test("refusals name the field", async () => {
    const missing = await failure(pb.collection("posts").create({ score: 1 }));
    assert.equal(missing.status, 400);
    assert.equal(missing.response.data.title.code, "validation_required");
    await pb.collection("authors").create({ name: "Twice" });
    const twice = await failure(pb.collection("authors").create({ name: "Twice" }));
    assert.equal(twice.response.data.name.code, "validation_not_unique");
    const dangling = await failure(pb.collection("posts").create({ title: "x", author: "nobodynobody123" }));
    assert.equal(dangling.response.data.author.code, "validation_missing_rel_records");
  });

  test("rules: a list narrows, a hidden record is 404, a locked create is 403", async () => {
    const guest = client(base);
    const shown = await pb.collection("posts").create({ title: "Shown", published: true });
    const secret = await pb.collection("posts").create({ title: "Not shown", published: false });
    const titles = (await guest.collection("posts").getFullList()).map((post) => post.title);
    assert.ok(titles.includes("Shown"));
    assert.ok(!titles.includes("Not shown"));
    assert.equal((await guest.collection("posts").getOne(shown.id)).title, "Shown");
    assert.equal((await failure(guest.collection("posts").getOne(secret.id))).status, 404);
    assert.equal((await failure(guest.collection("posts").create({ title: "No" }))).status, 403);
    assert.equal((await failure(guest.collection("posts").delete(shown.id))).status, 403);
  });

  test("hidden fields are neither shown nor nameable", async () => {
    await pb.collection("authors").create({ name: "Keeper", secret: "xyzzy" });
    const guest = client(base);
    const [keeper] = await guest.collection("authors").getFullList({ filter: "name = 'Keeper'" });
    assert.equal(keeper.secret, undefined);
    const oracle = await failure(guest.collection("authors").getFullList({ filter: "secret = 'xyzzy'" }));
    const unknown = await failure(guest.collection("authors").getFullList({ filter: "secreu = 'xyzzy'" }));
    assert.equal(oracle.status, 400);
    assert.equal(oracle.status, unknown.status);
  });
});

describe("lists", () => {
  before(async () => {
    const batch = pb.createBatch();
    for (let n = 0; n < 45; n += 1) {
      batch.collection("posts").create({ title: `Row ${String(n).padStart(2, "0")}`, score: n, published: true, tags: n % 2 ? ["red"] : ["red", "green"] });
    }
    const results = await batch.send();
    assert.equal(results.length, 45);
    assert.ok(results.every((result) => result.status === 200));
  });

  test("getList pages and counts", async () => {
    const page = await pb.collection("posts").getList(2, 20, { filter: "title ~ 'Row '", sort: "-score" });
    assert.deepEqual([page.page, page.perPage, page.totalItems, page.totalPages, page.items.length], [2, 20, 45, 3, 20]);
    assert.equal(page.items[0].title, "Row 24");
    const uncounted = await pb.collection("posts").getList(1, 5, { filter: "title ~ 'Row '", skipTotal: true });
    assert.deepEqual([uncounted.totalItems, uncounted.totalPages], [-1, -1]);
  });

  test("getFullList walks every page", async () => {
    const all = await pb.collection("posts").getFullList({ batch: 10, filter: "title ~ 'Row '" });
    assert.equal(new Set(all.map((post) => post.id)).size, 45);
  });

  test("getFirstListItem and the filter helper", async () => {
    const tricky = `O'Row "0`;
    await pb.collection("posts").create({ title: tricky });
    const found = await pb.collection("posts").getFirstListItem(pb.filter("title = {:title}", { title: tricky }));
    assert.equal(found.title, tricky);
    assert.equal((await failure(pb.collection("posts").getFirstListItem("title = 'absent'"))).status, 404);
  });

  test("operators over many values", async () => {
    const every = await pb.collection("posts").getFullList({ filter: "title ~ 'Row ' && tags:each = 'red'" });
    assert.equal(every.length, 22);
    const some = await pb.collection("posts").getFullList({ filter: "title ~ 'Row ' && tags:each ?= 'green'" });
    assert.equal(some.length, 23);
    const counted = await pb.collection("posts").getFullList({ filter: "title ~ 'Row ' && tags:length = 2" });
    assert.equal(counted.length, 23);
  });

  test("fields and excerpts", async () => {
    await pb.collection("posts").create({ title: "Long", body: `<p>${"word ".repeat(100)}</p>` });
    const found = await pb.collection("posts").getFirstListItem("title = 'Long'", { fields: "id,title,body:excerpt(20,true)" });
    assert.deepEqual(Object.keys(found).sort(), ["body", "id", "title"]);
    assert.ok(found.body.length <= 24 && found.body.endsWith("..."), found.body);
  });

  test("a broken filter says where", async () => {
    const error = await failure(pb.collection("posts").getList(1, 1, { filter: "title = = 'x'" }));
    assert.equal(error.status, 400);
    assert.equal(error.response.code, "filter_invalid");
  });
});

describe("relations", () => {
  test("expand follows relations and back-relations, filters reach through them", async () => {
    const ada = await pb.collection("authors").create({ name: "Expand Ada" });
    const bob = await pb.collection("authors").create({ name: "Expand Bob" });
    await pb.collection("posts").create({ title: "Related", author: ada.id, editors: [ada.id, bob.id], published: true });
    const found = await pb.collection("posts").getFirstListItem("title = 'Related'", { expand: "author,editors" });
    assert.equal(found.expand.author.name, "Expand Ada");
    assert.deepEqual(found.expand.editors.map((editor) => editor.name), ["Expand Ada", "Expand Bob"]);
    const author = await pb.collection("authors").getOne(ada.id, { expand: "posts_via_author" });
    assert.deepEqual(author.expand.posts_via_author.map((post) => post.title), ["Related"]);
    assert.equal((await pb.collection("posts").getFullList({ filter: "author.name = 'Expand Ada'" })).length, 1);
    assert.equal((await pb.collection("posts").getFullList({ filter: "editors.name ?= 'Expand Bob'" })).length, 1);
    assert.equal((await pb.collection("posts").getFullList({ filter: "editors.name = 'Expand Bob'" })).length, 0);
    assert.equal((await pb.collection("authors").getFullList({ filter: "posts_via_author.title ?= 'Related'" })).length, 1);
  });

  test("deleting the target cascades where asked and clears the id elsewhere", async () => {
    const gone = await pb.collection("authors").create({ name: "Gone" });
    const owned = await pb.collection("posts").create({ title: "Owned", author: gone.id });
    const edited = await pb.collection("posts").create({ title: "Edited", editors: [gone.id] });
    await pb.collection("authors").delete(gone.id);
    assert.equal((await failure(pb.collection("posts").getOne(owned.id))).status, 404);
    assert.deepEqual((await pb.collection("posts").getOne(edited.id)).editors, []);
  });
});

describe("batch", () => {
  test("one failing request undoes the whole batch", async () => {
    const batch = pb.createBatch();
    batch.collection("authors").create({ name: "Batch one" });
    batch.collection("authors").create({ name: "" });
    const error = await failure(batch.send());
    assert.equal(error.status, 400);
    assert.equal(error.response.data.requests["1"].code, "batch_request_failed");
    assert.equal((await pb.collection("authors").getFullList({ filter: "name = 'Batch one'" })).length, 0);
  });

  test("create, update, upsert and delete together", async () => {
    const first = await pb.collection("authors").create({ name: "Before" });
    const second = await pb.collection("authors").create({ name: "Away" });
    const batch = pb.createBatch();
    batch.collection("authors").update(first.id, { name: "After" });
    batch.collection("authors").upsert({ id: "upsertedupserte", name: "Upserted" });
    batch.collection("authors").delete(second.id);
    const results = await batch.send();
    assert.deepEqual(results.map((result) => result.status), [200, 200, 204]);
    assert.equal((await pb.collection("authors").getOne(first.id)).name, "After");
    assert.equal((await pb.collection("authors").getOne("upsertedupserte")).name, "Upserted");
  });
});

describe("multipart", () => {
  test("form fields become typed values", async () => {
    const form = new FormData();
    form.append("title", "From a form");
    form.append("score", "7.5");
    form.append("published", "true");
    form.append("tags", "red");
    form.append("tags", "blue");
    const post = await pb.collection("posts").create(form);
    assert.deepEqual([post.title, post.score, post.published, post.tags], ["From a form", 7.5, true, ["red", "blue"]]);
  });

  test("@jsonPayload is merged", async () => {
    const form = new FormData();
    form.append("@jsonPayload", JSON.stringify({ title: "Payload", meta: { deep: true } }));
    const post = await pb.collection("posts").create(form);
    assert.deepEqual([post.title, post.meta], ["Payload", { deep: true }]);
  });
});
