//! Records over the wire: what is written is read, pages hold together, conditions and retries are kept.

use crate::support::{Actor, Answer, TestServer};
use reqwest::Method;
use serde_json::{Value, json};

const NOTES: &str = "/api/collections/notes/records";

async fn notes(server: &TestServer) -> Actor {
    let admin = server.tenant("acme").await;
    let definition = json!({ "name": "notes", "type": "base", "listRule": "", "viewRule": "",
        "fields": [
            { "name": "title", "type": "text", "required": true, "max": 100 },
            { "name": "n", "type": "number" },
            { "name": "tags", "type": "select", "values": ["red", "green", "blue"], "maxSelect": 3 },
        ] });
    admin.post("/api/collections", definition).await.created();
    admin
}

async fn numbered(admin: &Actor, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        let made = admin.post(NOTES, json!({ "title": format!("note {n}"), "n": n })).await.created();
        ids.push(made["id"].as_str().unwrap().to_owned());
    }
    ids
}

fn column(list: &Value, name: &str) -> Vec<i64> {
    list["items"].as_array().unwrap().iter().map(|item| item[name].as_i64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_created_read_changed_and_deleted() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    let made = admin.post(NOTES, json!({ "title": "first", "n": 1, "ignored": true })).await.created();
    assert_eq!((&made["collectionName"], made.get("ignored")), (&json!("notes"), None));
    assert!(made["id"].as_str().is_some_and(|id| id.len() == 15), "{made}");
    let path = format!("{NOTES}/{}", made["id"].as_str().unwrap());
    assert_eq!(admin.get(&path).await.ok(), made);
    let changed = admin.patch(&path, json!({ "n+": 4, "tags+": ["red"] })).await.ok();
    assert_eq!((&changed["n"], &changed["tags"], &changed["title"]), (&json!(5), &json!(["red"]), &json!("first")));
    admin.delete(&path).await.gone();
    admin.get(&path).await.has_status(404).problem("record_not_found");
    admin.delete(&path).await.problem("record_not_found");
    let own = admin.post(NOTES, json!({ "id": "abcdefghijklmno", "title": "own id" })).await.created();
    assert_eq!(own["id"], "abcdefghijklmno");
    admin
        .post(NOTES, json!({ "id": "abcdefghijklmno", "title": "again" }))
        .await
        .has_status(400)
        .problem("validation_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_fields_are_all_named_at_once() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    let body = json!({ "title": "", "n": "many", "tags": ["red", "pink"] });
    let problem = admin.post(NOTES, body).await.has_status(400).problem("validation_failed");
    assert_eq!(problem["data"]["title"]["code"], "validation_required");
    for field in ["n", "tags"] {
        assert!(
            problem["data"][field]["code"].as_str().is_some_and(|code| code.starts_with("validation_")),
            "{problem}"
        );
    }
    let errors: Vec<_> = problem["errors"].as_array().unwrap().iter().map(|error| error["field"].clone()).collect();
    assert_eq!(errors.len(), 3, "{errors:?}");
    let long = json!({ "title": "x".repeat(101) });
    assert_eq!(
        admin.post(NOTES, long).await.problem("validation_failed")["data"]["title"]["code"],
        "validation_max_text_constraint"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_page_sort_filter_and_select() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    numbered(&admin, 7).await;
    let page = admin.get(&format!("{NOTES}?page=2&perPage=3&sort=-n")).await.ok();
    assert_eq!((column(&page, "n"), &page["totalItems"], &page["totalPages"]), (vec![3, 2, 1], &json!(7), &json!(3)));
    for alias in ["perPage=2", "pageSize=2", "limit=2"] {
        assert_eq!(column(&admin.get(&format!("{NOTES}?{alias}&sort=n")).await.ok(), "n"), [0, 1], "{alias}");
    }
    assert_eq!(column(&admin.get(&format!("{NOTES}?sortBy=n&sortDir=desc&limit=1")).await.ok(), "n"), [6]);
    let totals = admin.get(&format!("{NOTES}?skipTotal=1")).await.ok();
    assert_eq!((&totals["totalItems"], &totals["totalPages"]), (&json!(-1), &json!(-1)));
    let filtered = admin.get(&format!("{NOTES}?filter=n%3E%3D2%20%26%26%20n%3C4&sort=n")).await.ok();
    assert_eq!(column(&filtered, "n"), [2, 3]);
    let picked = admin.get(&format!("{NOTES}?fields=n&limit=1&sort=n")).await.ok();
    assert_eq!(picked["items"][0], json!({ "n": 0 }));
    let without = admin.get(&format!("{NOTES}?excludeFields=title,tags&limit=1&sort=n")).await.ok();
    assert!(without["items"][0].get("title").is_none() && without["items"][0]["n"] == 0, "{without}");
    for (query, code) in [
        ("filter=nothing%3D1", "filter_invalid"),
        ("filter=n%20%3D", "filter_invalid"),
        ("sort=nothing", "sort_invalid"),
        ("expand=..", "expand_invalid"),
        ("fields=title:nothing(1)", "fields_invalid"),
        ("cursor=forged", "cursor_invalid"),
    ] {
        admin.get(&format!("{NOTES}?{query}")).await.has_status(400).problem(code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_by_cursor_visits_each_record_once_in_both_directions() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    numbered(&admin, 10).await;
    let path = format!("{NOTES}?perPage=3&sort=-n&cursor=");
    let first = admin.get(&path).await;
    assert!(
        first.header("link").is_some_and(|link| link.contains("rel=\"next\"") && link.contains("/t/acme/api/")),
        "{first:?}"
    );
    let (mut page, mut seen, mut cursors) = (first.ok(), Vec::new(), Vec::new());
    loop {
        seen.extend(column(&page, "n"));
        let Some(next) = page["nextCursor"].as_str().map(str::to_owned) else { break };
        // A record that arrives in front of the walk does not shift it.
        admin.post(NOTES, json!({ "title": "late", "n": 100 })).await.created();
        page = admin.get(&format!("{path}{next}")).await.ok();
        cursors.push(page["prevCursor"].as_str().expect("a way back").to_owned());
    }
    assert_eq!(seen, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
    let back = admin.get(&format!("{path}{}", cursors.last().unwrap())).await.ok();
    assert_eq!(column(&back, "n"), [3, 2, 1]);
    let other_sort = format!("{NOTES}?perPage=3&sort=n&cursor={}", cursors[0]);
    admin.get(&other_sort).await.problem("cursor_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_carry_a_tag_and_are_spared_when_it_still_holds() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    let id = numbered(&admin, 1).await.remove(0);
    for path in [format!("{NOTES}/{id}"), NOTES.to_owned()] {
        let answer = admin.get(&path).await;
        let tag = answer.header("etag").expect("a tag").to_owned();
        assert!(answer.header("cache-control").is_some_and(|value| value.contains("private") || value.contains("no-")));
        let again = admin.clone().with_header("if-none-match", format!("\"other\", W/{tag}"));
        let spared = again.get(&path).await.has_status(304);
        assert!(spared.body.is_empty() && spared.header("etag") == Some(tag.as_str()));
        let head = Answer::of(admin.request(Method::HEAD, &path)).await.has_status(200);
        assert_eq!((head.body.len(), head.header("etag")), (0, Some(tag.as_str())));
        admin.patch(&format!("{NOTES}/{id}"), json!({ "n+": 1 })).await.ok();
        assert_ne!(again.get(&path).await.has_status(200).header("etag"), Some(tag.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn if_match_guards_against_lost_updates() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    let id = numbered(&admin, 1).await.remove(0);
    let path = format!("{NOTES}/{id}");
    let tag = admin.get(&path).await.header("etag").unwrap().to_owned();
    let guarded = admin.clone().with_header("if-match", tag);
    guarded.patch(&path, json!({ "n": 50 })).await.ok();
    guarded.patch(&path, json!({ "n": 60 })).await.has_status(412).problem("precondition_failed");
    guarded.delete(&path).await.has_status(412).problem("precondition_failed");
    assert_eq!(admin.get(&path).await.ok()["n"], 50);
    // The tag of a compressed answer names the same version.
    let tag = admin.get(&path).await.header("etag").unwrap().replace("\"", "");
    admin.clone().with_header("if-match", format!("\"{tag}-br\"")).patch(&path, json!({ "n": 65 })).await.ok();
    admin.clone().with_header("if-match", "*").patch(&path, json!({ "n": 70 })).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_with_a_key_happens_once() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    let keyed = admin.clone().with_header("idempotency-key", "order-1");
    let first = keyed.post(NOTES, json!({ "title": "once" })).await;
    let again = keyed.post(NOTES, json!({ "title": "once" })).await;
    assert_eq!((first.header("idempotent-replayed"), again.header("idempotent-replayed")), (None, Some("true")));
    assert_eq!(first.created(), again.created());
    keyed.post(NOTES, json!({ "title": "other" })).await.has_status(422).problem("idempotency_mismatch");
    assert_eq!(admin.get(NOTES).await.ok()["totalItems"], 1);
    admin.with_header("idempotency-key", "x".repeat(300)).post(NOTES, json!({ "title": "t" })).await.has_status(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_checks_everything_and_changes_nothing() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    admin.post(&format!("{NOTES}?dryRun=1"), json!({ "title": "" })).await.problem("validation_failed");
    let dry = admin.post(&format!("{NOTES}?dryRun=1"), json!({ "title": "maybe" })).await;
    assert_eq!(dry.header("tenantry-token"), None);
    assert_eq!(dry.created()["title"], "maybe");
    assert_eq!(admin.get(NOTES).await.ok()["totalItems"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn multipart_bodies_stand_for_json() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    let form = reqwest::multipart::Form::new()
        .text("title", "from a form")
        .text("n", "12")
        .text("tags", "red")
        .text("tags", "blue")
        .text("@jsonPayload", "{\"n\":13}");
    let made = Answer::of(admin.request(Method::POST, NOTES).multipart(form)).await.created();
    assert_eq!(
        (&made["title"], &made["n"], &made["tags"]),
        (&json!("from a form"), &json!(13), &json!(["red", "blue"]))
    );
    let file = reqwest::multipart::Part::bytes(vec![1, 2, 3]).file_name("a.bin");
    let form = reqwest::multipart::Form::new().text("title", "t").part("upload", file);
    let refused = Answer::of(admin.request(Method::POST, NOTES).multipart(form)).await.has_status(400);
    assert_eq!(refused.problem("validation_failed")["errors"][0]["field"], "upload");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_leave_and_come_back_in_bulk() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    numbered(&admin, 25).await;
    for (format, media) in [("ndjson", "application/x-ndjson"), ("csv", "text/csv; charset=utf-8")] {
        let path = format!("/api/collections/notes/export?format={format}");
        let out = admin.get(&path).await.has_status(200);
        assert_eq!(out.header("content-type"), Some(media));
        let lines = out.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
        assert_eq!(lines, if format == "csv" { 26 } else { 25 });
        admin.delete("/api/collections/notes/truncate").await.gone();
        let import = |query: &str| format!("/api/collections/notes/import?format={format}{query}");
        let dry = Answer::of(admin.request(Method::POST, &import("&dryRun=1")).body(out.body.clone())).await.ok();
        assert_eq!((&dry["created"], &dry["refused"]), (&json!(25), &json!(0)), "{dry}");
        assert_eq!(admin.get(NOTES).await.ok()["totalItems"], 0);
        let done = Answer::of(admin.request(Method::POST, &import("")).body(out.body)).await.ok();
        assert_eq!((&done["created"], &done["refused"]), (&json!(25), &json!(0)), "{done}");
        assert_eq!(column(&admin.get(&format!("{NOTES}?sort=-n&limit=1")).await.ok(), "n"), [24]);
    }
    let rows = "{\"title\":\"good\"}\n{\"title\":\"\"}\nnot json\n";
    let report = Answer::of(admin.request(Method::POST, "/api/collections/notes/import").body(rows)).await.ok();
    let refused: Vec<_> =
        report["refusals"].as_array().unwrap().iter().map(|row| row["line"].as_u64().unwrap()).collect();
    assert_eq!((&report["created"], refused), (&json!(1), vec![2, 3]), "{report}");
    admin.get("/api/collections/notes/export?format=xml").await.problem("parameter_invalid");
    let anon = admin.without_authorization();
    let import = anon.request(Method::POST, "/api/collections/notes/import").body("{}");
    assert!([401, 403].contains(&Answer::of(import).await.status.as_u16()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_what_happened_and_to_whom() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    let id = numbered(&admin, 1).await.remove(0);
    let path = format!("{NOTES}/{id}");
    let changed = admin.clone().with_header("x-request-id", "the-change-1").patch(&path, json!({ "n": 9 })).await;
    assert!(changed.header("tenantry-token").is_some_and(|token| token.split('.').count() == 3));
    admin.delete(&path).await.gone();
    let mut since = 0;
    let mut kinds = Vec::new();
    loop {
        let page = admin.get(&format!("/api/changes?since={since}&limit=2")).await.ok();
        for change in page["items"].as_array().unwrap() {
            kinds.extend(change["ops"].as_array().unwrap().iter().map(|op| op["op"].as_str().unwrap().to_owned()));
        }
        since = page["next"].as_i64().unwrap();
        if since == page["position"].as_i64().unwrap() {
            break;
        }
    }
    assert_eq!(kinds[kinds.len() - 3..], ["create", "update", "delete"]);
    let history = admin.get(&format!("{path}/history")).await.ok();
    let items = history["items"].as_array().unwrap();
    assert_eq!(items.len(), 3, "{history}");
    // Behind an id of the node's own: nobody passes a change off as part of somebody else's request.
    let noted =
        |item: &Value| item["requestId"].as_str().is_some_and(|id| id.ends_with(".the-change-1") && id.len() > 20);
    assert!(items.iter().any(noted), "{history}");
    admin.get("/api/changes?since=soon").await.problem("parameter_invalid");
}

/// Both were taken as they stood: what stood under a misspelt name was lost, and a cut file ended in a cell of several rows.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_refuses_columns_that_are_no_fields_and_a_file_that_was_cut() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    let import = async |query: &str, rows: &str| {
        let path = format!("/api/collections/notes/import?{query}");
        Answer::of(admin.request(Method::POST, &path).body(rows.to_owned())).await
    };
    let csv = "title,titel,n\none,x,1\n";
    let refused = import("format=csv", csv).await.has_status(400).problem("json_invalid");
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.contains("\"titel\"") && message.contains("title, ") && message.contains("unknown=ignore"),
        "{message}"
    );
    assert_eq!(import("format=csv&unknown=ignore", csv).await.ok()["created"], 1);
    import("format=csv&unknown=maybe", csv).await.problem("parameter_invalid");

    // A comma at the end of a line begins a column without a name; what stands there would be lost.
    let commas = "title,,n,\nfive,,1,\nsix, ,1,x\n,,,\n";
    let report = import("format=csv&dryRun=1", commas).await.ok();
    assert_eq!((&report["created"], &report["refused"]), (&json!(1), &json!(2)), "{report}");
    let reason = &report["refusals"][0];
    assert_eq!(reason["line"], 3, "{report}");
    assert!(reason["reason"].as_str().unwrap().contains("without a name"), "{report}");
    assert_eq!(import("format=csv&dryRun=1&unknown=ignore", commas).await.ok()["created"], 2);

    // A row of JSON has names of its own, and costs itself.
    let rows =
        "{\"title\":\"two\",\"nn\":1}\n{\"title\":\"three\",\"n+\":1,\"expand\":{},\"collectionName\":\"notes\"}\n";
    let report = import("", rows).await.ok();
    assert_eq!((&report["created"], &report["refusals"][0]["line"]), (&json!(1), &json!(1)), "{report}");
    assert!(report["refusals"][0]["reason"].as_str().unwrap().contains("\"nn\""), "{report}");
    assert_eq!(import("unknown=ignore", rows).await.ok()["created"], 2);

    let refused = import("format=csv", "title,n\nfour,1\n\"five,2\nsix,3\n").await.has_status(400);
    let refused = refused.problem("json_invalid");
    assert!(refused["message"].as_str().unwrap().contains("line 3 "), "{refused}");
    assert_eq!(refused["lastLine"], 0);
    assert_eq!(admin.get(NOTES).await.ok()["totalItems"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_with_a_key_is_done_once() {
    let server = TestServer::start().await;
    let admin = notes(&server).await;
    let keyed = admin.clone().with_header("idempotency-key", "monday");
    let import = async |rows: &str| {
        Answer::of(keyed.request(Method::POST, "/api/collections/notes/import").body(rows.to_owned())).await
    };
    let rows = "{\"title\":\"one\"}\n{\"title\":\"\"}\n{\"title\":\"three\"}\n";
    let first = import(rows).await.ok();
    assert_eq!(
        (&first["created"], &first["refused"], &first["lastLine"]),
        (&json!(2), &json!(1), &json!(3)),
        "{first}"
    );
    let again = import(rows).await.ok();
    let members =
        |report: &Value| ["created", "updated", "refused", "refusals", "lastLine"].map(|name| report[name].clone());
    assert_eq!(
        (members(&again), &again["skipped"], &again["doneBefore"]),
        (members(&first), &json!(0), &json!(3)),
        "each row counts once: made, refused or passed over"
    );
    let longer = import(&format!("{rows}{{\"title\":\"four\"}}\n")).await.ok();
    assert_eq!((&longer["skipped"], &longer["doneBefore"]), (&json!(0), &json!(3)), "{longer}");
    assert_eq!((&longer["created"], &longer["lastLine"]), (&json!(3), &json!(4)), "{longer}");
    // A failure says how far the import had come.
    let other = import("{\"title\":\"other\"}\n").await.has_status(422).problem("idempotency_mismatch");
    assert_eq!(other["lastLine"], 4, "{other}");
    assert_eq!(admin.get(NOTES).await.ok()["totalItems"], 3);
}
