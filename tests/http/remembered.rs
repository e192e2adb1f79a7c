//! Reads that a worker remembers: asked again and again they answer as if each were the first, whatever changed between.
//!
//! Keeps true: every case warms the very request that must be refused, or answered otherwise, after the change; one
//! worker, so that the same memory is asked.

use crate::support::{Actor, TestServer, User};
use serde_json::{Value, json};
use std::sync::Arc;
use tenantry::kernel::clock::{Clock, ManualClock, SystemClock};

const ONE_WORKER: &str = "[http]\nworkers = 1";
const LIST: &str = "/api/collections/notes/records";

async fn start() -> TestServer {
    TestServer::start_with(ONE_WORKER, Arc::new(SystemClock)).await
}

/// A collection with this rule for reading, and one record; its path.
async fn notes(admin: &Actor, rule: Value) -> String {
    let body = json!({"name": "notes", "type": "base", "listRule": rule, "viewRule": rule,
        "fields": [{"name": "title", "type": "text"}]});
    admin.post("/api/collections", body).await.created();
    let made = admin.post(LIST, json!({"title": "a"})).await.created();
    format!("{LIST}/{}", made["id"].as_str().unwrap())
}

/// Asks until a worker must remember, and checks that each answer is the same.
async fn warm(actor: &Actor, path: &str) -> Value {
    let first = actor.get(path).await.ok();
    for _ in 0..4 {
        assert_eq!(actor.get(path).await.ok(), first, "{path}");
    }
    first
}

async fn with_user() -> (TestServer, Actor, User, String) {
    let server = start().await;
    let admin = server.tenant("acme").await;
    let ada = server.user(&admin, "ada").await;
    let one = notes(&admin, json!("@request.auth.id != ''")).await;
    for path in [LIST, &one] {
        warm(&ada.actor, path).await;
    }
    (server, admin, ada, one)
}

#[tokio::test(flavor = "multi_thread")]
async fn logging_out_ends_remembered_reads() {
    let (_server, _, ada, one) = with_user().await;
    ada.actor.post("/api/collections/users/auth-logout", json!({})).await.has_status(204);
    ada.actor.get(&one).await.problem("record_not_found");
    assert_eq!(ada.actor.get(LIST).await.ok()["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_account_ends_remembered_reads() {
    let (_server, admin, ada, one) = with_user().await;
    admin.delete(&format!("/api/collections/users/records/{}", ada.id)).await.has_status(204);
    ada.actor.get(&one).await.problem("record_not_found");
    assert_eq!(ada.actor.get(LIST).await.ok()["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_token_ends_remembered_reads() {
    let clock = Arc::new(ManualClock::new(SystemClock.now_ms()));
    let server = TestServer::start_with(ONE_WORKER, Arc::clone(&clock) as Arc<dyn Clock>).await;
    let admin = server.tenant("acme").await;
    let ada = server.user(&admin, "ada").await;
    let one = notes(&admin, json!("@request.auth.id != ''")).await;
    warm(&ada.actor, &one).await;
    clock.advance_ms(400 * 24 * 60 * 60 * 1_000);
    ada.actor.get(&one).await.problem("record_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_rule_holds_at_once() {
    let (_server, admin, ada, one) = with_user().await;
    admin.patch("/api/collections/notes", json!({"viewRule": null, "listRule": null})).await.ok();
    ada.actor.get(&one).await.has_status(403);
    ada.actor.get(LIST).await.has_status(403);
    admin.patch("/api/collections/notes", json!({"viewRule": "", "listRule": ""})).await.ok();
    warm(&ada.actor, &one).await;
    warm(&ada.actor.clone().without_authorization(), LIST).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_account_is_seen_at_once() {
    let (_server, admin, ada, _) = with_user().await;
    let rule = json!({"viewRule": "@request.auth.name = 'ada'", "listRule": "@request.auth.name = 'ada'"});
    admin.patch("/api/collections/notes", rule).await.ok();
    assert_eq!(warm(&ada.actor, LIST).await["totalItems"], 1);
    admin.patch(&format!("/api/collections/users/records/{}", ada.id), json!({"name": "eve"})).await.ok();
    assert_eq!(warm(&ada.actor, LIST).await["totalItems"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_or_renamed_tenant_is_not_answered_from_memory() {
    let (server, _, ada, one) = with_user().await;
    let stranger = ada.actor.clone().without_authorization();
    server.node().post("/api/tenants/acme/suspend", json!({})).await.ok();
    ada.actor.get(&one).await.problem("tenant_suspended");
    server.node().post("/api/tenants/acme/resume", json!({})).await.ok();
    warm(&ada.actor, &one).await;
    warm(&stranger, LIST).await;
    server.node().patch("/api/tenants/acme", json!({"slug": "zenith"})).await.ok();
    for actor in [&ada.actor, &stranger] {
        actor.get(LIST).await.problem("tenant_not_found");
    }
    warm(&ada.actor.clone().at("zenith"), &one).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rule_reads_of_headers_is_read_every_time() {
    let server = start().await;
    let admin = server.tenant("acme").await;
    let one = notes(&admin, json!("@request.headers.x_door = 'open'")).await;
    let open = admin.clone().without_authorization().with_header("x-door", "open");
    let shut = admin.clone().without_authorization().with_header("x-door", "shut");
    for _ in 0..3 {
        open.get(&one).await.ok();
        shut.get(&one).await.problem("record_not_found");
        assert_eq!(open.get(LIST).await.ok()["totalItems"], 1);
        assert_eq!(shut.get(LIST).await.ok()["totalItems"], 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_and_callers_do_not_meet_in_the_memory() {
    let server = start().await;
    let mut worlds = Vec::new();
    for slug in ["one", "two"] {
        let admin = server.tenant(slug).await;
        let user = server.user(&admin, "ada").await;
        notes(&admin, json!("@request.auth.id != ''")).await;
        admin.post(LIST, json!({"title": slug})).await.created();
        worlds.push((slug, user));
    }
    for _ in 0..3 {
        for (slug, user) in &worlds {
            let by_path = warm(&user.actor, "/api/collections/notes/records?sort=-title").await;
            assert_eq!((&by_path["totalItems"], &by_path["items"][0]["title"]), (&json!(2), &json!(slug)));
            let by_header = server.anon().with_authorization(&user.token).with_header("x-tenant", *slug);
            assert_eq!(warm(&by_header, "/api/collections/notes/records?sort=-title").await, by_path);
            let other = if *slug == "one" { "two" } else { "one" };
            let list = user.actor.clone().at(other).get("/api/collections/notes/records?sort=-title").await.ok();
            assert_eq!(list["totalItems"], 0, "{slug}'s token at {other}");
            let agrees = user.actor.clone().with_header("x-tenant", other);
            agrees.get(LIST).await.problem("tenant_ambiguous");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cache_remembered_reads_show_every_write() {
    let server = TestServer::start_with("[http]\nworkers = 1\n[cache]\nenabled = false", Arc::new(SystemClock)).await;
    let admin = server.tenant("acme").await;
    let one = notes(&admin, json!("")).await;
    let anon = admin.clone().without_authorization();
    for title in ["b", "c", "d"] {
        warm(&anon, &one).await;
        admin.patch(&one, json!({"title": title})).await.ok();
        assert_eq!(anon.get(&one).await.ok()["title"], title);
        assert_eq!(warm(&anon, LIST).await["items"][0]["title"], title);
    }
    admin.delete(&one).await.has_status(204);
    anon.get(&one).await.problem("record_not_found");
    assert_eq!(anon.get(LIST).await.ok()["totalItems"], 0);
}
