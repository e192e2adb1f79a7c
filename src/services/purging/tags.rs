//! The words by which an answer can be purged elsewhere, and the words that a change makes untrue.
//!
//! Keeps true: an answer carries at least one word of every collection it was made from, and a change posts every word
//! under which an answer with the changed record may be kept. Does not do: sending.

use super::PurgeForm;
use super::pending::{Changes, Parts, Records};
use crate::kernel::ident::{RecordId, TenantId};
use crate::schema::cache_policy::{Policy, collection_tag, lists_tag, record_tag};
use crate::schema::{Collection, Schema};
use std::collections::BTreeSet;

/// Where a tenant's answers live.
pub(super) struct Place<'place> {
    pub(super) tenant: &'place TenantId,
    /// Beginnings of its addresses, without a slash at the end.
    pub(super) roots: Vec<String>,
}

/// What to post for `changes`; a tenant without a schema is gone, and everything of it with it.
pub(super) fn render(place: &Place<'_>, schema: Option<&Schema>, changes: &Changes, form: PurgeForm) -> Vec<String> {
    let (Changes::Parts(parts), Some(schema)) = (changes, schema) else {
        return match form {
            PurgeForm::Tags => vec![place.tenant.as_str().to_owned()],
            PurgeForm::Urls => place.roots.iter().map(|root| format!("{root}/api/collections")).collect(),
        };
    };
    let mut out = BTreeSet::new();
    for (id, records) in &parts.collections {
        match schema.find_id(id) {
            Some(collection) if !is_posted(collection) => {}
            Some(collection) => add(place, collection, records, form, &mut out),
            // Deleted since; its deletion is a change of schema, which posts everything.
            None => {}
        }
    }
    out.extend(by_hand(place, parts, form));
    out.into_iter().collect()
}

/// Whether the collection's policy wants its changes posted; system collections are never kept anywhere.
fn is_posted(collection: &Collection) -> bool {
    let policy = collection.cache.as_ref().and_then(|value| Policy::parse(value).ok());
    !collection.system && policy.is_none_or(|policy| policy.purge)
}

fn add(place: &Place<'_>, collection: &Collection, records: &Records, form: PurgeForm, out: &mut BTreeSet<String>) {
    let (tenant, name) = (place.tenant.as_str(), collection.name.as_str());
    match (form, records) {
        (PurgeForm::Tags, Records::All) => _ = out.insert(collection_tag(tenant, name)),
        (PurgeForm::Tags, Records::Some(ids)) => {
            out.insert(lists_tag(tenant, name));
            out.extend(ids.iter().map(|id| record_tag(tenant, name, id.as_str())));
        }
        (PurgeForm::Urls, records) => {
            let none = BTreeSet::new();
            let ids: &BTreeSet<RecordId> = if let Records::Some(ids) = records { ids } else { &none };
            for root in &place.roots {
                let list = format!("{root}/api/collections/{name}/records");
                out.extend(ids.iter().map(|id| format!("{list}/{id}")));
                out.insert(list);
            }
        }
    }
}

fn by_hand(place: &Place<'_>, parts: &Parts, form: PurgeForm) -> Vec<String> {
    match form {
        PurgeForm::Tags => parts.tags.iter().map(|tag| format!("{}:{tag}", place.tenant)).collect(),
        // A tag has no address: everything is the only honest answer.
        PurgeForm::Urls if !parts.tags.is_empty() => {
            place.roots.iter().map(|root| format!("{root}/api/collections")).collect()
        }
        PurgeForm::Urls => Vec::new(),
    }
}
