//! What a plan says about keeping its answers: policy, what they depend on, what other caches are told.
//!
//! Keeps true: every collection whose rows a plan reads is among the dependencies, a view by all that it is made of;
//! an answer that reads the present or chance, itself or through a view, is never kept.
//! Does not do: keeping; `cached` asks the cache.

use crate::cache::stamp::Dependencies;
use crate::kernel::ident::{CollectionId, CollectionName, RecordId, TenantId};
use crate::kernel::value::Stored;
use crate::query::request::{Place, RequestPath};
use crate::query::resolved::Facts;
use crate::schema::cache_policy::{Policy, Route, Tier, lists_tag, record_tag};
use crate::schema::{Collection, Schema, view, volatile};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What is asked, as far as keeping depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// A page of records.
    List,
    /// A page in an order that is drawn anew each time.
    Shuffled,
    /// A full-text search.
    Search,
    /// Totals.
    Totals,
    /// One record.
    View,
}

impl Asked {
    fn route(self) -> Route {
        match self {
            Self::List | Self::Shuffled => Route::List,
            Self::Search => Route::Search,
            Self::Totals => Route::Aggregate,
            Self::View => Route::View,
        }
    }
}

/// How the answers of one plan are kept.
#[derive(Debug)]
pub(super) struct Keeping {
    /// The policy of the collection for this kind of question; its tier is off where an answer must not be kept.
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
    /// Names of headers that shape the answer besides those that shape every answer.
    pub(super) vary: Option<Arc<str>>,
    /// `Cache-Tag` of a list.
    pub(super) list_tag: Arc<str>,
    /// `Cache-Tag` of a record, up to the record's own word.
    record_tag: Arc<str>,
    tenant: TenantId,
    collection: CollectionName,
}

impl Keeping {
    /// Reads the collection's policy and the plan's facts.
    pub(super) fn new(
        schema: &Schema,
        tenant: &TenantId,
        collection: &Arc<Collection>,
        facts: &Facts,
        asked: Asked,
    ) -> Self {
        let parsed = collection.cache.as_ref().map(|value| Policy::parse(value));
        // A stored policy was checked when it was stored; one that cannot be read any more keeps nothing.
        let mut policy = parsed.map_or_else(Policy::default, |parsed| parsed.unwrap_or_else(|_| Policy::off()));
        policy = policy.of_route(asked.route());
        let shuffled = asked == Asked::Shuffled;
        let in_address = |path: &RequestPath| !matches!(path.place, Place::Header(_) | Place::Body(_));
        let mut sources = Sources::default();
        facts.hopped.iter().for_each(|id| sources.add(schema, id));
        if collection.is_view() {
            sources.add(schema, &collection.id);
        }
        let moving = shuffled || facts.reads_time || sources.volatile;
        let steady = !moving
            && facts.reads.iter().all(in_address)
            && !policy.key_parts.iter().any(|path| path.starts_with("@request.headers."));
        if moving || collection.system {
            policy.tier = Tier::Off;
        }
        let others = sources.ids;
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
            vary: vary(facts, &policy),
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

/// The headers that rules read or the policy's `key` names, as `Vary` lists them.
fn vary(facts: &Facts, policy: &Policy) -> Option<Arc<str>> {
    let read = facts.reads.iter().filter_map(|path| match &path.place {
        Place::Header(name) => Some(&**name),
        _ => None,
    });
    let named = policy.key_parts.iter().filter_map(|path| path.strip_prefix("@request.headers."));
    // Rules write `_` for `-`.
    let names: BTreeSet<String> = read.chain(named).map(|name| name.replace('_', "-")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    (!names.is_empty()).then(|| Arc::from(names.join(", ")))
}

/// The collections with rows that a plan reads besides the asked-for rows.
#[derive(Debug, Default)]
struct Sources {
    ids: BTreeSet<CollectionId>,
    /// A view among them reads the present or chance.
    volatile: bool,
}

impl Sources {
    /// A collection with rows stands for itself, a view for everything it selects from.
    fn add(&mut self, schema: &Schema, id: &CollectionId) {
        match schema.find_id(id) {
            Some(collection) if collection.is_view() => {
                self.volatile |= volatile::is_volatile(collection, schema);
                // A view may name another view; ids already seen end the walk.
                for source in view::sources(collection, schema) {
                    if source.id != *id && !self.ids.contains(&source.id) {
                        self.add(schema, &source.id);
                    }
                }
            }
            _ => _ = self.ids.insert(id.clone()),
        }
    }
}
