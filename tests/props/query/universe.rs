//! A tenant made up by dice: collections, fields, relations, rules, views and records, and questions that fit them.
//!
//! Keeps true: everything follows from the dice, so a seed brings a tenant back; whatever a path names is there, so that
//! a rule or a superuser may ask it. Does not do: judging answers (that is `generated`).

use crate::query::equivalence::Dice;
use crate::query::world::World;
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use tenantry::query::request::RequestContext;

/// The auth collection to which every caller belongs; it is the first one.
pub(crate) const USERS: &str = "users";
/// How large a tenant may get.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) collections: usize,
    pub(crate) fields: usize,
    pub(crate) views: usize,
    pub(crate) records: usize,
    pub(crate) depth: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Editor,
    Email,
    Url,
    Number,
    Bool,
    Date,
    Json,
    Point,
    Select { many: bool },
    File { many: bool },
    Relation { target: usize, many: bool, unique: bool },
}

#[derive(Debug, Clone)]
struct Field {
    name: String,
    kind: Kind,
    hidden: bool,
}

#[derive(Debug)]
struct Collection {
    name: String,
    fields: Vec<Field>,
    ids: Vec<&'static str>,
    view: Option<String>,
}

/// The made-up tenant, as the questions know it.
#[derive(Debug)]
pub(crate) struct Universe {
    collections: Vec<Collection>,
    /// Texts that stand in records, so that questions meet them.
    seen: RefCell<Vec<String>>,
}

const STEMS: &[&str] = &[
    "title", "value", "order", "group", "rank", "when", "items", "select", "a", "b1", "x_y", "Name", "key", "count",
    "via", "json", "like", "deep", "f1", "f2", "t0", "_r",
];
const IDS: &[&str] = &["r1", "5", "1e3", "A", "a", "+7", "r.1", "x-y", "10", "0", "Ab"];
const OPTIONS: &[&str] = &["a", "B", "10", "5.0", "%", "_", "ä", "it's"];
const TEXTS: &[&str] = &[
    "",
    "a",
    "A",
    "ab",
    "5",
    "5.0",
    " 5 ",
    "10",
    "1e3",
    "-0",
    "+5",
    "0x10",
    "1e999",
    "ä",
    "Ä%",
    "ß",
    "SS",
    "İ",
    "ǅ",
    "a_b",
    "100%",
    "%",
    "_",
    "\\",
    "\\\\",
    "a\\%",
    "\\_",
    "%\\",
    "a\\b",
    "it's",
    "x\"y",
    "日本",
    "👩‍👩‍👧",
    "e\u{301}",
    "\u{feff}",
    "a\nb",
    "\u{2028}",
    "null",
    "true",
    "[]",
    "[\"a\"]",
    "{\"a\":1}",
    "2024-02-29 13:07:05.250Z",
    "nan",
    "inf",
    "(",
    "a b",
];
const NUMBERS: &[f64] = &[
    0.0,
    -0.0,
    1.0,
    -1.0,
    5.0,
    2.5,
    0.1,
    10.0,
    1000.0,
    1e21,
    -1e21,
    5e-324,
    2.225_073_858_507_201e-308,
    1e-300,
    f64::MAX,
    f64::MIN,
    9_007_199_254_740_992.0,
    9_007_199_254_740_994.0,
    9_223_372_036_854_775_808.0,
    -9_223_372_036_854_775_808.0,
    0.30000000000000004,
];
const DATES: &[&str] = &[
    "",
    "2024-02-29 13:07:05.250Z",
    "2023-01-01 00:00:00.000Z",
    "2025-06-15 10:00:00.000Z",
    "0001-01-01 00:00:00.000Z",
    "9999-12-31 23:59:59.999Z",
];
const JSON_TEXTS: &[&str] = &[
    "0",
    "-0.0",
    "9007199254740993",
    "-9007199254740993",
    "9223372036854775807",
    "18446744073709551615",
    "1e300",
    "5e-324",
    "0.1",
    "1.0",
    "true",
    "false",
    "\"\"",
    "[]",
    "{}",
    "[null]",
    "[1,1,\"1\",true,null]",
    "[[\"a\"],{\"a\":\"b\"}]",
    "{\"a\":{\"a\":{\"a\":1}},\"b\":[{\"a\":\"5\"},[0]]}",
    "{\"a\":\"\\u0000\",\"b\":\"x\\ny\",\"0\":\"zero\"}",
    "{\"a\":\"\\ud83d\\ude00\",\"\":1,\"b\":\"5\"}",
    "{\"007\":1,\"a\":\"[1]\"}",
    "\"[1]\"",
    "\"{\\\"a\\\":1}\"",
    "\"5\"",
];
const JSON_NAMES: &[&str] =
    &["a", "b", "0", "1", "2", "a.a", "a.a.a", "b.0", "b.0.a", "007", "4294967296", "18446744073709551616", "A"];
const OPERATORS: &[&str] =
    &["=", "!=", ">", ">=", "<", "<=", "~", "!~", "?=", "?!=", "?>", "?>=", "?<", "?<=", "?~", "?!~"];
/// More characters than a pattern may have bytes.
const LONG: usize = 17_000;

/// Which names a question may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Names {
    /// Those of the records.
    Client,
    /// Those, the request's, and whole collections.
    Rule,
}

fn one_in(dice: &Dice, sides: usize) -> bool {
    dice.below(sides) == 0
}

impl Universe {
    /// Makes a tenant up and fills it.
    pub(crate) fn make(dice: &Dice, size: Size) -> (Self, World) {
        let mut universe = Self { collections: Vec::new(), seen: RefCell::default() };
        for at in 0..size.collections.max(1) {
            let name = if at == 0 { USERS.to_owned() } else { format!("{}{at}", dice.pick(&["c", "Orders", "order"])) };
            universe.collections.push(Collection { name, fields: Vec::new(), ids: Vec::new(), view: None });
        }
        for at in 0..universe.collections.len() {
            let fields = universe.some_fields(dice, at, size.fields);
            universe.collections[at].fields = fields;
            universe.collections[at].ids = IDS.iter().copied().filter(|_| one_in(dice, 2)).take(size.records).collect();
        }
        // The caller.
        universe.collections[0].ids.retain(|id| *id != "A");
        universe.collections[0].ids.push("A");
        for at in 0..size.views {
            let view = universe.some_view(dice, at);
            universe.collections.push(view);
        }
        let mut world = World::with(universe.definitions(dice));
        universe.fill(dice, &mut world);
        world.take_views();
        (universe, world)
    }

    fn some_fields(&self, dice: &Dice, own: usize, most: usize) -> Vec<Field> {
        let mut stems: Vec<&str> = STEMS.to_vec();
        let count = if most == 0 { 0 } else { 1 + dice.below(most) };
        (0..count)
            .map(|_| {
                let name = stems.swap_remove(dice.below(stems.len())).to_owned();
                let many = one_in(dice, 2);
                let kind = match dice.below(16) {
                    0 | 1 => Kind::Text,
                    2 => Kind::Editor,
                    3 => Kind::Email,
                    4 => Kind::Url,
                    5 => Kind::Number,
                    6 => Kind::Bool,
                    7 => Kind::Date,
                    8 | 9 => Kind::Json,
                    10 => Kind::Point,
                    11 => Kind::Select { many },
                    12 => Kind::File { many },
                    // Often of the collection itself.
                    _ => {
                        let target = if one_in(dice, 4) { own } else { dice.below(self.collections.len()) };
                        Kind::Relation { target, many, unique: !many && one_in(dice, 4) }
                    }
                };
                Field { name, kind, hidden: one_in(dice, 10) }
            })
            .collect()
    }

    /// A SELECT over one collection, over one and what it points at, or with computed columns.
    fn some_view(&self, dice: &Dice, at: usize) -> Collection {
        let base = dice.below(self.collections.len());
        let source = &self.collections[base];
        let mut fields = Vec::new();
        let mut columns = vec!["x.id".to_owned()];
        let mut from = format!("\"{}\" x", source.name);
        let mut add = |column: String, kind: Kind, hidden: bool| {
            let name = format!("v{}", columns.len());
            columns.push(format!("{column} AS {name}"));
            fields.push(Field { name, kind, hidden });
        };
        let reach = |kind: Kind| match kind {
            Kind::Relation { target, many, .. } => Kind::Relation { target, many, unique: false },
            other => other,
        };
        for field in &source.fields {
            if one_in(dice, 3) {
                continue;
            }
            let column = format!("x.\"{}\"", field.name);
            match dice.below(6) {
                0 => add(format!("length({column})"), Kind::Number, false),
                1 => add(format!("lower({column})"), Kind::Text, false),
                2 => add(format!("json_array({column}, 1)"), Kind::Json, false),
                3 => add(format!("CASE WHEN {column} > 'a' THEN {column} END"), Kind::Json, false),
                _ => add(column, reach(field.kind), field.hidden),
            }
        }
        let single = source.fields.iter().find_map(|field| match field.kind {
            Kind::Relation { target, many: false, .. } => Some((field, target)),
            _ => None,
        });
        if let Some((link, target)) = single {
            let far = &self.collections[target];
            from.push_str(&format!(" LEFT JOIN \"{}\" y ON y.id = x.\"{}\"", far.name, link.name));
            for field in &far.fields {
                add(format!("y.\"{}\"", field.name), reach(field.kind), field.hidden);
            }
        }
        let query = format!("SELECT {} FROM {from}", columns.join(", "));
        Collection { name: format!("view{at}"), fields, ids: Vec::new(), view: Some(query) }
    }

    fn definitions(&self, dice: &Dice) -> Value {
        let collections = self.collections.iter().enumerate().map(|(at, collection)| {
            let list = match dice.below(3) {
                0 => Some(String::new()),
                1 => Some(self.question(dice, at, Names::Rule, 1)),
                _ if one_in(dice, 3) => None,
                _ => Some("@request.auth.id != ''".to_owned()),
            };
            let kind = match (at, &collection.view) {
                (_, Some(_)) => "view",
                (0, None) => "auth",
                _ => "base",
            };
            let mut definition = json!({"name": collection.name, "type": kind, "listRule": list});
            if let Some(query) = &collection.view {
                definition["viewQuery"] = json!(query);
                return definition;
            }
            let fields = collection.fields.iter().map(|field| self.field_definition(dice, at, field));
            definition["fields"] = fields.collect();
            let unique =
                collection.fields.iter().filter(|field| matches!(field.kind, Kind::Relation { unique: true, .. }));
            definition["indexes"] = unique
                .map(|field| {
                    let (table, name) = (&collection.name, &field.name);
                    json!(format!("CREATE UNIQUE INDEX idx_{table}_{name} ON {table} (\"{name}\")"))
                })
                .collect();
            definition
        });
        collections.collect()
    }

    fn field_definition(&self, dice: &Dice, own: usize, field: &Field) -> Value {
        let several = |many: bool| if many { 5 } else { 1 };
        let mut definition = match field.kind {
            Kind::Text => json!({"type": "text"}),
            Kind::Editor => json!({"type": "editor"}),
            Kind::Email => json!({"type": "email"}),
            Kind::Url => json!({"type": "url"}),
            Kind::Number => json!({"type": "number"}),
            Kind::Bool => json!({"type": "bool"}),
            Kind::Date => json!({"type": "date"}),
            Kind::Json => json!({"type": "json"}),
            Kind::Point => json!({"type": "geoPoint"}),
            Kind::Select { many } => json!({"type": "select", "values": OPTIONS, "maxSelect": several(many)}),
            Kind::File { many } => json!({"type": "file", "maxSelect": several(many)}),
            Kind::Relation { target, many, .. } => json!({"type": "relation", "maxSelect": several(many),
                "collectionId": self.collections[target].name, "cascadeDelete": one_in(dice, 2)}),
        };
        definition["name"] = json!(field.name);
        definition["hidden"] = json!(field.hidden);
        if one_in(dice, 6) {
            definition["readRule"] = json!(self.question(dice, own, Names::Rule, 1));
        }
        definition
    }

    fn fill(&self, dice: &Dice, world: &mut World) {
        for collection in self.collections.iter().filter(|collection| collection.view.is_none()) {
            let mut taken: Vec<String> = Vec::new();
            for id in &collection.ids {
                let mut members = Map::new();
                for field in &collection.fields {
                    let mut value = self.some_value(dice, field.kind);
                    if let (Kind::Relation { unique: true, .. }, Some(text)) = (field.kind, value.as_str()) {
                        if taken.iter().any(|known| *known == format!("{} {text}", field.name)) {
                            value = json!(format!("gone-{id}"));
                        }
                        taken.push(format!("{} {}", field.name, value.as_str().unwrap_or_default()));
                    }
                    self.remember(&value);
                    members.insert(field.name.clone(), value);
                }
                if collection.name == USERS {
                    members.insert("email".to_owned(), json!(format!("{id}@example.com")));
                    members.insert("emailVisibility".to_owned(), json!(one_in(dice, 2)));
                    members.insert("verified".to_owned(), json!(one_in(dice, 2)));
                }
                world.add(&collection.name, id, Value::Object(members));
            }
        }
    }

    fn remember(&self, value: &Value) {
        let mut seen = self.seen.borrow_mut();
        match value {
            Value::String(text) if text.len() < 40 => seen.push(format!("'{}'", text.replace('\'', "\\'"))),
            Value::Number(number) if number.is_i64() => seen.push(number.to_string()),
            Value::Number(number) => seen.push(written(number.as_f64().unwrap_or_default())),
            Value::Array(items) => {
                seen.extend(
                    items.iter().filter_map(Value::as_str).map(|text| format!("'{}'", text.replace('\'', "\\'"))),
                );
            }
            _ => {}
        }
        // What ends in a backslash cannot be written in this language.
        seen.retain(|text| !text.ends_with("\\'"));
    }

    fn some_value(&self, dice: &Dice, kind: Kind) -> Value {
        match kind {
            Kind::Text | Kind::Editor | Kind::Email | Kind::Url => match dice.below(80) {
                0 => json!(dice.pick(&["a", "ä", "_", "\\%", "\\"]).repeat(LONG / 2)),
                1..=5 => json!(dice.pick(&["a", "%a", "ä", "_", "\\%", "ab%"]).repeat(1 + dice.below(60))),
                _ => json!(dice.pick(TEXTS)),
            },
            Kind::Number => json!(NUMBERS[dice.below(NUMBERS.len())]),
            Kind::Bool => json!(one_in(dice, 2)),
            Kind::Date => json!(dice.pick(DATES)),
            Kind::Json => some_json(dice, 2),
            Kind::Point => {
                let degree = || [0.0, -180.0, 179.5, 13.4, -0.0, 5e-324][dice.below(6)];
                json!({"lon": degree(), "lat": degree()})
            }
            Kind::Select { many: true } => json!(dice.some_of(&OPTIONS[..4 + dice.below(4)])),
            Kind::Select { many: false } => json!(if one_in(dice, 4) { "" } else { dice.pick(OPTIONS) }),
            Kind::File { many } => {
                let names = ["a.txt", "b_1.png", "5"];
                if many { json!(dice.some_of(&names)) } else { json!(dice.pick(&["", "a.txt", "5"])) }
            }
            Kind::Relation { target, many, .. } => {
                let mut ids = self.collections[target].ids.clone();
                ids.push("gone");
                match many {
                    true => json!(dice.some_of(&ids)),
                    false if one_in(dice, 4) => json!(""),
                    false => json!(dice.pick(&ids)),
                }
            }
        }
    }

    /// Collections that a question may be about, views among them.
    pub(crate) fn some_root(&self, dice: &Dice) -> usize {
        dice.below(self.collections.len())
    }

    pub(crate) fn name(&self, at: usize) -> &str {
        &self.collections[at].name
    }

    /// Whether only superusers have a name for the field.
    pub(crate) fn hides(&self, collection: &str, field: &str) -> bool {
        let known = self.collections.iter().find(|known| known.name == collection);
        let known = known.and_then(|known| known.fields.iter().find(|known| known.name == field));
        known.map_or(matches!(field, "password" | "tokenKey"), |known| known.hidden)
    }

    /// A condition over records of the collection `root`.
    pub(crate) fn question(&self, dice: &Dice, root: usize, names: Names, depth: usize) -> String {
        if depth > 0 && !one_in(dice, 3) {
            let joiner = dice.pick(&[" && ", " || "]);
            let parts: Vec<String> =
                (0..dice.below(2) + 2).map(|_| self.question(dice, root, names, depth - 1)).collect();
            return format!("({})", parts.join(joiner));
        }
        let operator = dice.pick(OPERATORS);
        let path = self.operand(dice, root, names);
        let other = if one_in(dice, 3) { self.operand(dice, root, names) } else { self.literal(dice) };
        if one_in(dice, 6) { format!("{other} {operator} {path}") } else { format!("{path} {operator} {other}") }
    }

    fn literal(&self, dice: &Dice) -> String {
        let seen = self.seen.borrow();
        match dice.below(12) {
            0 => dice
                .pick(&["null", "false", "\"it's\"", "\"a\\\"b\"", "''", "'\\%'", "'a\\_b'", "'\\\\\\\\%'"])
                .to_owned(),
            1 | 5 => written(NUMBERS[dice.below(NUMBERS.len())]),
            2 => format!("'{}'", dice.pick(&["a", "%a", "ä", "_", "\\%", "\\_%"]).repeat(1 + dice.below(150))),
            3 | 4 => {
                let text = dice.pick(TEXTS);
                if text.ends_with('\\') { "'x'".to_owned() } else { format!("'{}'", text.replace('\'', "\\'")) }
            }
            _ if seen.is_empty() => "'a'".to_owned(),
            _ => seen[dice.below(seen.len())].clone(),
        }
    }

    fn operand(&self, dice: &Dice, root: usize, names: Names) -> String {
        match dice.below(if names == Names::Rule { 14 } else { 10 }) {
            0 => match dice.below(4) {
                0 => dice.pick(&["@now", "@year", "@todayStart", "@weekday"]).to_owned(),
                1 => format!("strftime('%Y-%m', {})", self.path(dice, root)),
                2 => format!("strftime('%s', {}, '+1 day')", self.path(dice, root)),
                _ => format!("geoDistance({}, 5, {}, 1)", self.path(dice, root), self.path(dice, root)),
            },
            10 | 11 => self.of_request(dice, root),
            12 => format!("@request.auth.{}", self.path_from(dice, 0, 5, &["id", "collectionName", "email"])),
            13 => {
                let at = dice.below(self.collections.len());
                let alias = dice.pick(&["", ":b", ":c"]);
                format!("@collection.{}{alias}.{}", self.collections[at].name, self.path_from(dice, at, 3, &["id"]))
            }
            _ => self.path(dice, root),
        }
    }

    fn path(&self, dice: &Dice, root: usize) -> String {
        self.path_from(dice, root, 6, &["id", "collectionName", "collectionId", "id:lower"])
    }

    /// A path from a record of `at` over at most `hops` relations.
    fn path_from(&self, dice: &Dice, at: usize, hops: usize, always: &[&str]) -> String {
        let collection = &self.collections[at];
        let back = self.pointing_at(at);
        if hops > 0 && !back.is_empty() && one_in(dice, if hops > 4 { 4 } else { 8 }) {
            let (from, field) = back[dice.below(back.len())];
            let hop = format!("{}_via_{field}", self.collections[from].name);
            return format!("{hop}.{}", self.path_from(dice, from, hops - 1, &["id"]));
        }
        if collection.fields.is_empty() || one_in(dice, 12) {
            return dice.pick(always).to_owned();
        }
        let field = &collection.fields[dice.below(collection.fields.len())];
        let name = &field.name;
        let with = |words: &[&str]| format!("{name}{}", dice.pick(words));
        match field.kind {
            // Every hop over many records multiplies the combinations that the evaluator walks.
            Kind::Relation { target, .. } if hops > 0 && !one_in(dice, if hops > 4 { 4 } else { 2 }) => {
                format!("{name}.{}", self.path_from(dice, target, hops - 1, &["id"]))
            }
            Kind::Json => match dice.below(3) {
                0 => with(&["", "", ":lower"]),
                _ => format!("{name}.{}{}", dice.pick(JSON_NAMES), dice.pick(&["", "", "", ":lower"])),
            },
            Kind::Point => with(&["", ".lon", ".lat", ".lat:lower", ".nothing"]),
            Kind::Select { .. } | Kind::File { .. } | Kind::Relation { .. } => {
                with(&["", "", ":each", ":length", ":lower"])
            }
            Kind::Text | Kind::Editor | Kind::Email | Kind::Url => with(&["", "", ":lower", ":each"]),
            Kind::Number | Kind::Bool | Kind::Date => with(&["", "", ":lower"]),
        }
    }

    /// The relation fields that lead to records of `at`.
    fn pointing_at(&self, at: usize) -> Vec<(usize, &str)> {
        let mut found = Vec::new();
        for (from, collection) in self.collections.iter().enumerate() {
            let leads = |field: &&Field| matches!(field.kind, Kind::Relation { target, .. } if target == at);
            found.extend(collection.fields.iter().filter(leads).map(|field| (from, field.name.as_str())));
        }
        found
    }

    fn of_request(&self, dice: &Dice, root: usize) -> String {
        let fields = &self.collections[root].fields;
        if fields.is_empty() || one_in(dice, 3) {
            return dice
                .pick(&[
                    "@request.method",
                    "@request.context",
                    "@request.query.q",
                    "@request.query.q:isset",
                    "@request.query.q:length",
                    "@request.headers.x_h:lower",
                    "@request.body.nothing",
                    "@request.body.nothing:isset",
                ])
                .to_owned();
        }
        let field = &fields[dice.below(fields.len())];
        let name = &field.name;
        match field.kind {
            Kind::Relation { target, .. } if one_in(dice, 2) => {
                format!("@request.body.{name}.{}", self.path_from(dice, target, 4, &["id"]))
            }
            Kind::Json | Kind::Point if one_in(dice, 2) => format!("@request.body.{name}.{}", dice.pick(JSON_NAMES)),
            _ => format!(
                "@request.body.{name}{}",
                dice.pick(&["", "", ":isset", ":changed", ":length", ":each", ":lower"])
            ),
        }
    }

    /// A request by the caller, or by nobody, whose body may be about a record of `root`.
    pub(crate) fn some_request(&self, dice: &Dice, world: &World, root: usize, user: Option<&str>) -> RequestContext {
        let mut request = world.request(user);
        if one_in(dice, 2) {
            request.query.insert("q".to_owned(), dice.pick(TEXTS).to_owned());
        }
        request.headers.insert("x_h".to_owned(), dice.pick(TEXTS).to_owned());
        for field in &self.collections[root].fields {
            let value = match dice.below(4) {
                0 => continue,
                1 => some_json(dice, 1),
                _ => self.some_value(dice, field.kind),
            };
            request.body.insert(field.name.clone(), value);
        }
        request
    }
}

/// A number as the language writes it: without an exponent.
fn written(number: f64) -> String {
    format!("{number}")
}

fn some_json(dice: &Dice, depth: usize) -> Value {
    match dice.below(8) {
        0 => Value::Null,
        1 => json!(dice.pick(TEXTS)),
        2 => json!(NUMBERS[dice.below(NUMBERS.len())]),
        3 if depth > 0 => json!({"a": some_json(dice, depth - 1), "b": [some_json(dice, depth - 1), "5"]}),
        4 if depth > 0 => json!([some_json(dice, depth - 1), some_json(dice, depth - 1)]),
        5 if one_in(dice, 60) => json!({"a": "ab".repeat(LONG)}),
        _ => serde_json::from_str(dice.pick(JSON_TEXTS)).unwrap(),
    }
}
