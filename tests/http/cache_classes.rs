//! Who shares a cached answer when less than the whole record is guarded, and what a session's end does to it; and a
//! cache folder that is damaged or taken away under a running node.

use crate::support::{Actor, Answer, TestServer};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

fn items(body: &Value) -> Vec<&Value> {
    body["items"].as_array().unwrap().iter().collect()
}

/// Asks twice, so that the second answer may come from the cache whoever filled it; both must be the same.
async fn twice(actor: &Actor, path: &str) -> Value {
    let first = actor.get(path).await.ok();
    assert_eq!(actor.get(path).await.ok(), first, "{path}");
    first
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guarded_field_is_shown_to_those_its_rule_admits_whoever_filled_the_cache() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let (ada, bob) = (server.user(&admin, "ada").await, server.user(&admin, "bob").await);
    let body = json!({"name": "posts", "type": "base", "listRule": "", "viewRule": "", "fields": [
        {"name": "owner", "type": "text"}, {"name": "title", "type": "text"},
        {"name": "draft", "type": "text", "readRule": "owner = @request.auth.id"},
        {"name": "note", "type": "text", "readRule": "@request.auth.id != ''"}]});
    admin.post("/api/collections", body).await.created();
    let mut ids = Vec::new();
    for user in [&ada, &bob] {
        let body = json!({"owner": user.id, "title": "t", "draft": format!("draft of {}", user.id), "note": "members"});
        ids.push(admin.post("/api/collections/posts/records", body).await.created()["id"].as_str().unwrap().to_owned());
    }
    let anon = admin.clone().without_authorization();
    let callers = [(&anon, None), (&ada.actor, Some(&ada.id)), (&bob.actor, Some(&bob.id))];
    for first in 0..callers.len() {
        admin.post("/api/admin/cache/purge", json!({"all": true})).await.ok();
        for turn in 0..callers.len() {
            let (actor, id) = callers[(first + turn) % callers.len()];
            let list = twice(actor, "/api/collections/posts/records?sort=title").await;
            let ones = [
                twice(actor, &format!("/api/collections/posts/records/{}", ids[0])).await,
                twice(actor, &format!("/api/collections/posts/records/{}", ids[1])).await,
            ];
            for record in items(&list).into_iter().chain(&ones) {
                let own = id.is_some_and(|id| record["owner"] == id.as_str());
                let draft = record["draft"].as_str().unwrap_or_default();
                assert_eq!(draft.starts_with("draft of"), own, "{record}");
                assert_eq!(record["note"] == "members", id.is_some(), "{record}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expanded_record_is_shown_under_its_own_rule_whoever_filled_the_cache() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let (ada, bob) = (server.user(&admin, "ada").await, server.user(&admin, "bob").await);
    let rule = "owner = @request.auth.id";
    let body = json!({"name": "diaries", "type": "base", "listRule": rule, "viewRule": rule,
        "fields": [{"name": "owner", "type": "text"}, {"name": "text", "type": "text"}]});
    let diaries = admin.post("/api/collections", body).await.created()["id"].clone();
    let body = json!({"name": "pages", "type": "base", "listRule": "", "viewRule": "",
        "fields": [{"name": "diary", "type": "relation", "collectionId": diaries, "maxSelect": 1}]});
    admin.post("/api/collections", body).await.created();
    for user in [&ada, &bob] {
        let body = json!({"owner": user.id, "text": format!("of {}", user.id)});
        let diary = admin.post("/api/collections/diaries/records", body).await.created()["id"].clone();
        admin.post("/api/collections/pages/records", json!({"diary": diary})).await.created();
    }
    let anon = admin.clone().without_authorization();
    let callers = [(&anon, None), (&ada.actor, Some(&ada.id)), (&bob.actor, Some(&bob.id))];
    for first in 0..callers.len() {
        admin.post("/api/admin/cache/purge", json!({"all": true})).await.ok();
        for turn in 0..callers.len() {
            let (actor, id) = callers[(first + turn) % callers.len()];
            let list = twice(actor, "/api/collections/pages/records?expand=diary").await;
            assert_eq!(items(&list).len(), 2);
            let shown: Vec<&str> =
                items(&list).iter().filter_map(|page| page["expand"]["diary"]["text"].as_str()).collect();
            let expected: Vec<String> = id.iter().map(|id| format!("of {id}")).collect();
            assert_eq!(shown, expected, "{list}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_answer_ends_for_its_reader_with_the_session() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let (ada, bob) = (server.user(&admin, "ada").await, server.user(&admin, "bob").await);
    let body = json!({"name": "posts", "type": "base", "listRule": "@request.auth.id != ''", "viewRule": "",
        "fields": [{"name": "title", "type": "text"}]});
    admin.post("/api/collections", body).await.created();
    admin.post("/api/collections/posts/records", json!({"title": "members only"})).await.created();
    const LIST: &str = "/api/collections/posts/records";
    let kept = |answer: Answer| {
        assert_eq!(answer.header("x-cache"), Some("l1"));
        (answer.header("etag").unwrap().to_owned(), answer.ok())
    };
    for user in [&ada, &bob] {
        twice(&user.actor, LIST).await;
    }
    let (tag, _) = kept(ada.actor.get(LIST).await);
    ada.actor.post("/api/collections/users/auth-logout", json!({})).await.gone();
    // A token that has ended is a stranger's, as in PocketBase: neither the answer nor the word that it has not changed.
    assert!(items(&ada.actor.get(LIST).await.ok()).is_empty());
    let again = ada.actor.clone().with_header("if-none-match", &*tag).get(LIST).await;
    assert!(items(&again.ok()).is_empty());
    // Others go on being answered from memory, strangers see nothing.
    assert_eq!(items(&kept(bob.actor.get(LIST).await).1).len(), 1);
    assert!(items(&admin.clone().without_authorization().get(LIST).await.ok()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_folder_lost_or_damaged_under_a_running_node_costs_no_answer_and_heals() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let body = json!({"name": "notes", "type": "base", "listRule": "", "viewRule": "",
        "fields": [{"name": "title", "type": "text"}]});
    admin.post("/api/collections", body).await.created();
    let made = admin.post("/api/collections/notes/records", json!({"title": "0"})).await.created();
    let one = format!("/api/collections/notes/records/{}", made["id"].as_str().unwrap());
    let anon = admin.clone().without_authorization();
    let cache = server.folder().join("cache");
    for round in 1..=4 {
        if round % 2 == 0 {
            std::fs::remove_dir_all(&cache).unwrap();
        } else {
            garble(&cache);
        }
        for step in 0..20 {
            let title = format!("{round} {step}");
            admin.patch(&one, json!({"title": title})).await.ok();
            for _ in 0..2 {
                assert_eq!(anon.get(&one).await.ok()["title"], title);
                let list = anon.get(&format!("/api/collections/notes/records?filter=title!='{step}'")).await.ok();
                assert_eq!(list["items"][0]["title"], title);
            }
        }
        // Taken away or not, it is there again and in use.
        until_ready(&server, &cache).await;
    }
    assert_eq!(server.anon().get("/health").await.ok()["checks"]["cache"], "ok");
}

async fn until_ready(server: &TestServer, cache: &Path) {
    for _ in 0..1_200 {
        let report = server.node().get("/api/admin/performance?type=cache").await.ok();
        if report["disk"]["state"] == "ready" && cache.join("lock").exists() {
            return;
        }
        crate::support::pause(Duration::from_millis(50)).await;
    }
    panic!("the disk tier never healed");
}

/// Flips bytes in every file below `folder`; what vanishes meanwhile is damaged enough.
fn garble(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            garble(&path);
        } else if let Ok(mut bytes) = std::fs::read(&path) {
            bytes.iter_mut().step_by(7).for_each(|byte| *byte ^= 0x5a);
            let _ = std::fs::write(&path, bytes);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_a_rule_or_the_policy_reads_are_told_to_caches() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let body = json!({"name": "posts", "type": "base", "listRule": "@request.headers.x_side_door = 'open'", "viewRule": "",
        "fields": [{"name": "title", "type": "text"}]});
    admin.post("/api/collections", body).await.created();
    let made = admin.post("/api/collections/posts/records", json!({"title": "a"})).await.created();
    let one = format!("/api/collections/posts/records/{}", made["id"].as_str().unwrap());
    let list = "/api/collections/posts/records";
    let anon = admin.clone().without_authorization();
    let open = anon.clone().with_header("x-side-door", "open");
    const USUAL: &str = "Authorization, X-Tenant, Accept-Encoding, Origin";
    let vary = |answer: &Answer| answer.header("vary").unwrap().to_owned();
    for _ in 0..3 {
        let answer = open.get(list).await.has_status(200);
        assert_eq!((vary(&answer), items(&answer.ok()).len()), (format!("{USUAL}, x-side-door"), 1));
        let answer = anon.get(list).await.has_status(200);
        assert_eq!((vary(&answer), items(&answer.ok()).len()), (format!("{USUAL}, x-side-door"), 0));
        assert_eq!(vary(&anon.get(&one).await), USUAL);
    }
    let tag = open.get(list).await.header("etag").unwrap().to_owned();
    let unchanged = open.clone().with_header("if-none-match", tag).get(list).await.has_status(304);
    assert_eq!(vary(&unchanged), format!("{USUAL}, x-side-door"));
    // Also where nothing is kept here, and for what the policy names.
    for policy in
        [json!({"key": ["@request.headers.x_lang"]}), json!({"tier": "off", "key": ["@request.headers.x_lang"]})]
    {
        admin.patch("/api/collections/posts", json!({"cache": policy})).await.ok();
        assert_eq!(vary(&anon.get(&one).await), format!("{USUAL}, x-lang"));
        assert_eq!(vary(&open.get(list).await), format!("{USUAL}, x-lang, x-side-door"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_reads_the_present_or_chance_is_never_kept_nor_what_reads_it() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let body = json!({"name": "posts", "type": "base", "listRule": "", "viewRule": "",
        "fields": [{"name": "title", "type": "text"}, {"name": "due", "type": "date"}]});
    admin.post("/api/collections", body).await.created();
    let made = admin.post("/api/collections/posts/records", json!({"title": "a", "due": "2026-01-02"})).await.created();
    let view = |name: &str, query: &str| json!({"name": name, "type": "view", "viewQuery": query, "listRule": "", "viewRule": ""});
    for (name, query) in [
        ("days", "SELECT id, id AS post, date(due) AS day FROM posts"),
        ("dice", "SELECT id, id AS post, abs(random()) AS drawn FROM posts"),
        ("thrown", "SELECT id, post, drawn FROM dice"),
        ("late", "SELECT id, title FROM posts WHERE due < strftime('%Y-%m-%d', 'now')"),
    ] {
        admin.post("/api/collections", view(name, query)).await.created();
    }
    let anon = admin.clone().without_authorization();
    let list = |name: &str| format!("/api/collections/{name}/records");
    let one = |name: &str| format!("{}/{}", list(name), made["id"].as_str().unwrap());
    twice(&anon, &list("days")).await;
    twice(&anon, &one("days")).await;
    let drawn = format!("{}?filter=@collection.dice.drawn%20?>=%200", list("posts"));
    for path in [
        list("dice"),
        one("dice"),
        list("thrown"),
        list("late"),
        drawn,
        format!("{}?aggregate=max(drawn)", list("thrown")),
    ] {
        // Only superusers may name another collection in a filter.
        let actor = if path.contains("@collection") { &admin } else { &anon };
        let seen = [actor.get(&path).await, actor.get(&path).await];
        for answer in &seen {
            assert_eq!(answer.header("x-cache"), Some("bypass"), "{path}: {}", String::from_utf8_lossy(&answer.body));
            assert_eq!(answer.status.as_u16(), 200, "{path}");
        }
        if path.contains("dice/") || path.contains("thrown") {
            assert_ne!(seen[0].body, seen[1].body, "{path}: drawn anew each time");
        }
    }
    // By a rule too.
    admin.patch("/api/collections/posts", json!({"listRule": "@collection.late.id ?= id"})).await.ok();
    for _ in 0..2 {
        assert_eq!(anon.get(&list("posts")).await.header("x-cache"), Some("bypass"));
    }
}

/// The text of two plans can be the same while their guards stand before different cells, so the key has to tell them apart
/// now that strangers and users share what is the same for both.
#[tokio::test(flavor = "multi_thread")]
async fn plans_of_one_text_that_guard_different_fields_share_nothing() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let ada = server.user(&admin, "ada").await;
    let body = json!({"name": "posts", "type": "base", "listRule": "", "viewRule": "", "fields": [
        {"name": "open", "type": "bool"},
        {"name": "inside", "type": "text", "readRule": "@request.auth.id != '' || open = true"},
        {"name": "outside", "type": "text", "readRule": "@request.auth.id = '' || open = true"}]});
    admin.post("/api/collections", body).await.created();
    let made = admin.post("/api/collections/posts/records", json!({"inside": "in", "outside": "out"})).await.created();
    let anon = admin.clone().without_authorization();
    let one = format!("/api/collections/posts/records/{}", made["id"].as_str().unwrap());
    for first in 0..3 {
        admin.post("/api/admin/cache/purge", json!({"all": true})).await.ok();
        let mut callers = [(&anon, false, true), (&ada.actor, true, false), (&admin, true, true)];
        callers.rotate_left(first);
        for (actor, inside, outside) in callers {
            for body in [twice(actor, &one).await, twice(actor, "/api/collections/posts/records").await] {
                let record = body.get("items").map_or(&body, |items| &items[0]);
                assert_eq!(
                    (record.get("inside").is_some(), record.get("outside").is_some()),
                    (inside, outside),
                    "{body}"
                );
            }
        }
    }
}

/// What is public was kept once for strangers and once for everybody who had logged in.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_which_nothing_depends_on_the_caller_is_kept_once_and_told_to_others_as_each_may_hear() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let (ada, bob) = (server.user(&admin, "ada").await, server.user(&admin, "bob").await);
    let body = json!({"name": "posts", "type": "base", "listRule": "", "viewRule": "",
        "cache": {"cacheControl": "public, max-age=60"},
        "fields": [{"name": "title", "type": "text"}, {"name": "secret", "type": "text", "hidden": true}]});
    admin.post("/api/collections", body).await.created();
    admin.post("/api/collections/posts/records", json!({"title": "t", "secret": "s"})).await.created();
    const LIST: &str = "/api/collections/posts/records";
    let anon = admin.clone().without_authorization();
    let first = ada.actor.get(LIST).await.has_status(200);
    assert_eq!((first.header("x-cache"), first.header("cache-tag")), (Some("miss"), None));
    assert_eq!(first.header("cache-control"), Some("private, max-age=60"));
    for (actor, control) in [(&bob.actor, "private, max-age=60"), (&anon, "public, max-age=60")] {
        let answer = actor.get(LIST).await.has_status(200);
        assert_eq!((answer.header("x-cache"), answer.header("cache-control")), (Some("l1"), Some(control)));
        assert_eq!(answer.json(), first.json());
    }
    // A superuser sees more of it, and so has an answer of its own.
    let whole = admin.get(LIST).await;
    assert_eq!((whole.header("x-cache"), whole.json()["items"][0]["secret"].clone()), (Some("miss"), json!("s")));
    assert!(anon.get(LIST).await.ok()["items"][0].get("secret").is_none());
}

/// An application whose every rule asks for a login was never warmed and never verified: only strangers' questions were noted.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_users_may_read_is_warmed_and_verified_too() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let (ada, bob) = (server.user(&admin, "ada").await, server.user(&admin, "bob").await);
    let body = json!({"name": "posts", "type": "base", "listRule": "@request.auth.id != ''", "viewRule": "",
        "fields": [{"name": "title", "type": "text"}]});
    admin.post("/api/collections", body).await.created();
    let own = json!({"name": "drafts", "type": "base", "listRule": "owner = @request.auth.id", "viewRule": "",
        "fields": [{"name": "owner", "type": "text"}]});
    admin.post("/api/collections", own).await.created();
    for user in [&ada, &bob] {
        admin.post("/api/collections/drafts/records", json!({"owner": user.id})).await.created();
    }
    admin.post("/api/collections/posts/records", json!({"title": "members only"})).await.created();
    const LIST: &str = "/api/collections/posts/records";
    const OWN: &str = "/api/collections/drafts/records";
    for _ in 0..20 {
        ada.actor.get(LIST).await.ok();
        ada.actor.get(OWN).await.ok();
    }
    let verified = admin.post("/api/admin/cache/verify", json!({"sample": 50})).await.ok();
    assert_eq!((&verified["equal"], &verified["different"]), (&json!(1), &json!([])), "what is her own is not noted");
    // Upkeep learns what is hot within a few seconds; then it is refilled, as nobody in particular.
    until_hot(&admin).await;
    admin.post("/api/admin/cache/purge", json!({"all": true})).await.ok();
    let warmed = admin.post("/api/admin/cache/warm", json!({})).await.ok();
    assert_eq!(warmed["failed"], 0, "{warmed}");
    let answer = bob.actor.get(LIST).await;
    assert_eq!((answer.header("x-cache"), items(&answer.json()).len()), (Some("l1"), 1));
    assert!(items(&admin.clone().without_authorization().get(LIST).await.ok()).is_empty());
    assert_eq!(items(&bob.actor.get(OWN).await.ok())[0]["owner"], json!(bob.id));

    // A rule that reads the caller by now is not asked as anybody.
    let rule = json!({"listRule": "@request.auth.id != '' && title != @request.auth.name"});
    admin.patch("/api/collections/posts", rule).await.ok();
    admin.post("/api/admin/cache/warm", json!({})).await.ok();
    assert_eq!(ada.actor.get(LIST).await.header("x-cache"), Some("miss"));
    assert!(items(&admin.clone().without_authorization().get(LIST).await.ok()).is_empty());
}

/// The version of the schema is part of every key: after any change of it, what was hot was asked for under keys of yesterday,
/// in vain, until the list had forgotten it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_hot_is_warmed_under_another_schema_too() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let ada = server.user(&admin, "ada").await;
    let body = json!({"name": "posts", "type": "base", "listRule": "@request.auth.id != ''", "viewRule": "",
        "fields": [{"name": "title", "type": "text"}]});
    admin.post("/api/collections", body).await.created();
    admin.post("/api/collections/posts/records", json!({"title": "a"})).await.created();
    const LIST: &str = "/api/collections/posts/records?sort=title";
    const GONE: &str = "/api/collections/posts/records?sort=title&fields=title";
    for _ in 0..10 {
        ada.actor.get(LIST).await.ok();
        ada.actor.get(GONE).await.ok();
    }
    let keys = async || {
        let hot = admin.get("/api/admin/cache/stats").await.ok()["hot"].clone();
        hot.as_array().unwrap().iter().map(|hot| hot["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let mut before = Vec::new();
    for _ in 0..400 {
        before = keys().await;
        if before.len() == 2 {
            break;
        }
        crate::support::pause(Duration::from_millis(25)).await;
    }
    assert_eq!(before.len(), 2, "upkeep learns what is hot within a few seconds");
    // Twice, so that what was found once is found again by its new name.
    for name in ["one", "two"] {
        let other = json!({"name": name, "type": "base", "fields": []});
        admin.post("/api/collections", other).await.created();
        let warmed = admin.post("/api/admin/cache/warm", json!({})).await.ok();
        assert_eq!(warmed, json!({"filled": 2, "present": 0, "failed": 0, "reasons": []}), "{name}");
        let warmed = admin.post("/api/admin/cache/warm", json!({})).await.ok();
        assert_eq!(warmed, json!({"filled": 0, "present": 2, "failed": 0, "reasons": []}), "{name}");
        let answer = ada.actor.get(LIST).await;
        assert_eq!((answer.header("x-cache"), items(&answer.json()).len()), (Some("l1"), 1), "{name}");
    }
    let after = keys().await;
    assert!(after.len() == 2 && after.iter().all(|key| !before.contains(key)), "{before:?} {after:?}");
    // What cannot be asked any more, or would be somebody's own by now, is not asked.
    let own = json!({"listRule": "title != @request.auth.id"});
    admin.patch("/api/collections/posts", own).await.ok();
    let warmed = admin.post("/api/admin/cache/warm", json!({})).await.ok();
    let why = json!([{"why": "the answer depends on who asks by now", "count": 2}]);
    assert_eq!(warmed, json!({"filled": 0, "present": 0, "failed": 2, "reasons": why}));
    assert_eq!(ada.actor.get(LIST).await.header("x-cache"), Some("miss"));

    // The next process knows what was hot by the keys of a schema that has changed since.
    let rule = json!({"listRule": "@request.auth.id != ''"});
    admin.patch("/api/collections/posts", rule).await.ok();
    let server = server.restart().await;
    until_warm(&server, 2).await;
    let again = server.anon().at("acme").with_authorization(&ada.token);
    for path in [LIST, GONE] {
        assert_eq!(again.get(path).await.header("x-cache"), Some("l1"));
    }

    // A disk that opens late delays that, and does not end it.
    let mut held = None;
    let lock = |folder: &Path| {
        let file = std::fs::File::open(folder.join("cache/lock")).unwrap();
        file.lock().unwrap();
        held = Some(file);
    };
    let server = server.restart_after(lock).await;
    server.until_disk("degraded").await;
    crate::support::pause(Duration::from_millis(300)).await;
    drop(held);
    until_warm(&server, 2).await;
}

/// Waits until that many answers of the tenant `acme` are in memory, which nobody asked for.
async fn until_warm(server: &TestServer, entries: u64) {
    for _ in 0..1_200 {
        let stats = server.node().at("acme").get("/api/admin/cache/stats").await.ok();
        if stats["total"]["entries"].as_u64() >= Some(entries) {
            return;
        }
        crate::support::pause(Duration::from_millis(25)).await;
    }
    panic!("nothing was warmed after the restart");
}

async fn until_hot(admin: &Actor) {
    for _ in 0..400 {
        if admin.get("/api/admin/cache/stats").await.ok()["hot"][0].is_object() {
            return;
        }
        crate::support::pause(Duration::from_millis(25)).await;
    }
    panic!("nothing ever became hot");
}
