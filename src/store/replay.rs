//! Rebuilding tables from the log: the proof that the log says everything.
//!
//! Keeps true: replaying a whole log into an empty file gives the rows and row clocks of the file it came from (rowids
//! excepted, which are local). Each transaction is applied whole or not at all, and only once.
//! Does not do: concurrency of lineages; the merge rule of replication builds on this, not the other way round.

use super::changelog::{LogOp, LoggedTx};
use super::record_codec;
use super::rowclock::{Clock2, RowClock};
use super::{StoreError, connection, migrate, readers, rows, writetx};
use crate::kernel::ident::{CollectionId, FieldNumber, OriginUid, RecordId};
use crate::kernel::value::Stored;
use crate::schema::record::RecordImage;
use crate::schema::{Collection, Schema};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::path::Path;
use std::sync::Arc;

/// A file that is built from a log.
#[derive(Debug)]
pub struct ReplayTarget {
    connection: Connection,
    schema: Schema,
}

impl ReplayTarget {
    /// Makes an empty file at `path`, which must not exist.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        let flags = connection::write_flags() | OpenFlags::SQLITE_OPEN_CREATE;
        if path.exists() {
            return Err(StoreError::from(std::io::Error::from(std::io::ErrorKind::AlreadyExists)));
        }
        let connection = Connection::open_with_flags(path, flags)?;
        connection.execute_batch("PRAGMA synchronous=OFF")?;
        migrate::migrate(&connection)?;
        Ok(Self { connection, schema: Schema::default() })
    }

    /// Opens an existing file to look at it or to go on.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = Connection::open_with_flags(path, connection::write_flags())?;
        migrate::check_version(&connection)?;
        let schema = readers::load_schema(&connection)?;
        Ok(Self { connection, schema })
    }

    /// The collections so far.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Every record of a collection with the bytes of its clock, by id.
    pub fn records(&self, collection: &Collection) -> Result<Vec<(RecordImage, Vec<u8>)>, StoreError> {
        dump(&self.connection, collection)
    }
}

/// Every record of a collection with the bytes of its clock, by id.
pub(super) fn dump(
    connection: &Connection,
    collection: &Collection,
) -> Result<Vec<(RecordImage, Vec<u8>)>, StoreError> {
    let (sql, numbers) = rows::select_record(collection);
    let all = sql.replace(" WHERE id = ?1", " ORDER BY id").replace("SELECT id", "SELECT _c, id");
    let mut statement = connection.prepare(&all)?;
    let mut found = Vec::new();
    let mut result = statement.query([])?;
    while let Some(row) = result.next()? {
        let clock: Vec<u8> = row.get(0)?;
        let id: String = row.get(1)?;
        let id = RecordId::parse(&id).map_err(|error| StoreError::damaged(error.to_string()))?;
        let mut image = RecordImage::new(id, []);
        for (index, number) in numbers.iter().enumerate() {
            let cell = super::functions::cell(row.get_ref(index + 2)?)
                .ok_or_else(|| StoreError::damaged("text that is not UTF-8"))?;
            image.set(*number, cell.to_stored());
        }
        found.push((image, clock));
    }
    Ok(found)
}

/// Applies transactions in the order given; one that was applied before is passed over. Returns how many were new.
pub fn replay(target: &mut ReplayTarget, log: &[LoggedTx]) -> Result<u64, StoreError> {
    let mut applied = 0;
    for tx in log {
        target.connection.execute_batch("BEGIN IMMEDIATE")?;
        match apply(target, tx) {
            Ok(fresh) => {
                target.connection.execute_batch("COMMIT")?;
                applied += u64::from(fresh);
            }
            Err(error) => {
                let _ = target.connection.execute_batch("ROLLBACK");
                target.schema = readers::load_schema(&target.connection)?;
                return Err(error);
            }
        }
    }
    Ok(applied)
}

fn apply(target: &mut ReplayTarget, tx: &LoggedTx) -> Result<bool, StoreError> {
    let (oid, seq) = origin(&target.connection, tx.frame.origin)?;
    if tx.frame.seq <= seq {
        return Ok(false);
    }
    if tx.frame.seq != seq + 1 {
        return Err(StoreError::damaged(format!("log record {} leaves a gap after {seq}", tx.frame.seq)));
    }
    let clock = Clock2 { oid, hlc: tx.frame.hlc.as_i64() };
    target.connection.execute_batch("SAVEPOINT in_order")?;
    match apply_in_order(target, &tx.frame.ops, clock) {
        // Values that moved between records in one transaction can clash halfway; then all rows step aside first.
        Err(StoreError::Unique { .. }) => {
            target.connection.execute_batch("ROLLBACK TO in_order; RELEASE in_order")?;
            target.schema = readers::load_schema(&target.connection)?;
            apply_aside(target, &tx.frame.ops, clock)?;
        }
        done => {
            done?;
            target.connection.execute_batch("RELEASE in_order")?;
        }
    }
    record(&target.connection, oid, tx)?;
    Ok(true)
}

/// The local number of a lineage and the last sequence number applied.
fn origin(connection: &Connection, uid: OriginUid) -> Result<(u16, i64), StoreError> {
    let found = connection
        .query_row("SELECT oid, seq FROM _tn_origin WHERE uid = ?1", [&uid.0[..]], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some(known) = found {
        return Ok(known);
    }
    connection.execute("INSERT INTO _tn_origin (uid, chain) VALUES (?1, ?2)", params![&uid.0[..], &[0_u8; 32][..]])?;
    let oid = u16::try_from(connection.last_insert_rowid()).map_err(|_| StoreError::damaged("too many lineages"))?;
    Ok((oid, 0))
}

fn record(connection: &Connection, oid: u16, tx: &LoggedTx) -> Result<(), StoreError> {
    let frame = &tx.frame;
    let body = record_codec::encode_frame(frame);
    let chain = record_codec::chain_after(&frame.prev_chain, body.get(8..).unwrap_or_default());
    connection.execute(
        "INSERT INTO _tn_tx (oid, seq, hlc, epoch, schema, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![oid, frame.seq, frame.hlc.as_i64(), frame.epoch, frame.schema, body],
    )?;
    connection.execute(
        "UPDATE _tn_origin SET seq = ?2, hlc = ?3, chain = ?4 WHERE oid = ?1",
        params![oid, frame.seq, frame.hlc.as_i64(), &chain[..]],
    )?;
    Ok(())
}

fn apply_in_order(target: &mut ReplayTarget, ops: &[LogOp], clock: Clock2) -> Result<(), StoreError> {
    ops.iter().try_for_each(|op| apply_op(target, op, clock))
}

fn apply_op(target: &mut ReplayTarget, op: &LogOp, clock: Clock2) -> Result<(), StoreError> {
    match op {
        LogOp::Schema(change) => {
            writetx::execute_change(&target.connection, change)?;
            target.schema = readers::load_schema(&target.connection)?;
            Ok(())
        }
        LogOp::New { collection, record } | LogOp::Undel { collection, record } => {
            let collection = find(&target.schema, collection)?;
            rows::insert(&target.connection, &collection, record, &RowClock::new(clock))
        }
        LogOp::Del { collection, before } => {
            let collection = find(&target.schema, collection)?;
            rows::delete(&target.connection, &collection, &before.id).map(|_| ())
        }
        LogOp::Set { collection, id, field, value, .. } => {
            change(target, collection, id, *field, clock, |_| value.clone())
        }
        LogOp::Inc { collection, id, field, delta, .. } => change(target, collection, id, *field, clock, |before| {
            Stored::Real(before.as_number().unwrap_or(0.0) + delta)
        }),
    }
}

fn change(
    target: &ReplayTarget,
    collection: &CollectionId,
    id: &RecordId,
    field: FieldNumber,
    clock: Clock2,
    after: impl FnOnce(&Stored) -> Stored,
) -> Result<(), StoreError> {
    let collection = find(&target.schema, collection)?;
    let (before, mut row_clock) = rows::present(&target.connection, &collection, id, &[field])?
        .ok_or_else(|| StoreError::damaged(format!("the log changes {id}, which is not there")))?;
    row_clock.set(field, clock);
    let value = after(before.first().unwrap_or(&Stored::Null));
    rows::update(&target.connection, &collection, id, &[(field, value)], &row_clock)
}

/// Takes every changed row out, then puts all back in their final form.
fn apply_aside(target: &mut ReplayTarget, ops: &[LogOp], clock: Clock2) -> Result<(), StoreError> {
    let mut aside: Vec<(Arc<Collection>, RecordImage, RowClock)> = Vec::new();
    for op in ops {
        match op {
            LogOp::New { collection, record } | LogOp::Undel { collection, record } => {
                aside.push((find(&target.schema, collection)?, record.clone(), RowClock::new(clock)));
            }
            LogOp::Set { collection, id, field, value, .. } => {
                let row = take_out(target, &mut aside, collection, id)?;
                row.1.set(*field, value.clone());
                row.2.set(*field, clock);
            }
            LogOp::Inc { collection, id, field, delta, .. } => {
                let row = take_out(target, &mut aside, collection, id)?;
                let before = row.1.get(*field).and_then(Stored::as_number).unwrap_or(0.0);
                row.1.set(*field, Stored::Real(before + delta));
                row.2.set(*field, clock);
            }
            LogOp::Del { .. } | LogOp::Schema(_) => apply_op(target, op, clock)?,
        }
    }
    for (collection, image, row_clock) in aside {
        rows::insert(&target.connection, &collection, &image, &row_clock)?;
    }
    Ok(())
}

type Aside = (Arc<Collection>, RecordImage, RowClock);

fn take_out<'a>(
    target: &ReplayTarget,
    aside: &'a mut Vec<Aside>,
    collection: &CollectionId,
    id: &RecordId,
) -> Result<&'a mut Aside, StoreError> {
    let known = aside.iter().position(|(other, image, _)| &other.id == collection && &image.id == id);
    let at = match known {
        Some(at) => at,
        None => {
            let collection = find(&target.schema, collection)?;
            let numbers: Vec<FieldNumber> =
                collection.fields.iter().map(|field| field.number).filter(|number| number.0 != 0).collect();
            let (values, clock) = rows::present(&target.connection, &collection, id, &numbers)?
                .ok_or_else(|| StoreError::damaged(format!("the log changes {id}, which is not there")))?;
            rows::delete(&target.connection, &collection, id)?;
            aside.push((collection, RecordImage::new(id.clone(), numbers.into_iter().zip(values)), clock));
            aside.len() - 1
        }
    };
    aside.get_mut(at).ok_or_else(|| StoreError::damaged("a row that stepped aside is gone"))
}

fn find(schema: &Schema, id: &CollectionId) -> Result<Arc<Collection>, StoreError> {
    schema.find_id(id).cloned().ok_or_else(|| StoreError::damaged(format!("the log names collection {id}")))
}
