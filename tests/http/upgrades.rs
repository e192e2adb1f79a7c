//! What an earlier build took and stored, and this one would refuse: it is still read, shown and taken back.

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
