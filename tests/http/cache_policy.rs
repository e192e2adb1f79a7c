//! What policies and those who run a node say about the cache, and what it says of itself.

use crate::support::notes::{LIST, from, notes, until};
use crate::support::{Actor, TestServer};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tenantry::kernel::clock::ManualClock;

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_or_a_superuser_goes_past_the_cache_and_nobody_else() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    notes(&admin).await;
    let anon = admin.clone().without_authorization();
    until(&anon, LIST, "l1").await;
    from(anon.clone().with_header("cache-control", "no-cache").get(LIST).await, "l1");
    until(&admin, LIST, "l1").await;
    from(admin.clone().with_header("cache-control", "no-cache").get(LIST).await, "bypass");

    let policy = json!({"cache": {"tier": "l1", "class": "live", "tags": ["front"],
        "cacheControl": {"public": true, "maxAge": 30}}});
    admin.patch("/api/collections/notes", policy).await.ok();
    let answer = until(&anon, LIST, "l1").await;
    assert!(answer.header("cache-control").unwrap().contains("max-age=30"));
    assert!(answer.header("cache-tag").unwrap().contains(":front"));
    assert!(until(&admin, LIST, "l1").await.header("cache-control").unwrap().contains("private"));

    admin.patch("/api/collections/notes", json!({"cache": {"tier": "off"}})).await.ok();
    from(anon.get(LIST).await, "bypass");
    from(anon.get(LIST).await, "bypass");

    let clock = std::sync::Arc::new(tenantry::kernel::clock::SystemClock);
    let without = TestServer::start_with("[cache]\nenabled = false", clock).await;
    let admin = without.tenant("acme").await;
    notes(&admin).await;
    from(admin.get(LIST).await, "bypass");
    from(admin.get(LIST).await, "bypass");
    assert_eq!(admin.get("/api/admin/cache/stats").await.ok()["enabled"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_says_of_single_routes_what_differs_there() {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let server = TestServer::start_with("[cache]\ndisk = false", Arc::clone(&clock) as _).await;
    let admin = server.tenant("acme").await;
    let ids = notes(&admin).await;
    let policy = json!({"cache": {"ttlSeconds": 600, "cacheControl": "max-age=600",
        "list": {"class": "live", "cacheControl": {"public": true, "maxAge": 5}},
        "aggregate": {"ttlSeconds": 10}, "search": {"tier": "off"}, "view": {}}});
    admin.patch("/api/collections/notes", policy).await.ok();
    let anon = admin.clone().without_authorization();
    let one = format!("/api/collections/notes/records/{}", ids[0]);
    let total = "/api/collections/notes/records?aggregate=count";
    assert_eq!(until(&anon, LIST, "l1").await.header("cache-control"), Some("public, max-age=5"));
    assert_eq!(until(&anon, &one, "l1").await.header("cache-control"), Some("max-age=600"));
    until(&anon, total, "l1").await;
    for (seconds, list, totals) in [(9, "l1", "l1"), (1, "l1", "miss"), (50, "miss", "miss")] {
        clock.advance_ms(seconds * 1_000);
        from(anon.get(LIST).await, list);
        from(anon.get(total).await, totals);
        from(anon.get(&one).await, "l1");
    }
    admin.patch("/api/collections/notes", json!({"fields": searchable(&admin).await})).await.ok();
    let search = "/api/collections/notes/records?search=a";
    for _ in 0..2 {
        from(anon.get(search).await, "bypass");
    }
    let wrong = json!({"cache": {"list": {"ttlSeconds": -1}}});
    let refused = admin.patch("/api/collections/notes", wrong).await.has_status(400).json();
    assert!(refused["data"].to_string().contains("ttlSeconds"), "{refused}");
}

/// Each class lives as long as is documented and no longer, in memory and on disk.
#[tokio::test(flavor = "multi_thread")]
async fn every_class_is_kept_for_its_time() {
    const CLASSES: [(Option<&str>, i64); 7] = [
        (None, 300),
        (Some("session"), 86_400),
        (Some("profile"), 3_600),
        (Some("data"), 300),
        (Some("live"), 60),
        (Some("analytics"), 900),
        (Some("static"), 3_600),
    ];
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let server = TestServer::start_with("", Arc::clone(&clock) as _).await;
    let admin = server.tenant("acme").await;
    notes(&admin).await;
    server.until_disk("ready").await;
    let anon = admin.clone().without_authorization().with_header("x-door", "open");
    for (tier, kept) in [("both", "l1"), ("l2", "l2")] {
        for (class, seconds) in CLASSES {
            // Depends on a header, so that nothing refills it meanwhile.
            let policy = json!({"tier": tier, "class": class.unwrap_or("data")});
            let mut policy = json!({"cache": policy, "listRule": "@request.headers.x_door = 'open'"});
            if class.is_none() {
                policy["cache"].as_object_mut().unwrap().remove("class");
            }
            admin.patch("/api/collections/notes", policy).await.ok();
            from(anon.get(LIST).await, "miss");
            clock.advance_ms(seconds * 1_000 - 1);
            from(anon.get(LIST).await, kept);
            clock.advance_ms(1);
            from(anon.get(LIST).await, "miss");
        }
    }
}

/// The fields of the notes, with titles that can be searched.
async fn searchable(admin: &Actor) -> Value {
    let mut fields = admin.get("/api/collections/notes").await.ok()["fields"].clone();
    for field in fields.as_array_mut().unwrap().iter_mut().filter(|field| field["name"] == "title") {
        field["searchable"] = json!(true);
    }
    fields
}

#[tokio::test(flavor = "multi_thread")]
async fn superusers_see_purge_verify_and_warm_one_tenant() {
    let server = TestServer::start().await;
    let (admin, other) = (server.tenant("acme").await, server.tenant("other").await);
    notes(&admin).await;
    notes(&other).await;
    let policy = json!({"cache": {"tags": ["front"], "events": ["order.paid"]}});
    admin.patch("/api/collections/notes", policy).await.ok();
    let (anon, guest) = (admin.clone().without_authorization(), other.clone().without_authorization());
    for (actor, path) in [(&anon, "/stats"), (&anon, "/purge")] {
        let path = format!("/api/admin/cache{path}");
        let answer = if path.ends_with("stats") { actor.get(&path).await } else { actor.post(&path, json!({})).await };
        answer.problem("auth_required");
    }
    for _ in 0..20 {
        anon.get(LIST).await.ok();
    }
    until(&guest, LIST, "l1").await;
    let stats = admin.get("/api/admin/cache/stats").await.ok();
    assert_eq!(stats["slug"], "acme");
    assert_eq!(stats["collections"][0]["name"], "notes");
    assert!(stats["total"]["l1Hits"].as_u64().unwrap() >= 10, "{stats}");
    let node = server.node().get("/api/admin/performance?type=cache").await.ok();
    assert!(reports_on(&node, "acme") && reports_on(&node, "other"), "{node}");
    let of_acme = node["tenants"].as_array().unwrap().iter().find(|tenant| tenant["slug"] == "acme").unwrap();
    assert_eq!(of_acme["collections"][0]["name"], "notes", "{of_acme}");
    server.node().get("/api/admin/performance?type=colour").await.problem("parameter_invalid");

    let event = json!({"event": "order.paid"});
    for body in [json!({"tag": "front"}), event, json!({"collection": "notes"}), json!({"all": true})] {
        until(&anon, LIST, "l1").await;
        admin.post("/api/admin/cache/purge", body).await.gone();
        from(anon.get(LIST).await, "miss");
        from(guest.get(LIST).await, "l1");
    }
    admin.post("/api/admin/cache/purge", json!({})).await.problem("parameter_invalid");
    admin.post("/api/admin/cache/purge", json!({"tag": "a", "all": true})).await.problem("parameter_invalid");
    for unknown in [json!({"event": "order"}), json!({"event": "front"}), json!({"tag": "order.paid"})] {
        until(&anon, LIST, "l1").await;
        admin.post("/api/admin/cache/purge", unknown).await.gone();
        from(anon.get(LIST).await, "l1");
    }
    admin.post("/api/admin/cache/purge", json!({"collection": "x"})).await.problem("collection_not_found");

    let verified = admin.post("/api/admin/cache/verify", json!({"sample": 50})).await.ok();
    assert!(verified["equal"].as_u64().unwrap() >= 1, "{verified}");
    assert_eq!(verified["different"], json!([]));

    // Upkeep learns what is hot within a few seconds; then a purged answer can be refilled without a reader.
    let mut key = Value::Null;
    for _ in 0..200 {
        anon.get(LIST).await.ok();
        key = admin.get("/api/admin/cache/stats").await.ok()["hot"][0]["key"].clone();
        if key.is_string() {
            break;
        }
        crate::support::pause(Duration::from_millis(25)).await;
    }
    other.post("/api/admin/cache/purge", json!({"key": key})).await.problem("parameter_invalid");
    admin.post("/api/admin/cache/purge", json!({"key": key})).await.gone();
    let warmed = admin.post("/api/admin/cache/warm", json!({})).await.ok();
    assert_eq!(warmed["failed"], 0, "{warmed}");
    from(anon.get(LIST).await, "l1");

    server.node().delete("/api/tenants/acme").await.gone();
    let node = server.node().get("/api/admin/performance?type=cache").await.ok();
    assert!(!reports_on(&node, "acme") && reports_on(&node, "other"), "{node}");
    let nameless = |tenant: &Value| tenant["slug"].is_null() && tenant["total"]["misses"] != 0;
    assert!(!node["tenants"].as_array().unwrap().iter().any(nameless), "a deleted tenant leaves nothing: {node}");
}

fn reports_on(node: &Value, slug: &str) -> bool {
    node["tenants"].as_array().unwrap().iter().any(|tenant| tenant["slug"] == slug)
}

/// Every decision rests on two measurements half a minute apart, so nobody had seen one on a running node.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_node_adapts_says_so_and_leaves_it_where_told() {
    for (toml, adapts) in [("[cache]\ndisk = false", true), ("[cache]\ndisk = false\nadaptive = false", false)] {
        let clock = Arc::new(ManualClock::new(1_700_000_000_000));
        let server = TestServer::start_with(toml, Arc::clone(&clock) as _).await;
        let admin = server.tenant("acme").await;
        notes(&admin).await;
        let board = "long ".repeat(300);
        admin.post("/api/collections/notes/records", json!({"board": board, "title": "d"})).await.created();
        let asking = admin.clone().without_authorization().with_header("accept-encoding", "gzip, deflate, br, zstd");
        let mut report = Value::Null;
        for round in 0..if adapts { 400 } else { 120 } {
            // Another answer each time, so that there is something to compress.
            asking.get(&format!("{LIST}&perPage={}", 10 + round)).await.has_status(200);
            clock.advance_ms(31_000);
            report = server.node().get("/api/admin/performance?type=cache").await.ok();
            if report["decided"] != 0 {
                break;
            }
            crate::support::pause(Duration::from_millis(50)).await;
        }
        let zstd = &report["compression"]["codings"]["zstd"];
        assert!(zstd["count"].as_u64() > Some(0) && report["compression"]["codings"]["br"]["count"] == 0, "{report}");
        if adapts {
            let made = &report["decisions"][0];
            assert_eq!((&made["what"], &made["from"], &made["to"]), (&json!("zstd_level"), &json!(1), &json!(2)));
        } else {
            assert_eq!((&report["decided"], &report["decisions"]), (&json!(0), &json!([])), "{report}");
        }
    }
}
