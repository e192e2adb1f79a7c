//! Rules end to end: decisions, checks of one record, explanations, the linter, the stranger's report.

use crate::query::world::World;
use serde_json::{Value, json};
use std::sync::Arc;
use tenantry::access::explain::explain;
use tenantry::access::lint::{Reach, Severity, lint, what_a_stranger_reads};
use tenantry::access::{Action, Decision, Principal, Rule, RuleBook, decide};
use tenantry::kernel::value::Stored;
use tenantry::query::plan;
use tenantry::query::resolve::Lens;

fn world() -> World {
    let mut world = World::new();
    world
        .add("users", "ada", json!({"name": "Ada", "role": "admin"}))
        .add("users", "bob", json!({"name": "Bob", "role": "member"}))
        .add("posts", "p1", json!({"title": "One", "author": "ada"}))
        .add("posts", "p2", json!({"title": "Two", "author": "bob"}));
    world
}

fn principal(world: &World, user: Option<&str>) -> Principal {
    world.request(user).auth.map_or(Principal::Anonymous, Principal::Record)
}

#[test]
fn what_needs_no_record_is_decided_at_once() {
    let world = world();
    let rule = "@request.auth.role = 'admin' || author = @request.auth.id && @request.auth.id != ''";
    for (text, user, expected) in [
        (None, Some("ada"), "deny"),
        (Some(""), None, "allow"),
        (Some(rule), Some("ada"), "allow"),
        (Some(rule), Some("bob"), "narrow"),
        (Some(rule), None, "deny"),
        (Some("@request.auth.id != ''"), None, "deny"),
        (Some("@request.auth.id != ''"), Some("bob"), "allow"),
        (Some("@request.method = 'POST'"), None, "deny"),
        (Some("nothing = 1"), Some("ada"), "deny"),
        (Some("@request.auth.verified = false && title != ''"), Some("bob"), "narrow"),
    ] {
        let class = world.class(user);
        let compiled = Rule::compile(Lens::new(&world.schema, &class), world.collection("posts"), text);
        let found = match decide(&compiled, &principal(&world, user), &world.request(user)) {
            Decision::Allow => "allow",
            Decision::Deny => "deny",
            Decision::Narrow(_) => "narrow",
        };
        assert_eq!(found, expected, "{text:?} for {user:?}");
    }
    let locked = decide(&Rule::Locked, &Principal::System, &world.request(None));
    assert_eq!(locked, Decision::Allow);
}

#[test]
fn a_rule_is_checked_for_one_record() {
    let world = world();
    let class = world.class(Some("bob"));
    let lens = Lens::new(&world.schema, &class);
    let rule = lens.rule(world.collection("posts"), "author = @request.auth.id && author.name ~ 'b'").unwrap();
    let check = plan::check(lens, &rule);
    let request = world.request(Some("bob"));
    assert_eq!(world.run(&check, &request, &[Stored::text("p2")]).len(), 1);
    assert_eq!(world.run(&check, &request, &[Stored::text("p1")]).len(), 0);
}

#[test]
fn the_book_compiles_each_rule_once_per_class() {
    let world = world();
    let book = RuleBook::new(world.schema.clone());
    let users = &world.collection("users").id;
    let class = world.class(Some("ada"));
    let first = book.find(users, &class).unwrap() as *const _;
    assert!(std::ptr::eq(first, book.find(users, &class).unwrap()));
    assert_eq!(
        book.decide(users, Action::List, &principal(&world, Some("ada")), &world.request(Some("ada"))),
        Decision::Allow
    );
    assert_eq!(book.decide(users, Action::List, &Principal::Anonymous, &world.request(None)), Decision::Deny);
    assert_eq!(book.decide(users, Action::Update, &Principal::Anonymous, &world.request(None)), Decision::Deny);
}

#[test]
fn an_explanation_shows_both_values() {
    let mut collections = crate::query::world::collections();
    collections[3]["updateRule"] = json!("title != '' && author = @request.auth.id");
    let mut world = World::with(collections);
    world.add("users", "ada", json!({})).add("users", "bob", json!({}));
    world.add("posts", "p1", json!({"title": "One", "author": "ada"}));
    let posts = world.collection("posts").clone();
    let record = world.record("posts", "p1");
    let ask = |user: &str| {
        let who = principal(&world, Some(user));
        explain(&world.schema, &posts, Action::Update, &who, &world.request(Some(user)), &record, &world)
    };
    let no = ask("bob");
    assert!(!no.allowed);
    let told: Vec<_> =
        no.comparisons.iter().map(|one| (one.source.as_str(), &one.left, &one.right, one.outcome)).collect();
    assert_eq!(
        told,
        [
            ("title != ''", &Stored::text("One"), &Stored::text(""), true),
            ("author = @request.auth.id", &Stored::text("ada"), &Stored::text("bob"), false),
        ]
    );
    assert!(ask("ada").allowed);
}

fn linted(rules: Value) -> Vec<(Severity, String)> {
    let mut collections = crate::query::world::collections();
    for (name, rule) in rules.as_object().unwrap() {
        collections[3][name] = rule.clone();
    }
    let world = World::with(collections);
    let posts = |finding: &tenantry::access::lint::Finding| finding.collection.as_str() == "posts";
    lint(&world.schema).into_iter().filter(posts).map(|finding| (finding.severity, finding.rule)).collect()
}

#[test]
fn the_linter_finds_rules_that_are_open_by_mistake() {
    let quiet = json!({"listRule": "@request.auth.id != ''", "viewRule": "@request.auth.id != ''"});
    assert_eq!(linted(quiet), []);
    for (name, rule, severity) in [
        ("updateRule", "", Severity::Warning),
        ("deleteRule", "1 = 1", Severity::Warning),
        ("createRule", "@request.auth.id = ''", Severity::Warning),
        ("updateRule", "author = @request.auth.id", Severity::Warning),
        // A login is asked for, but not where the field is compared.
        ("updateRule", "title = 'x' && @request.auth.id != '' || author = @request.auth.id", Severity::Warning),
        ("updateRule", "author = @request.auth.id && (@request.auth.id != '' || title = 'x')", Severity::Warning),
        ("updateRule", "title = @request.auth.name", Severity::Warning),
        ("updateRule", "@collection.users.name ?= @request.auth.name", Severity::Warning),
        ("updateRule", "1 = 2", Severity::Warning),
        ("createRule", "@request.auth.id != '' && @request.body.title:changed = false", Severity::Warning),
    ] {
        let mut rules = json!({"listRule": "@request.auth.id != ''", "viewRule": "@request.auth.id != ''"});
        rules[name] = json!(rule);
        assert_eq!(linted(rules), [(severity, name.to_owned())], "{name} {rule}");
    }
    for rule in [
        "author = @request.auth.id && @request.auth.id != ''",
        "@request.auth.role = 'admin' || author = @request.auth.id && @request.auth.id != ''",
        "(title = 'x' || author = @request.auth.id) && @request.auth.verified = true",
        "id = @request.auth.id",
    ] {
        let updates = format!("({rule}) && @request.body.title:changed = false");
        let rules = json!({"listRule": rule, "viewRule": rule, "updateRule": updates});
        assert_eq!(linted(rules), [], "{rule}");
    }
    let open_list = json!({"listRule": "", "viewRule": "@request.auth.id != ''"});
    assert!(linted(open_list).contains(&(Severity::Warning, "listRule".to_owned())));
}

#[test]
fn a_broken_rule_is_an_error_and_closed() {
    let world = World::new();
    let mut posts = (**world.collection("posts")).clone();
    posts.rules.update = Some(Arc::from("gone = 1"));
    let schema = tenantry::schema::Schema::new(2, vec![Arc::new(posts)]);
    let findings = lint(&schema);
    assert_eq!((findings[0].severity, findings[0].rule.as_str()), (Severity::Error, "updateRule"));
}

#[test]
fn the_report_says_what_a_stranger_reads() {
    let world = World::new();
    let reports = what_a_stranger_reads(&world.schema);
    let of = |name: &str| reports.iter().find(|report| report.collection.as_str() == name);
    let posts = of("posts").unwrap();
    assert_eq!((posts.list, posts.view), (Reach::Everything, Reach::Everything));
    assert!(posts.fields.contains(&"title".to_owned()) && !posts.fields.contains(&"internal".to_owned()));
    assert!(!posts.fields.contains(&"salary".to_owned()));
    assert_eq!(of("orgs").map(|report| report.list), Some(Reach::Some));
    assert_eq!(of("users"), None);
}
