//! Finding the file that an address names, for a caller who may see it.
//!
//! Keeps true: only a name that the record holds leads to a file; a protected file needs a caller whom the view rule
//! admits, a field's read rule holds for its files, and a hidden field has none; every refusal looks like a file that is
//! not there. Does not do: bytes on the wire, tokens.

use super::gate::{self, Subject};
use super::hint::{self, AskedRule};
use super::{RecordError, Scope};
use crate::kernel::ident::{FileName, RecordId};
use crate::query::request::RequestContext;
use crate::schema::Collection;
use crate::services::files::{self, media_type};
use crate::store::{FileRef, OpenFile, Reader};
use std::borrow::Cow;
use std::sync::Arc;

/// A file that the caller may have.
#[derive(Debug)]
pub struct FoundFile {
    /// Its content.
    pub open: OpenFile,
    /// Its media type, without parameters.
    pub media: Cow<'static, str>,
    /// Its stored name.
    pub name: FileName,
    /// Whether everybody who knows the address may have it, so that shared caches may keep it.
    pub public: bool,
    /// Names this content and no other: names are never used twice.
    pub tag: [u8; 32],
}

/// Opens `name` of record `id`.
pub async fn open(scope: &Scope, collection: &str, id: &str, name: &str) -> Result<FoundFile, RecordError> {
    let (Ok(id), Ok(name)) = (RecordId::parse(id), FileName::parse(name)) else {
        return Err(RecordError::FileNotFound);
    };
    let schema = scope.tenant.schema();
    let collection = schema.find(collection).cloned().ok_or(RecordError::FileNotFound)?;
    if collection.is_view() {
        return Err(RecordError::FileNotFound);
    }
    let place = FileRef { collection: collection.id.clone(), record: id, name };
    let (run, wanted) = (scope.clone(), place.clone());
    let of = Arc::clone(&collection);
    let public = scope.tenant.read(move |reader| admit(reader, &run, &of, &wanted)).await;
    let public = public.map_err(|error| {
        let (text, class) = (collection.rules.view.as_deref(), &scope.class());
        hint::explain_rule(error, scope, &collection, AskedRule { name: "view rule", text, class })
    })?;
    let open = scope.tenant.open_file(&place).await?.ok_or(RecordError::FileNotFound)?;
    let media = media_type(&open.head, place.name.as_str());
    let whole = format!("{}/{}/{}/{}", scope.tenant.id(), place.collection, place.record, place.name);
    let tag = crate::kernel::digest::sha256(format!("{whole}/{}", open.bytes).as_bytes());
    Ok(FoundFile { open, media, name: place.name, public, tag })
}

/// Whether the file is public; refused where the caller may not have it.
fn admit(
    reader: &Reader<'_>,
    scope: &Scope,
    collection: &Arc<Collection>,
    place: &FileRef,
) -> Result<bool, RecordError> {
    let record = reader.find_record(collection, place.record.as_str())?.ok_or(RecordError::FileNotFound)?;
    let (field, options) =
        files::find_holder(collection, &record, place.name.as_str()).ok_or(RecordError::FileNotFound)?;
    let request = RequestContext { context: Arc::from("protectedFile"), ..(*scope.request).clone() };
    let admits = |rule| gate::admits(reader, scope, &request, collection, rule, Subject::Stored(&place.record));
    let hidden = field.hidden && !scope.is_superuser();
    let refused = hidden
        || (options.protected && !admits(&collection.rules.view)?)
        || (field.read_rule.is_some() && !admits(&field.read_rule)?);
    match refused {
        true => Err(RecordError::FileNotFound),
        false => Ok(!options.protected && !field.hidden && field.read_rule.is_none()),
    }
}
