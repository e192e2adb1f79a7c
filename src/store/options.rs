//! What the store is given and what it hands back: options, write metadata, commits as observers see them.
//!
//! Keeps true: everything here is plain data; nothing in this file performs I/O.
//! Does not do: defaults of the configuration file; `config` maps onto [`StoreOptions`].

use super::faults::{Faults, NoFaults};
use crate::kernel::clock::Clock;
use crate::kernel::ident::{CollectionId, NodeId, RecordId, TenantId};
use crate::kernel::limits;
use crate::kernel::random::Random;
use crate::kernel::value::Stored;
use crate::query::functions::{self, SqlFunction};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Makes secrets inside a schema unreadable before they are stored.
pub trait SchemaSealer: Send + Sync {
    /// Seals `plain` for one place of `tenant`.
    fn seal(&self, tenant: &TenantId, place: &str, plain: &str) -> String;
}

/// How a store is built; one per process.
#[derive(Clone)]
pub struct StoreOptions {
    /// Folder that holds `control.db` and `tenants/`.
    pub data_dir: PathBuf,
    /// Most tenants with an open handle.
    pub open_max: usize,
    /// Milliseconds without use after which [`super::Tenants::sweep`] closes a handle.
    pub idle_close_ms: i64,
    /// Threads that write, shared by all tenants.
    pub writer_threads: usize,
    /// A group takes no further request after this long, so that a slow one does not hold back everybody's answer.
    pub group_time_max: Duration,
    /// Read connections per tenant.
    pub readers_max: u32,
    /// Time an opening waits while handles in use leave it no place.
    pub open_wait: Duration,
    /// Time a read waits for its turn.
    pub reader_wait: Duration,
    /// Budgets of one read.
    pub read_inline_steps: u64,
    /// Virtual-machine steps of a read on the blocking pool.
    pub read_steps_max: u64,
    /// Time of a read on the blocking pool.
    pub read_deadline: Duration,
    /// Page cache of one connection, KiB.
    pub cache_kib: u32,
    /// The present.
    pub clock: Arc<dyn Clock>,
    /// Randomness for lineages.
    pub random: Arc<dyn Random>,
    /// Planned failures.
    pub faults: Arc<dyn Faults>,
    /// Told of every commit, in this order.
    pub observers: Vec<Arc<dyn CommitObserver>>,
    /// Told of slow statements.
    pub slow_queries: Option<Arc<dyn SlowQuerySink>>,
    /// Statements slower than this are reported.
    pub slow_query: Duration,
    /// Told how much each tenant's statements read.
    pub meters: Option<Arc<dyn ReadMeters>>,
    /// The identity of this node.
    pub node: NodeId,
    /// Deterministic SQL functions of the query layer.
    pub functions: Vec<SqlFunction>,
    /// Seals the client secrets of identity providers; `None` stores them as they come.
    pub sealer: Option<Arc<dyn SchemaSealer>>,
}

impl StoreOptions {
    /// Options with the documented defaults.
    pub fn new(data_dir: PathBuf, node: NodeId, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self {
            data_dir,
            open_max: limits::OPEN_TENANTS_DEFAULT,
            idle_close_ms: 300_000,
            writer_threads: 4,
            group_time_max: Duration::from_millis(limits::GROUP_COMMIT_MS_MAX),
            readers_max: limits::READERS_PER_TENANT_MAX,
            open_wait: Duration::from_millis(limits::OPEN_WAIT_MS),
            reader_wait: Duration::from_millis(limits::READER_WAIT_MS),
            read_inline_steps: limits::READ_INLINE_STEPS,
            read_steps_max: limits::READ_STEPS_MAX,
            read_deadline: Duration::from_millis(limits::READ_DEADLINE_MS),
            cache_kib: 2_000,
            clock,
            random,
            faults: Arc::new(NoFaults),
            observers: Vec::new(),
            slow_queries: None,
            slow_query: Duration::from_millis(100),
            meters: None,
            node,
            functions: functions::ALL.to_vec(),
            sealer: None,
        }
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("data_dir", &self.data_dir)
            .field("open_max", &self.open_max)
            .field("writer_threads", &self.writer_threads)
            .field("observers", &self.observers.len())
            .finish_non_exhaustive()
    }
}

/// Who caused a write, as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// Tenantry itself: migrations, schedules, seeds.
    System,
    /// Nobody logged in.
    Anonymous,
    /// A superuser of the node, by record id.
    Superuser(Arc<str>),
    /// A record of an auth collection: collection name, record id.
    Record(Arc<str>, Arc<str>),
    /// An API key, by id, and the account it belongs to, as text.
    Key(Arc<str>, Arc<str>),
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::Anonymous => f.write_str("anonymous"),
            Self::Superuser(id) => write!(f, "superuser:{id}"),
            Self::Record(collection, id) => write!(f, "record:{collection}/{id}"),
            Self::Key(id, owner) => write!(f, "key:{id} of {owner}"),
        }
    }
}

/// What the log says about a write besides its operations.
#[derive(Debug, Clone)]
pub struct WriteMeta {
    /// Who.
    pub actor: Actor,
    /// By which request.
    pub request_id: Arc<str>,
    /// From which address, where the tenant keeps that.
    pub ip: Option<Arc<str>>,
}

impl WriteMeta {
    /// A write of Tenantry itself, named by `what`.
    pub fn system(what: &str) -> Self {
        Self { actor: Actor::System, request_id: Arc::from(what), ip: None }
    }
}

/// Names one transaction for read-your-writes (REPLICATION.md 9): `tenant.oid.seq`, the lineage as 32 hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteToken {
    /// The tenant.
    pub tenant: TenantId,
    /// The lineage that wrote.
    pub origin: crate::kernel::ident::OriginUid,
    /// The number of the transaction in that lineage.
    pub seq: i64,
}

impl fmt::Display for WriteToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.", self.tenant)?;
        for byte in self.origin.0 {
            write!(f, "{byte:02x}")?;
        }
        write!(f, ".{}", self.seq)
    }
}

/// The result of a durable write.
#[derive(Debug, Clone)]
pub struct Written<T> {
    /// What the closure returned.
    pub value: T,
    /// Log position after the write.
    pub lsn: i64,
    /// Names the transaction; `None` if nothing was logged.
    pub token: Option<WriteToken>,
}

/// Told of a group of transactions after COMMIT and before the acknowledgement.
///
/// An implementation must not block and must not call the store; a panic in it is contained and counted.
pub trait CommitObserver: Send + Sync {
    /// `commit` is durable in `tenant`.
    fn committed(&self, tenant: &TenantId, commit: &Commit);
}

/// What one group commit did.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Position of the first transaction of the group.
    pub lsn_first: i64,
    /// Position of the last.
    pub lsn_last: i64,
    /// The stamp of the last: another future of the same file has another one at this position.
    pub mark_last: i64,
    /// Whether the collections changed.
    pub schema_changed: bool,
    /// Every record touched, in the order of the log.
    pub touches: Vec<Touch>,
}

/// One touched record.
#[derive(Debug, Clone)]
pub struct Touch {
    /// In which collection.
    pub collection: CollectionId,
    /// Which record.
    pub record: RecordId,
    /// What happened to it.
    pub op: TouchOp,
    /// Old and new value of the collection's partition field, where it has one.
    pub partitions: Vec<Stored>,
    /// Position of the transaction.
    pub lsn: i64,
}

/// What happened to a touched record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TouchOp {
    /// It is new.
    Insert,
    /// It changed.
    Update,
    /// It is gone.
    Delete,
}

/// A statement that took long.
#[derive(Debug, Clone)]
pub struct SlowQuery<'a> {
    /// The tenant.
    pub tenant: &'a TenantId,
    /// The statement, without its values.
    pub sql: &'a str,
    /// How long it took.
    pub duration: Duration,
    /// Rows it gave.
    pub rows: u64,
}

/// Counts what one tenant's statements read; must not block.
pub trait ReadMeter: Send + Sync {
    /// A statement gave `rows` rows in `steps` steps of the virtual machine.
    fn count(&self, rows: u64, steps: u64);
}

/// Gives every tenant its meter, once per opened handle.
pub trait ReadMeters: Send + Sync {
    /// The meter of `tenant`.
    fn meter(&self, tenant: &TenantId) -> Arc<dyn ReadMeter>;
}

/// Receives slow statements; must not block.
pub trait SlowQuerySink: Send + Sync {
    /// Takes note of `slow`.
    fn slow(&self, slow: &SlowQuery<'_>);
}
