//! No oracle, over the wire: two nodes whose tenants differ only in hidden rows and hidden fields answer strangers and
//! users alike, byte for byte, on every surface that reads; a superuser sees the difference, so there is one.
//!
//! Keeps true: the nodes share clock and requests, and every record has its id from the test, so nothing else differs.
//! What only a node's own secret decides (cursors) is compared by following it, not by its text.

use crate::queries::asked;
use crate::support::{Actor, Answer, TestServer, User};
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use tenantry::app::Parts;
use tenantry::kernel::clock::ManualClock;
use tenantry::kernel::random::{SeededRandom, below};

const POSTS: &str = "/api/collections/posts/records";

/// A tenant and those who ask it.
struct Twin {
    /// Stops the node when dropped.
    _server: TestServer,
    admin: Actor,
    guest: Actor,
    ada: Actor,
}

fn relation(name: &str, target: &Value) -> Value {
    json!({ "name": name, "type": "relation", "collectionId": target, "maxSelect": 1 })
}

async fn collections(admin: &Actor) {
    let users = admin.get("/api/collections/users").await.ok()["id"].clone();
    let own = "owner = @request.auth.id && owner != ''";
    let posts = json!({ "name": "posts", "type": "base", "listRule": format!("public = true || {own}"),
        "viewRule": format!("public = true || {own}"), "fields": [
            { "name": "title", "type": "text", "searchable": true },
            { "name": "status", "type": "text" },
            { "name": "views", "type": "number" },
            { "name": "public", "type": "bool" },
            relation("owner", &users),
            { "name": "meta", "type": "json" },
            { "name": "salary", "type": "number", "readRule": own },
            { "name": "internal", "type": "text", "hidden": true },
        ] });
    let posts = admin.post("/api/collections", posts).await.created()["id"].clone();
    let notes = json!({ "name": "notes", "type": "base", "listRule": "post.public = true", "viewRule": "post.public = true",
        "fields": [relation("post", &posts), { "name": "text", "type": "text" }] });
    admin.post("/api/collections", notes).await.created();
    let audits = json!({ "name": "audits", "type": "base",
        "fields": [relation("post", &posts), { "name": "text", "type": "text" }] });
    admin.post("/api/collections", audits).await.created();
}

/// Everything both tenants hold; `other` changes only what neither a stranger nor Ada may read.
fn rows(ada: &str, bob: &str, other: bool) -> Vec<(&'static str, Value)> {
    let mut rows = Vec::new();
    let id = |kind: &str, at: usize| format!("{kind}{at:0width$}", width = 15 - kind.len());
    for at in 0..9 {
        if other {
            // Between the others, so that every place in the order of creation behind it is another.
            rows.push((
                "posts",
                json!({ "id": id("hidden", at), "title": "rare rare harbour", "status": "live",
                "views": at, "public": false, "owner": bob, "salary": 1 }),
            ));
            rows.push(("notes", json!({ "id": id("hnote", at), "post": id("hidden", at), "text": "hidden" })));
        }
        let (owner, title) = ([ada, bob, ""][at % 3], ["rare harbour", "harbour harbour town", "town rare"][at / 3]);
        let (own, status) = (owner == ada, ["live", "draft"][at % 2]);
        rows.push((
            "posts",
            json!({ "id": id("post", at), "title": title, "status": status,
            "views": at * 7 % 5, "public": true, "owner": owner, "meta": { "a": at },
            "salary": if other && !own { 4_711 } else { at }, "internal": if other { "y" } else { "x" } }),
        ));
        rows.push(("notes", json!({ "id": id("note", at), "post": id("post", at), "text": title })));
        let text = if other { "other" } else { "one" };
        rows.push(("audits", json!({ "id": id("audit", at), "post": id("post", at), "text": text })));
    }
    // A private record of Ada, which she sees and strangers do not.
    rows.push(("posts", json!({ "id": id("private", 0), "title": "rare own", "public": false, "owner": ada })));
    rows
}

async fn twin(other: bool) -> Twin {
    let clock = Arc::new(ManualClock::new(1_800_000_000_000));
    let random = Arc::new(SeededRandom::new(7));
    let server = TestServer::start_parts("", Parts { clock, random, ..Parts::default() }).await;
    let admin = server.tenant("acme").await;
    let User { actor, id: ada, .. } = server.user(&admin, "ada").await;
    let User { id: bob, .. } = server.user(&admin, "bob").await;
    collections(&admin).await;
    for (collection, row) in rows(&ada, &bob, other) {
        admin.post(&format!("/api/collections/{collection}/records"), row).await.created();
    }
    if other {
        let hidden = json!({ "email": "somebody-else@example.com", "emailVisibility": false });
        admin.patch(&format!("/api/collections/users/records/{bob}"), hidden).await.ok();
    }
    let same = |actor: Actor| actor.with_header("x-request-id", "the-same-for-both");
    Twin { guest: same(admin.clone().without_authorization()), ada: same(actor), admin: same(admin), _server: server }
}

/// All of an answer but the time of day and how many requests came before.
fn told(answer: &Answer) -> String {
    let mut headers: Vec<String> = answer
        .headers
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "date" | "server-timing" | "ratelimit"))
        .map(|(name, value)| format!("{name}: {value:?}"))
        .collect();
    headers.sort();
    format!("{} {headers:#?} {}", answer.status, String::from_utf8_lossy(&answer.body))
}

/// One walk by cursor, page by page: rows and whether there is a page on either side.
async fn walk(actor: &Actor, parameters: &[(&str, &str)]) -> String {
    let (mut cursor, mut out) = (String::new(), String::new());
    for _ in 0..20 {
        let mut asking = parameters.to_vec();
        asking.push(("cursor", &cursor));
        let answer = actor.get(&asked(POSTS, &asking)).await;
        let page = answer.json();
        let shown = [&page["items"], &page["totalItems"], &json!(page["prevCursor"].is_string())].map(Value::to_string);
        out.push_str(&format!("{} {}\n", answer.status, shown.join(" ")));
        let len = page["nextCursor"].as_str().map_or(0, str::len);
        out.push_str(&format!("{len} bytes of cursor\n"));
        let Some(next) = page["nextCursor"].as_str() else { return out };
        cursor = next.to_owned();
    }
    panic!("the walk does not end: {out}");
}

/// Filters as nobody would write them, over everything there is to name, hidden things included.
fn filters(seed: u64, count: usize) -> Vec<String> {
    const PATHS: &[&str] = &[
        "title",
        "status",
        "views",
        "public",
        "owner",
        "owner.name",
        "owner.email",
        "salary",
        "internal",
        "meta.a",
        "notes_via_post.text",
        "audits_via_post.text",
        "owner.posts_via_owner.salary",
        "owner.posts_via_owner.title",
        "notes_via_post.post.views",
        "notes_via_post.post.internal",
        "created",
        "owner.tokenKey",
    ];
    const OPERATORS: &[&str] = &["=", "!=", ">", "<=", "~", "!~", "?=", "?!=", "?>", "?~"];
    const VALUES: &[&str] = &["''", "'rare'", "'harbour%'", "4711", "3", "'x'", "'z'", "null", "true", "@now"];
    let random = SeededRandom::new(seed);
    let pick = |list: &[&'static str]| list[below(&random, list.len() as u64) as usize];
    let comparison = || {
        let right = if below(&random, 3) == 0 { pick(PATHS) } else { pick(VALUES) };
        format!("{} {} {right}", pick(PATHS), pick(OPERATORS))
    };
    let expression = || match below(&random, 3) {
        0 => comparison(),
        1 => format!("{} && {}", comparison(), comparison()),
        _ => format!("({} || {}) && {}", comparison(), comparison(), comparison()),
    };
    (0..count).map(|_| expression()).collect()
}

/// Every way to read, as paths.
fn surfaces() -> Vec<String> {
    let mut paths: Vec<String> = vec![
        POSTS.to_owned(),
        format!("{POSTS}/post00000000001"),
        format!("{POSTS}/hidden000000001"),
        format!("{POSTS}/hidden000000001?expand=owner"),
        format!("{POSTS}/private00000000"),
        format!("{POSTS}/post00000000001?expand=owner,notes_via_post,audits_via_post&fields=*,expand.*"),
        "/api/collections/notes/records?expand=post.owner".to_owned(),
        "/api/collections/audits/records".to_owned(),
        "/api/collections/users/records?sort=email".to_owned(),
        "/api/collections/nothing/records".to_owned(),
        "/api/collections/posts/export".to_owned(),
        "/api/collections/posts/export?format=csv&sort=salary&expand=owner".to_owned(),
        "/api/collections/audits/export".to_owned(),
        "/api/changes".to_owned(),
        "/api/audit".to_owned(),
        "/api/rules/lint".to_owned(),
        "/api/rules/strangers".to_owned(),
        format!("{POSTS}/hidden000000001/history"),
        format!("{POSTS}/post00000000001/history"),
        "/api/files/posts/hidden000000001/any.png".to_owned(),
        "/api/collections/posts".to_owned(),
    ];
    for parameters in [
        &[("perPage", "2"), ("page", "2")][..],
        &[("sort", "-views,title")],
        &[("sort", "salary,id")],
        &[("sort", "internal")],
        &[("sort", "owner.email,id")],
        &[("sort", "-@rowid")],
        &[("search", "rare")],
        &[("search", "rare harbour"), ("perPage", "3")],
        &[("search", "4711")],
        &[("search", "harbour"), ("sort", "-views,id")],
        &[("aggregate", "count,sum(views),max(title)")],
        &[("aggregate", "count,sum(salary),count(salary)"), ("group", "status")],
        &[("aggregate", "max(internal)")],
        &[("aggregate", "count"), ("group", "owner.email")],
        &[("aggregate", "count,min(views)"), ("group", "salary")],
        &[("aggregate", "count"), ("group", "meta.a,owner.posts_via_owner.salary")],
        &[("filter", "views >= 0"), ("filter", "")],
        &[("expand", "owner,notes_via_post,audits_via_post,owner.posts_via_owner")],
        &[("fields", "id,salary,internal,meta.a")],
        &[("excludeFields", "title"), ("skipTotal", "1")],
        &[("cursor", "forged")],
    ] {
        paths.push(asked(POSTS, parameters));
    }
    for filter in filters(42, 60) {
        paths.push(asked(POSTS, &[("filter", &filter)]));
        paths.push(asked(POSTS, &[("filter", &filter), ("aggregate", "count,sum(views)")]));
    }
    paths
}

const WALKS: [&[(&str, &str)]; 4] = [
    &[("perPage", "2")],
    &[("perPage", "3"), ("sort", "-views")],
    &[("perPage", "2"), ("search", "rare")],
    &[("perPage", "4"), ("sort", "salary")],
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_hidden_changes_no_byte_of_an_answer() {
    let (one, two) = (twin(false).await, twin(true).await);
    let pairs = [("a stranger", &one.guest, &two.guest), ("ada", &one.ada, &two.ada)];
    let mut seen_by_superusers = 0;
    for path in surfaces() {
        for (who, one, two) in pairs {
            // Twice: a kept answer must not tell either.
            for turn in 0..2 {
                let (one, two) = (one.get(&path).await, two.get(&path).await);
                assert_eq!(told(&one), told(&two), "{path} for {who}, turn {turn}");
                assert!(one.status.as_u16() < 500, "{path} for {who}");
                // What one node's answer is tagged with is what the other's is.
                if let (0, Some(tag)) = (turn, one.header("etag")) {
                    assert_eq!(Some(tag), two.header("etag"), "{path} for {who}");
                }
            }
        }
        let (one, two) = (one.admin.get(&path).await, two.admin.get(&path).await);
        seen_by_superusers += usize::from(told(&one) != told(&two));
    }
    for parameters in WALKS {
        for (who, one, two) in pairs {
            assert_eq!(walk(one, parameters).await, walk(two, parameters).await, "{parameters:?} for {who}");
        }
        assert_ne!(walk(&one.admin, parameters).await, walk(&two.admin, parameters).await, "{parameters:?}");
    }
    let requests: Vec<Value> = surfaces()
        .iter()
        .filter(|path| path.starts_with(POSTS))
        .map(|path| json!({ "method": "GET", "url": path }))
        .collect();
    for requests in requests.chunks(50) {
        let batch = json!({ "requests": requests, "transactional": false });
        for (who, one, two) in pairs {
            let (one, two) = (one.post("/api/batch", batch.clone()).await, two.post("/api/batch", batch.clone()).await);
            assert_eq!(told(&one), told(&two), "a batch for {who}");
        }
    }
    // Who tries to change what is hidden is told the same as who tries to change what is not there.
    for (who, one, two) in pairs {
        for method in [Method::PATCH, Method::DELETE] {
            let path = format!("{POSTS}/hidden000000001");
            // A deletion has no body: who sends one that nobody reads has the connection closed if it arrives behind its
            // head, which depends on the client's own packets.
            let send = async |actor: &Actor| {
                let request = actor.request(method.clone(), &path);
                Answer::of(if method == Method::PATCH { request.json(&json!({})) } else { request }).await
            };
            assert_eq!(told(&send(one).await), told(&send(two).await), "{method} for {who}");
        }
    }
    // The twins do differ wherever somebody may see it.
    assert!(seen_by_superusers > 60, "{seen_by_superusers}");
}
