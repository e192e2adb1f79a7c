//! No oracle: two tenants that differ only in what a caller may not read answer this caller alike, on every surface.

use crate::query::equivalence::{Dice, any_expression, populate};
use crate::query::world::World;
use proptest::prelude::*;
use serde_json::json;
use tenantry::kernel::value::Stored;
use tenantry::query::aggregate;
use tenantry::query::list::ListQuery;
use tenantry::query::plan::{self, Expand, ExpandLink, Position};
use tenantry::query::resolve::Lens;

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
    // Rows that the caller's list rule hides: memberships of others.
    let (members, role) = column(&world, "members", "role");
    let (_, user) = column(&world, "members", "user");
    set(&world, format!("UPDATE {members} SET {role} = 'q' WHERE {user} != 'u1'"));
    set(&world, format!("INSERT INTO {members} (id, {user}, {role}) VALUES ('extra', 'u2', 'a')"));
    world.add("members", "extra2", json!({"user": "u3", "role": "a"}));
    world
}

fn embedded(world: &World, expands: &[Expand], rows: &[Vec<Stored>], find: &dyn Fn(&Expand) -> Vec<Stored>) -> String {
    let mut out = String::new();
    for expand in expands {
        let ids = find(expand);
        let list = format!(
            "[{}]",
            ids.iter().map(|id| format!("{:?}", id.as_text().unwrap_or_default())).collect::<Vec<_>>().join(",")
        );
        let found = world.run(&expand.statement, &world.request(Some("u1")), &[Stored::from(list)]);
        out.push_str(&format!("{} {found:?} of {}", expand.name, rows.len()));
    }
    out
}

/// Everything `u1` is told: filters, sorts, pages, totals, searches, embedded records.
fn answers(world: &World, seed: u64) -> Vec<String> {
    let dice = Dice::new(seed ^ 0x5eed);
    let class = world.class(Some("u1"));
    let lens = Lens::new(&world.schema, &class);
    let request = world.request(Some("u1"));
    let posts = world.collection("posts");
    let page = [Stored::Integer(50), Stored::Integer(0)];
    let mut out = Vec::new();
    for _ in 0..15 {
        let filter = any_expression(&dice, false, 2);
        let sort = dice.pick(&["salary", "-author.email", "views,-salary", "author.name,@rowid", "org.rank"]);
        let parameters =
            [("filter", filter.as_str()), ("sort", sort), ("expand", "author,org.members_via_org,editors")];
        let query = ListQuery::parse(parameters).unwrap();
        let plan = match plan::list(lens, posts, None, &query, Position::Offset) {
            Ok(plan) => plan,
            Err(error) => {
                out.push(format!("{filter} {error}"));
                continue;
            }
        };
        let rows = world.run(&plan.page, &request, &page);
        let total = world.run(&plan.count, &request, &[]);
        let linked = |expand: &Expand| match expand.link {
            ExpandLink::Forward { field, list: false } => {
                let at = plan.row.find(field).unwrap();
                rows.iter().map(|row| row[at].clone()).collect()
            }
            ExpandLink::Forward { .. } => vec![Stored::text("u1"), Stored::text("u2")],
            ExpandLink::Backward { .. } => vec![Stored::text("o1"), Stored::text("o2")],
        };
        out.push(format!("{filter} {sort} {rows:?} {total:?} {}", embedded(world, &plan.expand, &rows, &linked)));
        for expand in &plan.expand {
            out.push(embedded(world, &expand.children, &rows, &linked));
        }
        let totals = ListQuery::parse([
            ("filter", filter.as_str()),
            ("aggregate", "count,sum(salary),max(author.email)"),
            ("group", "status"),
        ])
        .unwrap();
        let totals = aggregate::aggregate(lens, posts, None, &totals).unwrap();
        out.push(format!("{:?}", world.run(&totals.statement, &request, &page)));
    }
    for search in ["a", "treasure", "ab"] {
        let query = ListQuery::parse([("search", search)]).unwrap();
        let plan = plan::list(lens, posts, None, &query, Position::Offset).unwrap();
        out.push(format!("{search} {:?}", world.run(&plan.page, &request, &page)));
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: super::cases(10), max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_a_caller_may_not_read_changes_no_answer(seed in any::<u64>()) {
        let (one, two) = (answers(&twin(seed, false), seed), answers(&twin(seed, true), seed));
        for (one, two) in one.iter().zip(&two) {
            prop_assert_eq!(one, two);
        }
    }
}
