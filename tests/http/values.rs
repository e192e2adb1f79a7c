//! The cache of applications: values, counters and locks, tenant by tenant.

use crate::support::notes::{LIST, notes, until};
use crate::support::{Actor, TestServer, pause};
use serde_json::{Value, json};
use std::sync::Arc;
use tenantry::kernel::clock::SystemClock;

#[tokio::test(flavor = "multi_thread")]
async fn applications_have_values_counters_and_locks_of_their_own() {
    let server = TestServer::start().await;
    let (one, two) = (server.tenant("one").await, server.tenant("two").await);
    one.get("/api/cache/score").await.problem("key_not_found");
    let set = json!({ "value": { "ada": 3 }, "ttlMs": 60_000 });
    assert_eq!(one.put("/api/cache/score", set.clone()).await.ok()["set"], true);
    let found = one.get("/api/cache/score").await.ok();
    assert_eq!(found["value"], json!({ "ada": 3 }));
    assert!((1..=60_000).contains(&found["ttlMs"].as_i64().unwrap()));
    two.get("/api/cache/score").await.problem("key_not_found");
    let absent = json!({ "value": 1, "onlyIf": "absent" });
    assert_eq!(one.put("/api/cache/score", absent).await.ok()["set"], false);
    assert_eq!(one.post("/api/cache/visits", json!({ "increment": 5 })).await.ok()["value"], 5);
    assert_eq!(one.post("/api/cache/visits", json!({ "increment": -2 })).await.ok()["value"], 3);
    one.post("/api/cache/score", json!({ "increment": 1 })).await.problem("parameter_invalid");
    let batch = json!({ "set": [{ "key": "a", "value": [1] }, { "key": "b/c", "value": "x" }],
        "get": ["a", "b/c", "none"], "delete": ["score"] });
    let values = one.post("/api/cache", batch).await.ok();
    assert_eq!(values["values"], json!({ "a": [1], "b/c": "x", "none": null }));
    assert_eq!(one.get("/api/cache/b/c").await.ok()["value"], "x");
    one.delete("/api/cache/score").await.problem("key_not_found");

    let lease = one.post("/api/locks/nightly", json!({ "leaseMs": 60_000 })).await.ok();
    let token = lease["token"].as_str().unwrap().to_owned();
    one.post("/api/locks/nightly", json!({})).await.has_status(409).problem("conflict");
    let renewed = one.patch("/api/locks/nightly", json!({ "token": token, "leaseMs": 30_000 })).await.ok();
    assert_eq!(renewed["fence"], lease["fence"]);
    one.delete("/api/locks/nightly?token=wrong").await.problem("conflict");
    one.delete(&format!("/api/locks/nightly?token={token}")).await.gone();
    let next = one.post("/api/locks/nightly", json!({})).await.ok();
    assert!(next["fence"].as_str() > lease["fence"].as_str());

    server.anon().at("one").get("/api/cache/a").await.has_status(401);
    let server = server.restart().await;
    let one = server.node().at("one");
    assert_eq!(one.get("/api/cache/visits").await.ok()["value"], 3, "an orderly stop keeps values");
}

/// A batch once deleted before it looked at what it was to set, so a refused one had done half of its work.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_a_value_that_is_refused_changes_nothing() {
    let server = TestServer::start().await;
    let one = server.tenant("one").await;
    one.put("/api/cache/kept", json!({ "value": 1 })).await.ok();
    for refused in [json!({ "key": "", "value": 2 }), json!({ "key": "x", "value": 2, "ttlMs": 0 })] {
        let batch = json!({ "delete": ["kept"], "set": [{ "key": "kept", "value": 2 }, refused] });
        one.post("/api/cache", batch).await.problem("parameter_invalid");
        assert_eq!(one.get("/api/cache/kept").await.ok()["value"], 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_all_tenants_share_a_bound_and_each_sees_its_own_use() {
    let toml = "[cache]\nvalues_bytes_max = 1048576\nvalues_tenant_keys_max = 5";
    let server = TestServer::start_with(toml, Arc::new(SystemClock)).await;
    let (one, two) = (server.tenant("one").await, server.tenant("two").await);
    let large = "x".repeat(250_000);
    for n in 0..6 {
        one.put(&format!("/api/cache/small{n}"), json!({ "value": n })).await.ok();
    }
    let values = one.get("/api/admin/cache/stats").await.ok()["values"].clone();
    assert_eq!((&values["keys"], &values["keysMax"], &values["evictions"]), (&json!(5), &json!(5), &json!(1)));
    assert_eq!(values["bytesMax"], 1_048_576, "a tenant may not have more than all have together");
    one.put("/api/cache/large", json!({ "value": large })).await.ok();
    for n in 0..4 {
        two.put(&format!("/api/cache/large{n}"), json!({ "value": large })).await.ok();
    }
    one.get("/api/cache/large").await.problem("key_not_found");
    assert_eq!(two.get("/api/cache/large3").await.ok()["value"], json!(large));
    let report = server.node().get("/api/admin/performance?type=cache").await.ok();
    assert!(report["values"]["bytes"].as_u64() <= Some(1_048_576), "{}", report["values"]);
    assert!(report["values"]["evictions"].as_u64() > Some(1));
}

/// The texts by which kept answers are told and purged, once the cache has looked at what is asked for often.
async fn answer_keys(admin: &Actor, collection: &str) -> Vec<String> {
    let id = admin.get(&format!("/api/collections/{collection}")).await.ok()["id"].clone();
    let lists = format!(":list:{}:", id.as_str().unwrap());
    for _ in 0..1_200 {
        let hot = admin.get("/api/admin/cache/stats").await.ok()["hot"].clone();
        let keys = hot.as_array().unwrap().iter().map(|one| one["key"].as_str().unwrap().to_owned());
        let keys: Vec<String> = keys.filter(|key| key.contains(&lists)).collect();
        if !keys.is_empty() {
            return keys;
        }
        pause(std::time::Duration::from_millis(25)).await;
    }
    panic!("no list is ever told as hot");
}

/// What applications keep under the very names of kept answers, and of their places on disk, is apart from them: neither
/// is read, replaced, deleted, locked or purged with the other, and a restart brings both back as they were.
#[tokio::test(flavor = "multi_thread")]
async fn values_and_kept_answers_never_meet_whatever_they_are_called() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let ada = server.user(&admin, "ada").await;
    notes(&admin).await;
    // Depends on who asks, so that nothing warms it and it comes back from the disk.
    let rule = "@request.auth.id != '' && title != @request.auth.id";
    let body = json!({"name": "own", "type": "base", "listRule": rule, "fields": [{"name": "title", "type": "text"}]});
    admin.post("/api/collections", body).await.created();
    const OWN: &str = "/api/collections/own/records";
    let anon = admin.clone().without_authorization();
    let (kept, own) = (until(&anon, LIST, "l1").await.body, until(&ada.actor, OWN, "l1").await.body);
    let untouched = async || {
        for (actor, path, body) in [(&anon, LIST, &kept), (&ada.actor, OWN, &own)] {
            let answer = actor.get(path).await;
            assert_eq!((answer.header("x-cache"), &answer.body), (Some("l1"), body), "{path}");
        }
    };
    let answers = answer_keys(&admin, "notes").await;
    let key = answers.first().expect("the key of a kept answer");
    let (visible, id) = (key.split('#').next().unwrap(), key.split(':').next().unwrap());
    let digest = key.split('#').nth(1).unwrap();
    let mut names = answers.clone();
    names.extend([visible, id, digest, "notes", "lists", "all"].map(str::to_owned));
    // The first bytes of all places on disk, and what comes next in them.
    for place in ["r", "m", "h", "w", "k", "K"] {
        names.extend([place.to_owned(), format!("{place}{id}"), format!("{place}{id}{digest}")]);
        let exact = format!("{place}{}{id}", char::from(u8::try_from(id.len()).unwrap()));
        let set = json!({"set": [{"key": exact, "value": "forged"}]});
        admin.post("/api/cache", set).await.problem("parameter_invalid");
    }

    let read = async |admin: &Actor| admin.post("/api/cache", json!({"get": names})).await.ok()["values"].clone();
    let all = |value: Value| Value::Object(names.iter().map(|name| (name.clone(), value.clone())).collect());
    assert_eq!(read(&admin).await, all(Value::Null), "no answer is read as a value");
    let deleted = admin.post("/api/cache", json!({"delete": names})).await.ok();
    assert_eq!(deleted["deleted"], 0);
    untouched().await;
    for name in &names {
        let path = name.replace('#', "%23");
        admin.delete(&format!("/api/cache/{path}")).await.problem("key_not_found");
        assert_eq!(admin.post(&format!("/api/cache/{path}"), json!({"increment": 1})).await.ok()["value"], 1);
        let absent = json!({"value": "forged", "onlyIf": "absent"});
        assert_eq!(admin.put(&format!("/api/cache/{path}"), absent).await.ok()["set"], false);
        admin.post(&format!("/api/locks/{path}"), json!({"leaseMs": 600_000})).await.ok();
    }
    assert_eq!(read(&admin).await, all(json!(1)));
    untouched().await;
    let set: Vec<Value> = names.iter().map(|name| json!({"key": name, "value": "forged"})).collect();
    admin.post("/api/cache", json!({"set": set})).await.ok();
    untouched().await;

    // The other way round: what is purged is answers.
    for what in [json!({"key": key}), json!({"key": visible}), json!({"collection": "notes"}), json!({"all": true})] {
        admin.post("/api/admin/cache/purge", what.clone()).await.ok();
        let again = anon.get(LIST).await;
        assert_eq!(again.header("x-cache"), Some("miss"), "{what}");
        assert_eq!(again.body, kept, "{what}");
        assert_eq!(read(&admin).await, all(json!("forged")), "{what}");
        admin.post(&format!("/api/locks/{visible}"), json!({})).await.problem("conflict");
        until(&anon, LIST, "l1").await;
        until(&ada.actor, OWN, "l1").await;
    }

    let server = server.restart().await;
    server.until_disk("ready").await;
    let admin = server.node().at("acme");
    assert_eq!(read(&admin).await, all(json!("forged")), "an orderly stop keeps values");
    let (anon, ada) = (server.anon().at("acme"), server.anon().at("acme").with_authorization(&ada.token));
    let again = ada.get(OWN).await;
    assert_eq!((again.header("x-cache"), &again.body), (Some("l2"), &own));
    assert_eq!(until(&anon, LIST, "l1").await.body, kept);
    let deleted = admin.post("/api/cache", json!({"delete": names})).await.ok();
    assert_eq!(deleted["deleted"], names.len());
    for (actor, path, body) in [(&anon, LIST, &kept), (&ada, OWN, &own)] {
        let answer = actor.get(path).await;
        assert_eq!((answer.header("x-cache"), &answer.body), (Some("l1"), body), "{path}");
    }
}

/// A refusal said neither which member it was about nor what would be right.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_the_member_the_bound_and_what_to_do() {
    let server = TestServer::start().await;
    let admin = server.tenant("one").await;
    admin.put("/api/cache/text", json!({ "value": "x" })).await.ok();
    admin.put("/api/cache/most", json!({ "value": i64::MAX })).await.ok();
    let (key, long) = ("/api/cache/k", "k".repeat(251));
    let many: Vec<String> = (0..501).map(|n| n.to_string()).collect();
    let batch = json!({ "set": [{ "key": "a", "value": 1 }, { "key": "b", "value": 1, "ttlMs": 0 }] });
    let asked = [
        (admin.put(key, json!({ "value": 1, "ttlMs": 0 })).await, "ttlMs", "1 to 2592000000"),
        (admin.put(key, json!({ "value": 1, "onlyIf": "new" })).await, "onlyIf", "absent or present"),
        (admin.put(&format!("/api/cache/{long}"), json!({ "value": 1 })).await, "key", "1 to 250"),
        (admin.put(key, json!({ "value": "x".repeat(300_000) })).await, "value", "262144"),
        (admin.post("/api/cache/text", json!({ "increment": 1 })).await, "increment", "no whole number"),
        (admin.post("/api/cache/most", json!({ "increment": 1 })).await, "increment", "9223372036854775807"),
        (admin.post("/api/cache", json!({ "get": many })).await, "get", "500 together"),
        (admin.post("/api/cache", batch).await, "set.1.ttlMs", "1 to 2592000000"),
        (admin.post("/api/locks/job", json!({ "leaseMs": 3_600_001 })).await, "leaseMs", "1 to 3600000"),
        (admin.patch("/api/locks/job", json!({})).await, "token", "taking the lock"),
        (admin.delete("/api/locks/job").await, "token", "taking the lock"),
        (admin.post("/api/admin/cache/purge", json!({})).await, "body", "Exactly one"),
        (admin.post("/api/admin/cache/purge", json!({ "tag": "a", "all": true })).await, "all", "Exactly one"),
        (admin.post("/api/admin/cache/purge", json!({ "key": "x" })).await, "key", "in hot"),
        (server.node().get("/api/admin/performance").await, "type", "type=cache"),
        (admin.get("/api/cache?limit=0").await, "limit", "1 to 1000"),
        // What is of another type is named by its path.
        (admin.put(key, json!({ "value": 1, "ttlMs": "60" })).await, "ttlMs", "expected a whole number"),
        (admin.put(key, json!(5)).await, "body", "expected an object"),
        (
            admin.post("/api/cache", json!({ "set": [{ "key": 1, "value": 1 }] })).await,
            "set.0.key",
            "expected a string",
        ),
        (server.node().post("/api/tenants", json!({ "name": 5, "slug": "x" })).await, "name", "expected a string"),
        (
            server.node().post("/api/tenants", json!({ "slug": "x", "blueprint": "nope" })).await,
            "blueprint",
            "/api/blueprints",
        ),
    ];
    for (answer, field, said) in asked {
        let body = answer.json();
        assert_eq!(body["errors"][0]["field"], field, "{body}");
        assert!(body["errors"][0]["message"].as_str().unwrap().contains(said), "{said}: {body}");
        assert!(!body.to_string().contains("struct "), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_listed_by_prefix_and_a_lock_is_looked_at_without_its_token() {
    let server = TestServer::start().await;
    let (one, two) = (server.tenant("one").await, server.tenant("two").await);
    for key in ["report:3", "report:1", "other", "report:2"] {
        one.put(&format!("/api/cache/{key}"), json!({ "value": 1 })).await.ok();
    }
    let list = async |query: &str| one.get(&format!("/api/cache?{query}")).await.ok();
    let first = list("prefix=report:&limit=2").await;
    assert_eq!(first, json!({ "keys": ["report:1", "report:2"], "nextAfter": "report:2" }));
    assert_eq!(list("prefix=report:&limit=2&after=report:2").await, json!({ "keys": ["report:3"], "nextAfter": null }));
    assert_eq!(list("").await["keys"].as_array().unwrap().len(), 4);
    assert_eq!(two.get("/api/cache").await.ok(), json!({ "keys": [], "nextAfter": null }), "each tenant its own");
    one.clone().without_authorization().get("/api/cache").await.problem("auth_required");

    assert_eq!(one.get("/api/locks/job").await.ok(), json!({ "held": false }));
    let lease = one.post("/api/locks/job", json!({ "leaseMs": 60_000 })).await.ok();
    let seen = one.get("/api/locks/job").await.ok();
    assert_eq!(seen, json!({ "held": true, "fence": lease["fence"], "expiresMs": lease["expiresMs"] }));
    assert_eq!(two.get("/api/locks/job").await.ok(), json!({ "held": false }));
}
