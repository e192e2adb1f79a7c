//! A small tenant in memory, held twice: in SQLite and as records for the evaluator.

use rusqlite::functions::FunctionFlags;
use rusqlite::limits::Limit;
use rusqlite::types::{ToSqlOutput, Value as SqlValue, ValueRef};
use rusqlite::{Connection, params_from_iter};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use tenantry::kernel::ident::{CollectionId, FieldNumber, RecordId};
use tenantry::kernel::limits;
use tenantry::kernel::random::SeededRandom;
use tenantry::kernel::value::{Cell, Stored};
use tenantry::query::eval::{self, Dataset, Steps};
use tenantry::query::functions;
use tenantry::query::request::{AuthRecord, CallerClass, RequestContext};
use tenantry::query::resolve::Lens;
use tenantry::query::resolved::Predicate;
use tenantry::query::statement::Statement;
use tenantry::query::{QueryError, plan as queries};
use tenantry::schema::record::RecordImage;
use tenantry::schema::{Collection, Schema, definition, plan};
use tenantry::store::describe_in_scratch;

pub(crate) const NOW_MS: i64 = 1_709_212_025_250; // 2024-02-29 13:07:05.250Z

pub(crate) struct World {
    pub(crate) schema: Arc<Schema>,
    pub(crate) file: Connection,
    rows: HashMap<CollectionId, Vec<Arc<RecordImage>>>,
}

impl Dataset for World {
    fn find(&self, collection: &Collection, id: &str) -> Option<Arc<RecordImage>> {
        self.rows.get(&collection.id)?.iter().find(|row| row.id.as_str() == id).cloned()
    }

    fn scan(&self, collection: &Collection, each: &mut dyn FnMut(&Arc<RecordImage>) -> ControlFlow<()>) {
        for row in self.rows.get(&collection.id).into_iter().flatten() {
            if each(row).is_break() {
                return;
            }
        }
    }
}

impl World {
    /// The collections of [`collections`], no records.
    pub(crate) fn new() -> Self {
        Self::with(collections())
    }

    pub(crate) fn with(collections: Value) -> Self {
        let file = Connection::open_in_memory().unwrap();
        register(&file);
        // As the store opens its files.
        let pattern_max = i32::try_from(limits::LIKE_PATTERN_BYTES_MAX).unwrap();
        file.set_limit(Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, pattern_max).unwrap();
        let mut world = Self { schema: Arc::new(Schema::default()), file, rows: HashMap::new() };
        let random = SeededRandom::new(1);
        let context = plan::PlanContext { random: &random, now_ms: NOW_MS, describe: &describe_in_scratch };
        let inputs: Vec<_> = collections.as_array().unwrap().iter().map(|c| definition::parse(c).unwrap()).collect();
        let plan = plan::plan_import(&world.schema, &inputs, plan::Unmentioned::Keep, &context).unwrap();
        for sql in plan.ddl() {
            world.file.execute_batch(&sql).unwrap_or_else(|error| panic!("{error} in {sql}"));
        }
        world.schema = plan.next.clone();
        world
    }

    pub(crate) fn collection(&self, name: &str) -> &Arc<Collection> {
        self.schema.find(name).unwrap_or_else(|| panic!("collection {name}"))
    }

    /// Adds a record; members that are not given have their defaults.
    #[track_caller]
    pub(crate) fn add(&mut self, collection: &str, id: &str, members: Value) -> &mut Self {
        let collection = self.collection(collection).clone();
        let mut values: Vec<(FieldNumber, Stored)> = Vec::new();
        for (name, value) in members.as_object().unwrap() {
            let field = collection.find_field(name).unwrap_or_else(|| panic!("field {name}"));
            values.push((field.number, stored(field.kind.storage(), value)));
        }
        if let Some(token_key) = collection.find_field("tokenKey") {
            values.push((token_key.number, Stored::text(id)));
        }
        let columns: Vec<String> = values.iter().map(|(number, _)| format!(", f{}", number.0)).collect();
        let sql = format!(
            "INSERT INTO \"{}\" (id{}) VALUES (?{})",
            collection.table(),
            columns.concat(),
            ", ?".repeat(columns.len())
        );
        let binds = std::iter::once(Stored::text(id)).chain(values.iter().map(|(_, value)| value.clone()));
        self.file.execute(&sql, params_from_iter(binds.map(sql_value))).unwrap_or_else(|e| panic!("{e} in {sql}"));
        let image = RecordImage::new(RecordId::parse(id).unwrap(), values);
        self.rows.entry(collection.id.clone()).or_default().push(Arc::new(image));
        self
    }

    /// Takes the rows of every view collection as they are by now.
    pub(crate) fn take_views(&mut self) {
        for view in self.schema.collections().iter().filter(|collection| collection.is_view()) {
            let columns: Vec<_> = view.fields.iter().map(|field| field.column()).collect();
            let sql = format!("SELECT {} FROM \"{}\"", columns.join(", "), view.table());
            let mut statement = self.file.prepare(&sql).unwrap();
            let mut found = statement.query([]).unwrap();
            let mut rows = Vec::new();
            while let Some(row) = found.next().unwrap() {
                let read = |at: usize| cell(row.get_ref(at).unwrap()).to_stored();
                let id = RecordId::parse(read(0).as_text().unwrap()).unwrap();
                let values = view.fields.iter().enumerate().skip(1).map(|(at, field)| (field.number, read(at)));
                rows.push(Arc::new(RecordImage::new(id, values)));
            }
            self.rows.insert(view.id.clone(), rows);
        }
    }

    pub(crate) fn record(&self, collection: &str, id: &str) -> Arc<RecordImage> {
        self.find(self.collection(collection), id).unwrap_or_else(|| panic!("record {id}"))
    }

    /// A request by the record `id` of `users`, or by nobody.
    pub(crate) fn request(&self, user: Option<&str>) -> RequestContext {
        let auth = user.map(|id| {
            let record = (*self.record("users", id)).clone();
            Arc::new(AuthRecord { collection: self.collection("users").clone(), record })
        });
        RequestContext {
            context: "default".into(),
            method: "GET".into(),
            auth,
            now_ms: NOW_MS,
            ..RequestContext::default()
        }
    }

    pub(crate) fn class(&self, user: Option<&str>) -> CallerClass {
        match user {
            Some(_) => CallerClass::Auth(self.collection("users").id.clone()),
            None => CallerClass::Anonymous,
        }
    }

    /// Runs a statement; every row as stored values.
    #[track_caller]
    pub(crate) fn run(
        &self,
        statement: &Statement,
        request: &RequestContext,
        arguments: &[Stored],
    ) -> Vec<Vec<Stored>> {
        let mut prepared =
            self.file.prepare(&statement.sql).unwrap_or_else(|error| panic!("{error} in {}", statement.sql));
        let width = prepared.column_count();
        let binds = statement.fill(request, arguments).into_iter().map(sql_value);
        let rows = prepared
            .query_map(params_from_iter(binds), |row| {
                (0..width).map(|at| row.get_ref(at).map(|value| cell(value).to_stored())).collect()
            })
            .unwrap();
        rows.map(|row| row.unwrap_or_else(|error| panic!("{error} in {}", statement.sql))).collect()
    }

    /// Ids for which the predicate holds, by SQL, sorted.
    #[track_caller]
    pub(crate) fn by_sql(&self, predicate: &Predicate, request: &RequestContext) -> Vec<String> {
        let lens = Lens::new(&self.schema, &CallerClass::Superuser);
        let statement = queries::matching_ids(lens, predicate);
        let mut ids: Vec<String> =
            self.run(&statement, request, &[]).into_iter().map(|row| row[0].as_text().unwrap().to_owned()).collect();
        ids.sort();
        ids
    }

    /// Ids for which the predicate holds, by the evaluator, sorted.
    pub(crate) fn by_eval(&self, predicate: &Predicate, request: &RequestContext) -> Vec<String> {
        let mut ids = Vec::new();
        self.scan(&predicate.root, &mut |row| {
            if eval::holds(predicate, self, request, row, &Steps::new(u64::MAX)).unwrap() {
                ids.push(row.id.to_string());
            }
            ControlFlow::Continue(())
        });
        ids.sort();
        ids
    }

    /// Ids that a rule admits, found both ways.
    #[track_caller]
    pub(crate) fn rule(&self, collection: &str, rule: &str, user: Option<&str>) -> Vec<String> {
        self.rule_for(collection, rule, user, &self.request(user))
    }

    #[track_caller]
    pub(crate) fn rule_for(
        &self,
        collection: &str,
        rule: &str,
        user: Option<&str>,
        request: &RequestContext,
    ) -> Vec<String> {
        let class = self.class(user);
        let predicate = Lens::new(&self.schema, &class)
            .rule(self.collection(collection), rule)
            .unwrap_or_else(|error| panic!("{rule}: {error}"));
        self.both(rule, &predicate, request)
    }

    /// Ids that a client's filter finds, found both ways.
    #[track_caller]
    pub(crate) fn filter(&self, collection: &str, filter: &str, user: Option<&str>) -> Result<Vec<String>, QueryError> {
        let class = self.class(user);
        let predicate = Lens::new(&self.schema, &class).filter(self.collection(collection), filter)?;
        Ok(self.both(filter, &predicate, &self.request(user)))
    }

    #[track_caller]
    fn both(&self, source: &str, predicate: &Predicate, request: &RequestContext) -> Vec<String> {
        let by_sql = self.by_sql(predicate, request);
        assert_eq!(by_sql, self.by_eval(predicate, request), "SQL and evaluator differ for {source}");
        by_sql
    }
}

fn register(file: &Connection) {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    for function in functions::ALL {
        let call = function.call;
        file.create_scalar_function(function.name, function.arity, flags, move |context| {
            let cells: Vec<Cell<'_>> = (0..context.len()).map(|at| cell(context.get_raw(at))).collect();
            Ok(ToSqlOutput::Owned(sql_value(call(&cells))))
        })
        .unwrap();
    }
}

pub(crate) fn cell(value: ValueRef<'_>) -> Cell<'_> {
    match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(number) => Cell::Integer(number),
        ValueRef::Real(number) => Cell::Real(number),
        ValueRef::Text(text) => Cell::Text(std::str::from_utf8(text).unwrap()),
        ValueRef::Blob(bytes) => Cell::Blob(bytes),
    }
}

pub(crate) fn sql_value(value: Stored) -> SqlValue {
    match value {
        Stored::Null => SqlValue::Null,
        Stored::Integer(number) => SqlValue::Integer(number),
        Stored::Real(number) => SqlValue::Real(number),
        Stored::Text(text) => SqlValue::Text(text.to_string()),
        Stored::Blob(bytes) => SqlValue::Blob(bytes.to_vec()),
    }
}

fn stored(storage: tenantry::schema::field::Storage, value: &Value) -> Stored {
    use tenantry::schema::field::Storage;
    match storage {
        Storage::Text => Stored::text(value.as_str().unwrap()),
        Storage::Number => Stored::Real(value.as_f64().unwrap()),
        Storage::Bool => Stored::bool(value.as_bool().unwrap()),
        Storage::Json if value.is_null() => Stored::Null,
        Storage::List | Storage::Json | Storage::Point => Stored::from(value.to_string()),
    }
}

/// Every collection with its fields and rules and its records, to be read by people.
pub(crate) fn collections_of(world: &World) -> String {
    let mut out = String::new();
    for collection in world.schema.collections() {
        let rule = &collection.rules.list;
        out.push_str(&format!("{} list {rule:?} {:?}\n", collection.name, collection.view_query));
        for field in &collection.fields {
            out.push_str(&format!(
                "  {} {:?} hidden {} read {:?}\n",
                field.name, field.kind, field.hidden, field.read_rule
            ));
        }
        for row in world.rows.get(&collection.id).into_iter().flatten() {
            let values = collection.fields.iter().map(|field| row.get(field.number)).map(|value| format!("{value:?}"));
            let short = values.map(|value| value.chars().take(80).collect::<String>());
            out.push_str(&format!("    {} {}\n", row.id, short.collect::<Vec<_>>().join(" ")));
        }
    }
    out
}

fn relation(name: &str, target: &str, max_select: u32) -> Value {
    json!({"name": name, "type": "relation", "collectionId": target, "maxSelect": max_select})
}

/// Five collections with every kind of field and relation.
pub(crate) fn collections() -> Value {
    json!([
        {"name": "orgs", "type": "base", "listRule": "open = true || @request.auth.id != '' && members_via_org.user ?= @request.auth.id",
         "viewRule": "", "fields": [
            {"name": "name", "type": "text"}, {"name": "rank", "type": "number"}, {"name": "open", "type": "bool"}]},
        {"name": "users", "type": "auth", "listRule": "@request.auth.id != ''", "viewRule": "@request.auth.id != ''",
         "manageRule": "@request.auth.role = 'admin'", "fields": [
            {"name": "name", "type": "text"},
            {"name": "role", "type": "select", "values": ["admin", "member"], "maxSelect": 1},
            {"name": "secret", "type": "text", "hidden": true},
            {"name": "prefs", "type": "json"},
            {"name": "skills", "type": "select", "values": ["a", "b", "c"], "maxSelect": 3},
            relation("org", "orgs", 1)]},
        {"name": "members", "type": "base", "listRule": "user = @request.auth.id && user != ''",
         "viewRule": "user = @request.auth.id", "fields": [
            relation("org", "orgs", 1), relation("user", "users", 1), {"name": "role", "type": "text"}]},
        {"name": "posts", "type": "base", "listRule": "", "viewRule": "", "fields": [
            {"name": "title", "type": "text", "searchable": true},
            {"name": "body", "type": "editor"},
            {"name": "status", "type": "select", "values": ["draft", "live"], "maxSelect": 1},
            {"name": "views", "type": "number"},
            {"name": "done", "type": "bool"},
            {"name": "tags", "type": "select", "values": ["a", "b", "c"], "maxSelect": 3},
            relation("author", "users", 1), relation("editors", "users", 5), relation("org", "orgs", 1),
            {"name": "meta", "type": "json"},
            {"name": "place", "type": "geoPoint"},
            {"name": "published", "type": "date"},
            {"name": "salary", "type": "number", "readRule": "author = @request.auth.id && @request.auth.id != ''"},
            {"name": "notes", "type": "text", "searchable": true, "readRule": "author = @request.auth.id && @request.auth.id != ''"},
            {"name": "internal", "type": "text", "hidden": true}],
         "indexes": [
            "CREATE INDEX idx_posts_status ON posts (status)",
            "CREATE INDEX idx_posts_org_status ON posts (org, status)",
            "CREATE INDEX idx_posts_views ON posts (views DESC)",
            "CREATE INDEX idx_posts_published ON posts (published)"]},
        {"name": "comments", "type": "base", "listRule": "", "viewRule": "", "fields": [
            relation("post", "posts", 1), {"name": "text", "type": "text"}, {"name": "score", "type": "number"},
            relation("likes", "users", 5)],
         "indexes": ["CREATE INDEX idx_comments_post ON comments (post)"]}
    ])
}
