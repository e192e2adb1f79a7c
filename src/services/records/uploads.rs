//! Files that come with a write: checked, moved to their places before its transaction, taken back if it did not name them.
//!
//! Keeps true: no commit names a file that is not on disk; a refused, repeated or tried write leaves no file behind;
//! nothing here runs inside the transaction. Does not do: removing files that a write lets go of, the store does that
//! after the commit.

use super::account::Prepared;
use super::write::{WriteRequest, WriteVerb};
use super::{RecordError, Scope, gate};
use crate::kernel::error::Detail;
use crate::kernel::ident::FieldNumber;
use crate::kernel::ident::RecordId;
use crate::schema::Collection;
use crate::schema::field::{Field, FieldKind, FileOptions};
use crate::schema::value_check;
use crate::services::files::{self, Upload};
use crate::store::{FileRef, TenantDb};
use serde_json::{Map, Value};
use std::sync::Arc;

/// How many bytes a file for body member `member` may have, before any of them is read.
///
/// Refused where the caller cannot write such records at all, or where the member is no file field of theirs.
pub fn allowance(scope: &Scope, collection: &str, verb: WriteVerb, member: &str) -> Result<u64, RecordError> {
    let schema = scope.tenant.schema();
    let collection = super::read::find(&schema, collection)?;
    if collection.is_view() {
        return Err(RecordError::ReadOnly(collection.name.clone()));
    }
    let (rule, action) = match verb {
        WriteVerb::Create => (&collection.rules.create, "create"),
        _ => (&collection.rules.update, "update"),
    };
    gate::require_unlocked(scope, collection, rule, action)?;
    let (_, options) = field_for(scope, collection, member)?;
    Ok(files::bytes_max(options))
}

/// How many bytes a file of a batch may have, whose request is not known when it arrives: as many as the most generous field
/// that the caller may write; `None` where no collection takes files from the caller.
pub fn batch_allowance(scope: &Scope) -> Option<u64> {
    let schema = scope.tenant.schema();
    let is_open = |collection: &&Arc<Collection>| {
        let writable = |rule| gate::require_unlocked(scope, collection, rule, "write").is_ok();
        !collection.is_view() && (writable(&collection.rules.create) || writable(&collection.rules.update))
    };
    let fields = schema.collections().iter().filter(is_open).flat_map(|collection| &collection.fields);
    let visible = fields.filter(|field| !field.hidden || scope.is_superuser());
    let bytes = visible.filter_map(|field| match &field.kind {
        FieldKind::File(options) => Some(files::bytes_max(options)),
        _ => None,
    });
    bytes.max()
}

fn field_for<'collection>(
    scope: &Scope,
    collection: &'collection Collection,
    member: &str,
) -> Result<(&'collection Field, &'collection FileOptions), RecordError> {
    // A hidden field is none for those who cannot see it.
    let found = files::find_field(collection, member).filter(|(field, _)| !field.hidden || scope.is_superuser());
    found.ok_or_else(|| {
        let name = value_check::split_modifier(member).0;
        let message = format!("{} has no file field {name:?}.", collection.name);
        RecordError::Invalid(vec![Detail::new(name, "validation_invalid_file", message)])
    })
}

/// Puts the stored name of a file into the body that names it.
pub fn name_in(body: &mut Map<String, Value>, member: &str, name: &str) {
    match body.get_mut(member) {
        None => drop(body.insert(member.to_owned(), Value::from(name))),
        Some(Value::Array(values)) => values.push(Value::from(name)),
        Some(first) if first.is_null() || first == "" => *first = Value::from(name),
        Some(first) => *first = Value::Array(vec![first.take(), Value::from(name)]),
    }
}

/// Checks the files of a write and moves them to their places; `prepared` learns the id of a new record.
pub(super) async fn keep(
    scope: &Scope,
    request: &WriteRequest,
    prepared: &mut Prepared,
) -> Result<Vec<FileRef>, RecordError> {
    if request.uploads.is_empty() {
        return Ok(Vec::new());
    }
    let schema = scope.tenant.schema();
    let collection = super::read::find(&schema, &request.collection)?;
    let mut details = Vec::new();
    for upload in &request.uploads {
        let (field, options) = field_for(scope, collection, upload.member())?;
        details.extend(upload.check(field, options).err());
    }
    if !details.is_empty() {
        return Err(RecordError::Invalid(details));
    }
    let record = record_of(scope, collection, request, prepared)?;
    if request.dry_run {
        return Ok(Vec::new());
    }
    let place = |upload: &Upload| FileRef {
        collection: collection.id.clone(),
        record: record.clone(),
        name: upload.name().clone(),
    };
    let places: Vec<FileRef> = request.uploads.iter().map(place).collect();
    let files = request.uploads.iter().map(|upload| Arc::clone(upload.staged())).zip(places.iter().cloned()).collect();
    scope.tenant.keep_files(files).await?;
    Ok(places)
}

/// The record that the files will belong to; a new one gets its id here instead of inside the transaction.
fn record_of(
    scope: &Scope,
    collection: &Collection,
    request: &WriteRequest,
    prepared: &mut Prepared,
) -> Result<RecordId, RecordError> {
    let given = request.id.as_deref().or_else(|| request.body.get("id").and_then(Value::as_str)).unwrap_or_default();
    if !given.is_empty() {
        return RecordId::parse(given).map_err(|_| match request.verb {
            WriteVerb::Update => RecordError::NotFound,
            _ => unknown_record("The id is none that a record with files can have."),
        });
    }
    if request.verb == WriteVerb::Update {
        return Err(unknown_record(
            "Send files with the request that creates the record; here its id is not known yet.",
        ));
    }
    let random = scope.tools.random.as_ref();
    let drawn = collection.find_field_number(FieldNumber(0)).and_then(|field| value_check::autogenerate(field, random));
    let drawn = drawn.and_then(|text| RecordId::parse(text.as_text()?).ok());
    let id = drawn.unwrap_or_else(|| RecordId::generate(random));
    prepared.id = Some(id.clone());
    Ok(id)
}

fn unknown_record(message: &str) -> RecordError {
    RecordError::Invalid(vec![Detail::new("id", "validation_invalid_format", message)])
}

/// After the transaction, however it ended: what no record names goes again.
pub(super) async fn settle(tenant: &TenantDb, places: Vec<FileRef>) {
    if places.is_empty() {
        return;
    }
    let looked = places.clone();
    let unnamed = tenant.read(move |reader| {
        let mut unnamed = Vec::new();
        for place in &looked {
            let collection = reader.schema().find_id(&place.collection);
            let record = match collection {
                Some(collection) => reader.find_record(collection, place.record.as_str())?,
                None => None,
            };
            let is_named = collection.zip(record.as_ref()).is_some_and(|(collection, record)| {
                files::find_holder(collection, record, place.name.as_str()).is_some()
            });
            if !is_named {
                unnamed.push(place.clone());
            }
        }
        Ok::<_, RecordError>(unnamed)
    });
    match unnamed.await {
        Ok(unnamed) if unnamed.is_empty() => {}
        Ok(unnamed) => tenant.discard_files(unnamed).await,
        // The sweep looks again.
        Err(error) => tracing::warn!(tenant.id = %tenant.id(), %error, "uploaded files could not be looked after"),
    }
}
