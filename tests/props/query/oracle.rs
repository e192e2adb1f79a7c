//! No oracle: two tenants that differ only in what a caller may not read answer this caller alike, in every statement.

use crate::query::equivalence::{Dice, any_expression, populate};
use crate::query::world::World;
use proptest::prelude::*;
use serde_json::{Value, json};
use tenantry::kernel::value::Stored;
use tenantry::query::aggregate;
use tenantry::query::list::ListQuery;
use tenantry::query::plan::{self, Expand, ExpandLink, Position};
use tenantry::query::request::{CallerClass, RequestContext};
use tenantry::query::resolve::Lens;
use tenantry::query::resolved::Predicate;

/// The same world with other values wherever `u1` may not read them.
fn twin(seed: u64, changed: bool) -> World {
    let mut world = populate(&Dice::new(seed));
    if !changed {
        return world;
    }
    let set = |world: &World, sql: String| world.file.execute_batch(&sql).unwrap();
    let column = |world: &World, collection: &str, field: &str| {
        let collection = world.collection(collection);
        (format!("\"{}\"", collection.table()), collection.find_field(field).unwrap().column().into_owned())
    };
    let (posts, salary) = column(&world, "posts", "salary");
    let (_, notes) = column(&world, "posts", "notes");
    let (_, internal) = column(&world, "posts", "internal");
    let (_, author) = column(&world, "posts", "author");
    set(&world, format!("UPDATE {posts} SET {salary} = 4711, {notes} = 'treasure' WHERE {author} != 'u1'"));
    set(&world, format!("UPDATE {posts} SET {internal} = 'other'"));
    let (users, secret) = column(&world, "users", "secret");
    let (_, email) = column(&world, "users", "email");
    let (_, visible) = column(&world, "users", "emailVisibility");
    let (_, token) = column(&world, "users", "tokenKey");
    set(&world, format!("UPDATE {users} SET {secret} = 'x', {token} = {token} || 'y'"));
    set(&world, format!("UPDATE {users} SET {email} = 'z@z.z' || id WHERE {visible} = 0 AND id != 'u1'"));
    // Rows that the caller's list rule hides: memberships of others. Nobody's are shown to strangers.
    let (members, role) = column(&world, "members", "role");
    let (_, user) = column(&world, "members", "user");
    set(&world, format!("UPDATE {members} SET {role} = 'q' WHERE {user} NOT IN ('u1', '')"));
    set(&world, format!("INSERT INTO {members} (id, {user}, {role}) VALUES ('extra', 'u2', 'a')"));
    world.add("members", "extra2", json!({"user": "u3", "role": "a"}));
    // Rows that the rule of the question hides.
    world.add("posts", "hidden1", json!({"title": "a ab treasure", "status": "draft", "author": "u2", "views": 3.0}));
    world.add("posts", "hidden2", json!({"title": "ab", "status": "draft", "org": "o1", "views": -9.0, "salary": 1.0}));
    world
}

/// What hides posts from everybody but superusers.
const RULE: &str = "status != 'draft' || author = @request.auth.id && author != ''";

/// Somebody who asks.
struct Caller<'w> {
    world: &'w World,
    class: CallerClass,
    request: RequestContext,
}

impl<'w> Caller<'w> {
    fn new(world: &'w World, user: Option<&str>) -> Self {
        Self { world, class: world.class(user), request: world.request(user) }
    }

    fn superuser(world: &'w World) -> Self {
        Self { world, class: CallerClass::Superuser, request: world.request(None) }
    }

    fn lens(&self) -> Lens<'_> {
        Lens::new(&self.world.schema, &self.class)
    }

    fn rule(&self) -> Option<Predicate> {
        let posts = self.world.collection("posts");
        (self.class != CallerClass::Superuser).then(|| self.lens().rule(posts, RULE).unwrap())
    }

    fn embedded(&self, expands: &[Expand], rows: &[Vec<Stored>], find: &dyn Fn(&Expand) -> Vec<Stored>) -> String {
        let mut out = String::new();
        for expand in expands {
            let ids: Vec<Value> = find(expand).iter().map(|id| json!(id.as_text().unwrap_or_default())).collect();
            let found = self.world.run(&expand.statement, &self.request, &[Stored::from(json!(ids).to_string())]);
            out.push_str(&format!("{} {found:?} of {}", expand.name, rows.len()));
        }
        out
    }

    /// A list with what it embeds, or the refusal.
    fn list(&self, parameters: &[(&str, &str)]) -> String {
        let (posts, rule) = (self.world.collection("posts"), self.rule());
        let query = ListQuery::parse(parameters.iter().copied()).unwrap();
        let plan = match plan::list(self.lens(), posts, rule.as_ref(), &query, Position::Offset) {
            Ok(plan) => plan,
            Err(error) => return format!("{parameters:?} {error}"),
        };
        let rows = self.world.run(&plan.page, &self.request, &[Stored::Integer(50), Stored::Integer(0)]);
        let total = self.world.run(&plan.count, &self.request, &[]);
        let linked = |expand: &Expand| match expand.link {
            ExpandLink::Forward { field, list: false } => {
                let at = plan.row.find(field).unwrap();
                rows.iter().map(|row| row[at].clone()).collect()
            }
            ExpandLink::Forward { .. } => vec![Stored::text("u1"), Stored::text("u2")],
            ExpandLink::Backward { .. } => vec![Stored::text("o1"), Stored::text("o2")],
        };
        let mut out = format!("{parameters:?} {rows:?} {total:?} {}", self.embedded(&plan.expand, &rows, &linked));
        plan.expand.iter().for_each(|expand| out.push_str(&self.embedded(&expand.children, &rows, &linked)));
        out
    }

    fn totals(&self, filter: &str, functions: &str) -> String {
        let (posts, rule) = (self.world.collection("posts"), self.rule());
        let query = ListQuery::parse([("filter", filter), ("aggregate", functions), ("group", "status")]).unwrap();
        match aggregate::aggregate(self.lens(), posts, rule.as_ref(), &query) {
            Ok(plan) => {
                format!(
                    "{:?}",
                    self.world.run(&plan.statement, &self.request, &[Stored::Integer(50), Stored::Integer(0)])
                )
            }
            Err(error) => format!("{filter} {functions} {error}"),
        }
    }

    /// Everything this caller is told: filters, sorts, pages, totals, searches, embedded records.
    fn answers(&self, seed: u64) -> Vec<String> {
        let dice = Dice::new(seed ^ 0x5eed);
        let mut out = Vec::new();
        for _ in 0..15 {
            let filter = any_expression(&dice, false, 2);
            let sort = dice.pick(&["salary", "-author.email", "views,-salary", "author.name,id", "org.rank"]);
            let expand = "author,org.members_via_org,editors";
            out.push(self.list(&[("filter", &filter), ("sort", sort), ("expand", expand)]));
            out.push(self.totals(&filter, "count,sum(salary),max(author.email)"));
            out.push(self.totals(&filter, "count,avg(salary),max(title)"));
        }
        out.push(self.list(&[("sort", "salary,title")]));
        for search in ["a", "treasure", "ab"] {
            out.push(self.list(&[("search", search)]));
        }
        out
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: super::cases(10), max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_a_caller_may_not_read_changes_no_answer(seed in any::<u64>()) {
        let (one, two) = (twin(seed, false), twin(seed, true));
        for user in [None, Some("u1")] {
            let (one, two) = (Caller::new(&one, user).answers(seed), Caller::new(&two, user).answers(seed));
            prop_assert_eq!(one.len(), two.len());
            for (one, two) in one.iter().zip(&two) {
                prop_assert_eq!(one, two, "{:?}", user);
            }
        }
        // The twins do differ, and who may read it sees it.
        prop_assert!(Caller::superuser(&one).answers(seed) != Caller::superuser(&two).answers(seed));
    }
}
