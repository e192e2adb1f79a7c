//! Imports, exports and the log as JSON.

use super::*;
use crate::services::records::changes;
use crate::services::records::transfer::{Exporter, Format, ImportOptions, ImportReport, Importer, UnknownColumns};

fn options(format: Format) -> ImportOptions {
    ImportOptions { format, dry_run: false, skip_lines: 0, unknown: UnknownColumns::Refused }
}

async fn import(caller: &Caller, collection: &str, format: Format, text: &str, skip_lines: u64) -> ImportReport {
    let options = ImportOptions { skip_lines, ..options(format) };
    let mut importer = Importer::new(caller.0.clone(), collection, options).unwrap();
    for piece in text.as_bytes().chunks(1_000) {
        importer.push(piece).await.unwrap();
    }
    importer.finish().await.unwrap();
    importer.report().clone()
}

async fn export(caller: &Caller, collection: &str, format: Format, parameters: &[(&str, &str)]) -> String {
    let request = ListRequest::parse(parameters.iter().copied()).unwrap();
    let mut exporter = Exporter::new(caller.0.clone(), collection, format, request);
    let mut out = Vec::new();
    while let Some(piece) = exporter.next().await.unwrap() {
        out.extend_from_slice(&piece);
    }
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn what_is_exported_can_be_imported() {
    let world = World::new(&library()).await;
    let admin = world.admin();
    let ada = admin.create("authors", json!({"name": "Ada, \"the first\""})).await;
    for n in 0..5 {
        let body = json!({"title": format!("T{n}"), "author": ada["id"], "tags": ["red", "blue"], "score": n, "meta": {"a": [n]}, "published": n % 2 == 0});
        admin.create("posts", body).await;
    }
    for format in [Format::Ndjson, Format::Csv] {
        let target = world
            .store
            .create(&TenantId::parse(if format == Format::Csv { "csv" } else { "nd" }).unwrap())
            .await
            .unwrap();
        for collection in library() {
            world.make(&target, &collection).await;
        }
        let other = Caller(Scope { tenant: target, ..admin.0.clone() });
        world.clock.advance_ms(10_000);
        for collection in ["authors", "posts"] {
            let text = export(&admin, collection, format, &[]).await;
            let report = import(&other, collection, format, &text, 0).await;
            assert_eq!((report.refusals, report.created), (vec![], if collection == "posts" { 5 } else { 1 }));
            let strip = |mut page: Value| {
                for item in page["items"].as_array_mut().unwrap() {
                    item.as_object_mut().unwrap().remove("collectionId");
                }
                page
            };
            let (here, there) = (admin.list(collection, &[]).await, other.list(collection, &[]).await);
            assert_eq!(strip(here), strip(there), "{format:?}: dates and ids included");
        }
        let text = export(&admin, "posts", format, &[]).await;
        assert_eq!(import(&other, "posts", format, &text, 0).await.updated, 5, "it can be run again");
        drop(other);
    }
    let some =
        export(&admin, "posts", Format::Csv, &[("filter", "score > 2"), ("fields", "title,score"), ("sort", "-score")])
            .await;
    assert_eq!(some, "title,score\nT4,4\nT3,3\n");
    world.stop().await;
}

#[tokio::test]
async fn refused_rows_are_reported_and_cost_only_themselves() {
    let world = World::new(&library()).await;
    let admin = world.admin();
    let mut text = String::new();
    for n in 1..=2_500 {
        match n {
            7 => text.push_str("{broken\n"),
            1_200 => text.push_str("{\"name\":\"\"}\n"),
            1_300 => text.push_str("{\"name\":\"N1\"}\n"),
            _ => text.push_str(&format!("{{\"name\":\"N{n}\"}}\n")),
        }
    }
    let report = import(&admin, "authors", Format::Ndjson, &text, 0).await;
    assert_eq!((report.created, report.refused, report.last_line), (2_497, 3, 2_500));
    let lines: Vec<u64> = report.refusals.iter().map(|refusal| refusal.line).collect();
    assert_eq!(lines, [7, 1_200, 1_300]);
    assert_eq!(admin.list("authors", &[("perPage", "1")]).await["totalItems"], 2_497);
    let again = import(&admin, "authors", Format::Ndjson, &text, 2_499).await;
    assert_eq!(
        (again.skipped, again.created, again.refused),
        (2_499, 0, 1),
        "a resumed import starts behind what is done"
    );
    assert!(matches!(
        Importer::new(world.guest().0, "authors", options(Format::Csv)),
        Err(RecordError::SuperuserOnly { .. })
    ));
    world.stop().await;
}

#[tokio::test]
async fn changes_tell_everything_but_secrets() {
    let world =
        World::new(&[json!({"name": "users", "type": "auth", "fields": [{"name": "points", "type": "number"}]})]).await;
    let admin = world.admin();
    let start = world.db.position();
    let made = admin
        .create(
            "users",
            json!({"email": "a@x.test", "password": "12 blue horses", "passwordConfirm": "12 blue horses"}),
        )
        .await;
    let id = made["id"].as_str().unwrap();
    admin.update("users", id, json!({"points+": 5})).await;
    admin.update("users", id, json!({"password": "87 green lamps", "passwordConfirm": "87 green lamps"})).await;
    admin.delete("users", id).await.unwrap();
    let answer = parsed(&changes::list_changes(&admin.0, start, Some(100)).await.unwrap());
    let text = answer.to_string();
    assert!(!text.contains("argon2") && !text.contains("tokenKey\":\""), "{text}");
    let ops: Vec<&str> = answer["items"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|item| item["ops"].as_array().unwrap())
        .map(|op| op["op"].as_str().unwrap())
        .collect();
    assert_eq!((ops.first(), ops.get(1), ops.last()), (Some(&"create"), Some(&"increment"), Some(&"delete")));
    assert_eq!(answer["next"], answer["position"]);
    assert_eq!(answer["items"].as_array().unwrap().last().unwrap()["ops"][0]["before"]["points"], 5);
    let history = parsed(&changes::list_history(&admin.0, "users", id, 0).await.unwrap());
    assert_eq!(history["items"].as_array().unwrap().len(), 4);
    assert_eq!(code(changes::list_changes(&world.guest().0, 0, None).await), Code::SuperuserRequired);
    let page = parsed(&changes::list_changes(&admin.0, start, Some(1)).await.unwrap());
    assert_eq!((page["items"].as_array().unwrap().len(), page["next"].as_i64()), (1, Some(start + 1)));
    world.stop().await;
}

#[tokio::test]
async fn an_import_with_a_key_goes_on_where_it_was_cut() {
    let world = World::new(&library()).await;
    let admin = world.admin();
    let long = "x".repeat(60);
    let line = |n: usize| if n == 7 { "{broken\n".to_owned() } else { format!("{{\"name\":\"N{n}{long}\"}}\n") };
    let text: String = (1..=3_500).map(line).collect();
    let options = options(Format::Ndjson);
    let start = async || {
        let importer = Importer::new(admin.0.clone(), "authors", options).unwrap();
        importer.keyed(key("monday", &admin, "")).await
    };
    let upto = |line: usize| text.lines().take(line).map(|line| line.len() + 1).sum::<usize>();

    // Cut in the middle of the third thousand: two are done, the rest of what came is not.
    let mut cut = start().await.unwrap();
    for piece in text.as_bytes()[..upto(2_600)].chunks(70_000) {
        cut.push(piece).await.unwrap();
    }
    let done = cut.report().last_line;
    assert!((1_000..=2_600).contains(&done) && done % 1_000 == 0, "{done}");
    drop(cut);

    // Other rows under the same key are refused before any of them is written.
    let other = text.replace("\"N5x", "\"Otherx");
    let mut wrong = start().await.unwrap();
    let refused = match wrong.push(other.as_bytes()).await {
        Ok(()) => wrong.finish().await,
        refused => refused,
    };
    assert_eq!(code(refused), Code::IdempotencyMismatch);
    let mut short = start().await.unwrap();
    short.push(b"{\"name\":\"N1\"}\n").await.unwrap();
    assert_eq!(code(short.finish().await), Code::IdempotencyMismatch);
    assert_eq!(admin.list("authors", &[("perPage", "1")]).await["totalItems"], done - 1);

    // The same rows again: what is done is passed over, and the report is about the whole.
    for done_before in [done, 3_500] {
        let mut again = start().await.unwrap();
        for piece in text.as_bytes().chunks(70_000) {
            again.push(piece).await.unwrap();
        }
        again.finish().await.unwrap();
        let report = again.report();
        assert_eq!((report.created, report.refused, report.last_line), (3_499, 1, 3_500));
        assert_eq!((report.skipped, report.done_before, report.refusals[0].line), (0, done_before, 7));
        assert_eq!(admin.list("authors", &[("perPage", "1")]).await["totalItems"], 3_499);
    }

    // A twin that runs beside the first one stops instead of writing everything twice.
    let monday = || key("tuesday", &admin, "");
    let [mut one, mut two] = [
        Importer::new(admin.0.clone(), "authors", options).unwrap().keyed(monday()).await.unwrap(),
        Importer::new(admin.0.clone(), "authors", options).unwrap().keyed(monday()).await.unwrap(),
    ];
    let rows: String = (0..1_000).map(|n| format!("{{\"name\":\"T{n}\"}}\n")).collect();
    for importer in [&mut one, &mut two] {
        importer.push(rows.as_bytes()).await.unwrap();
    }
    one.finish().await.unwrap();
    assert_eq!(code(two.finish().await), Code::IdempotencyMismatch);
    assert_eq!(admin.list("authors", &[("perPage", "1")]).await["totalItems"], 4_499);
    world.stop().await;
}

/// Room was asked for once, as the import began; a long one wrote through what the node keeps for deletions.
#[tokio::test]
async fn an_import_ends_at_the_chunk_before_which_the_disk_ran_full() {
    let world = World::new(&library()).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let tools = Arc::into_inner(world.tools).unwrap().with_room(move || count.fetch_add(1, Ordering::Relaxed) == 0);
    let world = World { tools: Arc::new(tools), ..world };
    let admin = world.admin();
    let rows: String = (0..2_500).map(|n| format!("{{\"name\":\"A{n}\"}}\n")).collect();
    let mut importer = Importer::new(admin.0.clone(), "authors", options(Format::Ndjson)).unwrap();
    importer.push(rows.as_bytes()).await.unwrap();
    assert_eq!(importer.finish().await.unwrap_err().code(), Code::StorageFull);
    assert_eq!((importer.report().created, importer.report().last_line), (1_000, 1_000));
    assert_eq!(admin.list("authors", &[]).await["totalItems"], 1_000);
}
