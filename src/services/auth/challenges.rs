//! Passkey ceremonies under way: what a browser was asked to sign, kept in memory until it answers.
//!
//! Kept in memory because strangers start them, and a stranger must not cause a durable write. A restart, or another node,
//! loses them; the client begins again.
//!
//! Keeps true: taking one removes it, so none is answered twice; each ends by itself; one address has a bounded number, so
//! a flood pushes out its own. Shared by all requests; the lock is held for a few map operations.
//! Does not do: checking answers.

use crate::kernel::ident::{CollectionId, RecordId, TenantId};
use crate::kernel::limits;
use crate::kernel::random::Random;
use crate::secrets::Secret;
use crate::secrets::opaque;
use crate::services::throttle::address_group;
use indexmap::IndexMap;
use parking_lot::Mutex;
use std::net::IpAddr;
use webauthn_rs::prelude::{DiscoverableAuthentication, PasskeyRegistration};

/// What is under way.
pub(super) enum Ceremony {
    /// Somebody wants to log in; who is not known yet.
    Login(DiscoverableAuthentication),
    /// This account's owner adds a passkey with this user handle.
    Register(PasskeyRegistration, RecordId, String),
}

/// Where it is under way: the answer must come to the same place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) tenant: TenantId,
    pub(super) collection: CollectionId,
    /// The relying party's id.
    pub(super) party: String,
}

struct Waiting {
    ceremony: Ceremony,
    place: Place,
    address: Option<IpAddr>,
    expires_ms: i64,
}

/// The ceremonies, oldest first, by the digest of their names.
#[derive(Default)]
pub struct Challenges(Mutex<IndexMap<String, Waiting>>);

impl std::fmt::Debug for Challenges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Challenges")
    }
}

impl Challenges {
    /// Keeps a ceremony that began at `address`; returns its name.
    pub(super) fn keep(
        &self,
        random: &dyn Random,
        place: Place,
        ceremony: Ceremony,
        address: Option<IpAddr>,
        now_ms: i64,
    ) -> Secret {
        let (name, address) = (opaque::generate(random, ""), address.map(address_group));
        let mut waiting = self.0.lock();
        waiting.retain(|_, one| one.expires_ms > now_ms);
        let own = waiting.values().filter(|one| one.address == address).count();
        let first_own = waiting.values().position(|one| one.address == address);
        match first_own {
            Some(first) if own >= limits::CHALLENGES_PER_ADDRESS_MAX => drop(waiting.shift_remove_index(first)),
            _ if waiting.len() >= limits::CHALLENGES_MAX => drop(waiting.shift_remove_index(0)),
            _ => {}
        }
        let expires_ms = now_ms.saturating_add(limits::CHALLENGE_MS);
        waiting.insert(opaque::digest_hex(name.expose()), Waiting { ceremony, place, address, expires_ms });
        name
    }

    /// Takes the ceremony `name` of `place` out; `None` if it is over, was taken, or belongs elsewhere, where it stays: what
    /// is tried at one tenant ends nothing at another.
    pub(super) fn take(&self, name: &Secret, place: &Place, now_ms: i64) -> Option<Ceremony> {
        let key = opaque::digest_hex(name.expose());
        let mut waiting = self.0.lock();
        waiting.get(&key).filter(|one| one.place == *place)?;
        waiting.shift_remove(&key).filter(|one| one.expires_ms > now_ms).map(|one| one.ceremony)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::random::SystemRandom;
    use webauthn_rs::prelude::{Url, WebauthnBuilder};

    fn login() -> Ceremony {
        let origin = Url::parse("https://a.test").unwrap();
        let site = WebauthnBuilder::new("a.test", &origin).unwrap().build().unwrap();
        Ceremony::Login(site.start_discoverable_authentication().unwrap().1)
    }

    fn place(tenant: &str) -> Place {
        let tenant = TenantId::parse(tenant).unwrap();
        Place { tenant, collection: CollectionId::parse("users").unwrap(), party: "a.test".into() }
    }

    #[test]
    fn one_is_answered_once_in_time_and_in_its_place() {
        let (all, random) = (Challenges::default(), SystemRandom::default());
        let keep = || all.keep(&random, place("a"), login(), None, 0);
        let name = keep();
        assert!(all.take(&name, &place("a"), 0).is_some() && all.take(&name, &place("a"), 0).is_none());
        let name = keep();
        assert!(all.take(&name, &place("b"), 0).is_none() && all.take(&name, &place("a"), 0).is_some());
        let name = keep();
        assert!(all.take(&name, &place("a"), limits::CHALLENGE_MS).is_none());
        assert!(all.take(&Secret::new("made up"), &place("a"), 0).is_none());
    }

    #[test]
    fn a_flood_pushes_out_its_own() {
        let (all, random) = (Challenges::default(), SystemRandom::default());
        let keep = |ip: &str| all.keep(&random, place("a"), login(), Some(ip.parse().unwrap()), 0);
        let other = keep("10.0.0.2");
        let first = keep("10.0.0.1");
        let last = (0..limits::CHALLENGES_PER_ADDRESS_MAX).fold(None, |_, _| Some(keep("10.0.0.1"))).unwrap();
        assert_eq!(all.0.lock().len(), limits::CHALLENGES_PER_ADDRESS_MAX + 1);
        assert!(all.take(&first, &place("a"), 0).is_none());
        assert!(all.take(&other, &place("a"), 0).is_some() && all.take(&last, &place("a"), 0).is_some());
    }
}
