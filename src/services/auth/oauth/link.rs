//! Whose account an identity at a provider is, and keeping that.
//!
//! Keeps true: an identity is (issuer, subject) within a collection and belongs to one account; it is tied to an account
//! that was there before only if the account's own address is confirmed, or by that account's logged-in owner under the
//! same condition, so whoever registers somebody else's address first gains nothing when the owner comes; an address that
//! the provider does not vouch for ties nothing. Does not do: making accounts (`records` does, under the create rule).

use super::super::account;
use super::super::error::AuthError;
use super::profile::Profile;
use crate::kernel::ident::RecordId;
use crate::kernel::value::Stored;
use crate::query::request::AuthRecord;
use crate::schema::oauth::OAuthProvider;
use crate::schema::record::RecordImage;
use crate::schema::{Collection, Schema};
use crate::services::tenants::rows;
use crate::services::tenants::system::EXTERNAL_AUTHS;
use crate::store::{Reader, StoreError, WriteTx};
use std::sync::Arc;

/// An account, as far as the decision needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate<'a> {
    pub(super) id: &'a str,
    pub(super) email: &'a str,
    pub(super) verified: bool,
}

/// What to do with an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is that account's already.
    Enter(String),
    /// Tie it to that account, whose address is then as good as confirmed or was before.
    Link(String),
    /// Make an account.
    Create,
    /// The account with that address has not confirmed it.
    Unverified,
    /// There is an account with the address, and the provider does not vouch for it.
    Unproven,
}

/// Decides; pure.
///
/// `linked` has the identity, `caller` is logged in to the collection, `same_email` has the profile's address.
pub(super) fn decide(
    profile: &Profile,
    linked: Option<Candidate<'_>>,
    caller: Option<Candidate<'_>>,
    same_email: Option<Candidate<'_>>,
) -> Decision {
    if let Some(account) = linked {
        return Decision::Enter(account.id.to_owned());
    }
    if let Some(account) = caller {
        let confirms = profile.email_proven && profile.email.eq_ignore_ascii_case(account.email);
        return match account.verified || account.email.is_empty() || confirms {
            true => Decision::Link(account.id.to_owned()),
            false => Decision::Unverified,
        };
    }
    match same_email {
        Some(_) if !profile.email_proven => Decision::Unproven,
        Some(account) if account.verified => Decision::Link(account.id.to_owned()),
        Some(_) => Decision::Unverified,
        None => Decision::Create,
    }
}

/// Whether the profile has the account's own address, and both sides vouch for it: whoever signs in with that would enter the
/// account anyway.
pub(super) fn is_same_person(profile: &Profile, account: Candidate<'_>) -> bool {
    let same = profile.email.eq_ignore_ascii_case(account.email) && !account.email.is_empty();
    same && profile.email_proven && account.verified
}

/// The identity's row, whether or not its account is still there.
pub(super) fn find(
    reader: &Reader<'_>,
    accounts: &Collection,
    provider: &OAuthProvider,
    subject: &str,
) -> Result<Option<RecordImage>, AuthError> {
    let links = links(reader.schema())?;
    let named = [("collectionRef", accounts.id.as_str()), ("issuer", &provider.issuer), ("providerId", subject)];
    Ok(rows::find_by_texts(reader, &links, &named)?.into_iter().next())
}

/// The account an identity's row names.
pub(super) fn account_of(
    reader: &Reader<'_>,
    accounts: &Arc<Collection>,
    row: &RecordImage,
) -> Result<Option<Arc<AuthRecord>>, AuthError> {
    let links = links(reader.schema())?;
    Ok(account::read(reader, accounts, rows::text(&links, row, "recordRef"))?)
}

/// Ties the identity to `account`, inside the transaction that decided to.
pub(super) fn tie(
    tx: &mut WriteTx<'_>,
    id: RecordId,
    accounts: &Collection,
    account: &RecordId,
    provider: &OAuthProvider,
    subject: &str,
) -> Result<(), AuthError> {
    let links = links(tx.schema())?;
    // One identity per provider and account: another one at the same provider takes its place only after unlinking.
    let same = [
        ("collectionRef", accounts.id.as_str()),
        ("recordRef", account.as_str()),
        ("provider", provider.name.as_str()),
    ];
    if !rows::find_by_texts(tx, &links, &same)?.is_empty() {
        let message = "The account is linked to somebody else at this provider; unlink that one first.";
        return Err(AuthError::field("provider", "validation_provider_already_linked", message));
    }
    let values = [
        ("collectionRef", Stored::text(&accounts.id)),
        ("recordRef", Stored::text(account)),
        ("provider", Stored::text(&provider.name)),
        ("providerId", Stored::text(subject)),
        ("issuer", Stored::text(&provider.issuer)),
    ];
    let image = rows::image(&links, id, &values, tx.now_ms());
    Ok(tx.insert(&links, &image)?)
}

/// Marks the account's address as confirmed.
pub(super) fn confirm(tx: &mut WriteTx<'_>, accounts: &Arc<Collection>, account: &RecordId) -> Result<(), StoreError> {
    let changes = rows::changes_at(accounts, &[("verified", Stored::bool(true))], tx.now_ms());
    tx.update(accounts, account, &changes)
}

/// Unties every identity of one account.
pub(in super::super) fn forget(tx: &mut WriteTx<'_>, account: &AuthRecord) -> Result<(), AuthError> {
    let links = links(tx.schema())?;
    let owner = [("collectionRef", account.collection.id.as_str()), ("recordRef", account.record.id.as_str())];
    for row in rows::find_by_texts(tx, &links, &owner)? {
        tx.delete(&links, &row.id)?;
    }
    Ok(())
}

pub(super) fn links(schema: &Schema) -> Result<Arc<Collection>, AuthError> {
    schema.find(EXTERNAL_AUTHS).cloned().ok_or_else(|| AuthError::UnknownCollection(EXTERNAL_AUTHS.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn profile(email: &str, proven: bool) -> Profile {
        Profile { id: "s".into(), email: email.into(), email_proven: proven, ..Profile::default() }
    }

    fn account<'a>(id: &'a str, email: &'a str, verified: bool) -> Option<Candidate<'a>> {
        Some(Candidate { id, email, verified })
    }

    #[test]
    fn the_table_of_decisions() {
        let proven = profile("a@b.test", true);
        let claimed = profile("a@b.test", false);
        let link = |id: &str| Decision::Link(id.to_owned());
        // Known identities enter, whatever else is true.
        let entered = decide(&claimed, account("x", "", false), account("y", "", true), None);
        assert_eq!(entered, Decision::Enter("x".into()));
        // Strangers: the address decides, if both sides stand by it.
        assert_eq!(decide(&proven, None, None, None), Decision::Create);
        assert_eq!(decide(&claimed, None, None, None), Decision::Create);
        assert_eq!(decide(&proven, None, None, account("x", "a@b.test", true)), link("x"));
        assert_eq!(decide(&proven, None, None, account("x", "a@b.test", false)), Decision::Unverified);
        assert_eq!(decide(&claimed, None, None, account("x", "a@b.test", true)), Decision::Unproven);
        // Owners who are logged in.
        assert_eq!(decide(&claimed, None, account("x", "o@b.test", true), None), link("x"));
        assert_eq!(decide(&claimed, None, account("x", "o@b.test", false), None), Decision::Unverified);
        assert_eq!(decide(&claimed, None, account("x", "a@b.test", false), None), Decision::Unverified);
        assert_eq!(decide(&proven, None, account("x", "A@B.test", false), None), link("x"));
        assert_eq!(decide(&claimed, None, account("x", "", false), None), link("x"));
    }

    #[test]
    fn an_identity_is_the_same_person_if_both_sides_vouch_for_the_address() {
        for (profile, email, verified, same) in [
            (profile("A@b.test", true), "a@b.test", true, true),
            (profile("a@b.test", false), "a@b.test", true, false),
            (profile("a@b.test", true), "a@b.test", false, false),
            (profile("c@d.test", true), "a@b.test", true, false),
            (profile("", true), "", true, false),
        ] {
            let account = account("x", email, verified).unwrap();
            assert_eq!(is_same_person(&profile, account), same, "{profile:?} {email} {verified}");
        }
    }

    proptest! {
        /// Whatever else holds, an account whose address is not confirmed, nor confirmed by this very sign-in, is never
        /// tied to an identity.
        #[test]
        fn an_unconfirmed_account_is_never_linked(proven: bool, logged_in: bool, same: bool) {
            let profile = profile(if same { "a@b.test" } else { "c@d.test" }, proven);
            let victim = account("x", "a@b.test", false);
            let decision = match logged_in {
                true => decide(&profile, None, victim, None),
                false => decide(&profile, None, None, victim.filter(|_| same)),
            };
            let vouched = logged_in && proven && same;
            prop_assert_eq!(decision == Decision::Link("x".into()), vouched);
        }
    }
}
