//! What a request is about to do to storage, told by its route before a handler runs.
//!
//! Keeps true: a route that is not listed here stores more, so a new route is never open on a full disk by accident; what
//! lets people in, keeps a stolen account out, deletes, or stores nothing goes on there. The names of collections, tenants
//! and keys decide nothing, nor how they are escaped.
//! Does not do: refusing; knowing how full the disk is.

use crate::services::budget::Intent;
use actix_web::HttpRequest;
use actix_web::http::Method;

/// What goes on under `/api/collections/{collection}/` beside every way to log in.
const GO_ON: &[&str] = &["request-otp", "request-password-reset", "confirm-password-reset", "impersonate"];

/// Whether a request with this method can store anything but what says that something is gone.
pub(crate) fn may_store(method: &Method) -> bool {
    !method.is_safe() && *method != Method::DELETE
}

/// Whether the request leaves more on the disk than it found there.
pub(crate) fn stores_more(request: &HttpRequest) -> bool {
    // As it was routed: escapes are resolved.
    let path = request.match_info().as_str();
    may_store(request.method()) && !goes_on(&segments(path))
}

/// What a budget is to know; logging in and out, and suspending, is no write that a budget may stop.
pub(crate) fn intent_of(request: &HttpRequest) -> Intent {
    intent(request.method(), &segments(request.match_info().as_str()))
}

fn segments(path: &str) -> Vec<&str> {
    path.trim_start_matches('/').split('/').collect()
}

fn goes_on(path: &[&str]) -> bool {
    match path {
        ["api", "collections", _, "records", _, "suspend"]
        | ["api", "tenants", _, "suspend" | "resume"]
        | ["api", "admin", "cache", _]
        | ["api", "oauth2-redirect"]
        | ["api", "files", "token"]
        | ["api", "rules", "explain"] => true,
        // In memory; what of it is written to disk asks for room by itself.
        ["api", "cache" | "locks", ..] => true,
        ["api", "collections", _, what, ..] => what.starts_with("auth-") || GO_ON.contains(what),
        _ => false,
    }
}

fn intent(method: &Method, path: &[&str]) -> Intent {
    let stores = matches!(
        path,
        ["api", "batch"]
            | ["api", "collections", "import"]
            | ["api", "collections", _, "records" | "import" | "truncate"]
            | ["api", "collections", _, "records", _]
    );
    match stores && !method.is_safe() {
        true if *method == Method::DELETE => Intent::Delete,
        true => Intent::Write,
        false => Intent::Read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::routes::TABLE;
    use actix_web::test::TestRequest;

    /// The routes of which `told` holds, in which every name is one that misleads.
    fn routes(told: impl Fn(&Method, &[&str]) -> bool) -> Vec<String> {
        let mut found = Vec::new();
        for (path, methods) in TABLE {
            let named: Vec<&str> =
                segments(path).into_iter().map(|part| if part.starts_with('{') { "records" } else { part }).collect();
            for method in *methods {
                if told(&Method::from_bytes(method.as_bytes()).unwrap(), &named) {
                    found.push(format!("{method} {path}"));
                }
            }
        }
        found
    }

    #[test]
    fn on_a_full_disk_what_is_listed_goes_on_and_nothing_else() {
        let gone_on = routes(|method, path| may_store(method) && goes_on(path));
        let listed = [
            "POST /api/collections/{collection}/auth-with-password",
            "POST /api/collections/{collection}/auth-with-oauth2",
            "POST /api/oauth2-redirect",
            "POST /api/collections/{collection}/auth-refresh",
            "POST /api/collections/{collection}/auth-logout",
            "POST /api/collections/{collection}/impersonate/{id}",
            "POST /api/collections/{collection}/records/{id}/suspend",
            "POST /api/collections/{collection}/request-otp",
            "POST /api/collections/{collection}/auth-with-otp",
            "POST /api/collections/{collection}/auth-with-totp",
            "POST /api/collections/{collection}/auth-with-recovery-code",
            "POST /api/collections/{collection}/auth-with-passkey/begin",
            "POST /api/collections/{collection}/auth-with-passkey",
            "POST /api/collections/{collection}/request-password-reset",
            "POST /api/collections/{collection}/confirm-password-reset",
            "POST /api/files/token",
            "POST /api/tenants/{tenant}/suspend",
            "POST /api/tenants/{tenant}/resume",
            "POST /api/rules/explain",
            "POST /api/cache",
            "PUT /api/cache/{key:.+}",
            "POST /api/cache/{key:.+}",
            "POST /api/locks/{name:.+}",
            "PATCH /api/locks/{name:.+}",
            "POST /api/admin/cache/purge",
            "POST /api/admin/cache/verify",
            "POST /api/admin/cache/warm",
        ];
        assert_eq!(gone_on, listed);
    }

    #[test]
    fn a_budget_stops_what_writes_records_and_nothing_else() {
        let of = |wanted: Intent| routes(|method, path| intent(method, path) == wanted);
        let writes = [
            "PATCH /api/collections/{collection}/records/{id}",
            "POST /api/collections/{collection}/records",
            "POST /api/batch",
            "PUT /api/collections/import",
            "POST /api/collections/{collection}/import",
        ];
        assert_eq!(of(Intent::Write), writes);
        let deletions =
            ["DELETE /api/collections/{collection}/records/{id}", "DELETE /api/collections/{collection}/truncate"];
        assert_eq!(of(Intent::Delete), deletions);
    }

    #[test]
    fn how_a_path_is_escaped_decides_nothing() {
        let request = TestRequest::post().uri("/api/collections/notes/%72ecords").to_http_request();
        assert_eq!(intent_of(&request), Intent::Write);
        assert!(stores_more(&request));
        let request = TestRequest::post().uri("/api/collections/auth-x/records").to_http_request();
        assert!(stores_more(&request));
    }
}
