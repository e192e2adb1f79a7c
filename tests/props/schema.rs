//! Schema plans against a real SQLite: what is planned can be run, up then down is where one started, data follows.

use proptest::prelude::*;
use rusqlite::Connection;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use tenantry::kernel::error::Fault as _;
use tenantry::kernel::random::SeededRandom;
use tenantry::schema::blueprint;
use tenantry::schema::definition::{self, to_wire};
use tenantry::schema::error::SchemaError;
use tenantry::schema::plan::{self, Plan, PlanContext, Unmentioned};
use tenantry::schema::view::ColumnOrigin;
use tenantry::schema::{Collection, Schema};

fn describe(tables: &[String], sql: &str) -> Result<Vec<ColumnOrigin>, String> {
    let scratch = Connection::open_in_memory().map_err(|error| error.to_string())?;
    for table in tables {
        scratch.execute_batch(table).map_err(|error| error.to_string())?;
    }
    let statement = scratch.prepare(sql).map_err(|error| error.to_string())?;
    let text = |text: Option<&str>| text.map(str::to_owned);
    let columns = statement.columns_with_metadata();
    Ok(columns
        .iter()
        .map(|c| ColumnOrigin { name: c.name().to_owned(), table: text(c.table_name()), column: text(c.origin_name()) })
        .collect())
}

/// A schema with the file that follows it.
struct Tenant {
    schema: Arc<Schema>,
    file: Connection,
    random: SeededRandom,
}

impl Tenant {
    fn new() -> Self {
        let file = Connection::open_in_memory().unwrap();
        Self { schema: Arc::new(Schema::default()), file, random: SeededRandom::new(1) }
    }

    fn context(&self) -> PlanContext<'_> {
        PlanContext { random: &self.random, now_ms: 1_700_000_000_000, describe: &describe }
    }

    #[track_caller]
    fn apply(&mut self, plan: &Plan) {
        for sql in plan.ddl() {
            self.file.execute_batch(&sql).unwrap_or_else(|error| panic!("{error} in {sql}"));
        }
        self.schema = plan.next.clone();
    }

    #[track_caller]
    fn create(&mut self, body: Value) -> Plan {
        let plan = plan::plan_create(&self.schema, &definition::parse(&body).unwrap(), &self.context()).unwrap();
        self.apply(&plan);
        plan
    }

    #[track_caller]
    fn update(&mut self, name: &str, body: Value) -> Plan {
        let input = definition::parse(&body).unwrap();
        let plan = plan::plan_update(&self.schema, name, &input, &self.context()).unwrap();
        self.apply(&plan);
        plan
    }

    fn refuse(&self, name: &str, body: &Value) -> SchemaError {
        let planned = match definition::parse(body) {
            Err(error) => return error,
            Ok(input) if name.is_empty() => plan::plan_create(&self.schema, &input, &self.context()),
            Ok(input) => plan::plan_update(&self.schema, name, &input, &self.context()),
        };
        planned.expect_err("the change must be refused")
    }

    fn find(&self, name: &str) -> &Collection {
        self.schema.find(name).unwrap()
    }

    fn run(&self, sql: &str) {
        self.file.execute_batch(sql).unwrap_or_else(|error| panic!("{error} in {sql}"));
    }

    fn one(&self, sql: &str) -> String {
        self.file
            .query_row(sql, [], |row| {
                Ok(match row.get_ref(0)? {
                    rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                    other => format!("{other:?}"),
                })
            })
            .unwrap_or_else(|error| panic!("{error} in {sql}"))
    }

    /// Tables with their columns, indexes, triggers and views, independent of the order they were made in.
    fn structure(&self) -> BTreeSet<String> {
        let mut out = BTreeSet::new();
        let mut statement = self
            .file
            .prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' AND name NOT LIKE 'fts_%\\_%' ESCAPE '\\'")
            .unwrap();
        let rows: Vec<(String, String, String, Option<String>)> = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        for (kind, name, table, sql) in rows {
            if kind == "table" && name.starts_with("c_") {
                let mut columns = self
                    .file
                    .prepare("SELECT name || ' ' || type || ' ' || \"notnull\" || ' ' || ifnull(dflt_value, '') FROM pragma_table_info(?1)")
                    .unwrap();
                let columns = columns.query_map([&name], |row| row.get::<_, String>(0)).unwrap();
                out.extend(columns.map(|column| format!("{name}.{}", column.unwrap())));
            } else {
                out.insert(format!("{kind} {name} {table} {}", sql.unwrap_or_default()));
            }
        }
        out
    }
}

fn posts() -> Value {
    json!({"name": "posts", "type": "base", "listRule": "", "fields": [
        {"name": "title", "type": "text", "searchable": true}, {"name": "views", "type": "number"},
        {"name": "tags", "type": "select", "values": ["a", "b"], "maxSelect": 2}],
        "indexes": ["CREATE INDEX idx_posts_title ON posts (title COLLATE NOCASE, views DESC) WHERE title != '' AND views > 3"]})
}

#[test]
fn shipped_blueprints_make_working_tenants_and_take_themselves_back() {
    for blueprint in blueprint::shipped() {
        let mut tenant = Tenant::new();
        let empty = tenant.structure();
        let plan = plan::plan_import(&tenant.schema, &blueprint.collections, Unmentioned::Keep, &tenant.context())
            .unwrap_or_else(|error| panic!("{}: {:?}", blueprint.name, error.details()));
        tenant.apply(&plan);
        for collection in tenant.schema.collections() {
            // Views are parsed by SQLite only when they are read.
            tenant.run(&format!("SELECT * FROM \"{}\" LIMIT 1", collection.table()));
            let stored = collection.to_storage_json();
            assert_eq!(Collection::from_storage_json(&stored).unwrap(), **collection);
        }
        tenant.apply(&plan.inverse());
        assert_eq!(tenant.structure(), empty, "{}", blueprint.name);
        assert!(tenant.schema.collections().is_empty());
    }
}

#[test]
fn an_export_imports_into_an_empty_tenant_as_it_was() {
    for blueprint in blueprint::shipped() {
        let mut source = Tenant::new();
        let plan =
            plan::plan_import(&source.schema, &blueprint.collections, Unmentioned::Keep, &source.context()).unwrap();
        source.apply(&plan);
        let export: Value = source.schema.collections().iter().map(|collection| to_wire(collection)).collect();
        assert!(!export.to_string().to_lowercase().contains("secret"), "secrets must not be exported");
        let mut copy = Tenant::new();
        let inputs = definition::parse_many(&export).unwrap();
        let plan = plan::plan_import(&copy.schema, &inputs, Unmentioned::Delete, &copy.context()).unwrap();
        copy.apply(&plan);
        let again: Value = copy.schema.collections().iter().map(|collection| to_wire(collection)).collect();
        assert_eq!(again, export);
        let same = plan::plan_import(&copy.schema, &inputs, Unmentioned::Delete, &copy.context()).unwrap();
        assert_eq!(same.ddl(), Vec::<String>::new(), "importing the same twice touches nothing");
    }
}

#[test]
fn a_rename_touches_no_table() {
    let mut tenant = Tenant::new();
    tenant.create(posts());
    let id = tenant.find("posts").find_field("title").unwrap().id.clone();
    let mut fields = to_wire(tenant.find("posts"))["fields"].clone();
    fields[1]["name"] = json!("headline");
    let plan = tenant.update("posts", json!({"name": "articles", "fields": fields}));
    assert_eq!(plan.ddl(), Vec::<String>::new());
    let articles = tenant.find("articles");
    assert_eq!(articles.find_field("headline").unwrap().id, id);
    assert_eq!(
        to_wire(articles)["indexes"][0],
        "CREATE INDEX `idx_posts_title` ON `articles` (`headline` COLLATE NOCASE, `views` DESC) WHERE `headline` != '' AND `views` > 3"
    );
}

#[test]
fn data_follows_a_change_of_type() {
    let mut tenant = Tenant::new();
    tenant.create(json!({"name": "t", "fields": [{"name": "a", "type": "text"}, {"name": "b", "type": "number"},
        {"name": "c", "type": "select", "values": ["x", "y"], "maxSelect": 1}, {"name": "d", "type": "bool"}]}));
    let table = tenant.find("t").table();
    tenant.run(&format!("INSERT INTO \"{table}\" (id, f1, f2, f3, f4) VALUES ('r', '12.5', 7, 'x', 1)"));
    let up = tenant.update(
        "t",
        json!({"fields": [{"name": "id", "type": "text"}, {"name": "a", "type": "number"}, {"name": "b", "type": "text"},
        {"name": "c", "type": "select", "values": ["x", "y"], "maxSelect": 2}, {"name": "d", "type": "json"}]}),
    );
    let columns: Vec<_> = tenant.find("t").fields.iter().skip(1).map(|field| field.column().into_owned()).collect();
    assert_eq!(columns, ["f5", "f6", "f7", "f8"], "numbers are never used twice");
    let shown = format!("SELECT json_array(f5, f6, f7, f8) FROM \"{table}\"");
    assert_eq!(tenant.one(&shown), r#"[12.5,"7","[\"x\"]","true"]"#);
    let down = up.inverse();
    assert!(down.next.find("t").unwrap().next_field_number >= 9);
    // Booleans do not come back out of JSON; everything else does.
    tenant.apply(&down);
    assert_eq!(tenant.one(&format!("SELECT json_array(f1, f2, f3) FROM \"{table}\"")), r#"["12.5",7.0,"x"]"#);
}

#[test]
fn changes_that_would_ruin_data_are_refused_with_the_way_out() {
    let mut tenant = Tenant::new();
    tenant.create(json!({"name": "people", "type": "auth"}));
    tenant.create(json!({"name": "t", "fields": [{"name": "who", "type": "relation", "collectionId": "people"}, {"name": "p", "type": "geoPoint"}]}));
    let id = json!({"name": "id", "type": "text"});
    for (name, body, field) in [
        (
            "t",
            json!({"fields": [id, {"name": "who", "type": "text"}, {"name": "p", "type": "geoPoint"}]}),
            "fields.1.type",
        ),
        ("t", json!({"fields": [id, {"name": "p", "type": "number"}]}), "fields.1.type"),
        ("t", json!({"type": "auth"}), "type"),
        ("t", json!({"fields": [{"name": "p", "type": "geoPoint"}]}), "fields"),
        ("t", json!({"indexes": ["CREATE INDEX i ON t (nope)"]}), "indexes.0"),
        ("t", json!({"indexes": ["CREATE INDEX i ON t (lower(p))"]}), "indexes.0"),
        ("t", json!({"indexes": ["DROP TABLE t"]}), "indexes.0"),
        ("t", json!({"partition": "nope"}), "partition"),
        ("t", json!({"cache": {"class": "forever"}}), "cache.class"),
        ("t", json!({"name": "people"}), "name"),
        ("people", json!({"passwordAuth": {"identityFields": ["verified"]}}), "passwordAuth.identityFields.0"),
        ("people", json!({"authToken": {"duration": 1}}), "authToken.duration"),
        ("", json!({"name": "_x"}), "name"),
        ("", json!({"name": "x", "fields": [{"name": "expand", "type": "text"}]}), "fields.0.name"),
        (
            "",
            json!({"name": "x", "fields": [{"name": "a", "type": "text"}, {"name": "A", "type": "text"}]}),
            "fields.1.name",
        ),
        (
            "",
            json!({"name": "x", "fields": [{"name": "r", "type": "relation", "collectionId": "gone"}]}),
            "fields.0.collectionId",
        ),
        ("", json!({"name": "x", "fields": [{"name": "a", "type": "text", "pattern": "("}]}), "fields.0.pattern"),
        ("", json!({"name": "x", "fields": [{"name": "a", "type": "number", "min": "1"}]}), "fields.0.min"),
        ("", json!({"name": "v", "type": "view", "viewQuery": "DELETE FROM t"}), "viewQuery"),
        ("", json!({"name": "v", "type": "view", "viewQuery": "SELECT id, password FROM people"}), "viewQuery"),
        ("", json!({"name": "v", "type": "view", "viewQuery": "SELECT name AS id FROM sqlite_schema"}), "viewQuery"),
        ("", json!({"name": "v", "type": "view", "viewQuery": "SELECT id FROM t; SELECT 1"}), "viewQuery"),
        ("", json!({"name": "v", "type": "view", "viewQuery": "SELECT p FROM t"}), "viewQuery"),
    ] {
        let details = tenant.refuse(name, &body).details();
        assert!(details.iter().any(|detail| detail.field == field), "{body}: wanted {field}, got {details:?}");
    }
    let in_use = plan::plan_delete(&tenant.schema, "people", &tenant.context()).unwrap_err();
    assert!(matches!(&in_use, SchemaError::InUse { users, .. } if users == "t.who"), "{in_use:?}");
}

#[test]
fn views_know_their_types_and_follow_their_sources() {
    let mut tenant = Tenant::new();
    tenant.create(posts());
    tenant.create(json!({"name": "stats", "type": "view", "viewQuery":
        "SELECT p.id, p.title AS headline, count(*) AS n, cast(p.views / 2 as real) half, p.tags, json_object('a', 1) AS doc FROM posts p GROUP BY p.id -- end"}));
    tenant.create(json!({"name": "top", "type": "view", "viewQuery": "SELECT id, headline, n FROM stats WHERE n > 0"}));
    let kinds: Vec<_> =
        tenant.find("stats").fields.iter().map(|field| (field.name.to_string(), field.kind.type_name())).collect();
    let wanted = [
        ("id", "text"),
        ("headline", "text"),
        ("n", "number"),
        ("half", "number"),
        ("tags", "select"),
        ("doc", "json"),
    ];
    assert_eq!(kinds, wanted.map(|(name, kind)| (name.to_owned(), kind)));
    let table = tenant.find("posts").table();
    tenant.run(&format!("INSERT INTO \"{table}\" (id, f1, f2, f3) VALUES ('r', 'Hello', 5, '[\"a\"]')"));
    let top = tenant.find("top").table();
    assert_eq!(tenant.one(&format!("SELECT json_array(id, f1, f2) FROM \"{top}\"")), r#"["r","Hello",1]"#);

    let before = tenant.structure();
    let mut fields = to_wire(tenant.find("posts"))["fields"].clone();
    fields.as_array_mut().unwrap().remove(2);
    let refused = tenant.refuse("posts", &json!({"fields": fields, "indexes": []}));
    assert!(refused.details()[0].message.contains("The view stats would stop working"), "{refused:?}");
    assert!(matches!(plan::plan_delete(&tenant.schema, "posts", &tenant.context()), Err(SchemaError::Invalid(_))));

    let mut fields = to_wire(tenant.find("posts"))["fields"].clone();
    fields.as_array_mut().unwrap().push(json!({"name": "extra", "type": "bool"}));
    let plan = tenant.update("posts", json!({"fields": fields}));
    assert_eq!(tenant.one(&format!("SELECT json_array(id, f1, f2) FROM \"{top}\"")), r#"["r","Hello",1]"#);
    tenant.apply(&plan.inverse());
    assert_eq!(tenant.structure(), before);
}

#[test]
fn search_follows_the_records() {
    let mut tenant = Tenant::new();
    tenant.create(posts());
    let (table, fts) = (tenant.find("posts").table(), format!("fts_{}", tenant.find("posts").id));
    tenant.run(&format!("INSERT INTO \"{table}\" (id, f1) VALUES ('r1', 'Crème brûlée'), ('r2', 'Apple pie')"));
    let hits =
        |word: &str| tenant.one(&format!("SELECT group_concat(rowid) FROM \"{fts}\" WHERE \"{fts}\" MATCH '{word}'"));
    assert_eq!((hits("creme"), hits("apple")), ("1".to_owned(), "2".to_owned()));
    tenant.run(&format!(
        "UPDATE \"{table}\" SET f1 = 'Plum cake' WHERE id = 'r1'; DELETE FROM \"{table}\" WHERE id = 'r2'"
    ));
    assert_eq!((hits("plum"), hits("creme"), hits("apple")), ("1".to_owned(), "Null".to_owned(), "Null".to_owned()));
}

/// A field of a drawn name and type.
fn any_field() -> impl Strategy<Value = Value> {
    let kinds = prop_oneof![
        Just(json!({"type": "text"})),
        Just(json!({"type": "text", "searchable": true})),
        Just(json!({"type": "number", "min": 1, "max": 9})),
        Just(json!({"type": "bool"})),
        Just(json!({"type": "json"})),
        Just(json!({"type": "geoPoint"})),
        Just(json!({"type": "date"})),
        Just(json!({"type": "select", "values": ["x", "y", "z"], "maxSelect": 1})),
        Just(json!({"type": "select", "values": ["x", "y", "z"], "maxSelect": 3})),
    ];
    (0..6_u8, kinds).prop_map(|(name, mut kind)| {
        kind["name"] = json!(format!("n{name}"));
        kind
    })
}

/// A body whose indexes use fields it has; field names come once.
fn any_body() -> impl Strategy<Value = Value> {
    (prop::collection::vec(any_field(), 0..6), any::<bool>(), any::<bool>()).prop_map(|(mut fields, unique, index)| {
        let mut seen = BTreeSet::new();
        fields.retain(|field| seen.insert(field["name"].to_string()));
        let first = fields.first().map(|field| field["name"].as_str().unwrap_or_default().to_owned());
        let unique = if unique { "UNIQUE " } else { "" };
        let indexes: Vec<String> =
            first.filter(|_| index).map(|name| format!("CREATE {unique}INDEX i_{name} ON t ({name} DESC, id)")).into_iter().collect();
        fields.insert(0, json!({"name": "id", "type": "text", "min": 15, "max": 15, "pattern": "^[a-z0-9]+$", "autogeneratePattern": "[a-z0-9]{15}"}));
        json!({"name": "t", "fields": fields, "indexes": indexes})
    })
}

fn without_counters(schema: &Schema) -> Vec<Value> {
    let strip = |collection: &Arc<Collection>| {
        let mut value = collection.to_storage_json();
        value.as_object_mut().map(|map| map.remove("nextFieldNumber"));
        value
    };
    schema.collections().iter().map(strip).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn up_then_down_is_where_one_started(first in any_body(), changes in prop::collection::vec(any_body(), 1..4)) {
        let mut tenant = Tenant::new();
        tenant.create(first);
        let table = tenant.find("t").table();
        tenant.run(&format!("INSERT INTO \"{table}\" (id) VALUES ('r1'), ('r2')"));
        for change in changes {
            let (structure, definitions) = (tenant.structure(), without_counters(&tenant.schema));
            let input = definition::parse(&change).unwrap();
            // Type changes without a sensible conversion are refused; they are another test's subject.
            let Ok(plan) = plan::plan_update(&tenant.schema, "t", &input, &tenant.context()) else { continue };
            tenant.apply(&plan);
            tenant.apply(&plan.inverse());
            prop_assert_eq!(tenant.structure(), structure);
            prop_assert_eq!(without_counters(&tenant.schema), definitions);
            // And up again, so that changes pile up.
            let plan = plan::plan_update(&tenant.schema, "t", &input, &tenant.context()).unwrap();
            tenant.apply(&plan);
            prop_assert_eq!(&tenant.one(&format!("SELECT group_concat(id) FROM \"{table}\"")), "r1,r2");
            for collection in tenant.schema.collections() {
                prop_assert_eq!(&Collection::from_storage_json(&collection.to_storage_json()).unwrap(), &**collection);
            }
        }
    }
}
