//! The registry: the control database's list of tenants, held in memory and kept equal to it.
//!
//! Keeps true: the directory changes only after the control database has committed; while the node runs there is exactly
//! one process on the folder (the lock file of `app`), so nobody else changes the list behind its back.
//! Does not do: changing a tenant's life (that is `lifecycle`); records inside tenants.

use super::directory::{Directory, TenantEntry, TenantState};
use super::entry;
use super::error::TenantError;
use super::lifecycle;
use super::system;
use crate::kernel::clock::Clock;
use crate::kernel::ident::TenantId;
use crate::kernel::limits;
use crate::kernel::random::Random;
use crate::kernel::value::Stored;
use crate::secrets::seal::Sealer;
use crate::store::{self, StoreError, TenantDb, WriteMeta};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The slug of the tenant that answers when none is named.
pub const MAIN: &str = "main";

/// What the registry is built from.
pub struct RegistryOptions {
    /// The open-handle table.
    pub store: Arc<store::Tenants>,
    /// The present.
    pub clock: Arc<dyn Clock>,
    /// Randomness for ids and secrets.
    pub random: Arc<dyn Random>,
    /// Opens what a copied tenant holds sealed.
    pub sealer: Sealer,
}

/// The tenants of this node; cheap to clone.
#[derive(Clone)]
pub struct Registry(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) store: Arc<store::Tenants>,
    pub(super) control: TenantDb,
    pub(super) directory: Directory,
    /// Tenants with an administrative operation under way; each entry is held by one [`Hold`].
    busy: Mutex<HashSet<TenantId>>,
    /// Held from checking that host names are free until the directory shows whose they are. The control database's
    /// unique index does the same for slugs.
    pub(super) naming: tokio::sync::Mutex<()>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    pub(super) sealer: Sealer,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// Which tenants a list shows, and which part of them.
#[derive(Debug, Clone)]
pub struct TenantQuery {
    /// Only those in this state.
    pub state: Option<TenantState>,
    /// Only those whose slug starts with this.
    pub slug_prefix: String,
    /// Page, from 1.
    pub page: usize,
    /// Tenants per page, at most `limits::PAGE_LEN_MAX`.
    pub per_page: usize,
}

impl Default for TenantQuery {
    fn default() -> Self {
        Self { state: None, slug_prefix: String::new(), page: 1, per_page: limits::PAGE_LEN_DEFAULT }
    }
}

/// One page of tenants, by slug.
#[derive(Debug, Clone)]
pub struct TenantPage {
    /// Page, from 1.
    pub page: usize,
    /// Tenants per page.
    pub per_page: usize,
    /// Tenants that match.
    pub total: usize,
    /// Those on this page.
    pub items: Vec<Arc<TenantEntry>>,
}

/// What there is to know about one tenant.
#[derive(Debug, Clone)]
pub struct TenantReport {
    /// The registry's entry.
    pub entry: Arc<TenantEntry>,
    /// Bytes of the database file, its log included.
    pub size_bytes: u64,
    /// Records in all collections but the system's.
    pub records: u64,
    /// Collections but the system's.
    pub collections: usize,
    /// Log position.
    pub position: i64,
}

impl Registry {
    /// Opens the control database (or makes it), reads the list, removes what a crash left behind, and makes sure that
    /// the tenant `main` is there.
    pub async fn open(options: RegistryOptions) -> Result<Self, TenantError> {
        let RegistryOptions { store, clock, random, sealer } = options;
        let control = open_control(&store, clock.as_ref(), random.as_ref()).await?;
        let inner = Inner {
            store,
            control,
            directory: Directory::default(),
            busy: Mutex::default(),
            naming: tokio::sync::Mutex::default(),
            clock,
            random,
            sealer,
        };
        let registry = Self(Arc::new(inner));
        for entry in entry::load_all(&registry.0.control).await? {
            registry.0.directory.put(Arc::new(entry));
        }
        lifecycle::repair(&registry).await;
        if registry.0.directory.find_slug(MAIN).is_none() {
            lifecycle::create_main(&registry).await?;
        }
        Ok(registry)
    }

    /// The control database.
    pub fn control(&self) -> &TenantDb {
        &self.0.control
    }

    /// The tenant with this slug, whatever its state. For administration.
    pub fn find(&self, slug_or_id: &str) -> Result<Arc<TenantEntry>, TenantError> {
        let directory = &self.0.directory;
        let by_id = || TenantId::parse(slug_or_id).ok().and_then(|id| directory.find(&id));
        directory.find_slug(slug_or_id).or_else(by_id).ok_or_else(|| TenantError::NotFound(slug_or_id.to_owned()))
    }

    /// The id of the tenant with this slug, if it answers.
    pub fn resolve_slug(&self, slug: &str) -> Result<TenantId, TenantError> {
        let entry = self.0.directory.find_slug(slug);
        answering(entry, slug)
    }

    /// The id of the tenant that claims this host name (lower case, without port), if it answers. `None`: nobody does.
    pub fn resolve_host(&self, host: &str) -> Option<Result<TenantId, TenantError>> {
        let entry = self.0.directory.find_host(host)?;
        Some(answering(Some(entry), host))
    }

    /// Every entry, in the order of slugs.
    pub fn entries(&self) -> Vec<Arc<TenantEntry>> {
        self.0.directory.entries()
    }

    /// Every host name that an active tenant claims.
    pub fn hosts(&self) -> Vec<String> {
        let entries = self.0.directory.entries();
        let active = entries.iter().filter(|entry| entry.state == TenantState::Active);
        active.flat_map(|entry| &entry.hosts).map(|host| host.to_string()).collect()
    }

    /// How often names, hosts and states of tenants have changed; see [`Directory::version`].
    pub fn version(&self) -> u64 {
        self.0.directory.version()
    }

    /// The entry of a tenant by id, whatever its state.
    pub fn entry(&self, id: &TenantId) -> Option<Arc<TenantEntry>> {
        self.0.directory.find(id)
    }

    /// The database of a tenant that answers; checks the state again, so a suspended tenant is refused here at the latest.
    pub async fn open_tenant(&self, id: &TenantId) -> Result<TenantDb, TenantError> {
        if id.is_control() {
            return Ok(self.0.control.clone());
        }
        answering(self.0.directory.find(id), id.as_str())?;
        Ok(self.brought_up(self.open_file(id).await?).await)
    }

    /// The database of a tenant if it is open at the moment; asking opens nothing. For reports.
    pub fn find_open(&self, id: &TenantId) -> Option<TenantDb> {
        self.0.store.find_open(id)
    }

    /// The database of a tenant that is active or suspended. For administration.
    pub async fn open_any(&self, id: &TenantId) -> Result<TenantDb, TenantError> {
        if self.has_file(id) {
            Ok(self.brought_up(self.open_file(id).await?).await)
        } else {
            Err(TenantError::NotFound(id.to_string()))
        }
    }

    /// Whether there should be a file for the tenant.
    fn has_file(&self, id: &TenantId) -> bool {
        let entry = self.0.directory.find(id);
        entry.is_some_and(|entry| matches!(entry.state, TenantState::Active | TenantState::Suspended))
    }

    async fn open_file(&self, id: &TenantId) -> Result<TenantDb, StoreError> {
        match self.0.store.open(id).await {
            // Asked again: whoever comes while a tenant is deleted finds no file either, and nothing is wrong with that.
            Err(error) if self.has_file(id) => Err(self.0.store.note_unusable(id, error)),
            opened => opened,
        }
    }

    /// Notes which tenants have no file, or one that does not begin as a tenant's; nothing is opened. Reads a hundred bytes
    /// per tenant.
    pub async fn look_over(&self) {
        let ids: Vec<TenantId> = self.0.directory.entries().iter().map(|entry| entry.id.clone()).collect();
        let store = Arc::clone(&self.0.store);
        let look = move |id: TenantId| store.check_head(&id).err().map(|error| (id, error));
        let looked = tokio::task::spawn_blocking(move || ids.into_iter().filter_map(look).collect::<Vec<_>>()).await;
        for (id, error) in looked.unwrap_or_default().into_iter().filter(|(id, _)| self.has_file(id)) {
            self.0.store.note_unusable(&id, error);
        }
    }

    /// The tenants whose files are known to be damaged or missing.
    pub fn list_ill(&self) -> Vec<TenantId> {
        self.0.store.list_ill().into_iter().filter(|id| id.is_control() || self.has_file(id)).collect()
    }

    /// `db`, with what this version expects in its file; asked once per opening. A file that cannot be written now goes
    /// without until it is opened again: what it has can still be read.
    async fn brought_up(&self, db: TenantDb) -> TenantDb {
        if !db.is_brought_up() {
            if let Err(error) = lifecycle::bring_up(&db, self.0.clock.now_ms()).await {
                tracing::warn!(tenant.id = %db.id(), %error, "a tenant of an earlier version is not brought up to this one");
            }
            db.note_brought_up();
        }
        db
    }

    /// Lists tenants by slug.
    pub fn list(&self, query: &TenantQuery) -> TenantPage {
        let per_page = query.per_page.clamp(1, limits::PAGE_LEN_MAX);
        let page = query.page.max(1);
        let mut entries = self.0.directory.entries();
        entries.retain(|entry| {
            entry.slug.as_str().starts_with(&query.slug_prefix) && query.state.is_none_or(|state| state == entry.state)
        });
        let total = entries.len();
        let items = entries.into_iter().skip((page - 1).saturating_mul(per_page)).take(per_page).collect();
        TenantPage { page, per_page, total, items }
    }

    /// Size, records and position of one tenant.
    pub async fn show(&self, slug_or_id: &str) -> Result<TenantReport, TenantError> {
        let entry = self.find(slug_or_id)?;
        let db = self.open_any(&entry.id).await?;
        let (records, collections) = db.read(count).await?;
        let size_bytes = file_bytes(&self.0.store.path(&entry.id)).await;
        Ok(TenantReport { size_bytes, records, collections, position: db.position(), entry })
    }

    pub(super) fn hold(&self, id: &TenantId, slug: &str) -> Result<Hold, TenantError> {
        if self.0.busy.lock().insert(id.clone()) {
            Ok(Hold { inner: Arc::clone(&self.0), id: id.clone() })
        } else {
            Err(TenantError::Busy(slug.to_owned()))
        }
    }
}

/// The right to change one tenant's life; given back when dropped.
pub(super) struct Hold {
    inner: Arc<Inner>,
    id: TenantId,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.inner.busy.lock().remove(&self.id);
    }
}

fn answering(entry: Option<Arc<TenantEntry>>, said: &str) -> Result<TenantId, TenantError> {
    match entry {
        Some(entry) if entry.state == TenantState::Active => Ok(entry.id.clone()),
        Some(entry) if entry.state == TenantState::Suspended => Err(TenantError::Suspended(said.to_owned())),
        _ => Err(TenantError::NotFound(said.to_owned())),
    }
}

/// Bytes of a database with its write-ahead log; a file that went away counts nothing.
async fn file_bytes(path: &Path) -> u64 {
    let mut bytes = 0;
    for suffix in ["", "-wal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        bytes += tokio::fs::metadata(name).await.map_or(0, |file| file.len());
    }
    bytes
}

fn count(reader: &store::Reader<'_>) -> Result<(u64, usize), TenantError> {
    let mut records = 0;
    let mut collections = 0;
    for collection in reader.schema().collections().iter().filter(|collection| !collection.system) {
        collections += 1;
        if !collection.is_view() {
            let sql = format!("SELECT count(*) FROM \"{}\"", collection.table());
            if let Some(Stored::Integer(here)) = reader.find_one(&sql, &[], |row| row.stored(0))? {
                records += u64::try_from(here).unwrap_or(0);
            }
        }
    }
    Ok((records, collections))
}

async fn open_control(store: &store::Tenants, clock: &dyn Clock, random: &dyn Random) -> Result<TenantDb, TenantError> {
    let id = TenantId::control();
    let wanted = system::control_collections(random, clock.now_ms());
    let control = match store.open(&id).await {
        Ok(control) => control,
        Err(StoreError::TenantMissing(_)) => return lifecycle::create_file(store, &id, wanted).await,
        Err(error) => return Err(error.into()),
    };
    if let Some(plan) = system::plan_missing(&control.schema(), wanted) {
        control.write(WriteMeta::system("upgrade"), move |tx| tx.apply_schema(&plan)).await?;
    }
    Ok(control)
}
