//! Writing through: what a write answered is kept as what the next read of the record would answer.
//!
//! Keeps true: kept only where the two are the same for this caller (no view rule, nothing of the request read), and
//! stamped with the position of the write itself. Does not do: lists.

use super::prepared::{Prepared, cache_of};
use super::read::{self, View};
use super::{Answer, Scope};
use crate::cache::{Began, TenantCache};
use crate::kernel::ident::{CollectionId, RecordId};
use crate::schema::Schema;
use std::sync::Arc;

/// A write that may be kept as it was answered: where the tenant stood before it began.
pub(super) struct Through {
    cache: TenantCache,
    began: Began,
}

/// What a write made of one record.
pub(super) struct Written<'write> {
    pub(super) collection: &'write CollectionId,
    pub(super) id: &'write RecordId,
    pub(super) view: &'write View,
    pub(super) answer: &'write Answer,
    pub(super) lsn: i64,
}

impl Through {
    /// Call it before the write is queued; `None` where there is no cache.
    pub(super) async fn begin(scope: &Scope) -> Option<Self> {
        let cache = cache_of(scope).await?;
        let began = cache.begin();
        Some(Self { cache, began })
    }

    /// Keeps what the writer of position `lsn` was answered as what a read of the record would answer, if the two are the
    /// same for this caller: the view rule shows every record, and nothing of the request is read.
    ///
    /// `answer` must have been made inside that transaction after its last change, under `schema`.
    pub(super) fn keep(self, scope: &Scope, schema: &Arc<Schema>, written: &Written<'_>) {
        let planned = read::plan_get(scope, schema, written.collection.as_str(), written.id.as_str(), written.view);
        if let Ok(task) = planned.map_err(drop)
            && task.work().unruled
        {
            let prepared = Prepared::of_record(scope, self.cache, Arc::clone(schema), task);
            prepared.write_through(scope, self.began, written.answer, written.lsn);
        }
    }
}
