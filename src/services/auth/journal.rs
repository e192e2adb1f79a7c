//! Which events get a row of their own, and which count on in one that is there: the memory before `_authEvents`.
//!
//! Keeps true: what anybody can cause ([`Outcome::is_cheap`]) is so many rows a minute and so many altogether per tenant, and
//! past that counted in one row; everything else always has a row of its own, also when there is no memory to count in; an
//! event whose row could not be written is counted by the next row of its kind. One short lock. Does not do: writing rows. Losable: counts of earlier minutes, when memory is short.

use super::events::Outcome;
use crate::kernel::ident::{CollectionId, RecordId, TenantId};
use crate::kernel::limits;
use crate::kernel::random::Random;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

pub(super) const MINUTE_MS: i64 = 60_000;
/// The minute of an entry that no row stands for.
const NEVER: i64 = i64::MIN;

/// What one row stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Slot {
    pub(super) tenant: TenantId,
    pub(super) collection: CollectionId,
    pub(super) event: &'static str,
    pub(super) method: &'static str,
    pub(super) outcome: Outcome,
    /// `None` for what was folded together.
    pub(super) place: Option<(Option<IpAddr>, String)>,
}

#[derive(Debug)]
struct Entry {
    minute: i64,
    row: RecordId,
    /// Events that the row does not count yet.
    untold: u32,
    /// Events whose row could not be written; the next row counts them.
    missed: u32,
}

/// A row to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// What it stands for.
    pub(super) slot: Slot,
    pub(super) row: RecordId,
    /// How many events it counts.
    pub(super) count: u32,
    /// An earlier row that has events to be added.
    pub(super) earlier: Option<(RecordId, u32)>,
}

impl Row {
    /// Whether it stands for many, so that nobody is named.
    pub(super) const fn is_folded(&self) -> bool {
        self.slot.place.is_none()
    }
}

/// Counts events between writes; shared by all requests.
#[derive(Debug)]
pub struct AuthJournal {
    state: Mutex<State>,
    /// Writes under way; bound: [`limits::AUTH_EVENTS_WRITING_MAX`].
    writing: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    /// Bound: [`limits::AUTH_EVENTS_COUNTED_MAX`], and one more for each kind of cheap event of each tenant.
    slots: HashMap<Slot, Entry>,
    /// The minute in which all that is older was last thrown out.
    swept: Option<i64>,
    /// One entry for each tenant that had cheap events; gone with the tenant.
    cheap: HashMap<TenantId, Cheap>,
}

/// Rows of cheap events of one tenant.
#[derive(Debug, Default)]
struct Cheap {
    minute: i64,
    /// In the present minute.
    rows: u32,
    /// In the file; `None` until somebody has looked.
    kept: Option<usize>,
}

impl Default for AuthJournal {
    fn default() -> Self {
        Self { state: Mutex::default(), writing: watch::Sender::new(0) }
    }
}

impl AuthJournal {
    /// Counts an event; the row to be written for it, unless one stands for it already.
    pub(super) fn count(&self, slot: Slot, now_ms: i64, random: &dyn Random) -> Option<Row> {
        let minute = now_ms.div_euclid(MINUTE_MS);
        let mut state = self.state.lock();
        if state.counts(&slot, minute) {
            return None;
        }
        let slot = if slot.outcome.is_cheap() { state.place(slot, minute)? } else { slot };
        let row = RecordId::generate(random);
        let before = state.slots.remove(&slot);
        let missed = before.as_ref().map_or(0, |entry| entry.missed);
        let earlier = before.filter(|entry| entry.untold > 0).map(|entry| (entry.row, entry.untold));
        if slot.place.is_none() || state.has_room(minute) {
            state.slots.insert(slot.clone(), Entry { minute, row: row.clone(), untold: 0, missed: 0 });
        }
        Some(Row { slot, row, count: missed.saturating_add(1), earlier })
    }

    /// Takes back a row that was not written: its events wait for the next one of their kind.
    pub(super) fn put_back(&self, lost: Row) {
        let mut state = self.state.lock();
        if lost.slot.outcome.is_cheap()
            && let Some(kept) = state.cheap.get_mut(&lost.slot.tenant).and_then(|cheap| cheap.kept.as_mut())
        {
            *kept = kept.saturating_sub(1);
        }
        let (earlier, told_later) = (lost.earlier, lost.count);
        let Some(entry) = state.slots.get_mut(&lost.slot) else { return };
        if entry.row != lost.row {
            // Another minute's row has taken its place and counts them too.
            let more = told_later.saturating_add(earlier.map_or(0, |(_, untold)| untold));
            entry.untold = entry.untold.saturating_add(more);
            return;
        }
        entry.minute = NEVER;
        entry.missed = entry.missed.saturating_add(told_later).saturating_add(std::mem::take(&mut entry.untold));
        if let Some((row, untold)) = earlier {
            (entry.row, entry.untold) = (row, untold);
        }
    }

    /// The events of `tenant` that no row counts yet; they count as told from now on.
    pub(super) fn take_untold(&self, tenant: &TenantId) -> Vec<(RecordId, u32)> {
        let mut state = self.state.lock();
        let own = state.slots.iter_mut().filter(|(slot, entry)| slot.tenant == *tenant && entry.untold > 0);
        own.map(|(_, entry)| (entry.row.clone(), std::mem::take(&mut entry.untold))).collect()
    }

    /// Whether nobody has looked yet how many rows of cheap events the file of `tenant` has.
    pub(super) fn is_new_to(&self, tenant: &TenantId) -> bool {
        self.state.lock().cheap.get(tenant).is_none_or(|cheap| cheap.kept.is_none())
    }

    /// Whether the file of `tenant` has more than `rows` of cheap events, as far as is known; those that expired count too.
    pub(super) fn has_more_than(&self, tenant: &TenantId, rows: usize) -> bool {
        self.state.lock().cheap.get(tenant).and_then(|cheap| cheap.kept).is_some_and(|kept| kept > rows)
    }

    /// Notes that the file of `tenant` has `rows` of cheap events.
    pub(super) fn learn(&self, tenant: &TenantId, rows: usize) {
        self.state.lock().cheap.entry(tenant.clone()).or_default().kept = Some(rows);
    }

    /// Forgets where cheap events of `tenant` are counted, because rows of them were removed.
    pub(super) fn forget_cheap(&self, tenant: &TenantId) {
        let stays = |slot: &Slot, entry: &Entry| entry.untold > 0 || entry.missed > 0 || !slot.outcome.is_cheap();
        self.state.lock().slots.retain(|slot, entry| slot.tenant != *tenant || stays(slot, entry));
    }

    /// Forgets a tenant that is gone.
    pub(super) fn forget(&self, tenant: &TenantId) {
        let mut state = self.state.lock();
        state.slots.retain(|slot, _| slot.tenant != *tenant);
        state.cheap.remove(tenant);
    }

    /// Takes a place among the writes under way; some are kept free of what anybody can cause.
    pub(super) fn begin(self: &Arc<Self>, outcome: Outcome) -> Option<Writing> {
        let places = match outcome.is_cheap() {
            true => limits::AUTH_EVENTS_CHEAP_WRITING_MAX,
            false => limits::AUTH_EVENTS_WRITING_MAX,
        };
        let taken = self.writing.send_if_modified(|writing| {
            let free = *writing < places;
            *writing += usize::from(free);
            free
        });
        taken.then(|| Writing(Arc::clone(self)))
    }

    /// Waits, for a moment at most, until what was noted is written.
    pub(super) async fn written(&self) {
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

    /// The slot whose row a cheap event needs: its own, or past a bound the one of its kind; `None` if that counts it already.
    fn place(&mut self, slot: Slot, minute: i64) -> Option<Slot> {
        let cheap = self.cheap.entry(slot.tenant.clone()).or_default();
        if cheap.minute != minute {
            (cheap.minute, cheap.rows) = (minute, 0);
        }
        let is_full = cheap.kept.is_some_and(|kept| kept >= limits::AUTH_EVENTS_CHEAP_MAX);
        let own = !is_full && cheap.rows < limits::AUTH_EVENTS_PER_MINUTE_MAX && self.has_room(minute);
        let slot = if own { slot } else { Slot { place: None, ..slot } };
        if let Some(entry) = self.slots.get_mut(&slot).filter(|entry| is_full && entry.minute != NEVER) {
            // Full is full: one row counts on from minute to minute.
            entry.minute = minute;
        }
        if !own && self.counts(&slot, minute) {
            return None;
        }
        let cheap = self.cheap.entry(slot.tenant.clone()).or_default();
        cheap.rows = cheap.rows.saturating_add(1);
        cheap.kept = cheap.kept.map(|kept| kept.saturating_add(1));
        Some(slot)
    }

    /// Whether one more row can be counted in; older minutes make room, at last also where they have something to tell.
    fn has_room(&mut self, minute: i64) -> bool {
        let is_full = |state: &Self| state.slots.len() >= limits::AUTH_EVENTS_COUNTED_MAX;
        if is_full(self) && self.swept != Some(minute) {
            self.slots.retain(|_, entry| entry.minute == minute || entry.untold > 0 || entry.missed > 0);
            if is_full(self) {
                self.slots.retain(|_, entry| entry.minute == minute);
                self.swept = Some(minute);
            }
        }
        !is_full(self)
    }
}

/// A place among the writes under way, until it is dropped.
pub(super) struct Writing(Arc<AuthJournal>);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.writing.send_modify(|writing| *writing -= 1);
    }
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
            rows += u32::from(journal.count(slot(&guess.to_string(), Outcome::Failed), 5, &random).is_some());
        }
        assert_eq!(rows, limits::AUTH_EVENTS_PER_MINUTE_MAX + 1);
        let untold = journal.take_untold(&slot("", Outcome::Failed).tenant);
        assert_eq!(untold.len(), 1, "the rest is one row");
        assert_eq!(rows + untold[0].1, 10_000, "and nothing is lost");
        let own = journal.count(slot("ada", Outcome::Ok), 5, &random).unwrap();
        assert!(!own.is_folded(), "who comes in has a row of their own");
    }

    #[test]
    fn the_same_event_counts_up_within_its_minute_and_is_told_with_the_next() {
        let (journal, random) = (AuthJournal::default(), SeededRandom::new(1));
        let first = journal.count(slot("a", Outcome::Failed), 0, &random).expect("a first event is a row");
        assert_eq!(first.earlier, None);
        assert_eq!(journal.count(slot("a", Outcome::Failed), MINUTE_MS - 1, &random), None);
        let next = journal.count(slot("a", Outcome::Failed), MINUTE_MS, &random).expect("another minute, another row");
        assert_eq!(next.earlier, Some((first.row, 1)));
    }

    #[test]
    fn past_the_bound_of_rows_guesses_are_counted_in_one_from_minute_to_minute() {
        let (journal, random) = (AuthJournal::default(), SeededRandom::new(1));
        let tenant = slot("", Outcome::Failed).tenant;
        journal.learn(&tenant, limits::AUTH_EVENTS_CHEAP_MAX - 3);
        let mut rows = 0;
        for guess in 0..5_000 {
            let now_ms = i64::from(guess) * 1_000;
            rows += i32::from(journal.count(slot(&guess.to_string(), Outcome::Failed), now_ms, &random).is_some());
        }
        assert_eq!(rows, 3 + 1);
        assert_eq!(journal.take_untold(&tenant).iter().map(|(_, untold)| *untold).sum::<u32>(), 5_000 - 4);
        let own = journal.count(slot("ada", Outcome::Ok), 0, &random).unwrap();
        assert!(!own.is_folded(), "what strangers did keeps nobody out of the trail");
        journal.learn(&tenant, 0);
        journal.forget_cheap(&tenant);
        assert!(!journal.count(slot("late", Outcome::Failed), 0, &random).unwrap().is_folded());
    }

    /// With the table full, a suspension was one of many events of nobody.
    #[test]
    fn without_memory_to_count_in_whatever_is_not_cheap_has_its_own_row() {
        let (journal, random) = (AuthJournal::default(), SeededRandom::new(1));
        for login in 0..limits::AUTH_EVENTS_COUNTED_MAX {
            journal.count(slot(&login.to_string(), Outcome::Ok), 0, &random).unwrap();
            // Each has something to tell.
            assert_eq!(journal.count(slot(&login.to_string(), Outcome::Ok), 0, &random), None);
        }
        for _ in 0..2 {
            let more = journal.count(slot("one more", Outcome::Ok), 1, &random).expect("its row is written");
            assert!(!more.is_folded());
        }
        let len = || journal.state.lock().slots.len();
        assert_eq!(len(), limits::AUTH_EVENTS_COUNTED_MAX);
        let guess = |name: &i32| journal.count(slot(&name.to_string(), Outcome::Failed), 1, &random).is_some();
        assert_eq!((0..100).filter(guess).count(), 1, "what is cheap is counted in one row");
        journal.count(slot("one more", Outcome::Ok), MINUTE_MS, &random).unwrap();
        assert_eq!(len(), 1, "earlier minutes make room");
        assert_eq!(journal.count(slot("one more", Outcome::Ok), MINUTE_MS, &random), None);
        journal.forget(&slot("", Outcome::Ok).tenant);
        assert_eq!(len(), 0, "a tenant that is gone is forgotten");
    }

    /// Guesses took every place, and the suspension beside them had no row.
    #[test]
    fn guesses_leave_places_for_what_is_not_cheap() {
        let journal = Arc::new(AuthJournal::default());
        let mut guesses = Vec::new();
        while let Some(place) = journal.begin(Outcome::Failed) {
            guesses.push(place);
        }
        assert_eq!(guesses.len(), limits::AUTH_EVENTS_CHEAP_WRITING_MAX);
        let mut others = Vec::new();
        while let Some(place) = journal.begin(Outcome::Ok) {
            others.push(place);
        }
        assert_eq!(guesses.len() + others.len(), limits::AUTH_EVENTS_WRITING_MAX);
        drop(others);
        assert!(journal.begin(Outcome::Throttled).is_none() && journal.begin(Outcome::Refused).is_some());
    }

    /// A row that could not be written went on standing for its minute.
    #[test]
    fn what_was_not_written_is_counted_by_the_next_row() {
        let (journal, random) = (AuthJournal::default(), SeededRandom::new(1));
        let told = journal.count(slot("a", Outcome::Failed), 0, &random).unwrap();
        assert_eq!(journal.count(slot("a", Outcome::Failed), 0, &random), None);
        let lost = journal.count(slot("a", Outcome::Failed), MINUTE_MS, &random).unwrap();
        assert_eq!(journal.count(slot("a", Outcome::Failed), MINUTE_MS, &random), None);
        journal.put_back(lost);
        let next = journal.count(slot("a", Outcome::Failed), MINUTE_MS, &random).expect("the same minute, again a row");
        assert_eq!((next.count, next.earlier.clone()), (3, Some((told.row, 1))));
        let other = journal.count(slot("a", Outcome::Failed), 2 * MINUTE_MS, &random).unwrap();
        journal.put_back(next);
        let untold = journal.take_untold(&other.slot.tenant);
        assert_eq!(untold, [(other.row, 4)], "also when another minute has come");
    }
}
