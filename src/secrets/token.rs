//! Signed tokens: JSON Web Tokens (RFC 7519) in the compact form of RFC 7515, HS256 and nothing else.
//!
//! Keeps true: the header must name exactly `HS256`, so `alg=none` and key confusion have nothing to confuse; claims of a
//! token are out of reach by the name [`UnverifiedToken::hint`] until [`UnverifiedToken::verify`] has checked signature,
//! kind, audience and expiry.
//! Does not do: finding keys or users. Written on `ring::hmac` directly: one algorithm needs no algorithm registry.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest token that is looked at, bytes.
pub const TOKEN_BYTES_MAX: usize = 4_096;

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// What a token is for; a token of one kind is never accepted as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TokenKind {
    /// Logs a request in.
    Auth,
    /// Reads protected files.
    File,
    /// Confirms an e-mail address.
    Verification,
    /// Confirms the address of an account that is to be made.
    Registration,
    /// Sets a new password.
    PasswordReset,
    /// Confirms a new e-mail address.
    EmailChange,
}

/// The claims of a token; names follow the PocketBase wire format, ours stand beside them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claims {
    /// The record the token speaks for.
    pub id: String,
    /// What the token is for.
    #[serde(rename = "type")]
    pub kind: TokenKind,
    /// The record's collection.
    pub collection_id: String,
    /// Expiry, seconds since the Unix epoch.
    pub exp: i64,
    /// Issue, seconds since the Unix epoch.
    #[serde(default)]
    pub iat: i64,
    /// When a long token's holder logged in, seconds since the Unix epoch; a token that was only extended keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<i64>,
    /// Whether `auth-refresh` may extend it.
    #[serde(default)]
    pub refreshable: bool,
    /// The tenant that issued it, and the only one that accepts it.
    pub aud: String,
    /// The session it belongs to, if it belongs to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// Whoever acts through this record (impersonation): superuser id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<String>,
    /// What proves that whoever acts is still who they were: a digest of their token key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act_key: Option<String>,
    /// The session of whoever acts, if they came by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act_sid: Option<String>,
    /// The API key that the token was made with, and a digest of its secret's digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The e-mail address the token was made for (verification, reset, change).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The address to change to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_email: Option<String>,
}

/// Why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Not three parts of base64url JSON.
    #[error("the token is malformed")]
    Malformed,
    /// The header names another algorithm, or none.
    #[error("the token names an algorithm other than HS256")]
    Algorithm,
    /// The signature is not ours.
    #[error("the token's signature does not hold")]
    Signature,
    /// The time is over.
    #[error("the token has expired")]
    Expired,
    /// Issued by another tenant.
    #[error("the token is meant for another tenant")]
    Audience,
    /// Issued for another purpose.
    #[error("the token is for another purpose")]
    Kind,
}

/// The key that signs tokens of one record: what the node adds for the tenant, the record's `tokenKey`, and a secret of its
/// collection.
///
/// Changing any of them makes every token signed before it worthless. The first is in no file of a tenant.
pub struct TokenKey(hmac::Key);

impl TokenKey {
    /// Joins the node's, the record's and the collection's part. `None` when one of the latter is empty.
    pub fn join(node_part: &[u8; 32], record_key: &str, collection_secret: &str) -> Option<Self> {
        if record_key.is_empty() || collection_secret.is_empty() {
            return None;
        }
        let joined =
            zeroize::Zeroizing::new([&node_part[..], record_key.as_bytes(), collection_secret.as_bytes()].concat());
        Some(Self(hmac::Key::new(hmac::HMAC_SHA256, &joined)))
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(redacted)")
    }
}

/// Signs `claims`.
pub fn sign(claims: &Claims, key: &TokenKey) -> String {
    let payload = serde_json::to_vec(claims).expect("invariant: claims are plain strings and numbers");
    let mut token = URL_SAFE_NO_PAD.encode(HEADER);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(payload, &mut token);
    let tag = hmac::sign(&key.0, token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(tag, &mut token);
    token
}

/// A token whose signature nobody has checked yet.
#[derive(Debug)]
pub struct UnverifiedToken<'text> {
    signed: &'text str,
    tag: Vec<u8>,
    claims: Claims,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    crit: Option<serde_json::Value>,
}

impl<'text> UnverifiedToken<'text> {
    /// Takes a token apart; refuses every algorithm but HS256 before anything else is believed.
    pub fn parse(token: &'text str) -> Result<Self, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let (signed, tag) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let header: Header = decode_json(header)?;
        let is_jwt = header.typ.is_none_or(|typ| typ.eq_ignore_ascii_case("jwt"));
        if header.alg != "HS256" || !is_jwt || header.crit.is_some() {
            return Err(TokenError::Algorithm);
        }
        let claims = decode_json(payload)?;
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| TokenError::Malformed)?;
        Ok(Self { signed, tag, claims })
    }

    /// What the token says of itself: good for looking up its key, worth nothing else.
    pub fn hint(&self) -> &Claims {
        &self.claims
    }

    /// Checks signature, kind, audience and expiry, in this order.
    pub fn verify(self, key: &TokenKey, kind: TokenKind, audience: &str, now_ms: i64) -> Result<Claims, TokenError> {
        hmac::verify(&key.0, self.signed.as_bytes(), &self.tag).map_err(|_| TokenError::Signature)?;
        if self.claims.kind != kind {
            return Err(TokenError::Kind);
        }
        if self.claims.aud != audience {
            return Err(TokenError::Audience);
        }
        if self.claims.exp <= now_ms.div_euclid(1_000) {
            return Err(TokenError::Expired);
        }
        Ok(self.claims)
    }
}

fn decode_json<T: serde::de::DeserializeOwned>(part: &str) -> Result<T, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn claims() -> Claims {
        Claims {
            id: "u1".into(),
            kind: TokenKind::Auth,
            collection_id: "pbc_1".into(),
            exp: NOW_MS / 1_000 + 60,
            iat: NOW_MS / 1_000,
            login: None,
            refreshable: true,
            aud: "tenant_a".into(),
            sid: None,
            act: None,
            act_key: None,
            act_sid: None,
            key: None,
            email: None,
            new_email: None,
        }
    }

    fn key() -> TokenKey {
        TokenKey::join(&[7; 32], "record-key", "collection-secret").unwrap()
    }

    fn check(token: &str) -> Result<Claims, TokenError> {
        UnverifiedToken::parse(token)?.verify(&key(), TokenKind::Auth, "tenant_a", NOW_MS)
    }

    fn with_header(header: &str) -> String {
        let token = sign(&claims(), &key());
        let rest = token.split_once('.').unwrap().1.to_owned();
        let (payload, _) = rest.split_once('.').unwrap();
        let signed = format!("{}.{payload}", URL_SAFE_NO_PAD.encode(header));
        let tag = hmac::sign(&key().0, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    #[test]
    fn a_signed_token_comes_back_as_its_claims() {
        assert_eq!(check(&sign(&claims(), &key())), Ok(claims()));
    }

    #[test]
    fn the_payload_has_the_names_pocketbase_clients_read() {
        let token = sign(&claims(), &key());
        let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!((&json["type"], &json["collectionId"]), (&"auth".into(), &"pbc_1".into()));
        assert_eq!(json["refreshable"], true);
    }

    #[test]
    fn every_algorithm_but_hs256_is_refused_even_with_a_good_signature() {
        for header in [
            r#"{"alg":"none","typ":"JWT"}"#,
            r#"{"alg":"None"}"#,
            r#"{"alg":""}"#,
            r#"{"alg":"hs256"}"#,
            r#"{"alg":"HS384"}"#,
            r#"{"alg":"HS512"}"#,
            r#"{"alg":"RS256","typ":"JWT"}"#,
            r#"{"alg":"ES256"}"#,
            r#"{"alg":"HS256","crit":["b64"]}"#,
            r#"{"alg":"HS256","typ":"JWE"}"#,
        ] {
            assert_eq!(check(&with_header(header)), Err(TokenError::Algorithm), "{header}");
        }
        assert_eq!(check(&with_header(r#"{"typ":"JWT"}"#)), Err(TokenError::Malformed));
        assert_eq!(check(&with_header(r#"{"alg":"HS256"}"#)), Ok(claims()));
    }

    #[test]
    fn a_token_without_a_signature_is_refused() {
        let token = sign(&claims(), &key());
        let (signed, _) = token.rsplit_once('.').unwrap();
        assert_eq!(check(&format!("{signed}.")), Err(TokenError::Signature));
        assert_eq!(check(signed), Err(TokenError::Malformed));
    }

    #[test]
    fn wrong_key_kind_audience_and_time_are_refused() {
        let token = sign(&claims(), &key());
        let verify = |key: &TokenKey, kind, audience, now_ms| {
            UnverifiedToken::parse(&token).unwrap().verify(key, kind, audience, now_ms)
        };
        let other = TokenKey::join(&[7; 32], "record-key", "another-secret").unwrap();
        let other_node = TokenKey::join(&[8; 32], "record-key", "collection-secret").unwrap();
        for (outcome, expected) in [
            (verify(&other_node, TokenKind::Auth, "tenant_a", NOW_MS), TokenError::Signature),
            (verify(&other, TokenKind::Auth, "tenant_a", NOW_MS), TokenError::Signature),
            (verify(&key(), TokenKind::File, "tenant_a", NOW_MS), TokenError::Kind),
            (verify(&key(), TokenKind::Auth, "tenant_b", NOW_MS), TokenError::Audience),
            (verify(&key(), TokenKind::Auth, "", NOW_MS), TokenError::Audience),
            (verify(&key(), TokenKind::Auth, "tenant_a", NOW_MS + 60_000), TokenError::Expired),
        ] {
            assert_eq!(outcome, Err(expected));
        }
    }

    #[test]
    fn a_key_needs_both_parts() {
        assert!(TokenKey::join(&[7; 32], "", "secret").is_none());
        assert!(TokenKey::join(&[7; 32], "key", "").is_none());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
            prop_assert!(check(&text).is_err());
        }

        #[test]
        fn changing_any_character_breaks_the_token(at in 0_usize..300, to in proptest::char::range('A', 'z')) {
            let token = sign(&claims(), &key());
            let mut letters: Vec<char> = token.chars().collect();
            let at = at % letters.len();
            prop_assume!(letters[at] != to);
            letters[at] = to;
            let forged: String = letters.into_iter().collect();
            prop_assert!(check(&forged).is_err());
        }
    }
}
