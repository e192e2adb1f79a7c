//! L2: the one door to SQLite. A tenant is a file; this room opens it, reads it, writes it and keeps its log.
//!
//! Keeps true: an acknowledged write is durable; user rows, row clocks, the log record and the version vector commit in
//! one transaction; nobody outside gets a raw connection. SQLite result codes are interpreted in this file alone.
//! Does not do: meaning of rules or JSON of the wire; who may ask is decided above.
//!
//! Reading order: [`tenant`] (handles) → [`readers`] and [`writer`] (the two ways in) → [`writetx`] (what a write can
//! do) → [`changelog`], [`record_codec`], [`rowclock`] (what a write leaves behind) → [`files`], [`snapshot`], [`check`], [`ills`],
//! [`mod@replay`].

mod connection;
mod options;
mod faults;
mod files;
mod functions;
mod migrate;
mod record_codec;
mod rowclock;
mod rows;
mod space;
mod changelog;
mod counts;
mod readers;
mod read_queue;
mod ops;
mod writetx;
mod checkpoint;
mod writer;
mod writer_pool;
mod stats;
mod tenant;
mod table;
mod snapshot;
mod digest;
mod check;
mod ills;
mod replay;
mod node;
mod upkeep;
#[cfg(test)]
mod tests;

pub use changelog::{ChainWalk, LogOp, LoggedTx, SchemaChange};
pub use check::{CheckReport, check_file, free_bytes, read_file};
pub use connection::{assert_sqlite, describe_in_scratch, required_compile_options};
pub use faults::{FaultPoint, Faults, Injected, NoFaults};
pub use files::{FileRef, FileWriter, OpenFile, StagedFile};
pub use migrate::FORMAT_VERSION;
pub use node::{load_or_create_node_id, raise_file_limit};
pub use options::{
    Actor, Commit, CommitObserver, ReadMeter, ReadMeters, SchemaSealer, SlowQuery, SlowQuerySink, StoreOptions, Touch,
    TouchOp, WriteMeta, WriteToken, Written,
};
pub use readers::{Generation, Reader, Row, partition_key};
pub use record_codec::{CodecError, Frame, OriginSeen, decode_frame, encode_frame};
pub use replay::{ReplayTarget, replay};
pub use rowclock::{Clock2, RowClock};
pub use snapshot::list_files;
pub use stats::{StoreStats, TenantStats};
pub use table::Tenants;
pub use tenant::TenantDb;
pub use writetx::WriteTx;

use crate::kernel::error::{Code, Detail, Fault};
use crate::kernel::ident::TenantId;
use rusqlite::ffi;
use std::borrow::Cow;
use std::sync::Arc;

/// What can go wrong below the services.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The write queue of the tenant is at its bound.
    #[error("the write queue of the tenant is full")]
    QueueFull,
    /// The disk or a quota is full; reads go on.
    #[error("the storage is full")]
    StorageFull,
    /// A statement used up its steps or its time.
    #[error("the query used up its budget")]
    TooExpensive,
    /// Another connection or a bound stands in the way; later helps.
    #[error("the database is busy")]
    Busy,
    /// The node is stopping.
    #[error("the store is closing")]
    Closing,
    /// An administrative operation holds the tenant.
    #[error("another operation holds the tenant {0}")]
    TenantBusy(TenantId),
    /// There is no file for this tenant.
    #[error("no file for tenant {0}")]
    TenantMissing(TenantId),
    /// A file for this tenant is there already.
    #[error("a file for tenant {0} exists")]
    TenantExists(TenantId),
    /// Two records would share values that must be unique.
    #[error("unique violation in {table} on {fields:?}")]
    Unique {
        /// Physical name of the table.
        table: Arc<str>,
        /// Name of the index as users wrote it; `None` is the record id.
        index: Option<Arc<str>>,
        /// Present names of the fields, most significant first.
        fields: Vec<Arc<str>>,
    },
    /// The record to change is not there.
    #[error("no record {id} in {table}")]
    RecordMissing {
        /// Physical name of the table.
        table: Arc<str>,
        /// The record id.
        id: Arc<str>,
    },
    /// The transaction holds more operations than `limits::TX_OPS_MAX`.
    #[error("the transaction has too many operations")]
    TooManyOps,
    /// The collections changed since the plan was made.
    #[error("the plan was made for another schema version")]
    SchemaMoved,
    /// A statement that read connections do not run.
    #[error("the statement is not allowed here: {0}")]
    Refused(Arc<str>),
    /// The statement is not valid SQL for this schema: a defect of whoever rendered it.
    #[error("the statement was refused by SQLite: {0}")]
    Sql(Arc<str>),
    /// The records that are there do not allow the schema change, or a definition is not valid SQL.
    #[error("the schema change was refused: {0}")]
    SchemaRefused(Arc<str>),
    /// The file is not a tenant, or not one this version reads.
    #[error("not a usable tenant file: {0}")]
    NotATenant(Arc<str>),
    /// The file or the log is damaged.
    #[error("damaged: {0}")]
    Damaged(Arc<str>),
    /// A request panicked inside its transaction; it was rolled back alone.
    #[error("the request panicked: {0}")]
    Panicked(Arc<str>),
    /// The commit that the request was part of failed; nothing of it is stored.
    #[error("the group commit failed: {0}")]
    GroupFailed(Arc<str>),
    /// A file operation failed.
    #[error("file operation failed: {0}")]
    Io(Arc<std::io::Error>),
    /// Anything else SQLite reports.
    #[error("sqlite: {0}")]
    Sqlite(Arc<rusqlite::Error>),
}

impl Fault for StoreError {
    fn code(&self) -> Code {
        match self {
            Self::QueueFull => Code::QueueFull,
            Self::StorageFull => Code::StorageFull,
            Self::TooExpensive => Code::QueryTooExpensive,
            Self::Busy | Self::GroupFailed(_) => Code::Busy,
            Self::Closing => Code::ShuttingDown,
            Self::TenantBusy(_) => Code::TenantBusy,
            Self::TenantMissing(_) => Code::TenantNotFound,
            Self::TenantExists(_) => Code::TenantExists,
            Self::Unique { .. } => Code::ValidationFailed,
            Self::RecordMissing { .. } => Code::RecordNotFound,
            Self::SchemaMoved => Code::Conflict,
            Self::TooManyOps => Code::BodyTooLarge,
            Self::SchemaRefused(_) => Code::SchemaInvalid,
            Self::Refused(_) => Code::Forbidden,
            Self::NotATenant(_) => Code::RequestInvalid,
            Self::Damaged(_) => Code::TenantDamaged,
            Self::Sql(_) | Self::Panicked(_) | Self::Io(_) | Self::Sqlite(_) => Code::Internal,
        }
    }

    fn public(&self) -> Cow<'_, str> {
        match self {
            Self::NotATenant(why) => Cow::Owned(format!("The file cannot be used as a tenant: {why}.")),
            Self::SchemaRefused(why) => Cow::Owned(format!("The schema change was refused: {why}.")),
            _ => Cow::Borrowed(self.code().explanation()),
        }
    }

    fn details(&self) -> Vec<Detail> {
        match self {
            Self::Unique { fields, .. } => fields
                .iter()
                .map(|field| Detail::new(&**field, "validation_not_unique", "Value must be unique."))
                .collect(),
            _ => Vec::new(),
        }
    }

    fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::QueueFull | Self::Busy | Self::GroupFailed(_) => Some(1),
            Self::Closing | Self::TenantBusy(_) => Some(2),
            Self::StorageFull => Some(30),
            _ => None,
        }
    }
}

impl StoreError {
    /// Whether the failure is one of the whole connection rather than of the statement that met it.
    pub(crate) fn is_storage(&self) -> bool {
        matches!(self, Self::StorageFull | Self::Damaged(_) | Self::Io(_))
    }

    /// An invariant of the file does not hold.
    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(Arc::from(what.into()))
    }
}

/// The one place where SQLite's extended result codes get a meaning ("Result and Error Codes", sqlite.org).
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let (code, message) = match &error {
            rusqlite::Error::SqliteFailure(code, message) => (code.extended_code, message.clone()),
            rusqlite::Error::SqlInputError { error, msg, .. } => (error.extended_code, Some(msg.clone())),
            _ => return Self::Sqlite(Arc::new(error)),
        };
        let message = || Arc::<str>::from(message.as_deref().unwrap_or("no message"));
        match code & 0xff {
            ffi::SQLITE_FULL => Self::StorageFull,
            ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => Self::Busy,
            ffi::SQLITE_INTERRUPT => Self::TooExpensive,
            ffi::SQLITE_CORRUPT => Self::Damaged(message()),
            ffi::SQLITE_NOTADB => Self::damaged("it is not an SQLite database"),
            ffi::SQLITE_AUTH => Self::Refused(message()),
            ffi::SQLITE_TOOBIG => Self::Sql(Arc::from("a value or the statement is too large")),
            ffi::SQLITE_ERROR => Self::Sql(message()),
            ffi::SQLITE_CONSTRAINT
                if matches!(code, ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY) =>
            {
                unique_violation(&message())
            }
            _ => Self::Sqlite(Arc::new(error)),
        }
    }
}

/// Reads `UNIQUE constraint failed: c_x.f1, c_x.f3`; the field names are filled in where the collection is known.
fn unique_violation(message: &str) -> StoreError {
    let list = message.split_once(": ").map_or(message, |(_, list)| list);
    let mut table = Arc::<str>::from("");
    let mut fields = Vec::new();
    for column in list.split(", ") {
        let (owner, name) = column.split_once('.').unwrap_or(("", column));
        table = Arc::from(owner);
        fields.push(Arc::from(name));
    }
    StoreError::Unique { table, index: None, fields }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::StorageFull,
            _ => Self::Io(Arc::new(error)),
        }
    }
}
