//! Slows down guessing without letting anybody lock somebody else out.
//!
//! Keeps true: only failures are charged, to the address they come from and to the pair of address and identity, never
//! to an identity alone, so a stranger's guesses do not close an account to its owner; a guess is charged before it is
//! checked and given back if it holds, so guesses in parallel, or cut off by the client, count too. What is refused does
//! not depend on whether the account exists. Wherever a password is compared, a guess is charged here.
//! Does not do: limits on requests as such, those are at the edge.

use crate::kernel::ident::{CollectionId, TenantId};
use crate::secrets::password::{Lane, PasswordError, Verdict};
use crate::services::throttle::{Quota, Throttle, address_group};
use std::net::IpAddr;

/// How many failures are allowed; `None` is any number.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoginLimits {
    /// From one address for one identity.
    pub per_identity: Option<Quota>,
    /// From one address for all identities together.
    pub per_address: Option<Quota>,
}

/// One more guess, or one more mail, is too many; says which limit, how much and when to try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("too many guesses or mails from there")]
pub struct GuessRefused {
    /// One sentence for the caller.
    pub message: String,
    /// When one more is allowed.
    pub retry_after_s: u32,
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
    pub(crate) fn charge<'guard>(
        &'guard self,
        ip: Option<&str>,
        tenant: &TenantId,
        collection: &CollectionId,
        identity: &str,
        now_ms: i64,
    ) -> Result<Guess<'guard>, GuessRefused> {
        let Some(address) = ip.and_then(|text| text.parse().ok()).map(address_group) else {
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

fn refuse(throttle: Option<&Throttle>, key: &impl std::hash::Hash, now_ms: i64, of: &str) -> Result<(), GuessRefused> {
    let Some(throttle) = throttle else { return Ok(()) };
    let standing = throttle.take(key, now_ms);
    if standing.allowed {
        return Ok(());
    }
    let (permits, window_s, retry_after_s) =
        (throttle.quota().permits(), throttle.quota().window_s(), standing.retry_after_s);
    let message =
        format!("Too many failed logins from {of}: {permits} per {window_s} s; try again in {retry_after_s} s.");
    Err(GuessRefused { message, retry_after_s })
}

/// A guess that was charged.
#[derive(Debug)]
pub(crate) struct Guess<'guard> {
    guard: &'guard LoginGuard,
    key: Option<(IpAddr, TenantId, CollectionId, String)>,
}

impl Guess<'_> {
    /// Gives the guess back unless `verdict` says that it was wrong: one that nobody looked at is no failure.
    pub(crate) fn settle(self, verdict: Result<Verdict, PasswordError>) -> Result<Verdict, PasswordError> {
        if !matches!(verdict, Ok(Verdict::Mismatch)) {
            self.held();
        }
        verdict
    }

    /// The credentials held, or were not looked at: nothing is charged.
    pub(crate) fn held(self) {
        let Some(key) = &self.key else { return };
        if let Some(throttle) = &self.guard.per_address {
            throttle.give_back(&key.0);
        }
        if let Some(throttle) = &self.guard.per_identity {
            throttle.give_back(key);
        }
    }
}

/// Where the hashing for this request waits: behind others of its address, an IPv6 network of 64 bits being one.
pub(crate) fn lane(ip: Option<&str>) -> Lane {
    match ip.and_then(|text| text.parse().ok()).map(address_group) {
        Some(group) => Lane::of(Some(&group.to_string())),
        None => Lane::of(ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guess_that_nobody_looked_at_is_no_failure() {
        let (quota, ip) = (Quota::new(1, 60), Some("10.0.0.1"));
        let guard = LoginGuard::new(LoginLimits { per_identity: quota, per_address: quota });
        let (tenant, users) = (TenantId::parse("t00000000000001").unwrap(), CollectionId::parse("users").unwrap());
        let charge = || guard.charge(ip, &tenant, &users, "ada", 0);
        charge().unwrap().settle(Err(PasswordError::Busy)).unwrap_err();
        charge().unwrap().settle(Ok(Verdict::Match { needs_rehash: false })).unwrap();
        charge().unwrap().settle(Ok(Verdict::Mismatch)).unwrap();
        assert_eq!(charge().unwrap_err().retry_after_s, 60);
    }

    #[test]
    fn hashing_of_one_network_waits_in_one_lane() {
        assert_eq!(lane(Some("2001:db8::1")), lane(Some("2001:db8::ffff")));
        assert_ne!(lane(Some("2001:db8::1")), lane(Some("2001:db8:0:1::1")));
        assert_ne!(lane(Some("10.0.0.1")), lane(Some("10.0.0.2")));
        assert_eq!(lane(None), lane(None));
    }
}
