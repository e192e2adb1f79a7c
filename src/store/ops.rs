//! Compaction inside one transaction: whatever a request did, the log gets at most one operation per record and field.
//!
//! Keeps true: applying the compacted operations to the state before gives the state after; before-images are those of
//! the transaction's start; a record that came and went leaves nothing. Does not do: SQL.
//!
//! A schema change closes what was gathered so far, so operations before it are replayed against the schema they saw.

use super::changelog::{LogOp, SchemaChange};
use super::options::{Touch, TouchOp};
use crate::kernel::ident::{CollectionId, FieldNumber, RecordId};
use crate::kernel::value::Stored;
use crate::schema::record::RecordImage;
use indexmap::IndexMap;
use std::collections::BTreeMap;

/// The operations of one request, in the order in which records were first touched.
#[derive(Debug, Default)]
pub(super) struct OpSet {
    closed: Vec<LogOp>,
    closed_touches: Vec<Touch>,
    open: IndexMap<(CollectionId, RecordId), Entry>,
    count: usize,
    pub(super) schema_changed: bool,
}

#[derive(Debug)]
struct Entry {
    state: State,
    partitions: Vec<Stored>,
}

#[derive(Debug)]
enum State {
    New(RecordImage),
    Changed(BTreeMap<FieldNumber, Change>),
    Deleted(RecordImage),
    Replaced(RecordImage, RecordImage),
    Gone,
}

#[derive(Debug)]
enum Change {
    Set { value: Stored, before: Stored },
    Inc { delta: f64, before: Stored },
}

impl OpSet {
    /// Calls that added something; a bound on the transaction, not the length of the log record.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn insert(&mut self, collection: &CollectionId, record: RecordImage, partition: Option<Stored>) {
        let entry = self.entry(collection, &record.id, partition);
        entry.state = match std::mem::replace(&mut entry.state, State::Gone) {
            State::Deleted(before) => State::Replaced(before, record),
            _ => State::New(record),
        };
    }

    pub(super) fn set(
        &mut self,
        collection: &CollectionId,
        id: &RecordId,
        field: FieldNumber,
        value: Stored,
        before: Stored,
    ) {
        match &mut self.entry(collection, id, None).state {
            State::New(record) | State::Replaced(_, record) => record.set(field, value),
            State::Changed(changes) => {
                let before = match changes.remove(&field) {
                    Some(Change::Set { before, .. } | Change::Inc { before, .. }) => before,
                    None => before,
                };
                changes.insert(field, Change::Set { value, before });
            }
            other => *other = State::Changed(BTreeMap::from([(field, Change::Set { value, before })])),
        }
    }

    /// What earlier increments of this transaction amount to, and the value before them, if the log will hold them as one
    /// amount. Numbers are not associative, so the row must be counted the way the log will be replayed.
    pub(super) fn pending(
        &self,
        collection: &CollectionId,
        id: &RecordId,
        field: FieldNumber,
    ) -> Option<(f64, &Stored)> {
        let State::Changed(changes) = &self.open.get(&(collection.clone(), id.clone()))?.state else { return None };
        match changes.get(&field)? {
            Change::Inc { delta, before } => Some((*delta, before)),
            Change::Set { .. } => None,
        }
    }

    pub(super) fn increment(
        &mut self,
        collection: &CollectionId,
        id: &RecordId,
        field: FieldNumber,
        delta: f64,
        before: Stored,
    ) {
        let after = Stored::Real(before.as_number().unwrap_or(0.0) + delta);
        match &mut self.entry(collection, id, None).state {
            State::New(record) | State::Replaced(_, record) => record.set(field, after),
            State::Changed(changes) => {
                let change = match changes.remove(&field) {
                    Some(Change::Set { before, .. }) => Change::Set { value: after, before },
                    Some(Change::Inc { delta: earlier, before }) => Change::Inc { delta: earlier + delta, before },
                    None => Change::Inc { delta, before },
                };
                changes.insert(field, change);
            }
            other => *other = State::Changed(BTreeMap::from([(field, Change::Inc { delta, before })])),
        }
    }

    /// `present` is the record as it was right before the delete.
    pub(super) fn delete(&mut self, collection: &CollectionId, present: RecordImage, partition: Option<Stored>) {
        let entry = self.entry(collection, &present.id, partition);
        entry.state = match std::mem::replace(&mut entry.state, State::Gone) {
            State::New(_) => State::Gone,
            State::Replaced(before, _) => State::Deleted(before),
            State::Changed(changes) => State::Deleted(rewind(present, changes)),
            _ => State::Deleted(present),
        };
    }

    /// Notes old and new value of the partition field of a record.
    pub(super) fn partition(&mut self, collection: &CollectionId, id: &RecordId, value: Stored) {
        if let Some(entry) = self.open.get_mut(&(collection.clone(), id.clone()))
            && !entry.partitions.contains(&value)
        {
            entry.partitions.push(value);
        }
    }

    pub(super) fn schema(&mut self, change: SchemaChange) {
        self.close();
        self.schema_changed = true;
        self.closed.push(LogOp::Schema(change));
    }

    /// The log record's operations and what observers are told; `lsn` is the position the record will have.
    pub(super) fn finish(mut self, lsn: i64) -> (Vec<LogOp>, Vec<Touch>) {
        self.close();
        for touch in &mut self.closed_touches {
            touch.lsn = lsn;
        }
        (self.closed, self.closed_touches)
    }

    fn entry(&mut self, collection: &CollectionId, id: &RecordId, partition: Option<Stored>) -> &mut Entry {
        self.count += 1;
        let entry = self
            .open
            .entry((collection.clone(), id.clone()))
            .or_insert_with(|| Entry { state: State::Changed(BTreeMap::new()), partitions: Vec::new() });
        if let Some(value) = partition
            && !entry.partitions.contains(&value)
        {
            entry.partitions.push(value);
        }
        entry
    }

    fn close(&mut self) {
        for ((collection, id), entry) in self.open.drain(..) {
            let op = match &entry.state {
                State::New(_) => TouchOp::Insert,
                State::Changed(changes) if changes.is_empty() => continue,
                State::Changed(_) | State::Replaced(..) => TouchOp::Update,
                State::Deleted(_) => TouchOp::Delete,
                State::Gone => continue,
            };
            emit(&mut self.closed, &collection, &id, entry.state);
            let touch = Touch { collection, record: id, op, partitions: entry.partitions, lsn: 0 };
            self.closed_touches.push(touch);
        }
    }
}

fn emit(out: &mut Vec<LogOp>, collection: &CollectionId, id: &RecordId, state: State) {
    let collection = collection.clone();
    match state {
        State::Gone => {}
        State::New(record) => out.push(LogOp::New { collection, record }),
        State::Deleted(before) => out.push(LogOp::Del { collection, before }),
        State::Replaced(before, record) => {
            out.push(LogOp::Del { collection: collection.clone(), before });
            out.push(LogOp::New { collection, record });
        }
        State::Changed(changes) => out.extend(changes.into_iter().map(|(field, change)| {
            let (collection, id) = (collection.clone(), id.clone());
            match change {
                Change::Set { value, before } => LogOp::Set { collection, id, field, value, before },
                Change::Inc { delta, before } => LogOp::Inc { collection, id, field, delta, before },
            }
        })),
    }
}

fn rewind(mut present: RecordImage, changes: BTreeMap<FieldNumber, Change>) -> RecordImage {
    for (field, change) in changes {
        let (Change::Set { before, .. } | Change::Inc { before, .. }) = change;
        present.set(field, before);
    }
    present
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collection() -> CollectionId {
        CollectionId::parse("notes").unwrap()
    }

    fn id(text: &str) -> RecordId {
        RecordId::parse(text).unwrap()
    }

    fn image(text: &str, value: f64) -> RecordImage {
        RecordImage::new(id(text), [(FieldNumber(1), Stored::Real(value))])
    }

    #[test]
    fn a_record_that_came_and_went_leaves_nothing() {
        let mut ops = OpSet::default();
        ops.insert(&collection(), image("a", 1.0), None);
        ops.delete(&collection(), image("a", 1.0), None);
        let (log, touches) = ops.finish(1);
        assert!(log.is_empty() && touches.is_empty());
    }

    #[test]
    fn changes_of_a_new_record_fold_into_it() {
        let mut ops = OpSet::default();
        ops.insert(&collection(), image("a", 1.0), None);
        ops.increment(&collection(), &id("a"), FieldNumber(1), 2.0, Stored::Real(1.0));
        let (log, _) = ops.finish(1);
        assert_eq!(log, vec![LogOp::New { collection: collection(), record: image("a", 3.0) }]);
    }

    #[test]
    fn one_operation_per_field_with_the_first_before_image() {
        let mut ops = OpSet::default();
        ops.increment(&collection(), &id("a"), FieldNumber(1), 2.0, Stored::Real(1.0));
        ops.increment(&collection(), &id("a"), FieldNumber(1), 3.0, Stored::Real(3.0));
        ops.set(&collection(), &id("b"), FieldNumber(1), Stored::Real(5.0), Stored::Real(4.0));
        ops.increment(&collection(), &id("b"), FieldNumber(1), 1.0, Stored::Real(5.0));
        let (log, touches) = ops.finish(9);
        assert_eq!(
            log,
            vec![
                LogOp::Inc {
                    collection: collection(),
                    id: id("a"),
                    field: FieldNumber(1),
                    delta: 5.0,
                    before: Stored::Real(1.0)
                },
                LogOp::Set {
                    collection: collection(),
                    id: id("b"),
                    field: FieldNumber(1),
                    value: Stored::Real(6.0),
                    before: Stored::Real(4.0)
                },
            ]
        );
        assert!(touches.iter().all(|touch| touch.lsn == 9 && touch.op == TouchOp::Update));
    }

    #[test]
    fn a_deleted_record_is_kept_as_it_was_before_the_transaction() {
        let mut ops = OpSet::default();
        ops.set(&collection(), &id("a"), FieldNumber(1), Stored::Real(7.0), Stored::Real(1.0));
        ops.delete(&collection(), image("a", 7.0), None);
        ops.insert(&collection(), image("a", 9.0), None);
        ops.delete(&collection(), image("a", 9.0), None);
        let (log, _) = ops.finish(1);
        assert_eq!(log, vec![LogOp::Del { collection: collection(), before: image("a", 1.0) }]);
    }
}
