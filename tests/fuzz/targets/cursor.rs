//! Any bytes are a cursor or a refusal: decoding never panics, whatever stands behind the seal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tenantry::query::page::{Cursor, CursorBinding, CursorSealer};

/// Hides and checks nothing, so that the reader behind the seal is reached.
struct Open;

impl CursorSealer for Open {
    fn seal(&self, _: &[u8], plain: &[u8]) -> Vec<u8> {
        plain.to_vec()
    }

    fn open(&self, _: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        Some(sealed.to_vec())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let binding = CursorBinding { tenant: "t", collection: "c", filter: "", search: "", sort: "" };
    if let Ok(cursor) = Cursor::decode(bytes, &Open, &binding) {
        let text = cursor.encode(&Open, &binding);
        // Compared as text: a key may be a number that equals nothing.
        let again = Cursor::decode(text.as_bytes(), &Open, &binding).expect("what was encoded is decoded");
        assert_eq!(again.encode(&Open, &binding), text);
    }
});
