//! The digest of an exported file, kept inside it, so that an import notices a byte that changed on the way.
//!
//! Keeps true: the digest is of the whole file, the 32 bytes apart in which it stands; beside it stands the head of the log that
//! it was made at, and a digest at another head is what an earlier build, which does not know it, carried along from an import,
//! and says nothing; a file without one is of an earlier build and is taken as it is; a tenant that was brought in or cloned
//! has none. Does not do: proving who wrote the file; whoever changes it on purpose can write a new one.

use super::{StoreError, connection};
use crate::kernel::digest::Sha256;
use crate::kernel::random::Random;
use ring::digest::{Context, SHA256};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;

/// The lines of `_tn_meta` that hold it and the head of the log that it was made at.
const KEY: &str = "digest";
const HEAD_KEY: &str = "digest_head";
/// The last transaction, the epoch, and the lineage, which is another one after every import.
const HEAD: &str = "ifnull((SELECT lsn || ' ' || hlc FROM _tn_tx ORDER BY lsn DESC LIMIT 1), '')
    || ' ' || (SELECT value FROM _tn_meta WHERE key = 'epoch')
    || ' ' || ifnull((SELECT hex(uid) FROM _tn_origin WHERE oid = (SELECT value FROM _tn_meta WHERE key = 'oid')), '')";
const PIECE_BYTES: usize = 1 << 20;

/// Puts the digest into a file that nobody has open.
pub(super) fn put(path: &Path, random: &dyn Random) -> Result<(), StoreError> {
    // What holds its place is found by being like nothing else in the file.
    let mut mark: Sha256 = [0; 32];
    random.fill(&mut mark);
    let connection = Connection::open_with_flags(path, connection::write_flags())?;
    connection.execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;")?;
    let put = "INSERT INTO _tn_meta (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value";
    connection.execute(put, params![KEY, &mark[..]])?;
    let put_head = format!(
        "INSERT INTO _tn_meta (key, value) SELECT ?1, {HEAD} WHERE true ON CONFLICT DO UPDATE SET value = excluded.value"
    );
    connection.execute(&put_head, [HEAD_KEY])?;
    connection.close().map_err(|(_, error)| error)?;
    let lost = || StoreError::damaged("the place of the digest is not found");
    let at = find(path, &mark)?.ok_or_else(lost)?;
    let digest = digest_but(path, at)?;
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.seek(SeekFrom::Start(at))?;
    file.write_all(&digest)?;
    Ok(())
}

/// Refuses a file that says a digest of its present state which it does not have.
pub(super) fn check(path: &Path) -> Result<(), StoreError> {
    let told = {
        let connection = Connection::open_with_flags(path, connection::read_flags())?;
        let of_now = format!(
            "SELECT value FROM _tn_meta WHERE key = ?1 AND (SELECT value FROM _tn_meta WHERE key = ?2) IS ({HEAD})"
        );
        let told = connection.query_row(&of_now, [KEY, HEAD_KEY], |row| row.get(0)).optional()?;
        connection.close().map_err(|(_, error)| error)?;
        told
    };
    let holds = match told {
        None => true,
        Some(Value::Blob(told)) => match (Sha256::try_from(told.as_slice()), find(path, &told)?) {
            (Ok(told), Some(at)) => digest_but(path, at)? == told,
            _ => false,
        },
        Some(_) => false,
    };
    let why = "it is not what was exported: its digest does not hold; copy or export it again";
    holds.then_some(()).ok_or_else(|| StoreError::NotATenant(Arc::from(why)))
}

/// Takes the digest out of a copy that is about to serve.
pub(super) fn forget(connection: &Connection) -> Result<(), StoreError> {
    connection.execute("DELETE FROM _tn_meta WHERE key IN (?1, ?2)", [KEY, HEAD_KEY])?;
    Ok(())
}

/// Where `mark` first stands; near the beginning, for `_tn_meta` is among the first tables of a file.
fn find(path: &Path, mark: &[u8]) -> Result<Option<u64>, StoreError> {
    let Some((first, rest)) = mark.split_first() else { return Ok(None) };
    let mut file = File::open(path)?;
    let (mut piece, mut kept, mut before) = (vec![0; PIECE_BYTES], 0, 0_u64);
    loop {
        // What is kept of the piece before may be the beginning of the mark.
        let read = file.read(piece.get_mut(kept..).unwrap_or_default())?;
        let known = piece.get(..kept + read).unwrap_or_default();
        let mut from = 0;
        while let Some(step) = known.get(from..).and_then(|tail| tail.iter().position(|byte| byte == first)) {
            let at = from + step;
            if known.get(at + 1..).is_some_and(|tail| tail.starts_with(rest)) {
                return Ok(Some(before + at as u64));
            }
            from = at + 1;
        }
        if read == 0 {
            return Ok(None);
        }
        let keep = known.len().min(rest.len());
        let gone = known.len() - keep;
        piece.copy_within(gone..gone + keep, 0);
        (kept, before) = (keep, before + gone as u64);
    }
}

/// SHA-256 of the file without the 32 bytes at `at`, and of that place.
fn digest_but(path: &Path, at: u64) -> Result<Sha256, StoreError> {
    let mut file = File::open(path)?;
    let mut context = Context::new(&SHA256);
    let mut feed = |file: &mut File, limit: u64| -> Result<(), StoreError> {
        let mut part = file.take(limit);
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match part.read(&mut piece)? {
                0 => return Ok(()),
                read => context.update(piece.get(..read).unwrap_or_default()),
            }
        }
    };
    feed(&mut file, at)?;
    file.seek(SeekFrom::Start(at + 32))?;
    feed(&mut file, u64::MAX)?;
    context.update(&at.to_be_bytes());
    let mut digest: Sha256 = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    Ok(digest)
}
