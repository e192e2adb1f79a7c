//! The form of an answer on disk: versioned, checksummed, self-describing enough to be refused.
//!
//! Keeps true: `decode(encode(x)) == x`, and any other bytes decode to `None`: never a panic, never a wrong answer, no
//! allocation larger than the input explains. Does not do: freshness, chunking, I/O.

use crate::cache::mutation::Mutation;
use crate::cache::stamp::{Dependencies, Dependency, Lineage};
use crate::kernel::ident::CollectionId;
use bytes::Bytes;
use std::sync::Arc;

/// Rises with every change of the layout below; part of the directory's name too.
pub const ENVELOPE_VERSION: u8 = 1;
const MAGIC: [u8; 4] = *b"TNe\x01";
const HEAD_LEN: usize = MAGIC.len() + 1 + CHECK_LEN;
const CHECK_LEN: usize = 16;

/// What is written for one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The full text of the key, compared on reading.
    pub key: String,
    /// The history of the file it was read from.
    pub lineage: Lineage,
    /// The log position up to which it is right.
    pub at: i64,
    /// The purge counter up to which it is not purged.
    pub purges: u64,
    /// When it was made, milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// How long it is kept, milliseconds.
    pub ttl_ms: i64,
    /// SHA-256 of the body.
    pub etag: [u8; 32],
    /// The media type.
    pub content_type: Arc<str>,
    /// The tags.
    pub tags: Vec<Arc<str>>,
    /// What it depends on.
    pub dependencies: Dependencies,
    /// The body.
    pub body: Bytes,
}

/// What the beginning of an envelope says of it; unchecked, so good for nothing but letting it go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beginning {
    /// The history of the file it was read from.
    pub lineage: Lineage,
    /// The log position up to which it is right.
    pub at: i64,
    /// When it was made, milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// How long it is kept, milliseconds.
    pub ttl_ms: i64,
}

impl Beginning {
    /// Reads the beginning of an envelope, of which the rest may be missing; `None` for anything else.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        if rest.take(MAGIC.len())? != MAGIC || rest.take(1)? != [ENVELOPE_VERSION] {
            return None;
        }
        rest.take(CHECK_LEN)?;
        rest.text()?;
        let (lineage, at) = (rest.array()?, i64::from_le_bytes(rest.array()?));
        rest.take(size_of::<u64>())?;
        let (created_ms, ttl_ms) = (i64::from_le_bytes(rest.array()?), i64::from_le_bytes(rest.array()?));
        Some(Self { lineage, at, created_ms, ttl_ms })
    }
}

impl Envelope {
    /// Writes the envelope.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.body.len() + 512);
        out.extend_from_slice(&MAGIC);
        out.push(ENVELOPE_VERSION);
        out.extend_from_slice(&[0; CHECK_LEN]);
        put_bytes(&mut out, self.key.as_bytes());
        out.extend_from_slice(&self.lineage);
        out.extend_from_slice(&self.at.to_le_bytes());
        out.extend_from_slice(&self.purges.to_le_bytes());
        out.extend_from_slice(&self.created_ms.to_le_bytes());
        out.extend_from_slice(&self.ttl_ms.to_le_bytes());
        out.extend_from_slice(&self.etag);
        put_bytes(&mut out, self.content_type.as_bytes());
        put_len(&mut out, self.tags.len());
        for tag in &self.tags {
            put_bytes(&mut out, tag.as_bytes());
        }
        put_len(&mut out, self.dependencies.as_slice().len());
        for dependency in self.dependencies.as_slice() {
            put_dependency(&mut out, dependency);
        }
        put_bytes(&mut out, &self.body);
        let check = checksum(out.get(HEAD_LEN..).unwrap_or_default());
        if let Some(slot) = out.get_mut(HEAD_LEN - CHECK_LEN..HEAD_LEN) {
            slot.copy_from_slice(&check);
        }
        out
    }

    /// Reads an envelope; `None` for anything that is not exactly one.
    pub fn decode(bytes: &Bytes, mutation: Option<Mutation>) -> Option<Self> {
        let mut rest = Rest(bytes);
        if rest.take(MAGIC.len())? != MAGIC || rest.take(1)? != [ENVELOPE_VERSION] {
            return None;
        }
        let check = rest.take(CHECK_LEN)?;
        if checksum(rest.0) != check && mutation != Some(Mutation::ChecksumIgnored) {
            return None;
        }
        let key = rest.text()?.to_owned();
        let lineage = rest.array()?;
        let at = i64::from_le_bytes(rest.array()?);
        let purges = u64::from_le_bytes(rest.array()?);
        let created_ms = i64::from_le_bytes(rest.array()?);
        let ttl_ms = i64::from_le_bytes(rest.array()?);
        let etag = rest.array()?;
        let content_type = Arc::from(rest.text()?);
        let mut tags = Vec::new();
        for _ in 0..rest.len()? {
            tags.push(Arc::from(rest.text()?));
        }
        let mut dependencies = Dependencies::new();
        for _ in 0..rest.len()? {
            dependencies.add(rest.dependency()?);
        }
        let body_len = rest.len()?;
        let start = bytes.len().checked_sub(rest.0.len())?;
        if rest.0.len() != body_len {
            return None;
        }
        let body = bytes.slice(start..);
        Some(Self { key, lineage, at, purges, created_ms, ttl_ms, etag, content_type, tags, dependencies, body })
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECK_LEN] {
    let mut out = [0_u8; CHECK_LEN];
    for (slot, byte) in out.iter_mut().zip(blake3::hash(bytes).as_bytes()) {
        *slot = *byte;
    }
    out
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    // Every list and text here is far below 4 GiB; a longer one would be refused on reading, not misread.
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_dependency(out: &mut Vec<u8>, dependency: &Dependency) {
    let (tag, collection, hash) = match dependency {
        Dependency::Record(collection, hash) => (0, collection, *hash),
        Dependency::Collection(collection) => (1, collection, 0),
        Dependency::Partition(collection, hash) => (2, collection, *hash),
    };
    out.push(tag);
    out.extend_from_slice(&hash.to_le_bytes());
    put_bytes(out, collection.as_str().as_bytes());
}

struct Rest<'bytes>(&'bytes [u8]);

impl<'bytes> Rest<'bytes> {
    fn take(&mut self, len: usize) -> Option<&'bytes [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn len(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.array()?)).ok()
    }

    fn text(&mut self) -> Option<&'bytes str> {
        let len = self.len()?;
        std::str::from_utf8(self.take(len)?).ok()
    }

    fn dependency(&mut self) -> Option<Dependency> {
        let tag = self.take(1)?.first().copied()?;
        let hash = u64::from_le_bytes(self.array()?);
        let collection = CollectionId::parse(self.text()?).ok()?;
        match tag {
            0 => Some(Dependency::Record(collection, hash)),
            1 => Some(Dependency::Collection(collection)),
            2 => Some(Dependency::Partition(collection, hash)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn envelopes() -> impl Strategy<Value = Envelope> {
        let dependency = (0_u8..3, "[a-z]{1,6}", any::<u64>()).prop_map(|(kind, name, hash)| {
            let id = CollectionId::parse(&name).unwrap();
            match kind {
                0 => Dependency::Record(id, hash),
                1 => Dependency::Collection(id),
                _ => Dependency::Partition(id, hash),
            }
        });
        (
            (".{0,40}", any::<[u8; 16]>(), any::<i64>(), any::<u64>()),
            (any::<i64>(), any::<i64>(), any::<[u8; 32]>(), "[a-z/]{0,12}"),
            prop::collection::vec("[a-z]{0,5}", 0..4),
            prop::collection::vec(dependency, 0..5),
            prop::collection::vec(any::<u8>(), 0..300),
        )
            .prop_map(|((key, lineage, at, purges), (created_ms, ttl_ms, etag, kind), tags, deps, body)| {
                Envelope {
                    key,
                    lineage,
                    at,
                    purges,
                    created_ms,
                    ttl_ms,
                    etag,
                    content_type: Arc::from(kind),
                    tags: tags.iter().map(|tag| Arc::from(tag.as_str())).collect(),
                    dependencies: deps.into_iter().collect(),
                    body: Bytes::from(body),
                }
            })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(envelope in envelopes()) {
            let bytes = envelope.encode();
            let Envelope { lineage, at, created_ms, ttl_ms, .. } = envelope;
            let beginning = bytes.len().min(MAGIC.len() + 1 + CHECK_LEN + 4 + envelope.key.len() + 16 + 4 * 8);
            prop_assert_eq!(Beginning::read(&bytes[..beginning]), Some(Beginning { lineage, at, created_ms, ttl_ms }));
            prop_assert_eq!(Beginning::read(&bytes[..beginning - 1]), None);
            prop_assert_eq!(Envelope::decode(&Bytes::from(bytes), None), Some(envelope));
        }

        #[test]
        fn any_damage_is_a_miss(envelope in envelopes(), at in any::<prop::sample::Index>(), flip in 1_u8.., cut in any::<bool>()) {
            let mut bytes = envelope.encode();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
            prop_assert_eq!(Envelope::decode(&Bytes::from(bytes), None), None);
        }

        #[test]
        fn noise_is_a_miss_even_without_the_checksum(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = MAGIC.to_vec();
            bytes.push(ENVELOPE_VERSION);
            bytes.extend(noise);
            // Must not panic; what it decodes to does not matter once the check is off.
            let _ = Beginning::read(&bytes);
            let _ = Envelope::decode(&Bytes::from(bytes), Some(Mutation::ChecksumIgnored));
        }
    }
}
