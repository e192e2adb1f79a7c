//! People: ways in, sessions, factors, mailed links, keys.
//!
//! Keeps true: a route has its case in one of the lists here. Does not do: the cases of data.

use super::{Call, Case, NO_CODE, OWN, STRANGER, USERS, delete, get, patch, post};
use crate::crossing::loot::Loot;
use serde_json::json;

/// A's codes beside the password that B wants: of the app, and for the day it is lost.
fn spend_codes(a: &Loot, b: &Loot, what: &str) -> Vec<Call> {
    let spend = |code: &str| post(format!("{USERS}/totp/{what}"), json!({ "password": b.password, "code": code }));
    [&a.totp_code, &a.recovery_codes[1]]
        .map(|code| spend(code).by(&b.protected).says(STRANGER, "validation_failed", ""))
        .into()
}

pub(super) const CASES: &[Case] = &[
    ("GET /api/collections/{collection}/auth-methods", |_, _| {
        vec![get(format!("{USERS}/auth-methods")).says(OWN, OWN, OWN)]
    }),
    ("POST /api/collections/{collection}/auth-with-password", |a, _| {
        vec![post(format!("{USERS}/auth-with-password"), json!({ "identity": a.email, "password": a.password })).says(
            "credentials_invalid",
            "credentials_invalid",
            "credentials_invalid",
        )]
    }),
    ("POST /api/collections/{collection}/auth-with-oauth2", |a, _| {
        vec![
        post(format!("{USERS}/auth-with-oauth2"), json!({ "provider": "github", "code": "a code", "codeVerifier": a.verifier, "state": a.state, "redirectURL": "https://node.test/back" }))
            .says("validation_failed", "validation_failed", "validation_failed"),
    ]
    }),
    ("GET /api/oauth2-redirect", |a, _| {
        vec![get(format!("/api/oauth2-redirect?state={}&code=x", a.state)).says(NO_CODE, NO_CODE, NO_CODE)]
    }),
    ("POST /api/oauth2-redirect", |a, _| {
        vec![post("/api/oauth2-redirect", json!({ "state": a.state })).says(NO_CODE, NO_CODE, NO_CODE)]
    }),
    ("POST /api/collections/{collection}/auth-refresh", |a, _| {
        vec![
            post(format!("{USERS}/auth-refresh"), json!({})).says(STRANGER, "", ""),
            post(format!("{USERS}/auth-refresh"), json!({ "refreshToken": a.refresh }))
                .says(STRANGER, STRANGER, STRANGER),
        ]
    }),
    ("POST /api/collections/{collection}/auth-logout", |a, _| {
        vec![
            post(format!("{USERS}/auth-logout"), json!({})).says(STRANGER, "", ""),
            post(format!("{USERS}/auth-logout?everywhere=1"), json!({ "refreshToken": a.refresh }))
                .says(STRANGER, "", ""),
        ]
    }),
    ("POST /api/collections/{collection}/impersonate/{id}", |a, b| {
        vec![
            post(format!("{USERS}/impersonate/{}", a.user_id), json!({})).says(
                STRANGER,
                "superuser_required",
                "record_not_found",
            ),
            post(format!("{USERS}/impersonate/{}", b.user_id), json!({})).says(STRANGER, "", ""),
        ]
    }),
    ("GET /api/collections/{collection}/sessions", |_, _| {
        vec![get(format!("{USERS}/sessions")).says(STRANGER, OWN, "")]
    }),
    ("DELETE /api/collections/{collection}/sessions/{session}", |a, b| {
        vec![
            delete(format!("{USERS}/sessions/{}", a.session)).says(STRANGER, "record_not_found", "record_not_found"),
            delete(format!("{USERS}/sessions/{}", b.session)).says(STRANGER, "", ""),
        ]
    }),
    ("GET /api/collections/{collection}/records/{id}/suspend", |a, _| {
        vec![get(format!("{USERS}/records/{}/suspend", a.user_id)).says(
            STRANGER,
            "superuser_required",
            "record_not_found",
        )]
    }),
    ("POST /api/collections/{collection}/records/{id}/suspend", |a, b| {
        vec![
            post(format!("{USERS}/records/{}/suspend", a.user_id), json!({})).says(
                STRANGER,
                "superuser_required",
                "record_not_found",
            ),
            post(format!("{USERS}/records/{}/suspend", b.user_id), json!({})).says(STRANGER, "", ""),
        ]
    }),
    ("DELETE /api/collections/{collection}/records/{id}/suspend", |a, _| {
        vec![delete(format!("{USERS}/records/{}/suspend", a.user_id)).says(
            STRANGER,
            "superuser_required",
            "record_not_found",
        )]
    }),
    ("GET /api/collections/{collection}/records/{id}/sessions", |a, b| {
        vec![
            get(format!("{USERS}/records/{}/sessions", a.user_id)).says(STRANGER, "superuser_required", OWN),
            get(format!("{USERS}/records/{}/sessions", b.user_id)).says(STRANGER, "superuser_required", OWN),
        ]
    }),
    ("DELETE /api/collections/{collection}/records/{id}/sessions", |a, b| {
        vec![
            delete(format!("{USERS}/records/{}/sessions", a.user_id)).says(
                STRANGER,
                "superuser_required",
                "record_not_found",
            ),
            delete(format!("{USERS}/records/{}/sessions", b.user_id)).says(STRANGER, "superuser_required", ""),
        ]
    }),
    ("POST /api/collections/{collection}/request-otp", |a, _| {
        vec![post(format!("{USERS}/request-otp"), json!({ "email": a.email })).says(OWN, OWN, OWN)]
    }),
    ("POST /api/collections/{collection}/auth-with-otp", |a, _| {
        vec![post(format!("{USERS}/auth-with-otp"), json!({ "otpId": a.otp_id, "password": a.otp_code })).says(
            "credentials_invalid",
            "credentials_invalid",
            "credentials_invalid",
        )]
    }),
    ("POST /api/collections/{collection}/auth-with-totp", |a, b| {
        let login = |half: &str| json!({ "mfaId": half, "code": a.totp_code });
        vec![
            post(format!("{USERS}/auth-with-totp"), login(&a.mfa_id)).says(
                "credentials_invalid",
                "credentials_invalid",
                "credentials_invalid",
            ),
            post(format!("{USERS}/auth-with-totp"), login(&b.mfa_id)).says("", "credentials_invalid", ""),
        ]
    }),
    ("POST /api/collections/{collection}/auth-with-recovery-code", |a, b| {
        let login = |half: &str| json!({ "mfaId": half, "code": a.recovery_codes[0] });
        vec![
            post(format!("{USERS}/auth-with-recovery-code"), login(&a.mfa_id)).says(
                "credentials_invalid",
                "credentials_invalid",
                "credentials_invalid",
            ),
            post(format!("{USERS}/auth-with-recovery-code"), login(&b.mfa_id)).says("", "credentials_invalid", ""),
        ]
    }),
    ("POST /api/collections/{collection}/auth-with-passkey/begin", |_, _| {
        vec![post(format!("{USERS}/auth-with-passkey/begin"), json!({})).says(OWN, OWN, OWN)]
    }),
    ("POST /api/collections/{collection}/auth-with-passkey", |a, _| {
        vec![
            post(
                format!("{USERS}/auth-with-passkey"),
                json!({ "challengeId": a.challenge, "credential": a.credential }),
            )
            .says("credentials_invalid", "credentials_invalid", "credentials_invalid"),
        ]
    }),
    ("GET /api/collections/{collection}/passkeys", |_, _| {
        vec![get(format!("{USERS}/passkeys")).says(STRANGER, OWN, "")]
    }),
    ("POST /api/collections/{collection}/passkeys", |a, _| {
        vec![
            post(format!("{USERS}/passkeys"), json!({ "challengeId": a.adding, "credential": a.added, "name": "x" }))
                .says(STRANGER, "validation_failed", ""),
        ]
    }),
    ("POST /api/collections/{collection}/passkeys/begin", |a, _| {
        vec![post(format!("{USERS}/passkeys/begin"), json!({ "password": a.password })).says(
            STRANGER,
            "validation_failed",
            "",
        )]
    }),
    ("PATCH /api/collections/{collection}/passkeys/{passkey}", |a, b| {
        vec![
            patch(format!("{USERS}/passkeys/{}", a.passkey), json!({ "name": "x" })).says(
                STRANGER,
                "record_not_found",
                "",
            ),
            patch(format!("{USERS}/passkeys/{}", b.passkey), json!({ "name": "x" })).says(STRANGER, "", ""),
        ]
    }),
    ("DELETE /api/collections/{collection}/passkeys/{passkey}", |a, b| {
        vec![
            Call { body: Some(json!({ "password": b.password })), ..delete(format!("{USERS}/passkeys/{}", a.passkey)) }
                .says(STRANGER, "record_not_found", ""),
            Call { body: Some(json!({ "password": a.password })), ..delete(format!("{USERS}/passkeys/{}", b.passkey)) }
                .says(STRANGER, "validation_failed", ""),
        ]
    }),
    ("DELETE /api/collections/{collection}/second-factors/{id}", |a, b| {
        vec![
            delete(format!("{USERS}/second-factors/{}", a.user_id)).says(
                STRANGER,
                "superuser_required",
                "record_not_found",
            ),
            delete(format!("{USERS}/second-factors/{}", b.user_id)).says(STRANGER, "superuser_required", ""),
        ]
    }),
    ("GET /api/collections/{collection}/totp", |_, _| vec![get(format!("{USERS}/totp")).says(STRANGER, OWN, "")]),
    ("GET /api/keys", |_, _| vec![get("/api/keys").says(STRANGER, OWN, "")]),
    ("POST /api/collections/{collection}/totp", |a, _| {
        vec![post(format!("{USERS}/totp"), json!({ "password": a.password })).says(STRANGER, "validation_failed", "")]
    }),
    // B's user has set an app up as well, so that only the code can be what is wrong.
    ("POST /api/collections/{collection}/totp/confirm", |a, _| {
        vec![post(format!("{USERS}/totp/confirm"), json!({ "code": a.pending_code })).says(
            STRANGER,
            "validation_failed",
            "",
        )]
    }),
    ("POST /api/collections/{collection}/totp/disable", |a, b| spend_codes(a, b, "disable")),
    ("POST /api/collections/{collection}/totp/recovery-codes", |a, b| spend_codes(a, b, "recovery-codes")),
    ("POST /api/collections/{collection}/request-password-reset", |a, _| {
        vec![post(format!("{USERS}/request-password-reset"), json!({ "email": a.email })).says(OWN, OWN, OWN)]
    }),
    ("POST /api/collections/{collection}/confirm-password-reset", |a, _| {
        vec![
            post(
                format!("{USERS}/confirm-password-reset"),
                json!({ "token": a.reset, "password": "another-horse", "passwordConfirm": "another-horse" }),
            )
            .says("validation_failed", "validation_failed", "validation_failed"),
        ]
    }),
    ("POST /api/collections/{collection}/request-verification", |a, _| {
        vec![post(format!("{USERS}/request-verification"), json!({ "email": a.email })).says(OWN, OWN, OWN)]
    }),
    ("POST /api/collections/{collection}/confirm-verification", |a, _| {
        vec![post(format!("{USERS}/confirm-verification"), json!({ "token": a.verification })).says(
            "validation_failed",
            "validation_failed",
            "validation_failed",
        )]
    }),
    ("POST /api/collections/{collection}/request-email-change", |_, _| {
        vec![
            post(format!("{USERS}/request-email-change"), json!({ "newEmail": "thief@example.com" }))
                .says(STRANGER, "", ""),
        ]
    }),
    ("POST /api/collections/{collection}/confirm-email-change", |a, _| {
        vec![
            post(format!("{USERS}/confirm-email-change"), json!({ "token": a.email_change, "password": a.password }))
                .says("validation_failed", "validation_failed", "validation_failed"),
        ]
    }),
    ("POST /api/keys", |_, _| {
        vec![post("/api/keys", json!({ "name": "k", "scopes": { "operations": ["read"] } })).says(STRANGER, "", "")]
    }),
    ("DELETE /api/keys/{key}", |a, b| {
        vec![
            delete(format!("/api/keys/{}", a.key_id)).says(STRANGER, "key_not_found|record_not_found", ""),
            delete(format!("/api/keys/{}", b.key_id)).says(STRANGER, "", ""),
        ]
    }),
    ("POST /api/keys/{key}/rotate", |a, b| {
        vec![
            post(format!("/api/keys/{}/rotate", a.key_id), json!({})).says(
                STRANGER,
                "key_not_found|record_not_found",
                "",
            ),
            post(format!("/api/keys/{}/rotate", b.key_id), json!({})).says(STRANGER, "", ""),
        ]
    }),
    ("POST /api/files/token", |_, _| vec![post("/api/files/token", json!({})).says(STRANGER, "", "")]),
];
