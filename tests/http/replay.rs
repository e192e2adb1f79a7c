//! Nothing of tenant A works at tenant B: ids, tokens, cursors, paths, keys, sessions.

use crate::support::{Actor, PASSWORD, TestServer, User};
use serde_json::{Value, json};

struct Pair {
    server: TestServer,
    a: Actor,
    b: Actor,
    ada_of_a: User,
    ada_of_b: User,
    note_of_a: String,
}

/// Two tenants with the same collections, the same e-mail addresses and different notes.
async fn pair() -> Pair {
    let server = TestServer::start().await;
    let (a, b) = (server.tenant("tenant-a").await, server.tenant("tenant-b").await);
    let own = "owner = @request.auth.id";
    let notes = json!({ "name": "notes", "type": "base", "listRule": own, "viewRule": own, "createRule": own,
        "updateRule": own, "deleteRule": own,
        "fields": [{ "name": "text", "type": "text" }, { "name": "owner", "type": "text" }, { "name": "n", "type": "number" }] });
    for admin in [&a, &b] {
        admin.post("/api/collections", notes.clone()).await.created();
    }
    let (ada_of_a, ada_of_b) = (server.user(&a, "ada").await, server.user(&b, "ada").await);
    let mut note_of_a = String::new();
    for (user, text) in [(&ada_of_b, "of b"), (&ada_of_a, "of a")] {
        for n in 0..3 {
            let body = json!({ "text": text, "owner": user.id, "n": n });
            let made = user.actor.post("/api/collections/notes/records", body).await.created();
            note_of_a = made["id"].as_str().unwrap().to_owned();
        }
    }
    Pair { server, a, b, ada_of_a, ada_of_b, note_of_a }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_address_may_exist_in_both_and_each_sees_the_own() {
    let pair = pair().await;
    for (user, text) in [(&pair.ada_of_a, "of a"), (&pair.ada_of_b, "of b")] {
        let list = user.actor.get("/api/collections/notes/records").await.ok();
        assert_eq!(list["totalItems"], 3);
        assert!(list["items"].as_array().unwrap().iter().all(|note| note["text"] == text), "{list}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_one_tenant_makes_a_stranger_of_its_bearer_at_the_other() {
    let pair = pair().await;
    let thief = pair.b.clone().with_authorization(&pair.ada_of_a.token);
    assert_eq!(thief.get("/api/collections/notes/records").await.ok()["totalItems"], 0);
    assert_eq!(thief.get("/api/collections/users/records").await.ok()["totalItems"], 0);
    let body = json!({ "text": "x", "owner": pair.ada_of_a.id });
    thief.post("/api/collections/notes/records", body).await.has_status(400).problem("create_refused");
    thief.post("/api/collections/users/auth-refresh", json!({})).await.has_status(401).problem("token_invalid");
    thief.post("/api/files/token", json!({})).await.has_status(401).problem("token_invalid");
    thief.get("/api/collections").await.has_status(401).problem("token_invalid");
    let changes = thief.get("/api/changes").await;
    assert!([401, 403].contains(&changes.status.as_u16()), "{changes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_one_tenant_mean_nothing_at_the_other() {
    let pair = pair().await;
    let path = format!("/api/collections/notes/records/{}", pair.note_of_a);
    for actor in [&pair.b, &pair.ada_of_b.actor] {
        actor.get(&path).await.has_status(404).problem("record_not_found");
        actor.patch(&path, json!({ "text": "taken" })).await.has_status(404).problem("record_not_found");
        actor.delete(&path).await.has_status(404).problem("record_not_found");
    }
    for path in [
        format!("/api/collections/notes/records/..%2F..%2Ftenant-a%2F{}", pair.note_of_a),
        format!("/t/tenant-a/api/collections/notes/records/{}", pair.note_of_a),
        format!("/../tenant-a/api/collections/notes/records/{}", pair.note_of_a),
        format!("/api/../../tenant-a/api/collections/notes/records/{}", pair.note_of_a),
    ] {
        // Spoken by B's own user, so anything but a refusal would have crossed over.
        let answer = pair.ada_of_b.actor.get(&path).await;
        assert!(answer.status.is_client_error(), "{path}: {answer:?}");
    }
    assert_eq!(pair.ada_of_a.actor.get(&path).await.ok()["text"], "of a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_is_bound_to_its_tenant() {
    let pair = pair().await;
    let path = "/api/collections/notes/records?perPage=1&sort=n&cursor=";
    let first = pair.ada_of_a.actor.get(path).await.ok();
    let cursor = first["nextCursor"].as_str().expect("a next page");
    pair.ada_of_a.actor.get(&format!("{path}{cursor}")).await.ok();
    pair.ada_of_b.actor.get(&format!("{path}{cursor}")).await.has_status(400).problem("cursor_invalid");
    pair.b.get(&format!("{path}{cursor}")).await.problem("cursor_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_keys_and_codes_stay_at_home() {
    let pair = pair().await;
    let login = json!({ "identity": "ada@example.com", "password": PASSWORD });
    let guest_a = pair.a.clone().without_authorization();
    let session = guest_a.post("/api/collections/users/auth-with-password?session=1", login).await.ok();
    let refresh = json!({ "refreshToken": session["refreshToken"] });
    let guest_b = pair.b.clone().without_authorization();
    guest_b.post("/api/collections/users/auth-refresh", refresh.clone()).await.has_status(401).problem("token_invalid");
    let held = guest_b.clone().with_authorization(session["token"].as_str().unwrap());
    assert_eq!(held.get("/api/collections/notes/records").await.ok()["totalItems"], 0);
    let id = session["sessionId"].as_str().unwrap();
    let revoke = format!("/api/collections/users/sessions/{id}");
    assert!(pair.ada_of_b.actor.delete(&revoke).await.status.is_client_error());
    // The session survived all of that at home.
    guest_a.post("/api/collections/users/auth-refresh", refresh).await.ok();

    let key = json!({ "name": "k", "scopes": { "operations": ["read"] } });
    let key = pair.ada_of_a.actor.post("/api/keys", key).await.ok();
    let secret = key["key"].as_str().or_else(|| key["secret"].as_str()).expect("a key is shown once");
    let at_home = guest_a.clone().with_authorization(secret);
    assert_eq!(at_home.get("/api/collections/notes/records").await.ok()["totalItems"], 3);
    let abroad = guest_b.with_authorization(secret);
    let answer = abroad.get("/api/collections/notes/records").await;
    assert!(answer.status.is_client_error() || answer.json()["totalItems"] == 0, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_cannot_leave_its_tenant() {
    let pair = pair().await;
    let get = |url: String| json!({ "requests": [{ "method": "GET", "url": url }] });
    for url in [
        format!("/t/tenant-a/api/collections/notes/records/{}", pair.note_of_a),
        format!("/api/collections/notes/records/{}", pair.note_of_a),
        format!("http://tenant-a.localhost/api/collections/notes/records/{}", pair.note_of_a),
    ] {
        pair.b.post("/api/batch", get(url)).await.has_status(400);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_tenant_names_nobody_elses_records() {
    let pair = pair().await;
    let changes = |tenant: Actor| async move { tenant.get("/api/changes?limit=1000").await.ok().to_string() };
    let (of_a, of_b) = (changes(pair.a.clone()).await, changes(pair.b.clone()).await);
    assert!(of_a.contains(&pair.note_of_a) && !of_b.contains(&pair.note_of_a));
    assert!(of_b.contains("of b") && !of_a.contains("of b"));
    assert!(!pair.server.folder().join("tenants").join("tenant-a").exists(), "folders carry ids, not slugs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_own_collection_of_superusers_is_not_one() {
    let pair = pair().await;
    let fake = json!({ "name": "_superusers", "type": "auth" });
    let answer = pair.a.post("/api/collections", fake).await;
    assert!(answer.status.is_client_error(), "{answer:?}");
    let list: Value = pair.a.get("/api/collections/_superusers/records").await.ok();
    assert_eq!(list["totalItems"], 0, "the route leads to the node's own list");
    pair.ada_of_a.actor.get("/api/collections/_superusers/records").await.has_status(403);
}
