//! Reading: snapshots over pooled read-only connections, each read under a budget of steps and time.
//!
//! Keeps true: everything inside one read sees one snapshot and the schema of that snapshot; a read begun after a write
//! was acknowledged sees it; an idle connection keeps its snapshot open only until the next commit renews or ends it.
//! Does not do: choosing SQL (`query`), access.
//!
//! Why snapshots stay open: beginning one is most of the cost of a point read (locks in shared memory, two system
//! statements). A read therefore reuses the open snapshot while the tenant's position has not moved; the writer ends
//! idle stale ones after each commit, so the write-ahead log can be reset.

use super::changelog::{self, LoggedTx};
use super::connection::{self, Budget};
use super::counts::RecordCounts;
use super::functions;
use super::ills::Ills;
use super::options::{ReadMeter, SlowQuery, SlowQuerySink, StoreOptions};
use super::stats::Counters;
use super::tenant::TenantInner;
use super::{StoreError, migrate};
use crate::kernel::clock;
use crate::kernel::ident::{CollectionId, FieldNumber, OriginUid, RecordId, TenantId};
use crate::kernel::limits;
use crate::kernel::value::{Cell, Stored};
use crate::schema::record::RecordImage;
use crate::schema::view::ColumnOrigin;
use crate::schema::{Collection, Schema};
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Statement, StatementStatus, params};
use scheduled_thread_pool::ScheduledThreadPool;
use std::collections::HashMap;
use std::ops::{ControlFlow, Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// One consistent view of a tenant's data.
pub struct Reader<'a> {
    pub(super) connection: &'a Connection,
    pub(super) schema: Arc<Schema>,
    pub(super) lsn: i64,
    pub(super) tenant: &'a TenantId,
    pub(super) slow: Option<(&'a dyn SlowQuerySink, Duration)>,
    pub(super) meter: Option<&'a dyn ReadMeter>,
    /// What is known of the numbers of records; nothing inside a write, which sees more than its position.
    pub(super) counts: Option<&'a RecordCounts>,
    /// Told of damage; nobody where a file is only looked at.
    pub(super) ills: Option<&'a Ills>,
    /// Set while the store runs its own statements on a guarded connection.
    pub(super) system: Option<&'a AtomicBool>,
}

/// One row of a result, valid until the next.
pub struct Row<'a>(&'a rusqlite::Row<'a>);

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("tenant", &self.tenant).field("lsn", &self.lsn).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Row")
    }
}

impl Row<'_> {
    /// The value in column `index`, counted from 0.
    pub fn cell(&self, index: usize) -> Result<Cell<'_>, StoreError> {
        functions::cell(self.0.get_ref(index)?).ok_or_else(|| StoreError::damaged("text that is not UTF-8"))
    }

    /// Copies the value in column `index`.
    pub fn stored(&self, index: usize) -> Result<Stored, StoreError> {
        self.cell(index).map(Cell::to_stored)
    }
}

/// The position at which a collection, or one partition of it, was last touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The collection.
    pub collection: CollectionId,
    /// Empty for the whole collection, else what [`partition_key`] makes of the partition's value.
    pub partition: Vec<u8>,
    /// The position.
    pub lsn: i64,
}

/// The bytes by which a partition's value is known in `_tn_gen`; never empty. Numbers are keyed as doubles.
pub fn partition_key(value: &Stored) -> Vec<u8> {
    let (tag, bytes): (u8, Vec<u8>) = match value {
        Stored::Null => (0, Vec::new()),
        Stored::Integer(_) | Stored::Real(_) => (1, value.as_number().unwrap_or(0.0).to_be_bytes().to_vec()),
        Stored::Text(text) => (2, text.as_bytes().to_vec()),
        Stored::Blob(bytes) => (3, bytes.to_vec()),
    };
    std::iter::once(tag).chain(bytes).collect()
}

impl<'a> Reader<'a> {
    /// The collections as they are in this snapshot.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Log position of this snapshot; inside a write, the position before it.
    pub fn lsn(&self) -> i64 {
        self.lsn
    }

    /// The tenant that is read.
    pub fn tenant(&self) -> &TenantId {
        self.tenant
    }

    /// Runs `sql` with `binds` (`?1` is the first) and hands over each row. The statement stays prepared.
    pub fn for_each(
        &self,
        sql: &str,
        binds: &[Stored],
        each: &mut dyn FnMut(&Row<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let Some((sink, threshold)) = self.slow else {
            return self.run(sql, binds, each).map(|_| ());
        };
        let began = clock::instant();
        let rows = self.run(sql, binds, each);
        let duration = began.elapsed();
        if duration >= threshold {
            sink.slow(&SlowQuery { tenant: self.tenant, sql, duration, rows: *rows.as_ref().unwrap_or(&0) });
        }
        rows.map(|_| ())
    }

    fn run(
        &self,
        sql: &str,
        binds: &[Stored],
        each: &mut dyn FnMut(&Row<'_>) -> Result<(), StoreError>,
    ) -> Result<u64, StoreError> {
        let mut statement = self.prepare(sql, binds)?;
        let mut rows = statement.raw_query();
        let mut count = 0;
        let mut walk = || {
            while let Some(row) = rows.next()? {
                count += 1;
                each(&Row(row))?;
            }
            Ok(())
        };
        let walked = walk();
        drop(rows);
        self.meter(&statement, count);
        walked.map(|()| count).inspect_err(|error| self.met(error))
    }

    /// Counts what a statement did since it was last counted, also if it was cut off.
    fn meter(&self, statement: &Statement<'_>, rows: u64) {
        if let Some(meter) = self.meter {
            let steps = statement.reset_status(StatementStatus::VmStep);
            meter.count(rows, u64::try_from(steps).unwrap_or(0));
        }
    }

    /// The first row of `sql`, mapped.
    pub fn find_one<T>(
        &self,
        sql: &str,
        binds: &[Stored],
        map: impl FnOnce(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let mut statement = self.prepare(sql, binds)?;
        let mut rows = statement.raw_query();
        let found = rows.next().map_err(StoreError::from).and_then(|row| row.map(|row| map(&Row(row))).transpose());
        drop(rows);
        self.meter(&statement, u64::from(matches!(found, Ok(Some(_)))));
        found.inspect_err(|error| self.met(error))
    }

    /// Notes that the file is damaged, if `error` says so.
    pub(super) fn met(&self, error: &StoreError) {
        if let Some(ills) = self.ills {
            ills.met(self.tenant, error);
        }
    }

    /// A record with all its fields.
    pub fn find_record(&self, collection: &Collection, id: &str) -> Result<Option<RecordImage>, StoreError> {
        let (sql, numbers) = super::rows::select_record(collection);
        self.find_one(&sql, &[Stored::text(id)], |row| {
            let id = match row.cell(0)? {
                Cell::Text(text) => RecordId::parse(text).map_err(|error| StoreError::damaged(error.to_string()))?,
                _ => return Err(StoreError::damaged("a record id that is not text")),
            };
            let values = numbers
                .iter()
                .enumerate()
                .map(|(index, number)| Ok((*number, row.stored(index + 1)?)))
                .collect::<Result<Vec<(FieldNumber, Stored)>, StoreError>>()?;
            Ok(RecordImage::new(id, values))
        })
    }

    /// How many records `collection` has in this snapshot.
    pub fn count_records(&self, collection: &Collection) -> Result<i64, StoreError> {
        if let Some(known) = self.counts.and_then(|counts| counts.find(&collection.id, self.lsn)) {
            return Ok(known);
        }
        let sql = format!("SELECT COUNT(*) FROM \"{}\"", collection.table());
        let counted = self.find_one(&sql, &[], |row| match row.cell(0)? {
            Cell::Integer(count) => Ok(count),
            _ => Err(StoreError::damaged("a count that is no whole number")),
        })?;
        let counted = counted.unwrap_or(0);
        if let Some(counts) = self.counts {
            counts.keep(&collection.id, self.lsn, counted);
        }
        Ok(counted)
    }

    /// The result columns of `sql` and where each comes from; nothing is executed.
    pub fn describe(&self, sql: &str) -> Result<Vec<ColumnOrigin>, StoreError> {
        connection::origins(&self.connection.prepare(sql)?)
    }

    /// Transactions after position `since_lsn`, oldest first.
    pub fn changes(&self, since_lsn: i64, limit: usize) -> Result<Vec<LoggedTx>, StoreError> {
        self.as_system(|connection| changelog::scan(connection, since_lsn, limit))
    }

    /// The transactions at position `last` and before, newest first, one at a time: until `each` breaks off, until their
    /// bytes are more than `bytes_max`, or until one is missing.
    pub fn newest(
        &self,
        last: i64,
        bytes_max: usize,
        each: &mut dyn FnMut(LoggedTx) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.as_system(|connection| changelog::scan_back(connection, last, bytes_max, each))
    }

    /// When each collection, and each partition, was last touched; all of them.
    pub fn generations(&self) -> Result<Vec<Generation>, StoreError> {
        self.as_system(|connection| {
            let mut statement = connection.prepare_cached("SELECT coll, part, lsn FROM _tn_gen")?;
            let mut rows = statement.query([])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let collection = CollectionId::parse(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)
                    .map_err(|error| StoreError::damaged(error.to_string()))?;
                found.push(Generation { collection, partition: row.get(1)?, lsn: row.get(2)? });
            }
            Ok(found)
        })
    }

    /// When `collection`, or the partition of it with that value, was last touched; 0 is never.
    pub fn generation(&self, collection: &CollectionId, partition: Option<&Stored>) -> Result<i64, StoreError> {
        let part = partition.map(partition_key).unwrap_or_default();
        self.as_system(|connection| {
            let found = connection
                .prepare_cached("SELECT lsn FROM _tn_gen WHERE coll = ?1 AND part = ?2")?
                .query_row(params![collection.as_str(), part], |row| row.get(0))
                .optional()?;
            Ok(found.unwrap_or(0))
        })
    }

    /// The position of the last change of the collections; `None` where the file was made before that was kept.
    pub fn schema_lsn(&self) -> Result<Option<i64>, StoreError> {
        self.as_system(|connection| migrate::find_meta_number(connection, migrate::SCHEMA_LSN))
    }

    /// The lineage that this file is written under by this node; a restore, clone or import begins another.
    pub fn lineage(&self) -> Result<OriginUid, StoreError> {
        self.as_system(|connection| {
            let oid = migrate::meta_number(connection, "oid")?;
            let uid: Vec<u8> = connection
                .prepare_cached("SELECT uid FROM _tn_origin WHERE oid = ?1")?
                .query_row([oid], |row| row.get(0))?;
            uid.try_into().map(OriginUid).map_err(|_| StoreError::damaged("a lineage of another length"))
        })
    }

    /// The stamp of the transaction at `lsn`, which tells two futures of one file apart; `None` if the log does not hold it
    /// (any more).
    pub fn mark_at(&self, lsn: i64) -> Result<Option<i64>, StoreError> {
        self.as_system(|connection| {
            Ok(connection
                .prepare_cached("SELECT hlc FROM _tn_tx WHERE lsn = ?1")?
                .query_row([lsn], |row| row.get(0))
                .optional()?)
        })
    }

    /// Whether the log begins and ends where this file says it does; see [`super::ChainWalk`] for what lies between.
    pub fn log_ends_hold(&self) -> Result<bool, StoreError> {
        self.as_system(super::changelog::ends_hold)
    }

    /// The form in which the views were last found or made, and the schema version then; see
    /// [`super::WriteTx::note_views_checked`].
    pub fn views_checked(&self) -> Result<Option<(i64, i64)>, StoreError> {
        self.as_system(migrate::views_checked)
    }

    /// The statements that made the views of collections, by collection.
    pub fn view_statements(&self) -> Result<HashMap<CollectionId, String>, StoreError> {
        self.as_system(|connection| {
            let mut statement = connection.prepare("SELECT name, sql FROM sqlite_master WHERE type = 'view'")?;
            let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
            let mut found = HashMap::new();
            for row in rows {
                let (name, sql) = row?;
                if let Some(id) = name.strip_prefix("c_").and_then(|id| CollectionId::parse(id).ok()) {
                    found.insert(id, sql);
                }
            }
            Ok(found)
        })
    }

    /// The receipt saved under `key`.
    pub fn find_receipt(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.as_system(|connection| {
            Ok(connection
                .prepare_cached("SELECT body FROM _tn_receipt WHERE key = ?1")?
                .query_row([key], |row| row.get(0))
                .optional()?)
        })
    }

    fn prepare(&self, sql: &str, binds: &[Stored]) -> Result<Prepared<'a>, StoreError> {
        let mut statement = Prepared::new(self.connection, sql)?;
        if self.system.is_some() && !statement.readonly() {
            return Err(StoreError::Refused(Arc::from("only a SELECT is possible here")));
        }
        bind(&mut statement, binds)?;
        Ok(statement)
    }

    pub(super) fn as_system<T>(&self, run: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let _own = self.system.map(Own::begin);
        run(self.connection).inspect_err(|error| self.met(error))
    }
}

/// While it lives the store runs its own statements; ends with a panic too, or the next reader would be let in.
struct Own<'a>(&'a AtomicBool);

impl<'a> Own<'a> {
    fn begin(flag: &'a AtomicBool) -> Self {
        flag.store(true, Ordering::Relaxed);
        Self(flag)
    }
}

impl Drop for Own<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Binds by position; unused values are an error of the caller that SQLite reports.
pub(super) fn bind(statement: &mut Statement<'_>, binds: &[Stored]) -> Result<(), StoreError> {
    for (index, value) in binds.iter().enumerate() {
        statement.raw_bind_parameter(index + 1, functions::bound(value))?;
    }
    Ok(())
}

/// The read connections of one tenant.
pub(super) struct ReadPool(r2d2::Pool<Manager>);

/// One pooled connection with its budget and, between reads, perhaps an open snapshot.
pub(super) struct ReadConnection {
    connection: Connection,
    budget: Arc<Budget>,
    system: Arc<AtomicBool>,
    snapshot: Option<Snapshot>,
    schema_version: i64,
}

struct Snapshot {
    /// What `TenantInner::present` said before the snapshot began.
    present: u64,
    lsn: i64,
    schema: Arc<Schema>,
}

struct Manager {
    inner: SqliteConnectionManager,
}

/// Has the tenant checked if the read panics.
struct PanicWatch<'a>(&'a TenantInner);

impl Drop for PanicWatch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            Counters::add(&self.0.counters().panics, 1);
            self.0.note_panic();
        }
    }
}

/// How much one try may use.
pub(super) struct Allowance {
    pub(super) steps: u64,
    pub(super) deadline: Option<Instant>,
    pub(super) cancelled: Option<Arc<AtomicBool>>,
}

impl r2d2::ManageConnection for Manager {
    type Connection = ReadConnection;
    type Error = rusqlite::Error;

    fn connect(&self) -> Result<ReadConnection, rusqlite::Error> {
        let connection = self.inner.connect()?;
        let system = Arc::new(AtomicBool::new(false));
        let guarded = connection::guard(&connection, Arc::clone(&system)).and_then(|()| Budget::install(&connection));
        match guarded {
            Ok(budget) => Ok(ReadConnection { connection, budget, system, snapshot: None, schema_version: -1 }),
            Err(error) => Err(to_sqlite(error)),
        }
    }

    fn is_valid(&self, _connection: &mut ReadConnection) -> Result<(), rusqlite::Error> {
        Ok(())
    }

    fn has_broken(&self, _connection: &mut ReadConnection) -> bool {
        false
    }
}

fn to_sqlite(error: StoreError) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

impl ReadPool {
    /// A pool that holds nothing until the first read; connections are opened by the threads of `openers`.
    pub(super) fn new(path: &Path, options: &Arc<StoreOptions>, openers: &Arc<ScheduledThreadPool>) -> Self {
        let shared = Arc::clone(options);
        let inner = SqliteConnectionManager::file(path)
            .with_flags(connection::read_flags())
            .with_init(move |connection| connection::configure(connection, &shared).map_err(to_sqlite));
        let pool = r2d2::Pool::builder()
            .max_size(options.readers_max.max(1))
            .min_idle(Some(0))
            .test_on_check_out(false)
            .max_lifetime(None)
            .idle_timeout(None)
            .connection_timeout(options.reader_wait)
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .thread_pool(Arc::clone(openers))
            .build_unchecked(Manager { inner });
        Self(pool)
    }

    /// An idle connection, if there is one right now.
    pub(super) fn try_get(
        &self,
    ) -> Option<r2d2::PooledConnection<impl r2d2::ManageConnection<Connection = ReadConnection>>> {
        self.0.try_get()
    }

    /// A connection, opening or waiting for one.
    pub(super) fn get(
        &self,
    ) -> Result<r2d2::PooledConnection<impl r2d2::ManageConnection<Connection = ReadConnection>>, StoreError> {
        self.0.get().map_err(|_| StoreError::Busy)
    }

    /// Connections that exist, and those in use.
    pub(super) fn state(&self) -> (u32, u32) {
        let state = self.0.state();
        (state.connections, state.connections - state.idle_connections)
    }

    /// Ends the snapshots of idle connections that are outdated, as `present` says.
    pub(super) fn release_stale(&self, present: u64) {
        let idle: Vec<_> = std::iter::from_fn(|| self.0.try_get()).take(64).collect();
        for mut connection in idle {
            if connection.snapshot.as_ref().is_some_and(|snapshot| snapshot.present != present) {
                connection.end();
            }
        }
    }
}

impl ReadConnection {
    /// Runs `read` once. `Ok(None)`: the allowance was used up.
    pub(super) fn attempt<T, E: From<StoreError>>(
        &mut self,
        tenant: &TenantInner,
        allowance: Allowance,
        read: &dyn Fn(&Reader<'_>) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        self.renew(tenant).inspect_err(|error| tenant.ills().met(tenant.id(), error)).map_err(E::from)?;
        let _watch = PanicWatch(tenant);
        let Some(snapshot) = &self.snapshot else { return Err(StoreError::Busy.into()) };
        let options = tenant.options();
        let reader = Reader {
            connection: &self.connection,
            schema: Arc::clone(&snapshot.schema),
            lsn: snapshot.lsn,
            tenant: tenant.id(),
            slow: options.slow_queries.as_deref().map(|sink| (sink, options.slow_query)),
            meter: tenant.meter(),
            counts: Some(tenant.counts()),
            ills: Some(tenant.ills()),
            system: Some(&self.system),
        };
        self.budget.arm(allowance.steps, allowance.deadline, allowance.cancelled);
        let result = read(&reader);
        if self.budget.disarm() {
            return Ok(None);
        }
        result.map(Some)
    }

    /// Begins a snapshot unless the open one is still the present.
    fn renew(&mut self, tenant: &TenantInner) -> Result<(), StoreError> {
        if let Some(snapshot) = &self.snapshot
            && snapshot.present == tenant.present()
        {
            return Ok(());
        }
        self.end();
        Counters::add(&tenant.counters().snapshots_renewed, 1);
        self.system.store(true, Ordering::Relaxed);
        let begun = begin(&self.connection, tenant);
        self.system.store(false, Ordering::Relaxed);
        match begun {
            Ok(snapshot) => {
                // rusqlite keeps column metadata of cached statements across ALTER TABLE (rusqlite#1371).
                if self.schema_version != snapshot.schema.version() {
                    self.connection.flush_prepared_statement_cache();
                    self.schema_version = snapshot.schema.version();
                }
                self.snapshot = Some(snapshot);
                Ok(())
            }
            Err(error) => {
                self.end();
                Err(error)
            }
        }
    }

    /// Ends the open snapshot, if any.
    fn end(&mut self) {
        self.snapshot = None;
        if !self.connection.is_autocommit() {
            self.system.store(true, Ordering::Relaxed);
            let _ = self.connection.execute_batch("ROLLBACK");
            self.system.store(false, Ordering::Relaxed);
        }
    }

    /// The connection with an open snapshot, for the online copy.
    pub(super) fn pinned(&mut self, tenant: &TenantInner) -> Result<&Connection, StoreError> {
        self.renew(tenant)?;
        Ok(&self.connection)
    }
}

/// A compiled statement; a connection keeps those of ordinary length, so that many long ones do not fill the memory.
enum Prepared<'a> {
    Kept(CachedStatement<'a>),
    Once(Statement<'a>),
}

impl<'a> Prepared<'a> {
    fn new(connection: &'a Connection, sql: &str) -> Result<Self, StoreError> {
        if sql.len() > limits::STATEMENT_KEPT_BYTES_MAX {
            return Ok(Self::Once(connection.prepare(sql)?));
        }
        Ok(Self::Kept(connection.prepare_cached(sql)?))
    }
}

impl<'a> Deref for Prepared<'a> {
    type Target = Statement<'a>;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Kept(statement) => statement,
            Self::Once(statement) => statement,
        }
    }
}

impl DerefMut for Prepared<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match self {
            Self::Kept(statement) => statement,
            Self::Once(statement) => statement,
        }
    }
}

const PIN: &str = "SELECT (SELECT value FROM _tn_meta WHERE key = 'schema'), (SELECT max(lsn) FROM _tn_tx)";

fn begin(connection: &Connection, tenant: &TenantInner) -> Result<Snapshot, StoreError> {
    let _beginning = tenant.beginning();
    let present = tenant.present();
    connection.prepare_cached("BEGIN")?.execute([])?;
    // BEGIN takes no lock; this first read pins the snapshot and says what it is.
    let (version, lsn): (i64, Option<i64>) =
        connection.prepare_cached(PIN)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let known = tenant.schema();
    let schema = if known.version() == version { known } else { Arc::new(load_schema(connection)?) };
    Ok(Snapshot { present, lsn: lsn.unwrap_or(0), schema })
}

/// Reads the collections from the file.
pub(super) fn load_schema(connection: &Connection) -> Result<Schema, StoreError> {
    let version = migrate::meta_number(connection, "schema")?;
    let mut statement = connection.prepare_cached("SELECT definition FROM _tn_collection")?;
    let mut rows = statement.query([])?;
    let mut collections = Vec::new();
    while let Some(row) = rows.next()? {
        let text = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        collections.push(Arc::new(parse_definition(text)?));
    }
    Ok(Schema::new(version, collections))
}

/// Reads one persisted definition.
pub(super) fn parse_definition(text: &str) -> Result<Collection, StoreError> {
    let value = serde_json::from_str(text).map_err(|error| StoreError::damaged(error.to_string()))?;
    Collection::from_storage_json(&value).map_err(|error| StoreError::damaged(error.to_string()))
}
