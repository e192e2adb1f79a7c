//! From a row to JSON bytes, without a tree in between.
//!
//! Keeps true: the output of [`write_cell_json`] is one valid JSON value for every cell, whatever a view's SELECT makes.
//! Does not do: choosing fields or hiding them.

use super::Collection;
use super::field::Storage;
use crate::kernel::value::{self, Cell};

/// Writes `cell`, kept as `storage`, as one JSON value.
///
/// Lists, documents and points are stored as JSON and pass through unchanged.
pub fn write_cell_json(out: &mut Vec<u8>, storage: Storage, cell: Cell<'_>) {
    match (storage, cell) {
        (Storage::Text, Cell::Text(text)) => write_string(out, text),
        (Storage::Number, Cell::Real(number)) => value::write_json_number(out, number),
        (Storage::Number, Cell::Integer(number)) => write_integer(out, number),
        (Storage::Bool, Cell::Integer(flag)) => out.extend_from_slice(if flag == 0 { b"false" } else { b"true" }),
        (Storage::List | Storage::Json | Storage::Point, Cell::Text(text)) => write_document(out, storage, text),
        (storage, cell) => write_unusual(out, storage, cell),
    }
}

fn write_document(out: &mut Vec<u8>, storage: Storage, text: &str) {
    if text.is_empty() {
        write_empty(out, storage);
    } else {
        out.extend_from_slice(text.as_bytes());
    }
}

/// Cells that only views produce: NULLs of outer joins, numbers in text columns and the like.
fn write_unusual(out: &mut Vec<u8>, storage: Storage, cell: Cell<'_>) {
    match (storage, cell) {
        (_, Cell::Null) => write_empty(out, storage),
        (Storage::Text, Cell::Integer(number)) => write_string(out, &number.to_string()),
        (Storage::Text, Cell::Real(number)) => {
            out.push(b'"');
            value::write_json_number(out, number);
            out.push(b'"');
        }
        (Storage::Number, Cell::Text(text)) => value::write_json_number(out, text.trim().parse().unwrap_or(0.0)),
        (Storage::Bool, Cell::Real(number)) => out.extend_from_slice(if number == 0.0 { b"false" } else { b"true" }),
        (Storage::Bool, Cell::Text(text)) => {
            out.extend_from_slice(if matches!(text, "1" | "true") { b"true" } else { b"false" });
        }
        (Storage::Json, Cell::Integer(number)) => write_integer(out, number),
        (Storage::Json, Cell::Real(number)) => value::write_json_number(out, number),
        _ => write_empty(out, storage),
    }
}

fn write_empty(out: &mut Vec<u8>, storage: Storage) {
    out.extend_from_slice(match storage {
        Storage::Text => b"\"\"",
        Storage::Number => b"0",
        Storage::Bool => b"false",
        Storage::List => b"[]",
        Storage::Json => b"null",
        Storage::Point => b"{\"lon\":0,\"lat\":0}",
    });
}

fn write_integer(out: &mut Vec<u8>, number: i64) {
    use std::io::Write as _;
    // Writing into a Vec cannot fail.
    let _ = write!(out, "{number}");
}

/// Writes `text` as a JSON string: quotes, backslashes and control characters escaped, the rest as it is (RFC 8259, 7).
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.reserve(text.len() + 2);
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(bytes.get(from..at).unwrap_or_default());
        from = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                let hex = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]);
            }
        }
    }
    out.extend_from_slice(bytes.get(from..).unwrap_or_default());
    out.push(b'"');
}

/// The bytes with which every record of `collection` begins, up to and without the comma before the next member:
/// `{"collectionId":"…","collectionName":"…"`. Worth keeping beside a plan.
pub fn record_prefix(collection: &Collection) -> Vec<u8> {
    let mut out = Vec::with_capacity(80);
    out.extend_from_slice(b"{\"collectionId\":");
    write_string(&mut out, collection.id.as_str());
    out.extend_from_slice(b",\"collectionName\":");
    write_string(&mut out, collection.name.as_str());
    out
}

/// Writes `,"name":`, after which one value follows. Names are plain ASCII and need no escaping.
pub fn write_member(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn printed(storage: Storage, cell: Cell<'_>) -> String {
        let mut out = Vec::new();
        write_cell_json(&mut out, storage, cell);
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn strings_read_back_as_they_were(text in any::<String>()) {
            let mut out = Vec::new();
            write_string(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn every_storage_prints_valid_json_for_every_cell() {
        let cells =
            [Cell::Null, Cell::Integer(3), Cell::Real(2.5), Cell::Text(""), Cell::Text("[]"), Cell::Blob(b"\xff")];
        for storage in [Storage::Text, Storage::Number, Storage::Bool, Storage::List, Storage::Json, Storage::Point] {
            for cell in cells {
                let text = printed(storage, cell);
                assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{storage:?} {cell:?} gave {text}");
            }
        }
        assert_eq!(printed(Storage::Bool, Cell::Integer(1)), "true");
        assert_eq!(printed(Storage::Number, Cell::Real(7.0)), "7");
        assert_eq!(printed(Storage::List, Cell::Text("[\"a\"]")), "[\"a\"]");
        assert_eq!(printed(Storage::Text, Cell::Text("a\"b\u{1}")), "\"a\\\"b\\u0001\"");
    }
}
