//! Who came in, who tried to, and what was done to whose access: `_authEvents`, which the tenant's log proves like all else.
//!
//! Keeps true: no password, token or code is in an event, and of an identity that names no account only a mark; whether an
//! account exists is looked up after the answer, so its time tells nothing; the same event from the same place in the same
//! minute is one row with a count (`journal`), and what strangers cause is bounded per minute and altogether, so nobody fills
//! a disk by guessing. Does not do: reads; waiting for the disk before a login is answered. Losable: the events of the last
//! moment, and counts not yet added, when the process is killed.

use super::Auth;
use super::account::{self, AuthCollection};
use super::error::AuthError;
use super::factors::Factor;
use super::journal::{Row, Slot};
use crate::kernel::datetime;
use crate::kernel::error::{Code, Fault as _};
use crate::kernel::ident::{RecordId, TenantId};
use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::schema::Collection;
use crate::services::tenants::rows;
use crate::services::tenants::system::AUTH_EVENTS;
use crate::services::throttle::address_group;
use crate::store::{Reader, StoreError, TenantDb, WriteMeta, WriteTx};
use std::net::IpAddr;
use std::sync::Arc;

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

    /// The outcomes of [`Self::is_cheap`].
    const CHEAP: [Self; 2] = [Self::Failed, Self::Throttled];

    /// Whether anybody can cause any number of them.
    pub(super) const fn is_cheap(self) -> bool {
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

/// A row before it is known whether its identity names an account.
struct Draft {
    values: Vec<(&'static str, Stored)>,
    /// What was given as identity, and what it is called.
    identity: Option<(AuthCollection, String, String)>,
}

impl Auth {
    /// Notes an event; it is written after the answer, as of whoever `meta` names.
    pub(super) fn note(&self, db: &TenantDb, meta: &WriteMeta, event: Event<'_>) {
        let who = match event.outcome {
            // Nothing was looked at: whatever name was given is made up as easily as the next.
            Outcome::Throttled => Who::Nobody(event.who.collection()),
            _ => event.who,
        };
        let event = Event { who, ..event };
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
        if let Some(row) = self.0.journal.count(slot, self.0.clock.now_ms(), self.0.random.as_ref()) {
            let mut meta = meta.clone();
            meta.ip = meta.ip.filter(|_| !row.is_folded());
            let draft = draft(&meta, &event, &row, name);
            self.write_event(db, meta, row, draft);
        }
    }

    /// Writes `row` by and by; if that fails, the next one of its kind counts its events.
    fn write_event(&self, db: &TenantDb, meta: WriteMeta, row: Row, draft: Draft) {
        let journal = Arc::clone(&self.0.journal);
        let Some(writing) = journal.begin(row.slot.outcome) else {
            tracing::warn!(tenant.id = %db.id(), event = row.slot.event, "too many events wait; one was not written");
            journal.put_back(row);
            return;
        };
        let (auth, db) = (self.clone(), db.clone());
        tokio::spawn(async move {
            let (id, earlier) = (row.row.clone(), row.earlier.clone());
            let written = db.write(meta, move |tx| {
                add(tx, earlier.as_slice())?;
                insert(tx, id, draft)
            });
            let is_cheap = row.slot.outcome.is_cheap();
            if let Err(error) = written.await {
                tracing::warn!(tenant.id = %db.id(), %error, "an event was not written");
                journal.put_back(row);
            } else if is_cheap && journal.is_new_to(db.id()) {
                auth.learn_cheap(&db).await;
            }
            drop(writing);
        });
    }

    /// Looks how many rows strangers have caused; once after a start.
    async fn learn_cheap(&self, db: &TenantDb) {
        let rows = db.read(|reader| match reader.schema().find(AUTH_EVENTS).cloned() {
            Some(events) => count_cheap(reader, &events),
            None => Ok::<_, StoreError>(0),
        });
        match rows.await {
            Ok(rows) => self.0.journal.learn(db.id(), rows),
            // The next event looks again.
            Err(error) => tracing::warn!(tenant.id = %db.id(), %error, "the rows of events were not counted"),
        }
    }

    /// Removes the oldest rows that strangers caused until `kept_max` are left, so many at a time; returns how many.
    ///
    /// Looks into the file only where more than that were counted since the start.
    pub(super) async fn trim_events(&self, db: &TenantDb, kept_max: usize) -> Result<usize, StoreError> {
        let Some(events) = db.schema().find(AUTH_EVENTS).cloned() else { return Ok(0) };
        if !self.0.journal.has_more_than(db.id(), kept_max) {
            return Ok(0);
        }
        let wanted = Arc::clone(&events);
        let found = db.read(move |reader| {
            let rows = count_cheap(reader, &wanted)?;
            let excess = rows.saturating_sub(kept_max).min(limits::UPKEEP_ROWS_MAX);
            let oldest = if excess == 0 { Vec::new() } else { oldest_cheap(reader, &wanted, excess)? };
            Ok::<_, StoreError>((rows, oldest))
        });
        let (rows, oldest) = found.await?;
        let gone = oldest.len();
        if gone > 0 {
            db.write(WriteMeta::system("expired"), move |tx| {
                oldest.iter().try_for_each(|id| match tx.find_record(&events, id.as_str())? {
                    Some(_) => tx.delete(&events, id).map(drop),
                    None => Ok(()),
                })
            })
            .await?;
            self.0.journal.forget_cheap(db.id());
        }
        self.0.journal.learn(db.id(), rows.saturating_sub(gone));
        Ok(gone)
    }

    /// Forgets what was counted of a tenant that is gone.
    pub fn forget_tenant(&self, tenant: &TenantId) {
        self.0.journal.forget(tenant);
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

/// `mark` is what the identity is called; a folded row stands for many and names nobody.
fn draft(meta: &WriteMeta, event: &Event<'_>, row: &Row, mark: String) -> Draft {
    let mut values = vec![
        ("event", Stored::text(event.event)),
        ("method", Stored::text(event.method)),
        ("outcome", Stored::text(event.outcome.as_str())),
        ("collectionRef", Stored::text(&event.who.collection().id)),
        ("count", Stored::Real(f64::from(row.count))),
    ];
    let mut identity = None;
    if !row.is_folded() {
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

/// How many rows are of cheap events.
fn count_cheap(reader: &Reader<'_>, events: &Collection) -> Result<usize, StoreError> {
    let Some((outcomes, values)) = are_cheap(events) else { return Ok(0) };
    let sql = format!("SELECT count(*) FROM \"{}\" WHERE {outcomes}", events.table());
    let mut rows = 0.0;
    reader.for_each(&sql, &values, &mut |row| {
        rows = row.stored(0)?.as_number().unwrap_or(0.0);
        Ok(())
    })?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count is a whole number from 0")]
    Ok(rows as usize)
}

/// The ids of the `len` oldest rows of cheap events.
fn oldest_cheap(reader: &Reader<'_>, events: &Collection, len: usize) -> Result<Vec<RecordId>, StoreError> {
    let (Some((outcomes, values)), Some(expires)) = (are_cheap(events), events.find_field("expires")) else {
        return Ok(Vec::new());
    };
    // All are kept equally long.
    let (table, by) = (events.table(), expires.column());
    let sql = format!("SELECT id FROM \"{table}\" WHERE {outcomes} ORDER BY {by} LIMIT {len}");
    let mut ids = Vec::new();
    reader.for_each(&sql, &values, &mut |row| {
        ids.extend(row.stored(0)?.as_text().and_then(|id| RecordId::parse(id).ok()));
        Ok(())
    })?;
    Ok(ids)
}

/// The condition that an event is cheap, and its bound values.
fn are_cheap(events: &Collection) -> Option<(String, [Stored; 2])> {
    let column = events.find_field("outcome")?.column();
    Some((format!("{column} IN (?1, ?2)"), Outcome::CHEAP.map(|outcome| Stored::text(outcome.as_str()))))
}
