//! What waits to be posted, per tenant.
//!
//! Keeps true: bounded by `limits::PURGE_*`; past a bound changes become coarser, never fewer: many records become their
//! collection, many collections their tenant. Only a change of one tenant too many is dropped, and counted.
//! Does not do: names. A collection may be renamed before its change is posted, so ids wait here.

use crate::kernel::ident::{CollectionId, RecordId, TenantId};
use crate::kernel::limits;
use crate::store::Touch;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// What changed in one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Changes {
    /// Anything may have.
    Everything,
    /// This much.
    Parts(Parts),
}

/// Collections with what changed in them, and tags purged by hand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) collections: BTreeMap<CollectionId, Records>,
    pub(super) tags: BTreeSet<Arc<str>>,
}

/// Which records of a collection changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Records {
    /// Too many to name.
    All,
    /// These.
    Some(BTreeSet<RecordId>),
}

impl Changes {
    pub(super) fn of_touches(touches: &[Touch]) -> Self {
        let mut parts = Parts::default();
        for touch in touches {
            let records =
                parts.collections.entry(touch.collection.clone()).or_insert_with(|| Records::Some(BTreeSet::new()));
            records.add(Records::Some(BTreeSet::from([touch.record.clone()])));
        }
        Self::Parts(parts).bounded()
    }

    pub(super) fn of_tags(tags: impl IntoIterator<Item = Arc<str>>) -> Self {
        Self::Parts(Parts { tags: tags.into_iter().collect(), ..Parts::default() }).bounded()
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Parts(parts) if parts.collections.is_empty() && parts.tags.is_empty())
    }

    fn add(&mut self, more: Self) {
        match (&mut *self, more) {
            (Self::Everything, _) => {}
            (_, Self::Everything) => *self = Self::Everything,
            (Self::Parts(parts), Self::Parts(more)) => {
                for (collection, records) in more.collections {
                    match parts.collections.get_mut(&collection) {
                        Some(present) => present.add(records),
                        None => _ = parts.collections.insert(collection, records),
                    }
                }
                parts.tags.extend(more.tags);
            }
        }
    }

    fn bounded(self) -> Self {
        match &self {
            Self::Parts(parts) if parts.collections.len() + parts.tags.len() > limits::PURGE_PARTS_MAX => {
                Self::Everything
            }
            _ => self,
        }
    }
}

impl Records {
    fn add(&mut self, more: Self) {
        match (&mut *self, more) {
            (Self::Some(present), Self::Some(more)) if present.len() + more.len() <= limits::PURGE_RECORDS_MAX => {
                present.extend(more);
            }
            (Self::All, _) => {}
            _ => *self = Self::All,
        }
    }
}

/// Every tenant's changes.
#[derive(Debug, Default)]
pub(super) struct Pending {
    tenants: HashMap<TenantId, Changes>,
    /// Tenants of which the changes were taken and are being posted.
    taken: usize,
    dropped: u64,
}

impl Pending {
    /// Adds changes of one tenant.
    pub(super) fn add(&mut self, tenant: &TenantId, changes: Changes) {
        if changes.is_empty() {
            return;
        }
        if let Some(present) = self.tenants.get_mut(tenant) {
            present.add(changes);
            let merged = std::mem::replace(present, Changes::Everything);
            *present = merged.bounded();
        } else if self.tenants.len() < limits::PURGE_TENANTS_MAX {
            self.tenants.insert(tenant.clone(), changes);
        } else {
            self.dropped += 1;
        }
    }

    /// Takes everything.
    pub(super) fn take(&mut self) -> Vec<(TenantId, Changes)> {
        let mut taken: Vec<_> = std::mem::take(&mut self.tenants).into_iter().collect();
        taken.sort_by(|a, b| a.0.cmp(&b.0));
        self.taken = taken.len();
        taken
    }

    /// What was taken has been posted, or given up.
    pub(super) fn settle(&mut self) {
        self.taken = 0;
    }

    /// Tenants with changes to be taken.
    pub(super) fn len(&self) -> usize {
        self.tenants.len()
    }

    /// Tenants with changes of which the caches in front may not know yet; one twice while some are being posted.
    pub(super) fn untold(&self) -> usize {
        self.tenants.len() + self.taken
    }

    /// Changes that found no room.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::TouchOp;
    use proptest::prelude::*;

    fn touch(collection: usize, record: usize) -> Touch {
        Touch {
            collection: CollectionId::parse(&format!("c{collection}")).unwrap(),
            record: RecordId::parse(&format!("r{record}")).unwrap(),
            op: TouchOp::Update,
            partitions: Vec::new(),
            lsn: 1,
        }
    }

    fn tenant(number: usize) -> TenantId {
        TenantId::parse(&format!("t{number}")).unwrap()
    }

    /// Whether what waits says that `touch` happened, at any grain.
    fn covers(changes: &Changes, touch: &Touch) -> bool {
        match changes {
            Changes::Everything => true,
            Changes::Parts(parts) => match parts.collections.get(&touch.collection) {
                Some(Records::All) => true,
                Some(Records::Some(ids)) => ids.contains(&touch.record),
                None => false,
            },
        }
    }

    proptest! {
        #[test]
        fn whatever_is_added_is_covered_and_the_bounds_hold(
            commits in prop::collection::vec(prop::collection::vec((0_usize..400, 0_usize..5_000), 0..60), 0..60),
        ) {
            let mut pending = Pending::default();
            for commit in &commits {
                let touches: Vec<Touch> = commit.iter().map(|(c, r)| touch(*c, *r)).collect();
                pending.add(&tenant(0), Changes::of_touches(&touches));
            }
            let all: Vec<(usize, usize)> = commits.into_iter().flatten().collect();
            let taken = pending.take();
            prop_assert_eq!(taken.len(), usize::from(!all.is_empty()));
            if let Some((_, changes)) = taken.first() {
                for (c, r) in &all {
                    prop_assert!(covers(changes, &touch(*c, *r)));
                }
                if let Changes::Parts(parts) = changes {
                    prop_assert!(parts.collections.len() <= limits::PURGE_PARTS_MAX);
                    let fits = |records: &Records| !matches!(records, Records::Some(ids) if ids.len() > limits::PURGE_RECORDS_MAX);
                    prop_assert!(parts.collections.values().all(fits));
                }
            }
        }
    }

    #[test]
    fn one_tenant_too_many_is_counted_and_known_ones_go_on() {
        let mut pending = Pending::default();
        for number in 0..limits::PURGE_TENANTS_MAX + 3 {
            pending.add(&tenant(number), Changes::of_touches(&[touch(0, 0)]));
        }
        pending.add(&tenant(0), Changes::Everything);
        assert_eq!((pending.len(), pending.dropped()), (limits::PURGE_TENANTS_MAX, 3));
        assert_eq!(pending.take()[0].1, Changes::Everything);
        assert_eq!((pending.len(), pending.untold()), (0, limits::PURGE_TENANTS_MAX), "on their way");
        pending.settle();
        assert_eq!(pending.untold(), 0);
        assert!(pending.take().is_empty());
    }

    #[test]
    fn nothing_changed_is_nothing_to_post() {
        let mut pending = Pending::default();
        pending.add(&tenant(0), Changes::of_touches(&[]));
        assert_eq!(pending.len(), 0);
    }
}
