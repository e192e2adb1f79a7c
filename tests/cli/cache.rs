//! `tenantry cache`: what it says and does beside a running node, and to a folder that nobody serves.

use super::{Node, code, run};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const LIST: &str = "/api/collections/notes/records";
/// Depends on a header, so that nothing warms it and where it comes from says what is kept.
const OWN: &str = "/api/collections/doors/records";

#[expect(clippy::disallowed_methods, reason = "what another process does cannot be waited on")]
fn a_moment() {
    std::thread::sleep(Duration::from_millis(25));
}

/// A node with something to keep, and those who ask it.
struct Asked {
    node: Node,
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
    key: String,
}

impl Asked {
    fn start(folder: &Path) -> Self {
        let node = Node::start(folder);
        let _installed_before = rustls::crypto::ring::default_provider().install_default().is_err();
        let key = std::fs::read_to_string(folder.join("data/node.key")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { node, runtime, client: reqwest::Client::builder().no_proxy().build().unwrap(), key }
    }

    fn send(&self, method: reqwest::Method, path: &str, body: &Value) -> Value {
        let request = self.client.request(method, format!("{}{path}", self.node.url)).json(body);
        let request = request.header("authorization", format!("Node {}", self.key));
        self.runtime.block_on(async {
            let answer = request.send().await.unwrap();
            assert!(answer.status().is_success(), "{path}: {}", answer.status());
            answer.json().await.unwrap_or_default()
        })
    }

    /// Where an answer comes from.
    fn source(&self, path: &str) -> String {
        let request = self.client.get(format!("{}{path}", self.node.url)).header("x-door", "open");
        let answer = self.runtime.block_on(request.send()).unwrap();
        assert_eq!(answer.status(), 200);
        answer.headers()["x-cache"].to_str().unwrap().to_owned()
    }

    fn until(&self, path: &str, source: &str) {
        for _ in 0..400 {
            if self.source(path) == source {
                return;
            }
            a_moment();
        }
        panic!("{path} never came from {source}");
    }

    /// The key of the list, once upkeep has learned that it is hot.
    fn hot_key(&self) -> String {
        for _ in 0..400 {
            self.source(LIST);
            let stats = self.send(reqwest::Method::GET, "/api/admin/cache/stats", &json!(null));
            if let Some(key) = stats["hot"][0]["key"].as_str() {
                return key.to_owned();
            }
            a_moment();
        }
        panic!("nothing ever became hot");
    }
}

fn cache(folder: &Path, args: &[&str]) -> String {
    code(&run(folder, &[&["--data-dir", "data", "cache"], args].concat()), 0)
}

/// The number under `column` in the row that begins with `name`.
fn cell(table: &str, name: &str, column: &str) -> u64 {
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let at = rows.iter().find_map(|row| row.iter().position(|cell| *cell == column)).expect("the column");
    let row = rows.iter().find(|row| row.first() == Some(&name)).unwrap_or_else(|| panic!("no {name} in {table}"));
    row[at].parse().unwrap()
}

fn reported(said: &str) -> Value {
    serde_json::from_str(said).unwrap_or_else(|_| panic!("{said}"))
}

fn set_up(asked: &Asked) {
    let post = |path: &str, body: Value| asked.send(reqwest::Method::POST, path, &body);
    let policy = json!({"tags": ["front"], "events": ["order.paid"]});
    post(
        "/api/collections",
        json!({"name": "notes", "type": "base", "listRule": "", "cache": policy, "fields": [{"name": "t", "type": "text"}]}),
    );
    let rule = "@request.headers.x_door = 'open'";
    post(
        "/api/collections",
        json!({"name": "doors", "type": "base", "listRule": rule, "fields": [{"name": "t", "type": "text"}]}),
    );
    for path in [LIST, OWN] {
        post(path, json!({"t": "a"}));
    }
    asked.send(reqwest::Method::PUT, "/api/cache/kept", &json!({"value": 1}));
}

#[test]
fn the_cache_of_a_running_node_is_seen_emptied_filled_and_checked() {
    let folder = TempDir::new().unwrap();
    let asked = Asked::start(folder.path());
    let cache = |args: &[&str]| cache(folder.path(), args);
    set_up(&asked);
    asked.until(LIST, "l1");
    asked.until(OWN, "l1");
    let key = asked.hot_key();
    let (table, tenants) = (cache(&["stats", "--tenant", "main"]), cache(&["stats"]));
    assert!(cell(&table, "notes", "L1") >= 1 && cell(&table, "notes", "MISSES") >= 1, "{table}");
    assert_eq!((cell(&table, "notes", "ENTRIES"), cell(&table, "doors", "ENTRIES")), (1, 1), "{table}");
    assert!(table.contains("hit rate 0.") && table.contains("1 of 10000 keys"), "{table}");
    assert_eq!((cell(&tenants, "main", "ENTRIES"), tenants.contains("TENANT")), (2, true), "{tenants}");

    let verified = reported(&cache(&["verify", "--sample", "10"]));
    assert_eq!((&verified["equal"], &verified["different"]), (&json!(1), &json!([])));
    let whole: [&[&str]; 5] =
        [&["--key", &key], &["--tag", "front"], &["--event", "order.paid"], &["--collection", "notes"], &["--all"]];
    for what in whole {
        asked.until(LIST, "l1");
        asked.until(OWN, "l1");
        assert!(cache(&[&["purge"], what].concat()).contains("purged"));
        assert_eq!(asked.source(LIST), "miss", "{what:?}");
        assert_eq!(asked.source(OWN), if what == ["--all"] { "miss" } else { "l1" }, "{what:?}");
    }
    code(&run(folder.path(), &["--data-dir", "data", "tenant", "create", "acme"]), 0);
    assert!(cache(&["purge", "--tag", "nothing"]).contains("main: purged 0 answers"));
    assert!(!cache(&["purge", "--all", "--tenant", "main"]).contains("acme"));
    let every = cache(&["purge", "--all"]);
    assert!(every.contains("main: purged") && every.contains("acme: purged"), "{every}");
    // Unless upkeep, which looks every few seconds, was there first.
    let warmed = reported(&cache(&["warm"]));
    assert_eq!(
        (warmed["filled"].as_u64().unwrap() + warmed["present"].as_u64().unwrap(), &warmed["failed"]),
        (1, &json!(0))
    );
    assert_eq!((asked.source(LIST), asked.source(OWN)), ("l1".to_owned(), "miss".to_owned()));
    // What to forget must be said, and be there.
    code(&run(folder.path(), &["--data-dir", "data", "cache", "purge"]), 2);
    code(&run(folder.path(), &["--data-dir", "data", "cache", "purge", "--collection", "nothing"]), 5);
    assert_eq!(asked.node.stop(), Some(0));
}

/// What is on disk is what a stopped node has: it is seen and purged there, and what was hot and applications' values are
/// there for the next start whatever was looked at in between.
#[test]
fn the_cache_of_a_stopped_node_is_seen_and_emptied_and_loses_nothing_by_being_looked_at() {
    let folder = TempDir::new().unwrap();
    let asked = Asked::start(folder.path());
    let cache = |args: &[&str]| cache(folder.path(), args);
    set_up(&asked);
    asked.until(OWN, "l1");
    asked.hot_key();
    assert_eq!(asked.node.stop(), Some(0));
    for _ in 0..2 {
        let table = cache(&["stats", "--tenant", "main"]);
        assert!(table.contains("1 of 10000 keys"), "{table}");
        let verified = reported(&cache(&["verify"]));
        assert_eq!(verified["different"], json!([]), "{verified}");
        let warmed = reported(&cache(&["warm"]));
        assert_eq!(warmed["failed"], 0, "{warmed}");
    }
    let asked = Asked::start(folder.path());
    asked.until(OWN, "l2");
    assert_eq!(asked.send(reqwest::Method::GET, "/api/cache/kept", &json!(null))["value"], 1);
    let hot = asked.send(reqwest::Method::GET, "/api/admin/cache/stats", &json!(null));
    assert_eq!(hot["hot"].as_array().map(Vec::len), Some(1), "{hot}");
    assert_eq!(asked.node.stop(), Some(0));
    assert!(cache(&["purge", "--collection", "doors"]).contains("purged"));
    let asked = Asked::start(folder.path());
    for _ in 0..40 {
        // The disk opens beside the first requests; what is asked before it has is loaded, and says nothing.
        let report = asked.send(reqwest::Method::GET, "/api/admin/performance?type=cache", &json!(null));
        if report["disk"]["state"] == "ready" {
            break;
        }
        a_moment();
    }
    assert_eq!(asked.source(OWN), "miss", "purged while nobody served it");
    assert_eq!(asked.node.stop(), Some(0));
}
