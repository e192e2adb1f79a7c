//! Slows down guessing without letting anybody lock somebody else out.
//!
//! Keeps true: only failures are charged, to the address they come from and to the pair of address and identity, never
//! to an identity alone, so a stranger's guesses do not close an account to its owner; a guess is charged before it is
//! checked and given back if it holds, so guesses in parallel, or cut off by the client, count too. What is refused does
//! not depend on whether the account exists. Does not do: limits on requests as such, those are at the edge.

use super::error::AuthError;
use crate::kernel::ident::{CollectionId, TenantId};
use crate::secrets::password::Lane;
use crate::services::throttle::{Quota, Throttle, address_group};
use crate::store::WriteMeta;
use std::net::IpAddr;

/// How many failures are allowed; `None` is any number.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoginLimits {
    /// From one address for one identity.
    pub per_identity: Option<Quota>,
    /// From one address for all identities together.
    pub per_address: Option<Quota>,
}

/// Counts failed logins; shared by all requests.
#[derive(Debug)]
pub struct LoginGuard {
    per_identity: Option<Throttle>,
    per_address: Option<Throttle>,
}

impl LoginGuard {
    /// Nobody has failed yet.
    pub fn new(limits: LoginLimits) -> Self {
        Self {
            per_identity: limits.per_identity.map(Throttle::new),
            per_address: limits.per_address.map(Throttle::new),
        }
    }

    /// Charges one guess at `identity`, or refuses it. [`Guess::held`] gives it back.
    pub(super) fn charge<'guard>(
        &'guard self,
        meta: &WriteMeta,
        tenant: &TenantId,
        collection: &CollectionId,
        identity: &str,
        now_ms: i64,
    ) -> Result<Guess<'guard>, AuthError> {
        let Some(address) = meta.ip.as_deref().and_then(|text| text.parse().ok()).map(address_group) else {
            // No address: the guess comes from the node itself.
            return Ok(Guess { guard: self, key: None });
        };
        let key = (address, tenant.clone(), collection.clone(), identity.to_lowercase());
        refuse(self.per_address.as_ref(), &address, now_ms, "this address")?;
        let guess = Guess { guard: self, key: Some(key) };
        if let (Some(throttle), Some(key)) = (&self.per_identity, &guess.key)
            && let Err(refused) = refuse(Some(throttle), key, now_ms, "this address for this identity")
        {
            if let Some(address_throttle) = &self.per_address {
                address_throttle.give_back(&address);
            }
            return Err(refused);
        }
        Ok(guess)
    }
}

fn refuse(throttle: Option<&Throttle>, key: &impl std::hash::Hash, now_ms: i64, of: &str) -> Result<(), AuthError> {
    let Some(throttle) = throttle else { return Ok(()) };
    let standing = throttle.take(key, now_ms);
    if standing.allowed {
        return Ok(());
    }
    let (permits, window_s, retry_after_s) =
        (throttle.quota().permits(), throttle.quota().window_s(), standing.retry_after_s);
    let message =
        format!("Too many failed logins from {of}: {permits} per {window_s} s; try again in {retry_after_s} s.");
    Err(AuthError::Throttled { message, retry_after_s })
}

/// A guess that was charged.
pub(super) struct Guess<'guard> {
    guard: &'guard LoginGuard,
    key: Option<(IpAddr, TenantId, CollectionId, String)>,
}

impl Guess<'_> {
    /// The credentials held, or were not looked at: nothing is charged.
    pub(super) fn held(self) {
        let Some(key) = &self.key else { return };
        if let Some(throttle) = &self.guard.per_address {
            throttle.give_back(&key.0);
        }
        if let Some(throttle) = &self.guard.per_identity {
            throttle.give_back(key);
        }
    }
}

/// Where the hashing for this request waits.
pub(super) fn lane(meta: &WriteMeta) -> Lane {
    Lane::of(meta.ip.as_deref())
}
