//! The coherent cache, as clients see it: never stale, never somebody else's.

use crate::support::TestServer;
use crate::support::notes::{LIST, from, notes, until};
use serde_json::{Value, json};

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
        admin.post("/api/admin/cache/purge", json!({"all": true})).await.ok();
        for turn in 0..callers.len() * 2 {
            let at = (first + turn) % callers.len();
            let [posts, diaries, users] = paths.map(|path| callers[at].get(path));
            let (posts, diaries, users) = (posts.await, diaries.await, users.await);
            for answer in [&posts, &diaries, &users] {
                let control = answer.header("cache-control").unwrap().to_owned();
                let public = at == 1 && answer.header("cache-tag").is_some();
                assert!(public || control.contains("private") || control.contains("no-store"), "{control}");
                assert!(answer.vary().contains(&"Authorization"));
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
