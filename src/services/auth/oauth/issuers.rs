//! What issuers publish about themselves: their addresses and their keys (OpenID Connect Discovery 1.0).
//!
//! Keeps true: a document is believed only if it names exactly the issuer that was asked; one fetch per issuer at a time,
//! kept for a bounded time in a bounded table; an unknown key id fetches the keys again, a few times per minute at most, so
//! that made-up ids cost the issuer nothing. Does not do: checking tokens.

use super::OAuthError;
use crate::kernel::limits;
use crate::outbound::Outbound;
use crate::schema::oauth::OAuthProvider;
use crate::secrets::jws::KeySet;
use crate::services::throttle::{Quota, Throttle};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// The part of an issuer's metadata that a sign-in needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Metadata {
    pub(super) auth_url: String,
    pub(super) token_url: String,
    pub(super) user_info_url: String,
    jwks_url: String,
    /// Whether the token endpoint takes the secret in the body only.
    pub(super) secret_in_body: bool,
}

/// Everything known about issuers.
///
/// The table's lock is held for one map operation; the lock of one issuer during its fetch, so that whoever comes
/// meanwhile waits for that one. Bound: `limits::OAUTH_ISSUERS_MAX` issuers.
pub(super) struct Issuers {
    table: Mutex<HashMap<String, Arc<Slot>>>,
    refetches: Throttle,
}

#[derive(Default)]
struct Slot {
    metadata: tokio::sync::Mutex<Kept<Metadata>>,
    keys: tokio::sync::Mutex<Kept<KeySet>>,
}

/// One document, or the memory that it could not be had.
struct Kept<T> {
    found: Option<Arc<T>>,
    looked_ms: i64,
    failure: Option<String>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { found: None, looked_ms: i64::MIN / 2, failure: None }
    }
}

impl<T> Kept<T> {
    /// What is known, if it is fresh enough; a failure is fresh for a short time.
    fn fresh(&self, now_ms: i64) -> Option<Result<Arc<T>, OAuthError>> {
        let age_ms = now_ms.saturating_sub(self.looked_ms);
        match (&self.found, &self.failure) {
            (_, Some(failure)) if age_ms < limits::OAUTH_ISSUER_FAILED_MS => {
                Some(Err(OAuthError::Provider(failure.clone())))
            }
            (Some(found), None) if age_ms < limits::OAUTH_ISSUER_AGE_MS => Some(Ok(Arc::clone(found))),
            _ => None,
        }
    }

    fn keep(&mut self, outcome: Result<T, OAuthError>, now_ms: i64) -> Result<Arc<T>, OAuthError> {
        self.looked_ms = now_ms;
        match outcome {
            Ok(found) => {
                let found = Arc::new(found);
                (self.found, self.failure) = (Some(Arc::clone(&found)), None);
                Ok(found)
            }
            Err(error) => {
                self.failure = Some(error.to_string());
                Err(error)
            }
        }
    }
}

impl fmt::Debug for Issuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuers").finish_non_exhaustive()
    }
}

impl Default for Issuers {
    fn default() -> Self {
        let quota = Quota::new(limits::OAUTH_KEYS_REFETCH_MAX, 60).expect("invariant: the bound is above zero");
        Self { table: Mutex::default(), refetches: Throttle::new(quota) }
    }
}

impl Issuers {
    fn slot(&self, provider: &OAuthProvider) -> Arc<Slot> {
        let mut table = self.table.lock();
        let name = format!("{}\n{}", provider.issuer, provider.jwks_url);
        if table.len() >= limits::OAUTH_ISSUERS_MAX
            && !table.contains_key(&name)
            && let Some(any) = table.keys().next().cloned()
        {
            table.remove(&any);
        }
        Arc::clone(table.entry(name).or_default())
    }

    /// The addresses of the provider's issuer.
    pub(super) async fn metadata(
        &self,
        outbound: &Outbound,
        provider: &OAuthProvider,
        now_ms: i64,
    ) -> Result<Arc<Metadata>, OAuthError> {
        let slot = self.slot(provider);
        let mut kept = slot.metadata.lock().await;
        if let Some(known) = kept.fresh(now_ms) {
            return known;
        }
        let outcome = fetch_metadata(outbound, &provider.issuer).await;
        kept.keep(outcome, now_ms)
    }

    /// The keys of the provider's issuer.
    pub(super) async fn keys(
        &self,
        outbound: &Outbound,
        provider: &OAuthProvider,
        now_ms: i64,
    ) -> Result<Arc<KeySet>, OAuthError> {
        let slot = self.slot(provider);
        if let Some(known) = slot.keys.lock().await.fresh(now_ms) {
            return known;
        }
        self.fetch_keys(outbound, provider, &slot, now_ms).await
    }

    /// The keys anew, after a token named one that was not among `before`; `None` if that was asked too often.
    pub(super) async fn keys_again(
        &self,
        outbound: &Outbound,
        provider: &OAuthProvider,
        before: &Arc<KeySet>,
        now_ms: i64,
    ) -> Option<Result<Arc<KeySet>, OAuthError>> {
        let slot = self.slot(provider);
        // Somebody else may have fetched them meanwhile.
        let newer = slot.keys.lock().await.found.clone().filter(|now| !Arc::ptr_eq(now, before));
        if let Some(newer) = newer {
            return Some(Ok(newer));
        }
        if !self.refetches.take(&provider.issuer, now_ms).allowed {
            return None;
        }
        Some(self.fetch_keys(outbound, provider, &slot, now_ms).await)
    }

    async fn fetch_keys(
        &self,
        outbound: &Outbound,
        provider: &OAuthProvider,
        slot: &Slot,
        now_ms: i64,
    ) -> Result<Arc<KeySet>, OAuthError> {
        let url = match provider.jwks_url.as_str() {
            "" => self.metadata(outbound, provider, now_ms).await?.jwks_url.clone(),
            own => own.to_owned(),
        };
        let mut kept = slot.keys.lock().await;
        let outcome = fetch_keys(outbound, &url).await;
        // Keys that cannot be had now are no reason to forget those that were there: a fetch for an unknown id may fail.
        match (outcome, &kept.found) {
            (Err(error), Some(_)) => Err(error),
            (outcome, _) => kept.keep(outcome, now_ms),
        }
    }
}

async fn fetch_metadata(outbound: &Outbound, issuer: &str) -> Result<Metadata, OAuthError> {
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let document = fetch_json(outbound, &url).await?;
    let text = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    if text("issuer") != issuer {
        let message = format!("{url} is about the issuer {:?}, not {issuer:?}; they must be the same", text("issuer"));
        return Err(OAuthError::Provider(message));
    }
    let methods = document.get("token_endpoint_auth_methods_supported").and_then(Value::as_array);
    let offers = |method: &str| methods.is_some_and(|list| list.iter().any(|one| one == method));
    let made = Metadata {
        auth_url: text("authorization_endpoint"),
        token_url: text("token_endpoint"),
        user_info_url: text("userinfo_endpoint"),
        jwks_url: text("jwks_uri"),
        secret_in_body: offers("client_secret_post") && !offers("client_secret_basic"),
    };
    let lacks =
        [("authorization_endpoint", &made.auth_url), ("token_endpoint", &made.token_url), ("jwks_uri", &made.jwks_url)];
    match lacks.iter().find(|(_, value)| value.is_empty()) {
        Some((name, _)) => Err(OAuthError::Provider(format!("{url} does not name its {name}"))),
        None => Ok(made),
    }
}

async fn fetch_keys(outbound: &Outbound, url: &str) -> Result<KeySet, OAuthError> {
    let reply = outbound.get(url, &[]).await?;
    let keys = KeySet::parse(&reply.body, limits::JWKS_KEYS_MAX).filter(|keys| reply.is_success() && !keys.is_empty());
    keys.ok_or_else(|| OAuthError::Provider(format!("{url} is no set of keys (status {})", reply.status)))
}

async fn fetch_json(outbound: &Outbound, url: &str) -> Result<Value, OAuthError> {
    let reply = outbound.get(url, &[]).await?;
    let parsed = serde_json::from_slice(&reply.body).ok().filter(|_| reply.is_success());
    parsed.ok_or_else(|| OAuthError::Provider(format!("{url} is no JSON document (status {})", reply.status)))
}
