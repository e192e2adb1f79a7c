//! Walks by cursor while somebody writes: what stays is met exactly once, and nothing is met twice.
//!
//! The writer never waits for the walk: it inserts and deletes in front of, behind and between its pages.

use crate::queries::asked;
use crate::support::{Actor, TestServer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tenantry::kernel::random::{SeededRandom, below};

const NOTES: &str = "/api/collections/notes/records";
const STAYING: usize = 40;

fn row(random: &SeededRandom) -> Value {
    // Few values, so that most rows tie and the order among them is the cursor's business.
    let (n, title) = (below(random, 5), ["a", "b", "", "\u{e4}"][below(random, 4) as usize]);
    json!({ "n": n, "title": title, "meta": { "a": below(random, 3) } })
}

/// Inserts and deletes until it is told to end.
async fn disturb(admin: Actor, ended: Arc<AtomicBool>, writes: Arc<AtomicUsize>) {
    let random = SeededRandom::new(11);
    let mut own: Vec<String> = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        if own.len() > 20 || (!own.is_empty() && below(&random, 3) == 0) {
            let id = own.swap_remove(below(&random, own.len() as u64) as usize);
            admin.delete(&format!("{NOTES}/{id}")).await.gone();
        } else {
            let made = admin.post(NOTES, row(&random)).await.created();
            own.push(made["id"].as_str().unwrap().to_owned());
        }
        writes.fetch_add(1, Ordering::Relaxed);
    }
}

/// How often each record was met on one walk.
async fn walk(actor: &Actor, sort: &str, per_page: &str) -> BTreeMap<String, usize> {
    let (mut met, mut cursor) = (BTreeMap::new(), String::new());
    loop {
        let query = [("sort", sort), ("perPage", per_page), ("fields", "id"), ("cursor", cursor.as_str())];
        let page = actor.get(&asked(NOTES, &query)).await.ok();
        for item in page["items"].as_array().unwrap() {
            *met.entry(item["id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        let Some(next) = page["nextCursor"].as_str() else { return met };
        cursor = next.to_owned();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_is_met_exactly_once_while_a_writer_inserts_and_deletes() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let fields = json!([{ "name": "title", "type": "text" }, { "name": "n", "type": "number" }, { "name": "meta", "type": "json" }]);
    let notes = json!({ "name": "notes", "type": "base", "listRule": "", "fields": fields,
        "indexes": ["CREATE INDEX idx_notes_n ON notes (n DESC)"] });
    admin.post("/api/collections", notes).await.created();
    let random = SeededRandom::new(3);
    let mut staying = Vec::new();
    for _ in 0..STAYING {
        staying.push(admin.post(NOTES, row(&random)).await.created()["id"].as_str().unwrap().to_owned());
    }
    let (ended, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let writer = tokio::spawn(disturb(admin.clone(), Arc::clone(&ended), Arc::clone(&writes)));
    let guest = admin.without_authorization();
    for sort in ["", "n", "-n", "-n,title", "title,-n", "-@rowid", "meta.a,-title", "id", "-title,n,meta.a"] {
        for per_page in ["1", "3", "7"] {
            let before = writes.load(Ordering::Relaxed);
            // Again while the disk kept the writer waiting: a walk that nothing changed under shows nothing.
            for walks in 1.. {
                let met = walk(&guest, sort, per_page).await;
                let missed: Vec<_> = staying.iter().filter(|id| !met.contains_key(*id)).collect();
                let twice: Vec<_> = met.iter().filter(|(_, times)| **times > 1).collect();
                assert!(
                    missed.is_empty() && twice.is_empty(),
                    "{sort} by {per_page}: missed {missed:?}, twice {twice:?}"
                );
                if per_page != "1" || writes.load(Ordering::Relaxed) > before {
                    break;
                }
                assert!(walks < 1_000, "nobody wrote during {sort}");
            }
        }
    }
    ended.store(true, Ordering::Relaxed);
    writer.await.unwrap();
}
