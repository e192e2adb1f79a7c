//! The text of statements and how SQLite runs them: simple questions are served from the named indexes.

use crate::query::world::World;
use serde_json::json;
use tenantry::kernel::value::Stored;
use tenantry::query::list::ListQuery;
use tenantry::query::page::Direction;
use tenantry::query::plan::{self, ListPlan, Position};
use tenantry::query::request::CallerClass;
use tenantry::query::resolve::Lens;
use tenantry::query::select::{ExpandTree, Selection};
use tenantry::query::statement::Statement;

fn world() -> World {
    let mut world = World::new();
    for at in 0..400 {
        let status = if at % 20 == 0 { "live" } else { "draft" };
        world.add(
            "posts",
            &format!("p{at}"),
            json!({"title": format!("title {at}"), "status": status, "views": f64::from(at % 50), "org": format!("o{}", at % 40),
                   "published": format!("2024-01-01 00:{:02}:{:02}.000Z", at / 60, at % 60)}),
        );
        world.add("comments", &format!("k{at}"), json!({"post": format!("p{}", at % 100), "score": 1.0}));
    }
    world.file.execute_batch("ANALYZE").unwrap();
    world
}

#[track_caller]
fn list(world: &World, parameters: &[(&str, &str)], position: Position) -> ListPlan {
    let lens = Lens::new(&world.schema, &CallerClass::Anonymous);
    let query = ListQuery::parse(parameters.iter().copied()).unwrap();
    plan::list(lens, world.collection("posts"), None, &query, position).unwrap()
}

/// What EXPLAIN QUERY PLAN says, one line per step.
#[track_caller]
fn steps(world: &World, statement: &Statement) -> String {
    let explained =
        Statement { sql: format!("EXPLAIN QUERY PLAN {}", statement.sql).into(), binds: statement.binds.clone() };
    let arguments = [Stored::Integer(20), Stored::Integer(0), Stored::text("x"), Stored::text("y")];
    let rows = world.run(&explained, &world.request(None), &arguments);
    rows.iter().map(|row| row[3].as_text().unwrap().to_owned()).collect::<Vec<_>>().join("\n")
}

#[test]
fn simple_filters_render_plainly() {
    let world = World::new();
    let posts = world.collection("posts");
    let column = |name: &str| format!("t0.{}", posts.find_field(name).unwrap().column());
    for (filter, expected) in [
        ("status = 'live'", format!("WHERE {} = ?", column("status"))),
        ("views > 5 && done = true", format!("WHERE ({} > ? AND {} = ?)", column("views"), column("done"))),
        ("status != 'live' || title = ''", format!("WHERE ({} != ? OR {} = ?)", column("status"), column("title"))),
        ("author = 'u1'", format!("WHERE {} = ?", column("author"))),
        ("author.id = 'u1'", format!("WHERE {} = ?", column("author"))),
        ("title ~ 'a'", format!("WHERE {} LIKE ? ESCAPE '\\'", column("title"))),
    ] {
        let plan = list(&world, &[("filter", filter)], Position::Offset);
        assert!(plan.count.sql.ends_with(&expected), "{filter}: {}", plan.count.sql);
    }
}

#[test]
fn named_indexes_serve_filters_sorts_and_pages() {
    let world = world();
    for (parameters, position, index) in [
        (&[("filter", "status = 'live'")][..], Position::Offset, "idx_posts_status"),
        (&[("filter", "org = 'o1' && status = 'live'")], Position::Offset, "idx_posts_org_status"),
        (&[("sort", "-views")], Position::Offset, "idx_posts_views"),
        (&[("sort", "-published")], Position::Offset, "idx_posts_published"),
        (&[("sort", "published")], Position::First, "idx_posts_published"),
        (&[("sort", "-published")], Position::From(Direction::Forward), "idx_posts_published"),
        (&[("sort", "-published")], Position::From(Direction::Backward), "idx_posts_published"),
    ] {
        let plan = list(&world, parameters, position);
        let steps = steps(&world, &plan.page);
        assert!(steps.contains(index), "{parameters:?} {position:?}:\n{steps}\n{}", plan.page.sql);
        if position == Position::Offset && parameters[0].0 == "sort" {
            assert!(!steps.contains("TEMP B-TREE"), "{parameters:?}:\n{steps}\n{}", plan.page.sql);
        }
    }
    // Seeks to the cursor instead of walking to it.
    let deep = list(&world, &[("sort", "-published")], Position::From(Direction::Forward));
    assert!(steps(&world, &deep.page).contains("SEARCH t0 USING INDEX"), "{}", steps(&world, &deep.page));
}

#[test]
fn relations_are_followed_by_index() {
    let world = world();
    for (filter, wanted) in [
        ("author.name = 'x'", "USING INDEX sqlite_autoindex"),
        ("editors.name ?= 'x'", "USING INDEX sqlite_autoindex"),
        ("comments_via_post.score > 0", "idx_comments_post"),
        ("comments_via_post.score ?> 0", "idx_comments_post"),
    ] {
        let lens = Lens::new(&world.schema, &CallerClass::Superuser);
        let predicate = lens.filter(world.collection("posts"), filter).unwrap();
        let steps = steps(&world, &plan::matching_ids(lens, &predicate));
        assert!(steps.contains(wanted), "{filter}:\n{steps}");
    }
}

#[test]
fn records_are_read_by_id_and_embedded_in_one_query_per_relation() {
    let world = world();
    let lens = Lens::new(&world.schema, &CallerClass::Superuser);
    let posts = world.collection("posts");
    let tree = ExpandTree::parse("author.org,comments_via_post,editors,nothing").unwrap();
    let get = plan::get(lens, posts, None, &Selection::everything(), &tree);
    assert!(steps(&world, &get.statement).contains("SEARCH t0 USING INDEX sqlite_autoindex"));
    assert!(!get.statement.sql.contains('*'));
    let names: Vec<&str> = get.expand.iter().map(|expand| &*expand.name).collect();
    assert_eq!(names, ["author", "comments_via_post", "editors"]);
    assert_eq!(get.expand[0].children[0].name, "org".into());
    for (at, index) in [(0, "sqlite_autoindex"), (1, "idx_comments_post"), (2, "sqlite_autoindex")] {
        let steps = steps(&world, &get.expand[at].statement);
        assert!(steps.contains(index), "{steps}");
    }
    let rows = world.run(&get.expand[1].statement, &world.request(None), &[Stored::text("[\"p1\",\"p2\"]")]);
    assert_eq!(rows.len(), 8);
}

#[test]
fn plans_are_shared_by_callers_whom_the_rule_does_not_tell_apart() {
    let mut world = World::new();
    for id in ["u1", "u2"] {
        world.add("users", id, json!({"role": "admin"}));
    }
    let class = world.class(Some("u1"));
    let lens = Lens::new(&world.schema, &class);
    let posts = world.collection("posts");
    let key = |rule: &str, user: &str, fields: &str| {
        let predicate = lens.rule(posts, rule).unwrap();
        let query = ListQuery::parse([("fields", fields)]).unwrap();
        let plan = plan::list(lens, posts, Some(&predicate), &query, Position::Offset).unwrap();
        (plan.cache_key(&world.request(Some(user)), &[Stored::Integer(30), Stored::Integer(0)]), plan.facts)
    };
    let (open_one, facts) = key("@request.auth.id != ''", "u1", "title");
    assert_eq!(open_one, key("@request.auth.id != ''", "u2", "title").0);
    assert!(facts.reads.is_empty() && !facts.reads_time, "{facts:?}");
    let role = "status = @request.auth.role && org.rank > 1 && published < @now";
    let (by_role, facts) = key(role, "u1", "title");
    assert_eq!(by_role, key(role, "u2", "title").0);
    assert_eq!((facts.reads.len(), facts.touched.len(), facts.reads_time), (1, 2, true));
    assert_ne!(key("author = @request.auth.id", "u1", "title").0, key("author = @request.auth.id", "u2", "title").0);
    // A guarded column makes the answer the caller's own.
    assert_ne!(key("", "u1", "salary").0, key("", "u2", "salary").0);
}

#[test]
fn questions_that_would_grow_without_bound_stay_small_or_are_refused() {
    let world = World::new();
    let lens = Lens::new(&world.schema, &CallerClass::Superuser);
    let posts = world.collection("posts");
    // A chain of rows, each compared with the next: quantifiers nest as deep as there are rows.
    let chain: Vec<String> =
        (0..20).map(|at| format!("@collection.comments:a{at}.text ?= @collection.comments:a{}.text", at + 1)).collect();
    let predicate = lens.filter(posts, &chain.join(" && ")).unwrap();
    let statement = plan::matching_ids(lens, &predicate);
    assert!(statement.sql.len() < 20_000, "{}", statement.sql.len());
    world.run(&statement, &world.request(None), &[]);
    // More rows than a statement may join.
    let wide: Vec<String> = (0..40).map(|at| format!("@collection.comments:a{at}.text ?= 'x'")).collect();
    assert!(lens.filter(posts, &wide.join(" && ")).is_err());
    // A guard of many comparisons, read many times.
    let mut collections = crate::query::world::collections();
    let guard = vec!["author = @request.auth.id"; 150].join(" || ");
    collections[3]["fields"][12]["readRule"] = json!(guard);
    let world = World::with(collections);
    let class = world.class(None);
    let lens = Lens::new(&world.schema, &class);
    let filter = vec!["salary>1"; 200].join("&&");
    let query = ListQuery::parse([("filter", filter.as_str())]).unwrap();
    let refused = plan::list(lens, world.collection("posts"), None, &query, Position::Offset);
    assert!(refused.is_err_and(|error| error.to_string().contains("more than")));
}
