// Files as an unmodified PocketBase app handles them: FormData and Blob up, getURL and tokens down.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { client, makeTenant, startNode, superuserClient } from "../support/node.mjs";

let node;
let base;
let pb;

before(async () => {
  node = await startNode();
  base = await makeTenant(node, "sdk-files");
  pb = await superuserClient(base);
  await pb.collections.create({
    name: "papers",
    type: "base",
    listRule: "",
    viewRule: "@request.auth.id != ''",
    createRule: "",
    updateRule: "",
    deleteRule: "",
    fields: [
      { name: "title", type: "text" },
      { name: "cover", type: "file", maxSelect: 1, mimeTypes: ["image/png"] },
      { name: "documents", type: "file", maxSelect: 5, maxSize: 1_000_000 },
      { name: "contract", type: "file", protected: true },
    ],
  });
  await pb.collection("users").create({ email: "ada@example.com", password: "correct-horse", passwordConfirm: "correct-horse" });
});

after(async () => node?.stop());

const png = new Uint8Array([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 0x0d]);
const file = (name, text) => new File([text], name, { type: "text/plain" });
const body = async (url, init) => {
  const answer = await fetch(url, init);
  return { status: answer.status, type: answer.headers.get("content-type"), text: await answer.text() };
};

describe("files", () => {
  test("FormData and Blob are uploaded, and getURL leads to them", async () => {
    const form = new FormData();
    form.append("title", "by form");
    form.append("cover", new Blob([png], { type: "image/png" }), "Cover Picture.png");
    form.append("documents", file("one.txt", "first"));
    form.append("documents", file("two.txt", "second"));
    const made = await pb.collection("papers").create(form);
    assert.match(made.cover, /^cover_picture_[a-z0-9]{10}\.png$/);
    assert.equal(made.documents.length, 2);
    const cover = await fetch(pb.files.getURL(made, made.cover, { thumb: "100x100" }));
    assert.equal(cover.headers.get("content-type"), "image/png");
    assert.deepEqual(new Uint8Array(await cover.arrayBuffer()), png);
    assert.equal((await body(pb.files.getURL(made, made.documents[1]))).text, "second");
  });

  test("an object with files becomes a form by itself", async () => {
    const made = await pb.collection("papers").create({ title: "by object", documents: [file("a.md", "# a")], cover: new Blob([png]) });
    assert.equal(made.title, "by object");
    const got = await body(pb.files.getURL(made, made.documents[0]));
    assert.deepEqual([got.status, got.text], [200, "# a"]);
  });

  test("files are replaced, appended and deleted", async () => {
    const papers = pb.collection("papers");
    const made = await papers.create({ documents: [file("a.txt", "a"), file("b.txt", "b")] });
    const replaced = await papers.update(made.id, { documents: [file("c.txt", "c")] });
    assert.equal(replaced.documents.length, 1);
    const appended = await papers.update(made.id, { "documents+": [file("d.txt", "d"), file("e.txt", "e")] });
    assert.equal(appended.documents.length, 3);
    assert.equal(appended.documents[0], replaced.documents[0]);
    const fewer = await papers.update(made.id, { "documents-": [appended.documents[0]] });
    assert.deepEqual(fewer.documents, appended.documents.slice(1));
    const kept = await papers.update(made.id, { documents: [fewer.documents[1], file("f.txt", "f")] });
    assert.equal(kept.documents[0], fewer.documents[1]);
    const none = await papers.update(made.id, { documents: [] });
    assert.deepEqual(none.documents, []);
    await papers.delete(made.id);
    assert.equal((await body(pb.files.getURL(made, kept.documents[0]))).status, 404);
  });

  test("a refused file is told by its field", async () => {
    await assert.rejects(pb.collection("papers").create({ cover: file("a.png", "no picture") }), (error) => {
      assert.equal(error.status, 400);
      assert.equal(error.response.data.cover.code, "validation_invalid_mime_type");
      return true;
    });
  });

  test("a protected file needs a token", async () => {
    const made = await pb.collection("papers").create({ contract: file("c.txt", "signed") });
    const ada = client(base);
    await ada.collection("users").authWithPassword("ada@example.com", "correct-horse");
    assert.equal((await body(ada.files.getURL(made, made.contract))).status, 404);
    const token = await ada.files.getToken();
    assert.equal((await body(ada.files.getURL(made, made.contract, { token }))).text, "signed");
    const saved = await fetch(ada.files.getURL(made, made.contract, { token, download: true }));
    assert.match(saved.headers.get("content-disposition"), /^attachment/);
  });

  test("a batch carries files", async () => {
    const batch = pb.createBatch();
    batch.collection("papers").create({ title: "first", cover: new File([png], "x.png") });
    batch.collection("papers").create({ title: "second", documents: [file("y.txt", "y"), file("z.txt", "z")] });
    const done = await batch.send();
    assert.deepEqual(done.map((one) => one.status), [200, 200]);
    assert.equal(done[1].body.documents.length, 2);
    assert.equal((await body(pb.files.getURL(done[1].body, done[1].body.documents[0]))).text, "y");
  });
});
