//! A tenant's life: created, renamed, suspended, resumed, cloned, exported, imported, deleted.
//!
//! Keeps true: the control database states the intent before a file is touched (`creating`, `deleting`), so a crash at any
//! moment leaves something that [`repair`] removes at the next start; one operation per tenant at a time; an operation
//! that has begun ends even if whoever asked goes away. No credential of one tenant is valid in its copy.
//! Does not do: schemas of blueprints (whoever creates passes a [`Fill`]), HTTP, uploads' files (they live beside the
//! database and are copied by `store`).

use super::directory::{BlueprintRef, TenantEntry, TenantState};
use super::entry::{self, Save};
use super::error::TenantError;
use super::registry::{Hold, Inner, MAIN, Registry};
use super::sealed::{self, Resealer, Sealed};
use super::system;
use crate::kernel::error::Fault;
use crate::kernel::ident::{RecordId, TenantId, TenantSlug};
use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::schema::plan::{VIEW_FORM, plan_views};
use crate::schema::{Collection, Schema};
use crate::services::budget::TenantLimits;
use crate::store::{self, StoreError, TenantDb, WriteMeta};
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

/// Puts collections and records into a new tenant before anybody can see it.
pub type Fill =
    Box<dyn FnOnce(TenantDb) -> Pin<Box<dyn Future<Output = Result<(), Box<dyn Fault + Send + Sync>>> + Send>> + Send>;

/// What a new tenant starts with, besides the system collections.
pub enum Contents {
    /// The collection `users`.
    Users,
    /// What the callback puts in.
    Filled(Fill),
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Users => "Users",
            Self::Filled(_) => "Filled",
        })
    }
}

/// A tenant to be created.
#[derive(Debug)]
pub struct CreateTenant {
    /// How it is addressed.
    pub slug: TenantSlug,
    /// Its name; empty takes the slug.
    pub name: String,
    /// Host names that lead to it.
    pub hosts: Vec<String>,
    /// The blueprint its contents come from, for the record.
    pub blueprint: Option<BlueprintRef>,
    /// What it starts with.
    pub contents: Contents,
}

impl CreateTenant {
    /// A tenant with the collection `users` and nothing else.
    pub fn plain(slug: TenantSlug) -> Self {
        Self { slug, name: String::new(), hosts: Vec::new(), blueprint: None, contents: Contents::Users }
    }
}

/// A tenant that was made from another.
#[derive(Debug, Clone)]
pub struct Copied {
    /// The tenant.
    pub entry: Arc<TenantEntry>,
    /// The names of secrets in it that were sealed by another node: they have to be set anew.
    pub unreadable: Vec<String>,
}

/// What to change about a tenant's addressing; `None` leaves as it is.
#[derive(Debug, Clone, Default)]
pub struct RenameTenant {
    /// The new slug.
    pub slug: Option<TenantSlug>,
    /// The new name.
    pub name: Option<String>,
    /// The new host names.
    pub hosts: Option<Vec<String>>,
    /// The new limits of its own, all of them.
    pub limits: Option<TenantLimits>,
    /// The new list of origins; `Some(None)` is the node's.
    pub cors_origins: Option<Option<Vec<String>>>,
}

/// Where the contents of a new tenant come from.
enum Origin {
    Contents(Contents),
    Clone(TenantId),
    Import(PathBuf),
}

impl Registry {
    /// Creates a tenant; when this returns it answers.
    pub async fn create(&self, meta: WriteMeta, request: CreateTenant) -> Result<Arc<TenantEntry>, TenantError> {
        let CreateTenant { slug, name, hosts, blueprint, contents } = request;
        let draft = self.draft(slug, &name, &hosts, blueprint)?;
        Ok(self.bring_up(meta, draft, Origin::Contents(contents), Vec::new()).await?.entry)
    }

    /// Makes a copy of `source` under another slug; sessions, codes and API keys stay behind.
    pub async fn clone_tenant(
        &self,
        meta: WriteMeta,
        source: &str,
        slug: TenantSlug,
        name: &str,
    ) -> Result<Copied, TenantError> {
        let source = self.find(source)?;
        let hold = self.hold(&source.id, source.slug.as_str())?;
        self.open_any(&source.id).await?;
        let draft = self.draft(slug, name, &[], source.blueprint.clone())?;
        self.bring_up(meta, draft, Origin::Clone(source.id.clone()), vec![hold]).await
    }

    /// Makes a tenant from an exported file; sessions, codes and API keys in it are dropped.
    pub async fn import(
        &self,
        meta: WriteMeta,
        file: PathBuf,
        slug: TenantSlug,
        name: &str,
    ) -> Result<Copied, TenantError> {
        let draft = self.draft(slug, name, &[], None)?;
        self.bring_up(meta, draft, Origin::Import(file), Vec::new()).await
    }

    /// Writes a consistent copy of the tenant's database to `file`, which must not exist; the tenant keeps working.
    pub async fn export(&self, slug_or_id: &str, file: PathBuf) -> Result<Arc<TenantEntry>, TenantError> {
        let entry = self.find(slug_or_id)?;
        let hold = self.hold(&entry.id, entry.slug.as_str())?;
        self.open_any(&entry.id).await?;
        let inner = Arc::clone(&self.0);
        finish(async move {
            let _hold = hold;
            inner.store.export(&entry.id, &file).await?;
            Ok(entry)
        })
        .await
    }

    /// Changes slug, name or host names.
    pub async fn rename(
        &self,
        meta: WriteMeta,
        slug_or_id: &str,
        request: RenameTenant,
    ) -> Result<Arc<TenantEntry>, TenantError> {
        let inner = Arc::clone(&self.0);
        self.change(meta, slug_or_id, move |entry| {
            if let Some(slug) = request.slug.filter(|slug| slug != &entry.slug) {
                refuse_main(entry)?;
                if inner.directory.find_slug(slug.as_str()).is_some() {
                    return Err(TenantError::Exists(slug.to_string()));
                }
                entry.slug = slug;
            }
            if let Some(name) = request.name {
                entry.name = checked_name(&name, &entry.slug)?;
            }
            if let Some(hosts) = request.hosts {
                entry.hosts = checked_hosts(&hosts)?;
            }
            if let Some(limits) = request.limits {
                entry.limits = limits;
            }
            if let Some(origins) = request.cors_origins {
                entry.cors_origins = origins.map(|origins| checked_origins(&origins)).transpose()?;
            }
            Ok(())
        })
        .await
    }

    /// Notes that the tenant's schema now is that of another blueprint version.
    pub async fn set_blueprint(
        &self,
        meta: WriteMeta,
        slug_or_id: &str,
        blueprint: Option<BlueprintRef>,
    ) -> Result<Arc<TenantEntry>, TenantError> {
        self.change(meta, slug_or_id, move |entry| {
            entry.blueprint = blueprint;
            Ok(())
        })
        .await
    }

    /// Lets the tenant answer nobody until it is resumed. Suspending a suspended tenant changes nothing.
    pub async fn suspend(&self, meta: WriteMeta, slug_or_id: &str) -> Result<Arc<TenantEntry>, TenantError> {
        self.change(meta, slug_or_id, |entry| {
            entry.state = TenantState::Suspended;
            Ok(())
        })
        .await
    }

    /// Lets the tenant answer again. Resuming an active tenant changes nothing.
    pub async fn resume(&self, meta: WriteMeta, slug_or_id: &str) -> Result<Arc<TenantEntry>, TenantError> {
        self.change(meta, slug_or_id, |entry| {
            entry.state = TenantState::Active;
            Ok(())
        })
        .await
    }

    /// Removes the tenant and everything in it; its id, which nobody will have again. What failed halfway can be repeated.
    pub async fn delete(&self, meta: WriteMeta, slug_or_id: &str) -> Result<TenantId, TenantError> {
        let named = self.find(slug_or_id)?;
        refuse_main(&named)?;
        let hold = self.hold(&named.id, named.slug.as_str())?;
        // Read again under the hold: another operation may have ended in between. Nobody works on it now, so whatever
        // state it is in, it may go; one that is half made or half gone has been left by an operation that failed.
        let entry = self.find(named.id.as_str())?;
        let inner = Arc::clone(&self.0);
        finish(async move {
            let _hold = hold;
            let mut leaving = TenantEntry::clone(&entry);
            leaving.state = TenantState::Deleting;
            entry::save(&inner.control, meta.clone(), &leaving, Save::Update).await?;
            inner.directory.put(Arc::new(leaving));
            tear_down(&inner, meta, &entry.id).await?;
            Ok(entry.id.clone())
        })
        .await
    }

    /// The entry of a tenant that is neither on its way in nor on its way out.
    fn settled(&self, slug_or_id: &str) -> Result<Arc<TenantEntry>, TenantError> {
        let entry = self.find(slug_or_id)?;
        match entry.state {
            TenantState::Active | TenantState::Suspended => Ok(entry),
            TenantState::Creating => Err(TenantError::Busy(slug_or_id.to_owned())),
            TenantState::Deleting => Err(TenantError::NotFound(slug_or_id.to_owned())),
        }
    }

    async fn change(
        &self,
        meta: WriteMeta,
        slug_or_id: &str,
        change: impl FnOnce(&mut TenantEntry) -> Result<(), TenantError> + Send + 'static,
    ) -> Result<Arc<TenantEntry>, TenantError> {
        let named = self.settled(slug_or_id)?;
        let hold = self.hold(&named.id, named.slug.as_str())?;
        // Read again under the hold: another operation may have ended in between.
        let before = self.settled(named.id.as_str())?;
        let inner = Arc::clone(&self.0);
        finish(async move {
            let _hold = hold;
            let _naming = inner.naming.lock().await;
            let mut after = TenantEntry::clone(&before);
            change(&mut after)?;
            refuse_taken(&inner, &after.hosts, &after.id)?;
            if after == *before {
                return Ok(before);
            }
            after.updated_ms = inner.clock.now_ms();
            entry::save(&inner.control, meta, &after, Save::Update).await?;
            let after = Arc::new(after);
            inner.directory.put(Arc::clone(&after));
            Ok(after)
        })
        .await
    }

    fn draft(
        &self,
        slug: TenantSlug,
        name: &str,
        hosts: &[String],
        blueprint: Option<BlueprintRef>,
    ) -> Result<TenantEntry, TenantError> {
        if self.0.directory.find_slug(slug.as_str()).is_some() {
            return Err(TenantError::Exists(slug.to_string()));
        }
        let now_ms = self.0.clock.now_ms();
        Ok(TenantEntry {
            id: TenantId::generate(self.0.random.as_ref()),
            name: checked_name(name, &slug)?,
            hosts: checked_hosts(hosts)?,
            limits: TenantLimits::default(),
            cors_origins: None,
            state: TenantState::Creating,
            slug,
            blueprint,
            created_ms: now_ms,
            updated_ms: now_ms,
        })
    }

    async fn bring_up(
        &self,
        meta: WriteMeta,
        draft: TenantEntry,
        origin: Origin,
        mut holds: Vec<Hold>,
    ) -> Result<Copied, TenantError> {
        holds.push(self.hold(&draft.id, draft.slug.as_str())?);
        let inner = Arc::clone(&self.0);
        finish(async move {
            let _holds = holds;
            {
                let _naming = inner.naming.lock().await;
                refuse_taken(&inner, &draft.hosts, &draft.id)?;
                entry::save(&inner.control, meta.clone(), &draft, Save::Insert).await?;
                inner.directory.put(Arc::new(draft.clone()));
            }
            let made = match make_file(&inner, &draft, origin).await {
                Ok(unreadable) => {
                    activate(&inner, meta.clone(), &draft).await.map(|entry| Copied { entry, unreadable })
                }
                Err(error) => Err(error),
            };
            if made.is_err() {
                // What cannot be removed now is removed at the next start.
                if let Err(error) = tear_down(&inner, meta, &draft.id).await {
                    tracing::warn!(tenant.id = %draft.id, %error, "the leftovers of a failed creation stay until the next start");
                }
            }
            made
        })
        .await
    }
}

/// `*`, or scheme, host and port as a browser sends them.
fn checked_origins(origins: &[String]) -> Result<Vec<Arc<str>>, TenantError> {
    let well_formed = |origin: &str| match url::Url::parse(origin) {
        Ok(url) => ["http", "https"].contains(&url.scheme()) && url.origin().ascii_serialization() == origin,
        Err(_) => origin == "*",
    };
    if origins.len() > limits::TENANT_ORIGINS_MAX || !origins.iter().all(|origin| well_formed(origin)) {
        let expected = "it needs at most 50 origins such as https://app.example.com, or *";
        return Err(TenantError::Invalid { field: "corsOrigins", expected });
    }
    Ok(origins.iter().map(|origin| Arc::from(origin.as_str())).collect())
}

/// Runs `work` to its end even if the caller goes away.
async fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T, TenantError>> + Send + 'static,
) -> Result<T, TenantError> {
    tokio::spawn(work).await.map_err(|error| TenantError::CutOff(error.to_string()))?
}

/// Removes what a crash left half made or half removed. Runs at start, before anybody asks.
pub(super) async fn repair(registry: &Registry) {
    for entry in registry.0.directory.entries() {
        if matches!(entry.state, TenantState::Creating | TenantState::Deleting) {
            tracing::warn!(tenant.id = %entry.id, tenant.slug = %entry.slug, state = entry.state.as_str(), "removing a leftover");
            let torn_down = tear_down(&registry.0, WriteMeta::system("repair"), &entry.id).await;
            if let Err(error) = torn_down {
                // On a full disk, say. It answers nobody, and the next start tries again.
                tracing::warn!(tenant.id = %entry.id, %error, "a leftover could not be removed");
            }
        }
    }
}

/// Creates the tenant that answers when none is named.
pub(super) async fn create_main(registry: &Registry) -> Result<(), TenantError> {
    let slug = TenantSlug::parse(MAIN)?;
    registry.create(WriteMeta::system("start"), CreateTenant::plain(slug)).await.map(|_| ())
}

/// Makes the file; the names of the secrets in it that this node cannot open.
async fn make_file(inner: &Arc<Inner>, draft: &TenantEntry, origin: Origin) -> Result<Vec<String>, TenantError> {
    let (db, of) = match origin {
        Origin::Contents(contents) => {
            let mut collections = system::tenant_collections(draft.created_ms);
            if matches!(contents, Contents::Users) {
                collections.push(system::users(inner.random.as_ref(), draft.created_ms));
            }
            let db = create_file(&inner.store, &draft.id, collections).await?;
            if let Contents::Filled(fill) = contents {
                fill(db).await.map_err(TenantError::Fill)?;
            }
            return Ok(Vec::new());
        }
        Origin::Clone(source) => (inner.store.clone_tenant(&source, &draft.id).await?, Sealed::For(source)),
        Origin::Import(file) => {
            let db = inner.store.import(&draft.id, &file).await?;
            let told = sealed::told_by(&db, &inner.sealer).await?;
            (db, told)
        }
    };
    bring_up(&db, inner.clock.now_ms()).await?;
    drop_credentials(&db).await?;
    Ok(Resealer { sealer: inner.sealer.clone(), random: Arc::clone(&inner.random), of }.run(&db).await?)
}

/// Brings the file of an earlier version up to this one: system collections, fields and indexes that it lacks, and views as this
/// version makes them of their SELECTs. Where there is nothing to do, nothing is written.
pub(super) async fn bring_up(db: &TenantDb, now_ms: i64) -> Result<(), StoreError> {
    let missing = move |schema: &Arc<Schema>| system::plan_missing(schema, system::tenant_collections(now_ms));
    if missing(&db.schema()).is_some() {
        // Planned again in the transaction: whoever opens the tenant at the same time adds the same.
        let added = db.write(WriteMeta::system("upgrade"), move |tx| match missing(tx.schema()) {
            Some(plan) => tx.apply_schema(&plan),
            None => Ok(()),
        });
        added.await?;
    }
    let has_views = db.schema().collections().iter().any(|collection| collection.is_view());
    if has_views { check_views(db).await } else { Ok(()) }
}

/// Makes the views anew that this version makes otherwise. Every SELECT is compiled for that, by a thread for reads, and only
/// where the collections changed since it was last done or another version did it.
async fn check_views(db: &TenantDb) -> Result<(), StoreError> {
    let looked = db.read(|reader| {
        let version = reader.schema().version();
        if reader.views_checked()? == Some((VIEW_FORM, version)) {
            return Ok::<_, StoreError>(None);
        }
        let planned = plan_views(reader.schema(), &reader.view_statements()?, &store::describe_in_scratch);
        Ok(Some((version, planned.is_some())))
    });
    match looked.await? {
        None => Ok(()),
        Some((_, true)) => {
            let made = db.write(WriteMeta::system("upgrade"), |tx| {
                if let Some(plan) = plan_views(tx.schema(), &tx.view_statements()?, &store::describe_in_scratch) {
                    tx.apply_schema(&plan)?;
                }
                tx.note_views_checked(VIEW_FORM)
            });
            made.await.map(drop)
        }
        Some((version, false)) => {
            let noted = db.write(WriteMeta::system("upgrade"), move |tx| match tx.schema().version() == version {
                true => tx.note_views_checked(VIEW_FORM),
                false => Ok(()),
            });
            // Where it cannot be kept, the next opening looks again.
            let _: Result<_, StoreError> = noted.await;
            Ok(())
        }
    }
}

/// Makes an empty file and puts `collections` into it.
pub(super) async fn create_file(
    store: &store::Tenants,
    id: &TenantId,
    collections: Vec<Collection>,
) -> Result<TenantDb, TenantError> {
    let db = store.create(id).await?;
    let plan = system::plan(collections);
    db.write(WriteMeta::system("create"), move |tx| tx.apply_schema(&plan)).await?;
    Ok(db)
}

async fn activate(inner: &Arc<Inner>, meta: WriteMeta, draft: &TenantEntry) -> Result<Arc<TenantEntry>, TenantError> {
    let mut entry = draft.clone();
    entry.state = TenantState::Active;
    entry.updated_ms = inner.clock.now_ms();
    entry::save(&inner.control, meta, &entry, Save::Update).await?;
    let entry = Arc::new(entry);
    inner.directory.put(Arc::clone(&entry));
    Ok(entry)
}

/// Removes the file, then the entry; each step may have been done already.
async fn tear_down(inner: &Arc<Inner>, meta: WriteMeta, id: &TenantId) -> Result<(), TenantError> {
    match inner.store.delete(id).await {
        Ok(()) | Err(StoreError::TenantMissing(_)) => {}
        Err(error) => return Err(error.into()),
    }
    entry::remove(&inner.control, meta, id).await?;
    inner.directory.remove(id);
    Ok(())
}

const CREDENTIALS_PER_WRITE: usize = 1_000;

/// Removes sessions, half-finished logins and registrations, one-time codes and API keys, so that none of the source's is
/// valid in a copy, and the receipts of its requests, which would answer those of the copy.
///
/// Signed tokens need no care: they name the tenant they are for.
async fn drop_credentials(db: &TenantDb) -> Result<(), TenantError> {
    for name in [system::SESSIONS, system::MFAS, system::OTPS, system::API_KEYS, system::REGISTRATIONS] {
        loop {
            let dropped = db
                .write(WriteMeta::system("copy"), move |tx| {
                    let Some(collection) = tx.schema().find(name).cloned() else { return Ok(0) };
                    let mut ids = Vec::new();
                    let sql = format!("SELECT id FROM \"{}\" LIMIT {CREDENTIALS_PER_WRITE}", collection.table());
                    tx.for_each(&sql, &[], &mut |row| {
                        ids.push(row.stored(0)?);
                        Ok(())
                    })?;
                    for id in ids.iter().filter_map(Stored::as_text).filter_map(|id| RecordId::parse(id).ok()) {
                        tx.delete(&collection, &id)?;
                    }
                    Ok::<_, StoreError>(ids.len())
                })
                .await?;
            if dropped.value < CREDENTIALS_PER_WRITE {
                break;
            }
        }
    }
    db.prune_receipts(i64::MAX).await?;
    Ok(())
}

fn refuse_main(entry: &TenantEntry) -> Result<(), TenantError> {
    if entry.slug.as_str() == MAIN { Err(TenantError::Reserved(MAIN.to_owned())) } else { Ok(()) }
}

fn checked_name(name: &str, slug: &TenantSlug) -> Result<Arc<str>, TenantError> {
    let name = name.trim();
    if name.chars().count() > limits::TENANT_NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return Err(TenantError::Invalid { field: "name", expected: "at most 200 printable characters" });
    }
    Ok(Arc::from(if name.is_empty() { slug.as_str() } else { name }))
}

fn checked_hosts(hosts: &[String]) -> Result<Vec<Arc<str>>, TenantError> {
    if hosts.len() > limits::TENANT_HOSTS_MAX {
        return Err(TenantError::Invalid { field: "hosts", expected: "at most 20 host names" });
    }
    let mut checked: Vec<Arc<str>> = Vec::with_capacity(hosts.len());
    for host in hosts {
        let host = host.trim().trim_end_matches('.').to_ascii_lowercase();
        if !is_host(&host) {
            return Err(TenantError::Invalid { field: "hosts", expected: "DNS names without scheme, port and path" });
        }
        if !checked.iter().any(|seen| **seen == *host) {
            checked.push(Arc::from(host));
        }
    }
    Ok(checked)
}

fn refuse_taken(inner: &Inner, hosts: &[Arc<str>], own: &TenantId) -> Result<(), TenantError> {
    match hosts.iter().find(|host| inner.directory.find_host(host).is_some_and(|owner| &owner.id != own)) {
        Some(host) => Err(TenantError::HostTaken(host.to_string())),
        None => Ok(()),
    }
}

fn is_host(host: &str) -> bool {
    (1..=253).contains(&host.len())
        && host.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_dns_names() {
        for (host, allowed) in [
            ("a.example.com", true),
            ("localhost", true),
            ("a_b.example", false),
            ("a..b", false),
            ("-a.b", false),
            ("a.b:80", false),
            ("http://a.b", false),
            ("", false),
        ] {
            assert_eq!(is_host(host), allowed, "{host}");
        }
    }
}
