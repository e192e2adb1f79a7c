//! Collection definitions: made, changed, renamed, imported, emptied, deleted; what is refused and how.

use crate::support::TestServer;
use serde_json::{Value, json};

fn names(collection: &Value) -> Vec<String> {
    collection["fields"].as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_type_can_be_made_filled_and_read_back() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let others =
        admin.post("/api/collections", json!({ "name": "others", "type": "base", "fields": [] })).await.created();
    let fields = json!([
        { "name": "text", "type": "text" }, { "name": "number", "type": "number" }, { "name": "flag", "type": "bool" },
        { "name": "mail", "type": "email" }, { "name": "link", "type": "url" }, { "name": "day", "type": "date" },
        { "name": "made", "type": "autodate", "onCreate": true, "onUpdate": false },
        { "name": "one", "type": "select", "values": ["a", "b"], "maxSelect": 1 },
        { "name": "many", "type": "select", "values": ["a", "b", "c"], "maxSelect": 3 },
        { "name": "other", "type": "relation", "collectionId": others["id"], "maxSelect": 1 },
        { "name": "doc", "type": "json" }, { "name": "html", "type": "editor" }, { "name": "place", "type": "geoPoint" },
    ]);
    let kinds =
        admin.post("/api/collections", json!({ "name": "kinds", "type": "base", "fields": fields })).await.created();
    assert_eq!(names(&kinds).len(), 14);
    let other = admin.post("/api/collections/others/records", json!({})).await.created();
    let body = json!({
        "text": "ä", "number": -1.5, "flag": true, "mail": "a@example.com", "link": "https://example.com/x",
        "day": "2024-02-29 10:00:00.000Z", "one": "b", "many": ["c", "a"], "other": other["id"],
        "doc": { "deep": [1, null, "x"] }, "html": "<p>hi</p>", "place": { "lon": 12.5, "lat": -3 },
    });
    let made = admin.post("/api/collections/kinds/records", body.clone()).await.created();
    let read = admin.get(&format!("/api/collections/kinds/records/{}", made["id"].as_str().unwrap())).await.ok();
    assert_eq!(made, read);
    for (name, value) in body.as_object().unwrap() {
        assert_eq!(&read[name], value, "{name}");
    }
    assert!(read["made"].as_str().unwrap().ends_with('Z'));
    let empty = admin.post("/api/collections/kinds/records", json!({})).await.created();
    for (name, value) in
        [("text", json!("")), ("number", json!(0)), ("flag", json!(false)), ("many", json!([])), ("one", json!(""))]
    {
        assert_eq!(empty[name], value, "empty values are never null: {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_is_renamed_and_its_fields_change_without_losing_records() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let notes = json!({ "name": "notes", "type": "base", "fields": [{ "name": "title", "type": "text" }, { "name": "old", "type": "number" }] });
    let made = admin.post("/api/collections", notes).await.created();
    let record = admin.post("/api/collections/notes/records", json!({ "title": "kept", "old": 3 })).await.created();
    let id = record["id"].as_str().unwrap();
    let mut fields = made["fields"].as_array().unwrap().clone();
    fields.retain(|field| field["name"] != "old");
    fields.iter_mut().filter(|field| field["name"] == "title").for_each(|field| field["name"] = json!("headline"));
    fields.push(json!({ "name": "extra", "type": "bool" }));
    let changed = admin.patch("/api/collections/notes", json!({ "name": "memos", "fields": fields })).await.ok();
    assert_eq!(
        (&changed["id"], names(&changed)),
        (&made["id"], vec!["id".to_owned(), "headline".into(), "extra".into()])
    );
    admin.get("/api/collections/notes/records").await.problem("collection_not_found");
    let read = admin.get(&format!("/api/collections/memos/records/{id}")).await.ok();
    assert_eq!((&read["headline"], &read["extra"], read.get("old")), (&json!("kept"), &json!(false), None));
    admin.delete("/api/collections/memos/truncate").await.gone();
    assert_eq!(admin.get("/api/collections/memos/records").await.ok()["totalItems"], 0);
    admin.delete("/api/collections/memos").await.gone();
    admin.get("/api/collections/memos").await.has_status(404).problem("collection_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_definitions_say_which_part_is_wrong() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    admin.post("/api/collections", json!({ "name": "taken", "type": "base", "fields": [] })).await.created();
    for (body, part) in [
        (json!({ "name": "1 bad name", "type": "base" }), "name"),
        (json!({ "name": "taken", "type": "base" }), "name"),
        (json!({ "name": "x", "type": "nonsense" }), "type"),
        (json!({ "name": "x", "type": "base", "fields": [{ "name": "a", "type": "nonsense" }] }), "fields"),
        (
            json!({ "name": "x", "type": "base", "fields": [{ "name": "a", "type": "text" }, { "name": "a", "type": "text" }] }),
            "fields",
        ),
        (
            json!({ "name": "x", "type": "base", "fields": [{ "name": "a", "type": "relation", "collectionId": "nowhere" }] }),
            "fields",
        ),
        (json!({ "name": "x", "type": "base", "indexes": ["CREATE INDEX i ON x (nothing)"] }), "indexes"),
        (json!({ "name": "x", "type": "view", "viewQuery": "DELETE FROM taken" }), "viewQuery"),
    ] {
        let problem = admin.post("/api/collections", body.clone()).await.has_status(400).problem("schema_invalid");
        let found = problem["errors"]
            .as_array()
            .unwrap()
            .iter()
            .any(|error| error["field"].as_str().unwrap().starts_with(part));
        assert!(found, "{body}: {problem}");
    }
    let rule = json!({ "name": "x", "type": "base", "fields": [], "listRule": "nothing = 1" });
    let problem = admin.post("/api/collections", rule).await.has_status(400).problem("rule_invalid");
    assert_eq!(problem["errors"][0]["field"], "listRule");
    admin.delete("/api/collections/_settings").await.has_status(403).problem("forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn unique_indexes_refuse_the_second_and_name_the_fields() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let seats = json!({ "name": "seats", "type": "base",
        "fields": [{ "name": "row", "type": "number" }, { "name": "seat", "type": "number" }],
        "indexes": ["CREATE UNIQUE INDEX idx_seat ON seats (row, seat)"] });
    admin.post("/api/collections", seats).await.created();
    admin.post("/api/collections/seats/records", json!({ "row": 1, "seat": 1 })).await.created();
    admin.post("/api/collections/seats/records", json!({ "row": 1, "seat": 2 })).await.created();
    let refused = admin.post("/api/collections/seats/records", json!({ "row": 1, "seat": 1 })).await.has_status(400);
    let problem = refused.problem("validation_failed");
    assert_eq!(problem["data"]["seat"]["code"], "validation_not_unique", "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_travel_between_tenants() {
    let server = TestServer::start().await;
    let (from, to) = (server.tenant("from").await, server.tenant("to").await);
    from.post(
        "/api/collections",
        json!({ "name": "notes", "type": "base", "fields": [{ "name": "t", "type": "text" }] }),
    )
    .await
    .created();
    let all = from.get("/api/collections?perPage=200").await.ok();
    let own: Vec<_> = all["items"].as_array().unwrap().iter().filter(|item| item["system"] == false).collect();
    to.put("/api/collections/import", json!({ "collections": own, "deleteMissing": false })).await.gone();
    to.post("/api/collections/notes/records", json!({ "t": "works" })).await.created();
    let scaffolds = to.get("/api/collections/meta/scaffolds").await.ok();
    assert!(["base", "auth", "view"].iter().all(|kind| scaffolds[*kind]["type"] == *kind), "{scaffolds}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_superusers_see_and_change_definitions() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let ada = server.user(&admin, "ada").await;
    let anon = admin.clone().without_authorization();
    for path in ["/api/collections", "/api/collections/users", "/api/collections/meta/scaffolds", "/api/rules/lint"] {
        anon.get(path).await.has_status(401).problem("auth_required");
        ada.actor.get(path).await.has_status(403).problem("superuser_required");
    }
    ada.actor.post("/api/collections", json!({ "name": "x", "type": "base" })).await.problem("superuser_required");
    ada.actor.patch("/api/collections/users", json!({ "listRule": "" })).await.problem("superuser_required");
    ada.actor.delete("/api/collections/users").await.problem("superuser_required");
    ada.actor.delete("/api/collections/users/truncate").await.problem("superuser_required");
    ada.actor.put("/api/collections/import", json!({ "collections": [] })).await.problem("superuser_required");
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_made_from_blueprints_whose_promises_hold() {
    let server = TestServer::start().await;
    let node = server.node();
    let list = node.get("/api/blueprints").await.ok();
    let names: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect();
    for name in ["tournament", "cms", "courses", "business"] {
        assert!(names.contains(&name), "{names:?}");
        let tested = node.post(&format!("/api/blueprints/{name}/test"), json!({})).await.ok();
        assert_eq!(tested["broken"], 0, "{name}: {tested}");
        node.post("/api/tenants", json!({ "slug": format!("t-{name}"), "name": name, "blueprint": name }))
            .await
            .created();
        let made = node.get(&format!("/api/tenants/t-{name}")).await.ok();
        assert_eq!(made["blueprint"]["name"], name);
        assert!(made["collections"].as_u64().unwrap() > 3);
    }
    node.post("/api/tenants", json!({ "slug": "x", "name": "x", "blueprint": "nothing" }))
        .await
        .has_status(404)
        .problem("blueprint_not_found");
    node.get("/api/tenants/x").await.problem("tenant_not_found");
    server.tenant("later").await;
    let looked = node.post("/api/tenants/later/blueprint", json!({ "name": "cms", "dryRun": true })).await.ok();
    assert!(!looked["collections"].as_array().unwrap().is_empty());
    node.clone().at("later").get("/api/collections/entries").await.problem("collection_not_found");
    let applied = node.post("/api/tenants/later/blueprint", json!({ "name": "cms" })).await.ok();
    assert_eq!(applied["collections"], looked["collections"]);
    node.clone().at("later").get("/api/collections/entries").await.ok();
}

/// A text that looks as if this node had sealed it is not taken for one: it might be that of another tenant.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_secret_that_looks_sealed_is_refused() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let with = |secret: &str| {
        let provider = json!({ "name": "google", "clientId": "c", "clientSecret": secret });
        admin.patch("/api/collections/users", json!({ "oauth2": { "enabled": true, "providers": [provider] } }))
    };
    let told = with("sealed:2:victim:AAAA").await.problem("schema_invalid");
    assert!(told.to_string().contains("oauth2.providers.0.clientSecret"), "{told}");
    with("of the provider").await.ok();
}

/// `feilds` made a collection without fields, `requird` a field that need not be there, `enabeld` left a way to log in open.
#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_member_of_a_collection_is_refused_by_name() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let field = |extra: &str| json!({ "name": "title", "type": "text", extra: true });
    let provider = |extra: Value| {
        let provider = json!({ "name": "acme", "clientId": "id", "clientSecret": "s", "issuer": "https://id.test", "extra": extra });
        json!({ "oauth2": { "enabled": true, "providers": [provider] } })
    };
    for (body, field) in [
        (json!({ "name": "notes", "type": "base", "feilds": [] }), "feilds"),
        (json!({ "name": "notes", "type": "base", "listRul": "" }), "listRul"),
        (json!({ "name": "notes", "type": "base", "fields": [field("requird")] }), "fields.0.requird"),
        (json!({ "name": "notes", "type": "base", "fields": [field("hiden")] }), "fields.0.hiden"),
    ] {
        let refused = admin.post("/api/collections", body).await.has_status(400).problem("schema_invalid");
        assert_eq!(refused["errors"][0]["field"], field, "{refused}");
        assert!(refused["message"].as_str().unwrap().contains("known are"), "{refused}");
    }
    admin.get("/api/collections/notes").await.has_status(404);
    for (body, field) in [
        (json!({ "passwordAuth": { "enabeld": false } }), "passwordAuth.enabeld"),
        (json!({ "otp": { "enabled": true, "lenght": 12 } }), "otp.lenght"),
        (json!({ "passwordPolicy": { "refusecommon": true } }), "passwordPolicy.refusecommon"),
        (json!({ "authToken": { "duraton": 60 } }), "authToken.duraton"),
        (provider(json!({ "acrValue": "gold" })), "oauth2.providers.0.extra.acrValue"),
    ] {
        let refused = admin.patch("/api/collections/users", body).await.has_status(400).problem("schema_invalid");
        assert_eq!(refused["errors"][0]["field"], field, "{refused}");
    }
}

/// What a client was shown it may send back, and PocketBase's pages send members that mean nothing here.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_shown_and_what_pocketbase_sends_is_taken() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let fields = json!([
        { "name": "title", "type": "text", "requird": null, "_focusNameOnMount": true, "maxSelect": 1 },
        { "name": "html", "type": "editor", "convertURLs": false, "help": "" },
    ]);
    let mut body = json!({ "name": "notes", "type": "base", "created": "", "updated": "", "system": false,
        "oauth2": { "enabled": false }, "mfa": { "enabled": false }, "authRule": "", "fields": fields });
    admin.post("/api/collections", body.clone()).await.has_status(400).problem("schema_invalid");
    body["fields"][0].as_object_mut().unwrap().remove("requird");
    admin.post("/api/collections", body).await.created();
    for name in ["notes", "users"] {
        let path = format!("/api/collections/{name}");
        let shown = admin.get(&path).await.ok();
        admin.patch(&path, shown.clone()).await.ok();
        let import = json!({ "collections": [shown], "deleteMissing": false });
        admin.put("/api/collections/import", import).await.gone();
    }
}

/// The place of the second was one too far: what is added in front was counted along.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_target_is_found_where_it_was_sent() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    for (fields, place) in [
        (json!([{ "name": "a", "type": "relation" }]), "fields.0.collectionId"),
        (json!([{ "name": "a", "type": "relation", "collectionId": "nowhere" }]), "fields.0.collectionId"),
        (
            json!([{ "name": "t", "type": "text" }, { "name": "a", "type": "relation", "collectionId": "nowhere" }]),
            "fields.1.collectionId",
        ),
    ] {
        let body = json!({ "name": "notes", "type": "base", "fields": fields });
        let refused = admin.post("/api/collections", body).await.has_status(400).problem("schema_invalid");
        assert_eq!(refused["errors"][0]["field"], place, "{refused}");
    }
}
