//! The log of a tenant: what an operation is, appending inside the writing transaction, scanning, checking, cutting.
//!
//! Keeps true: `lsn` and `seq` rise by one per transaction; the chain of an origin covers every record since its floor;
//! the newest record is never cut, so positions never repeat. Does not do: merging other lineages (REPLICATION.md 5).

use super::StoreError;
use super::migrate;
use super::record_codec::{self, Frame, OriginSeen};
use crate::kernel::clock::{Hlc, HlcSource};
use crate::kernel::ident::{CollectionId, FieldNumber, OriginUid, RecordId};
use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::schema::record::RecordImage;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// One operation of the log. Fields are named by number, collections by id, never by name.
#[derive(Debug, Clone, PartialEq)]
pub enum LogOp {
    /// A record was made; fields without a value have their default.
    New {
        /// In which collection.
        collection: CollectionId,
        /// Its id and values.
        record: RecordImage,
    },
    /// A field was set.
    Set {
        /// In which collection.
        collection: CollectionId,
        /// Which record.
        id: RecordId,
        /// Which field.
        field: FieldNumber,
        /// The value after.
        value: Stored,
        /// The value before.
        before: Stored,
    },
    /// A number was changed by an amount.
    Inc {
        /// In which collection.
        collection: CollectionId,
        /// Which record.
        id: RecordId,
        /// Which field.
        field: FieldNumber,
        /// By how much.
        delta: f64,
        /// The value before.
        before: Stored,
    },
    /// A record was deleted.
    Del {
        /// In which collection.
        collection: CollectionId,
        /// All it held.
        before: RecordImage,
    },
    /// A deleted record was brought back.
    Undel {
        /// In which collection.
        collection: CollectionId,
        /// All it holds again.
        record: RecordImage,
    },
    /// The collections changed.
    Schema(SchemaChange),
}

/// A change of the collections: what was executed and which definitions it leads from and to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SchemaChange {
    /// The schema version afterwards.
    pub version: i64,
    /// The statements that were executed, in order; deterministic by construction of `schema::plan`.
    pub ddl: Vec<String>,
    /// Collection, definition before, definition after (persisted JSON form).
    pub changed: Vec<(CollectionId, Option<String>, Option<String>)>,
}

/// One transaction of the log with its local position.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedTx {
    /// Position in this file.
    pub lsn: i64,
    /// The record.
    pub frame: Frame,
}

/// Where the own lineage stands; owned by the writer, copied before each group so that a failure can be undone.
#[derive(Debug, Clone)]
pub(super) struct LogHead {
    pub(super) oid: u16,
    pub(super) uid: OriginUid,
    pub(super) seq: i64,
    pub(super) chain: [u8; 32],
    pub(super) hlc: HlcSource,
    pub(super) lsn: i64,
    /// The stamp of the transaction at `lsn`; 0 before the first.
    pub(super) mark: i64,
    pub(super) epoch: i64,
    context: Vec<OriginSeen>,
}

/// What one transaction says besides its operations.
pub(super) struct TxHeader<'a> {
    pub(super) hlc: Hlc,
    pub(super) schema: i64,
    pub(super) actor: &'a str,
    pub(super) request_id: &'a Arc<str>,
    pub(super) ip: Option<&'a Arc<str>>,
}

impl LogHead {
    /// Reads the state of lineage `oid`; the clock continues after the largest stamp in the file.
    pub(super) fn load(connection: &Connection, oid: i64) -> Result<Self, StoreError> {
        let (uid, seq, chain): (Vec<u8>, i64, Vec<u8>) = connection
            .query_row("SELECT uid, seq, chain FROM _tn_origin WHERE oid = ?1", [oid], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()?
            .ok_or_else(|| StoreError::damaged("the own origin is missing"))?;
        let largest: i64 = connection.query_row(
            "SELECT max(coalesce((SELECT max(hlc) FROM _tn_origin), 0),
                        coalesce((SELECT hlc FROM _tn_tx ORDER BY lsn DESC LIMIT 1), 0))",
            [],
            |row| row.get(0),
        )?;
        Ok(Self {
            oid: u16::try_from(oid).map_err(|_| StoreError::damaged("origin number out of range"))?,
            uid: OriginUid(exact(&uid)?),
            seq,
            chain: exact(&chain)?,
            hlc: HlcSource::seeded(Hlc::from_i64(largest)),
            lsn: connection.query_row("SELECT coalesce(max(lsn), 0) FROM _tn_tx", [], |row| row.get(0))?,
            mark: connection.query_row(
                "SELECT coalesce((SELECT hlc FROM _tn_tx ORDER BY lsn DESC LIMIT 1), 0)",
                [],
                |row| row.get(0),
            )?,
            epoch: migrate::meta_number(connection, "epoch")?,
            context: untold(connection, oid)?,
        })
    }

    /// Appends one transaction to the log.
    pub(super) fn append(
        &mut self,
        connection: &Connection,
        header: &TxHeader<'_>,
        ops: Vec<LogOp>,
    ) -> Result<(), StoreError> {
        let context = std::mem::take(&mut self.context);
        if !context.is_empty() {
            connection.execute("UPDATE _tn_origin SET told = seq WHERE oid <> ?1", [self.oid])?;
        }
        let frame = Frame {
            origin: self.uid,
            seq: self.seq + 1,
            hlc: header.hlc,
            prev_chain: self.chain,
            context,
            epoch: self.epoch,
            schema: header.schema,
            actor: Arc::from(header.actor),
            request_id: Arc::clone(header.request_id),
            ip: header.ip.cloned(),
            ops,
        };
        let body = record_codec::encode_frame(&frame);
        connection
            .prepare_cached(
                "INSERT INTO _tn_tx (lsn, oid, seq, hlc, epoch, schema, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                self.lsn + 1,
                self.oid,
                frame.seq,
                header.hlc.as_i64(),
                self.epoch,
                header.schema,
                body
            ])?;
        self.lsn += 1;
        self.mark = header.hlc.as_i64();
        self.seq += 1;
        self.chain = record_codec::chain_after(&self.chain, body.get(8..).unwrap_or_default());
        Ok(())
    }

    /// Writes the own line of the version vector; once per group, right before COMMIT.
    pub(super) fn save(&self, connection: &Connection) -> Result<(), StoreError> {
        connection
            .prepare_cached("UPDATE _tn_origin SET seq = ?2, hlc = ?3, chain = ?4 WHERE oid = ?1")?
            .execute(params![self.oid, self.seq, self.hlc.last().as_i64(), &self.chain[..]])?;
        Ok(())
    }
}

/// The other origins that no own transaction has named in its context yet.
fn untold(connection: &Connection, oid: i64) -> Result<Vec<OriginSeen>, StoreError> {
    let mut statement =
        connection.prepare("SELECT uid, seq, hlc FROM _tn_origin WHERE oid <> ?1 AND seq > told ORDER BY oid")?;
    let mut rows = statement.query([oid])?;
    let mut seen = Vec::new();
    while let Some(row) = rows.next()? {
        let uid: Vec<u8> = row.get(0)?;
        seen.push(OriginSeen { uid: OriginUid(exact(&uid)?), seq: row.get(1)?, hlc: Hlc::from_i64(row.get(2)?) });
    }
    Ok(seen)
}

fn exact<const N: usize>(bytes: &[u8]) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|_| StoreError::damaged("an identity has the wrong length"))
}

/// Reads up to `limit` transactions after position `since`; fewer, but one at least, if their bytes are many.
pub(super) fn scan(connection: &Connection, since: i64, limit: usize) -> Result<Vec<LoggedTx>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT lsn, body FROM _tn_tx WHERE lsn > ?1 ORDER BY lsn LIMIT ?2")?;
    let mut rows = statement.query(params![since, i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut found = Vec::new();
    let mut bytes = 0;
    while bytes < limits::CHANGES_BYTES_MAX
        && let Some(row) = rows.next()?
    {
        let lsn: i64 = row.get(0)?;
        let body = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        bytes += body.len();
        found.push(decoded(lsn, body)?);
    }
    Ok(found)
}

/// Hands over the transactions at position `last` and before, newest first; one is in memory at a time. See
/// [`super::Reader::newest`].
pub(super) fn scan_back(
    connection: &Connection,
    last: i64,
    bytes_max: usize,
    each: &mut dyn FnMut(LoggedTx) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached("SELECT lsn, body FROM _tn_tx WHERE lsn <= ?1 ORDER BY lsn DESC")?;
    let mut rows = statement.query([last])?;
    let (mut expected, mut bytes) = (last, 0);
    while let Some(row) = rows.next()? {
        let lsn: i64 = row.get(0)?;
        let body = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        bytes += body.len();
        if lsn != expected || bytes > bytes_max || each(decoded(lsn, body)?).is_break() {
            break;
        }
        expected -= 1;
    }
    Ok(())
}

fn decoded(lsn: i64, body: &[u8]) -> Result<LoggedTx, StoreError> {
    let frame =
        record_codec::decode_frame(body).map_err(|error| StoreError::damaged(format!("log record {lsn}: {error}")))?;
    Ok(LoggedTx { lsn, frame })
}

/// A walk along the log that notices where the chain of an origin does not hold. One line per origin of the file.
#[derive(Debug, Default)]
pub struct ChainWalk(HashMap<OriginUid, (i64, [u8; 32])>);

impl ChainWalk {
    /// Whether `next` continues what came before of its origin; the first of an origin is taken at its word.
    pub fn holds(&mut self, next: &LoggedTx) -> bool {
        let frame = &next.frame;
        let body = record_codec::encode_frame(frame);
        let chain = record_codec::chain_after(&frame.prev_chain, body.get(8..).unwrap_or_default());
        let before = self.0.insert(frame.origin, (frame.seq, chain));
        before.is_none_or(|(seq, chain)| frame.seq == seq + 1 && frame.prev_chain == chain)
    }
}

/// Whether the log begins and ends where the version vector says, for each origin: nothing was cut off at either end
/// without the node's doing. What lies between is for [`ChainWalk`].
pub(super) fn ends_hold(connection: &Connection) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT o.seq, o.floor, o.chain,
           (SELECT body FROM _tn_tx t WHERE t.oid = o.oid ORDER BY t.seq LIMIT 1),
           (SELECT body FROM _tn_tx t WHERE t.oid = o.oid ORDER BY t.seq DESC LIMIT 1)
         FROM _tn_origin o",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (seq, floor, chain): (i64, i64, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (first, last): (Option<Vec<u8>>, Option<Vec<u8>>) = (row.get(3)?, row.get(4)?);
        let holds = match (&first, &last) {
            (Some(first), Some(last)) => begins(first, floor) && ends(last, seq, &chain),
            _ => seq == floor,
        };
        if !holds {
            return Ok(false);
        }
    }
    Ok(true)
}

fn begins(first: &[u8], floor: i64) -> bool {
    let frame = record_codec::decode_frame(first);
    frame.is_ok_and(|frame| frame.seq == floor + 1 && (floor > 0 || frame.prev_chain == [0; 32]))
}

fn ends(last: &[u8], seq: i64, chain: &[u8]) -> bool {
    let after = |frame: &Frame| record_codec::chain_after(&frame.prev_chain, last.get(8..).unwrap_or_default());
    record_codec::decode_frame(last).is_ok_and(|frame| frame.seq == seq && after(&frame) == chain)
}

/// The largest stamp of the file, as milliseconds since the Unix epoch.
pub(super) fn latest_ms(connection: &Connection) -> Result<i64, StoreError> {
    let largest: i64 = connection.query_row(
        "SELECT max(coalesce((SELECT max(hlc) FROM _tn_origin), 0), coalesce((SELECT max(hlc) FROM _tn_tx), 0))",
        [],
        |row| row.get(0),
    )?;
    Ok(largest >> 16)
}

/// Walks the whole log and lists what does not hold: frames, sequence numbers, stamps, chains. Returns the count too.
pub(super) fn verify(connection: &Connection) -> Result<(u64, Vec<String>), StoreError> {
    let mut origins: HashMap<OriginUid, (i64, [u8; 32])> = HashMap::new();
    let mut expected: HashMap<OriginUid, Line> = HashMap::new();
    let mut statement = connection.prepare("SELECT uid, seq, floor, chain, hlc FROM _tn_origin")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let uid: Vec<u8> = row.get(0)?;
        let chain: Vec<u8> = row.get(3)?;
        let line = Line { floor: row.get(2)?, seq: 0, chain: None, hlc: 0 };
        origins.insert(OriginUid(exact(&uid)?), (row.get(1)?, exact(&chain)?));
        expected.insert(OriginUid(exact(&uid)?), line);
    }
    let mut problems = Vec::new();
    let mut count = 0_u64;
    let mut last = None;
    let mut statement = connection.prepare(
        "SELECT lsn, body, uid, t.seq, t.hlc, t.epoch, t.schema FROM _tn_tx t LEFT JOIN _tn_origin USING (oid) ORDER BY lsn",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let lsn: i64 = row.get(0)?;
        count += 1;
        let checked = match last.replace(lsn) {
            Some(before) if lsn != before + 1 => Err(format!("position {lsn} after {before}")),
            _ => verify_one(row.get_ref(1)?.as_blob().unwrap_or_default(), &mut expected),
        };
        let checked = checked.and_then(|frame| verify_columns(row, &frame).map_err(|error| error.to_string())?);
        if let Err(problem) = checked {
            problems.push(format!("log record {lsn}: {problem}"));
            if problems.len() >= 20 {
                break;
            }
        }
    }
    for (uid, (seq, chain)) in origins {
        let line = expected.get(&uid);
        let reached = line.map_or((0, None), |line| (line.seq.max(line.floor), line.chain));
        if problems.is_empty() && (reached.0 != seq || reached.1.is_some_and(|reached| reached != chain)) {
            problems
                .push(format!("the version vector says {seq}, the log reaches {}, or the chain differs", reached.0));
        }
    }
    Ok((count, problems))
}

/// How far the walk has come in one origin.
struct Line {
    floor: i64,
    seq: i64,
    chain: Option<[u8; 32]>,
    hlc: i64,
}

/// What stands beside a record in its row must be what the record says.
fn verify_columns(row: &rusqlite::Row<'_>, frame: &Frame) -> Result<Result<(), String>, rusqlite::Error> {
    let uid: Option<Vec<u8>> = row.get(2)?;
    let beside: [i64; 4] = [row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?];
    let holds = uid.is_some_and(|uid| uid == frame.origin.0)
        && beside == [frame.seq, frame.hlc.as_i64(), frame.epoch, frame.schema];
    Ok(if holds { Ok(()) } else { Err("its row says something else than the record".to_owned()) })
}

fn verify_one(body: &[u8], lines: &mut HashMap<OriginUid, Line>) -> Result<Frame, String> {
    let frame = record_codec::decode_frame(body).map_err(|error| error.to_string())?;
    let line = lines.get_mut(&frame.origin).ok_or("its origin is not in the version vector")?;
    if frame.seq != line.seq.max(line.floor) + 1 {
        return Err(format!("sequence {} after {}", frame.seq, line.seq.max(line.floor)));
    }
    if frame.hlc.as_i64() <= line.hlc {
        return Err("its stamp does not rise".to_owned());
    }
    // The first record after a cut is taken at its word; a first record at all starts from zero.
    let before = line.chain.unwrap_or(if line.floor == 0 { [0; 32] } else { frame.prev_chain });
    if before != frame.prev_chain {
        return Err("the chain is broken".to_owned());
    }
    let record = body.get(8..).unwrap_or_default();
    (line.seq, line.hlc) = (frame.seq, frame.hlc.as_i64());
    line.chain = Some(record_codec::chain_after(&before, record));
    Ok(frame)
}

/// How far a walk from the newest record back has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct SizeWalk {
    /// Records at or after this position were counted.
    pub(super) before: i64,
    /// Bytes of their bodies.
    pub(super) bytes: u64,
}

/// Goes on with `walk` for `limits::LOG_SCAN_LEN_MAX` records at most. The second value is the answer, once there is one:
/// the position from which the bodies take `bytes_max` at most, or 0 if all of them do.
pub(super) fn walk_back(
    connection: &Connection,
    mut walk: SizeWalk,
    bytes_max: u64,
) -> Result<(SizeWalk, Option<i64>), StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT lsn, length(body) FROM _tn_tx WHERE lsn < ?1 ORDER BY lsn DESC LIMIT ?2")?;
    let mut rows = statement.query(params![walk.before, limits::LOG_SCAN_LEN_MAX])?;
    let mut seen = 0;
    while let Some(row) = rows.next()? {
        walk.bytes += u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0);
        if walk.bytes > bytes_max {
            return Ok((walk, Some(walk.before)));
        }
        walk.before = row.get(0)?;
        seen += 1;
    }
    let all = (seen < limits::LOG_SCAN_LEN_MAX).then_some(0);
    Ok((walk, all))
}

/// The position before which the next step cuts: records stamped before `before_ms` and those before `by_size`, at most
/// `limits::LOG_CUT_LEN_MAX` of them and never the newest. `None`: there is nothing to cut.
pub(super) fn next_cut(connection: &Connection, before_ms: i64, by_size: i64) -> Result<Option<i64>, StoreError> {
    let ends = "SELECT (SELECT min(lsn) FROM _tn_tx), (SELECT max(lsn) FROM _tn_tx)";
    let (first, last): (Option<i64>, Option<i64>) =
        connection.prepare_cached(ends)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (Some(first), Some(last)) = (first, last) else { return Ok(None) };
    let step_end = first.saturating_add(limits::LOG_CUT_LEN_MAX).min(last);
    // The first record that is young enough; everything before it goes.
    let young = "SELECT lsn FROM _tn_tx WHERE lsn < ?2 AND hlc >= ?1 ORDER BY lsn LIMIT 1";
    let stamp = before_ms.max(0).saturating_mul(1 << 16);
    let by_age: Option<i64> =
        connection.prepare_cached(young)?.query_row(params![stamp, step_end], |row| row.get(0)).optional()?;
    let keep_from = by_age.unwrap_or(step_end).max(by_size).min(step_end);
    Ok((keep_from > first).then_some(keep_from))
}

/// Cuts the records before `keep_from`, but never the newest; returns how many. Runs inside the caller's transaction.
pub(super) fn cut(connection: &Connection, keep_from: i64) -> Result<u64, StoreError> {
    let last: i64 = connection.query_row("SELECT coalesce(max(lsn), 0) FROM _tn_tx", [], |row| row.get(0))?;
    let keep_from = keep_from.min(last);
    connection.execute(
        "UPDATE _tn_origin SET floor = max(floor, coalesce(
           (SELECT max(seq) FROM _tn_tx WHERE _tn_tx.oid = _tn_origin.oid AND lsn < ?1), 0))",
        [keep_from],
    )?;
    let gone = connection.execute("DELETE FROM _tn_tx WHERE lsn < ?1", [keep_from])?;
    Ok(u64::try_from(gone).unwrap_or(0))
}
