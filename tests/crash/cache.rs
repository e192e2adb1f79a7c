//! The cache under power cuts and swapped folders: a whole node in a child process, spoken to over HTTP.
//!
//! After every kill, and after an older `cache/` or an older tenant file was put in place, an answer through the cache
//! must be the answer past it. The child is this test's own executable, which runs the real node with a planned failure.

use super::KillAt;
use super::disk::{SmallDisk, skip};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;
use tenantry::app::{self, Parts};
use tenantry::config::{Config, RawConfig};
use tenantry::kernel::clock;
use tenantry::store::FaultPoint;

const RECORDS: usize = 6;
const KILLS_PER_POINT: usize = 3;
const SWAPS: usize = 3;
/// Far more than a read takes on a busy machine, far less than the child lets one wait for the disk tier (60 s).
const QUICK: Duration = Duration::from_secs(5);
const LIST: &str = "/t/acme/api/collections/notes/records?sort=id";

/// The child: a node that serves until its standard input ends, or until it kills itself.
pub(super) async fn serve(folder: &Path, point: Option<FaultPoint>) {
    let armed = Some(folder.join("armed"));
    let faults = Arc::new(KillAt { point, armed, left: AtomicI64::new(0) });
    let node = app::start(config(folder), Parts { faults, ..Parts::default() }).await.unwrap();
    println!("{}", node.url());
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    node.stop().await.unwrap();
}

/// The configuration of the child.
pub(super) fn config(folder: &Path) -> Config {
    RawConfig::default()
        .with_toml("[http]\nlisten = '127.0.0.1:0'\nworkers = 1\n[log]\naccess = false\nfilter = 'off'\n[cache]\ndisk_read_deadline_ms = 60000", "child")
        .with_flag("--data-dir", "data.dir", folder.display().to_string())
        .validate()
        .unwrap()
}

/// A running child.
pub(super) struct Node {
    child: Child,
    input: Option<ChildStdin>,
    url: String,
    key: String,
    http: Client,
}

impl Node {
    pub(super) fn start(folder: &Path, point: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["node", folder.to_str().unwrap(), point, "0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let key = std::fs::read_to_string(folder.join("node.key")).unwrap();
        let http = Client::builder().no_proxy().build().unwrap();
        Self { child, input, url: url.trim().to_owned(), key, http }
    }

    /// The answer and where it came from; `None` if the node died meanwhile.
    async fn ask(&self, method: Method, path: &str, fresh: bool, body: Option<&Value>) -> Option<(String, Value)> {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        request = request.header("authorization", format!("Node {}", self.key));
        if fresh {
            request = request.header("cache-control", "no-cache");
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.ok()?;
        let source = response.headers().get("x-cache").map(|value| value.to_str().unwrap().to_owned());
        let status = response.status();
        let body: Value = response.json().await.unwrap_or_default();
        assert!(status.is_success(), "{path}: {status} {body}");
        Some((source.unwrap_or_default(), body))
    }

    pub(super) async fn get(&self, path: &str) -> (String, Value) {
        self.ask(Method::GET, path, false, None).await.unwrap_or_else(|| panic!("{path}: the node is gone"))
    }

    pub(super) async fn send(&self, method: Method, path: &str, body: Value) -> Option<Value> {
        self.ask(method, path, false, Some(&body)).await.map(|(_, body)| body)
    }

    /// The status of the answer; `None` if the node died meanwhile.
    pub(super) async fn status(&self, method: Method, path: &str, body: Option<Value>) -> Option<u16> {
        let request = self.request(method, path);
        let request = body.iter().fold(request, |request, body| request.json(body));
        Some(request.send().await.ok()?.status().as_u16())
    }

    /// Begins a request as the node's administrator.
    pub(super) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        request.header("authorization", format!("Node {}", self.key))
    }

    /// Every read twice, so that it is kept and worth a place on disk.
    async fn warm(&self) {
        for _ in 0..2 {
            for path in paths() {
                self.get(&path).await;
            }
        }
    }

    /// Whatever comes through the cache is what comes past it; how many answers came from disk.
    async fn check(&self, what: &str) -> usize {
        let mut from_disk = 0;
        for path in paths() {
            let (source, kept) = self.get(&path).await;
            let (_, fresh) = self.ask(Method::GET, &path, true, None).await.unwrap();
            assert_eq!(kept, fresh, "{what}: {path} from {source} is not what the file says");
            from_disk += usize::from(source == "l2");
        }
        from_disk
    }

    /// An orderly end.
    pub(super) fn stop(mut self) {
        drop(self.input.take());
        assert!(self.child.wait().unwrap().success(), "the node did not stop cleanly");
    }

    /// A power cut.
    pub(super) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Gone already, unless an assertion failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn record(n: usize) -> String {
    format!("/t/acme/api/collections/notes/records/note0000000000{n}")
}

fn paths() -> Vec<String> {
    (0..RECORDS).map(record).chain([LIST.to_owned(), format!("{LIST}&filter=title%21%3D%22x%22")]).collect()
}

async fn set_up(folder: &Path) -> PathBuf {
    let node = Node::start(folder, "none");
    node.send(Method::POST, "/api/tenants", json!({"slug": "acme", "name": "Acme"})).await.unwrap();
    let body = json!({"name": "notes", "type": "base", "listRule": "", "viewRule": "",
        "fields": [{"name": "title", "type": "text"}]});
    node.send(Method::POST, "/t/acme/api/collections", body).await.unwrap();
    for n in 0..RECORDS {
        let body = json!({"id": format!("note0000000000{n}"), "title": "first"});
        node.send(Method::POST, "/t/acme/api/collections/notes/records", body).await.unwrap();
    }
    let id = node.get("/api/tenants/acme").await.1["id"].as_str().unwrap().to_owned();
    node.stop();
    folder.join("tenants").join(id)
}

async fn write(node: &Node, n: usize, title: &str) -> Option<Value> {
    node.send(Method::PATCH, &record(n % RECORDS), json!({"title": title})).await
}

/// Everything about the cache.
pub(super) async fn all() {
    kills().await;
    swaps().await;
    full_disk().await;
}

/// Killed before the commit, between commit and observers, inside an observer, and wherever it happens to be.
async fn kills() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    set_up(folder).await;
    let (mut rounds, mut from_disk) = (0, 0);
    for point in ["before_commit", "after_commit", "in_observer", "none"] {
        for round in 0..KILLS_PER_POINT {
            // Old answers in memory and on disk, for certain.
            let node = Node::start(folder, "none");
            node.warm().await;
            node.stop();
            let node = Node::start(folder, point);
            node.warm().await;
            let title = format!("{point} {round}");
            if point == "none" {
                write(&node, round, &title).await.unwrap();
                node.kill();
            } else {
                std::fs::write(folder.join("armed"), "").unwrap();
                assert!(write(&node, round, &title).await.is_none(), "{point}: the node outlived its death");
                drop(node);
                std::fs::remove_file(folder.join("armed")).unwrap();
            }
            let node = Node::start(folder, "none");
            from_disk += node.check(&title).await;
            let now = node.get(&record(round)).await.1["title"].clone();
            // What was acknowledged is there; what was not may be, if the commit was reached.
            match point {
                "before_commit" => assert_ne!(now, title.as_str()),
                _ => assert_eq!(now, title.as_str()),
            }
            node.kill();
            rounds += 1;
        }
    }
    assert!(from_disk > rounds, "the disk tier took part: {from_disk} answers in {rounds} rounds");
    println!("crash: {rounds} kills of a node with a warm cache, {from_disk} answers from disk, none stale");
}

/// An older cache beside a newer file, and an older file beside a newer cache.
async fn swaps() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let tenant = set_up(folder).await;
    let (cache, aside) = (folder.join("cache"), folder.join("aside"));
    let mut from_disk = 0;
    for round in 0..SWAPS {
        for orderly in [true, false] {
            let end = |node: Node| if orderly { node.stop() } else { node.kill() };
            let what = format!("round {round}, orderly {orderly}");
            let node = Node::start(folder, "none");
            node.warm().await;
            node.stop();
            copy(&cache, &aside);
            let node = Node::start(folder, "none");
            write(&node, round, &format!("newer file {what}")).await.unwrap();
            node.warm().await;
            end(node);
            replace(&cache, &aside);
            let node = Node::start(folder, "none");
            from_disk += node.check(&format!("older cache, {what}")).await;
            node.stop();

            copy(&tenant, &aside);
            let node = Node::start(folder, "none");
            for n in 0..=round {
                write(&node, n, &format!("undone {what}")).await.unwrap();
            }
            node.warm().await;
            node.stop();
            replace(&tenant, &aside);
            let node = Node::start(folder, "none");
            node.check(&format!("older file, {what}")).await;
            // The restored file reaches the positions that the cache knows, with other contents.
            for n in 0..=round {
                write(&node, RECORDS - 1 - n, &format!("another future {what}")).await.unwrap();
                node.check(&format!("older file gone on, {what}")).await;
            }
            end(node);
            let node = Node::start(folder, "none");
            node.check(&format!("older file started again, {what}")).await;
            node.stop();
        }
    }
    assert!(from_disk > 0, "the disk tier took part");
    println!(
        "crash: {} swaps of cache and tenant file, {from_disk} answers from an older cache, none stale",
        SWAPS * 4
    );
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn replace(place: &Path, by: &Path) {
    std::fs::remove_dir_all(place).unwrap();
    copy(by, place);
}

/// The cache on a file system of its own that is full: answers stay right and quick, health says so, and it heals.
async fn full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    set_up(folder).await;
    let cache = folder.join("cache");
    std::fs::remove_dir_all(&cache).unwrap();
    std::fs::create_dir(&cache).unwrap();
    let Some(mounted) = SmallDisk::mount(&cache, "24m") else { return skip("the full cache disk") };
    let node = Node::start(folder, "none");
    node.warm().await;
    std::fs::write(cache.join("ballast"), vec![0_u8; 32 * 1024 * 1024]).unwrap_err();
    let mut number = 0;
    until(&node, "degraded", async |node| {
        // Ever new answers that are asked for twice: each wants a place on disk.
        for _ in 0..40 {
            number += 1;
            let path = format!("{LIST}&filter=title%21%3D%22{number}{}%22", "x".repeat(2_000));
            let began = clock::instant();
            let first = node.get(&path).await.1;
            assert_eq!(node.get(&path).await.1, first);
            assert!(began.elapsed() < QUICK, "a read waited for a full cache disk: {:?}", began.elapsed());
        }
        write(node, number, &format!("full {number}")).await.unwrap();
        node.check("a full cache disk").await;
    })
    .await;
    std::fs::remove_file(cache.join("ballast")).unwrap();
    until(&node, "ready", async |node| {
        node.check("a cache disk with room again").await;
    })
    .await;
    node.warm().await;
    node.stop();
    let node = Node::start(folder, "none");
    let shown = node.check("after a full cache disk").await;
    // What was hot may have been taken from disk into memory before anybody asked.
    let report = node.get("/api/admin/performance?type=cache").await.1;
    assert!(shown > 0 || report["disk"]["hits"].as_u64().unwrap() > 0, "the healed disk tier is used: {report}");
    node.stop();
    drop(mounted);
    println!("crash: a full cache disk degrades, answers stay right and quick, and it heals");
}

/// Does `meanwhile` until the disk tier is in `state`, and `/health` says the same of the cache.
#[expect(clippy::disallowed_methods, reason = "what another process does cannot be waited on")]
async fn until(node: &Node, state: &str, mut meanwhile: impl AsyncFnMut(&Node)) {
    for _ in 0..600 {
        meanwhile(node).await;
        let report = node.get("/api/admin/performance?type=cache").await.1;
        if report["disk"]["state"] == state {
            let health = node.get("/health").await.1;
            let ill = health["checks"]["cache"].as_str().unwrap().starts_with("error: ");
            assert!(!ill || health["status"] == "degraded", "{health}");
            // It may have changed between the two questions.
            if ill == (state == "degraded") {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the disk tier was never {state}");
}
