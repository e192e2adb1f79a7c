//! SHA-256 and its hexadecimal form: the one place where a body is digested.
//!
//! Keeps true: whoever has a digest hands it on with the bytes, so no body is digested twice.
//! Does not do: keyed hashes and secrets, those are `secrets`.

/// A SHA-256.
pub type Sha256 = [u8; 32];

/// SHA-256 of `bytes` (FIPS 180-4).
pub fn sha256(bytes: &[u8]) -> Sha256 {
    let mut out = [0_u8; 32];
    out.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    out
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| digits(*byte)).map(char::from).collect()
}

/// The same of a SHA-256, without allocating.
pub fn hex_digits(digest: &Sha256) -> [u8; 64] {
    let mut text = [0; 64];
    for (pair, byte) in text.chunks_exact_mut(2).zip(digest) {
        pair.copy_from_slice(&digits(*byte));
    }
    text
}

fn digits(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 15].map(|nibble| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_standard() {
        assert_eq!(hex(&sha256(b"abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hex(&[]), "");
        assert_eq!(hex_digits(&sha256(b"abc")).as_slice(), hex(&sha256(b"abc")).as_bytes());
    }
}
