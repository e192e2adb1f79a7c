//! How many mails may be asked for, without telling who has an account and without locking anybody out.
//!
//! Keeps true: what is refused (429) depends on who asks and for which address, never on whether it has an account. A
//! recipient's own limit drops mails silently, but never the first one that a caller's address asks for in a window: a
//! stranger who asks on and on from one place cannot keep the owner, who asks from another, from getting theirs.
//! Does not do: sending.

use crate::kernel::ident::TenantId;
use crate::services::login_guard::GuessRefused;
use crate::services::throttle::{Quota, Standing, Throttle, address_group};
use crate::store::WriteMeta;
use std::net::IpAddr;

/// How many mails; `None` is any number.
#[derive(Debug, Clone, Copy, Default)]
pub struct MailLimits {
    /// Asked for from one address for one recipient.
    pub per_pair: Option<Quota>,
    /// Asked for from one address for anybody.
    pub per_address: Option<Quota>,
    /// Sent to one recipient.
    pub per_recipient: Option<Quota>,
    /// Sent by one tenant.
    pub per_tenant: Option<Quota>,
}

/// Counts mails; shared by all requests.
#[derive(Debug)]
pub struct MailGuard {
    per_pair: Option<Throttle>,
    per_address: Option<Throttle>,
    per_recipient: Option<Throttle>,
    per_tenant: Option<Throttle>,
    /// Who asked whom for a first mail in the window of `per_recipient`, also where `per_pair` is any number.
    firsts: Option<Throttle>,
}

/// A request for a mail that was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// The first from its address for this recipient in the window.
    First,
    /// A repetition.
    Again,
}

impl MailGuard {
    /// Nobody has asked yet.
    pub fn new(limits: MailLimits) -> Self {
        let [per_pair, per_address, per_recipient, per_tenant] =
            [limits.per_pair, limits.per_address, limits.per_recipient, limits.per_tenant]
                .map(|quota| quota.map(Throttle::new));
        let firsts = limits.per_recipient.and_then(|quota| Quota::new(1, quota.window_s())).map(Throttle::new);
        Self { per_pair, per_address, per_recipient, per_tenant, firsts }
    }

    /// Counts a request for a mail to `recipient`, or refuses it.
    pub(super) fn ask(
        &self,
        meta: &WriteMeta,
        tenant: &TenantId,
        recipient: &str,
        now_ms: i64,
    ) -> Result<Asked, GuessRefused> {
        let Some((address, pair)) = keys(meta, tenant, recipient) else { return Ok(Asked::First) };
        let take = |throttle: &Throttle| throttle.take(&address, now_ms);
        within(self.per_address.as_ref(), take, "this address")?;
        let take = |throttle: &Throttle| throttle.take(&pair, now_ms);
        within(self.per_pair.as_ref(), take, "this address for this recipient")?;
        let first = self.firsts.as_ref().is_none_or(|throttle| throttle.take(&pair, now_ms).allowed);
        Ok(if first { Asked::First } else { Asked::Again })
    }

    /// What [`Self::ask`] would refuse now; nothing is counted.
    pub(super) fn look(
        &self,
        meta: &WriteMeta,
        tenant: &TenantId,
        recipient: &str,
        now_ms: i64,
    ) -> Result<(), GuessRefused> {
        let Some((address, pair)) = keys(meta, tenant, recipient) else { return Ok(()) };
        within(self.per_address.as_ref(), |throttle| throttle.look(&address, now_ms), "this address")?;
        let look = |throttle: &Throttle| throttle.look(&pair, now_ms);
        within(self.per_pair.as_ref(), look, "this address for this recipient")
    }

    /// Whether a mail to `recipient` may leave.
    pub(super) fn lets_leave(&self, tenant: &TenantId, recipient: &str, asked: Asked, now_ms: i64) -> bool {
        let within = |throttle: Option<&Throttle>, key: &dyn Fn(&Throttle) -> bool| throttle.is_none_or(key);
        let recipient = (tenant, recipient.trim().to_lowercase());
        if !within(self.per_recipient.as_ref(), &|it| it.take(&recipient, now_ms).allowed) && asked == Asked::Again {
            tracing::info!(tenant.id = %tenant, "a recipient has many mails already; one more was not sent");
            return false;
        }
        if !within(self.per_tenant.as_ref(), &|it| it.take(tenant, now_ms).allowed) {
            tracing::error!(tenant.id = %tenant, "the tenant's mails of this window are used up; a mail was dropped");
            return false;
        }
        true
    }
}

type Pair<'a> = (IpAddr, &'a TenantId, String);

/// What a request for a mail is counted by: its address, and that with the recipient; none if it comes from the node itself.
fn keys<'a>(meta: &WriteMeta, tenant: &'a TenantId, recipient: &str) -> Option<(IpAddr, Pair<'a>)> {
    let address = address_group(meta.ip.as_deref()?.parse().ok()?);
    Some((address, (address, tenant, recipient.trim().to_lowercase())))
}

/// Refuses one that `count` finds past the quota.
fn within(
    throttle: Option<&Throttle>,
    count: impl FnOnce(&Throttle) -> Standing,
    of: &str,
) -> Result<(), GuessRefused> {
    let Some(throttle) = throttle else { return Ok(()) };
    let standing = count(throttle);
    if standing.allowed {
        return Ok(());
    }
    let (permits, window_s, retry_after_s) =
        (throttle.quota().permits(), throttle.quota().window_s(), standing.retry_after_s);
    let message =
        format!("Too many mails asked for from {of}: {permits} per {window_s} s; try again in {retry_after_s} s.");
    Err(GuessRefused { message, retry_after_s })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn from(ip: &str) -> WriteMeta {
        WriteMeta { ip: Some(Arc::from(ip)), ..WriteMeta::system("test") }
    }

    /// Without a limit of their own, strangers kept the owner's first mail from being sent.
    #[test]
    fn the_first_mail_that_an_address_asks_for_is_sent_whatever_limits_are_off() {
        let limits = MailLimits { per_recipient: Quota::new(2, 900), ..MailLimits::default() };
        let (guard, tenant) = (MailGuard::new(limits), TenantId::parse("t").unwrap());
        let leaves = |ip: &str, now_ms| {
            let asked = guard.ask(&from(ip), &tenant, "ada@a.test", now_ms).unwrap();
            guard.lets_leave(&tenant, "ada@a.test", asked, now_ms)
        };
        assert_eq!([0; 4].map(|now_ms| leaves("1.1.1.1", now_ms)), [true, true, false, false]);
        assert!(leaves("2.2.2.2", 0) && !leaves("2.2.2.2", 0));
        assert!(leaves("2.2.2.2", 900_000), "another window");
    }

    #[test]
    fn a_flood_from_one_place_neither_reveals_nor_locks_out() {
        let quota = |permits| Quota::new(permits, 900);
        let limits =
            MailLimits { per_pair: quota(3), per_address: quota(10), per_recipient: quota(2), per_tenant: quota(100) };
        let (guard, tenant) = (MailGuard::new(limits), TenantId::parse("t").unwrap());
        let asks: Vec<_> = (0..4).map(|_| guard.ask(&from("1.1.1.1"), &tenant, "Ada@a.test", 0)).collect();
        assert_eq!(asks[0].as_ref().unwrap(), &Asked::First);
        assert_eq!(asks[1].as_ref().unwrap(), &Asked::Again);
        assert!(asks[3].is_err());
        assert!(guard.look(&from("1.1.1.1"), &tenant, "Ada@a.test", 0).is_err());
        assert!(guard.look(&from("1.1.1.1"), &tenant, "new@a.test", 0).is_ok());
        assert!(
            guard.ask(&from("1.1.1.1"), &tenant, " ada@A.test ", 0).is_err(),
            "the same address, spelled with spaces"
        );
        // The recipient's own limit: the flood stops, the owner's first mail from elsewhere does not.
        for _ in 0..2 {
            assert!(guard.lets_leave(&tenant, "ada@a.test", Asked::Again, 0));
        }
        assert!(!guard.lets_leave(&tenant, "ada@a.test", Asked::Again, 0));
        let own = guard.ask(&from("2.2.2.2"), &tenant, "ada@a.test", 0).unwrap();
        assert!(own == Asked::First && guard.lets_leave(&tenant, "ada@a.test", own, 0));
        // Addresses that nobody has are counted alike.
        for number in 0..5 {
            assert!(guard.ask(&from("1.1.1.1"), &tenant, &format!("x{number}@a.test"), 0).is_ok());
        }
        assert!(guard.ask(&from("1.1.1.1"), &tenant, "y@a.test", 0).is_err());
    }
}
