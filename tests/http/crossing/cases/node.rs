//! The node and its administration: tenants, blueprints, settings, rules, the answer cache, health.
//!
//! Keeps true: a route has its case in one of the lists here. Does not do: what an administrator of the node may do everywhere.

use super::{Case, OWN, STRANGER, delete, get, node_only, patch, post};
use serde_json::json;

pub(super) const CASES: &[Case] = &[
    ("GET /api/admin/audit", |_, _| node_only(get("/api/admin/audit"))),
    ("GET /api/settings", |_, _| vec![get("/api/settings").says(STRANGER, "superuser_required", OWN)]),
    ("GET /api/tenants", |_, _| node_only(get("/api/tenants"))),
    ("PATCH /api/settings", |_, _| {
        vec![patch("/api/settings", json!({ "meta": { "appName": "Mine" } })).says(STRANGER, "superuser_required", "")]
    }),
    ("POST /api/settings/test/email", |_, _| {
        vec![
            post("/api/settings/test/email", json!({ "email": "thief@example.com", "template": "verification" })).says(
                STRANGER,
                "superuser_required",
                "",
            ),
        ]
    }),
    ("POST /api/tenants", |_, _| node_only(post("/api/tenants", json!({ "slug": "mine" })))),
    ("POST /api/tenants/import", |_, _| node_only(post("/api/tenants/import?slug=mine", json!("bytes")))),
    ("GET /api/tenants/{tenant}", |a, b| {
        [&a.slug, &a.id, &b.slug]
            .into_iter()
            .flat_map(|tenant| node_only(get(format!("/api/tenants/{tenant}"))))
            .collect()
    }),
    ("PATCH /api/tenants/{tenant}", |a, _| {
        node_only(patch(format!("/api/tenants/{}", a.slug), json!({ "name": "Mine" })))
    }),
    ("DELETE /api/tenants/{tenant}", |a, _| node_only(delete(format!("/api/tenants/{}", a.slug)))),
    ("POST /api/tenants/{tenant}/suspend", |a, _| {
        node_only(post(format!("/api/tenants/{}/suspend", a.slug), json!({})))
    }),
    ("POST /api/tenants/{tenant}/resume", |a, _| node_only(post(format!("/api/tenants/{}/resume", a.slug), json!({})))),
    ("POST /api/tenants/{tenant}/clone", |a, _| {
        node_only(post(format!("/api/tenants/{}/clone", a.slug), json!({ "slug": "copy" })))
    }),
    ("GET /api/tenants/{tenant}/export", |a, _| node_only(get(format!("/api/tenants/{}/export", a.slug)))),
    ("POST /api/tenants/{tenant}/blueprint", |a, _| {
        node_only(post(format!("/api/tenants/{}/blueprint", a.slug), json!({ "blueprint": "cms" })))
    }),
    ("GET /api/blueprints", |_, _| node_only(get("/api/blueprints"))),
    ("POST /api/blueprints", |_, _| node_only(post("/api/blueprints", json!({ "name": "mine", "version": 1 })))),
    ("GET /api/blueprints/{name}", |_, _| node_only(get("/api/blueprints/cms"))),
    ("POST /api/blueprints/{name}/test", |a, _| {
        node_only(post(format!("/api/blueprints/cms/test?tenant={}", a.slug), json!({})))
    }),
    ("POST /api/rules/explain", |a, b| {
        vec![
        post("/api/rules/explain", json!({ "collection": "notes", "record": a.note, "action": "view" })).says(STRANGER, "superuser_required", "record_not_found"),
        post("/api/rules/explain", json!({ "collection": "notes", "record": b.note, "action": "view", "caller": { "collection": "users", "id": a.user_id } }))
            .says(STRANGER, "superuser_required", "record_not_found"),
        post("/api/rules/explain", json!({ "collection": a.only, "action": "list" })).says(STRANGER, "superuser_required", "collection_not_found"),
    ]
    }),
    ("GET /api/rules/lint", |_, _| vec![get("/api/rules/lint").says(STRANGER, "superuser_required", OWN)]),
    ("GET /api/rules/strangers", |_, _| vec![get("/api/rules/strangers").says(STRANGER, "superuser_required", OWN)]),
    ("GET /api/admin/usage", |a, _| node_only(get(format!("/api/admin/usage?tenant={}", a.slug)))),
    ("GET /api/admin/doctor", |_, _| node_only(get("/api/admin/doctor"))),
    ("GET /api/admin/performance", |_, _| node_only(get("/api/admin/performance?type=cache"))),
    ("GET /api/admin/cache/stats", |_, _| {
        vec![get("/api/admin/cache/stats").says(STRANGER, "superuser_required", OWN)]
    }),
    ("POST /api/admin/cache/purge", |a, _| {
        vec![
            post("/api/admin/cache/purge", json!({ "tag": format!("{}:notes", a.slug) })).says(
                STRANGER,
                "superuser_required",
                OWN,
            ),
            post("/api/admin/cache/purge", json!({ "collection": a.only })).says(
                STRANGER,
                "superuser_required",
                "collection_not_found",
            ),
            post("/api/admin/cache/purge", json!({ "all": true })).says(STRANGER, "superuser_required", OWN),
        ]
    }),
    ("POST /api/admin/cache/verify", |_, _| {
        vec![post("/api/admin/cache/verify", json!({ "sample": 100 })).says(STRANGER, "superuser_required", OWN)]
    }),
    ("POST /api/admin/cache/warm", |_, _| {
        vec![post("/api/admin/cache/warm", json!({})).says(STRANGER, "superuser_required", OWN)]
    }),
    ("GET /_", |_, _| vec![get("/_").says(OWN, OWN, OWN)]),
    ("GET /_/", |_, _| vec![get("/_/").says(OWN, OWN, OWN)]),
    ("GET /_/{file}", |_, _| vec![get("/_/account.js").says(OWN, OWN, OWN)]),
    ("GET /health", |_, _| vec![get("/health").says("route_not_found", "route_not_found", "route_not_found")]),
    ("GET /api/health", |_, _| vec![get("/api/health").says(OWN, OWN, OWN)]),
    ("GET /livez", |_, _| vec![get("/livez").says("route_not_found", "route_not_found", "route_not_found")]),
    ("GET /readyz", |_, _| vec![get("/readyz").says("route_not_found", "route_not_found", "route_not_found")]),
    ("GET /metrics", |_, _| vec![get("/metrics").says("route_not_found", "route_not_found", "route_not_found")]),
];
