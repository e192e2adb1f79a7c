//! The form in which application values wait on disk for the next start.
//!
//! Keeps true: a keyspace of its own; any bytes are read without panic, as far as they make sense.
//! Does not do: deciding when; locks are not saved, their leases end.

use super::core::TenantStore;
use crate::kernel::ident::TenantId;
use bytes::Bytes;

/// First byte of each keyspace; see also `persist`, which has the others.
const BLOCKS: u8 = b'k';
const MANIFEST: u8 = b'K';
const BLOCK_BYTES: usize = 512 * 1024;
const VERSION: u8 = 1;

pub(super) fn manifest_key() -> Vec<u8> {
    vec![MANIFEST]
}

pub(super) fn block_key(tenant: &TenantId, number: u32) -> Vec<u8> {
    let mut key = vec![BLOCKS, u8::try_from(tenant.as_str().len()).unwrap_or(u8::MAX)];
    key.extend_from_slice(tenant.as_str().as_bytes());
    key.extend_from_slice(&number.to_be_bytes());
    key
}

pub(super) fn manifest(tenants: &[(TenantId, u32)]) -> Bytes {
    let mut out = vec![VERSION];
    for (tenant, blocks) in tenants {
        put(&mut out, tenant.as_str().as_bytes());
        out.extend_from_slice(&blocks.to_le_bytes());
    }
    Bytes::from(out)
}

pub(super) fn parse_manifest(bytes: &[u8]) -> Vec<(TenantId, u32)> {
    let mut tenants = Vec::new();
    let Some((&VERSION, mut rest)) = bytes.split_first() else { return tenants };
    while let Some(name) = take(&mut rest) {
        let Some((blocks, tail)) = rest.split_first_chunk::<4>() else { break };
        rest = tail;
        if let Some(tenant) = std::str::from_utf8(name).ok().and_then(|name| TenantId::parse(name).ok()) {
            tenants.push((tenant, u32::from_le_bytes(*blocks)));
        }
    }
    tenants
}

/// The values in blocks, the ones used longest ago first, so that reading them back restores the order.
pub(super) fn blocks(store: &TenantStore, now_ms: i64) -> Vec<Bytes> {
    let mut blocks = Vec::new();
    let mut block = Vec::new();
    for (key, value, expires_ms) in store.entries(now_ms) {
        if block.len() + key.len() + value.len() > BLOCK_BYTES && !block.is_empty() {
            blocks.push(Bytes::from(std::mem::take(&mut block)));
        }
        put(&mut block, key.as_bytes());
        put(&mut block, value);
        block.extend_from_slice(&expires_ms.unwrap_or(i64::MAX).to_le_bytes());
    }
    if !block.is_empty() {
        blocks.push(Bytes::from(block));
    }
    blocks
}

/// Puts the values of a block back; returns how many.
pub(super) fn load_block(bytes: &Bytes, store: &mut TenantStore, now_ms: i64) -> usize {
    let (mut rest, mut count) = (&**bytes, 0);
    while let Some((key, value)) = take(&mut rest).zip(take(&mut rest)) {
        let Some((expires_ms, tail)) = rest.split_first_chunk::<8>() else { break };
        rest = tail;
        let expires_ms = Some(i64::from_le_bytes(*expires_ms)).filter(|at_ms| *at_ms != i64::MAX);
        if let Ok(key) = std::str::from_utf8(key) {
            count += usize::from(store.put_back(key, Bytes::copy_from_slice(value), expires_ms, now_ms));
        }
    }
    count
}

fn put(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(part);
}

fn take<'bytes>(rest: &mut &'bytes [u8]) -> Option<&'bytes [u8]> {
    let (len, tail) = rest.split_first_chunk::<4>()?;
    let (part, tail) = tail.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
    *rest = tail;
    Some(part)
}
