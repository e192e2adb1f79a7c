//! Any bytes are a cursor or a refusal: decoding never panics, with or without a right signature.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tenantry::query::page::{Cursor, CursorBinding, CursorSigner};

/// Signs everything alike, so that the reader behind the signature check is reached as well.
struct Constant;

impl CursorSigner for Constant {
    fn sign(&self, _: &[u8]) -> [u8; 32] {
        [b'A'; 32]
    }
}

fuzz_target!(|bytes: &[u8]| {
    let binding = CursorBinding { tenant: "t", collection: "c", filter: "", search: "", sort: "" };
    if let Ok(cursor) = Cursor::decode(bytes, &Constant, &binding) {
        let text = cursor.encode(&Constant, &binding);
        // Compared as text: a key may be a number that equals nothing.
        let again = Cursor::decode(text.as_bytes(), &Constant, &binding).expect("what was encoded is decoded");
        assert_eq!(again.encode(&Constant, &binding), text);
    }
});
