//! Lists page by page: every record exactly once, by number and by cursor, forward and backward, over any sort.

use crate::query::equivalence::{Dice, populate};
use crate::query::world::World;
use proptest::prelude::*;
use serde_json::json;
use tenantry::kernel::limits;
use tenantry::kernel::value::Stored;
use tenantry::query::aggregate;
use tenantry::query::list::ListQuery;
use tenantry::query::page::{Cursor, CursorBinding, CursorSealer, Direction};
use tenantry::query::plan::{self, Position};
use tenantry::query::request::CallerClass;
use tenantry::query::resolve::Lens;

const SORTS: &[&str] = &[
    "",
    "title",
    "-title",
    "views,-title",
    "-views",
    "status,done,-views",
    "-author.name",
    "org.rank,title",
    "@rowid",
    "-@rowid",
    "id",
    "-id",
    "meta.a",
    "-meta.a,title",
    "salary",
    "author.email,-salary",
    "place.lon",
    "tags",
    "title:lower",
];

fn ids(rows: &[Vec<Stored>], at: usize) -> Vec<String> {
    rows.iter().map(|row| row[at].as_text().unwrap().to_owned()).collect()
}

/// Walks all pages of a list by cursor; the ids in the order they came.
fn by_cursor(world: &World, user: Option<&str>, sort: &str, per_page: usize, direction: Direction) -> Vec<String> {
    let class = world.class(user);
    let lens = Lens::new(&world.schema, &class);
    let posts = world.collection("posts");
    let query = ListQuery::parse([("sort", sort), ("fields", "title")]).unwrap();
    let request = world.request(user);
    let limit = Stored::Integer(per_page as i64);
    let mut out: Vec<String> = Vec::new();
    // Backward starts behind the last row of the forward order.
    let mut keys: Option<Vec<Stored>> = None;
    if direction == Direction::Backward {
        let all = plan::list(lens, posts, None, &query, Position::First).unwrap();
        let rows = world.run(&all.page, &request, &[Stored::Integer(1_000)]);
        let last = rows.last().unwrap();
        out.push(
            last[all.row.columns.iter().position(|column| &*column.name == "id").unwrap()]
                .as_text()
                .unwrap()
                .to_owned(),
        );
        keys = Some(all.keys.iter().map(|at| last[*at].clone()).collect());
    }
    loop {
        let position = if keys.is_some() { Position::From(direction) } else { Position::First };
        let plan = plan::list(lens, posts, None, &query, position).unwrap();
        let arguments: Vec<Stored> = std::iter::once(limit.clone()).chain(keys.clone().into_iter().flatten()).collect();
        let rows = world.run(&plan.page, &request, &arguments);
        let Some(last) = rows.last() else { return out };
        keys = Some(plan.keys.iter().map(|at| last[*at].clone()).collect());
        let at = plan.row.columns.iter().position(|column| &*column.name == "id").unwrap();
        out.extend(ids(&rows, at));
        assert!(out.len() < 100, "paging does not end: {sort}");
    }
}

fn check(seed: u64) -> Result<(), TestCaseError> {
    let dice = Dice::new(seed);
    let world = populate(&dice);
    let user = [None, Some("u1")][dice.below(2)];
    // Strangers are shown no users, so they cannot sort by them.
    let open = |sort: &&&str| user.is_some() || !sort.contains("author.");
    for sort in SORTS.iter().filter(open) {
        let per_page = dice.below(3) + 1;
        let forward = by_cursor(&world, user, sort, per_page, Direction::Forward);
        let mut sorted = forward.clone();
        sorted.sort();
        prop_assert_eq!(&sorted, &["p1", "p2", "p3", "p4", "p5"], "{}", sort);
        let mut backward = by_cursor(&world, user, sort, per_page, Direction::Backward);
        backward.reverse();
        prop_assert_eq!(&backward, &forward, "{}", sort);
        // By number of page, in the same order as far as the keys decide.
        let class = world.class(user);
        let lens = Lens::new(&world.schema, &class);
        let query = ListQuery::parse([("sort", *sort), ("fields", "id")]).unwrap();
        let plan = plan::list(lens, world.collection("posts"), None, &query, Position::Offset).unwrap();
        let mut paged = Vec::new();
        for page in 0..5 {
            let arguments = [Stored::Integer(1), Stored::Integer(page)];
            paged.extend(ids(&world.run(&plan.page, &world.request(user), &arguments), 0));
        }
        paged.sort();
        prop_assert_eq!(&paged, &sorted, "{}", sort);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: super::cases(10), max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_record_is_on_exactly_one_page(seed in any::<u64>()) {
        check(seed)?;
    }
}

/// Hides nothing: a cursor goes through its text and back, and that is all that matters here.
struct Open;

impl CursorSealer for Open {
    fn seal(&self, _: &[u8], plain: &[u8]) -> Vec<u8> {
        plain.to_vec()
    }

    fn open(&self, _: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        Some(sealed.to_vec())
    }
}

/// Walks by cursors in their text form, as the service does: what the cursor cut off is read from the record.
fn by_text(world: &World, sort: &str, per_page: usize) -> Vec<String> {
    let lens = Lens::new(&world.schema, &CallerClass::Superuser);
    let posts = world.collection("posts");
    let query = ListQuery::parse([("sort", sort), ("fields", "id")]).unwrap();
    let binding = CursorBinding { tenant: "t", collection: "c", filter: "", search: "", sort };
    let request = world.request(None);
    let (mut out, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let (mut arguments, mut position) = (vec![Stored::Integer(per_page as i64)], Position::First);
        let held = cursor.map(|text| Cursor::decode(text.as_bytes(), &Open, &binding).unwrap());
        if let Some(held) = &held {
            position = Position::From(held.direction);
            arguments.extend(held.keys.iter().cloned());
        }
        let plan = plan::list(lens, posts, None, &query, position).unwrap();
        if let Some(held) = held.filter(|held| !held.cut.is_empty()) {
            let whole = world.run(plan.seek.as_ref().unwrap(), &request, &arguments).remove(0);
            for (at, key) in held.keys.iter().enumerate() {
                let starts =
                    whole[at].as_text().is_some_and(|text| text.starts_with(key.as_text().unwrap_or_default()));
                assert!(if held.cut.contains(&at) { starts } else { whole[at] == *key }, "{sort}");
            }
            arguments.splice(1.., whole);
        }
        let rows = world.run(&plan.page, &request, &arguments);
        let Some(last) = rows.last() else { return out };
        out.extend(ids(&rows, 0));
        assert!(out.len() < 100, "paging does not end: {sort}");
        let keys = plan.keys.iter().map(|at| last[*at].clone()).collect();
        let text = Cursor::new(Direction::Forward, keys).encode(&Open, &binding);
        assert!(text.len() <= limits::CURSOR_TEXT_BYTES_MAX, "{sort}: {}", text.len());
        cursor = Some(text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: super::cases(10), max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn long_keys_lose_and_repeat_nothing(seed in any::<u64>()) {
        let dice = Dice::new(seed);
        let mut world = World::new();
        let mut expected = Vec::new();
        for at in 0..12 {
            // Many beginnings that are alike for longer than a cursor remembers, in letters of one to four bytes.
            let text = || {
                let letter = dice.pick(&["a", "\u{e4}", "\u{20ac}", "\u{1f600}"]);
                format!("{}{}", letter.repeat([1, 130, 600, 700][dice.below(4)]), dice.pick(&["", "x", "y"]))
            };
            let meta = json!({"a": text()});
            world.add("posts", &format!("p{at}"), json!({"title": text(), "body": text(), "meta": meta, "views": dice.below(3) as f64}));
            expected.push(format!("p{at}"));
        }
        expected.sort();
        for sort in ["title", "-title", "views,-body", "-body,title,meta", "meta.a", "title:lower,-views", "body,id,title"] {
            let walked = by_text(&world, sort, dice.below(3) + 1);
            prop_assert_eq!(&by_text(&world, sort, 50), &walked, "{}", sort);
            let mut sorted = walked;
            sorted.sort();
            prop_assert_eq!(&sorted, &expected, "{}", sort);
        }
    }
}

#[test]
fn many_values_cannot_order_and_unknown_fields_are_refused() {
    let world = World::new();
    let class = world.class(None);
    let lens = Lens::new(&world.schema, &class);
    for sort in ["comments_via_post.score", "editors.name", "tags:each", "internal", "nothing", "author.password"] {
        let query = ListQuery::parse([("sort", sort)]).unwrap();
        assert!(plan::list(lens, world.collection("posts"), None, &query, Position::Offset).is_err(), "{sort}");
    }
    let query = ListQuery::parse([("sort", "@random")]).unwrap();
    assert!(plan::list(lens, world.collection("posts"), None, &query, Position::Offset).is_ok());
    assert!(plan::list(lens, world.collection("posts"), None, &query, Position::First).is_err());
}

#[test]
fn totals_and_groups_follow_rule_and_filter() {
    let mut world = World::new();
    for (id, status, views) in [("p1", "live", 5.0), ("p2", "live", 7.0), ("p3", "draft", 1.0), ("p4", "", 9.0)] {
        world.add("posts", id, json!({"status": status, "views": views, "author": "u1", "salary": 100.0}));
    }
    let class = world.class(None);
    let lens = Lens::new(&world.schema, &class);
    let posts = world.collection("posts");
    let rule = lens.rule(posts, "views < 9").unwrap();
    let run = |parameters: &[(&str, &str)]| {
        let query = ListQuery::parse(parameters.iter().copied()).unwrap();
        let plan = aggregate::aggregate(lens, posts, Some(&rule), &query).unwrap();
        let names: Vec<String> = plan.columns.iter().map(|column| column.name.to_string()).collect();
        (names, world.run(&plan.statement, &world.request(None), &[Stored::Integer(100), Stored::Integer(0)]))
    };
    let (names, rows) =
        run(&[("aggregate", "count,sum(views),avg(views),min(title),max(views),count(status)"), ("group", "status")]);
    assert_eq!(names, ["status", "count", "sum(views)", "avg(views)", "min(title)", "max(views)", "count(status)"]);
    let live = [
        Stored::text("live"),
        Stored::Integer(2),
        Stored::Real(12.0),
        Stored::Real(6.0),
        Stored::text(""),
        Stored::Real(7.0),
        Stored::Integer(2),
    ];
    assert_eq!(
        rows,
        [
            vec![
                Stored::text("draft"),
                Stored::Integer(1),
                Stored::Real(1.0),
                Stored::Real(1.0),
                Stored::text(""),
                Stored::Real(1.0),
                Stored::Integer(1)
            ],
            live.to_vec(),
        ]
    );
    let (_, rows) = run(&[("aggregate", "count"), ("filter", "status = 'live'")]);
    assert_eq!(rows, [vec![Stored::Integer(2)]]);
    // A guarded number counts only where the caller may read it.
    let (_, rows) = run(&[("aggregate", "sum(salary),count(salary)")]);
    assert_eq!(rows, [vec![Stored::Real(0.0), Stored::Integer(0)]]);
    let query = ListQuery::parse([("aggregate", "sum(title)")]).unwrap();
    assert!(aggregate::aggregate(lens, posts, None, &query).is_err());
}

#[test]
fn searches_find_words_in_readable_columns_only() {
    let mut world = World::new();
    world.add("users", "u1", json!({"name": "Ada"}));
    world.add("posts", "p1", json!({"title": "Quick brown fox", "notes": "treasure", "author": "u1"}));
    world.add("posts", "p2", json!({"title": "Lazy dog and fox", "notes": "nothing"}));
    let posts = world.collection("posts");
    let found = |user: Option<&str>, search: &str| {
        let class = world.class(user);
        let query = ListQuery::parse([("search", search), ("fields", "id")]).unwrap();
        let plan = plan::list(Lens::new(&world.schema, &class), posts, None, &query, Position::Offset).unwrap();
        let rows = world.run(&plan.page, &world.request(user), &[Stored::Integer(30), Stored::Integer(0)]);
        let total = world.run(&plan.count, &world.request(user), &[]);
        assert_eq!(total, [vec![Stored::Integer(rows.len() as i64)]]);
        let mut ids = ids(&rows, 0);
        ids.sort();
        ids.join(" ")
    };
    assert_eq!(found(None, "fox"), "p1 p2");
    assert_eq!(found(None, "fo qui"), "p1");
    assert_eq!(found(None, "\"fox\" OR dog) *"), "");
    assert_eq!(found(None, "dog - fox"), "p2");
    assert_eq!(found(None, "*"), "");
    // Even its owner cannot search a guarded column: what others may not read is not searched for anyone.
    assert_eq!(found(Some("u1"), "treasure"), "");
}
