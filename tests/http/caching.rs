//! The coherent cache and delivery, as clients see them: never stale, never somebody else's, few bytes.

use crate::support::{Actor, Answer, TestServer};
use reqwest::Method;
use serde_json::{Value, json};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use tenantry::kernel::clock::ManualClock;

const LIST: &str = "/api/collections/notes/records?sort=title";

/// A collection anybody may read, with three records; the ids.
async fn notes(admin: &Actor) -> Vec<String> {
    let body = json!({
        "name": "notes", "type": "base", "listRule": "", "viewRule": "", "partition": "board",
        "fields": [{"name": "board", "type": "text"}, {"name": "title", "type": "text"}, {"name": "points", "type": "number"}],
    });
    admin.post("/api/collections", body).await.created();
    let mut ids = Vec::new();
    // Given, not drawn: records share slots by hash, so with drawn ids a write to one would now and then age another.
    for (id, board, title) in
        [("note00000000001", "red", "a"), ("note00000000002", "red", "b"), ("note00000000003", "blue", "c")]
    {
        let body = json!({"id": id, "board": board, "title": title, "points": 1});
        let made = admin.post("/api/collections/notes/records", body).await.created();
        ids.push(made["id"].as_str().unwrap().to_owned());
    }
    ids
}

#[track_caller]
fn from(answer: Answer, source: &str) -> Value {
    assert_eq!(answer.header("x-cache"), Some(source), "{}", String::from_utf8_lossy(&answer.body));
    answer.ok()
}

/// Asks until the answer comes from `source`: describing a file to the cache and opening the disk happen beside requests.
async fn until(actor: &Actor, path: &str, source: &str) -> Answer {
    for _ in 0..200 {
        let answer = actor.get(path).await.has_status(200);
        if answer.header("x-cache") == Some(source) {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{path} never came from {source}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_shows_at_once_in_every_kind_of_read() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let ids = notes(&admin).await;
    let view = json!({"name": "titles", "type": "view", "listRule": "", "viewRule": "",
        "viewQuery": "SELECT id, title, points FROM notes"});
    admin.post("/api/collections", view).await.created();
    let notes_id = admin.get("/api/collections/notes").await.ok()["id"].clone();
    let marks = json!({"name": "marks", "type": "base", "listRule": "", "viewRule": "",
        "fields": [{"name": "note", "type": "relation", "collectionId": notes_id, "maxSelect": 1}]});
    admin.post("/api/collections", marks).await.created();
    admin.post("/api/collections/marks/records", json!({"note": ids[0]})).await.created();

    let anon = admin.clone().without_authorization();
    let one = format!("/api/collections/notes/records/{}", ids[0]);
    let seen: [(&str, &str); 6] = [
        (&one, "/title"),
        (LIST, "/items/0/title"),
        ("/api/collections/notes/records?filter=points%3D1&sort=title&cursor=", "/items/0/title"),
        ("/api/collections/notes/records?aggregate=max(title)", "/items/0/max(title)"),
        ("/api/collections/titles/records?sort=title", "/items/0/title"),
        ("/api/collections/marks/records?expand=note", "/items/0/expand/note/title"),
    ];
    for (path, _) in seen {
        until(&anon, path, "l1").await;
    }
    for round in 0..3 {
        let title = format!("0 round {round}");
        admin.patch(&one, json!({"title": title})).await.ok();
        for (path, pointer) in seen {
            // The record itself was kept as its writer was answered, who sees the same of it.
            let body = from(anon.get(path).await, if path == one { "l1" } else { "miss" });
            assert_eq!(body.pointer(pointer), expected_at(path, &title).as_ref(), "{path}: {body}");
            assert_eq!(from(anon.get(path).await, "l1"), body, "{path}");
        }
    }
    admin.delete("/api/collections/notes/records/x").await.problem("record_not_found");
    from(anon.get(LIST).await, "l1");
}

/// What a read shows of the changed record: its title, or the largest of all titles.
fn expected_at(path: &str, title: &str) -> Option<Value> {
    Some(if path.contains("aggregate") { json!("c") } else { json!(title) })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_spellings_of_one_total_are_two_answers() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    notes(&admin).await;
    let anon = admin.without_authorization();
    for spelling in ["max(title)", "max( title)", "max(title )"] {
        let path = format!("/api/collections/notes/records?aggregate={spelling}");
        assert_eq!(from(anon.get(&path).await, "miss")["items"][0][spelling], "c");
    }
    // The order of these is one, but a cursor is good only for the sort it was made for.
    for sort in ["title", "title,id"] {
        let path = format!("/api/collections/notes/records?perPage=1&cursor=&sort={sort}");
        let cursor = anon.get(&path).await.ok()["nextCursor"].as_str().unwrap().to_owned();
        let next = format!("/api/collections/notes/records?perPage=1&sort={sort}&cursor={cursor}");
        assert_eq!(anon.get(&next).await.ok()["items"][0]["title"], "b", "{sort}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_leaves_other_partitions_records_and_tenants_alone() {
    let server = TestServer::start().await;
    let (admin, other) = (server.tenant("acme").await, server.tenant("other").await);
    let (ids, _) = (notes(&admin).await, notes(&other).await);
    let (anon, guest) = (admin.clone().without_authorization(), other.clone().without_authorization());
    let of = |board: &str| format!("/api/collections/notes/records?filter=board%3D%22{board}%22");
    let (red, blue) = (of("red"), of("blue"));
    let [red_sum, blue_sum] = [&red, &blue].map(|path| format!("{path}&aggregate=count,sum(points)"));
    let second = format!("/api/collections/notes/records/{}", ids[1]);
    for path in [&red, &blue, &red_sum, &blue_sum, &second] {
        until(&anon, path, "l1").await;
    }
    until(&guest, LIST, "l1").await;

    let first = format!("/api/collections/notes/records/{}", ids[0]);
    admin.patch(&first, json!({"title": "changed", "points": 5})).await.ok();
    from(anon.get(&blue).await, "l1");
    from(anon.get(&blue_sum).await, "l1");
    from(anon.get(&second).await, "l1");
    from(guest.get(LIST).await, "l1");
    assert!(from(anon.get(&red).await, "miss").to_string().contains("changed"));
    assert_eq!(from(anon.get(&red_sum).await, "miss")["items"][0]["sum(points)"], 6);

    // A record that moves is gone from one partition and there in the other.
    admin.patch(&first, json!({"board": "blue"})).await.ok();
    assert_eq!(from(anon.get(&red).await, "miss")["totalItems"], 1);
    assert_eq!(from(anon.get(&blue).await, "miss")["totalItems"], 2);
    assert_eq!(from(anon.get(&red_sum).await, "miss")["items"][0]["count"], 1);
    assert_eq!(from(anon.get(&blue_sum).await, "miss")["items"][0]["count"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_receives_bytes_made_for_somebody_else() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let (ada, bob) = (server.user(&admin, "ada").await, server.user(&admin, "bob").await);
    let rule = "@request.auth.id != ''";
    let body = json!({"name": "posts", "type": "base", "listRule": rule, "viewRule": rule, "fields": [
        {"name": "owner", "type": "text"}, {"name": "title", "type": "text"},
        {"name": "secret", "type": "text", "hidden": true}]});
    admin.post("/api/collections", body).await.created();
    let own = json!({"name": "diaries", "type": "base", "listRule": "owner = @request.auth.id",
        "viewRule": "owner = @request.auth.id", "fields": [{"name": "owner", "type": "text"}]});
    admin.post("/api/collections", own).await.created();
    for user in [&ada, &bob] {
        let body = json!({"owner": user.id, "title": "t", "secret": "hush"});
        admin.post("/api/collections/posts/records", body).await.created();
        admin.post("/api/collections/diaries/records", json!({"owner": user.id})).await.created();
    }
    let users = json!({"listRule": "", "viewRule": ""});
    admin.patch("/api/collections/users", users).await.ok();
    let anon = admin.clone().without_authorization();
    let paths =
        ["/api/collections/posts/records", "/api/collections/diaries/records", "/api/collections/users/records"];
    // Whoever warms the cache, the next caller over the same address gets what is theirs.
    let callers = [&admin, &anon, &ada.actor, &bob.actor];
    for first in 0..callers.len() {
        admin.post("/api/admin/cache/purge", json!({"all": true})).await.gone();
        for turn in 0..callers.len() * 2 {
            let at = (first + turn) % callers.len();
            let [posts, diaries, users] = paths.map(|path| callers[at].get(path));
            let (posts, diaries, users) = (posts.await, diaries.await, users.await);
            for answer in [&posts, &diaries, &users] {
                let control = answer.header("cache-control").unwrap().to_owned();
                let public = at == 1 && answer.header("cache-tag").is_some();
                assert!(public || control.contains("private") || control.contains("no-store"), "{control}");
                assert!(answer.header("vary").unwrap().contains("Authorization"));
            }
            let (posts, diaries, users) = (posts.ok(), diaries.ok(), users.ok());
            let count = |body: &Value| body["items"].as_array().unwrap().len();
            let emails = users.to_string().matches("@example.com").count();
            let expected = [(2, 2, 2), (0, 0, 0), (2, 1, 1), (2, 1, 1)][at];
            assert_eq!((count(&posts), count(&diaries), emails), expected, "caller {at}");
            assert_eq!(posts.to_string().contains("hush"), at == 0, "caller {at}");
            match at {
                2 => assert!(diaries.to_string().contains(&ada.id) && users.to_string().contains("ada@example.com")),
                3 => assert!(diaries.to_string().contains(&bob.id) && users.to_string().contains("bob@example.com")),
                _ => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_rule_or_role_counts_from_the_next_request() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    notes(&admin).await;
    let anon = admin.clone().without_authorization();
    until(&anon, LIST, "l1").await;
    admin.patch("/api/collections/notes", json!({"listRule": "title = 'b'"})).await.ok();
    assert_eq!(anon.get(LIST).await.ok()["totalItems"], 1);
    admin.patch("/api/collections/notes", json!({"listRule": null})).await.ok();
    anon.get(LIST).await.problem("superuser_required");

    // A role that a rule looks up elsewhere.
    let ada = server.user(&admin, "ada").await;
    let members = json!({"name": "members", "type": "base",
        "fields": [{"name": "user", "type": "text"}, {"name": "role", "type": "text"}]});
    admin.post("/api/collections", members).await.created();
    let rule = "@collection.members.user ?= @request.auth.id && @collection.members.role ?= 'reader'";
    admin.patch("/api/collections/notes", json!({"listRule": rule})).await.ok();
    assert_eq!(ada.actor.get(LIST).await.ok()["totalItems"], 0);
    let member = json!({"user": ada.id, "role": "reader"});
    let member = admin.post("/api/collections/members/records", member).await.created();
    assert_eq!(ada.actor.get(LIST).await.ok()["totalItems"], 3);
    from(ada.actor.get(LIST).await, "l1");
    let path = format!("/api/collections/members/records/{}", member["id"].as_str().unwrap());
    admin.delete(&path).await.gone();
    assert_eq!(ada.actor.get(LIST).await.ok()["totalItems"], 0);
}

fn decode(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match coding {
        "br" => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out).unwrap(),
        "zstd" => zstd::Decoder::new(bytes).unwrap().read_to_end(&mut out).unwrap(),
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap(),
        _ => flate2::read::ZlibDecoder::new(bytes).read_to_end(&mut out).unwrap(),
    };
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn every_coding_carries_the_same_body_and_its_tag_is_recognised() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let ids = notes(&admin).await;
    for n in 0..30 {
        let body = json!({"board": "red", "title": format!("title {n}")});
        admin.post("/api/collections/notes/records", body).await.created();
    }
    let anon = admin.clone().without_authorization();
    let plain = until(&anon, LIST, "l1").await;
    assert!(plain.header("content-encoding").is_none() && plain.body.len() > 1024);
    assert_eq!(plain.header("vary"), Some("Authorization, X-Tenant, Accept-Encoding"));
    assert!(plain.header("cache-tag").unwrap().contains(":notes"));
    for coding in ["br", "zstd", "gzip", "deflate"] {
        let asking = anon.clone().with_header("accept-encoding", coding);
        let coded = asking.clone().with_header("x-debug-size", "1").get(LIST).await.has_status(200);
        assert_eq!(coded.header("content-encoding"), Some(coding));
        assert_eq!(decode(coding, &coded.body), plain.body, "{coding}");
        assert_eq!(coded.header("x-original-size"), Some(plain.body.len().to_string().as_str()));
        assert_eq!(coded.header("x-compressed-size"), Some(coded.body.len().to_string().as_str()));
        assert!(coded.header("x-compression-ratio").unwrap().parse::<f64>().unwrap() > 0.5);
        assert_ne!(coded.header("etag"), plain.header("etag"));
        for tag in [coded.header("etag"), plain.header("etag"), Some("*")] {
            let again = asking.clone().with_header("if-none-match", tag.unwrap()).get(LIST).await.has_status(304);
            assert!(again.body.is_empty());
            assert_eq!(again.header("etag"), coded.header("etag"));
            assert_eq!(again.header("x-cache"), Some("l1"));
        }
        let changed = asking.with_header("if-none-match", "\"other\"").get(LIST).await;
        changed.has_status(200);
    }
    // Too small to be worth it, or the client wants the plain form alone.
    let small = format!("/api/collections/notes/records/{}", ids[0]);
    let small = anon.clone().with_header("accept-encoding", "br, gzip").get(&small).await.has_status(200);
    assert!(small.header("content-encoding").is_none());
    let never = anon.clone().with_header("accept-encoding", "gzip;q=0, identity").get(LIST).await.has_status(200);
    assert_eq!(never.body, plain.body);
    let only = anon.clone().with_header("accept-encoding", "identity;q=0, gzip").get(LIST).await.has_status(200);
    assert_eq!(only.header("content-encoding"), Some("gzip"));

    // No coding at all is taken: RFC 9110, 12.5.3 lets the server send the plain form rather than nothing.
    let none = anon.clone().with_header("accept-encoding", "identity;q=0").get(LIST).await.has_status(200);
    assert_eq!((none.header("content-encoding"), &none.body), (None, &plain.body));
    let any = anon.clone().with_header("accept-encoding", "identity;q=0, *").get(LIST).await.has_status(200);
    assert!(any.header("content-encoding").is_some());

    let head = Answer::of(anon.request(Method::HEAD, LIST)).await.has_status(200);
    assert!(head.body.is_empty());
    assert_eq!(head.header("etag"), plain.header("etag"));
    assert_eq!(head.header("content-length"), Some(plain.body.len().to_string().as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_outlives_the_process_and_its_loss_costs_speed_only() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    notes(&admin).await;
    let ada = server.user(&admin, "ada").await;
    // An answer that depends on who asks is not warmed, so where it comes from is the disk.
    admin.patch("/api/collections/notes", json!({"listRule": "title != @request.auth.id"})).await.ok();
    until(&ada.actor, LIST, "l1").await;
    let pages: Vec<String> = (1..=60).map(|len| format!("{LIST}&perPage={len}")).collect();
    for page in &pages {
        ada.actor.get(page).await.ok();
    }

    let server = server.restart().await;
    let again = server.anon().at("acme").with_authorization(&ada.token);
    // The disk opens beside the first requests, which would be answered without it.
    for _ in 0..1_200 {
        let report = server.node().get("/api/admin/performance?type=cache").await.ok();
        if report["disk"]["state"] == "ready" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    for page in &pages {
        assert_eq!(from(again.get(page).await, "l2")["totalItems"], 3, "{page}");
    }
    let admin = server.node().at("acme");
    admin.post("/api/collections/notes/records", json!({"board": "red", "title": "d"})).await.created();
    assert_eq!(from(again.get(LIST).await, "miss")["totalItems"], 4);

    // A write after the answer was kept, then a restart: the disk's copy is not served.
    until(&again, LIST, "l1").await;
    let server = server.restart_after(|folder| std::fs::remove_dir_all(folder.join("cache")).unwrap()).await;
    let again = server.anon().at("acme").with_authorization(&ada.token);
    assert_eq!(again.get(LIST).await.ok()["totalItems"], 4);
    until(&again, LIST, "l1").await;

    let server = server.restart_after(|folder| garble(&folder.join("cache"))).await;
    let again = server.anon().at("acme").with_authorization(&ada.token);
    for _ in 0..10 {
        assert_eq!(again.get(LIST).await.ok()["totalItems"], 4);
    }
    let health = server.anon().get("/health").await.ok();
    assert!(["ok", "degraded"].contains(&health["status"].as_str().unwrap()), "{health}");
    let report = server.node().get("/api/admin/performance?type=cache").await.ok();
    assert_eq!(report["enabled"], true);
}

/// Flips bytes in every file below `folder`.
fn garble(folder: &std::path::Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            garble(&path);
        } else {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes.iter_mut().step_by(7).for_each(|byte| *byte ^= 0x5a);
            std::fs::write(&path, bytes).unwrap();
        }
    }
}

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
        tokio::time::sleep(Duration::from_millis(25)).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_written_record_is_kept_as_it_was_answered_where_the_policy_and_the_rule_allow() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let ids = notes(&admin).await;
    let anon = admin.clone().without_authorization();
    let one = format!("/api/collections/notes/records/{}", ids[0]);
    let write_through = |wanted: Value| {
        let admin = admin.clone();
        async move { admin.patch("/api/collections/notes", json!({"cache": wanted, "updateRule": ""})).await.ok() }
    };
    // By default a record that was being read is kept anew, by whoever changes it as it is read.
    write_through(json!({})).await;
    admin.patch(&one, json!({"title": "unread"})).await.ok();
    from(admin.get(&one).await, "miss");
    let changed = admin.patch(&one, json!({"title": "read"})).await.ok();
    assert_eq!(from(admin.get(&one).await, "l1"), changed);
    assert_eq!(from(anon.get(&one).await, "l1"), changed, "whoever sees the same shares the answer");
    let changed = anon.patch(&one, json!({"title": "by anybody"})).await.ok();
    assert_eq!(from(anon.get(&one).await, "l1"), changed);
    assert_eq!(from(admin.get(&one).await, "l1"), changed);
    // Nothing was written: the answer in memory is still right, and was not replaced by one from another moment.
    anon.patch(&one, json!({"title": "by anybody"})).await.ok();
    from(anon.get(&one).await, "l1");

    write_through(json!({"writeThrough": true})).await;
    let made = admin.post("/api/collections/notes/records", json!({"board": "red", "title": "new"})).await.created();
    let path = format!("/api/collections/notes/records/{}", made["id"].as_str().unwrap());
    assert_eq!(from(admin.get(&path).await, "l1"), made);
    // A later write, also one inside a batch, voids it as any other answer.
    let batch = json!({"requests": [{"method": "PATCH", "url": path, "body": {"title": "batched"}}]});
    admin.post("/api/batch", batch).await.has_status(200);
    assert_eq!(from(admin.get(&path).await, "miss")["title"], "batched");
    // A dry run changes nothing, so there is nothing to keep.
    admin.patch(&format!("{path}?dryRun=true"), json!({"title": "dry"})).await.ok();
    assert_eq!(from(admin.get(&path).await, "l1")["title"], "batched");

    write_through(json!({"writeThrough": false})).await;
    from(admin.get(&path).await, "miss");
    admin.patch(&path, json!({"title": "last"})).await.ok();
    assert_eq!(from(admin.get(&path).await, "miss")["title"], "last");

    // A rule that looks at the record decides with every read.
    let rule = json!({"viewRule": "points > 5", "cache": {"writeThrough": true}});
    admin.patch("/api/collections/notes", rule).await.ok();
    anon.patch(&path, json!({"points": 1})).await.ok();
    anon.get(&path).await.problem("record_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_answer_can_be_continued_and_never_patched_together_from_two() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let ids = notes(&admin).await;
    let lines: Vec<Value> = (0..150)
        .map(|n| json!({"method": "POST", "url": "/api/collections/notes/records", "body": {"board": "red", "title": format!("{n} {}", "long ".repeat(90))}}))
        .collect();
    admin.post("/api/batch", json!({"requests": lines})).await.has_status(200);
    let anon = admin.clone().without_authorization();
    let path = &format!("{LIST}&perPage=500");
    let whole = until(&anon, path, "l1").await;
    let (size, tag) = (whole.body.len(), whole.header("etag").unwrap().to_owned());
    assert!(size > 64 * 1024);
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));

    let asking = |range: &str| anon.clone().with_header("range", range).with_header("accept-encoding", "br");
    let cut = size / 3;
    let first = asking(&format!("bytes=0-{}", cut - 1)).get(path).await.has_status(206);
    assert_eq!(first.header("content-range"), Some(&*format!("bytes 0-{}/{size}", cut - 1)));
    assert!(first.header("content-encoding").is_none(), "parts are of the plain body");
    assert_eq!(first.header("etag"), Some(&*tag));
    let rest = asking(&format!("bytes={cut}-")).with_header("if-range", &*tag).get(path).await.has_status(206);
    assert_eq!([first.body, rest.body].concat(), whole.body);
    let last = asking("bytes=-7").get(path).await.has_status(206);
    assert_eq!(last.body, whole.body[size - 7..]);
    for all in ["bytes=0-1,5-6", "lines=1-2", "bytes=9-2"] {
        asking(all).get(path).await.has_status(200);
    }
    let outside = asking(&format!("bytes={size}-")).get(path).await.has_status(416);
    assert_eq!(outside.header("content-range"), Some(&*format!("bytes */{size}")));
    outside.problem("range_not_satisfiable");
    let head = anon.clone().with_header("range", "bytes=0-9").request(Method::HEAD, path);
    Answer::of(head).await.has_status(200);
    asking("bytes=0-9").with_header("if-none-match", &*tag).get(path).await.has_status(304);

    // Another answer by now: all of it, not a part that does not fit.
    admin.patch(&format!("/api/collections/notes/records/{}", ids[0]), json!({"title": "other"})).await.ok();
    let changed = asking(&format!("bytes={cut}-")).with_header("if-range", &*tag).get(path).await.has_status(200);
    assert_ne!(changed.header("etag"), Some(&*tag));
    for unfit in [format!("W/{tag}"), "Sat, 01 Jan 2028 00:00:00 GMT".to_owned()] {
        asking("bytes=0-9").with_header("if-range", unfit).get(path).await.has_status(200);
    }
    let export = admin.get("/api/collections/notes/export").await.has_status(200);
    assert_eq!(export.header("accept-ranges"), Some("none"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_of_hits_is_recomputed_while_writers_write_and_none_differs() {
    let clock = std::sync::Arc::new(tenantry::kernel::clock::SystemClock);
    let server = TestServer::start_with("[cache]\nverify_every = 1", clock).await;
    let admin = server.tenant("acme").await;
    let ids = notes(&admin).await;
    let anon = admin.clone().without_authorization();
    until(&anon, LIST, "l1").await;
    let writing = async {
        for round in 0..40 {
            let path = format!("/api/collections/notes/records/{}", ids[round % ids.len()]);
            admin.patch(&path, json!({"points": round})).await.ok();
        }
    };
    let reading = async {
        for round in 0..120 {
            let one = format!("/api/collections/notes/records/{}", ids[round % ids.len()]);
            anon.get(&one).await.ok();
            anon.get(LIST).await.ok();
        }
    };
    futures_util::join!(writing, reading);
    let total = server.node().get("/api/admin/performance?type=cache").await.ok()["total"].clone();
    assert!(total["verified"].as_u64().unwrap() > 20, "{total}");
    assert_eq!(total["mismatches"], 0, "{total}");
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

/// The fields of the notes, with titles that can be searched.
async fn searchable(admin: &Actor) -> Value {
    let mut fields = admin.get("/api/collections/notes").await.ok()["fields"].clone();
    for field in fields.as_array_mut().unwrap().iter_mut().filter(|field| field["name"] == "title") {
        field["searchable"] = json!(true);
    }
    fields
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
            tokio::time::sleep(Duration::from_millis(50)).await;
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

fn reports_on(node: &Value, slug: &str) -> bool {
    node["tenants"].as_array().unwrap().iter().any(|tenant| tenant["slug"] == slug)
}
