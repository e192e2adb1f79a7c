//! Data: records, collections, files, logs, the cache of applications.
//!
//! Keeps true: a route has its case in one of the lists here. Does not do: the cases of people and of the node.

use super::{Call, Case, NOTES, OWN, STRANGER, USERS, delete, get, note, only, patch, post, put};
use crate::crossing::loot::Loot;
use serde_json::{Value, json};

pub(super) const CASES: &[Case] = &[
    ("GET /api/collections/{collection}/records/{id}", |a, b| {
        let mut calls = vec![
            get(note(a)).says("record_not_found", "record_not_found", "record_not_found"),
            get(note(b)).says("record_not_found", "", ""),
            get(note(b)).header("if-none-match", &a.note_tag).says("record_not_found", OWN, OWN),
            get(format!("{USERS}/records/{}", a.user_id)).says(
                "record_not_found",
                "record_not_found",
                "record_not_found",
            ),
            get(format!("/t/{}{}", a.slug, note(a))).says("route_not_found", "route_not_found", "route_not_found"),
            get(note(a)).header("x-tenant", &a.slug).says("tenant_ambiguous", "tenant_ambiguous", "tenant_ambiguous"),
            get(note(a)).header("host", &format!("{}.node.test", a.slug)).says(
                "tenant_ambiguous",
                "tenant_ambiguous",
                "tenant_ambiguous",
            ),
        ];
        for path in only(a, &format!("/records/{}", a.only_record)) {
            calls.push(get(path).says("collection_not_found", "collection_not_found", "collection_not_found"));
        }
        calls
    }),
    ("PATCH /api/collections/{collection}/records/{id}", |a, b| {
        vec![
            patch(note(a), json!({ "text": "taken" })).says("record_not_found", "record_not_found", "record_not_found"),
            patch(note(b), json!({ "text": "taken" })).says("record_not_found", "", ""),
            patch(note(b), json!({ "text": "taken" })).header("if-match", &a.note_tag).says(
                "record_not_found",
                "precondition_failed",
                "precondition_failed",
            ),
            patch(note(b), json!({ "author": a.user_id })).says(
                "record_not_found",
                "validation_failed",
                "validation_failed",
            ),
            patch(note(b), json!({ "scan": [a.file] })).says(
                "record_not_found",
                "validation_failed",
                "validation_failed",
            ),
        ]
    }),
    ("DELETE /api/collections/{collection}/records/{id}", |a, b| {
        vec![
            delete(note(a)).says("record_not_found", "record_not_found", "record_not_found"),
            delete(note(b)).says("record_not_found", "", ""),
            delete(format!("{USERS}/records/{}", a.user_id)).says(
                "record_not_found",
                "record_not_found",
                "record_not_found",
            ),
        ]
    }),
    ("GET /api/collections/{collection}/records", |a, _| {
        let mut calls = vec![
            get(NOTES).says(OWN, OWN, OWN),
            get(NOTES).header("if-none-match", &a.tag).says(OWN, OWN, OWN),
            get(format!("{NOTES}?perPage=1&cursor={}", a.cursor)).says(
                "cursor_invalid",
                "cursor_invalid",
                "cursor_invalid",
            ),
            get(format!("{NOTES}?filter=id='{}'", a.note)).says(OWN, OWN, OWN),
            get(format!("{NOTES}?filter=author='{}'%26%26author.name!=''&expand=author", a.user_id))
                .says(OWN, OWN, OWN),
            get(format!("{NOTES}?token={}", a.file_token)).says(OWN, OWN, OWN),
            get(format!("{USERS}/records")).says(OWN, OWN, OWN),
        ];
        calls.extend(
            only(a, "/records")
                .map(|path| get(path).says("collection_not_found", "collection_not_found", "collection_not_found")),
        );
        calls
    }),
    ("POST /api/collections/{collection}/records", |a, _| {
        vec![
            post(NOTES, json!({ "text": "from A" })).says("create_refused", "", ""),
            post(NOTES, json!({ "author": a.user_id })).says(
                "create_refused",
                "validation_failed",
                "validation_failed",
            ),
            // The receipt of A's request with this key is not B's: B makes one of its own.
            post(NOTES, json!({ "text": "the same in both" })).header("idempotency-key", &a.idempotency).says(
                "create_refused",
                OWN,
                "",
            ),
        ]
    }),
    ("POST /api/batch", |a, b| {
        let one = |method: &str, url: String, body: Value| json!({ "requests": [{ "method": method, "url": url, "body": body }] });
        vec![
            post("/api/batch", one("POST", NOTES.to_owned(), json!({ "text": "from A" }))).says(
                "batch_request_failed",
                "",
                "",
            ),
            post("/api/batch", one("GET", note(b), json!({}))).says("batch_request_failed", "", ""),
            post("/api/batch", one("GET", note(a), json!({}))).says(
                "batch_request_failed",
                "batch_request_failed",
                "batch_request_failed",
            ),
            post("/api/batch", one("PATCH", note(a), json!({ "text": "taken" }))).says(
                "batch_request_failed",
                "batch_request_failed",
                "batch_request_failed",
            ),
            post("/api/batch", one("DELETE", note(a), json!({}))).says(
                "batch_request_failed",
                "batch_request_failed",
                "batch_request_failed",
            ),
            post("/api/batch", one("GET", format!("{NOTES}?cursor={}", a.cursor), json!({}))).says(
                "batch_request_failed",
                "batch_request_failed",
                "batch_request_failed",
            ),
            post("/api/batch", one("GET", format!("/t/{}{NOTES}", a.slug), json!({}))).says(
                "validation_failed",
                "validation_failed",
                "validation_failed",
            ),
            post("/api/batch", one("GET", format!("http://{}.node.test{NOTES}", a.slug), json!({}))).says(
                "validation_failed",
                "validation_failed",
                "validation_failed",
            ),
        ]
    }),
    ("GET /api/audit", |a, _| {
        vec![
            get("/api/audit?limit=1000").says(STRANGER, "superuser_required", OWN),
            get(format!("/api/audit?record={}", a.note)).says(STRANGER, "superuser_required", OWN),
            get(format!("/api/audit?actor=record:users/{}", a.user_id)).says(STRANGER, "superuser_required", OWN),
        ]
    }),
    ("GET /api/changes", |_, _| vec![get("/api/changes?since=0&limit=1000").says(STRANGER, "superuser_required", OWN)]),
    ("GET /api/collections/{collection}/records/{id}/history", |a, b| {
        vec![
            get(format!("{}/history", note(a))).says("superuser_required", "superuser_required", OWN),
            get(format!("{}/history", note(b))).says("superuser_required", "", ""),
        ]
    }),
    ("GET /api/collections", |_, _| vec![get("/api/collections").says(STRANGER, "superuser_required", OWN)]),
    ("POST /api/collections", |a, _| {
        vec![
        post("/api/collections", json!({ "name": "made", "type": "base" })).says(STRANGER, "superuser_required", ""),
        post("/api/collections", json!({ "name": "made", "type": "base", "fields": [{ "name": "r", "type": "relation", "collectionId": a.only_id }] }))
            .says(STRANGER, "superuser_required", "schema_invalid"),
        post("/api/collections", json!({ "name": "seen", "type": "view", "viewQuery": format!("SELECT id FROM {}", a.only) }))
            .says(STRANGER, "superuser_required", "schema_invalid"),
    ]
    }),
    ("PUT /api/collections/import", |_, _| {
        vec![put("/api/collections/import", json!({ "collections": [], "deleteMissing": true })).says(
            STRANGER,
            "superuser_required",
            "",
        )]
    }),
    ("GET /api/collections/meta/scaffolds", |_, _| {
        vec![get("/api/collections/meta/scaffolds").says(STRANGER, "superuser_required", OWN)]
    }),
    ("GET /api/collections/{collection}", |a, _| {
        let mut calls: Vec<Call> =
            only(a, "").map(|path| get(path).says(STRANGER, "superuser_required", "collection_not_found")).into();
        calls.push(get(USERS).says(STRANGER, "superuser_required", OWN));
        calls
    }),
    ("PATCH /api/collections/{collection}", |a, _| {
        let mut calls: Vec<Call> = only(a, "")
            .map(|path| {
                patch(path, json!({ "listRule": "" })).says(STRANGER, "superuser_required", "collection_not_found")
            })
            .into();
        calls.push(patch("/api/collections/notes", json!({ "listRule": "" })).says(STRANGER, "superuser_required", ""));
        calls
    }),
    ("DELETE /api/collections/{collection}", |a, _| {
        let mut calls: Vec<Call> =
            only(a, "").map(|path| delete(path).says(STRANGER, "superuser_required", "collection_not_found")).into();
        calls.push(delete("/api/collections/notes").says(STRANGER, "superuser_required", ""));
        calls
    }),
    ("DELETE /api/collections/{collection}/truncate", |a, _| {
        let mut calls: Vec<Call> = only(a, "/truncate")
            .map(|path| delete(path).says(STRANGER, "superuser_required", "collection_not_found"))
            .into();
        calls.push(delete("/api/collections/notes/truncate").says(STRANGER, "superuser_required", ""));
        calls
    }),
    ("GET /api/collections/{collection}/export", |a, _| {
        let mut calls: Vec<Call> = only(a, "/export")
            .map(|path| get(path).says("collection_not_found", "collection_not_found", "collection_not_found"))
            .into();
        calls.push(get("/api/collections/notes/export").says(OWN, OWN, OWN));
        calls.push(get("/api/collections/notes/export?format=csv").says(OWN, OWN, OWN));
        calls
    }),
    ("POST /api/collections/{collection}/import", |a, _| {
        let row = Value::from(json!({ "id": a.note, "text": "from A" }).to_string());
        let mut calls: Vec<Call> = only(a, "/import")
            .map(|path| {
                post(path, row.clone()).says("collection_not_found", "collection_not_found", "collection_not_found")
            })
            .into();
        calls.push(post("/api/collections/notes/import", row).says("superuser_required", "superuser_required", ""));
        calls
    }),
    ("GET /api/files/{collection}/{id}/{filename}", |a, b| {
        let of = |loot: &Loot, query: &str| format!("/api/files/notes/{}/{}{query}", loot.filed, loot.file);
        let token = format!("?token={}", a.file_token);
        vec![
            get(of(a, &token)).says(
                "file_not_found|record_not_found",
                "file_not_found|record_not_found",
                "file_not_found|record_not_found",
            ),
            get(of(a, "")).says(
                "file_not_found|record_not_found",
                "file_not_found|record_not_found",
                "file_not_found|record_not_found",
            ),
            get(of(b, &token)).says("file_not_found|token_invalid", "", ""),
            get(of(b, "")).says("file_not_found|token_invalid", OWN, OWN),
            get(of(b, "")).header("if-none-match", &a.file_tag).says("file_not_found|token_invalid", OWN, OWN),
            get(format!("/api/files/notes/{}/{}", b.filed, a.file)).says(
                "file_not_found|token_invalid",
                "file_not_found",
                "file_not_found",
            ),
            get(format!("/api/files/notes/..%2F..%2F{}%2Fnotes%2F{}/{}", a.id, a.filed, a.file)).says(
                "file_not_found|record_not_found",
                "file_not_found|record_not_found",
                "file_not_found|record_not_found",
            ),
        ]
    }),
    ("GET /api/cache", |a, _| {
        vec![get(format!("/api/cache?prefix={}", a.cache_key)).says(STRANGER, "superuser_required|forbidden", OWN)]
    }),
    ("POST /api/cache", |a, _| {
        vec![post("/api/cache", json!({ "get": [a.cache_key, a.counter, "shared"], "delete": [a.counter] })).says(
            STRANGER,
            "superuser_required|forbidden",
            OWN,
        )]
    }),
    ("GET /api/cache/{key:.+}", |a, _| {
        vec![
            get(format!("/api/cache/{}", a.cache_key)).says(STRANGER, "superuser_required|forbidden", "key_not_found"),
            get(format!("/api/cache/..%2F{}%2F{}", a.id, a.cache_key)).says(
                STRANGER,
                "superuser_required|forbidden",
                "key_not_found",
            ),
            get("/api/cache/shared").says(STRANGER, "superuser_required|forbidden", OWN),
        ]
    }),
    ("PUT /api/cache/{key:.+}", |a, _| {
        vec![put(format!("/api/cache/{}", a.cache_key), json!({ "value": "overwritten" })).says(
            STRANGER,
            "superuser_required|forbidden",
            OWN,
        )]
    }),
    ("POST /api/cache/{key:.+}", |a, _| {
        vec![post(format!("/api/cache/{}", a.counter), json!({ "increment": 1 })).says(
            STRANGER,
            "superuser_required|forbidden",
            OWN,
        )]
    }),
    ("DELETE /api/cache/{key:.+}", |a, _| {
        vec![
            delete(format!("/api/cache/{}", a.cache_key)).says(STRANGER, "superuser_required|forbidden", OWN),
            delete("/api/cache/shared").says(STRANGER, "superuser_required|forbidden", OWN),
        ]
    }),
    ("GET /api/locks/{name:.+}", |a, _| {
        vec![get(format!("/api/locks/{}", a.lock)).says(STRANGER, "superuser_required|forbidden", OWN)]
    }),
    ("POST /api/locks/{name:.+}", |a, _| {
        vec![post(format!("/api/locks/{}", a.lock), json!({ "leaseMs": 60_000 })).says(
            STRANGER,
            "superuser_required|forbidden",
            OWN,
        )]
    }),
    ("PATCH /api/locks/{name:.+}", |a, _| {
        vec![patch(format!("/api/locks/{}", a.lock), json!({ "token": a.lock_token, "leaseMs": 60_000 })).says(
            STRANGER,
            "superuser_required|forbidden",
            "conflict",
        )]
    }),
    ("DELETE /api/locks/{name:.+}", |a, _| {
        vec![delete(format!("/api/locks/{}?token={}", a.lock, a.lock_token)).says(
            STRANGER,
            "superuser_required|forbidden",
            "conflict",
        )]
    }),
];
