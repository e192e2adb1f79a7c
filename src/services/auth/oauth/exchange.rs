//! From a code to a profile: the exchange at the token endpoint, the identity token, the profile.
//!
//! Keeps true: the secret and the tokens go to the provider's own addresses and into no log; with an issuer, what counts
//! is the verified identity token, and a profile beside it must be of the same subject.
//! Does not do: deciding whose account that is (`link`).

use super::OAuthError;
use super::id_token::{self, Expected};
use super::issuers::{Issuers, Metadata};
use super::profile::Profile;
use crate::kernel::limits;
use crate::outbound::Outbound;
use crate::schema::oauth::{OAuthProvider, Quirk};
use crate::secrets::Secret;
use crate::secrets::jws::{self, JwsError, UnverifiedJws};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use url::form_urlencoded;

/// One exchange.
pub(super) struct Exchange<'a> {
    pub(super) outbound: &'a Outbound,
    pub(super) issuers: &'a Issuers,
    pub(super) provider: &'a OAuthProvider,
    /// The client secret, opened.
    pub(super) secret: Secret,
    pub(super) code: &'a str,
    pub(super) verifier: &'a str,
    pub(super) nonce: &'a str,
    pub(super) redirect_url: &'a str,
    pub(super) now_ms: i64,
}

/// What the provider said.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) profile: Profile,
    /// `accessToken`, `refreshToken` and `expiry`, as PocketBase hands them to the client.
    pub(super) tokens: Map<String, Value>,
}

impl Exchange<'_> {
    pub(super) async fn run(&self) -> Result<Outcome, OAuthError> {
        let metadata = self.metadata().await?;
        let tokens = self.fetch_tokens(metadata.as_deref()).await?;
        let text = |name: &str| tokens.get(name).and_then(Value::as_str).unwrap_or_default();
        let profile = if self.provider.oidc {
            let claims = self.verify(text("id_token")).await?;
            self.complete(claims, text("access_token"), metadata.as_deref()).await?
        } else {
            self.fetch_profile(&self.provider.user_info_url, text("access_token")).await?
        };
        let mut shown = Map::new();
        shown.insert("accessToken".to_owned(), json!(text("access_token")));
        shown.insert("refreshToken".to_owned(), json!(text("refresh_token")));
        let lives_ms = tokens.get("expires_in").and_then(Value::as_i64).map(|seconds| seconds.saturating_mul(1_000));
        let expiry = lives_ms.map(|ms| crate::kernel::datetime::format_ms(self.now_ms.saturating_add(ms)));
        shown.insert("expiry".to_owned(), json!(expiry.unwrap_or_default()));
        Ok(Outcome { profile, tokens: shown })
    }

    async fn metadata(&self) -> Result<Option<Arc<Metadata>>, OAuthError> {
        if !self.provider.oidc {
            return Ok(None);
        }
        self.issuers.metadata(self.outbound, self.provider, self.now_ms).await.map(Some)
    }

    async fn fetch_tokens(&self, metadata: Option<&Metadata>) -> Result<Map<String, Value>, OAuthError> {
        let provider = self.provider;
        let url = match (provider.token_url.as_str(), metadata) {
            ("", Some(metadata)) => metadata.token_url.as_str(),
            (own, _) => own,
        };
        let secret = self.client_secret()?;
        let in_header =
            provider.basic.unwrap_or_else(|| metadata.is_none_or(|known| !known.secret_in_body)) && !secret.is_empty();
        let mut form =
            vec![("grant_type", "authorization_code"), ("code", self.code), ("redirect_uri", self.redirect_url)];
        if provider.pkce {
            form.push(("code_verifier", self.verifier));
        }
        let basic = in_header.then(|| basic(&provider.client_id, &secret));
        let mut headers = Vec::new();
        match &basic {
            Some(value) => headers.push(("authorization", value.expose())),
            None => {
                form.push(("client_id", &provider.client_id));
                if !secret.is_empty() {
                    form.push(("client_secret", secret.expose()));
                }
            }
        }
        let reply = self.outbound.post_form(url, &headers, &form).await?;
        let answer: Option<Map<String, Value>> = serde_json::from_slice(&reply.body).ok();
        // Some answer 200 with an error inside.
        let refused = answer.as_ref().and_then(|answer| answer.get("error")?.as_str());
        match answer.as_ref() {
            Some(answer) if reply.is_success() && refused.is_none() && answer.get("access_token").is_some() => {
                Ok(answer.clone())
            }
            _ => Err(OAuthError::Refused(safe_code(refused, reply.status))),
        }
    }

    /// The secret as the provider wants it: a private key becomes a token signed with it.
    fn client_secret(&self) -> Result<Secret, OAuthError> {
        let provider = self.provider;
        let Some((team, key)) = provider.signer.as_ref().filter(|_| self.secret.expose().starts_with("-----BEGIN"))
        else {
            return Ok(self.secret.clone());
        };
        let now_s = self.now_ms.div_euclid(1_000);
        let claims =
            json!({"iss": team, "iat": now_s, "exp": now_s + 300, "aud": provider.issuer, "sub": provider.client_id});
        let signed = jws::sign_es256(self.secret.expose(), key, &claims);
        signed.map(Secret::new).ok_or_else(|| OAuthError::Setup("the client secret is no P-256 private key".to_owned()))
    }

    /// The claims of the identity token; an unknown key is looked for once more among the issuer's present ones.
    async fn verify(&self, token: &str) -> Result<Map<String, Value>, OAuthError> {
        let token = UnverifiedJws::parse(token, limits::ID_TOKEN_BYTES_MAX)?;
        let keys = self.issuers.keys(self.outbound, self.provider, self.now_ms).await?;
        let claims = match token.verify(&keys) {
            Err(JwsError::UnknownKey) => {
                match self.issuers.keys_again(self.outbound, self.provider, &keys, self.now_ms).await {
                    Some(again) => {
                        let keys = again?;
                        token.verify(&keys)?
                    }
                    None => return Err(JwsError::UnknownKey.into()),
                }
            }
            verdict => verdict?,
        };
        let expected = Expected {
            issuer: &self.provider.issuer,
            client_id: &self.provider.client_id,
            nonce: self.nonce,
            now_s: self.now_ms.div_euclid(1_000),
            acr_values: &self.provider.acr_values,
            max_age_s: self.provider.max_age_s,
        };
        id_token::check(&claims, &expected)?;
        Ok(claims)
    }

    /// Adds what the profile endpoint knows to the claims, which stay as they were verified.
    async fn complete(
        &self,
        claims: Map<String, Value>,
        access_token: &str,
        metadata: Option<&Metadata>,
    ) -> Result<Profile, OAuthError> {
        let url = match (self.provider.user_info_url.as_str(), metadata) {
            ("", Some(metadata)) => metadata.user_info_url.as_str(),
            (own, _) => own,
        };
        let mut merged = claims;
        if !merged.contains_key("email") && !url.is_empty() {
            let more = self.fetch(url, access_token).await?;
            if more.get("sub") != merged.get("sub") {
                return Err(OAuthError::Refused("the profile is of another subject".to_owned()));
            }
            for (name, value) in more.as_object().cloned().unwrap_or_default() {
                merged.entry(name).or_insert(value);
            }
        }
        Profile::read(&self.provider.profile, Value::Object(merged)).ok_or(OAuthError::NoSubject)
    }

    async fn fetch_profile(&self, url: &str, access_token: &str) -> Result<Profile, OAuthError> {
        let raw = self.fetch(url, access_token).await?;
        let mut profile = Profile::read(&self.provider.profile, raw).ok_or(OAuthError::NoSubject)?;
        if self.provider.quirk == Quirk::EmailList {
            profile.take_address(&self.fetch(&format!("{url}/emails"), access_token).await?);
        }
        Ok(profile)
    }

    async fn fetch(&self, url: &str, access_token: &str) -> Result<Value, OAuthError> {
        let bearer = Secret::new(format!("Bearer {access_token}"));
        let mut headers = vec![("authorization", bearer.expose())];
        if self.provider.quirk == Quirk::ClientIdHeader {
            headers.push(("client-id", &self.provider.client_id));
        }
        let reply = self.outbound.get(url, &headers).await?;
        let parsed = serde_json::from_slice(&reply.body).ok().filter(|_| reply.is_success());
        parsed.ok_or_else(|| OAuthError::Refused(format!("the profile was answered with status {}", reply.status)))
    }
}

/// RFC 6749, 2.3.1: both halves are form-encoded before they are joined.
fn basic(client_id: &str, secret: &Secret) -> Secret {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Secret::new(format!("{}:{}", encode(client_id), encode(secret.expose())));
    Secret::new(format!("Basic {}", STANDARD.encode(pair.expose())))
}

/// The provider's error code if it looks like one; what it says beside that is not passed on.
fn safe_code(code: Option<&str>, status: u16) -> String {
    let plain = |code: &&str| code.len() <= 60 && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    code.filter(plain).map_or_else(|| format!("status {status}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_encoded_before_they_are_joined() {
        let header = basic("id:1", &Secret::new("s e+c%ret"));
        assert_eq!(STANDARD.decode(&header.expose()[6..]).unwrap(), b"id%3A1:s+e%2Bc%25ret");
    }

    #[test]
    fn a_provider_cannot_write_into_our_answers() {
        assert_eq!(safe_code(Some("invalid_grant"), 400), "invalid_grant");
        assert_eq!(safe_code(Some("<script>"), 400), "status 400");
        assert_eq!(safe_code(None, 502), "status 502");
    }
}
