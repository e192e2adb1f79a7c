//! What an earlier build took and stored, and this one would refuse: it is still read, shown and taken back.

use crate::support::notes::{LIST, notes, until};
use crate::support::{TestServer, expect_error};
use serde_json::{Value, json};
use std::path::Path;
use tenantry::schema::Collection;

/// The collection `name` as the database keeps it.
fn kept(database: &rusqlite::Connection, name: &str) -> Collection {
    let mut statement = database.prepare("SELECT definition FROM _tn_collection").unwrap();
    let texts = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let all = texts.map(|text| Collection::from_storage_json(&serde_json::from_str(&text.unwrap()).unwrap()).unwrap());
    all.into_iter().find(|collection| collection.name.as_str() == name).unwrap()
}

/// Writes `to` in place of `from` in the published blueprint `name`, as an earlier build might have stored it.
fn age_blueprint(folder: &Path, name: &str, from: &str, to: &str) {
    let database = rusqlite::Connection::open(folder.join("control.db")).unwrap();
    let blueprints = kept(&database, "_blueprints");
    let column = |name: &str| blueprints.find_field(name).unwrap().column().into_owned();
    let (table, text, named) = (blueprints.table(), column("definition"), column("name"));
    let sql =
        format!("UPDATE \"{table}\" SET {text} = replace({text}, ?1, ?2) WHERE {named} = ?3 AND instr({text}, ?1) > 0");
    assert_eq!(database.execute(&sql, [from, to, name]).unwrap(), 1, "{name} has {from}");
}

/// One of them made the list of all a 400, and itself of no use for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_blueprint_with_a_member_that_is_refused_by_now_is_listed_and_applied() {
    let server = TestServer::start().await;
    let node = server.node();
    let blueprint = |name: &str| {
        let fields = json!([{ "name": "title", "type": "text", "required": true }]);
        json!({ "name": name, "version": 1, "collections": [{ "name": "notes", "type": "base", "fields": fields }] })
    };
    for name in ["aged", "broken"] {
        node.post("/api/blueprints", blueprint(name)).await.ok();
    }
    let server = server
        .restart_after(|folder| {
            age_blueprint(folder, "aged", "\"required\"", "\"requird\"");
            age_blueprint(folder, "broken", "\"collections\"", "\"colections\"");
        })
        .await;
    let node = server.node();
    let listed = node.get("/api/blueprints").await.ok();
    let names: Vec<_> = listed["items"].as_array().unwrap().iter().filter_map(|item| item["name"].as_str()).collect();
    assert_eq!(names, ["aged", "business", "cms", "courses", "tournament"], "what cannot be read hides nothing else");
    let shown = node.get("/api/blueprints/aged").await.ok();
    assert_eq!(shown["collections"][0]["fields"][0]["requird"], true, "it is shown as it was published: {shown}");
    let admin = server.tenant("acme").await;
    node.post("/api/tenants/acme/blueprint", json!({ "name": "aged" })).await.ok();
    let field = admin.get("/api/collections/notes").await.ok()["fields"][1].clone();
    assert_eq!((&field["name"], &field["required"]), (&json!("title"), &json!(false)), "as before: {field}");

    node.post("/api/blueprints", blueprint("aged")).await.has_status(409);
    let mut next = shown;
    next["version"] = json!(2);
    let refused = node.post("/api/blueprints", next.clone()).await.problem("schema_invalid");
    assert_eq!(refused["errors"][0]["field"], "collections.0.fields.0.requird", "what is sent is still looked at");
    next["collections"][0]["fields"][0] = json!({ "name": "title", "type": "text", "required": true });
    node.post("/api/blueprints", next).await.ok();

    // Which versions there are is not known, so none goes over them.
    expect_error("List the collections of the blueprint");
    node.post("/api/blueprints", blueprint("broken")).await.has_status(500).problem("internal");
}

/// Rewrites what the tenant `id` keeps of the collection `name`, as an earlier build might have stored it.
fn age_collection(folder: &Path, id: &str, name: &str, change: impl FnOnce(&mut Value)) {
    let database = rusqlite::Connection::open(folder.join("tenants").join(id).join("data.db")).unwrap();
    let collection = kept(&database, name);
    let mut stored = collection.to_storage_json();
    change(&mut stored);
    let sql = "UPDATE _tn_collection SET definition = ?1 WHERE id = ?2";
    assert_eq!(database.execute(sql, [stored.to_string().as_str(), collection.id.as_str()]).unwrap(), 1);
}

/// `otp.lenght` was kept and shown, and whoever sent back what was shown was refused for ever.
#[tokio::test(flavor = "multi_thread")]
async fn login_options_that_are_refused_by_now_are_not_shown_and_do_not_stay() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let id = admin.get("/api/tenants/acme").await.ok()["id"].as_str().unwrap().to_owned();
    let provider = json!({ "name": "acme", "clientId": "id", "clientSecret": "s", "issuer": "https://id.test",
        "extra": { "acrValues": "gold" } });
    let body = json!({ "otp": { "length": 9 }, "oauth2": { "enabled": true, "providers": [provider] } });
    admin.patch("/api/collections/users", body).await.ok();
    let server = server
        .restart_after(|folder| {
            age_collection(folder, &id, "users", |stored| {
                let rest = &mut stored["auth"]["rest"];
                rest["otp"]["lenght"] = json!(12);
                rest["passwordResetToken"]["duraton"] = json!(60);
                rest["verificationTemplate"]["actionUrl"] = json!("https://acme.test");
                rest["oauth2"]["providers"][0]["scope"] = json!("email");
                rest["oauth2"]["providers"][0]["extra"]["acrValue"] = json!("silver");
            });
        })
        .await;
    let admin = server.node().at("acme");
    let shown = admin.get("/api/collections/users").await.ok();
    for member in ["lenght", "duraton", "actionUrl", "\"scope\"", "\"acrValue\""] {
        assert!(!shown.to_string().contains(member), "{member}: {shown}");
    }
    let provider = &shown["oauth2"]["providers"][0];
    assert_eq!((&shown["otp"]["length"], &provider["extra"]["acrValues"]), (&json!(9), &json!("gold")), "{shown}");
    assert_eq!(admin.patch("/api/collections/users", shown.clone()).await.ok()["otp"], shown["otp"]);
    // A page's note to itself is no more kept in a group than beside it.
    let noted = admin.patch("/api/collections/users", json!({ "otp": { "_open": true } })).await.ok();
    assert_eq!(noted["otp"], shown["otp"]);
    server
        .restart_after(|folder| {
            let database = rusqlite::Connection::open(folder.join("tenants").join(&id).join("data.db")).unwrap();
            let sql =
                "SELECT count(*) FROM _tn_collection WHERE definition LIKE '%lenght%' OR definition LIKE '%duraton%'";
            assert_eq!(database.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap(), 0, "it is gone for good");
        })
        .await;
}

/// A blueprint with such options could be listed, but not be applied.
#[tokio::test(flavor = "multi_thread")]
async fn a_blueprint_with_login_options_that_are_refused_by_now_is_applied() {
    let server = TestServer::start().await;
    let members = json!({ "name": "members", "type": "auth", "otp": { "enabled": true, "length": 12 } });
    let body = json!({ "name": "aged", "version": 1, "collections": [members] });
    server.node().post("/api/blueprints", body).await.ok();
    let server = server.restart_after(|folder| age_blueprint(folder, "aged", "\"length\":12", "\"lenght\":12")).await;
    let admin = server.tenant("acme").await;
    server.node().post("/api/tenants/acme/blueprint", json!({ "name": "aged" })).await.ok();
    let otp = admin.get("/api/collections/members").await.ok()["otp"].clone();
    assert_eq!((&otp["enabled"], &otp["length"]), (&json!(true), &json!(8)), "{otp}");
}

/// A key path that had never told anything apart turned the cache of its collection off, and what was shown was refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_cache_policy_with_paths_that_are_refused_by_now_goes_on_keeping() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let id = admin.get("/api/tenants/acme").await.ok()["id"].as_str().unwrap().to_owned();
    notes(&admin).await;
    let policy = json!({ "tier": "l1", "tags": ["front"], "key": ["@request.headers.x_lang"], "cacheControl": "max-age=30",
        "view": { "cacheControl": "no-store" } });
    admin.patch("/api/collections/notes", json!({ "cache": policy })).await.ok();
    let server = server
        .restart_after(|folder| {
            age_collection(folder, &id, "notes", |stored| {
                let policy = &mut stored["cache"];
                policy["key"] = json!(["@request.auth.org", "@request.headers.x_lang", "@request.method"]);
                policy["cacheControl"] = json!("public=yes, max-age=30");
                policy["view"]["cacheControl"] = json!("No-Store=\"a\"");
            });
        })
        .await;
    let admin = server.node().at("acme");
    let anon = admin.clone().without_authorization();
    let kept = until(&anon, LIST, "l1").await;
    assert!(kept.header("cache-tag").unwrap().contains(":front"), "its tags hold");
    assert_eq!(kept.header("cache-control"), Some("public, max-age=30"));
    assert!(kept.vary().contains(&"x-lang"), "{:?}", kept.vary());
    until(&anon.clone().with_header("x-lang", "de"), LIST, "l1").await;
    let one = anon.get("/api/collections/notes/records/note00000000001").await.has_status(200);
    assert_eq!(one.header("cache-control"), Some("no-store"), "what nobody may keep is kept by nobody");

    let shown = admin.get("/api/collections/notes").await.ok();
    assert_eq!(shown["cache"]["key"], json!(["@request.headers.x_lang"]), "{shown}");
    assert_eq!(admin.patch("/api/collections/notes", shown.clone()).await.ok()["cache"], shown["cache"]);
    let sent = json!({ "cache": { "key": ["@request.auth.org"] } });
    let refused = admin.patch("/api/collections/notes", sent).await.has_status(400).problem("schema_invalid");
    assert_eq!(refused["errors"][0]["field"], "cache.key.0", "{refused}");
}

/// A blueprint with such a policy could be listed, but not be applied.
#[tokio::test(flavor = "multi_thread")]
async fn a_blueprint_with_a_cache_policy_that_is_refused_by_now_is_applied() {
    let server = TestServer::start().await;
    let notes = json!({ "name": "notes", "type": "base", "cache": { "tier": "l1", "key": ["@request.auth.id"] } });
    server.node().post("/api/blueprints", json!({ "name": "aged", "version": 1, "collections": [notes] })).await.ok();
    let server = server.restart_after(|folder| age_blueprint(folder, "aged", "auth.id", "auth.org")).await;
    let admin = server.tenant("acme").await;
    server.node().post("/api/tenants/acme/blueprint", json!({ "name": "aged" })).await.ok();
    let policy = admin.get("/api/collections/notes").await.ok()["cache"].clone();
    assert_eq!(policy, json!({ "tier": "l1", "key": [] }));
}
