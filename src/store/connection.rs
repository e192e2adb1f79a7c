//! Opening SQLite: flags, pragmas, limits and guards, each explained once, here.
//!
//! Keeps true: every connection of the process is opened by this file; read connections cannot write, attach, or read
//! system tables for anybody but the store itself. Does not do: pooling (`readers`) or transactions.

use super::StoreError;
use super::functions;
use super::options::StoreOptions;
use crate::kernel::clock;
use crate::kernel::limits;
use crate::schema::view::ColumnOrigin;
use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags, Statement};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// How long a statement waits for a lock that another connection holds.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Oldest SQLite that is accepted: 3.51.3 fixes a WAL-reset race that could lose commits ("WAL-reset bug", sqlite.org).
const SQLITE_VERSION_MIN: i32 = 3_051_003;
/// Virtual-machine steps between two looks at the budget.
const STEPS_PER_TICK: i32 = 1_000;
/// Length of an application id that names our files: "TNRY".
pub(super) const APPLICATION_ID: i32 = 0x544e_5259;
/// What every SQLite file begins with ("Database File Format", sqlite.org).
pub(super) const FILE_MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Compile-time options that the bundled library must have; a leading `!` means must not have.
pub fn required_compile_options() -> &'static [&'static str] {
    &["ENABLE_FTS5", "ENABLE_MATH_FUNCTIONS", "ENABLE_COLUMN_METADATA", "DQS=0", "!ENABLE_MEMORY_MANAGEMENT"]
}

/// Refuses to run on an SQLite that is too old or was compiled otherwise than `.cargo/config.toml` says.
pub fn assert_sqlite() -> Result<(), StoreError> {
    if rusqlite::version_number() < SQLITE_VERSION_MIN {
        return Err(StoreError::Sql(Arc::from(format!("SQLite {} is older than 3.51.3", rusqlite::version()))));
    }
    let connection = Connection::open_in_memory()?;
    let mut statement = connection.prepare("PRAGMA compile_options")?;
    let present = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    for option in required_compile_options() {
        let (name, wanted) = option.strip_prefix('!').map_or((*option, true), |name| (name, false));
        if present.iter().any(|have| have == name) != wanted {
            return Err(StoreError::Sql(Arc::from(format!("SQLite was compiled without {option}"))));
        }
    }
    Ok(())
}

/// Opens an existing tenant file for the writer.
pub(super) fn open_writer(path: &Path, options: &StoreOptions) -> Result<(Connection, Arc<Budget>), StoreError> {
    let connection = Connection::open_with_flags(path, write_flags())?;
    configure(&connection, options)?;
    // FULL: a commit is on the disk when it returns. Checkpoints are run by the writer between groups, so not by commits.
    connection
        .execute_batch("PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=67108864;")?;
    let budget = Budget::install(&connection)?;
    Ok((connection, budget))
}

/// Flags of a writer: no CREATE, so that a missing tenant stays missing.
pub(super) fn write_flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

/// Flags of a reader.
pub(super) fn read_flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

/// What readers and writers share.
pub(super) fn configure(connection: &Connection, options: &StoreOptions) -> Result<(), StoreError> {
    // First, because everything after it may already meet a lock.
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // mmap off: a truncated file would be SIGBUS. Foreign keys are kept by the engine above (REPLICATION.md 5).
    connection.execute_batch(&format!(
        "PRAGMA foreign_keys=OFF; PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON; PRAGMA temp_store=MEMORY; \
         PRAGMA mmap_size=0; PRAGMA cache_size=-{};",
        options.cache_kib
    ))?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    // Stable plans: otherwise each new value bound to a LIMIT or an analysed column compiles the statement anew.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    for (limit, value) in [
        (Limit::SQLITE_LIMIT_SQL_LENGTH, 1_000_000),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 1_000),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 100),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_LENGTH, 256 * 1024 * 1024),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, i32::try_from(limits::LIKE_PATTERN_BYTES_MAX).unwrap_or(i32::MAX)),
    ] {
        connection.set_limit(limit, value)?;
    }
    connection.set_prepared_statement_cache_capacity(limits::STATEMENT_CACHE_LEN);
    functions::register(connection, &options.functions)
}

/// Gives up to `pages` free pages at the end of the file back. The pragma frees one page per row that is asked of it.
pub(super) fn give_back(connection: &Connection, pages: u64) -> Result<(), StoreError> {
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// Guards a read connection. While `system` is set the store runs its own statements.
pub(super) fn guard(connection: &Connection, system: Arc<AtomicBool>) -> Result<(), StoreError> {
    connection.authorizer(Some(move |context: AuthContext<'_>| {
        if allowed(&context.action, system.load(Ordering::Relaxed)) {
            Authorization::Allow
        } else {
            Authorization::Deny
        }
    }))?;
    Ok(())
}

/// Describes a SELECT against tables that are made for it in an empty database; nothing of a tenant is touched.
///
/// The form that `schema::view` asks for. The error is SQLite's message.
pub fn describe_in_scratch(tables: &[String], sql: &str) -> Result<Vec<ColumnOrigin>, String> {
    let describe = || -> Result<Vec<ColumnOrigin>, StoreError> {
        let connection = Connection::open_in_memory()?;
        for table in tables {
            connection.execute_batch(table)?;
        }
        connection.authorizer(Some(|context: AuthContext<'_>| match context.action {
            AuthAction::Select | AuthAction::Recursive | AuthAction::Read { .. } | AuthAction::Function { .. } => {
                Authorization::Allow
            }
            _ => Authorization::Deny,
        }))?;
        let statement = connection.prepare(sql)?;
        origins(&statement)
    };
    describe().map_err(|error| match error {
        StoreError::Sql(message) | StoreError::Refused(message) => message.to_string(),
        other => other.to_string(),
    })
}

/// The result columns of a statement that only reads.
pub(super) fn origins(statement: &Statement<'_>) -> Result<Vec<ColumnOrigin>, StoreError> {
    if !statement.readonly() {
        return Err(StoreError::Refused(Arc::from("only a SELECT is possible here")));
    }
    let columns = statement.columns_with_metadata();
    Ok(columns
        .iter()
        .map(|column| ColumnOrigin {
            name: column.name().to_owned(),
            table: column.table_name().map(str::to_owned),
            column: column.origin_name().map(str::to_owned),
        })
        .collect())
}

fn allowed(action: &AuthAction<'_>, system: bool) -> bool {
    match action {
        AuthAction::Select | AuthAction::Recursive => true,
        AuthAction::Function { function_name } => !function_name.eq_ignore_ascii_case("load_extension"),
        // FTS5 asks for this inside its own statements; it changes nothing.
        AuthAction::Pragma { pragma_name, pragma_value: None } => {
            pragma_name.eq_ignore_ascii_case("data_version")
                || (system && pragma_name.eq_ignore_ascii_case("freelist_count"))
        }
        AuthAction::Transaction { .. } => system,
        AuthAction::Read { table_name, column_name } => {
            let system_table = table_name.starts_with("_tn_") || table_name.starts_with("sqlite_");
            // A table of which no column is read (count(*)) comes with an empty column; common table expressions too.
            let user = ["c_", "fts_"].iter().any(|prefix| table_name.starts_with(prefix))
                || matches!(*table_name, "json_each" | "json_tree")
                || column_name.is_empty();
            if system_table { system } else { user || system }
        }
        _ => false,
    }
}

/// Steps and time that one read may still use; looked at by the connection's progress handler.
#[derive(Debug)]
pub(super) struct Budget {
    steps: AtomicI64,
    armed: AtomicBool,
    spent: AtomicBool,
    limits: Mutex<(Option<Instant>, Option<Arc<AtomicBool>>)>,
}

impl Budget {
    /// Puts the handler on `connection`.
    pub(super) fn install(connection: &Connection) -> Result<Arc<Self>, StoreError> {
        let budget = Arc::new(Self {
            steps: AtomicI64::new(0),
            armed: AtomicBool::new(false),
            spent: AtomicBool::new(false),
            limits: Mutex::new((None, None)),
        });
        let watched = Arc::clone(&budget);
        connection.progress_handler(STEPS_PER_TICK, Some(move || watched.tick()))?;
        Ok(budget)
    }

    /// Starts a read: `steps` machine steps, optionally until `deadline`, optionally until `cancelled` is set.
    pub(super) fn arm(&self, steps: u64, deadline: Option<Instant>, cancelled: Option<Arc<AtomicBool>>) {
        self.steps.store(i64::try_from(steps).unwrap_or(i64::MAX), Ordering::Relaxed);
        self.spent.store(false, Ordering::Relaxed);
        *self.limits.lock() = (deadline, cancelled);
        self.armed.store(true, Ordering::Relaxed);
    }

    /// Lets statements run freely until [`Budget::resume`].
    pub(super) fn pause(&self) {
        self.armed.store(false, Ordering::Relaxed);
    }

    /// Counts again.
    pub(super) fn resume(&self) {
        self.armed.store(true, Ordering::Relaxed);
    }

    /// Ends the read; says whether its budget was used up.
    pub(super) fn disarm(&self) -> bool {
        self.armed.store(false, Ordering::Relaxed);
        self.limits.lock().1 = None;
        self.spent.load(Ordering::Relaxed)
    }

    /// Whether to stop the statement.
    fn tick(&self) -> bool {
        if !self.armed.load(Ordering::Relaxed) {
            return false;
        }
        let left = self.steps.fetch_sub(i64::from(STEPS_PER_TICK), Ordering::Relaxed);
        let limits = self.limits.lock();
        let stop = left < 0
            || limits.0.is_some_and(|deadline| clock::instant() >= deadline)
            || limits.1.as_ref().is_some_and(|cancelled| cancelled.load(Ordering::Relaxed));
        if stop {
            self.spent.store(true, Ordering::Relaxed);
        }
        stop
    }
}
