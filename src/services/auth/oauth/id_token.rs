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
    match text("sub") {
        Some(subject) if !subject.is_empty() && subject.len() <= 255 => Ok(()),
        _ => Err(ClaimError::Subject),
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
    const EXPECTED: Expected<'_> = Expected { issuer: "https://id.test", client_id: "me", nonce: "n-1", now_s: NOW };

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
