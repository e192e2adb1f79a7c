//! Deleting a record and everything that must go or let go with it, what Tenantry keeps of an account included.
//!
//! Keeps true: after a delete no relation of the tenant names the deleted record, and either all of it happens or
//! nothing does. The walk is bounded by the operations one transaction may have.
//! Does not do: access. Whoever may delete the record accepts what the schema says about its references.

use super::RecordError;
use crate::kernel::ident::{CollectionId, FieldNumber, RecordId};
use crate::kernel::limits;
use crate::kernel::value::{Cell, Stored};
use crate::schema::field::{Field, FieldKind};
use crate::schema::{Collection, Schema};
use crate::services::tenants::rows;
use crate::services::tenants::system::SUPERUSERS;
use crate::store::WriteTx;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Deletes `id`, the records that cascade with it, and takes the deleted ids out of every other relation.
///
/// Returns how many records were deleted. Refused when a required relation without cascade would be left empty.
pub(super) fn delete_record(
    tx: &mut WriteTx<'_>,
    collection: &Arc<Collection>,
    id: &RecordId,
) -> Result<usize, RecordError> {
    let schema = Arc::clone(tx.schema());
    let mut walk = Walk::new(&schema);
    walk.doom(collection, id.clone());
    let mut next = 0;
    while let Some((collection, id)) = walk.doomed.get(next).cloned() {
        walk.follow(tx, &collection, &id)?;
        next += 1;
    }
    walk.apply(tx)
}

type Place = (CollectionId, RecordId);

/// What is left of one relation field of one record.
struct Remainder {
    collection: Arc<Collection>,
    field: Field,
    ids: Vec<String>,
}

struct Walk<'schema> {
    schema: &'schema Schema,
    doomed: Vec<(Arc<Collection>, RecordId)>,
    seen: HashSet<Place>,
    remainders: BTreeMap<(CollectionId, RecordId, FieldNumber), Remainder>,
}

impl<'schema> Walk<'schema> {
    fn new(schema: &'schema Schema) -> Self {
        Self { schema, doomed: Vec::new(), seen: HashSet::new(), remainders: BTreeMap::new() }
    }

    fn doom(&mut self, collection: &Arc<Collection>, id: RecordId) {
        if self.seen.insert((collection.id.clone(), id.clone())) {
            self.doomed.push((Arc::clone(collection), id));
        }
    }

    /// Finds who points at `id`, and decides who goes with it.
    fn follow(&mut self, tx: &WriteTx<'_>, target: &Collection, id: &RecordId) -> Result<(), RecordError> {
        let schema = self.schema;
        for (referrer, field) in schema.back_relations(&target.id) {
            let FieldKind::Relation(relation) = &field.kind else { continue };
            for (record, ids) in find_references(tx, referrer, field, id)? {
                if self.doomed.len() + self.remainders.len() >= limits::TX_OPS_MAX {
                    return Err(RecordError::CascadeTooLarge);
                }
                let key = (referrer.id.clone(), record.clone(), field.number);
                let remainder = self.remainders.entry(key).or_insert_with(|| Remainder {
                    collection: Arc::clone(referrer),
                    field: field.clone(),
                    ids,
                });
                remainder.ids.retain(|other| other != id.as_str());
                if remainder.ids.is_empty() && relation.cascade_delete {
                    self.doom(referrer, record);
                }
            }
        }
        Ok(())
    }

    fn apply(self, tx: &mut WriteTx<'_>) -> Result<usize, RecordError> {
        for ((collection, record, number), remainder) in &self.remainders {
            if self.seen.contains(&(collection.clone(), record.clone())) {
                continue;
            }
            if remainder.ids.is_empty() && remainder.field.required {
                return Err(RecordError::RequiredReference {
                    collection: remainder.collection.name.clone(),
                    field: remainder.field.name.clone(),
                });
            }
            tx.update(&remainder.collection, record, &[(*number, remainder.stored())])?;
        }
        // Those found last point at those found first, so they go first.
        for (collection, record) in self.doomed.iter().rev() {
            if collection.is_auth() {
                rows::delete_belongings(tx, self.schema, collection, record)?;
            }
            tx.delete(collection, record)?;
        }
        Ok(self.doomed.len())
    }
}

/// Refuses to delete the one superuser there is.
pub(super) fn check_superusers(tx: &WriteTx<'_>, collection: &Collection) -> Result<(), RecordError> {
    if !collection.system || collection.name.as_str() != SUPERUSERS {
        return Ok(());
    }
    let sql = format!("SELECT 1 FROM \"{}\" LIMIT 2", collection.table());
    let mut count = 0;
    tx.for_each(&sql, &[], &mut |_| {
        count += 1;
        Ok(())
    })?;
    if count > 1 { Ok(()) } else { Err(RecordError::LastSuperuser) }
}

impl Remainder {
    fn stored(&self) -> Stored {
        if self.field.kind.is_list() {
            Stored::from(serde_json::Value::from(self.ids.clone()).to_string())
        } else {
            Stored::text(self.ids.first().map_or("", String::as_str))
        }
    }
}

/// The records whose `field` names `id`, each with every id that the field holds.
fn find_references(
    tx: &WriteTx<'_>,
    referrer: &Collection,
    field: &Field,
    id: &RecordId,
) -> Result<Vec<(RecordId, Vec<String>)>, RecordError> {
    let (table, column) = (referrer.table(), field.column());
    let sql = if field.kind.is_list() {
        format!(
            "SELECT id, {column} FROM \"{table}\" AS r \
             WHERE EXISTS (SELECT 1 FROM json_each(r.{column}) AS e WHERE e.value = ?1)"
        )
    } else {
        format!("SELECT id, {column} FROM \"{table}\" WHERE {column} = ?1")
    };
    let mut found = Vec::new();
    tx.for_each(&sql, &[Stored::text(id.as_str())], &mut |row| {
        if let (Cell::Text(record), Cell::Text(held)) = (row.cell(0)?, row.cell(1)?)
            && let Ok(record) = RecordId::parse(record)
        {
            let ids = if field.kind.is_list() {
                serde_json::from_str(held).unwrap_or_default()
            } else {
                vec![held.to_owned()]
            };
            found.push((record, ids));
        }
        Ok(())
    })?;
    Ok(found)
}
