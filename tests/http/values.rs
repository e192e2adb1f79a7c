//! The cache of applications: values, counters and locks, tenant by tenant.

use crate::support::TestServer;
use serde_json::json;
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
