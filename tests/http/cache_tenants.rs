//! The cache and what happens to whole tenants: copies, imports, deletion, suspension. Ids, slugs and data may be the same;
//! no answer of one is ever another's.

use crate::support::notes::{LIST, from, notes, until};
use crate::support::{Actor, TestServer};
use reqwest::Method;
use serde_json::{Value, json};

const ONE: &str = "/api/collections/notes/records/note00000000001";
/// Shaped by a header, so that it is not warmed and comes from the disk after a restart.
const OWN: &str = "/api/collections/doors/records";

async fn title(actor: &Actor, source: &str) -> Value {
    from(actor.get(ONE).await, source)["title"].clone()
}

async fn make(admin: &Actor) -> Actor {
    notes(admin).await;
    let rule = "@request.headers.x_door = 'open'";
    let body =
        json!({"name": "doors", "type": "base", "listRule": rule, "fields": [{"name": "title", "type": "text"}]});
    admin.post("/api/collections", body).await.created();
    admin.post("/api/collections/doors/records", json!({"title": "a"})).await.created();
    let anon = admin.clone().without_authorization().with_header("x-door", "open");
    for path in [LIST, ONE, OWN] {
        until(&anon, path, "l1").await;
    }
    anon
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_begins_with_nothing_kept_and_writes_to_either_show_there_alone() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let anon = make(&admin).await;
    admin.put("/api/cache/kept", json!({"value": "of acme"})).await.ok();
    server.node().post("/api/tenants/acme/clone", json!({"slug": "copy"})).await.created();
    let exported = server.node().get("/api/tenants/acme/export").await.has_status(200).body;
    let import = server.node().request(Method::POST, "/api/tenants/import?slug=brought").body(exported.to_vec());
    crate::support::Answer::of(import).await.created();
    for slug in ["copy", "brought"] {
        let (theirs, guest) = (admin.clone().at(slug), anon.clone().at(slug));
        theirs.get("/api/cache/kept").await.problem("key_not_found");
        for path in [LIST, ONE, OWN] {
            let kept = from(anon.get(path).await, "l1");
            assert_eq!(from(guest.get(path).await, "miss"), kept, "{slug}: the same data, read from a file of its own");
        }
        theirs.patch(ONE, json!({"title": format!("of {slug}")})).await.ok();
        assert_eq!(title(&guest, "l1").await, format!("of {slug}"));
        assert_eq!(title(&anon, "l1").await, "a", "a write to a copy voids nothing of the source");
        theirs.post("/api/admin/cache/purge", json!({"all": true})).await.ok();
        title(&anon, "l1").await;
    }
    admin.patch(ONE, json!({"title": "of acme"})).await.ok();
    title(&anon.clone().at("copy"), "miss").await;
    for (slug, expected) in [("acme", "of acme"), ("copy", "of copy"), ("brought", "of brought")] {
        assert_eq!(anon.clone().at(slug).get(ONE).await.ok()["title"], expected);
    }
    // The same from disk, where all lie in one store.
    until(&anon, OWN, "l1").await;
    admin.clone().at("copy").post("/api/collections/doors/records", json!({"title": "b"})).await.created();
    until(&anon.clone().at("copy"), OWN, "l1").await;
    let server = server.restart().await;
    server.until_disk("ready").await;
    let anon = server.anon().with_header("x-door", "open");
    for (slug, count) in [("acme", 1), ("copy", 2)] {
        let list = from(anon.clone().at(slug).get(OWN).await, "l2");
        assert_eq!(list["totalItems"], count, "{slug}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_under_the_name_of_a_deleted_tenant_is_not_answered_for_it() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let anon = make(&admin).await;
    admin.put("/api/cache/kept", json!({"value": "of the first"})).await.ok();
    let exported = server.node().get("/api/tenants/acme/export").await.has_status(200).body;
    admin.patch(ONE, json!({"title": "after the export"})).await.ok();
    for path in [LIST, ONE] {
        until(&anon, path, "l1").await;
    }
    server.node().delete("/api/tenants/acme").await.gone();
    anon.get(ONE).await.problem("tenant_not_found");
    let import = server.node().request(Method::POST, "/api/tenants/import?slug=acme").body(exported.to_vec());
    crate::support::Answer::of(import).await.created();
    assert_eq!(title(&anon, "miss").await, "a", "as it was exported");
    assert_eq!(title(&anon, "l1").await, "a");
    admin.get("/api/cache/kept").await.problem("key_not_found");
    server.node().delete("/api/tenants/acme").await.gone();
    server.tenant("acme").await;
    anon.get(ONE).await.problem("collection_not_found");
    notes(&admin).await;
    admin.patch(ONE, json!({"title": "a third"})).await.ok();
    assert_eq!(anon.get(ONE).await.ok()["title"], "a third");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_tenant_is_refused_from_the_cache_too_and_warm_when_it_goes_on() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let anon = make(&admin).await;
    let tag = anon.get(ONE).await.header("etag").unwrap().to_owned();
    server.node().post("/api/tenants/acme/suspend", json!({})).await.ok();
    for path in [LIST, ONE, OWN] {
        anon.get(path).await.problem("tenant_suspended");
        anon.clone().with_header("if-none-match", &*tag).get(path).await.problem("tenant_suspended");
    }
    server.node().post("/api/tenants/acme/resume", json!({})).await.ok();
    for path in [LIST, ONE, OWN] {
        let source = anon.get(path).await.has_status(200).header("x-cache").unwrap().to_owned();
        assert!(["l1", "l2"].contains(&&*source), "{path} came from {source}: nothing changed meanwhile");
    }
}
