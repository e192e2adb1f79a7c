//! Sample data for any schema: some dozens of records per collection, values chosen by field name and type.
//!
//! Keeps true: collections come after those they point at, and a record that would break a unique index is left out.
//! Does not do: stories; a blueprint that deserves one has its own generator.

use super::words::{CITIES, COUNTRIES, GUILDS, QUALITIES, SENTENCES, SUBJECTS};
use super::{DAY_MS, HOUR_MS, Maker, Row, person};
use crate::kernel::datetime::format_ms;
use crate::kernel::ident::{CollectionId, RecordId};
use crate::kernel::random;
use crate::kernel::value::Stored;
use crate::schema::field::{Field, FieldKind, NumberOptions, SelectOptions};
use crate::schema::generate;
use crate::schema::{Collection, CollectionKind, Schema};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Records per collection: few of what others belong to, more of what belongs.
const ROOTS: usize = 5;
const LEAVES: usize = 60;
const USERS: usize = 25;

pub(super) struct Generic {
    maker: Maker,
    waiting: Vec<Arc<Collection>>,
    made: HashMap<CollectionId, Vec<RecordId>>,
    expected: usize,
}

impl Generic {
    pub(super) fn new(schema: Arc<Schema>, seed: u64, now_ms: i64) -> Self {
        let mut waiting = in_order(&schema);
        let expected = waiting.iter().map(|collection| count(collection)).sum();
        waiting.reverse();
        Self { maker: Maker::new(schema, seed, now_ms), waiting, made: HashMap::new(), expected }
    }

    /// About how many records there will be.
    pub(super) fn expected(&self) -> usize {
        self.expected
    }

    /// The records of the next collection; empty at the end.
    pub(super) fn next_rows(&mut self) -> Vec<Row> {
        while let Some(collection) = self.waiting.pop() {
            self.collection(&collection);
            let rows = self.maker.take();
            if !rows.is_empty() {
                return rows;
            }
        }
        Vec::new()
    }

    fn collection(&mut self, collection: &Arc<Collection>) {
        let mut taken = HashSet::new();
        for number in 0..count(collection) {
            let age =
                i64::try_from(self.maker.draw(120)).unwrap_or(0) * DAY_MS + i64::try_from(number).unwrap_or(0) * 60_000;
            let at = self.maker.now_ms - age;
            let mut values: HashMap<&str, Stored> = HashMap::new();
            for field in collection.fields.iter().filter(|field| field.number.0 != 0) {
                if let Some(value) = self.value(collection, field, number, at) {
                    values.insert(field.name.as_str(), value);
                }
            }
            if !self.complete(collection, &values) || !is_free(collection, &values, &mut taken) {
                continue;
            }
            // By the order of the fields, so that the same seed gives the same rows.
            let ordered: Vec<(&str, Stored)> = collection
                .fields
                .iter()
                .filter_map(|field| values.remove(field.name.as_str()).map(|value| (field.name.as_str(), value)))
                .collect();
            let id = self.maker.add(collection.name.as_str(), at, ordered);
            self.made.entry(collection.id.clone()).or_default().push(id);
        }
    }

    /// Whether every required relation found a record to point at.
    fn complete(&self, collection: &Collection, values: &HashMap<&str, Stored>) -> bool {
        let relations =
            collection.fields.iter().filter(|field| field.required && matches!(field.kind, FieldKind::Relation(_)));
        relations
            .into_iter()
            .all(|field| values.get(field.name.as_str()).and_then(Stored::as_text).is_some_and(|id| !id.is_empty()))
    }

    fn value(&self, collection: &Collection, field: &Field, number: usize, at: i64) -> Option<Stored> {
        let maker = &self.maker;
        Some(match &field.kind {
            FieldKind::Password(_) | FieldKind::File(_) | FieldKind::Autodate(_) | FieldKind::GeoPoint => return None,
            FieldKind::Text(options) if !options.autogenerate_pattern.is_empty() => {
                generate::draw(&options.autogenerate_pattern, maker.random()).into()
            }
            FieldKind::Text(options) => text(maker, field.name.as_str(), &options.pattern, number)?.into(),
            FieldKind::Number(options) => amount(maker, field.name.as_str(), options, number).into(),
            FieldKind::Bool => Stored::bool(maker.draw(3) > 0),
            FieldKind::Email(_) => {
                let word = person(maker).to_lowercase().replace(' ', ".");
                format!("{word}{number}@{}.example", collection.name.as_str().to_lowercase().replace('_', "-")).into()
            }
            FieldKind::Url(_) => format!("https://{}.example", maker.pick(GUILDS).to_lowercase()).into(),
            FieldKind::Date(_) => format_ms(at + i64::try_from(maker.draw(40)).unwrap_or(0) * 6 * HOUR_MS).into(),
            FieldKind::Select(options) => select(maker, field, options).into(),
            FieldKind::Relation(relation) => {
                let ids = self.made.get(&relation.target).map(Vec::as_slice).unwrap_or_default();
                let id = maker.pick_id(ids);
                if field.kind.is_list() { json!([id]).to_string().into() } else { id.into() }
            }
            FieldKind::Json { .. } => {
                json!({"sample": true, "lines": [{"quantity": number % 4 + 1}]}).to_string().into()
            }
            FieldKind::Editor { .. } => format!("<p>{} {}</p>", maker.pick(SENTENCES), maker.pick(SENTENCES)).into(),
        })
    }
}

/// Collections by the relations between them: what is pointed at comes first. A circle is cut where it is met.
fn in_order(schema: &Schema) -> Vec<Arc<Collection>> {
    let mut open: Vec<Arc<Collection>> =
        schema.collections().iter().filter(|collection| !collection.is_view() && !collection.system).cloned().collect();
    let mut out = Vec::with_capacity(open.len());
    while !open.is_empty() {
        let ready = open.iter().position(|collection| {
            collection.fields.iter().all(|field| match &field.kind {
                FieldKind::Relation(relation) => {
                    relation.target == collection.id || !open.iter().any(|other| other.id == relation.target)
                }
                _ => true,
            })
        });
        out.push(open.remove(ready.unwrap_or(0)));
    }
    out
}

fn count(collection: &Collection) -> usize {
    let relations = collection.fields.iter().filter(|field| matches!(field.kind, FieldKind::Relation(_))).count();
    match (collection.kind, collection.name.as_str(), relations) {
        (CollectionKind::Auth, ..) => USERS,
        (_, "organisations", _) | (_, _, 0) => ROOTS,
        _ => LEAVES,
    }
}

fn text(maker: &Maker, name: &str, pattern: &str, number: usize) -> Option<String> {
    let title = || format!("{} {}", maker.pick(QUALITIES), maker.pick(SUBJECTS));
    let code = |prefix: &str| format!("{prefix}-{:05}", 10_000 + number);
    Some(match (name, pattern) {
        (_, "^[A-Z]{3}$") => "EUR".to_owned(),
        (_, "^[A-Z]{2}$") => maker.pick(COUNTRIES).to_owned(),
        ("slug", _) => format!("{}-{}", title().to_lowercase().replace(' ', "-"), number + 1),
        (_, pattern) if !pattern.is_empty() => return None,
        ("number", _) => code("N"),
        ("sku", _) => code("SKU"),
        ("reference", _) => code("REF"),
        ("city", _) => maker.pick(CITIES).to_owned(),
        ("phone", _) => format!("+00 555 {:06}", maker.draw(1_000_000)),
        ("locale", _) => "en".to_owned(),
        ("menu", _) => maker.pick(&["main", "footer"]).to_owned(),
        ("name", _) => maker.pick(&[title().as_str(), person(maker).as_str()]).to_owned(),
        _ => title(),
    })
}

fn amount(maker: &Maker, name: &str, options: &NumberOptions, number: usize) -> f64 {
    let (low, high) = match name {
        "progress" => (0, 100),
        "quantity" => (1, 5),
        "position" => return i32::try_from(number % 12 + 1).map_or(1.0, f64::from),
        _ => (5, 500),
    };
    let drawn = low + random::below(maker.random(), high - low);
    #[expect(clippy::cast_precision_loss, reason = "below 1,000")]
    let drawn = drawn as f64;
    drawn.clamp(options.min.unwrap_or(f64::MIN), options.max.unwrap_or(f64::MAX))
}

fn select(maker: &Maker, field: &Field, options: &SelectOptions) -> String {
    let value = options.values.get(maker.draw(options.values.len())).map(|value| value.to_string()).unwrap_or_default();
    if field.kind.is_list() { json!([value]).to_string() } else { value }
}

/// Notes the unique keys of a record; false if one of them is taken.
fn is_free(collection: &Collection, values: &HashMap<&str, Stored>, taken: &mut HashSet<String>) -> bool {
    let keys: Vec<String> = collection
        .indexes
        .iter()
        .filter(|index| index.unique)
        .map(|index| {
            let parts = index.columns.iter().map(|column| {
                collection.find_field_number(column.field).and_then(|field| values.get(field.name.as_str()))
            });
            format!("{}{:?}", index.name, parts.collect::<Vec<_>>())
        })
        .collect();
    let free = keys.iter().all(|key| !taken.contains(key));
    if free {
        taken.extend(keys);
    }
    free
}
