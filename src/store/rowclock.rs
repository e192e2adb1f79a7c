//! The row clock `_c`: which write set each field, in 10 bytes for the row and 11 for each field that differs.
//!
//! Keeps true: encoding is canonical (fields rise, none equals the default); decoding refuses anything else and never
//! panics. Origins are the local numbers of `_tn_origin`; they mean nothing outside their file.
//! Does not do: comparing writes; that is the merge rule of replication.

use crate::kernel::ident::FieldNumber;

/// One write as a row remembers it: local origin number and hybrid logical time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Clock2 {
    /// Local number of the origin.
    pub oid: u16,
    /// Hybrid logical time of the transaction.
    pub hlc: i64,
}

/// The clocks of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowClock {
    /// The write that made the row; the clock of every field not listed.
    pub default: Clock2,
    fields: Vec<(FieldNumber, Clock2)>,
}

impl RowClock {
    /// The clock of a row that was just made.
    pub fn new(default: Clock2) -> Self {
        Self { default, fields: Vec::new() }
    }

    /// The clock of one field.
    pub fn get(&self, field: FieldNumber) -> Clock2 {
        match self.fields.binary_search_by_key(&field, |(number, _)| *number) {
            Ok(at) => self.fields.get(at).map_or(self.default, |(_, clock)| *clock),
            Err(_) => self.default,
        }
    }

    /// Notes that `clock` set `field`.
    pub fn set(&mut self, field: FieldNumber, clock: Clock2) {
        let found = self.fields.binary_search_by_key(&field, |(number, _)| *number);
        match (found, clock == self.default) {
            (Ok(at), true) => {
                self.fields.remove(at);
            }
            (Ok(at), false) => {
                if let Some(slot) = self.fields.get_mut(at) {
                    slot.1 = clock;
                }
            }
            (Err(_), true) => {}
            (Err(at), false) => self.fields.insert(at, (field, clock)),
        }
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(10 + 11 * self.fields.len());
        push_clock(&mut out, self.default);
        for (number, clock) in &self.fields {
            push_varint(&mut out, number.0);
            push_clock(&mut out, *clock);
        }
        out
    }

    /// Reads the stored form; `None` if it is not one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (default, mut rest) = take_clock(bytes)?;
        let mut fields: Vec<(FieldNumber, Clock2)> = Vec::new();
        while !rest.is_empty() {
            let (number, after) = take_varint(rest)?;
            let (clock, after) = take_clock(after)?;
            let number = FieldNumber(number);
            if fields.last().is_some_and(|(last, _)| *last >= number) || clock == default {
                return None;
            }
            fields.push((number, clock));
            rest = after;
        }
        Some(Self { default, fields })
    }
}

fn push_clock(out: &mut Vec<u8>, clock: Clock2) {
    out.extend_from_slice(&clock.oid.to_be_bytes());
    out.extend_from_slice(&clock.hlc.to_be_bytes());
}

fn take_clock(bytes: &[u8]) -> Option<(Clock2, &[u8])> {
    let (oid, rest) = bytes.split_first_chunk::<2>()?;
    let (hlc, rest) = rest.split_first_chunk::<8>()?;
    Some((Clock2 { oid: u16::from_be_bytes(*oid), hlc: i64::from_be_bytes(*hlc) }, rest))
}

/// LEB128: one byte for numbers below 128.
fn push_varint(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

fn take_varint(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut number = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((u32::try_from(number).ok()?, bytes.get(index + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_fresh_row_costs_ten_bytes_and_a_changed_field_eleven() {
        let mut clock = RowClock::new(Clock2 { oid: 1, hlc: 7 });
        assert_eq!(clock.encode().len(), 10);
        clock.set(FieldNumber(127), Clock2 { oid: 1, hlc: 8 });
        assert_eq!(clock.encode().len(), 21);
        clock.set(FieldNumber(127), Clock2 { oid: 1, hlc: 7 });
        assert_eq!(clock.encode().len(), 10, "a field back on the default clock costs nothing");
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(sets in prop::collection::vec((any::<u32>(), any::<u16>(), any::<i64>()), 0..20)) {
            let mut clock = RowClock::new(Clock2 { oid: 1, hlc: 1 });
            for (number, oid, hlc) in sets {
                clock.set(FieldNumber(number), Clock2 { oid, hlc });
                prop_assert_eq!(clock.get(FieldNumber(number)), Clock2 { oid, hlc });
            }
            prop_assert_eq!(RowClock::decode(&clock.encode()), Some(clock));
        }

        #[test]
        fn damage_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(clock) = RowClock::decode(&bytes) {
                prop_assert!(clock.encode().len() <= bytes.len());
            }
        }
    }
}
