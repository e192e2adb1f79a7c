//! Who came in, who tried to, and what was done to whose access: `_authEvents`, which the tenant's log proves like all else.
//!
//! Keeps true: no password, token or code is in an event, and of an identity that names no account only a mark; whether an
//! account exists is looked up after the answer, so its time tells nothing; the same event from the same place in the same
//! minute is one row with a count, and past a bound per minute what strangers cause is one row altogether, so nobody fills
//! a disk by guessing. Does not do: reads; waiting for the disk before a login is answered. Losable: the events of the last
//! moment, and counts not yet added, when the process is killed; what finds too many waiting for the disk.

use super::Auth;
use super::account::{self, AuthCollection};
use super::error::AuthError;
use super::factors::Factor;
use crate::kernel::datetime;
use crate::kernel::error::{Code, Fault as _};
use crate::kernel::ident::{CollectionId, RecordId, TenantId};
use crate::kernel::limits;
use crate::kernel::random::Random;
use crate::kernel::value::Stored;
use crate::schema::Collection;
use crate::services::tenants::rows;
use crate::services::tenants::system::AUTH_EVENTS;
use crate::services::throttle::address_group;
use crate::store::{StoreError, TenantDb, WriteMeta, WriteTx};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const MINUTE_MS: i64 = 60_000;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    /// It was done.
    Ok,
    /// The factor held; another one is needed.
    FactorNeeded,
    /// The credentials did not hold.
    Failed,
    /// Too many failures; nothing was looked at.
    Throttled,
    /// The credentials held; the account is suspended or the `authRule` does not admit it.
    Refused,
    /// A refresh token came a second time.
    Reused,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::FactorNeeded => "factorNeeded",
            Self::Failed => "failed",
            Self::Throttled => "throttled",
            Self::Refused => "refused",
            Self::Reused => "reused",
        }
    }

    /// Whether anybody can cause any number of them.
    const fn is_cheap(self) -> bool {
        matches!(self, Self::Failed | Self::Throttled)
    }
}

/// Whom an event is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Who<'a> {
    /// An account, by record id.
    Account(&'a Collection, &'a str),
    /// Whatever account this identity names, if it names one.
    Identity(&'a AuthCollection, &'a str),
    /// Somebody unknown who wanted into this collection.
    Nobody(&'a Collection),
}

impl Who<'_> {
    fn collection(&self) -> &Collection {
        match self {
            Self::Account(collection, _) | Self::Nobody(collection) => collection,
            Self::Identity(accounts, _) => &accounts.collection,
        }
    }
}

/// One event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event<'a> {
    /// What: `login`, `logout`, `refresh`, `impersonate`, `suspend`, `resume`, `endSessions`.
    pub(super) event: &'static str,
    /// By which factor, for a login.
    pub(super) method: &'static str,
    pub(super) outcome: Outcome,
    pub(super) who: Who<'a>,
}

/// What one row stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Slot {
    tenant: TenantId,
    collection: CollectionId,
    event: &'static str,
    method: &'static str,
    outcome: Outcome,
    /// `None` for what was folded together.
    place: Option<(Option<IpAddr>, String)>,
}

#[derive(Debug)]
struct Entry {
    minute: i64,
    row: RecordId,
    /// Events that the row does not count yet.
    untold: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Noted {
    /// A row of this minute stands for it.
    Counted,
    /// A new row is to be written; an earlier one has events to be added.
    Row { row: RecordId, earlier: Option<(RecordId, u32)>, folded: bool },
}

/// Counts events between writes; shared by all requests, one short lock.
#[derive(Debug)]
pub struct AuthJournal {
    state: Mutex<State>,
    /// Writes under way; bound: [`limits::AUTH_EVENTS_WRITING_MAX`].
    writing: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    /// Bound: [`limits::AUTH_EVENTS_COUNTED_MAX`], and one more for each kind of event of each tenant.
    slots: HashMap<Slot, Entry>,
    /// Rows of cheap events in the present minute, one entry for each tenant that had some.
    cheap: HashMap<TenantId, (i64, u32)>,
}

impl Default for AuthJournal {
    fn default() -> Self {
        Self { state: Mutex::default(), writing: watch::Sender::new(0) }
    }
}

impl AuthJournal {
    fn count(&self, slot: Slot, now_ms: i64, random: &dyn Random) -> Noted {
        let minute = now_ms.div_euclid(MINUTE_MS);
        let mut state = self.state.lock();
        if state.counts(&slot, minute) {
            return Noted::Counted;
        }
        let folds = slot.outcome.is_cheap() && !state.admits(&slot.tenant, minute) || !state.has_room(minute);
        let slot = if folds { Slot { place: None, ..slot } } else { slot };
        if folds && state.counts(&slot, minute) {
            return Noted::Counted;
        }
        let row = RecordId::generate(random);
        let entry = Entry { minute, row: row.clone(), untold: 0 };
        let earlier = state.slots.insert(slot, entry).filter(|entry| entry.untold > 0);
        Noted::Row { row, earlier: earlier.map(|entry| (entry.row, entry.untold)), folded: folds }
    }

    /// The events of `tenant` that no row counts yet; they count as told from now on.
    fn take_untold(&self, tenant: &TenantId) -> Vec<(RecordId, u32)> {
        let mut state = self.state.lock();
        let own = state.slots.iter_mut().filter(|(slot, entry)| slot.tenant == *tenant && entry.untold > 0);
        own.map(|(_, entry)| (entry.row.clone(), std::mem::take(&mut entry.untold))).collect()
    }

    /// Takes a place among the writes under way.
    fn begin(self: &Arc<Self>) -> Option<Writing> {
        let taken = self.writing.send_if_modified(|writing| {
            let free = *writing < limits::AUTH_EVENTS_WRITING_MAX;
            *writing += usize::from(free);
            free
        });
        taken.then(|| Writing(Arc::clone(self)))
    }

    /// Waits, for a moment at most, until what was noted is written.
    async fn written(&self) {
        let mut writing = self.writing.subscribe();
        let done = writing.wait_for(|writing| *writing == 0);
        // Past the moment, those who read see a little less.
        let _ = tokio::time::timeout(Duration::from_millis(limits::AUTH_EVENTS_WAIT_MS), done).await;
    }
}

impl State {
    fn counts(&mut self, slot: &Slot, minute: i64) -> bool {
        match self.slots.get_mut(slot).filter(|entry| entry.minute == minute) {
            Some(entry) => {
                entry.untold = entry.untold.saturating_add(1);
                true
            }
            None => false,
        }
    }

    /// Whether one more cheap event of `tenant` gets a row of its own.
    fn admits(&mut self, tenant: &TenantId, minute: i64) -> bool {
        let (of, rows) = self.cheap.entry(tenant.clone()).or_insert((minute, 0));
        if *of != minute {
            (*of, *rows) = (minute, 0);
        }
        *rows = rows.saturating_add(1);
        *rows <= limits::AUTH_EVENTS_PER_MINUTE_MAX
    }

    fn has_room(&mut self, minute: i64) -> bool {
        if self.slots.len() >= limits::AUTH_EVENTS_COUNTED_MAX {
            self.slots.retain(|_, entry| entry.minute == minute || entry.untold > 0);
            self.cheap.retain(|_, (of, _)| *of == minute);
        }
        self.slots.len() < limits::AUTH_EVENTS_COUNTED_MAX
    }
}

struct Writing(Arc<AuthJournal>);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.writing.send_modify(|writing| *writing -= 1);
    }
}

/// A row before it is known whether its identity names an account.
struct Draft {
    values: Vec<(&'static str, Stored)>,
    /// What was given as identity, and what it is called.
    identity: Option<(AuthCollection, String, String)>,
}

impl Auth {
    /// Notes an event; it is written after the answer, as of whoever `meta` names.
    pub(super) fn note(&self, db: &TenantDb, meta: &WriteMeta, event: Event<'_>) {
        let now_ms = self.0.clock.now_ms();
        let address: Option<IpAddr> = meta.ip.as_deref().and_then(|text| text.parse().ok());
        let name = match event.who {
            Who::Account(_, id) => format!("account/{id}"),
            // A password typed into the wrong field is not to be read, or found out by trying.
            Who::Identity(_, identity) => self.0.sealer.mark(db.id(), &identity.to_lowercase()),
            Who::Nobody(_) => String::new(),
        };
        let slot = Slot {
            tenant: db.id().clone(),
            collection: event.who.collection().id.clone(),
            event: event.event,
            method: event.method,
            outcome: event.outcome,
            place: Some((address.map(address_group), name.clone())),
        };
        let Noted::Row { row, earlier, folded } = self.0.journal.count(slot, now_ms, self.0.random.as_ref()) else {
            return;
        };
        let Some(writing) = self.0.journal.begin() else {
            tracing::warn!(tenant.id = %db.id(), event = event.event, "too many events wait; one was not written");
            return;
        };
        let (draft, db, mut meta) = (draft(meta, &event, (!folded).then_some(name)), db.clone(), meta.clone());
        meta.ip = meta.ip.filter(|_| !folded);
        tokio::spawn(async move {
            let written = db.write(meta, move |tx| {
                add(tx, earlier.as_slice())?;
                insert(tx, row, draft)
            });
            if let Err(error) = written.await {
                tracing::warn!(tenant.id = %db.id(), %error, "an event was not written");
            }
            drop(writing);
        });
    }

    /// Notes a login that did not come as far as an account.
    pub(super) fn note_login<T>(
        &self,
        db: &TenantDb,
        meta: &WriteMeta,
        factor: Factor,
        who: Who<'_>,
        done: Result<T, AuthError>,
    ) -> Result<T, AuthError> {
        let outcome = match &done {
            Err(AuthError::Credentials) => Some(Outcome::Failed),
            // A provider that is down is nobody's attempt.
            Err(AuthError::OAuth(error)) if error.code() != Code::UpstreamFailed => Some(Outcome::Failed),
            Err(AuthError::Throttled { .. }) => Some(Outcome::Throttled),
            _ => None,
        };
        if let Some(outcome) = outcome {
            self.note(db, meta, Event { event: "login", method: factor.as_str(), outcome, who });
        }
        done
    }

    /// Brings the counts of a tenant's events up to date and waits for what was noted before.
    pub async fn tell_events(&self, db: &TenantDb) -> Result<(), AuthError> {
        self.0.journal.written().await;
        let untold = self.0.journal.take_untold(db.id());
        if untold.is_empty() {
            return Ok(());
        }
        db.write(WriteMeta::system("auth-events"), move |tx| add(tx, &untold)).await?;
        Ok(())
    }

    /// Waits until the events noted so far are written.
    pub async fn events_written(&self) {
        self.0.journal.written().await;
    }
}

/// `mark` is what the identity is called; without it the row stands for many.
fn draft(meta: &WriteMeta, event: &Event<'_>, mark: Option<String>) -> Draft {
    let mut values = vec![
        ("event", Stored::text(event.event)),
        ("method", Stored::text(event.method)),
        ("outcome", Stored::text(event.outcome.as_str())),
        ("collectionRef", Stored::text(&event.who.collection().id)),
        ("count", Stored::Real(1.0)),
    ];
    let mut identity = None;
    if let Some(mark) = mark {
        values.push(("ip", Stored::text(meta.ip.as_deref().unwrap_or_default())));
        values.push(("requestId", Stored::text(&meta.request_id)));
        match event.who {
            Who::Account(_, id) => values.push(("account", Stored::text(id))),
            Who::Identity(accounts, text) => identity = Some((accounts.clone(), text.to_owned(), mark)),
            Who::Nobody(_) => {}
        }
    }
    Draft { values, identity }
}

fn insert(tx: &mut WriteTx<'_>, row: RecordId, draft: Draft) -> Result<(), StoreError> {
    let Some(events) = tx.schema().find(AUTH_EVENTS).cloned() else { return Ok(()) };
    let Draft { mut values, identity } = draft;
    if let Some((accounts, identity, mark)) = identity {
        let mut found = None;
        for field in &accounts.options.identity_fields {
            found = found.or(account::find_by(tx, &accounts.collection, field, &identity)?);
        }
        values.push(match found {
            Some(account) => ("account", Stored::text(&account.record.id)),
            None => ("identity", Stored::from(mark)),
        });
    }
    let expires_ms = tx.now_ms().saturating_add(limits::AUTH_EVENT_AGE_MS);
    values.push(("expires", Stored::from(datetime::format_ms(expires_ms))));
    tx.insert(&events, &rows::image(&events, row, &values, tx.now_ms()))
}

/// Adds to the counts of rows that are still there.
fn add(tx: &mut WriteTx<'_>, counts: &[(RecordId, u32)]) -> Result<(), StoreError> {
    let Some(events) = tx.schema().find(AUTH_EVENTS).cloned() else { return Ok(()) };
    for (id, more) in counts {
        let Some(row) = tx.find_record(&events, id.as_str())? else { continue };
        let count = rows::number(&events, &row, "count") + f64::from(*more);
        tx.update(&events, id, &rows::changes_at(&events, &[("count", Stored::Real(count))], tx.now_ms()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::random::SeededRandom;

    fn slot(name: &str, outcome: Outcome) -> Slot {
        Slot {
            tenant: TenantId::parse("t00000000000001").unwrap(),
            collection: CollectionId::parse("users").unwrap(),
            event: "login",
            method: "password",
            outcome,
            place: Some((None, name.to_owned())),
        }
    }

    #[test]
    fn one_minute_of_guessing_is_a_bounded_number_of_rows() {
        let (journal, random) = (AuthJournal::default(), SeededRandom::new(1));
        let mut rows = 0;
        for guess in 0..10_000 {
            let noted = journal.count(slot(&guess.to_string(), Outcome::Failed), 5, &random);
            rows += u32::from(matches!(noted, Noted::Row { .. }));
        }
        assert_eq!(rows, limits::AUTH_EVENTS_PER_MINUTE_MAX + 1);
        let untold = journal.take_untold(&slot("", Outcome::Failed).tenant);
        assert_eq!(untold.len(), 1, "the rest is one row");
        assert_eq!(rows + untold[0].1, 10_000, "and nothing is lost");
        let own = journal.count(slot("ada", Outcome::Ok), 5, &random);
        assert!(matches!(own, Noted::Row { folded: false, .. }), "who comes in has a row of their own");
    }

    #[test]
    fn the_same_event_counts_up_within_its_minute_and_is_told_with_the_next() {
        let (journal, random) = (AuthJournal::default(), SeededRandom::new(1));
        let Noted::Row { row: first, earlier: None, .. } = journal.count(slot("a", Outcome::Failed), 0, &random) else {
            panic!("a first event is a row");
        };
        assert_eq!(journal.count(slot("a", Outcome::Failed), MINUTE_MS - 1, &random), Noted::Counted);
        let next = journal.count(slot("a", Outcome::Failed), MINUTE_MS, &random);
        let Noted::Row { earlier, .. } = next else { panic!("another minute is another row") };
        assert_eq!(earlier, Some((first, 1)));
    }
}
