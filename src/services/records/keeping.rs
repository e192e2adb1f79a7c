//! What a plan says about keeping its answers: policy, what they depend on, what other caches are told.
//!
//! Keeps true: every collection whose rows a plan reads is among the dependencies, a view by all that it is made of;
//! an answer that reads the present or chance is never kept.
//! Does not do: keeping; `cached` asks the cache.

use crate::cache::stamp::Dependencies;
use crate::kernel::ident::{CollectionId, CollectionName, RecordId, TenantId};
use crate::kernel::value::Stored;
use crate::query::request::{Place, RequestPath};
use crate::query::resolved::Facts;
use crate::schema::cache_policy::{Policy, Tier, lists_tag, record_tag};
use crate::schema::view;
use crate::schema::{Collection, Schema};
use std::collections::BTreeSet;
use std::sync::Arc;

/// How the answers of one plan are kept.
#[derive(Debug)]
pub(super) struct Keeping {
    /// The policy of the collection; its tier is off where an answer must not be kept.
    pub(super) policy: Policy,
    /// Collections of which rows other than the asked-for ones are read.
    others: BTreeSet<CollectionId>,
    /// The asked-for collection is a view: it has no rows of its own.
    of_view: bool,
    /// Nothing about the caller is read.
    pub(super) anonymous: bool,
    /// Nothing but caller, method and address shapes the answer: neither other headers, nor a body, nor time or chance.
    pub(super) steady: bool,
    /// `Cache-Control` for anybody, and for answers that depend on who asks.
    pub(super) control: [Arc<str>; 2],
    /// `Cache-Tag` of a list.
    pub(super) list_tag: Arc<str>,
    /// `Cache-Tag` of a record, up to the record's own word.
    record_tag: Arc<str>,
    tenant: TenantId,
    collection: CollectionName,
}

impl Keeping {
    /// Reads the collection's policy and the plan's facts; `shuffled` answers differ each time.
    pub(super) fn new(
        schema: &Schema,
        tenant: &TenantId,
        collection: &Arc<Collection>,
        facts: &Facts,
        shuffled: bool,
    ) -> Self {
        let parsed = collection.cache.as_ref().map(|value| Policy::parse(value));
        // A stored policy was checked when it was stored; one that cannot be read any more keeps nothing.
        let mut policy = parsed.map_or_else(Policy::default, |parsed| parsed.unwrap_or_else(|_| Policy::off()));
        let in_address = |path: &RequestPath| !matches!(path.place, Place::Header(_) | Place::Body(_));
        let steady = !shuffled
            && !facts.reads_time
            && facts.reads.iter().all(in_address)
            && !policy.key_parts.iter().any(|path| path.starts_with("@request.headers."));
        if shuffled || facts.reads_time || collection.system {
            policy.tier = Tier::Off;
        }
        let mut others = BTreeSet::new();
        facts.hopped.iter().for_each(|id| add_sources(schema, id, &mut others));
        if collection.is_view() {
            add_sources(schema, &collection.id, &mut others);
        }
        let control = [false, true].map(|identity| Arc::from(policy.cache_control(identity)));
        let named = others.iter().filter_map(|id| schema.find_id(id)).map(|other| other.name.as_str());
        let (id, name) = (tenant.as_str(), collection.name.as_str());
        let tag = policy.cache_tag(id, name, named);
        Self {
            of_view: collection.is_view(),
            anonymous: facts.reads.is_empty(),
            steady,
            list_tag: Arc::from(format!("{tag},{}", lists_tag(id, name))),
            record_tag: Arc::from(tag),
            tenant: tenant.clone(),
            collection: collection.name.clone(),
            policy,
            others,
            control,
        }
    }

    /// `Cache-Tag` of one record.
    pub(super) fn tag_of(&self, id: &RecordId) -> Arc<str> {
        let own = record_tag(self.tenant.as_str(), self.collection.as_str(), id.as_str());
        Arc::from([&*self.record_tag, &own].join(","))
    }

    /// What a list depends on; `partition` is the only part of the collection that its filter lets through.
    pub(super) fn of_list(&self, collection: &Collection, partition: Option<&Stored>) -> Dependencies {
        let all = self.others();
        match partition {
            _ if self.of_view => all,
            Some(value) if !self.others.contains(&collection.id) => all.partition(&collection.id, value),
            _ => all.collection(&collection.id),
        }
    }

    /// What a single record depends on.
    pub(super) fn of_record(&self, collection: &Collection, id: &RecordId) -> Dependencies {
        if self.of_view { self.others() } else { self.others().record(&collection.id, id) }
    }

    fn others(&self) -> Dependencies {
        self.others.iter().fold(Dependencies::new(), |all, id| all.collection(id))
    }
}

/// A collection with rows stands for itself, a view for everything it selects from.
fn add_sources(schema: &Schema, id: &CollectionId, out: &mut BTreeSet<CollectionId>) {
    match schema.find_id(id) {
        Some(collection) if collection.is_view() => {
            // A view may name another view; ids already seen end the walk.
            for source in view::sources(collection, schema) {
                if source.id != *id && !out.contains(&source.id) {
                    add_sources(schema, &source.id, out);
                }
            }
        }
        _ => _ = out.insert(id.clone()),
    }
}
