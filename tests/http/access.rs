//! Access rules as outcomes: what each kind of caller gets for each kind of rule.

use crate::support::{Actor, TestServer};
use serde_json::json;

const OWNER: &str = "owner = @request.auth.id";

/// Statuses of list (with the number of records), view, update, create, delete.
type Row = (u16, i64, u16, u16, u16, u16);

async fn outcome(admin: &Actor, actor: &Actor, collection: &str, owner: &str) -> Row {
    let records = format!("/api/collections/{collection}/records");
    let made = admin.post(&records, json!({ "owner": owner, "text": "made" })).await.created();
    let path = format!("{records}/{}", made["id"].as_str().unwrap());
    let list = actor.get(&records).await;
    let view = actor.get(&path).await.status.as_u16();
    let update = actor.patch(&path, json!({ "text": "changed" })).await.status.as_u16();
    let create = actor.post(&records, json!({ "owner": owner, "text": "new" })).await.status.as_u16();
    let delete = actor.delete(&path).await.status.as_u16();
    let seen = list.json()["totalItems"].as_i64().unwrap_or(-1);
    admin.delete(&format!("/api/collections/{collection}/truncate")).await.gone();
    (list.status.as_u16(), seen, view, update, create, delete)
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_decide_as_the_wire_contract_says() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let (ada, bob) = (server.user(&admin, "ada").await, server.user(&admin, "bob").await);
    let anon = admin.clone().without_authorization();
    for (name, rule) in
        [("locked", None), ("open", Some("")), ("members", Some("@request.auth.id != ''")), ("owned", Some(OWNER))]
    {
        let body = json!({ "name": name, "type": "base", "listRule": rule, "viewRule": rule, "createRule": rule,
            "updateRule": rule, "deleteRule": rule,
            "fields": [{ "name": "owner", "type": "text" }, { "name": "text", "type": "text" }] });
        admin.post("/api/collections", body).await.created();
    }
    let refused_all = (403, -1, 403, 403, 403, 403);
    let nothing = (200, 0, 404, 404, 400, 404);
    let everything = (200, 1, 200, 200, 200, 204);
    let table: [(&str, &str, &Actor, Row); 12] = [
        ("locked", "nobody", &anon, refused_all),
        ("locked", "user", &ada.actor, refused_all),
        ("locked", "superuser", &admin, everything),
        ("open", "nobody", &anon, everything),
        ("open", "user", &ada.actor, everything),
        ("open", "superuser", &admin, everything),
        ("members", "nobody", &anon, nothing),
        ("members", "user", &bob.actor, everything),
        ("members", "superuser", &admin, everything),
        ("owned", "nobody", &anon, nothing),
        ("owned", "owner", &ada.actor, everything),
        ("owned", "another user", &bob.actor, nothing),
    ];
    for (collection, who, actor, expected) in table {
        let found = outcome(&admin, actor, collection, &ada.id).await;
        assert_eq!(found, expected, "{collection} for {who}: list, seen, view, update, create, delete");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_filter_cannot_ask_about_what_is_hidden() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let ada = server.user(&admin, "ada").await;
    let body = json!({ "name": "posts", "type": "base", "listRule": "", "viewRule": "",
        "fields": [{ "name": "title", "type": "text" }, { "name": "secret", "type": "text", "hidden": true }] });
    admin.post("/api/collections", body).await.created();
    admin.post("/api/collections/posts/records", json!({ "title": "t", "secret": "swordfish" })).await.created();
    for actor in [&admin.clone().without_authorization(), &ada.actor] {
        let list = actor.get("/api/collections/posts/records").await.ok();
        assert!(list["items"][0].get("secret").is_none());
        for query in [
            "filter=secret~'sword'",
            "filter=secret='x'",
            "sort=secret",
            "filter=@request.auth.id!=''",
            "filter=@collection.users.id!=''",
        ] {
            let refused = actor.get(&format!("/api/collections/posts/records?{query}")).await;
            assert!([400, 403].contains(&refused.status.as_u16()), "{query}: {refused:?}");
        }
        let fields = actor.get("/api/collections/posts/records?fields=secret").await;
        assert!(!String::from_utf8_lossy(&fields.body).contains("swordfish"));
    }
    assert_eq!(admin.get("/api/collections/posts/records?filter=secret~'sword'").await.ok()["totalItems"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn superusers_learn_why() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let ada = server.user(&admin, "ada").await;
    let body = json!({ "name": "posts", "type": "base", "viewRule": OWNER, "listRule": "",
        "fields": [{ "name": "owner", "type": "text" }] });
    admin.post("/api/collections", body).await.created();
    let post = admin.post("/api/collections/posts/records", json!({ "owner": "somebody" })).await.created();
    let question = json!({ "collection": "posts", "record": post["id"], "action": "view",
        "caller": { "collection": "users", "id": ada.id } });
    let answer = admin.post("/api/rules/explain", question.clone()).await.ok();
    assert_eq!(
        (&answer["allowed"], &answer["comparisons"][0]["left"]),
        (&json!(false), &json!("somebody")),
        "{answer}"
    );
    ada.actor.post("/api/rules/explain", question).await.problem("superuser_required");
    admin
        .post("/api/rules/explain", json!({ "collection": "posts", "record": "x", "action": "fly" }))
        .await
        .problem("parameter_invalid");
    let strangers = admin.get("/api/rules/strangers").await.ok();
    assert!(
        strangers["items"]
            .as_array()
            .unwrap()
            .iter()
            .any(|item| item["collection"] == "posts" && item["list"] == "everything")
    );
    admin.get("/api/rules/lint").await.ok();
}
