//! SQL ≡ evaluator: over generated rows and expressions, as rules and as client filters, for several callers.

use crate::query::world::World;
use proptest::prelude::*;
use serde_json::{Value, json};
use tenantry::kernel::random::{SeededRandom, below};
use tenantry::query::request::{CallerClass, RequestContext};
use tenantry::query::resolve::Lens;

pub(crate) struct Dice(SeededRandom);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SeededRandom::new(seed))
    }

    pub(crate) fn below(&self, bound: usize) -> usize {
        below(&self.0, bound as u64) as usize
    }

    pub(crate) fn pick<'v, T: ?Sized>(&self, values: &[&'v T]) -> &'v T {
        values[self.below(values.len())]
    }

    pub(crate) fn some_of(&self, values: &[&str]) -> Vec<String> {
        values.iter().filter(|_| self.below(2) == 0).map(|value| (*value).to_owned()).collect()
    }
}

const TEXTS: &[&str] =
    &["", "a", "A", "ab", "5", "5.0", "10", "ä", "Ä%", "a_b", "100%", "\\", "a\\%", "it's", "x\"y", "日本"];
const NUMBERS: &[f64] = &[0.0, 1.0, -1.0, 5.0, 2.5, 10.0, 1e6];
const DATES: &[&str] = &["", "2024-02-29 13:07:05.250Z", "2023-01-01 00:00:00.000Z", "2025-06-15 10:00:00.000Z"];
const USERS: &[&str] = &["u1", "u2", "u3"];
const ORGS: &[&str] = &["o1", "o2"];
const POSTS: &[&str] = &["p1", "p2", "p3", "p4", "p5"];

fn any_json(dice: &Dice) -> Value {
    let text = dice.pick(TEXTS);
    let number = NUMBERS[dice.below(NUMBERS.len())];
    match dice.below(9) {
        0 => Value::Null,
        1 => json!(text),
        2 => json!(number),
        3 => json!({"a": text, "b": [1, "x", null], "list": [text, number]}),
        4 => json!({"a": number, "b": ["5", true]}),
        5 => json!({"a": null, "b": {"0": "zero"}}),
        6 => json!([text, {"a": 1}]),
        7 => json!({"a": true}),
        _ => json!({"a": {"deep": text}, "b": []}),
    }
}

fn maybe<'v>(dice: &Dice, values: &[&'v str]) -> &'v str {
    if dice.below(4) == 0 { "" } else { dice.pick(values) }
}

/// A world with a handful of records in every collection; a few relations point at nothing.
pub(crate) fn populate(dice: &Dice) -> World {
    let mut world = World::new();
    let number = || NUMBERS[dice.below(NUMBERS.len())];
    for id in ORGS {
        world.add("orgs", id, json!({"name": dice.pick(TEXTS), "rank": number(), "open": dice.below(2) == 0}));
    }
    for id in USERS {
        // The first user manages nobody, so that what it may not read is known (see `oracle`).
        let role = if *id == "u1" { "member" } else { dice.pick(&["admin", "member", ""]) };
        world.add(
            "users",
            id,
            json!({"name": dice.pick(TEXTS), "role": role, "secret": dice.pick(TEXTS),
                   "prefs": any_json(dice), "skills": dice.some_of(&["a", "b", "c"]), "org": maybe(dice, ORGS),
                   "email": format!("{id}@example.com"), "emailVisibility": dice.below(2) == 0}),
        );
    }
    for at in 0..4 {
        world.add(
            "members",
            &format!("m{at}"),
            json!({"org": maybe(dice, ORGS), "user": maybe(dice, USERS), "role": dice.pick(TEXTS)}),
        );
    }
    for id in POSTS {
        world.add(
            "posts",
            id,
            json!({"title": dice.pick(TEXTS), "body": dice.pick(TEXTS), "status": dice.pick(&["draft", "live", ""]),
                   "views": number(), "done": dice.below(2) == 0, "tags": dice.some_of(&["a", "b", "c"]),
                   "author": maybe(dice, &["u1", "u2", "u3", "gone"]), "editors": dice.some_of(&["u1", "u2", "gone"]),
                   "org": maybe(dice, ORGS), "meta": any_json(dice), "place": {"lon": number(), "lat": number()},
                   "published": dice.pick(DATES), "salary": number(), "internal": dice.pick(TEXTS)}),
        );
    }
    for at in 0..6 {
        world.add(
            "comments",
            &format!("k{at}"),
            json!({"post": maybe(dice, POSTS), "text": dice.pick(TEXTS), "score": number(),
                   "likes": dice.some_of(USERS)}),
        );
    }
    world
}

const CLIENT_PATHS: &[&str] = &[
    "id",
    "title",
    "title:lower",
    "body",
    "status",
    "views",
    "done",
    "tags",
    "tags:each",
    "tags:length",
    "author",
    "author.id",
    "author.name",
    "author.role",
    "author.email",
    "author.org.name",
    "author.org.rank",
    "author.prefs.a",
    "author.skills:each",
    "editors",
    "editors.id",
    "editors.name",
    "editors.role",
    "editors.org.rank",
    "editors.skills:each",
    "editors.prefs.a",
    "editors.email",
    "editors:length",
    "org.name",
    "org.open",
    "org.rank",
    "org.members_via_org.role",
    "org.members_via_org.user.name",
    "org.posts_via_org.views",
    "meta",
    "meta.a",
    "meta.b.0",
    "meta.b.2",
    "meta.list.1",
    "meta.0",
    "meta.a.deep",
    "meta.a:lower",
    "place.lon",
    "place",
    "published",
    "salary",
    "comments_via_post.text",
    "comments_via_post.score",
    "comments_via_post.likes.name",
    "comments_via_post.likes:length",
    "comments_via_post.likes:each",
    "comments_via_post.id",
    "collectionName",
    "author.members_via_user.org.rank",
    "author.posts_via_editors.title",
    "geoDistance(place.lon, place.lat, 1, 2)",
    "strftime('%Y', published)",
    "strftime('%Y', meta.a)",
    "@now",
    "@year",
    "@todayStart",
];

/// What leads from a post to records of `users`.
const HOPS_TO_USERS: &[&str] = &["author.", "editors.", "likes.", "user."];

const RULE_PATHS: &[&str] = &[
    "author.secret",
    "internal",
    "@request.auth.id",
    "@request.auth.role",
    "@request.auth.name",
    "@request.auth.prefs.a",
    "@request.auth.prefs.a:lower",
    "@request.auth.org.name",
    "@request.auth.org.members_via_org.role",
    "@request.auth.members_via_user.org.rank",
    "@request.auth.skills:each",
    "@request.auth.skills",
    "@request.auth.skills:length",
    "@request.auth.collectionName",
    "@request.body.title",
    "@request.body.title:isset",
    "@request.body.title:changed",
    "@request.body.tags:changed",
    "@request.body.views",
    "@request.body.tags:each",
    "@request.body.tags:length",
    "@request.body.author.name",
    "@request.body.editors.name",
    "@request.body.meta.a",
    "@request.body.nothing",
    "@request.query.q",
    "@request.query.q:isset",
    "@request.headers.x_h:lower",
    "@request.method",
    "@request.context",
    "@collection.orgs.name",
    "@collection.orgs:b.rank",
    "@collection.members.user",
    "@collection.members.org.rank",
    "@collection.users.skills:each",
];

const OPERATORS: &[&str] =
    &["=", "!=", ">", ">=", "<", "<=", "~", "!~", "?=", "?!=", "?>", "?>=", "?<", "?<=", "?~", "?!~"];

fn quoted(text: &str) -> Option<String> {
    // A text that ends in a backslash cannot be written in this language.
    (!text.ends_with('\\')).then(|| format!("'{}'", text.replace('\'', "\\'")))
}

fn any_operand(dice: &Dice, rules: bool) -> String {
    match dice.below(10) {
        0 | 1 => quoted(dice.pick(TEXTS)).unwrap_or_else(|| "''".to_owned()),
        2 => NUMBERS[dice.below(NUMBERS.len())].to_string(),
        3 => dice.pick(&["null", "true", "false", "'u1'", "'live'", "'2024'", "'a'"]).to_owned(),
        4 | 5 if rules => dice.pick(RULE_PATHS).to_owned(),
        _ => dice.pick(CLIENT_PATHS).to_owned(),
    }
}

pub(crate) fn any_expression(dice: &Dice, rules: bool, depth: usize) -> String {
    if depth > 0 && dice.below(3) > 0 {
        let joiner = dice.pick(&[" && ", " || "]);
        let parts: Vec<String> = (0..dice.below(2) + 2).map(|_| any_expression(dice, rules, depth - 1)).collect();
        return format!("({})", parts.join(joiner));
    }
    let left = if dice.below(5) > 0 { dice.pick(CLIENT_PATHS).to_owned() } else { any_operand(dice, rules) };
    format!("{left} {} {}", dice.pick(OPERATORS), any_operand(dice, rules))
}

fn any_request(dice: &Dice, world: &World, user: Option<&str>) -> RequestContext {
    let mut request = world.request(user);
    if dice.below(2) == 0 {
        request.query.insert("q".to_owned(), dice.pick(TEXTS).to_owned());
    }
    request.headers.insert("x_h".to_owned(), dice.pick(TEXTS).to_owned());
    let body = json!({"title": dice.pick(TEXTS), "views": dice.pick(TEXTS), "tags": dice.some_of(&["a", "b"]),
                      "author": dice.pick(USERS), "editors": dice.some_of(USERS), "meta": any_json(dice)});
    for (name, value) in body.as_object().unwrap() {
        if dice.below(3) > 0 {
            request.body.insert(name.clone(), value.clone());
        }
    }
    if dice.below(4) == 0 {
        request.body.insert("tags".to_owned(), json!("a"));
    }
    request
}

fn check(seed: u64) -> Result<(), TestCaseError> {
    let dice = Dice::new(seed);
    let world = populate(&dice);
    let posts = world.collection("posts").clone();
    for _ in 0..40 {
        let user = [None, Some("u1"), Some("u2")][dice.below(3)];
        let request = any_request(&dice, &world, user);
        let rules = dice.below(2) == 0;
        let class = if !rules && dice.below(5) == 0 { CallerClass::Superuser } else { world.class(user) };
        let source = any_expression(&dice, rules || class == CallerClass::Superuser, 2);
        let lens = Lens::new(&world.schema, &class);
        let resolved = if rules { lens.rule(&posts, &source) } else { lens.filter(&posts, &source) };
        let predicate = match resolved {
            Ok(predicate) => predicate,
            // More relations than a statement may join.
            Err(error) if error.to_string().contains("more than") => continue,
            // Strangers are shown no users, so they cannot ask about them.
            Err(error) if class == CallerClass::Anonymous && !rules && error.to_string().contains("unknown field") => {
                prop_assert!(HOPS_TO_USERS.iter().any(|hop| source.contains(hop)), "{}: {}", source, error);
                continue;
            }
            Err(error) => return Err(TestCaseError::fail(format!("{source}: {error}"))),
        };
        let (by_sql, by_eval) = (world.by_sql(&predicate, &request), world.by_eval(&predicate, &request));
        let sql = tenantry::query::plan::matching_ids(lens, &predicate);
        prop_assert_eq!(by_sql, by_eval, "{} for {:?}\n{:?}", source, user, sql);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: super::cases(24), max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn sql_and_evaluator_agree(seed in any::<u64>()) {
        check(seed)?;
    }
}
