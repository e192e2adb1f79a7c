//! The cache of applications: values, counters and locks, tenant by tenant.

use crate::support::TestServer;
use serde_json::json;

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
