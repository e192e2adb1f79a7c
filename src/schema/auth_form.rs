//! Login options of auth collections in JSON: defaults, merging of what a request mentions, wire form without secrets.
//!
//! Keeps true: every token kind has a secret of its own, made here and never shown; a request that does not mention a
//! secret keeps it. Does not do: logging anybody in.

use super::error::Problems;
use super::mail_text::MailText;
use super::{AuthOptions, oauth};
use crate::kernel::random::{self, Random};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The wire members that make up the login options (the two rules apart).
pub(crate) const MEMBERS: &[&str] = &[
    "authAlert",
    "oauth2",
    "passwordAuth",
    "passwordPolicy",
    "mfa",
    "otp",
    "totp",
    "passkey",
    "quietRegistration",
    "authToken",
    "passwordResetToken",
    "emailChangeToken",
    "verificationToken",
    "fileToken",
    "verificationTemplate",
    "resetPasswordTemplate",
    "confirmEmailChangeTemplate",
    "registrationTemplate",
    "registrationNoticeTemplate",
];

/// Token kinds beside `authToken`, with their default lifetime in seconds (PocketBase's).
const TOKENS: &[(&str, u64)] =
    &[("passwordResetToken", 1_800), ("emailChangeToken", 1_800), ("verificationToken", 259_200), ("fileToken", 180)];

const SECRET_LEN: usize = 50;
const TOKEN_SECONDS_DEFAULT: u64 = 604_800;
const TOKEN_SECONDS_MAX: u64 = 94_670_856;
/// PocketBase's bound for a half-finished login.
const MFA_SECONDS_MAX: u64 = 86_400;

fn new_secret(source: &dyn Random) -> String {
    random::from_alphabet(source, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", SECRET_LEN)
}

/// The options of a fresh auth collection.
pub(crate) fn defaults(source: &dyn Random) -> AuthOptions {
    let mut rest = default_rest();
    for (key, seconds) in TOKENS {
        rest.insert((*key).to_owned(), json!({"duration": seconds, "secret": new_secret(source)}));
    }
    AuthOptions {
        password_enabled: true,
        identity_fields: vec![Arc::from("email")],
        token_secret: Arc::from(new_secret(source)),
        token_duration_s: TOKEN_SECONDS_DEFAULT,
        rest,
    }
}

fn default_rest() -> Map<String, Value> {
    let map = json!({
        "authAlert": {"enabled": true, "emailTemplate": MailText::Alert.template()},
        "oauth2": {"enabled": false, "mappedFields": {"id": "", "name": "", "username": "", "avatarURL": ""}, "providers": []},
        "passwordPolicy": {"refuseCommon": true},
        "mfa": {"enabled": false, "duration": 1_800, "rule": ""},
        "otp": {"enabled": false, "duration": 180, "length": 8, "emailTemplate": MailText::OneTimeCode.template()},
        "totp": {"enabled": true, "issuer": ""},
        "passkey": {"enabled": true},
        "quietRegistration": {"enabled": false},
    });
    let Value::Object(mut map) = map else { return Map::new() };
    for mail in MailText::ALL {
        map.entry(mail.member()).or_insert_with(|| mail.template());
    }
    map
}

/// The members of an option group; a misspelt one could leave a way to log in open that was to be closed.
fn members_of(group: &str) -> &'static [&'static str] {
    match group {
        "passwordAuth" => &["enabled", "identityFields"],
        "passwordPolicy" => &["refuseCommon"],
        "authAlert" => &["enabled", "emailTemplate"],
        "oauth2" => &["enabled", "mappedFields", "providers"],
        "mfa" => &["enabled", "duration", "rule"],
        "otp" => &["enabled", "duration", "length", "emailTemplate"],
        "totp" => &["enabled", "issuer"],
        "passkey" | "quietRegistration" => &["enabled"],
        template if template.ends_with("Template") => &["subject", "body", "text"],
        _ => &["duration", "secret"],
    }
}

/// Takes out of the options of each group what the group does not have: earlier builds kept whatever was sent, and what is
/// shown must be taken when it comes back.
pub(crate) fn keep_known(groups: &mut Map<String, Value>) {
    for (group, options) in groups {
        if let Some(options) = options.as_object_mut() {
            keep_known_of(group, options);
        }
    }
}

fn keep_known_of(group: &str, options: &mut Map<String, Value>) {
    options.retain(|member, _| members_of(group).contains(&member.as_str()));
    if let Some(providers) = options.get_mut("providers") {
        oauth::keep_known(providers);
    }
}

/// Lays the mentioned members over `before`.
pub(crate) fn merge(before: &AuthOptions, given: &Map<String, Value>, problems: &mut Problems<'_>) -> AuthOptions {
    let mut next = before.clone();
    for (key, value) in given {
        let Some(object) = value.as_object() else {
            problems.add_at(key, "validation_invalid_type", "Must be an object.");
            continue;
        };
        let mut problems = problems.at(key);
        problems.refuse_unknown(object, key, &[members_of(key)]);
        match key.as_str() {
            "passwordAuth" => merge_password(&mut next, object, &mut problems),
            "authToken" => merge_auth_token(&mut next, object, &mut problems),
            _ => merge_rest(&mut next.rest, key, object, &mut problems),
        }
    }
    check_ways(&next, problems);
    next
}

fn merge_password(next: &mut AuthOptions, object: &Map<String, Value>, problems: &mut Problems<'_>) {
    match object.get("enabled") {
        None | Some(Value::Null) => {}
        Some(Value::Bool(enabled)) => next.password_enabled = *enabled,
        Some(_) => problems.add_at("enabled", "validation_invalid_type", "Must be true or false."),
    }
    if let Some(fields) = object.get("identityFields").filter(|fields| !fields.is_null()) {
        let names: Option<Vec<Arc<str>>> =
            fields.as_array().and_then(|list| list.iter().map(|name| name.as_str().map(Arc::from)).collect());
        match names {
            Some(names) => next.identity_fields = names,
            None => problems.add_at("identityFields", "validation_invalid_type", "Must be a list of field names."),
        }
    }
}

fn merge_auth_token(next: &mut AuthOptions, object: &Map<String, Value>, problems: &mut Problems<'_>) {
    if let Some(seconds) = read_duration(object, problems) {
        next.token_duration_s = seconds;
    }
    if let Some(secret) = read_secret(object, problems) {
        next.token_secret = Arc::from(secret);
    }
}

fn read_duration(object: &Map<String, Value>, problems: &mut Problems<'_>) -> Option<u64> {
    let given = object.get("duration").filter(|value| !value.is_null())?;
    let seconds = given.as_u64().filter(|seconds| (10..=TOKEN_SECONDS_MAX).contains(seconds));
    if seconds.is_none() {
        let message = format!("Must be a whole number of seconds between 10 and {TOKEN_SECONDS_MAX}.");
        problems.add_at("duration", "validation_invalid_value", message);
    }
    seconds
}

fn read_secret<'a>(object: &'a Map<String, Value>, problems: &mut Problems<'_>) -> Option<&'a str> {
    let secret = object.get("secret")?.as_str().filter(|secret| !secret.is_empty())?;
    if !(30..=255).contains(&secret.len()) {
        problems.add_at(
            "secret",
            "validation_length_out_of_range",
            "Must be 30 to 255 characters; leave it out to keep the present one.",
        );
        return None;
    }
    Some(secret)
}

fn merge_rest(rest: &mut Map<String, Value>, key: &str, given: &Map<String, Value>, problems: &mut Problems<'_>) {
    let before = rest.get(key).and_then(Value::as_object).cloned();
    let mut merged = before.or_else(|| default_rest().remove(key)?.as_object().cloned()).unwrap_or_default();
    if key.ends_with("Token") {
        if let Some(seconds) = read_duration(given, problems) {
            merged.insert("duration".to_owned(), json!(seconds));
        }
        if let Some(secret) = read_secret(given, problems) {
            merged.insert("secret".to_owned(), json!(secret));
        }
    } else {
        for (member, value) in given {
            if member == "providers" {
                refuse_sealed(value, problems);
                oauth::refuse_unknown(value, problems);
            }
            let kept =
                if member == "providers" { keep_client_secrets(merged.get(member), value) } else { value.clone() };
            if member == "enabled" && !value.is_boolean() {
                problems.add_at("enabled", "validation_invalid_type", "Must be true or false.");
            }
            merged.insert(member.clone(), kept);
        }
        keep_known_of(key, &mut merged);
        if let Some(providers) = merged.get("providers") {
            oauth::check(providers, problems);
        }
        match key {
            "mfa" => check_mfa(&merged, problems),
            "passwordPolicy" => check_policy(&merged, problems),
            _ => {}
        }
    }
    rest.insert(key.to_owned(), Value::Object(merged));
}

fn check_mfa(options: &Map<String, Value>, problems: &mut Problems<'_>) {
    let seconds = options.get("duration").and_then(Value::as_u64);
    if !seconds.is_some_and(|seconds| (10..=MFA_SECONDS_MAX).contains(&seconds)) {
        let message = format!("Must be a whole number of seconds between 10 and {MFA_SECONDS_MAX}.");
        problems.add_at("duration", "validation_invalid_value", message);
    }
    if !options.get("rule").is_none_or(|rule| rule.is_string() || rule.is_null()) {
        problems.add_at("rule", "validation_invalid_type", "Must be a text.");
    }
}

fn check_policy(options: &Map<String, Value>, problems: &mut Problems<'_>) {
    for (member, value) in options {
        match (member.as_str(), value) {
            ("refuseCommon", Value::Bool(_)) => {}
            ("refuseCommon", _) => problems.add_at(member, "validation_invalid_type", "Must be true or false."),
            // Refused already where it was sent.
            _ => {}
        }
    }
}

/// Whether an option group is switched on; `totp` is unless it is said otherwise.
fn is_on(rest: &Map<String, Value>, group: &str) -> bool {
    let said = rest.get(group).and_then(|group| group.get("enabled")?.as_bool());
    said.unwrap_or(matches!(group, "totp" | "passkey"))
}

/// Two factors need two ways to show one.
fn check_ways(next: &AuthOptions, problems: &mut Problems<'_>) {
    let others = ["otp", "oauth2", "totp", "passkey"].iter().filter(|group| is_on(&next.rest, group)).count();
    if is_on(&next.rest, "mfa") && others + usize::from(next.password_enabled) < 2 {
        let message = "Needs at least two methods that are switched on.";
        problems.at("mfa").add_at("enabled", "validation_mfa_not_enough_auths", message);
    }
}

/// A text that looks sealed would be taken for one that this node sealed.
fn refuse_sealed(providers: &Value, problems: &mut Problems<'_>) {
    for (number, provider) in providers.as_array().map(Vec::as_slice).unwrap_or_default().iter().enumerate() {
        if provider
            .get("clientSecret")
            .and_then(Value::as_str)
            .is_some_and(|text| text.trim().starts_with(oauth::SEALED))
        {
            let message = "Must be the secret itself; what begins with \"sealed:\" is how the node keeps one.";
            problems.add_at(format!("providers.{number}.clientSecret"), "validation_invalid_value", message);
        }
    }
}

/// Providers are shown without their secret, so a provider sent back without one keeps what it had.
fn keep_client_secrets(before: Option<&Value>, given: &Value) -> Value {
    let mut given = given.clone();
    let known = before.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for provider in given.as_array_mut().map(Vec::as_mut_slice).unwrap_or_default() {
        let old = known.iter().find(|old| old.get("name") == provider.get("name"));
        let lacks = provider.get("clientSecret").and_then(Value::as_str).is_none_or(str::is_empty);
        if let (true, Some(secret), Some(object)) =
            (lacks, old.and_then(|old| old.get("clientSecret")), provider.as_object_mut())
        {
            object.insert("clientSecret".to_owned(), secret.clone());
        }
    }
    given
}

/// The options with what `change` makes of each provider's client secret, given the provider's name and the secret as it is
/// kept; `None` if nothing changes.
pub(crate) fn with_client_secrets(
    auth: &AuthOptions,
    change: &dyn Fn(&str, &str) -> Option<String>,
) -> Option<AuthOptions> {
    let mut next = auth.clone();
    let providers = next.rest.get_mut("oauth2")?.get_mut("providers")?.as_array_mut()?;
    let mut changed = false;
    for provider in providers {
        let name = provider.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let Some(Value::String(secret)) = provider.get_mut("clientSecret") else { continue };
        if let Some(other) = change(&name, secret) {
            *secret = other;
            changed = true;
        }
    }
    changed.then_some(next)
}

/// The wire members; secrets left out.
pub(crate) fn to_wire(auth: &AuthOptions) -> Map<String, Value> {
    let mut map = Map::new();
    let fallback = default_rest();
    for key in MEMBERS {
        let value = match *key {
            "passwordAuth" => json!({"enabled": auth.password_enabled, "identityFields": auth.identity_fields}),
            "authToken" => json!({"duration": auth.token_duration_s}),
            _ => auth.rest.get(*key).or_else(|| fallback.get(*key)).map(without_secrets).unwrap_or(Value::Null),
        };
        map.insert((*key).to_owned(), value);
    }
    map
}

fn without_secrets(value: &Value) -> Value {
    map_secrets(value, "", &|_, _| None)
}

/// `value` with what `change` makes of each secret, given its place (a JSON pointer) and its text; `None` leaves it out.
/// What stands for a secret without being a text is left out too.
pub(crate) fn map_secrets(value: &Value, at: &str, change: &dyn Fn(&str, &str) -> Option<String>) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter_map(|(key, value)| {
                    let at = format!("{at}/{key}");
                    let next = match key.as_str() {
                        "secret" | "clientSecret" => Value::String(change(&at, value.as_str()?)?),
                        _ => map_secrets(value, &at, change),
                    };
                    Some((key.clone(), next))
                })
                .collect(),
        ),
        Value::Array(list) => {
            list.iter().enumerate().map(|(number, item)| map_secrets(item, &format!("{at}/{number}"), change)).collect()
        }
        other => other.clone(),
    }
}

/// The persisted form, secrets included.
pub(crate) fn to_storage(auth: &AuthOptions) -> Value {
    json!({"passwordEnabled": auth.password_enabled, "identityFields": auth.identity_fields,
        "tokenSecret": auth.token_secret, "tokenDurationS": auth.token_duration_s, "rest": auth.rest})
}

/// Reads the persisted form; members that an earlier build took and this one does not know are left out.
pub(crate) fn from_storage(value: &Value) -> Option<AuthOptions> {
    let names = value.get("identityFields")?.as_array()?;
    let mut rest = value.get("rest")?.as_object()?.clone();
    keep_known(&mut rest);
    Some(AuthOptions {
        password_enabled: value.get("passwordEnabled")?.as_bool()?,
        identity_fields: names.iter().map(|name| name.as_str().map(Arc::from)).collect::<Option<_>>()?,
        token_secret: Arc::from(value.get("tokenSecret")?.as_str()?),
        token_duration_s: value.get("tokenDurationS")?.as_u64()?,
        rest,
    })
}
