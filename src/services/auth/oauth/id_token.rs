//! The claims of an identity token, once its signature held (OpenID Connect Core 1.0, 3.1.3.7).
//!
//! Keeps true: pure; every claim that matters must be there and be right, none is skipped because it is missing.
//! Does not do: signatures (`secrets::jws`), fetching keys (`issuers`).

use crate::kernel::limits;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq as _;

/// What the token has to say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    pub(super) nonce: &'a str,
    pub(super) now_s: i64,
    /// How the person may have signed in there; empty is in any way.
    pub(super) acr_values: &'a [String],
    /// How long ago they may have.
    pub(super) max_age_s: Option<i64>,
}

/// Which claim is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ClaimError {
    #[error("the token is of another issuer")]
    Issuer,
    #[error("the token is for somebody else")]
    Audience,
    #[error("the token was asked for by somebody else")]
    AuthorizedParty,
    #[error("the token is over or not dated")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token belongs to another sign-in")]
    Nonce,
    #[error("the token names nobody")]
    Subject,
    #[error("the sign-in at the provider was in none of the ways asked for")]
    Strength,
    #[error("the sign-in at the provider is too old or not dated")]
    Age,
}

/// Refuses claims that do not say what is expected.
pub(super) fn check(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<(), ClaimError> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(expected.issuer) {
        return Err(ClaimError::Issuer);
    }
    check_audience(claims, expected.client_id)?;
    let moment = |name: &str| claims.get(name).map(|value| value.as_f64().filter(|number| number.is_finite()));
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below the bound")]
    let (early, late) =
        ((expected.now_s - limits::OAUTH_CLOCK_SKEW_S) as f64, (expected.now_s + limits::OAUTH_CLOCK_SKEW_S) as f64);
    if !moment("exp").flatten().is_some_and(|exp| exp > early) {
        return Err(ClaimError::Expired);
    }
    for name in ["nbf", "iat"] {
        if moment(name).is_some_and(|moment| moment.is_none_or(|moment| moment > late)) {
            return Err(ClaimError::NotYet);
        }
    }
    let nonce: bool = text("nonce").unwrap_or_default().as_bytes().ct_eq(expected.nonce.as_bytes()).into();
    if !nonce || expected.nonce.is_empty() {
        return Err(ClaimError::Nonce);
    }
    check_strength(claims, expected)?;
    match text("sub") {
        Some(subject) if !subject.is_empty() && subject.len() <= 255 => Ok(()),
        _ => Err(ClaimError::Subject),
    }
}

/// Asking for a way or an age is a wish that a provider may pass over, so what it says about them is what counts.
fn check_strength(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<(), ClaimError> {
    let way = claims.get("acr").and_then(Value::as_str);
    if !expected.acr_values.is_empty() && !way.is_some_and(|way| expected.acr_values.iter().any(|one| one == way)) {
        return Err(ClaimError::Strength);
    }
    let Some(max_age_s) = expected.max_age_s else { return Ok(()) };
    let signed_in_s = claims.get("auth_time").and_then(Value::as_i64);
    let oldest_s = expected.now_s.saturating_sub(max_age_s).saturating_sub(limits::OAUTH_CLOCK_SKEW_S);
    let youngest_s = expected.now_s.saturating_add(limits::OAUTH_CLOCK_SKEW_S);
    match signed_in_s.is_some_and(|signed_in_s| (oldest_s..=youngest_s).contains(&signed_in_s)) {
        true => Ok(()),
        false => Err(ClaimError::Age),
    }
}

fn check_audience(claims: &Map<String, Value>, client_id: &str) -> Result<(), ClaimError> {
    let (own, several) = match claims.get("aud") {
        Some(Value::String(audience)) => (audience == client_id, false),
        Some(Value::Array(list)) => (list.iter().any(|one| one.as_str() == Some(client_id)), list.len() > 1),
        _ => (false, false),
    };
    if !own {
        return Err(ClaimError::Audience);
    }
    match claims.get("azp") {
        None if !several => Ok(()),
        Some(Value::String(party)) if party == client_id => Ok(()),
        _ => Err(ClaimError::AuthorizedParty),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const NOW: i64 = 1_800_000_000;
    const EXPECTED: Expected<'_> = Expected {
        issuer: "https://id.test",
        client_id: "me",
        nonce: "n-1",
        now_s: NOW,
        acr_values: &[],
        max_age_s: None,
    };

    fn good() -> Map<String, Value> {
        let claims = json!({"iss": "https://id.test", "aud": "me", "sub": "u1", "nonce": "n-1",
            "exp": NOW + 60, "iat": NOW, "nbf": NOW});
        claims.as_object().unwrap().clone()
    }

    fn with(name: &str, value: Value) -> Result<(), ClaimError> {
        let mut claims = good();
        claims.insert(name.into(), value);
        check(&claims, &EXPECTED)
    }

    #[test]
    fn every_claim_counts() {
        assert_eq!(check(&good(), &EXPECTED), Ok(()));
        assert_eq!(with("aud", json!(["me"])), Ok(()));
        assert_eq!(with("azp", json!("me")), Ok(()));
        let wrong = [
            ("iss", json!("https://id.test/"), ClaimError::Issuer),
            ("iss", json!("https://evil.test"), ClaimError::Issuer),
            ("iss", json!(["https://id.test"]), ClaimError::Issuer),
            ("aud", json!("you"), ClaimError::Audience),
            ("aud", json!([]), ClaimError::Audience),
            ("aud", json!({"me": true}), ClaimError::Audience),
            ("aud", json!(["me", "you"]), ClaimError::AuthorizedParty),
            ("azp", json!("you"), ClaimError::AuthorizedParty),
            ("azp", json!(1), ClaimError::AuthorizedParty),
            ("exp", json!(NOW - 61), ClaimError::Expired),
            ("exp", json!("tomorrow"), ClaimError::Expired),
            ("exp", Value::Null, ClaimError::Expired),
            ("nbf", json!(NOW + 61), ClaimError::NotYet),
            ("iat", json!(NOW + 61), ClaimError::NotYet),
            ("iat", json!("now"), ClaimError::NotYet),
            ("nonce", json!("n-2"), ClaimError::Nonce),
            ("nonce", json!(""), ClaimError::Nonce),
            ("sub", json!(""), ClaimError::Subject),
            ("sub", json!(7), ClaimError::Subject),
            ("sub", json!("s".repeat(256)), ClaimError::Subject),
        ];
        for (name, value, error) in wrong {
            assert_eq!(with(name, value.clone()), Err(error), "{name}: {value}");
        }
        let mut both = good();
        both.insert("aud".into(), json!(["you", "me"]));
        both.insert("azp".into(), json!("me"));
        assert_eq!(check(&both, &EXPECTED), Ok(()));
    }

    #[test]
    fn a_weaker_or_older_sign_in_than_asked_for_is_refused() {
        let ways = ["mfa".to_owned(), "phrh".to_owned()];
        let strong = Expected { acr_values: &ways, ..EXPECTED };
        let fresh = Expected { max_age_s: Some(300), ..EXPECTED };
        let asked = |expected: &Expected<'_>, name: &str, value: Value| {
            let mut claims = good();
            claims.insert(name.into(), value);
            check(&claims, expected)
        };
        assert_eq!(check(&good(), &strong), Err(ClaimError::Strength), "saying nothing is no proof");
        for (acr, outcome) in [
            (json!("mfa"), Ok(())),
            (json!("phrh"), Ok(())),
            (json!("pwd"), Err(ClaimError::Strength)),
            (json!("mfa phrh"), Err(ClaimError::Strength)),
            (json!(["mfa"]), Err(ClaimError::Strength)),
        ] {
            assert_eq!(asked(&strong, "acr", acr.clone()), outcome, "{acr}");
        }
        assert_eq!(check(&good(), &fresh), Err(ClaimError::Age));
        for (auth_time, outcome) in [
            (json!(NOW), Ok(())),
            (json!(NOW - 300 - limits::OAUTH_CLOCK_SKEW_S), Ok(())),
            (json!(NOW - 301 - limits::OAUTH_CLOCK_SKEW_S), Err(ClaimError::Age)),
            (json!(NOW + 1 + limits::OAUTH_CLOCK_SKEW_S), Err(ClaimError::Age)),
            (json!("now"), Err(ClaimError::Age)),
        ] {
            assert_eq!(asked(&fresh, "auth_time", auth_time.clone()), outcome, "{auth_time}");
        }
    }

    proptest! {
        /// Taking out any claim that is asked for is a refusal, never a pass.
        #[test]
        fn nothing_is_optional(name in prop::sample::select(vec!["iss", "aud", "exp", "nonce", "sub"])) {
            let mut claims = good();
            claims.remove(name);
            prop_assert!(check(&claims, &EXPECTED).is_err());
        }

        #[test]
        fn only_the_own_nonce_is_accepted(nonce in ".{0,40}") {
            prop_assert_eq!(with("nonce", json!(nonce.clone())).is_ok(), nonce == "n-1");
        }

        #[test]
        fn time_is_a_window(exp in NOW - 1_000..NOW + 1_000) {
            prop_assert_eq!(with("exp", json!(exp)).is_ok(), exp > NOW - limits::OAUTH_CLOCK_SKEW_S);
        }
    }
}
