//! Uploaded files: kept with their record, served to whom the rules say, gone when the record lets go of them.

use crate::support::{Actor, Answer, TestServer};
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tenantry::app::Parts;
use tenantry::store::{FaultPoint, Faults, Injected};

const PATH: &str = "/api/collections/papers/records";
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR and the rest of a picture";

/// A tenant with a collection that has file fields of every kind.
async fn papers(server: &TestServer, slug: &str) -> Actor {
    let admin = server.tenant(slug).await;
    let fields = json!([
        { "name": "title", "type": "text" },
        { "name": "owner", "type": "text" },
        { "name": "cover", "type": "file", "maxSelect": 1, "maxSize": 1000, "mimeTypes": ["image/png", "image/gif"] },
        { "name": "scans", "type": "file", "maxSelect": 3 },
        { "name": "contract", "type": "file", "protected": true },
        { "name": "secret", "type": "file", "hidden": true },
    ]);
    let body = json!({ "name": "papers", "type": "base", "listRule": "", "viewRule": "owner = @request.auth.id",
        "createRule": "", "updateRule": "", "deleteRule": "", "fields": fields });
    admin.post("/api/collections", body).await.created();
    admin
}

fn file(name: &str, content: &[u8]) -> Part {
    Part::bytes(content.to_vec()).file_name(name.to_owned())
}

async fn send(actor: &Actor, method: Method, path: &str, form: Form) -> Answer {
    Answer::of(actor.request(method, path).multipart(form)).await
}

fn url(record: &Value, name: &str) -> String {
    format!("/api/files/papers/{}/{name}", record["id"].as_str().unwrap())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is a text"))
}

/// Every file under the uploads of all tenants.
fn stored(server: &TestServer) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() { walk(&entry.path(), found) } else { found.push(entry.path()) }
        }
    }
    let mut found = Vec::new();
    for tenant in std::fs::read_dir(server.folder().join("tenants")).unwrap().flatten() {
        walk(&tenant.path().join("files"), &mut found);
    }
    found.sort();
    found
}

/// Files go after their commit, on a thread of their own: this waits for it.
async fn wait_for_stored(server: &TestServer, count: usize) {
    for _ in 0..2_000 {
        if stored(server).len() == count {
            return;
        }
        crate::support::pause(Duration::from_millis(10)).await;
    }
    panic!("{count} files should be there, but there are {:?}", stored(server));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_uploaded_served_in_parts_and_cached() {
    let server = TestServer::start().await;
    let admin = papers(&server, "acme").await;
    let form = Form::new().text("title", "one").part("cover", file("My Photo (1).PNG", PNG));
    let made = send(&admin, Method::POST, PATH, form).await.created();
    let name = text(&made["cover"]).to_owned();
    assert!(name.starts_with("my_photo_1_") && name.ends_with(".png"), "{name}");
    assert_eq!(made["title"], "one");
    assert_eq!(admin.get(&format!("{PATH}/{}", text(&made["id"]))).await.ok()["cover"], name.as_str());

    let anon = server.anon().at("acme");
    let whole = anon.get(&url(&made, &name)).await.has_status(200);
    assert_eq!(whole.body, PNG);
    for (header, value) in [
        ("content-type", "image/png"),
        ("x-content-type-options", "nosniff"),
        ("accept-ranges", "bytes"),
        ("cache-control", "max-age=2592000, stale-while-revalidate=86400"),
    ] {
        assert_eq!(whole.header(header), Some(value), "{header}");
    }
    assert_eq!(whole.header("content-disposition"), Some(format!("inline; filename=\"{name}\"").as_str()));
    assert!(whole.header("content-security-policy").unwrap().contains("sandbox"));
    let tag = whole.header("etag").unwrap().to_owned();

    let head = Answer::of(anon.request(Method::HEAD, &url(&made, &name))).await.has_status(200);
    assert_eq!((head.header("content-length"), head.body.len()), (Some(PNG.len().to_string().as_str()), 0));
    let saved = anon.get(&format!("{}?download=1", url(&made, &name))).await.has_status(200);
    assert!(saved.header("content-disposition").unwrap().starts_with("attachment;"));
    assert_eq!(anon.get(&format!("{}?thumb=100x100", url(&made, &name))).await.has_status(200).body, PNG);
    let same = anon.clone().with_header("if-none-match", &tag).get(&url(&made, &name)).await.has_status(304);
    assert_eq!((same.header("etag"), same.body.len()), (Some(tag.as_str()), 0));

    let range = |value: &str| anon.clone().with_header("range", value);
    let part = range("bytes=1-3").get(&url(&made, &name)).await.has_status(206);
    assert_eq!(
        (part.body.as_slice(), part.header("content-range")),
        (&b"PNG"[..], Some(format!("bytes 1-3/{}", PNG.len()).as_str()))
    );
    assert_eq!(range("bytes=-7").get(&url(&made, &name)).await.has_status(206).body, b"picture");
    let outside = range("bytes=9000-").get(&url(&made, &name)).await.has_status(416);
    assert_eq!(outside.header("content-range"), Some(format!("bytes */{}", PNG.len()).as_str()));
    outside.problem("range_not_satisfiable");
    let fits = range("bytes=0-0").with_header("if-range", &tag).get(&url(&made, &name)).await;
    fits.has_status(206);
    let other = range("bytes=0-0").with_header("if-range", "\"other\"").get(&url(&made, &name)).await;
    assert_eq!(other.has_status(200).body, PNG);

    let wrong = format!("/api/files/papers/{}/{}", text(&made["id"]), "other_0123456789.png");
    anon.get(&wrong).await.has_status(404).problem("file_not_found");
    for path in ["/api/files/papers/..%2f..%2f/data.db", "/api/files/papers/x/..%2f..%2fdata.db", "/api/files/none/x/y"]
    {
        anon.get(path).await.has_status(404);
    }
    anon.post(&url(&made, &name), json!({})).await.has_status(405).problem("method_not_allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_replaced_appended_and_removed_with_their_records() {
    let server = TestServer::start().await;
    let admin = papers(&server, "acme").await;
    let form = Form::new()
        .part("cover", file("a.png", PNG))
        .part("scans", file("one.txt", b"1"))
        .part("scans", file("two.txt", b"2"));
    let made = send(&admin, Method::POST, PATH, form).await.created();
    let record = format!("{PATH}/{}", text(&made["id"]));
    assert_eq!(made["scans"].as_array().unwrap().len(), 2);
    assert_eq!(stored(&server).len(), 3);

    let replaced = send(&admin, Method::PATCH, &record, Form::new().part("cover", file("b.png", PNG))).await.ok();
    assert_ne!(replaced["cover"], made["cover"]);
    wait_for_stored(&server, 3).await;
    admin.get(&url(&made, text(&made["cover"]))).await.problem("file_not_found");

    let grown = send(&admin, Method::PATCH, &record, Form::new().part("scans+", file("three.txt", b"3"))).await.ok();
    let names = grown["scans"].as_array().unwrap().clone();
    assert_eq!((&names[..2], names.len()), (&made["scans"].as_array().unwrap()[..], 3));
    let many = send(&admin, Method::PATCH, &record, Form::new().part("scans+", file("four.txt", b"4"))).await;
    assert_eq!(
        many.has_status(400).problem("validation_failed")["data"]["scans"]["code"],
        "validation_too_many_values"
    );
    assert_eq!(stored(&server).len(), 4, "a refused write leaves no file");

    let fewer = admin.patch(&record, json!({ "scans-": names[0] })).await.ok();
    assert_eq!(fewer["scans"], json!([names[1], names[2]]));
    wait_for_stored(&server, 3).await;
    let mixed = Form::new().text("scans", text(&names[2]).to_owned()).part("scans", file("five.txt", b"5"));
    let mixed = send(&admin, Method::PATCH, &record, mixed).await.ok();
    assert_eq!((&mixed["scans"][0], mixed["scans"].as_array().unwrap().len()), (&names[2], 2));
    wait_for_stored(&server, 3).await;
    let bad = admin.patch(&record, json!({ "cover": "made_up.png" })).await.has_status(400);
    assert_eq!(bad.problem("validation_failed")["data"]["cover"]["code"], "validation_invalid_file");
    assert_eq!(admin.patch(&record, json!({ "cover": null })).await.ok()["cover"], "");
    wait_for_stored(&server, 2).await;
    admin.delete(&record).await.gone();
    wait_for_stored(&server, 0).await;
    admin.get(&url(&made, text(&names[1]))).await.problem("file_not_found");

    send(&admin, Method::POST, PATH, Form::new().part("cover", file("a.png", PNG))).await.created();
    admin.delete("/api/collections/papers").await.gone();
    wait_for_stored(&server, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cascade_takes_the_files_along() {
    let server = TestServer::start().await;
    let admin = papers(&server, "acme").await;
    let papers = admin.get("/api/collections/papers").await.ok();
    let body = json!({ "name": "pages", "type": "base", "fields": [
        { "name": "paper", "type": "relation", "collectionId": papers["id"], "cascadeDelete": true, "maxSelect": 1 },
        { "name": "scan", "type": "file" } ] });
    admin.post("/api/collections", body).await.created();
    let paper = admin.post(PATH, json!({ "title": "t" })).await.created();
    let form = Form::new().text("paper", text(&paper["id"]).to_owned()).part("scan", file("s.txt", b"s"));
    send(&admin, Method::POST, "/api/collections/pages/records", form).await.created();
    assert_eq!(stored(&server).len(), 1);
    admin.delete(&format!("{PATH}/{}", text(&paper["id"]))).await.gone();
    wait_for_stored(&server, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_field_does_not_take_is_refused_by_name_and_leaves_nothing() {
    let server = TestServer::start().await;
    let admin = papers(&server, "acme").await;
    let anon = server.anon().at("acme");
    for (member, part, code) in [
        ("cover", file("a.png", &[PNG, &[0; 2000]].concat()), "validation_file_size_limit"),
        ("cover", file("a.png", b"<html><script>"), "validation_invalid_mime_type"),
        ("title", file("a.png", PNG), "validation_invalid_file"),
        ("nothing", file("a.png", PNG), "validation_invalid_file"),
        ("secret", file("a.png", PNG), "validation_invalid_file"),
    ] {
        let answer = send(&anon, Method::POST, PATH, Form::new().part(member, part)).await.has_status(400);
        let problem = answer.problem("validation_failed");
        assert_eq!((&problem["data"][member]["code"], &problem["errors"][0]["field"]), (&json!(code), &json!(member)));
    }
    // The message names what is allowed, and how much.
    let refused = send(&anon, Method::POST, PATH, Form::new().part("cover", file("a.txt", b"text"))).await;
    let message = refused.problem("validation_failed")["data"]["cover"]["message"].to_string();
    assert!(message.contains("text/plain") && message.contains("image/gif"), "{message}");
    admin.patch("/api/collections/papers", json!({ "createRule": null })).await.ok();
    let locked = send(&anon, Method::POST, PATH, Form::new().part("cover", file("a.png", PNG))).await;
    locked.has_status(403).problem("superuser_required");
    admin.patch("/api/collections/papers", json!({ "createRule": "title = 'no'" })).await.ok();
    let denied = send(&anon, Method::POST, PATH, Form::new().part("cover", file("a.png", PNG))).await;
    denied.has_status(400).problem("create_refused");
    assert_eq!(stored(&server), Vec::<PathBuf>::new());
    // An empty file input is no file.
    let made = send(&admin, Method::POST, PATH, Form::new().part("cover", file("", b""))).await.created();
    assert_eq!(made["cover"], "");
}

#[tokio::test(flavor = "multi_thread")]
async fn protected_and_hidden_files_are_for_those_who_may_see_the_record() {
    let server = TestServer::start().await;
    let admin = papers(&server, "acme").await;
    let (ada, bob) = (server.user(&admin, "ada").await, server.user(&admin, "bob").await);
    let form = Form::new()
        .text("owner", ada.id.clone())
        .part("cover", file("c.png", PNG))
        .part("contract", file("c.pdf", b"%PDF-1.7"))
        .part("secret", file("s.txt", b"s"));
    let made = send(&admin, Method::POST, PATH, form).await.created();
    let (contract, anon) = (url(&made, text(&made["contract"])), server.anon().at("acme"));
    anon.get(&url(&made, text(&made["cover"]))).await.has_status(200);
    anon.get(&contract).await.has_status(404).problem("file_not_found");
    bob.actor.get(&contract).await.has_status(404).problem("file_not_found");
    let own = ada.actor.get(&contract).await.has_status(200);
    assert_eq!(
        (own.header("cache-control"), own.header("content-type")),
        (Some("private, no-cache"), Some("application/pdf"))
    );
    let token = |answer: Value| text(&answer["token"]).to_owned();
    let adas = token(ada.actor.post("/api/files/token", json!({})).await.ok());
    let bobs = token(bob.actor.post("/api/files/token", json!({})).await.ok());
    anon.get(&format!("{contract}?token={adas}")).await.has_status(200);
    anon.get(&format!("{contract}?token={bobs}")).await.problem("file_not_found");
    // The token speaks, whoever sends it; a login is no file token.
    ada.actor.get(&format!("{contract}?token={bobs}")).await.problem("file_not_found");
    anon.get(&format!("{contract}?token={}", ada.token)).await.problem("file_not_found");
    anon.get(&format!("{contract}?token=nonsense")).await.problem("file_not_found");
    let secret = url(&made, text(&made["secret"]));
    ada.actor.get(&secret).await.problem("file_not_found");
    admin.get(&secret).await.has_status(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_share_no_files_and_suspension_closes_them() {
    let server = TestServer::start().await;
    let (acme, beta) = (papers(&server, "acme").await, papers(&server, "beta").await);
    let form = || Form::new().text("id", "aaaaaaaaaaaaaaa").part("cover", file("c.png", PNG));
    let made = send(&acme, Method::POST, PATH, form()).await.created();
    let other = send(&beta, Method::POST, PATH, form()).await.created();
    assert_ne!(made["cover"], other["cover"]);
    let path = url(&made, text(&made["cover"]));
    beta.get(&path).await.has_status(404).problem("file_not_found");
    server.anon().get(&path).await.has_status(404);
    server.node().post("/api/tenants/acme/suspend", json!({})).await.ok();
    server.anon().at("acme").get(&path).await.has_status(403).problem("tenant_suspended");
    let refused = send(&acme, Method::POST, PATH, Form::new().part("cover", file("d.png", PNG))).await;
    refused.problem("tenant_suspended");
    server.node().delete("/api/tenants/acme").await.gone();
    assert_eq!(stored(&server).len(), 1);
    server.anon().at("beta").get(&url(&other, text(&other["cover"]))).await.has_status(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn clones_and_exports_carry_files_that_live_apart() {
    let server = TestServer::start().await;
    let acme = papers(&server, "acme").await;
    let large = vec![b'x'; 700_000];
    let form = Form::new()
        .part("cover", file("c.png", PNG))
        .part("scans", file("l.txt", &large))
        .part("scans", file("e.txt", b""));
    let made = send(&acme, Method::POST, PATH, form).await.created();
    server.node().post("/api/tenants/acme/clone", json!({ "slug": "copy", "name": "Copy" })).await.created();
    let exported = server.node().get("/api/tenants/acme/export").await.has_status(200);
    let import = server.node().request(Method::POST, "/api/tenants/import?slug=again&name=Again");
    Answer::of(import.body(exported.body)).await.created();
    acme.delete(&format!("{PATH}/{}", text(&made["id"]))).await.gone();
    wait_for_stored(&server, 6).await;
    for slug in ["copy", "again"] {
        let anon = server.anon().at(slug);
        assert_eq!(anon.get(&url(&made, text(&made["cover"]))).await.has_status(200).body, PNG, "{slug}");
        assert!(anon.get(&url(&made, text(&made["scans"][0]))).await.has_status(200).body == large, "{slug}");
        assert!(anon.get(&url(&made, text(&made["scans"][1]))).await.has_status(200).body.is_empty(), "{slug}");
    }
    let doctor = server.node().get("/api/admin/doctor").await.ok();
    let copy = doctor["checks"].as_array().unwrap().iter().find(|check| check["what"] == "tenant copy").unwrap();
    assert_eq!((&copy["result"], &copy["files"]), (&json!("ok"), &json!(3)));
    std::fs::remove_file(stored(&server).pop().unwrap()).unwrap();
    let doctor = server.node().get("/api/admin/doctor").await.ok().to_string();
    assert!(doctor.contains("named files are missing"), "{doctor}");
}

#[tokio::test(flavor = "multi_thread")]
async fn repetitions_and_dry_runs_keep_one_file_or_none() {
    let server = TestServer::start().await;
    let admin = papers(&server, "acme").await;
    let form = || Form::new().text("title", "t").part("cover", file("c.png", PNG));
    let tried = send(&admin, Method::POST, &format!("{PATH}?dryRun=1"), form()).await.created();
    assert!(text(&tried["cover"]).starts_with("c_"));
    assert_eq!(stored(&server), Vec::<PathBuf>::new());
    let retrying = admin.clone().with_header("idempotency-key", "k1");
    let first = send(&retrying, Method::POST, PATH, form()).await.created();
    let again = send(&retrying, Method::POST, PATH, form()).await;
    assert_eq!((again.header("idempotent-replayed"), again.json()), (Some("true"), first));
    assert_eq!(stored(&server).len(), 1);
    let other = Form::new().text("title", "t").part("cover", file("c.png", b"GIF89a other content"));
    send(&retrying, Method::POST, PATH, other).await.has_status(422).problem("idempotency_mismatch");
    assert_eq!(stored(&server).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_takes_files_for_its_requests() {
    let server = TestServer::start().await;
    let admin = papers(&server, "acme").await;
    let requests = json!({ "requests": [
        { "method": "POST", "url": "/api/collections/papers/records", "body": { "title": "a" } },
        { "method": "POST", "url": "/api/collections/papers/records", "body": { "title": "b" } },
    ]});
    let form = |second: &str| {
        Form::new()
            .text("@jsonPayload", requests.to_string())
            .part("requests.0.cover", file("a.png", PNG))
            .part(second.to_owned(), file("b.txt", b"b"))
            .part("requests[1].scans", file("c.txt", b"c"))
    };
    let done = send(&admin, Method::POST, "/api/batch", form("requests.1.scans")).await.ok();
    assert!(text(&done[0]["body"]["cover"]).starts_with("a_"));
    assert_eq!(done[1]["body"]["scans"].as_array().unwrap().len(), 2);
    assert_eq!(stored(&server).len(), 3);
    let failed = send(&admin, Method::POST, "/api/batch", form("requests.1.cover")).await.has_status(400);
    let problem = failed.problem("batch_request_failed");
    let inner = &problem["data"]["requests"]["1"]["response"]["data"]["cover"]["code"];
    assert_eq!(inner, "validation_invalid_mime_type");
    send(&admin, Method::POST, "/api/batch", form("elsewhere")).await.has_status(400).problem("validation_failed");
    send(&admin, Method::POST, "/api/batch", form("requests.7.cover")).await.problem("validation_failed");
    assert_eq!(stored(&server).len(), 3, "a failed batch leaves no file");
}

/// A disk that is full for files, and only for them, when told so.
#[derive(Debug, Default)]
struct FullDisk(AtomicBool);

impl Faults for FullDisk {
    fn at(&self, point: FaultPoint) -> Option<Injected> {
        (point == FaultPoint::BeforeRename && self.0.load(Ordering::SeqCst)).then_some(Injected::StorageFull)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_the_upload_and_keeps_the_rest() {
    let disk = Arc::new(FullDisk::default());
    let server = TestServer::start_parts("", Parts { faults: disk.clone(), ..Parts::default() }).await;
    let admin = server.expect_errors("acme", papers(&server, "acme").await).await;
    disk.0.store(true, Ordering::SeqCst);
    let form = || Form::new().part("cover", file("c.png", PNG));
    send(&admin, Method::POST, PATH, form()).await.has_status(507).problem("storage_full");
    assert_eq!((stored(&server).len(), &admin.get(PATH).await.ok()["totalItems"]), (0, &json!(0)));
    disk.0.store(false, Ordering::SeqCst);
    send(&admin, Method::POST, PATH, form()).await.created();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_keeps_no_byte_of_a_file_that_no_collection_takes_from_the_caller() {
    let server = TestServer::start().await;
    let admin = papers(&server, "acme").await;
    let anon = admin.clone().without_authorization();
    let requests = json!({ "requests": [
        { "method": "POST", "url": "/api/collections/papers/records", "body": { "title": "a" } },
    ]});
    // The file comes first: nothing else of the body is known when its bytes arrive.
    let form = |len: usize| {
        let part = file("a.txt", &vec![b'a'; len]);
        Form::new().part("requests.0.scans", part).text("@jsonPayload", requests.to_string())
    };
    send(&anon, Method::POST, "/api/batch", form(1_000)).await.ok();
    let refused = send(&anon, Method::POST, "/api/batch", form(6 * 1024 * 1024)).await.problem("validation_failed");
    assert!(refused.to_string().contains("validation_file_size_limit"), "{refused}");
    let locked = json!({ "createRule": null, "updateRule": null });
    for collection in ["papers", "users"] {
        admin.patch(&format!("/api/collections/{collection}"), locked.clone()).await.ok();
    }
    send(&anon, Method::POST, "/api/batch", form(1_000)).await.problem("forbidden");
    assert_eq!(stored(&server).len(), 1);
}
