//! Questions over the wire: bounds of a filter, what strangers learn of names, expands and cursors that lose nothing.

use crate::support::{Actor, Answer, TestServer};
use reqwest::Method;
use serde_json::{Value, json};

/// A path with query parameters, encoded.
pub(crate) fn asked(path: &str, parameters: &[(&str, &str)]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let encode = |byte: u8| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    let pairs: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", value.bytes().map(encode).collect::<String>()))
        .collect();
    format!("{path}?{}", pairs.join("&"))
}

async fn import(admin: &Actor, collection: &str, rows: &[Value]) {
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let import = admin.request(Method::POST, &format!("/api/collections/{collection}/import"));
    assert_eq!(Answer::of(import.body(lines)).await.ok()["created"], rows.len());
}

fn base(name: &str, rule: Option<&str>, fields: Value) -> Value {
    json!({ "name": name, "type": "base", "listRule": rule, "viewRule": rule, "fields": fields })
}

const NOTES: &str = "/api/collections/notes/records";

/// An anonymous caller's long operand became a pattern longer than SQLite had been told to take, which was a 500.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_operand_of_like_is_a_question_like_any_other() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let fields = json!([{ "name": "body", "type": "editor" }, { "name": "other", "type": "editor" }]);
    admin.post("/api/collections", base("notes", Some(""), fields)).await.created();
    let (lines, euros) = ("_".repeat(3_400), "\u{20ac}".repeat(1_500));
    admin.post(NOTES, json!({ "body": lines, "other": "_".repeat(60_000) })).await.created();
    admin.post(NOTES, json!({ "body": euros, "other": "x%".repeat(30_000) })).await.created();
    let guest = admin.without_authorization();
    let found = async |filter: &str| guest.get(&asked(NOTES, &[("filter", filter)])).await.ok()["totalItems"].clone();
    assert_eq!(found(&format!("body ~ '{lines}'")).await, 1);
    assert_eq!(found(&format!("body ~ '{lines}_'")).await, 0);
    assert_eq!(found(&format!("body ~ '{euros}'")).await, 1);
    assert_eq!(found(&format!("body !~ '{euros}%'")).await, 1);
    assert_eq!(found(&format!("body ~ '{}x'", "\\".repeat(3_300))).await, 0);
    // Other fields are patterns of any length, looked for by their beginning.
    assert_eq!(found("body ~ other").await, 0);
    assert_eq!(found("other ~ other").await, 2);
}

/// A stranger asked a locked collection for names: wrong ones were corrected, right ones refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_shows_nothing_tells_no_names() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let ada = server.user(&admin, "ada").await;
    let payroll = json!([{ "name": "salary", "type": "number" }]);
    admin.post("/api/collections", base("locked", None, payroll.clone())).await.created();
    admin.post("/api/collections", base("members", Some("@request.auth.id != ''"), payroll)).await.created();
    admin.post("/api/collections/members/records", json!({ "salary": 5 })).await.created();
    let guest = admin.clone().without_authorization();
    let questions = [
        [("filter", "salary > 1"), ("filter", "salery > 1")],
        [("sort", "salary"), ("sort", "salery")],
        [("aggregate", "sum(salary)"), ("aggregate", "sum(salery)")],
        [("aggregate", "count&group=salary"), ("aggregate", "count&group=salery")],
        [("search", "salary"), ("search", "salery")],
    ];
    for [right, wrong] in questions {
        let ask = |actor: &Actor, collection: &str, question: (&str, &str)| {
            let records = format!("/api/collections/{collection}/records");
            let path = match question.1.split_once("&group=") {
                Some((function, group)) => asked(&records, &[(question.0, function), ("group", group)]),
                None => asked(&records, &[question]),
            };
            let actor = actor.clone().with_header("x-request-id", "the-same-for-both");
            async move { actor.get(&path).await }
        };
        for actor in [&guest, &ada.actor] {
            let (one, two) = (ask(actor, "locked", right).await, ask(actor, "locked", wrong).await);
            assert_eq!(one.body, two.body, "{right:?}");
            one.has_status(403).problem("superuser_required");
        }
        let (one, two) = (ask(&guest, "members", right).await, ask(&guest, "members", wrong).await);
        assert_eq!((one.status, &one.body), (two.status, &two.body), "{right:?}");
        one.ok();
        // Whom the rule admits is helped as always.
        ask(&ada.actor, "members", wrong).await.has_status(400);
    }
    let broken = asked("/api/collections/members/records", &[("filter", "salary >")]);
    guest.get(&broken).await.problem("filter_invalid");
    guest.get("/api/collections/locked/records?cursor=forged").await.problem("superuser_required");
    ada.actor.get(&asked("/api/collections/members/records", &[("filter", "salary = 5")])).await.ok();
}

/// A hop into a collection that the caller is never shown found nothing, but told which fields are there.
#[tokio::test(flavor = "multi_thread")]
async fn a_hop_into_a_closed_collection_meets_no_names() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let locked = json!([{ "name": "salary", "type": "number" }, { "name": "boss", "type": "text" }]);
    let staff = admin.post("/api/collections", base("staff", None, locked)).await.created()["id"].clone();
    let to = |name: &str, target: &Value| json!({ "name": name, "type": "relation", "collectionId": target, "maxSelect": 1 });
    let notes = base("notes", Some(""), json!([to("by", &staff), { "name": "title", "type": "text" }]));
    let notes = admin.post("/api/collections", notes).await.created()["id"].clone();
    admin.post("/api/collections", base("audits", None, json!([to("note", &notes)]))).await.created();
    let made = admin.post("/api/collections/staff/records", json!({ "salary": 7 })).await.created();
    admin.post(NOTES, json!({ "by": made["id"], "title": "x" })).await.created();
    let guest = admin.clone().without_authorization();
    for (right, wrong) in [
        ("by.salary", "by.salery"),
        ("by.collectionName", "by.collectionNames"),
        ("by.salary:lower", "by.salery:lower"),
        ("audits_via_note.note", "nobody_via_note.note"),
        ("audits_via_note.id", "audits_via_nota.id"),
    ] {
        let refusal = async |path: &str, parameter: (&str, &str)| {
            let problem = guest.get(&asked(NOTES, &[parameter])).await.has_status(400).json();
            let said = problem["message"].as_str().unwrap().to_owned();
            assert!(!said.contains("did you mean"), "{said}");
            // The name as the caller wrote it is all in which the refusals may differ.
            let without = |said: String, part: &str| said.replace(&format!("\"{part}\""), "NAME");
            path.split('.').fold(said, without)
        };
        let (filter, other) = (format!("{right} = 7"), format!("{wrong} = 7"));
        assert_eq!(refusal(right, ("filter", &filter)).await, refusal(wrong, ("filter", &other)).await);
        assert_eq!(refusal(right, ("sort", right)).await, refusal(wrong, ("sort", wrong)).await, "{right}");
    }
    // The link itself is a field of the note.
    let by = asked(NOTES, &[("filter", &format!("by.id = '{}'", made["id"].as_str().unwrap()))]);
    assert_eq!(guest.get(&by).await.ok()["totalItems"], 1);
    assert_eq!(admin.get(&asked(NOTES, &[("filter", "by.salary = 7")])).await.ok()["totalItems"], 1);
}

/// Thirty records with four hundred others each had lost those that did not fit ten thousand for the whole page, unsaid.
#[tokio::test(flavor = "multi_thread")]
async fn an_expand_shows_every_record_the_first_thousand_of_its_own() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let hubs = admin.post("/api/collections", base("hubs", Some(""), json!([]))).await.created()["id"].clone();
    let link = json!({ "name": "hub", "type": "relation", "collectionId": hubs, "maxSelect": 1 });
    let number = json!({ "name": "n", "type": "number" });
    admin.post("/api/collections", base("spokes", Some("n != 7"), json!([link, number]))).await.created();
    let hub = |at: usize| format!("hub{at:012}");
    let rows: Vec<Value> = (0..31).map(|at| json!({ "id": hub(at) })).collect();
    import(&admin, "hubs", &rows).await;
    // In turn, so that a bound over all would cut every one of them.
    let rows: Vec<Value> = (0..400 * 30).map(|at| json!({ "hub": hub(at % 30), "n": at / 30 })).collect();
    import(&admin, "spokes", &rows).await;
    let rows: Vec<Value> = (0..1_100).map(|at| json!({ "hub": hub(30), "n": at })).collect();
    import(&admin, "spokes", &rows).await;
    let path = "/api/collections/hubs/records?perPage=40&expand=spokes_via_hub&fields=id,expand.spokes_via_hub.n";
    let guest = admin.without_authorization();
    let page = guest.get(path).await.ok();
    let items = page["items"].as_array().unwrap();
    assert_eq!(items.len(), 31);
    for item in items {
        let spokes = item["expand"]["spokes_via_hub"].as_array().unwrap();
        let found: Vec<i64> = spokes.iter().map(|spoke| spoke["n"].as_i64().unwrap()).collect();
        let last = if item["id"] == hub(30).as_str() { 1_001 } else { 400 };
        let expected: Vec<i64> = (0..last).filter(|n| *n != 7).collect();
        assert_eq!(found, expected, "{}", item["id"]);
    }
}

/// Naming something inside a JSON field showed the whole of it, and leaving it out did nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_selection_reaches_into_json() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let fields = json!([{ "name": "meta", "type": "json" }, { "name": "title", "type": "text" },
        { "name": "place", "type": "geoPoint" }]);
    admin.post("/api/collections", base("notes", Some(""), fields)).await.created();
    let meta = json!({ "z": 1, "a": { "b": 2, "c": [{ "d": 3, "e": 4 }] } });
    admin.post(NOTES, json!({ "meta": meta, "title": "x", "place": { "lon": 1.5, "lat": -2 } })).await.created();
    for (parameters, expected) in [
        (&[("fields", "meta.a.b")][..], json!({ "meta": { "a": { "b": 2 } } })),
        (&[("fields", "meta.a.c.d,title")], json!({ "meta": { "a": { "c": [{ "d": 3 }] } }, "title": "x" })),
        (&[("fields", "meta,meta.z")], json!({ "meta": meta })),
        (&[("fields", "meta.nothing")], json!({ "meta": {} })),
        (&[("fields", "title.x")], json!({ "title": "x" })),
        (&[("fields", "place.lon")], json!({ "place": { "lon": 1.5 } })),
        (&[("fields", "place"), ("excludeFields", "place.lon")], json!({ "place": { "lat": -2 } })),
        (&[("fields", "meta"), ("excludeFields", "meta.a")], json!({ "meta": { "z": 1 } })),
        (
            &[("fields", "meta"), ("excludeFields", "meta.a.c.e,meta.z")],
            json!({ "meta": { "a": { "b": 2, "c": [{ "d": 3 }] } } }),
        ),
    ] {
        let page = admin.get(&asked(NOTES, parameters)).await.ok();
        assert_eq!(page["items"][0], expected, "{parameters:?}");
    }
    let all = admin.get(&asked(NOTES, &[("fields", "*,meta.z")])).await.ok();
    assert_eq!((&all["items"][0]["meta"], &all["items"][0]["title"]), (&json!({ "z": 1 }), &json!("x")));
}

/// A list by a long field gave cursors that were refused, and an export by it broke off.
#[tokio::test(flavor = "multi_thread")]
async fn cursors_and_exports_walk_by_long_fields() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let fields = json!([{ "name": "body", "type": "editor" }, { "name": "n", "type": "number" }]);
    admin.post("/api/collections", base("notes", Some(""), fields)).await.created();
    // Alike for longer than a cursor remembers; the end decides.
    let long = |n: usize| format!("{}{n:02}", "z".repeat(20_000));
    let rows: Vec<Value> = (0..12).map(|n| json!({ "body": long(11 - n), "n": 11 - n })).collect();
    import(&admin, "notes", &rows).await;
    for (sort, backwards) in [("body", false), ("-body", true)] {
        let (mut cursor, mut seen) = (String::new(), Vec::new());
        let last = loop {
            let query = [("sort", sort), ("perPage", "5"), ("fields", "n"), ("cursor", cursor.as_str())];
            let page = admin.get(&asked(NOTES, &query)).await.ok();
            seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["n"].as_i64().unwrap()));
            let Some(next) = page["nextCursor"].as_str() else { break page };
            cursor = next.to_owned();
        };
        let mut expected: Vec<i64> = (0..12).collect();
        if backwards {
            expected.reverse();
        }
        assert_eq!(seen, expected, "{sort}");
        let back =
            [("sort", sort), ("perPage", "5"), ("fields", "n"), ("cursor", last["prevCursor"].as_str().unwrap())];
        let back = admin.get(&asked(NOTES, &back)).await.ok();
        let back: Vec<i64> = back["items"].as_array().unwrap().iter().map(|item| item["n"].as_i64().unwrap()).collect();
        assert_eq!(back, expected[5..10], "{sort}");
    }
    // The record at the cursor is the only one who knows the whole key.
    let first = admin.get(&asked(NOTES, &[("sort", "body"), ("perPage", "3"), ("cursor", "")])).await.ok();
    let stands_at = first["items"][2]["id"].as_str().unwrap();
    admin.delete(&format!("{NOTES}/{stands_at}")).await.gone();
    let next = [("sort", "body"), ("perPage", "3"), ("cursor", first["nextCursor"].as_str().unwrap())];
    let problem = admin.get(&asked(NOTES, &next)).await.has_status(400).problem("cursor_invalid");
    assert!(problem["message"].as_str().unwrap().contains("changed or gone"), "{problem}");
    // An export crosses from page to page beside long keys.
    let rows: Vec<Value> = (0..1_100).map(|n| json!({ "body": format!("a{n:04}"), "n": n })).collect();
    import(&admin, "notes", &rows).await;
    let export = admin.get("/api/collections/notes/export?sort=-body&fields=n").await.has_status(200);
    let lines: Vec<Value> =
        export.body.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert_eq!(lines.len(), 1_111);
    let rows: Vec<Value> =
        (0..1_000).map(|n| json!({ "body": format!("{}{n:04}", "~".repeat(13_000)), "n": n })).collect();
    import(&admin, "notes", &rows[..300]).await;
    import(&admin, "notes", &rows[300..600]).await;
    import(&admin, "notes", &rows[600..]).await;
    let export = admin.get("/api/collections/notes/export?sort=-body&fields=n").await.has_status(200);
    assert_eq!(export.body.iter().filter(|byte| **byte == b'\n').count(), 2_111);
}

/// A write whose rule was too much to ask was refused without a word of what was to blame.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_rule_is_too_much_to_ask_says_so() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let query = "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT x AS id, x AS n FROM r";
    admin.post("/api/collections", json!({ "name": "endless", "type": "view", "viewQuery": query })).await.created();
    let mut notes = base("notes", Some(""), json!([{ "name": "title", "type": "text" }]));
    notes["updateRule"] = json!("@collection.endless.n ?= title");
    admin.post("/api/collections", notes).await.created();
    let note = admin.post(NOTES, json!({ "title": "none" })).await.created()["id"].as_str().unwrap().to_owned();
    let guest = admin.clone().without_authorization();
    let refused = guest.patch(&format!("{NOTES}/{note}"), json!({ "title": "mine" })).await.has_status(400);
    let said = refused.problem("query_too_expensive")["message"].as_str().unwrap().to_owned();
    assert!(said.ends_with("; the update rule of notes is what has to be looked at."), "{said}");
    assert_eq!(admin.get(&format!("{NOTES}/{note}")).await.ok()["title"], "none");
    // Whoever passes every rule is asked none.
    admin.patch(&format!("{NOTES}/{note}"), json!({ "title": "mine" })).await.ok();
}

/// The whole address counts, as its parameters do: the last of equal ones, for the plan and for what is kept.
#[tokio::test(flavor = "multi_thread")]
async fn of_equal_parameters_the_last_counts_for_everybody() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    admin
        .post("/api/collections", base("notes", Some(""), json!([{ "name": "title", "type": "text" }])))
        .await
        .created();
    for title in ["one", "two"] {
        admin.post(NOTES, json!({ "title": title })).await.created();
    }
    let guest = admin.without_authorization();
    let one = ("filter", "title = 'one'");
    let found = async |asking: &[(&str, &str)]| guest.get(&asked(NOTES, asking)).await.ok()["totalItems"].clone();
    assert_eq!(found(&[one, ("filter", "")]).await, 2);
    assert_eq!(found(&[one]).await, 1);
    let refused = guest.get(&asked(NOTES, &[("cursor", ""), ("page", "2")])).await.has_status(400);
    let said = refused.problem("parameter_invalid")["message"].as_str().unwrap().to_owned();
    assert!(said.contains("page") && said.contains("cursor"), "{said}");
}

/// These said that a text ended, that a number is no number, and that a record had changed.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_too_large_or_no_tag_is_said_so() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let body = json!({ "name": "plain", "type": "base", "fields": [{ "name": "title", "type": "text" }] });
    admin.post("/api/collections", body).await.created();
    let path = "/api/collections/plain/records";
    let said = |body: Value| body["message"].as_str().unwrap().to_owned();
    let grouped = said(admin.get(&format!("{path}?group=title")).await.problem("parameter_invalid"));
    assert!(grouped.contains("\"group\" needs") && grouped.contains("aggregate=count"), "{grouped}");
    let paged = said(admin.get(&format!("{path}?page=99999999999999999999")).await.problem("parameter_invalid"));
    assert!(paged.contains("up to 9223372036854775807"), "{paged}");
    let id = admin.post(path, json!({ "title": "a" })).await.created()["id"].as_str().unwrap().to_owned();
    let garbage = admin.clone().with_header("if-match", "garbage");
    let refused = said(garbage.patch(&format!("{path}/{id}"), json!({})).await.problem("precondition_failed"));
    assert!(refused.contains("no ETag"), "{refused}");
}
