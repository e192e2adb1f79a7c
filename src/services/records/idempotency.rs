//! `Idempotency-Key`: the receipt of a write, kept in the tenant's file by the transaction that it proves.
//!
//! Keeps true: a receipt exists exactly when its write is committed, it answers only the caller who made it, and the
//! same key never stands for two different requests within its age.
//! Does not do: answering from memory. A repeated request asks the writer, so it sees a twin that is still in the queue.

use super::RecordError;
use crate::kernel::digest::{hex, sha256};
use crate::kernel::limits;
use crate::store::{Reader, WriteTx};
use ring::digest::{Context, SHA256};

/// The version byte of a receipt.
const RECEIPT_VERSION: u8 = 1;
/// Version, request digest, time.
const HEAD_LEN: usize = 1 + 32 + 8;

/// A request that wants to happen once: the key its caller chose and what the request said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    key: String,
    digest: [u8; 32],
}

impl Idempotency {
    /// Ties the caller's `key` (1 to 255 printable ASCII characters) to a request.
    ///
    /// `caller` is who asks (see `Scope::key_owner`), `target` the path with its query string, `body` the raw body.
    pub fn new(key: &str, caller: &str, method: &str, target: &str, body: &[u8]) -> Result<Self, RecordError> {
        let allowed = (1..=limits::IDEMPOTENCY_KEY_CHARS_MAX).contains(&key.len())
            && key.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if !allowed {
            return Err(RecordError::IdempotencyKeyInvalid);
        }
        let mut place = Context::new(&SHA256);
        for part in [caller, method, target, key] {
            // The length in front keeps two different splits from meeting in one digest.
            place.update(&(part.len() as u64).to_le_bytes());
            place.update(part.as_bytes());
        }
        Ok(Self { key: hex(place.finish().as_ref()), digest: sha256(body) })
    }

    /// The receipt of one item of a batch whose items stand alone.
    pub(super) fn of_item(&self, index: usize) -> Self {
        Self { key: format!("{}.{index}", self.key), digest: self.digest }
    }

    /// The payload of an earlier run of the same request, if it happened within the age of receipts.
    pub(super) fn find(&self, tx: &WriteTx<'_>) -> Result<Option<Vec<u8>>, RecordError> {
        self.find_at(tx, tx.now_ms())
    }

    /// The same outside of a write.
    pub(super) fn find_at(&self, reader: &Reader<'_>, now_ms: i64) -> Result<Option<Vec<u8>>, RecordError> {
        let Some(receipt) = reader.find_receipt(&self.key)? else { return Ok(None) };
        let Some((head, payload)) = receipt.split_at_checked(HEAD_LEN) else { return Ok(None) };
        let (Some(version), Some(digest), Some(time)) = (head.first(), head.get(1..33), head.get(33..)) else {
            return Ok(None);
        };
        let made_ms = <[u8; 8]>::try_from(time).map_or(i64::MIN, i64::from_le_bytes);
        if *version != RECEIPT_VERSION || now_ms.saturating_sub(made_ms) > limits::RECEIPT_AGE_MS {
            return Ok(None);
        }
        if digest != self.digest {
            return Err(RecordError::IdempotencyMismatch);
        }
        Ok(Some(payload.to_vec()))
    }

    /// Keeps `payload` as the answer to every repetition.
    pub(super) fn save(&self, tx: &mut WriteTx<'_>, payload: &[u8]) -> Result<(), RecordError> {
        let mut receipt = Vec::with_capacity(HEAD_LEN + payload.len());
        receipt.push(RECEIPT_VERSION);
        receipt.extend_from_slice(&self.digest);
        receipt.extend_from_slice(&tx.now_ms().to_le_bytes());
        receipt.extend_from_slice(payload);
        Ok(tx.save_receipt(&self.key, &receipt)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_belongs_to_one_caller_method_and_target() {
        let base = Idempotency::new("k", "record:users/a", "POST", "/x", b"1").expect("allowed");
        for other in [
            Idempotency::new("k2", "record:users/a", "POST", "/x", b"1"),
            Idempotency::new("k", "record:users/b", "POST", "/x", b"1"),
            Idempotency::new("k", "record:users/a", "PATCH", "/x", b"1"),
            Idempotency::new("k", "record:users/a", "POST", "/y", b"1"),
        ] {
            assert_ne!(base.key, other.expect("allowed").key);
        }
        let same_place = Idempotency::new("k", "record:users/a", "POST", "/x", b"2").expect("allowed");
        assert_eq!(base.key, same_place.key);
        assert_ne!(base.digest, same_place.digest);
    }

    #[test]
    fn keys_are_bounded() {
        assert!(Idempotency::new("", "c", "POST", "/", b"").is_err());
        assert!(Idempotency::new(&"k".repeat(256), "c", "POST", "/", b"").is_err());
        assert!(Idempotency::new("a\nb", "c", "POST", "/", b"").is_err());
    }
}
