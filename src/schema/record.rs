//! A record's stored values outside of SQLite: what the evaluator, the log and the write path hand around.
//!
//! Keeps true: at most one value per field number, sorted by number.
//! Does not do: JSON, checking, access.

use crate::kernel::ident::{FieldNumber, RecordId};
use crate::kernel::value::Stored;

/// One record: its id and the stored value of every field that has one.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordImage {
    /// The record id.
    pub id: RecordId,
    values: Vec<(FieldNumber, Stored)>,
}

impl RecordImage {
    /// Puts values together; the last of two values for one field stays.
    pub fn new(id: RecordId, values: impl IntoIterator<Item = (FieldNumber, Stored)>) -> Self {
        let mut image = Self { id, values: Vec::new() };
        for (number, value) in values {
            image.set(number, value);
        }
        image
    }

    /// The value of a field, if it has one. Number 0, the id, is not in here.
    pub fn get(&self, number: FieldNumber) -> Option<&Stored> {
        self.values
            .binary_search_by_key(&number, |(n, _)| *n)
            .ok()
            .and_then(|at| self.values.get(at))
            .map(|(_, value)| value)
    }

    /// Sets the value of a field.
    pub fn set(&mut self, number: FieldNumber, value: Stored) {
        match self.values.binary_search_by_key(&number, |(n, _)| *n) {
            Ok(at) => {
                if let Some(slot) = self.values.get_mut(at) {
                    slot.1 = value;
                }
            }
            Err(at) => self.values.insert(at, (number, value)),
        }
    }

    /// Every value, by rising field number.
    pub fn values(&self) -> &[(FieldNumber, Stored)] {
        &self.values
    }
}
