//! Sample data for tenants made from a blueprint: the same seed and moment give the same records, invented here.
//!
//! Keeps true: rows arrive in batches through the tenant's writer like anybody's writes, so log, clocks and indexes are
//! those of real use; every value passes the checks of its field; nothing in a sample can log in, because no password is
//! ever set. Does not do: files.

mod generic;
mod tournament;
mod words;

pub use tournament::SampleSize;

use crate::kernel::clock::Clock;
use crate::kernel::datetime::format_ms;
use crate::kernel::ident::{FieldNumber, RecordId};
use crate::kernel::random::{self, Random, SeededRandom};
use crate::kernel::value::Stored;
use crate::schema::record::RecordImage;
use crate::schema::{Collection, Schema};
use crate::store::{Actor, StoreError, TenantDb, WriteMeta};
use std::sync::Arc;

const BATCH_LEN: usize = 1_000;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// One record that is to be inserted.
type Row = (Arc<Collection>, RecordImage);

/// What to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleRequest {
    /// The same seed gives the same records.
    pub seed: u64,
    /// How much, for the tournament blueprint; others get some dozens of records per collection.
    pub size: SampleSize,
}

impl Default for SampleRequest {
    fn default() -> Self {
        Self { seed: 1, size: SampleSize::DEMO }
    }
}

/// Fills `tenant`, made from the blueprint called `blueprint`, and tells `progress` how many records of about how many
/// are written. Answers how many were written.
///
/// # Errors
/// What the store refuses; batches that were acknowledged stay.
pub async fn fill(
    tenant: &TenantDb,
    blueprint: &str,
    request: SampleRequest,
    clock: &dyn Clock,
    progress: &(dyn Fn(usize, usize) + Send + Sync),
) -> Result<usize, StoreError> {
    let mut source = Source::new(blueprint, tenant.schema(), request, clock.now_ms());
    let mut rows: Vec<Row> = Vec::new();
    let mut done = 0;
    loop {
        let more = source.next_rows();
        let ended = more.is_empty();
        rows.extend(more);
        while rows.len() >= BATCH_LEN || (ended && !rows.is_empty()) {
            let rest = rows.split_off(rows.len().min(BATCH_LEN));
            let batch = std::mem::replace(&mut rows, rest);
            done += batch.len();
            insert(tenant, batch).await?;
            progress(done, source.expected().max(done));
        }
        if ended {
            progress(done, done);
            return Ok(done);
        }
    }
}

async fn insert(tenant: &TenantDb, batch: Vec<Row>) -> Result<(), StoreError> {
    let meta = WriteMeta { actor: Actor::System, request_id: Arc::from("sample"), ip: None };
    tenant
        .write(meta, move |tx| batch.iter().try_for_each(|(collection, record)| tx.insert(collection, record)))
        .await
        .map(drop)
}

/// Where the records of a sample come from.
enum Source {
    Tournaments(Box<tournament::Tournaments>),
    Generic(Box<generic::Generic>),
}

impl Source {
    fn new(blueprint: &str, schema: Arc<Schema>, request: SampleRequest, now_ms: i64) -> Self {
        match blueprint {
            "tournament" => {
                Self::Tournaments(Box::new(tournament::Tournaments::new(schema, request.seed, now_ms, request.size)))
            }
            _ => Self::Generic(Box::new(generic::Generic::new(schema, request.seed, now_ms))),
        }
    }

    /// About how many records there will be.
    fn expected(&self) -> usize {
        match self {
            Self::Tournaments(source) => source.expected(),
            Self::Generic(source) => source.expected(),
        }
    }

    /// The next few records; empty at the end.
    fn next_rows(&mut self) -> Vec<Row> {
        match self {
            Self::Tournaments(source) => source.next_rows(),
            Self::Generic(source) => source.next_rows(),
        }
    }
}

/// Draws and collects records; a collection or field that the schema lacks is left out.
struct Maker {
    schema: Arc<Schema>,
    random: SeededRandom,
    now_ms: i64,
    rows: Vec<Row>,
}

impl Maker {
    fn new(schema: Arc<Schema>, seed: u64, now_ms: i64) -> Self {
        Self { schema, random: SeededRandom::new(seed), now_ms, rows: Vec::new() }
    }

    fn random(&self) -> &dyn Random {
        &self.random
    }

    fn draw(&self, bound: usize) -> usize {
        usize::try_from(random::below(&self.random, bound as u64)).unwrap_or(0)
    }

    fn pick<'list, T: ?Sized>(&self, list: &[&'list T]) -> &'list T {
        list.get(self.draw(list.len())).copied().expect("invariant: word lists are not empty")
    }

    fn pick_id(&self, list: &[RecordId]) -> String {
        list.get(self.draw(list.len())).map(|id| id.as_str().to_owned()).unwrap_or_default()
    }

    /// Adds one record and returns its id; `created` and `updated` are set to `at_ms`, at most now.
    fn add(&mut self, collection: &str, at_ms: i64, values: Vec<(&str, Stored)>) -> RecordId {
        let id = RecordId::generate(&self.random);
        let Some(collection) = self.schema.find(collection).cloned() else { return id };
        let moment = Stored::from(format_ms(at_ms.min(self.now_ms)));
        let stamped = values.into_iter().chain([("created", moment.clone()), ("updated", moment)]);
        let numbered: Vec<(FieldNumber, Stored)> = stamped
            .filter_map(|(name, value)| collection.find_field(name).map(|field| (field.number, value)))
            .collect();
        self.rows.push((collection, RecordImage::new(id.clone(), numbered)));
        id
    }

    fn take(&mut self) -> Vec<Row> {
        std::mem::take(&mut self.rows)
    }
}

fn person(maker: &Maker) -> String {
    format!("{} {}", maker.pick(words::GIVEN), maker.pick(words::FAMILY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::blueprint;
    use crate::schema::field::FieldKind;
    use crate::schema::plan::{self, PlanContext, Unmentioned};
    use crate::schema::value_check::{self, ValueContext};
    use crate::store;
    use std::collections::{HashMap, HashSet};

    const NOW_MS: i64 = 1_780_000_000_000;

    fn schema_of(blueprint: &blueprint::Blueprint) -> Arc<Schema> {
        let random = SeededRandom::new(1);
        let context = PlanContext { random: &random, now_ms: 0, describe: &store::describe_in_scratch };
        plan::plan_import(&Arc::new(Schema::default()), &blueprint.collections, Unmentioned::Keep, &context)
            .unwrap()
            .next
    }

    fn all_rows(blueprint: &str, schema: &Arc<Schema>, seed: u64) -> Vec<Row> {
        let size = SampleSize { tournaments: 20, players: 600, matches: 500 };
        let mut source = Source::new(blueprint, schema.clone(), SampleRequest { seed, size }, NOW_MS);
        let mut rows = Vec::new();
        loop {
            let more = source.next_rows();
            if more.is_empty() {
                return rows;
            }
            rows.extend(more);
        }
    }

    /// Every value passes its field's checks, relations point backwards, unique indexes hold, all collections have rows.
    #[test]
    fn samples_are_what_the_rules_of_the_schema_demand() {
        for blueprint in blueprint::shipped() {
            let schema = schema_of(&blueprint);
            let rows = all_rows(&blueprint.name, &schema, 5);
            let mut ids: HashMap<String, HashSet<String>> = HashMap::new();
            let mut unique = HashSet::new();
            for (collection, record) in &rows {
                for field in collection.fields.iter().filter(|field| field.number.0 != 0) {
                    let value = record.get(field.number).cloned().unwrap_or_else(|| value_check::default_value(field));
                    // No sample can log in: the password stays empty on purpose.
                    if matches!(field.kind, FieldKind::Password(_)) {
                        assert_eq!(value.as_text(), Some(""));
                        continue;
                    }
                    let checked = value_check::check_stored(field, &value, ValueContext::default());
                    assert_eq!(checked, Ok(()), "{}.{} {value:?}", collection.name, field.name);
                    if let FieldKind::Relation(relation) = &field.kind {
                        for id in value_check::items(&value) {
                            let known = ids.get(relation.target.as_str()).is_some_and(|known| known.contains(&id));
                            assert!(known, "{}.{} points at nothing", collection.name, field.name);
                        }
                    }
                }
                for index in collection.indexes.iter().filter(|index| index.unique) {
                    let key: Vec<String> =
                        index.columns.iter().map(|column| format!("{:?}", record.get(column.field))).collect();
                    let blank = index.condition.is_some()
                        && key.iter().any(|part| part == "Some(Text(\"\"))" || part == "None");
                    assert!(blank || unique.insert((index.name.clone(), key.clone())), "{} {key:?}", index.name);
                }
                ids.entry(collection.id.to_string()).or_default().insert(record.id.as_str().to_owned());
            }
            for collection in schema.collections().iter().filter(|collection| !collection.is_view()) {
                assert!(
                    ids.contains_key(collection.id.as_str()),
                    "{} has no sample in {}",
                    collection.name,
                    blueprint.name
                );
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_records() {
        for blueprint in blueprint::shipped() {
            let schema = schema_of(&blueprint);
            assert!(all_rows(&blueprint.name, &schema, 5) == all_rows(&blueprint.name, &schema, 5));
            assert!(all_rows(&blueprint.name, &schema, 5) != all_rows(&blueprint.name, &schema, 6));
        }
    }
}
