//! API keys that are narrowed to collections: no question leads them into others.

use crate::support::{Actor, TestServer};
use serde_json::{Value, json};

const POSTS: &str = "/api/collections/posts/records";

/// Authors with an address, a post of one of them and a note about it; everybody may list all of it.
async fn publish(admin: &Actor) -> String {
    let open = |name: &str, fields: Value| json!({ "name": name, "type": "base", "listRule": "", "viewRule": "", "createRule": "", "fields": fields });
    let text = |name: &str| json!({ "name": name, "type": "text" });
    let authors = open("authors", json!([text("name"), text("address"), { "name": "age", "type": "number" }]));
    let authors = admin.post("/api/collections", authors).await.created()["id"].clone();
    let parent = json!({ "name": "author", "type": "relation", "collectionId": authors, "maxSelect": 1 });
    let posts =
        admin.post("/api/collections", open("posts", json!([text("title"), parent]))).await.created()["id"].clone();
    let itself = json!({ "name": "after", "type": "relation", "collectionId": posts, "maxSelect": 1 });
    let fields = admin.get("/api/collections/posts").await.ok()["fields"].as_array().unwrap().clone();
    let fields: Vec<Value> = fields.into_iter().chain([itself]).collect();
    // The rule leads where a key may not.
    let rule = json!({ "fields": fields, "listRule": "author.name != ''", "viewRule": "author.name != ''" });
    admin.patch("/api/collections/posts", rule).await.ok();
    let about = json!({ "name": "post", "type": "relation", "collectionId": posts, "maxSelect": 1 });
    admin.post("/api/collections", open("notes", json!([text("body"), about]))).await.created();

    let author = json!({ "name": "Ada", "address": "ada@a.test", "age": 36 });
    let author = admin.post("/api/collections/authors/records", author).await.created()["id"].clone();
    let post = admin.post(POSTS, json!({ "title": "one", "author": author })).await.created()["id"].clone();
    admin.post(POSTS, json!({ "title": "two", "author": author, "after": post })).await.created();
    admin.post("/api/collections/notes/records", json!({ "body": "hidden", "post": post })).await.created();
    post.as_str().unwrap().to_owned()
}

async fn narrowed(owner: &Actor, collections: &[&str]) -> Actor {
    let body =
        json!({ "name": "k", "scopes": { "collections": collections, "operations": ["read", "create", "update"] } });
    let made = owner.post("/api/keys", body).await.created();
    owner.clone().with_authorization(made["key"].as_str().unwrap())
}

const LEADING_OUT: [&str; 12] = [
    "filter=author.address~'ada'",
    "filter=author.address?~'ada'",
    "filter=title='x'||author.age>1",
    "filter=notes_via_post.body~'hid'",
    "filter=after.author.address~'ada'",
    "filter=author.posts_via_author.title='one'",
    "filter=strftime('%25Y',author.address)='x'",
    "sort=author.address",
    "sort=-after.author.address",
    "aggregate=count&group=author.address",
    "aggregate=max(author.address)",
    "aggregate=count&filter=author.address~'ada'",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_question_of_a_narrowed_key_leads_into_another_collection() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    publish(&admin).await;
    let ada = server.user(&admin, "ada").await;
    let key = narrowed(&ada.actor, &["posts"]).await;
    for question in LEADING_OUT {
        // The owner first: a plan that was made for an account is not handed to its key.
        ada.actor.get(&format!("{POSTS}?{question}")).await.has_status(200);
        let refused = key.get(&format!("{POSTS}?{question}")).await.has_status(403).problem("forbidden");
        let said = refused["message"].as_str().unwrap();
        assert!(said.contains("scopes must name it") && !said.contains("authors"), "{question}: {said}");
        let walked = key.get(&format!("{POSTS}?{question}&cursor=&limit=1")).await;
        assert_eq!(walked.status, 403, "{question} in a walk");
        ada.actor.get(&format!("{POSTS}?{question}")).await.has_status(200);
    }
    // What stays inside is answered, and the rule goes where it has to.
    for question in [
        "filter=after.title='one'",
        "filter=author!=''",
        "filter=author.id!=''",
        "sort=after.title",
        "aggregate=count&group=after.title",
    ] {
        let listed = key.get(&format!("{POSTS}?{question}")).await.ok();
        assert!(!listed["items"].as_array().unwrap().is_empty(), "{question}: {listed}");
    }
    assert_eq!(key.get(POSTS).await.ok()["totalItems"], 2);
    let both = narrowed(&ada.actor, &["posts", "authors"]).await;
    assert_eq!(both.get(&format!("{POSTS}?filter=author.address~'ada'")).await.ok()["totalItems"], 2);
    both.get(&format!("{POSTS}?filter=notes_via_post.body~'hid'")).await.problem("forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrowed_key_of_a_superuser_stays_inside_too() {
    let server = TestServer::start().await;
    let post = publish(&server.tenant("acme").await).await;
    let root = server.superuser().await.at("acme");
    let key = narrowed(&root, &["posts"]).await;
    let extra = "filter=@collection.authors.address~'ada'";
    for question in LEADING_OUT.into_iter().chain([extra]) {
        // Its owner's answer to the very same question is kept, and is not the key's.
        for _ in 0..2 {
            root.get(&format!("{POSTS}?{question}")).await.has_status(200);
        }
        key.get(&format!("{POSTS}?{question}")).await.has_status(403).problem("forbidden");
    }
    assert_eq!(key.get(&format!("{POSTS}?filter=@collection.posts.title?='one'")).await.ok()["totalItems"], 2);
    let one = format!("{POSTS}/{post}");
    for (method, path) in [
        ("GET", format!("{one}?expand=author")),
        ("PATCH", format!("{one}?expand=author")),
        ("POST", "/api/batch".to_owned()),
        ("GET", "/api/collections/posts/export".to_owned()),
        ("GET", "/api/collections/posts/export?filter=author.address~'ada'".to_owned()),
        ("GET", "/api/changes".to_owned()),
        ("GET", "/api/collections/authors/records".to_owned()),
        ("GET", "/api/collections/authors/records?filter=posts_via_author.title='one'".to_owned()),
    ] {
        let request = key.request(method.parse().unwrap(), &path).json(&json!({ "requests": [] }));
        let answer = crate::support::Answer::of(request).await;
        assert_eq!(answer.status, 403, "{method} {path}");
    }
    let shown = key.get(&format!("{one}?fields=*,expand.author.address")).await.ok();
    assert!(shown.get("expand").is_none(), "{shown}");
    key.patch(&one, json!({ "title": "changed" })).await.ok();
}

/// `expirs`, `ip` and a collection that was not there were left out without a word: the key never ended, was good from
/// anywhere, and its owner believed otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_restriction_makes_no_wider_key() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    publish(&admin).await;
    let ada = server.user(&admin, "ada").await.actor;
    let root = server.superuser().await.at("acme");
    let scopes = json!({ "operations": ["read"], "collections": ["posts"] });
    for owner in [&ada, &root] {
        for (name, value) in [("expirs", json!("2030-01-01")), ("ip", json!(["10.0.0.1"])), ("scope", json!({}))] {
            let mut body = json!({ "name": "k", "scopes": scopes });
            body[name] = value;
            let refused = owner.post("/api/keys", body).await.has_status(400).problem("json_invalid");
            assert!(refused["message"].as_str().unwrap().contains(name), "{refused}");
        }
        for (scopes, field) in [
            (json!({ "operations": ["read"], "collection": ["posts"] }), "scopes.collection"),
            (json!({ "operations": ["read"], "collections": ["posts", "nots"] }), "scopes.collections.1"),
            (json!(["read"]), "scopes"),
        ] {
            let refused = owner.post("/api/keys", json!({ "name": "k", "scopes": scopes })).await.has_status(400);
            assert_eq!(refused.problem("validation_failed")["errors"][0]["field"], field);
        }
        assert_eq!(owner.get("/api/keys").await.ok()["items"], json!([]));
        owner.post("/api/keys", json!({ "name": "k", "scopes": scopes })).await.created();
        let by_id = admin.get("/api/collections/posts").await.ok()["id"].clone();
        let by_id = json!({ "operations": ["read"], "collections": [by_id] });
        owner.post("/api/keys", json!({ "name": "k", "scopes": by_id })).await.created();
    }
}

/// The same of other requests: what a misspelt member was to narrow, end or only try.
#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_member_is_not_passed_over_where_that_does_more_than_was_meant() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    publish(&admin).await;
    let root = server.superuser().await.at("acme");
    let ada = server.user(&admin, "ada").await.id;
    for (path, body, name) in [
        (format!("/api/collections/users/records/{ada}/suspend"), json!({ "untl": "2030-01-31" }), "untl"),
        (format!("/api/collections/users/impersonate/{ada}"), json!({ "duraton": 60 }), "duraton"),
        (
            "/api/batch".to_owned(),
            json!({ "requests": [{ "method": "POST", "url": POSTS, "header": { "if-match": "x" }, "body": { "title": "b" } }] }),
            "header",
        ),
    ] {
        let refused = root.post(&path, body).await.has_status(400);
        assert!(refused.json().to_string().contains(&format!("`{name}`")), "{refused:?}");
    }
    let before = admin.get(POSTS).await.ok()["totalItems"].clone();
    let import = admin.request(reqwest::Method::POST, "/api/collections/posts/import?dryrun=1");
    let refused = crate::support::Answer::of(import.body("{\"title\":\"tried\"}\n")).await;
    assert_eq!(refused.has_status(400).problem("parameter_invalid")["errors"][0]["field"], "dryrun");
    assert_eq!(admin.get(POSTS).await.ok()["totalItems"], before);
}
