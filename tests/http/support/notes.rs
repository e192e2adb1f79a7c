//! A collection of notes that anybody may read, and where an answer about it came from.

use super::{Actor, Answer};
use serde_json::{Value, json};
use std::time::Duration;

/// A list of the notes.
pub(crate) const LIST: &str = "/api/collections/notes/records?sort=title";

/// Makes the collection, with three records; the ids.
pub(crate) async fn notes(admin: &Actor) -> Vec<String> {
    let body = json!({
        "name": "notes", "type": "base", "listRule": "", "viewRule": "", "partition": "board",
        "fields": [{"name": "board", "type": "text"}, {"name": "title", "type": "text"}, {"name": "points", "type": "number"}],
    });
    admin.post("/api/collections", body).await.created();
    let mut ids = Vec::new();
    // Given, not drawn: records share slots by hash, so with drawn ids a write to one would now and then age another.
    for (id, board, title) in
        [("note00000000001", "red", "a"), ("note00000000002", "red", "b"), ("note00000000003", "blue", "c")]
    {
        let body = json!({"id": id, "board": board, "title": title, "points": 1});
        let made = admin.post("/api/collections/notes/records", body).await.created();
        ids.push(made["id"].as_str().unwrap().to_owned());
    }
    ids
}

/// The body, if the answer came from `source`.
#[track_caller]
pub(crate) fn from(answer: Answer, source: &str) -> Value {
    assert_eq!(answer.header("x-cache"), Some(source), "{}", String::from_utf8_lossy(&answer.body));
    answer.ok()
}

/// Asks until the answer comes from `source`: describing a file to the cache and opening the disk happen beside requests.
pub(crate) async fn until(actor: &Actor, path: &str, source: &str) -> Answer {
    for _ in 0..200 {
        let answer = actor.get(path).await.has_status(200);
        if answer.header("x-cache") == Some(source) {
            return answer;
        }
        crate::support::pause(Duration::from_millis(25)).await;
    }
    panic!("{path} never came from {source}");
}
