//! Registry entries as records of the control database's `_tenants`.
//!
//! Keeps true: writing an entry and reading it back gives the same entry.
//! Does not do: deciding which entries there should be.

use super::directory::{BlueprintRef, TenantEntry, TenantState};
use super::error::TenantError;
use super::rows;
use super::system::TENANTS;
use crate::kernel::ident::{RecordId, TenantId, TenantSlug};
use crate::kernel::value::Stored;
use crate::schema::record::RecordImage;
use crate::schema::{Collection, Schema};
use crate::services::budget::TenantLimits;
use crate::store::{self, Reader, StoreError, TenantDb, WriteMeta, WriteTx};
use std::path::Path;
use std::sync::Arc;

/// How an entry is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Save {
    /// It is new.
    Insert,
    /// It replaces the one with its id.
    Update,
}

/// What the registry keeps about a tenant in one JSON field.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Policy {
    limits: TenantLimits,
    #[serde(skip_serializing_if = "Option::is_none")]
    cors_origins: Option<Vec<Arc<str>>>,
}

impl Policy {
    fn of(entry: &TenantEntry) -> Self {
        Self { limits: entry.limits, cors_origins: entry.cors_origins.clone() }
    }
}

/// Writes `entry`; its slug must be free.
pub(super) async fn save(
    control: &TenantDb,
    meta: WriteMeta,
    entry: &TenantEntry,
    how: Save,
) -> Result<(), TenantError> {
    let entry = entry.clone();
    let slug = entry.slug.to_string();
    let written = control.write(meta, move |tx| write(tx, &entry, how)).await;
    match written {
        Ok(_) => Ok(()),
        Err(TenantError::Store(StoreError::Unique { .. })) => Err(TenantError::Exists(slug)),
        Err(error) => Err(error),
    }
}

/// Removes the entry with this id, if it is there.
pub(super) async fn remove(control: &TenantDb, meta: WriteMeta, id: &TenantId) -> Result<(), TenantError> {
    let id = record_id(id)?;
    control
        .write(meta, move |tx| {
            let collection = collection(tx.schema())?;
            match tx.delete(&collection, &id) {
                Ok(()) | Err(StoreError::RecordMissing { .. }) => Ok(()),
                Err(error) => Err(TenantError::from(error)),
            }
        })
        .await?;
    Ok(())
}

/// Reads every entry.
pub(super) async fn load_all(control: &TenantDb) -> Result<Vec<TenantEntry>, TenantError> {
    control.read(read_all).await
}

/// Reads every entry of a folder that no node serves; changes nothing.
pub fn read_entries(folder: &Path) -> Result<Vec<TenantEntry>, TenantError> {
    store::read_file(folder, &TenantId::control(), read_all)
}

fn read_all(reader: &Reader<'_>) -> Result<Vec<TenantEntry>, TenantError> {
    let collection = collection(reader.schema())?;
    let mut ids = Vec::new();
    let sql = format!("SELECT id FROM \"{}\"", collection.table());
    reader.for_each(&sql, &[], &mut |row| {
        ids.push(row.stored(0)?);
        Ok(())
    })?;
    let mut entries = Vec::with_capacity(ids.len());
    for id in ids.iter().filter_map(Stored::as_text) {
        if let Some(image) = reader.find_record(&collection, id)? {
            entries.push(from_image(&collection, &image)?);
        }
    }
    Ok(entries)
}

fn write(tx: &mut WriteTx<'_>, entry: &TenantEntry, how: Save) -> Result<(), TenantError> {
    let collection = collection(tx.schema())?;
    let id = record_id(&entry.id)?;
    match how {
        Save::Insert => tx.insert(&collection, &rows::image(&collection, id, &values(entry), entry.created_ms))?,
        Save::Update => {
            tx.update(&collection, &id, &rows::changes_at(&collection, &values(entry), entry.updated_ms))?;
        }
    }
    Ok(())
}

fn collection(schema: &Schema) -> Result<Arc<Collection>, TenantError> {
    schema.find(TENANTS).cloned().ok_or_else(|| TenantError::Damaged(TENANTS.to_owned()))
}

fn record_id(id: &TenantId) -> Result<RecordId, TenantError> {
    RecordId::parse(id.as_str()).map_err(|_| TenantError::Damaged(id.to_string()))
}

fn values(entry: &TenantEntry) -> Vec<(&'static str, Stored)> {
    let (blueprint, version) =
        entry.blueprint.as_ref().map_or(("", 0), |blueprint| (&*blueprint.name, blueprint.version));
    let hosts: Vec<&str> = entry.hosts.iter().map(|host| &**host).collect();
    vec![
        ("slug", Stored::text(&entry.slug)),
        ("name", Stored::text(&*entry.name)),
        ("state", Stored::text(entry.state.as_str())),
        ("blueprint", Stored::text(blueprint)),
        ("blueprintVersion", Stored::Real(f64::from(version))),
        ("hosts", Stored::from(serde_json::Value::from(hosts).to_string())),
        ("policy", Stored::from(serde_json::to_string(&Policy::of(entry)).unwrap_or_default())),
    ]
}

fn from_image(collection: &Collection, image: &RecordImage) -> Result<TenantEntry, TenantError> {
    let text = |name: &str| rows::text(collection, image, name);
    let moment = |name: &str| rows::moment_ms(collection, image, name).unwrap_or_default();
    let damaged = || TenantError::Damaged(image.id.to_string());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "versions are small whole numbers")]
    let version = rows::number(collection, image, "blueprintVersion") as u32;
    let hosts: Vec<Arc<str>> = serde_json::from_str(text("hosts")).unwrap_or_default();
    // A policy that a newer version wrote must not be taken for none.
    let policy: Policy = match text("policy") {
        "" | "null" => Policy::default(),
        policy => serde_json::from_str(policy).map_err(|_| damaged())?,
    };
    Ok(TenantEntry {
        id: TenantId::parse(image.id.as_str()).map_err(|_| damaged())?,
        slug: TenantSlug::parse(text("slug")).map_err(|_| damaged())?,
        name: Arc::from(text("name")),
        state: TenantState::parse(text("state")).ok_or_else(damaged)?,
        blueprint: Some(text("blueprint"))
            .filter(|name| !name.is_empty())
            .map(|name| BlueprintRef { name: Arc::from(name), version }),
        hosts,
        limits: policy.limits,
        cors_origins: policy.cors_origins,
        created_ms: moment("created"),
        updated_ms: moment("updated"),
    })
}
