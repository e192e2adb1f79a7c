//! Keyset paging: the cursor, its sealed text form, and what it is bound to.
//!
//! Keeps true: a cursor works only for the tenant, collection, filter, search and sort it was made for, and only if
//! this node's key sealed it; what stands in it (the order of creation counts rows that a rule hides) is not readable;
//! the same place always gives the same text; decoding any bytes answers or refuses, and never panics.
//! Does not do: the key (a [`CursorSealer`] is handed in), SQL (that is `plan`).
//!
//! ```text
//! text  = base64url( version u8 = 2 | seal( binding, plain ) )
//! plain = direction u8 | count u8 | value*
//! value = 0 | 1 i64 | 2 f64 | 3 len u32 utf-8 | 4 len u32 utf-8      big endian; 4 is the beginning of a longer text
//! ```

use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::query::error::{Problem, QueryError, Surface};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Seals cursors; the key stays where secrets are.
pub trait CursorSealer {
    /// Encrypts and authenticates `plain` together with `bound`; the same input gives the same bytes.
    fn seal(&self, bound: &[u8], plain: &[u8]) -> Vec<u8>;
    /// What was sealed together with `bound`; `None` for everything else.
    fn open(&self, bound: &[u8], sealed: &[u8]) -> Option<Vec<u8>>;
}

/// What a cursor is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CursorBinding<'b> {
    /// The tenant's id.
    pub tenant: &'b str,
    /// The collection's id.
    pub collection: &'b str,
    /// The filter's text, empty for none.
    pub filter: &'b str,
    /// The search's text, empty for none.
    pub search: &'b str,
    /// The sort as [`sort_text`] writes it.
    pub sort: &'b str,
}

/// Which way the page lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Rows after the keys.
    Forward,
    /// Rows before the keys.
    Backward,
}

/// A place between two rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Cursor {
    /// Which way to go from here.
    pub direction: Direction,
    /// The sort keys of the row next to the place.
    pub keys: Vec<Stored>,
    /// Places in `keys` of texts of which only the beginning is here.
    pub cut: Vec<usize>,
}

const VERSION: u8 = 2;
const KEYS_MAX: usize = 16;

const _: () = assert!(limits::SORT_FIELDS_MAX < KEYS_MAX);

impl Cursor {
    /// The place next to the row with these keys.
    pub const fn new(direction: Direction, keys: Vec<Stored>) -> Self {
        Self { direction, keys, cut: Vec::new() }
    }

    /// The opaque text of the cursor; of long keys it holds the beginning.
    pub fn encode(&self, sealer: &dyn CursorSealer, binding: &CursorBinding<'_>) -> String {
        let mut plain = vec![u8::from(self.direction == Direction::Backward)];
        plain.push(u8::try_from(self.keys.len()).unwrap_or(u8::MAX));
        for (place, key) in self.keys.iter().enumerate() {
            write_value(&mut plain, key, self.cut.contains(&place));
        }
        let mut bytes = vec![VERSION];
        bytes.extend(sealer.seal(&bound(binding), &plain));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a cursor's text; refuses whatever this key did not seal for this binding.
    pub fn decode(text: &[u8], sealer: &dyn CursorSealer, binding: &CursorBinding<'_>) -> Result<Self, QueryError> {
        Self::decode_checked(text, sealer, binding)
            .ok_or_else(|| QueryError::whole(Surface::Cursor, Problem::ForeignCursor))
    }

    fn decode_checked(text: &[u8], sealer: &dyn CursorSealer, binding: &CursorBinding<'_>) -> Option<Self> {
        if text.len() > limits::CURSOR_TEXT_BYTES_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let sealed = bytes.strip_prefix(&[VERSION])?;
        let plain = sealer.open(&bound(binding), sealed)?;
        let mut reader = plain.as_slice();
        let direction = match read_byte(&mut reader)? {
            0 => Direction::Forward,
            1 => Direction::Backward,
            _ => return None,
        };
        let count = usize::from(read_byte(&mut reader)?);
        if count > KEYS_MAX {
            return None;
        }
        let (mut keys, mut cut) = (Vec::with_capacity(count), Vec::new());
        for place in 0..count {
            let (key, is_cut) = read_value(&mut reader)?;
            keys.push(key);
            if is_cut {
                cut.push(place);
            }
        }
        reader.is_empty().then_some(Self { direction, keys, cut })
    }
}

/// A sort as text, for [`CursorBinding::sort`].
pub fn sort_text(sort: &[crate::query::list::SortKey]) -> String {
    let keys: Vec<String> =
        sort.iter().map(|key| format!("{}{}", if key.descending { "-" } else { "" }, key.path)).collect();
    keys.join(",")
}

/// What is sealed in; lengths stand before each text, so that no two bindings give the same bytes.
fn bound(binding: &CursorBinding<'_>) -> Vec<u8> {
    let mut bound = b"tenantry cursor\0".to_vec();
    bound.push(VERSION);
    for part in [binding.tenant, binding.collection, binding.filter, binding.search, binding.sort] {
        bound.extend((part.len() as u64).to_be_bytes());
        bound.extend(part.as_bytes());
    }
    bound
}

fn write_value(bytes: &mut Vec<u8>, value: &Stored, cut: bool) {
    match value {
        Stored::Integer(number) => {
            bytes.push(1);
            bytes.extend(number.to_be_bytes());
        }
        Stored::Real(number) => {
            bytes.push(2);
            bytes.extend(number.to_be_bytes());
        }
        Stored::Text(text) => {
            let kept = beginning(text);
            bytes.push(if cut || kept.len() < text.len() { 4 } else { 3 });
            bytes.extend(u32::try_from(kept.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend(kept.as_bytes());
        }
        // No column holds blobs; a cursor over one would start from nothing.
        Stored::Null | Stored::Blob(_) => bytes.push(0),
    }
}

/// As much of a text as a cursor holds.
fn beginning(text: &str) -> &str {
    let mut end = text.len().min(limits::CURSOR_KEY_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

fn read_byte(reader: &mut &[u8]) -> Option<u8> {
    let (first, rest) = reader.split_first()?;
    *reader = rest;
    Some(*first)
}

fn read_array<const N: usize>(reader: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = reader.split_first_chunk::<N>()?;
    *reader = rest;
    Some(*taken)
}

/// A value, and whether it is the beginning of a longer one.
fn read_value(reader: &mut &[u8]) -> Option<(Stored, bool)> {
    let kind = read_byte(reader)?;
    let value = match kind {
        0 => Stored::Null,
        1 => Stored::Integer(i64::from_be_bytes(read_array(reader)?)),
        2 => Stored::Real(f64::from_be_bytes(read_array(reader)?)),
        3 | 4 => {
            let len = usize::try_from(u32::from_be_bytes(read_array(reader)?)).ok()?;
            let (taken, rest) = reader.split_at_checked(len)?;
            *reader = rest;
            Stored::text(std::str::from_utf8(taken).ok()?)
        }
        _ => return None,
    };
    Some((value, kind == 4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Hides nothing, but is keyed and bound like a real one.
    struct Toy(u8);

    impl Toy {
        fn tag(&self, bound: &[u8], plain: &[u8]) -> Vec<u8> {
            let mut message = bound.to_vec();
            message.extend(plain);
            blake3::keyed_hash(&[self.0; 32], &message).as_bytes()[..16].to_vec()
        }
    }

    impl CursorSealer for Toy {
        fn seal(&self, bound: &[u8], plain: &[u8]) -> Vec<u8> {
            let mut sealed = plain.to_vec();
            sealed.extend(self.tag(bound, plain));
            sealed
        }

        fn open(&self, bound: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
            let (plain, tag) = sealed.split_at_checked(sealed.len().checked_sub(16)?)?;
            (self.tag(bound, plain) == tag).then(|| plain.to_vec())
        }
    }

    const HERE: CursorBinding<'_> =
        CursorBinding { tenant: "t", collection: "c", filter: "a = 1", search: "", sort: "-a" };

    fn any_value() -> impl Strategy<Value = Stored> {
        prop_oneof![
            Just(Stored::Null),
            any::<i64>().prop_map(Stored::Integer),
            (-1e12_f64..1e12).prop_map(Stored::Real),
            "\\PC{0,20}".prop_map(|text| Stored::text(&text)),
        ]
    }

    proptest! {
        #[test]
        fn cursors_come_back(keys in prop::collection::vec(any_value(), 0..9), back in any::<bool>()) {
            let direction = if back { Direction::Backward } else { Direction::Forward };
            let cursor = Cursor::new(direction, keys);
            let text = cursor.encode(&Toy(1), &HERE);
            prop_assert_eq!(Cursor::decode(text.as_bytes(), &Toy(1), &HERE), Ok(cursor));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Cursor::decode(&bytes, &Toy(1), &HERE);
            let _ = Cursor::decode(URL_SAFE_NO_PAD.encode(&bytes).as_bytes(), &Toy(1), &HERE);
            // Rightly sealed, the reader behind the check sees the bytes too.
            let mut sealed = vec![VERSION];
            sealed.extend(Toy(1).seal(&bound(&HERE), &bytes));
            let _ = Cursor::decode(URL_SAFE_NO_PAD.encode(&sealed).as_bytes(), &Toy(1), &HERE);
        }

        #[test]
        fn of_long_keys_the_beginning_comes_back(long in prop::collection::vec(any::<char>(), 0..700), short in "\\PC{0,20}") {
            let long: String = long.into_iter().collect();
            let cursor = Cursor::new(Direction::Forward, vec![Stored::text(&long), Stored::text(&short)]);
            let text = cursor.encode(&Toy(1), &HERE);
            prop_assert!(text.len() <= limits::CURSOR_TEXT_BYTES_MAX);
            let back = Cursor::decode(text.as_bytes(), &Toy(1), &HERE).expect("valid");
            let kept = back.keys[0].as_text().expect("text");
            prop_assert!(long.starts_with(kept) && back.keys[1] == Stored::text(&short));
            prop_assert_eq!(back.cut.clone(), if kept == long { vec![] } else { vec![0] });
            prop_assert!(kept == long || kept.len() + 4 > limits::CURSOR_KEY_BYTES_MAX);
            // What was cut stays cut.
            prop_assert_eq!(back.encode(&Toy(1), &HERE), text);
        }

        #[test]
        fn a_changed_byte_is_noticed(at in 0_usize..30, flip in 1_u8..=255) {
            let cursor = Cursor::new(Direction::Forward, vec![Stored::text("abcdef"), Stored::Integer(7)]);
            let mut bytes = URL_SAFE_NO_PAD.decode(cursor.encode(&Toy(1), &HERE)).expect("valid");
            let at = at % bytes.len();
            bytes[at] ^= flip;
            prop_assert!(Cursor::decode(URL_SAFE_NO_PAD.encode(&bytes).as_bytes(), &Toy(1), &HERE).is_err());
        }
    }

    #[test]
    fn cursors_do_not_travel() {
        let cursor = Cursor::new(Direction::Forward, vec![Stored::text("x")]);
        let text = cursor.encode(&Toy(1), &HERE);
        for other in [
            CursorBinding { tenant: "u", ..HERE },
            CursorBinding { collection: "d", ..HERE },
            CursorBinding { filter: "a = 2", ..HERE },
            CursorBinding { search: "word", ..HERE },
            CursorBinding { sort: "a", ..HERE },
            CursorBinding { tenant: "tc", collection: "", ..HERE },
        ] {
            assert!(Cursor::decode(text.as_bytes(), &Toy(1), &other).is_err(), "{other:?}");
        }
        assert!(Cursor::decode(text.as_bytes(), &Toy(2), &HERE).is_err());
    }
}
