//! The whole route table, one line per path. Tenant prefixes are taken off before this is read.
//!
//! Keeps true: a path that exists answers 405 with `Allow` to a method it lacks; every other path answers 404; a GET
//! route answers HEAD. Hot routes come first because paths are tried in order.

use super::handlers::{
    accounts, audit, auth, blueprints, cache, collections, doctor, factors, files, keys, oauth, ops, pages, passkeys,
    records, recovery, rules, settings, tenants, transfer, usage, values,
};
use super::problem::Problem;
use crate::kernel::error::Code;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, guard, web};

macro_rules! verb {
    (GET) => {
        web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
    };
    (POST) => {
        web::post()
    };
    (PATCH) => {
        web::patch()
    };
    (PUT) => {
        web::put()
    };
    (DELETE) => {
        web::delete()
    };
}

macro_rules! routes {
    ($($path:literal $($method:ident $handler:path),+;)*) => {
        /// Every path with its methods, for the contract test and the documentation.
        pub const TABLE: &[(&str, &[&str])] = &[$(($path, &[$(stringify!($method)),+]),)*];

        /// Registers the table.
        pub(super) fn configure(config: &mut web::ServiceConfig) {
            $(config.service(
                web::resource($path)
                    $(.route(verb!($method).to($handler)))+
                    .default_service(web::to(|| async { not_allowed(&[$(stringify!($method)),+]) })),
            );)*
            config.default_service(web::to(|request: HttpRequest| async move { Err::<HttpResponse, _>(no_route(&request)) }));
        }
    };
}

routes! {
    "/api/collections/{collection}/records/{id}" GET records::get_record, PATCH records::update_record, DELETE records::delete_record;
    "/api/collections/{collection}/records" GET records::list_records, POST records::create_record;
    "/api/batch" POST records::run_batch;
    "/api/audit" GET audit::list_audit;
    "/api/changes" GET records::list_changes;
    "/api/collections/{collection}/records/{id}/history" GET records::list_history;

    "/api/collections" GET collections::list_collections, POST collections::create_collection;
    "/api/collections/import" PUT collections::import_collections;
    "/api/collections/meta/scaffolds" GET collections::list_scaffolds;
    "/api/collections/{collection}" GET collections::get_collection, PATCH collections::update_collection, DELETE collections::delete_collection;
    "/api/collections/{collection}/truncate" DELETE collections::truncate_collection;

    "/api/collections/{collection}/export" GET transfer::export_records;
    "/api/collections/{collection}/import" POST transfer::import_records;

    "/api/collections/{collection}/auth-methods" GET auth::list_auth_methods;
    "/api/collections/{collection}/auth-with-password" POST auth::auth_with_password;
    "/api/collections/{collection}/auth-with-oauth2" POST oauth::auth_with_oauth2;
    "/api/oauth2-redirect" GET oauth::oauth2_redirect, POST oauth::oauth2_redirect;
    "/api/collections/{collection}/auth-refresh" POST auth::auth_refresh;
    "/api/collections/{collection}/auth-logout" POST auth::auth_logout;
    "/api/collections/{collection}/impersonate/{id}" POST auth::impersonate;
    "/api/collections/{collection}/sessions" GET auth::list_sessions;
    "/api/collections/{collection}/sessions/{session}" DELETE auth::revoke_session;
    "/api/collections/{collection}/records/{id}/suspend" GET accounts::get_suspension, POST accounts::suspend_account, DELETE accounts::resume_account;
    "/api/collections/{collection}/records/{id}/sessions" GET accounts::list_sessions_of, DELETE accounts::end_sessions_of;
    "/api/collections/{collection}/request-otp" POST recovery::request_otp;
    "/api/collections/{collection}/auth-with-otp" POST recovery::auth_with_otp;
    "/api/collections/{collection}/auth-with-totp" POST factors::auth_with_totp;
    "/api/collections/{collection}/auth-with-recovery-code" POST factors::auth_with_recovery_code;
    "/api/collections/{collection}/auth-with-passkey/begin" POST passkeys::begin_passkey_login;
    "/api/collections/{collection}/auth-with-passkey" POST passkeys::auth_with_passkey;
    "/api/collections/{collection}/passkeys" GET passkeys::list_passkeys, POST passkeys::add_passkey;
    "/api/collections/{collection}/passkeys/begin" POST passkeys::begin_passkey;
    "/api/collections/{collection}/passkeys/{passkey}" PATCH passkeys::rename_passkey, DELETE passkeys::remove_passkey;
    "/api/collections/{collection}/second-factors/{id}" DELETE factors::reset_factors;
    "/api/collections/{collection}/totp" GET factors::get_totp, POST factors::enrol_totp;
    "/api/collections/{collection}/totp/confirm" POST factors::confirm_totp;
    "/api/collections/{collection}/totp/disable" POST factors::disable_totp;
    "/api/collections/{collection}/totp/recovery-codes" POST factors::renew_recovery_codes;
    "/api/collections/{collection}/request-password-reset" POST recovery::request_password_reset;
    "/api/collections/{collection}/confirm-password-reset" POST recovery::confirm_password_reset;
    "/api/collections/{collection}/request-verification" POST recovery::request_verification;
    "/api/collections/{collection}/confirm-verification" POST recovery::confirm_verification;
    "/api/collections/{collection}/request-email-change" POST recovery::request_email_change;
    "/api/collections/{collection}/confirm-email-change" POST recovery::confirm_email_change;
    "/api/settings" GET settings::get_settings, PATCH settings::update_settings;
    "/api/settings/test/email" POST settings::test_email;
    "/api/files/token" POST auth::create_file_token;
    "/api/files/{collection}/{id}/{filename}" GET files::get_file;
    "/api/keys" GET keys::list_keys, POST keys::create_key;
    "/api/keys/{key}" DELETE keys::revoke_key;
    "/api/keys/{key}/rotate" POST keys::rotate_key;

    "/api/tenants" GET tenants::list_tenants, POST tenants::create_tenant;
    "/api/tenants/import" POST tenants::import_tenant;
    "/api/tenants/{tenant}" GET tenants::get_tenant, PATCH tenants::update_tenant, DELETE tenants::delete_tenant;
    "/api/tenants/{tenant}/suspend" POST tenants::suspend_tenant;
    "/api/tenants/{tenant}/resume" POST tenants::resume_tenant;
    "/api/tenants/{tenant}/clone" POST tenants::clone_tenant;
    "/api/tenants/{tenant}/export" GET tenants::export_tenant;

    "/api/tenants/{tenant}/blueprint" POST blueprints::apply_blueprint;
    "/api/blueprints" GET blueprints::list_blueprints, POST blueprints::publish_blueprint;
    "/api/blueprints/{name}" GET blueprints::get_blueprint;
    "/api/blueprints/{name}/test" POST blueprints::test_blueprint;
    "/api/rules/explain" POST rules::explain_rule;
    "/api/rules/lint" GET rules::lint_rules;
    "/api/rules/strangers" GET rules::list_stranger_reach;

    "/api/cache" GET values::list_keys, POST values::run_batch;
    "/api/cache/{key:.+}" GET values::get_value, PUT values::set_value, POST values::increment_value, DELETE values::delete_value;
    "/api/locks/{name:.+}" GET values::get_lock, POST values::acquire_lock, PATCH values::renew_lock, DELETE values::release_lock;

    "/api/admin/audit" GET audit::list_node_audit;
    "/api/admin/usage" GET usage::get_usage;
    "/api/admin/doctor" GET doctor::get_doctor;
    "/api/admin/performance" GET cache::get_performance;
    "/api/admin/cache/stats" GET cache::get_stats;
    "/api/admin/cache/purge" POST cache::purge;
    "/api/admin/cache/verify" POST cache::verify;
    "/api/admin/cache/warm" POST cache::warm;
    "/_" GET pages::redirect_page;
    "/_/" GET pages::get_page;
    "/_/{file}" GET pages::get_page_file;

    "/health" GET ops::get_health;
    "/api/health" GET ops::get_api_health;
    "/livez" GET ops::get_livez;
    "/readyz" GET ops::get_readyz;
    "/metrics" GET ops::get_metrics;
}

fn no_route(request: &HttpRequest) -> Problem {
    let path: String = request.path().chars().take(200).collect();
    Problem::new(Code::RouteNotFound, format!("There is no route {} {path}.", request.method()))
}

fn not_allowed(methods: &[&str]) -> HttpResponse {
    let mut response = HttpResponse::from_error(Problem::bare(Code::MethodNotAllowed));
    if let Ok(value) = header::HeaderValue::from_str(&methods.join(", ")) {
        response.headers_mut().insert(header::ALLOW, value);
    }
    response
}
