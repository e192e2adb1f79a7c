//! What one sign-in at a provider carries: a code verifier, and the state and nonce that belong to it.
//!
//! The verifier is made by the node and handed to the client, which brings it back with the code, as PocketBase's clients
//! do. It says when it ends and proves by itself (HMAC under the collection's own secret) for which tenant, collection and
//! provider it was made, so nothing is stored for people who only look at the login page. State and nonce follow from it by
//! the same key: who sees them at the provider learns nothing about the verifier.
//!
//! Keeps true: a verifier is good for one exchange; one of another tenant, collection or provider, or past its time, is
//! refused before anything leaves the node. Does not do: the challenge's own check, which is the provider's (RFC 7636).

use super::super::account::AuthCollection;
use crate::kernel::ident::TenantId;
use crate::kernel::limits;
use crate::kernel::random::Random;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use ring::{digest, hmac};
use std::collections::{BTreeMap, HashSet};
use subtle::ConstantTimeEq as _;

const EXPIRES_LEN: usize = 4;
const RANDOM_LEN: usize = 16;
const PROOF_LEN: usize = 24;
const HEAD_LEN: usize = EXPIRES_LEN + RANDOM_LEN;

/// One sign-in.
#[derive(Clone)]
pub(super) struct Ticket {
    verifier: String,
    key: hmac::Key,
    expires_s: i64,
}

/// Makes and checks the tickets of one provider of one collection of one tenant.
pub(super) struct Desk<'a> {
    pub(super) tenant: &'a TenantId,
    pub(super) collection: &'a AuthCollection,
    pub(super) provider: &'a str,
}

impl Desk<'_> {
    /// The key of this desk: the collection's token secret, under a label no token has, bound to the place.
    fn key(&self) -> hmac::Key {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, self.collection.options.token_secret.as_bytes());
        // Lengths, so that no two places run together.
        let parts = [self.tenant.as_str(), self.collection.collection.id.as_str(), self.provider];
        let place: String = parts.iter().map(|part| format!("{}:{part}/", part.len())).collect();
        let derived = hmac::sign(&secret, format!("tenantry/oauth2/v1/{place}").as_bytes());
        hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())
    }

    /// A new sign-in.
    pub(super) fn issue(&self, random: &dyn Random, now_ms: i64) -> Ticket {
        let expires_s = now_ms.div_euclid(1_000).saturating_add(limits::OAUTH_SIGN_IN_S as i64);
        let mut head = [0_u8; HEAD_LEN];
        let (expires, noise) = head.split_at_mut(EXPIRES_LEN);
        expires.copy_from_slice(&u32::try_from(expires_s).unwrap_or(u32::MAX).to_be_bytes());
        random.fill(noise);
        let key = self.key();
        let bytes = [&head[..], proof(&key, &head).as_slice()].concat();
        Ticket { verifier: URL_SAFE_NO_PAD.encode(bytes), key, expires_s }
    }

    /// The sign-in that `verifier` belongs to, if it was made here and is not over.
    pub(super) fn check(&self, verifier: &str, now_ms: i64) -> Option<Ticket> {
        let bytes = URL_SAFE_NO_PAD.decode(verifier).ok()?;
        let (head, shown) = bytes.split_at_checked(HEAD_LEN)?;
        let key = self.key();
        let own: bool = proof(&key, head).ct_eq(shown).into();
        let expires: [u8; EXPIRES_LEN] = head.get(..EXPIRES_LEN)?.try_into().ok()?;
        let expires_s = i64::from(u32::from_be_bytes(expires));
        let ticket = Ticket { verifier: verifier.to_owned(), key, expires_s };
        (own && expires_s > now_ms.div_euclid(1_000)).then_some(ticket)
    }
}

fn proof(key: &hmac::Key, head: &[u8]) -> Vec<u8> {
    let tag = hmac::sign(key, head);
    tag.as_ref().iter().copied().take(PROOF_LEN).collect()
}

impl Ticket {
    /// The code verifier: 59 characters, within RFC 7636's 43 to 128.
    pub(super) fn verifier(&self) -> &str {
        &self.verifier
    }

    /// The S256 challenge of the verifier.
    pub(super) fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, self.verifier.as_bytes()))
    }

    /// What the provider hands back with the code.
    pub(super) fn state(&self) -> String {
        self.derive("state")
    }

    /// What the provider writes into the identity token.
    pub(super) fn nonce(&self) -> String {
        self.derive("nonce")
    }

    fn derive(&self, what: &str) -> String {
        let tag = hmac::sign(&self.key, format!("{what}/{}", self.verifier).as_bytes());
        URL_SAFE_NO_PAD.encode(tag.as_ref().get(..PROOF_LEN).unwrap_or_default())
    }
}

/// Verifiers that were used and are not over yet.
///
/// Shared by all requests, one short lock. Bound: `limits::OAUTH_USED_MAX`; past it the one that ends first is forgotten,
/// and its second use is then left to the provider, whose codes work once as well.
#[derive(Debug, Default)]
pub(super) struct Used(Mutex<UsedTickets>);

#[derive(Debug, Default)]
struct UsedTickets {
    known: HashSet<[u8; 32]>,
    by_end: BTreeMap<(i64, [u8; 32]), ()>,
}

impl Used {
    /// Uses `ticket` up; `false` if it was used before.
    pub(super) fn take(&self, ticket: &Ticket, now_ms: i64) -> bool {
        let mut name = [0_u8; 32];
        name.copy_from_slice(digest::digest(&digest::SHA256, ticket.verifier.as_bytes()).as_ref());
        let mut used = self.0.lock();
        let now_s = now_ms.div_euclid(1_000);
        while let Some(first) = used.by_end.first_key_value().map(|(key, ())| *key)
            && (first.0 <= now_s || used.known.len() >= limits::OAUTH_USED_MAX)
        {
            used.by_end.remove(&first);
            used.known.remove(&first.1);
        }
        used.by_end.insert((ticket.expires_s, name), ());
        used.known.insert(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::random::SeededRandom;
    use crate::services::tenants::system;

    fn users(seed: u64) -> AuthCollection {
        let collection = std::sync::Arc::new(system::users(&SeededRandom::new(seed), 0));
        AuthCollection::of(&collection).unwrap()
    }

    #[test]
    fn a_verifier_holds_at_its_own_desk_until_its_end_and_once() {
        let (here, elsewhere) = (TenantId::parse("a").unwrap(), TenantId::parse("b").unwrap());
        let (own, other) = (users(1), users(2));
        let desk = Desk { tenant: &here, collection: &own, provider: "google" };
        let ticket = desk.issue(&SeededRandom::new(3), 1_000_000);
        assert!((43..=128).contains(&ticket.verifier().len()));
        assert!(ticket.verifier().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        assert_eq!(desk.check(ticket.verifier(), 1_000_000).unwrap().nonce(), ticket.nonce());
        assert_ne!(ticket.nonce(), ticket.state());
        let end_ms = 1_000_000 + limits::OAUTH_SIGN_IN_S as i64 * 1_000;
        assert!(desk.check(ticket.verifier(), end_ms - 1_000).is_some());
        assert!(desk.check(ticket.verifier(), end_ms).is_none());
        for desk in [
            Desk { tenant: &elsewhere, ..desk },
            Desk { collection: &other, ..desk },
            Desk { provider: "github", ..desk },
        ] {
            assert!(desk.check(ticket.verifier(), 1_000_000).is_none());
        }
        for forged in ["", "x", &ticket.verifier()[1..], &ticket.challenge(), &"A".repeat(59)] {
            assert!(desk.check(forged, 1_000_000).is_none(), "{forged}");
        }
        let used = Used::default();
        assert!(used.take(&ticket, 1_000_000) && !used.take(&ticket, 1_000_000));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (tenant, users, random, used) =
            (TenantId::parse("a").unwrap(), users(1), SeededRandom::new(1), Used::default());
        let desk = Desk { tenant: &tenant, collection: &users, provider: "p" };
        let early = desk.issue(&random, 0);
        used.take(&early, 0);
        let late = desk.issue(&random, 1_000_000);
        assert!(used.take(&late, 1_000_000));
        assert_eq!(used.0.lock().known.len(), 1, "what is over is forgotten");
    }
}
