//! Rules on writes: what they see of a request, in every form in which a request can say the same.

use crate::support::{Actor, Answer, TestServer};
use serde_json::{Value, json};
use std::sync::Arc;
use tenantry::kernel::clock::SystemClock;

const THINGS: &str = "/api/collections/things/records";

/// A collection that everybody may read and write, except for what `rules` says.
async fn things(server: &TestServer, rules: Value) -> Actor {
    let admin = server.tenant("acme").await;
    let mut definition = json!({ "name": "things", "type": "base",
        "listRule": "", "viewRule": "", "createRule": "", "updateRule": "", "deleteRule": "",
        "fields": [
            { "name": "status", "type": "text" },
            { "name": "chips", "type": "number" },
            { "name": "flag", "type": "bool" },
            { "name": "role", "type": "select", "values": ["member", "owner"], "maxSelect": 1 },
            { "name": "tags", "type": "select", "values": ["red", "gold"], "maxSelect": 2 },
            { "name": "data", "type": "json" },
        ] });
    for (name, rule) in rules.as_object().unwrap() {
        definition[name] = rule.clone();
    }
    admin.post("/api/collections", definition).await.created();
    admin
}

/// Bodies that say something which `rule` refuses, and some that say what it lets through.
fn spellings() -> Vec<(&'static str, Vec<Value>, Vec<Value>)> {
    vec![
        (
            "@request.body.chips:changed = false",
            vec![json!({ "chips": 9 }), json!({ "chips+": 9 }), json!({ "chips-": -9 }), json!({ "chips": "9" })],
            vec![json!({ "status": "x" }), json!({ "chips": 0 }), json!({ "chips+": 0 }), json!({ "chips": "" })],
        ),
        (
            "@request.body.chips:isset = false",
            vec![json!({ "chips": 0 }), json!({ "chips+": 1 }), json!({ "+chips": 1 }), json!({ "chips-": 1 })],
            vec![json!({ "status": "x" })],
        ),
        (
            "@request.body.chips >= 0",
            vec![json!({ "chips": -5 }), json!({ "chips": "-5" }), json!({ "chips-": 5 }), json!({ "chips": " -5 " })],
            vec![json!({ "chips": 5 }), json!({ "chips": "5" }), json!({ "chips": 5, "chips-": 5 })],
        ),
        (
            "@request.body.flag != true",
            vec![json!({ "flag": true }), json!({ "flag": "on" }), json!({ "flag": 1 }), json!({ "flag": "YES" })],
            vec![json!({ "flag": false }), json!({ "flag": "off" }), json!({})],
        ),
        (
            "@request.body.role != 'owner'",
            vec![
                json!({ "role": "owner" }),
                json!({ "role": ["owner"] }),
                json!({ "role": ["member", "owner"] }),
                json!({ "role": "[\"owner\"]" }),
                json!({ "role+": "owner" }),
            ],
            vec![json!({ "role": ["member"] }), json!({ "role": ["owner", "member"] }), json!({ "role-": "owner" })],
        ),
        (
            "@request.body.tags !~ 'gold'",
            vec![json!({ "tags": ["gold"] }), json!({ "tags": "gold" }), json!({ "+tags": ["gold"] })],
            vec![json!({ "tags": "red" }), json!({ "tags": "gold", "tags-": "gold" })],
        ),
        (
            "@request.body.data.role != 'owner'",
            vec![json!({ "data": { "role": "owner" } }), json!({ "data": "{\"role\":\"owner\"}" })],
            vec![json!({ "data": "{\"role\":\"member\"}" })],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_sees_what_a_write_will_store_however_it_is_spelled() {
    // Rules read the body as it was sent once, while the write understood modifiers and casts: `chips+` passed a rule
    // that forbade to change `chips`, and `["owner"]` one that forbade the role.
    let server = TestServer::start().await;
    let admin = things(&server, json!({})).await;
    let guest = admin.clone().without_authorization();
    for (rule, refused, admitted) in spellings() {
        // A new record is asked as it will be, so nothing of it is about to change.
        let creating = if rule.contains(":changed") { "1 = 2" } else { rule };
        let rules = json!({ "createRule": creating, "updateRule": rule });
        admin.patch("/api/collections/things", rules).await.ok();
        let path = format!("{THINGS}/{}", admin.post(THINGS, json!({})).await.created()["id"].as_str().unwrap());
        let before = admin.get(&path).await.ok();
        let batch = |method: &str, url: &str, body: &Value| json!({ "requests": [{ "method": method, "url": url, "body": body }] });
        for body in refused {
            guest.post(THINGS, body.clone()).await.problem("create_refused");
            guest.patch(&path, body.clone()).await.problem("record_not_found");
            for (method, url) in [("POST", THINGS), ("PUT", THINGS), ("PATCH", &*path)] {
                guest.post("/api/batch", batch(method, url, &body)).await.problem("batch_request_failed");
            }
            assert_eq!(admin.get(&path).await.ok(), before, "{rule}: {body}");
        }
        for body in admitted {
            if creating == rule {
                guest.post(THINGS, body.clone()).await.created();
                guest.post("/api/batch", batch("PUT", THINGS, &body)).await.ok();
            }
            guest.patch(&path, body.clone()).await.ok();
            guest.post("/api/batch", batch("PATCH", &path, &body)).await.ok();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_told_from_what_is_stored() {
    let server = TestServer::start().await;
    let admin = things(&server, json!({ "updateRule": "@request.body.chips <= 10" })).await;
    let guest = admin.clone().without_authorization();
    let made = admin.post(THINGS, json!({ "chips": 8 })).await.created();
    let path = format!("{THINGS}/{}", made["id"].as_str().unwrap());
    guest.patch(&path, json!({ "chips+": 3 })).await.problem("record_not_found");
    assert_eq!(guest.patch(&path, json!({ "chips+": 2 })).await.ok()["chips"], 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_rule_sees_what_the_field_will_hold() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let field = json!({ "name": "n", "type": "number", "writeRule": "@request.body.n < 10" });
    let definition = json!({ "name": "things", "type": "base", "createRule": "", "updateRule": "", "viewRule": "",
        "fields": [field] });
    admin.post("/api/collections", definition).await.created();
    let guest = admin.clone().without_authorization();
    let path = format!("{THINGS}/{}", admin.post(THINGS, json!({ "n": 5 })).await.created()["id"].as_str().unwrap());
    for body in [json!({ "n": "11" }), json!({ "n+": 11 })] {
        for answer in [guest.post(THINGS, body.clone()).await, guest.patch(&path, body.clone()).await] {
            assert_eq!(answer.problem("validation_failed")["data"]["n"]["code"], "validation_not_allowed", "{body}");
        }
    }
    assert_eq!(guest.patch(&path, json!({ "n+": "4" })).await.ok()["n"], 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_verifies_themselves_by_another_spelling() {
    // The check knew fewer words for true than the write did.
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let (ada, guest) = (server.user(&admin, "ada").await, admin.clone().without_authorization());
    let path = format!("/api/collections/users/records/{}", ada.id);
    for (number, word) in [json!(true), json!("on"), json!("YES"), json!("t"), json!(2)].into_iter().enumerate() {
        let answer = ada.actor.patch(&path, json!({ "verified": word })).await;
        assert_eq!(answer.problem("validation_failed")["data"]["verified"]["code"], "validation_values_mismatch");
        let account = json!({ "email": format!("new{number}@example.com"), "verified": word,
            "password": "correct horse", "passwordConfirm": "correct horse" });
        let refused = guest.post("/api/collections/users/records", account).await.problem("validation_failed");
        assert_eq!(refused["data"]["verified"]["code"], "validation_values_mismatch", "{word}");
    }
    assert_eq!(admin.get(&path).await.ok()["verified"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_manage_rule_makes_nobody_a_manager() {
    // Everywhere else it counted as none; where accounts are written it admitted everybody.
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let guest = admin.clone().without_authorization();
    admin.patch("/api/collections/users", json!({ "createRule": "", "manageRule": "" })).await.ok();
    let account = json!({ "email": "new@example.com", "verified": true,
        "password": "correct horse", "passwordConfirm": "correct horse" });
    let refused = guest.post("/api/collections/users/records", account).await.problem("validation_failed");
    assert_eq!(refused["data"]["verified"]["code"], "validation_values_mismatch", "{refused}");
}

/// Teams of which ada owns one, and invitations with unique codes that only a team's owner makes.
async fn invitations(server: &TestServer) -> (Actor, Actor) {
    let admin = server.tenant("acme").await;
    let ada = server.user(&admin, "ada").await;
    let teams = json!({ "name": "teams", "type": "base", "fields": [{ "name": "owner", "type": "text" }] });
    let teams = admin.post("/api/collections", teams).await.created();
    for (id, owner) in [("ownteam00000000", ada.id.as_str()), ("hidden000000000", "somebody")] {
        admin.post("/api/collections/teams/records", json!({ "id": id, "owner": owner })).await.created();
    }
    let rule = "@request.auth.id != '' && team.owner = @request.auth.id && @collection.invitations.code ?= code";
    let definition = json!({ "name": "invitations", "type": "base", "createRule": rule, "updateRule": "code = 'never'",
        "fields": [
            { "name": "code", "type": "text" },
            { "name": "team", "type": "relation", "collectionId": teams["id"], "maxSelect": 1 },
            { "name": "other", "type": "relation", "collectionId": teams["id"], "maxSelect": 1 },
        ],
        "indexes": ["CREATE UNIQUE INDEX idx_invitations_code ON invitations (code)"] });
    admin.post("/api/collections", definition).await.created();
    let taken = json!({ "id": "taken0000000000", "code": "taken", "team": "hidden000000000" });
    admin.post("/api/collections/invitations/records", taken).await.created();
    (admin, ada.actor)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_creation_says_nothing_about_what_is_stored() {
    // Uniqueness and references were checked before the rule, so their refusals told everybody what there is.
    const PATH: &str = "/api/collections/invitations/records";
    let server = TestServer::start().await;
    let (admin, ada) = invitations(&server).await;
    let guest = admin.clone().without_authorization();
    let batch = |method: &str, body: &Value| json!({ "requests": [{ "method": method, "url": PATH, "body": body }] });
    for body in [
        json!({ "code": "taken", "team": "hidden000000000" }),
        json!({ "code": "free", "team": "hidden000000000" }),
        json!({ "code": "free", "team": "nothere00000000" }),
        json!({ "code": "free", "team": "hidden000000000", "other": "nothere00000000" }),
        json!({ "id": "taken0000000000", "code": "free", "team": "hidden000000000" }),
        json!({ "id": "free00000000000", "code": "free", "team": "hidden000000000" }),
    ] {
        for actor in [&guest, &ada] {
            let refused = actor.post(PATH, body.clone()).await.has_status(400).problem("create_refused");
            assert_eq!(refused["data"], json!({}), "{body}");
            for method in ["POST", "PUT"] {
                let problem = actor.post("/api/batch", batch(method, &body)).await.problem("batch_request_failed");
                let response = &problem["data"]["requests"]["0"]["response"];
                assert_eq!(response["code"], "create_refused", "{method} {body}");
            }
        }
    }
    // Who could have stored the record is told why it was not.
    for (body, field, code) in [
        (json!({ "code": "taken", "team": "ownteam00000000" }), "code", "validation_not_unique"),
        (json!({ "id": "taken0000000000", "code": "free", "team": "ownteam00000000" }), "id", "validation_not_unique"),
        (
            json!({ "code": "free", "team": "ownteam00000000", "other": "nothere00000000" }),
            "other",
            "validation_missing_rel_records",
        ),
    ] {
        let refused = ada.post(PATH, body).await.problem("validation_failed");
        assert_eq!(refused["data"][field]["code"], code, "{refused}");
    }
    ada.post(PATH, json!({ "code": "free", "team": "ownteam00000000" })).await.created();
    assert_eq!(admin.get(PATH).await.ok()["totalItems"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_one_stranger_is_not_that_of_another() {
    let toml = "[http]\ntrusted_proxies = ['127.0.0.0/8']";
    let server = TestServer::start_with(toml, Arc::new(SystemClock)).await;
    let admin = things(&server, json!({})).await;
    let keyed = admin.clone().without_authorization().with_header("idempotency-key", "1");
    let from = |address: &str| keyed.clone().with_header("x-forwarded-for", address);
    let (one, other) = (from("198.51.100.7"), from("198.51.100.8"));
    let first = one.post(THINGS, json!({ "status": "one" })).await.created();
    assert_eq!(one.post(THINGS, json!({ "status": "one" })).await.created(), first);
    assert_eq!(other.post(THINGS, json!({ "status": "other" })).await.created()["status"], "other");
    assert_eq!(admin.get(THINGS).await.ok()["totalItems"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explanation_asks_what_the_request_itself_would_be_asked() {
    // It kept the method, query and headers of the question, needed a record even for a creation, knew no fields, and looked
    // at so many records only, so that it denied what was allowed.
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let ada = server.user(&admin, "ada").await;
    let asked = |method: &str| {
        format!("@request.method = '{method}' && @request.query.q = '1' && @request.headers.x_form = 'f'")
    };
    let n = json!({ "name": "n", "type": "number", "readRule": "@request.auth.id != ''", "writeRule": "@request.body.n < 10" });
    let definition = json!({ "name": "things", "type": "base", "listRule": asked("GET"), "viewRule": asked("GET"),
        "createRule": format!("{} && n > 0", asked("POST")), "updateRule": asked("PATCH"), "deleteRule": asked("DELETE"),
        "fields": [n, { "name": "title", "type": "text" }] });
    admin.post("/api/collections", definition).await.created();
    let id = admin.post(THINGS, json!({ "n": 5 })).await.created()["id"].clone();
    let caller = json!({ "collection": "users", "id": ada.id });
    let ask = async |more: Value| {
        let mut question =
            json!({ "collection": "things", "record": id, "query": { "q": "1" }, "headers": { "X-Form": "f" } });
        question.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        admin.post("/api/rules/explain", question).await.ok()
    };
    for action in ["list", "view", "update", "delete"] {
        assert_eq!(ask(json!({ "action": action })).await["allowed"], true, "{action}");
        assert_eq!(ask(json!({ "action": action, "headers": {} })).await["allowed"], false, "{action}");
    }
    for (more, allowed) in [
        (json!({ "action": "create", "record": null, "body": { "n": "3" } }), true),
        (json!({ "action": "create", "record": null, "body": { "n-": 3 } }), false),
        (json!({ "action": "view", "field": "n", "caller": caller }), true),
        (json!({ "action": "view", "field": "n" }), false),
        (json!({ "action": "view", "field": "title" }), true),
        (json!({ "action": "update", "field": "n", "body": { "n+": 4 } }), true),
        (json!({ "action": "update", "field": "n", "body": { "n+": 5 } }), false),
    ] {
        let why = ask(more.clone()).await;
        assert_eq!((&why["allowed"], &why["complete"]), (&json!(allowed), &json!(true)), "{more}: {why}");
    }
    for (more, field) in [
        (json!({ "action": "view", "record": null }), "record"),
        (json!({ "action": "view", "field": "nothing" }), "field"),
        (json!({ "action": "delete", "field": "n" }), "field"),
    ] {
        let mut question = json!({ "collection": "things", "record": id });
        question.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let refused = admin.post("/api/rules/explain", question).await.problem("validation_failed");
        assert!(refused["data"][field].is_object(), "{more}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explanation_denies_nothing_that_is_allowed_far_away() {
    // The last of many memberships is the one that counts.
    let server = TestServer::start().await;
    let admin = things(&server, json!({})).await;
    let marks = json!({ "name": "marks", "type": "base", "fields": [{ "name": "of", "type": "text" }] });
    admin.post("/api/collections", marks).await.created();
    admin.patch("/api/collections/things", json!({ "viewRule": "@collection.marks.of ?= id" })).await.ok();
    let id = admin.post(THINGS, json!({})).await.created()["id"].as_str().unwrap().to_owned();
    let mut rows = "{\"of\":\"nobody\"}\n".repeat(10_500);
    rows.push_str(&format!("{{\"of\":\"{id}\"}}\n"));
    let import = admin.request(reqwest::Method::POST, "/api/collections/marks/import").body(rows);
    assert_eq!(Answer::of(import).await.ok()["created"], 10_501);
    let question = json!({ "collection": "things", "record": id, "action": "view" });
    let why = admin.post("/api/rules/explain", question).await.ok();
    assert_eq!((&why["allowed"], &why["complete"]), (&json!(true), &json!(false)), "{}", why["reason"]);
    assert_eq!(why["reason"], "The rule holds; not every comparison is shown here.");
    admin.without_authorization().get(&format!("{THINGS}/{id}")).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_are_tried_under_the_rules_a_tenant_has_now() {
    let server = TestServer::start().await;
    let node = server.node();
    let collection = json!({ "name": "posts", "type": "base", "listRule": "", "viewRule": "", "updateRule": "title != ''",
        "fields": [{ "name": "title", "type": "text", "writeRule": "@request.body.title != 'x'" }] });
    let promise = |action: &str, field: Option<&str>, body: Value, expect: &str| {
        json!({ "name": action, "as": null, "do": action, "field": field, "collection": "posts", "record": { "title": "t" },
            "body": body, "expect": expect })
    };
    let blueprint = json!({ "name": "blog", "version": 1, "title": "Blog", "description": "", "collections": [collection],
        "ruleTests": [
            promise("view", None, json!({}), "allow"),
            promise("update", None, json!({ "title": "y" }), "allow"),
            promise("write", Some("title"), json!({ "title": "x" }), "deny"),
        ] });
    node.post("/api/blueprints", blueprint).await.ok();
    node.post("/api/tenants", json!({ "slug": "acme", "blueprint": "blog" })).await.created();
    let admin = node.clone().at("acme");
    let test = async || node.post("/api/blueprints/blog/test?tenant=acme", json!({})).await.ok();
    assert_eq!(test().await["kept"], 3);
    admin.patch("/api/collections/posts", json!({ "viewRule": null })).await.ok();
    let before = admin.get("/api/collections/posts/records").await.ok();
    let outcome = test().await;
    assert_eq!((&outcome["broken"], &outcome["items"][0]["kept"]), (&json!(1), &json!(false)), "{outcome}");
    assert_eq!(node.post("/api/blueprints/blog/test", json!({})).await.ok()["broken"], 0);
    assert_eq!(admin.get("/api/collections/posts/records").await.ok(), before);
    node.post("/api/blueprints/blog/test?tenant=nobody", json!({})).await.problem("tenant_not_found");
}

/// One comparison for each membership of everybody made an explanation of thousands of lines.
#[tokio::test(flavor = "multi_thread")]
async fn an_explanation_shows_few_rows_of_each_comparison_and_counts_the_rest() {
    let server = TestServer::start().await;
    let admin = things(&server, json!({})).await;
    let marks = json!({ "name": "marks", "type": "base", "fields": [{ "name": "of", "type": "text" }] });
    admin.post("/api/collections", marks).await.created();
    admin.patch("/api/collections/things", json!({ "viewRule": "@collection.marks.of ?= id && id != ''" })).await.ok();
    let id = admin.post(THINGS, json!({})).await.created()["id"].as_str().unwrap().to_owned();
    let rows = "{\"of\":\"nobody\"}\n".repeat(300) + &format!("{{\"of\":\"{id}\"}}\n").repeat(7);
    let import = admin.request(reqwest::Method::POST, "/api/collections/marks/import").body(rows);
    assert_eq!(Answer::of(import).await.ok()["created"], 307);
    let question = json!({ "collection": "things", "record": id, "action": "view" });
    let why = admin.post("/api/rules/explain", question).await.ok();
    let shown = why["comparisons"].as_array().unwrap();
    let of =
        |source: &str, held: bool| shown.iter().filter(|one| one["source"] == source && one["outcome"] == held).count();
    let many = "@collection.marks.of ?= id";
    assert_eq!((of(many, true), of(many, false), of("id != ''", true)), (5, 5, 1), "{why}");
    let not_shown =
        json!([{ "source": many, "outcome": false, "count": 295 }, { "source": many, "outcome": true, "count": 2 }]);
    assert_eq!((&why["allowed"], &why["notShown"]), (&json!(true), &not_shown), "{why}");
}
