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
        let purged = admin.post("/api/admin/cache/purge", body).await.ok()["purged"].clone();
        assert!(purged.as_u64() >= Some(1), "{purged}");
        from(anon.get(LIST).await, "miss");
        from(guest.get(LIST).await, "l1");
    }
    admin.post("/api/admin/cache/purge", json!({})).await.problem("parameter_invalid");
    admin.post("/api/admin/cache/purge", json!({"tag": "a", "all": true})).await.problem("parameter_invalid");
    for unknown in [json!({"event": "order"}), json!({"event": "front"}), json!({"tag": "order.paid"})] {
        until(&anon, LIST, "l1").await;
        assert_eq!(admin.post("/api/admin/cache/purge", unknown).await.ok()["purged"], 0);
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
    admin.post("/api/admin/cache/purge", json!({"key": key})).await.ok();
    let warmed = admin.post("/api/admin/cache/warm", json!({})).await.ok();
    assert_eq!((&warmed["failed"], &warmed["reasons"]), (&json!(0), &json!([])), "{warmed}");
    from(anon.get(LIST).await, "l1");

    server.node().delete("/api/tenants/acme").await.gone();
    let node = server.node().get("/api/admin/performance?type=cache").await.ok();
    assert!(!reports_on(&node, "acme") && reports_on(&node, "other"), "{node}");
    let nameless = |tenant: &Value| tenant["slug"].is_null() && tenant["total"]["misses"] != 0;
    assert!(!node["tenants"].as_array().unwrap().iter().any(nameless), "a deleted tenant leaves nothing: {node}");
}

/// The key of the hottest answer that is there now.
async fn hottest(admin: &Actor) -> Option<String> {
    let hot = admin.get("/api/admin/cache/stats").await.ok()["hot"].clone();
    let found = hot.as_array().unwrap().iter().find(|hot| hot["present"] == true)?["key"].as_str()?.to_owned();
    Some(found)
}

/// Answers that a policy's `key` keeps apart were neither learned as hot nor asked for again, so that the report named the
/// keys of an earlier policy, and a purge of those did nothing and did not say so.
#[tokio::test(flavor = "multi_thread")]
async fn answers_kept_apart_by_a_key_are_hot_purged_verified_and_warmed_like_others() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    notes(&admin).await;
    let anon = admin.clone().without_authorization();
    let [german, english] = ["de", "en"].map(|lang| anon.clone().with_header("x-lang", lang));
    for _ in 0..200 {
        anon.get(LIST).await.ok();
        if hottest(&admin).await.is_some() {
            break;
        }
        crate::support::pause(Duration::from_millis(25)).await;
    }
    let old = hottest(&admin).await.unwrap();
    let policy = json!({"cache": {"key": ["@request.headers.x_lang"]}});
    admin.patch("/api/collections/notes", policy).await.ok();
    let purge =
        async |key: &str| admin.post("/api/admin/cache/purge", json!({"key": key})).await.ok()["purged"].clone();

    let mut key = None;
    for _ in 0..400 {
        german.get(LIST).await.ok();
        key = hottest(&admin).await.filter(|key| *key != old);
        if key.is_some() {
            break;
        }
        crate::support::pause(Duration::from_millis(25)).await;
    }
    let key = key.expect("what is asked for often is hot");
    until(&english, LIST, "l1").await;
    assert_eq!(purge(&old).await, 0, "the answer of an earlier policy is not there");
    from(german.get(LIST).await, "l1");

    let verified = admin.post("/api/admin/cache/verify", json!({})).await.ok();
    assert!(verified["equal"].as_u64() >= Some(2) && verified["different"] == json!([]), "{verified}");
    assert_eq!(purge(&key).await, 1, "the one answer of that key");
    assert_eq!(purge(&key).await, 0, "it is gone");
    from(english.get(LIST).await, "l1");
    let warmed = admin.post("/api/admin/cache/warm", json!({})).await.ok();
    assert!(warmed["filled"].as_u64() >= Some(1), "{warmed}");
    from(german.get(LIST).await, "l1");

    // What was hot under the earlier policy cannot be asked for, and whoever warms is told why.
    let reasons: u64 = warmed["reasons"].as_array().unwrap().iter().map(|one| one["count"].as_u64().unwrap()).sum();
    assert_eq!(warmed["failed"], reasons, "{warmed}");
    let hot = admin.get("/api/admin/cache/stats").await.ok()["hot"].clone();
    let present = |key: &str| hot.as_array().unwrap().iter().any(|hot| hot["key"] == *key && hot["present"] == true);
    assert!(present(&key) && !present(&old), "{hot}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_takes_every_word_of_a_cache_tag_and_says_what_it_found() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let ids = notes(&admin).await;
    let policy = json!({"cache": {"tags": ["front"], "events": ["order.paid"]}});
    admin.patch("/api/collections/notes", policy).await.ok();
    let notes_id = admin.get("/api/collections/notes").await.ok()["id"].clone();
    let marks = json!({"name": "marks", "type": "base", "listRule": "", "viewRule": "",
        "fields": [{"name": "note", "type": "relation", "collectionId": notes_id, "maxSelect": 1}]});
    admin.post("/api/collections", marks).await.created();
    let mark = admin.post("/api/collections/marks/records", json!({"note": ids[0]})).await.created();
    let anon = admin.clone().without_authorization();
    let one = format!("/api/collections/notes/records/{}", ids[0]);
    let other = format!("/api/collections/notes/records/{}", ids[1]);
    let mark = format!("/api/collections/marks/records/{}?expand=note", mark["id"].as_str().unwrap());
    let plain = "/api/collections/marks/records";
    let paths = [LIST, &one, &other, &mark, plain];

    let carried = async |path: &str| {
        let answer = until(&anon, path, "l1").await;
        let words: Vec<String> = answer.header("cache-tag").unwrap().split(',').map(str::to_owned).collect();
        words
    };
    let mut words = std::collections::BTreeSet::new();
    for path in paths {
        words.extend(carried(path).await);
    }
    assert!(words.len() >= 9, "{words:?}");
    let id = words.iter().find(|word| !word.contains(':')).unwrap().clone();
    let mut strays = 0;
    for shown in &words {
        let bare = shown.strip_prefix(&format!("{id}:")).unwrap_or(shown);
        for word in [shown.as_str(), bare] {
            let mut named = Vec::new();
            for path in paths {
                named.push(carried(path).await.contains(shown));
            }
            let done = admin.post("/api/admin/cache/purge", json!({"tag": word})).await.ok();
            for (path, named) in paths.into_iter().zip(&named) {
                // Marks are told apart by hash: once in a thousand purges something else is loaded again too.
                let source = anon.get(path).await.header("x-cache").unwrap().to_owned();
                strays += usize::from(!*named && source == "miss");
                assert!(
                    if *named { source == "miss" } else { source == "l1" || strays <= 1 },
                    "{word} {path}: {source}"
                );
            }
            assert_eq!(done["purged"], named.iter().filter(|named| **named).count(), "{word}: {done}");
        }
    }
    for word in ["fornt", "order.paid", "NOTES", "acme:notes", &format!("{id}:event:order")] {
        let done = admin.post("/api/admin/cache/purge", json!({"tag": word})).await.ok();
        assert_eq!(done["purged"], 0, "{word}");
    }
    from(anon.get(LIST).await, "l1");
}

/// A policy that is refused names the member, the bound and what would be right.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_policy_says_which_member_and_which_are_known() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    notes(&admin).await;
    for (policy, field, said) in [
        (json!("off"), "cache", "must be an object"),
        (json!({"teir": "off"}), "cache.teir", "the members are tier, class"),
        (json!({"cacheControl": {"sMaxAge": 60}}), "cache.cacheControl.sMaxAge", "sMaxage"),
        (json!({"cacheControl": "max-age=x"}), "cache.cacheControl", "max-age=x"),
        (json!({"tags": "a"}), "cache.tags", "must be a list"),
        (json!({"key": ["x_lang"]}), "cache.key.0", "@request.headers.NAME"),
    ] {
        let refused = admin.patch("/api/collections/notes", json!({"cache": policy})).await.has_status(400).json();
        assert_eq!(refused["errors"][0]["field"], field, "{refused}");
        assert!(refused["errors"][0]["message"].as_str().unwrap().contains(said), "{refused}");
    }
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
