//! Keyset paging: the cursor, its signed text form, and what it is bound to.
//!
//! Keeps true: a cursor works only for the tenant, collection, filter, search and sort it was made for, and only if
//! this node's key signed it; decoding any bytes answers or refuses, and never panics.
//! Does not do: the key (a [`CursorSigner`] is handed in), SQL (that is `plan`).
//!
//! ```text
//! text = base64url( version u8 = 1 | direction u8 | count u8 | value* | tag [16] )
//! value = 0 | 1 i64 | 2 f64 | 3 len u32 utf-8      big endian
//! tag = first 16 bytes of sign( version … values | binding digest input )
//! ```

use crate::kernel::value::Stored;
use crate::query::error::{Problem, QueryError, Surface};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Signs cursors; the key stays where secrets are.
pub trait CursorSigner {
    /// A keyed digest of `message` (HMAC-SHA256).
    fn sign(&self, message: &[u8]) -> [u8; 32];
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
}

const VERSION: u8 = 1;
const TAG_LEN: usize = 16;
const KEYS_MAX: usize = 16;
const TEXT_BYTES_MAX: usize = 16 * 1024;

impl Cursor {
    /// The opaque text of the cursor.
    pub fn encode(&self, signer: &dyn CursorSigner, binding: &CursorBinding<'_>) -> String {
        let mut bytes = vec![VERSION, u8::from(self.direction == Direction::Backward)];
        bytes.push(u8::try_from(self.keys.len()).unwrap_or(u8::MAX));
        for key in &self.keys {
            write_value(&mut bytes, key);
        }
        let tag = signer.sign(&message(&bytes, binding));
        bytes.extend(tag.iter().take(TAG_LEN));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a cursor's text; refuses whatever this key did not sign for this binding.
    pub fn decode(text: &[u8], signer: &dyn CursorSigner, binding: &CursorBinding<'_>) -> Result<Self, QueryError> {
        Self::decode_checked(text, signer, binding)
            .ok_or_else(|| QueryError::whole(Surface::Cursor, Problem::ForeignCursor))
    }

    fn decode_checked(text: &[u8], signer: &dyn CursorSigner, binding: &CursorBinding<'_>) -> Option<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (body, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG_LEN)?)?;
        let expected = signer.sign(&message(body, binding));
        // Every byte is looked at, so the time taken says nothing about where a forgery goes wrong.
        let difference = tag.iter().zip(expected).fold(0_u8, |seen, (a, b)| seen | (a ^ b));
        if difference != 0 {
            return None;
        }
        let mut reader = body;
        if read_byte(&mut reader)? != VERSION {
            return None;
        }
        let direction = match read_byte(&mut reader)? {
            0 => Direction::Forward,
            1 => Direction::Backward,
            _ => return None,
        };
        let count = usize::from(read_byte(&mut reader)?);
        if count > KEYS_MAX {
            return None;
        }
        let keys = (0..count).map(|_| read_value(&mut reader)).collect::<Option<Vec<_>>>()?;
        reader.is_empty().then_some(Self { direction, keys })
    }
}

/// A sort as text, for [`CursorBinding::sort`].
pub fn sort_text(sort: &[crate::query::list::SortKey]) -> String {
    let keys: Vec<String> =
        sort.iter().map(|key| format!("{}{}", if key.descending { "-" } else { "" }, key.path)).collect();
    keys.join(",")
}

/// What is signed; lengths stand before each text, so that no two bindings give the same bytes.
fn message(body: &[u8], binding: &CursorBinding<'_>) -> Vec<u8> {
    let mut message = b"tenantry cursor\0".to_vec();
    for part in [binding.tenant, binding.collection, binding.filter, binding.search, binding.sort] {
        message.extend((part.len() as u64).to_be_bytes());
        message.extend(part.as_bytes());
    }
    message.extend(body);
    message
}

fn write_value(bytes: &mut Vec<u8>, value: &Stored) {
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
            bytes.push(3);
            bytes.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend(text.as_bytes());
        }
        // No column holds blobs; a cursor over one would start from nothing.
        Stored::Null | Stored::Blob(_) => bytes.push(0),
    }
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

fn read_value(reader: &mut &[u8]) -> Option<Stored> {
    match read_byte(reader)? {
        0 => Some(Stored::Null),
        1 => Some(Stored::Integer(i64::from_be_bytes(read_array(reader)?))),
        2 => Some(Stored::Real(f64::from_be_bytes(read_array(reader)?))),
        3 => {
            let len = usize::try_from(u32::from_be_bytes(read_array(reader)?)).ok()?;
            let (taken, rest) = reader.split_at_checked(len)?;
            *reader = rest;
            Some(Stored::text(std::str::from_utf8(taken).ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Toy(u8);

    impl CursorSigner for Toy {
        fn sign(&self, message: &[u8]) -> [u8; 32] {
            *blake3::keyed_hash(&[self.0; 32], message).as_bytes()
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
            let cursor = Cursor { direction, keys };
            let text = cursor.encode(&Toy(1), &HERE);
            prop_assert_eq!(Cursor::decode(text.as_bytes(), &Toy(1), &HERE), Ok(cursor));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Cursor::decode(&bytes, &Toy(1), &HERE);
            let _ = Cursor::decode(URL_SAFE_NO_PAD.encode(&bytes).as_bytes(), &Toy(1), &HERE);
            // With a right tag the reader behind the check sees the bytes too.
            let mut signed = bytes.clone();
            signed.extend(&Toy(1).sign(&message(&bytes, &HERE))[..TAG_LEN]);
            let _ = Cursor::decode(URL_SAFE_NO_PAD.encode(&signed).as_bytes(), &Toy(1), &HERE);
        }

        #[test]
        fn a_changed_byte_is_noticed(at in 0_usize..30, flip in 1_u8..=255) {
            let cursor = Cursor { direction: Direction::Forward, keys: vec![Stored::text("abcdef"), Stored::Integer(7)] };
            let mut bytes = URL_SAFE_NO_PAD.decode(cursor.encode(&Toy(1), &HERE)).expect("valid");
            let at = at % bytes.len();
            bytes[at] ^= flip;
            prop_assert!(Cursor::decode(URL_SAFE_NO_PAD.encode(&bytes).as_bytes(), &Toy(1), &HERE).is_err());
        }
    }

    #[test]
    fn cursors_do_not_travel() {
        let cursor = Cursor { direction: Direction::Forward, keys: vec![Stored::text("x")] };
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
