//! What expressions mean, as tables: operators, match-all and any-match, empty values, macros, modifiers, refusals.

use crate::query::world::World;
use serde_json::json;
use tenantry::kernel::error::{Code, Fault};
use tenantry::query::error::Problem;
use tenantry::query::eval::{self, Steps};
use tenantry::query::request::CallerClass;
use tenantry::query::resolve::Lens;

fn world() -> World {
    let mut world = World::new();
    world
        .add("orgs", "o1", json!({"name": "Alpha", "rank": 1.0, "open": true}))
        .add("orgs", "o2", json!({"name": "Beta", "rank": 2.0}))
        .add(
            "users",
            "ada",
            json!({"name": "Ada", "role": "admin", "org": "o1", "skills": ["a", "b"], "email": "ada@x.org"}),
        )
        .add(
            "users",
            "bob",
            json!({"name": "Bob", "role": "member", "org": "o2", "email": "bob@x.org", "emailVisibility": true}),
        )
        .add("members", "m1", json!({"org": "o1", "user": "ada", "role": "owner"}))
        .add("members", "m2", json!({"org": "o1", "user": "bob", "role": "viewer"}))
        .add(
            "posts",
            "p1",
            json!({"title": "First", "status": "live", "views": 10.0, "done": true, "tags": ["a", "b"],
            "author": "ada", "editors": ["ada", "bob"], "org": "o1", "meta": {"a": 5, "b": ["x", "y"], "c": "5"},
            "place": {"lon": 13.405, "lat": 52.52}, "published": "2024-02-28 10:00:00.000Z"}),
        )
        .add(
            "posts",
            "p2",
            json!({"title": "second", "status": "draft", "views": 5.0, "tags": ["a"], "author": "bob",
            "editors": ["bob"], "org": "o2", "meta": {"a": null}, "published": "2024-02-29 20:00:00.000Z"}),
        )
        .add("posts", "p3", json!({"title": "50% off_", "author": "gone"}))
        .add("comments", "k1", json!({"post": "p1", "text": "good", "score": 5.0, "likes": ["ada"]}))
        .add("comments", "k2", json!({"post": "p1", "text": "bad", "score": 1.0, "likes": ["ada", "bob"]}))
        .add("comments", "k3", json!({"post": "p2", "text": "good", "score": 5.0}));
    world
}

/// Checks rules over `posts` for `user`; each must find the given posts by SQL and by the evaluator.
#[track_caller]
fn check_rules(user: Option<&str>, table: &[(&str, &str)]) {
    let world = world();
    for (rule, expected) in table {
        assert_eq!(world.rule("posts", rule, user).join(" "), *expected, "{rule}");
    }
}

#[test]
fn operators() {
    check_rules(
        None,
        &[
            ("title = 'First'", "p1"),
            ("title != 'First'", "p2 p3"),
            ("title ~ 'FIRST'", "p1"),
            ("title ~ '50% off\\_'", "p3"),
            ("title ~ '50\\%'", "p3"),
            ("title ~ 'f_'", "p3"),
            ("title ~ 't_'", ""),
            ("title ~ 's%'", "p2"),
            ("title !~ 's'", "p3"),
            ("views > 5", "p1"),
            ("views >= '5'", "p1 p2"),
            ("views < 5", "p3"),
            ("views <= 5", "p2 p3"),
            ("done = true", "p1"),
            ("done != true", "p2 p3"),
            ("title:lower = 'first'", "p1"),
            ("status = ''", "p3"),
            ("status = null", "p3"),
            ("status != null", "p1 p2"),
            ("collectionName = 'posts'", "p1 p2 p3"),
            ("(views = 5 || views = 10) && done = false", "p2"),
            ("1 = 2", ""),
            ("", "p1 p2 p3"),
        ],
    );
}

#[test]
fn without_a_question_mark_every_value_must_match() {
    check_rules(
        None,
        &[
            ("comments_via_post.text = 'good'", "p2"),
            ("comments_via_post.text ?= 'good'", "p1 p2"),
            ("comments_via_post.score >= 1", "p1 p2"),
            ("comments_via_post.score > 1", "p2"),
            ("comments_via_post.score ?< 5", "p1"),
            ("comments_via_post.score ?> 1", "p1 p2"),
            ("comments_via_post.score ?>= 5", "p1 p2"),
            ("comments_via_post.score ?<= 1", "p1"),
            ("comments_via_post.score <= 1", ""),
            ("comments_via_post.text ~ 'o'", "p2"),
            ("comments_via_post.text ?~ 'a'", "p1"),
            ("comments_via_post.text ?!~ 'a'", "p1 p2"),
            ("comments_via_post.text != 'bad'", "p2"),
            ("comments_via_post.text ?!= 'bad'", "p1 p2 p3"),
            ("comments_via_post.text !~ 'a'", "p2"),
            ("editors.name = 'Bob'", "p2"),
            ("editors.name ?= 'Bob'", "p1 p2"),
            ("editors.name != 'Zoe'", "p1 p2"),
            ("tags:each = 'a'", "p2"),
            ("tags:each ?= 'a'", "p1 p2"),
            ("tags ?= 'b'", "p1"),
            ("tags:each != 'c'", "p1 p2"),
            ("comments_via_post.likes.name = 'Ada'", ""),
            ("comments_via_post.likes.name ?= 'Bob'", "p1"),
            ("editors.name = author.name", "p2 p3"),
            ("editors.name ?= author.name", "p1 p2 p3"),
            ("editors.name ?= author.name && author.name != ''", "p1 p2"),
        ],
    );
}

#[test]
fn an_empty_path_acts_as_one_null() {
    check_rules(
        None,
        &[
            ("comments_via_post.text = ''", "p3"),
            ("comments_via_post.text ?= ''", "p3"),
            ("comments_via_post.text = null", "p3"),
            ("tags:each = ''", "p3"),
            ("editors.name = ''", "p3"),
            ("author.name = ''", "p3"),
            ("author.name != ''", "p1 p2"),
            ("author.name != 'Ada'", "p2 p3"),
            ("comments_via_post.score < 100", "p1 p2"),
        ],
    );
}

#[test]
fn any_match_comparisons_share_their_rows() {
    check_rules(
        None,
        &[
            // One comment that is good and has 5 points …
            ("comments_via_post.text ?= 'good' && comments_via_post.score ?= 5", "p1 p2"),
            // … but none that is bad and has 5.
            ("comments_via_post.text ?= 'bad' && comments_via_post.score ?= 5", ""),
            ("comments_via_post.text ?= 'bad' || comments_via_post.score ?= 5", "p1 p2"),
            ("comments_via_post.text ?= 'bad' && views > 5 && comments_via_post.score ?= 1", "p1"),
            ("@collection.comments.text ?= 'bad' && @collection.comments.post ?= id", "p1"),
            ("@collection.comments.text ?= 'bad' && @collection.comments:two.post ?= id", "p1 p2"),
        ],
    );
}

#[test]
fn relations_documents_and_functions() {
    check_rules(
        None,
        &[
            ("author.org.name = 'Alpha'", "p1"),
            ("org.members_via_org.user.name ?= 'Bob'", "p1"),
            ("meta.a = 5", "p1"),
            ("meta.a = '5'", ""),
            ("views > meta.a", "p1"),
            ("meta.b.1 = 'y'", "p1"),
            ("meta.a = null", "p2 p3"),
            ("meta = null", "p3"),
            ("title != meta.c", "p1 p2 p3"),
            ("tags:length = 2", "p1"),
            ("status:length = 1", "p1 p2"),
            ("author:length > 0 && editors:length = 0", "p3"),
            ("comments_via_post.likes:length = 0", "p2 p3"),
            ("author.skills:length = 0", "p2 p3"),
            ("author.skills:length != 0", "p1"),
            ("tags = '[\"a\"]'", "p2"),
            ("tags ~ 'b'", "p1"),
            ("place.lat > 50", "p1"),
            ("geoDistance(place.lon, place.lat, 2.3522, 48.8566) < 900", "p1"),
            ("strftime('%Y-%m', published) = '2024-02'", "p1 p2"),
        ],
    );
}

#[test]
fn macros_read_the_moment_of_the_request() {
    check_rules(
        None,
        &[
            ("published < @now", "p1 p3"),
            ("published > @yesterday", "p2"),
            ("published < @tomorrow && published != ''", "p1 p2"),
            ("published >= @monthStart && published <= @monthEnd", "p1 p2"),
            ("published >= @yearStart && published <= @yearEnd", "p1 p2"),
            ("published < @monthStart || published > @yearEnd", "p3"),
            ("published >= @todayStart && published <= @todayEnd", "p2"),
            ("@year = 2024 && @month = 2 && @day = 29 && @weekday = 4", "p1 p2 p3"),
            ("@hour = 13 && @minute = 7 && @second = 5", "p1 p2 p3"),
            ("strftime('%Y') = '2024'", "p1 p2 p3"),
        ],
    );
}

#[test]
fn the_caller_is_read() {
    let all = "p1 p2 p3";
    check_rules(
        Some("ada"),
        &[
            ("author = @request.auth.id", "p1"),
            ("@request.auth.role = 'admin'", all),
            ("@request.auth.org.name = 'Alpha'", all),
            ("@request.auth.org = org", "p1"),
            ("@request.auth.org.id = org.id", "p1"),
            ("@request.auth.role:length = 1 && @request.auth.name:lower = 'ada'", all),
            ("@request.auth.members_via_user.role ?= 'owner'", all),
            ("@request.auth.members_via_user.org ?= org", "p1"),
            ("@request.auth.skills ?= 'b'", all),
            ("@request.auth.skills:length = 2", all),
            ("@request.auth.collectionName = 'users'", all),
            ("@request.auth.id != ''", all),
            ("org.members_via_org.user ?= @request.auth.id", "p1"),
            ("editors ?= @request.auth.id", "p1"),
            ("editors.id ?= @request.auth.id", "p1"),
        ],
    );
    check_rules(
        None,
        &[
            ("@request.auth.id != ''", ""),
            ("@request.auth.id = ''", all),
            ("@request.auth.role = 'admin'", ""),
            ("@request.auth.members_via_user.role ?= 'owner'", ""),
        ],
    );
}

#[test]
fn the_body_and_the_rest_of_the_request_are_read() {
    let world = world();
    let mut request = world.request(Some("ada"));
    request.body = json!({"title": "First", "views": "10", "tags": ["a", "b"], "author": "bob", "editors": ["ada"]})
        .as_object()
        .unwrap()
        .clone();
    request.query.insert("q".to_owned(), "x".to_owned());
    request.headers.insert("x_key".to_owned(), "Secret".to_owned());
    let all = "p1 p2 p3";
    for (rule, expected) in [
        ("@request.body.title:isset = true", all),
        ("@request.body.nothing:isset = true", ""),
        ("@request.body.title:changed = true", "p2 p3"),
        ("@request.body.views:changed = true", "p2 p3"),
        ("@request.body.tags:changed = true", "p2 p3"),
        ("@request.body.nothing = ''", all),
        ("@request.body.tags:each ?= 'b'", all),
        ("@request.body.tags:each = 'b'", ""),
        ("@request.body.tags:length = 2", all),
        ("@request.body.author.name = 'Bob'", all),
        ("@request.body.editors.role = 'admin'", all),
        ("@request.query.q = 'x' && @request.query.r:isset = false", all),
        ("@request.headers.x_key:lower = 'secret'", all),
        ("@request.method = 'GET' && @request.context = 'default'", all),
        ("views = @request.body.views", "p1"),
    ] {
        assert_eq!(world.rule_for("posts", rule, Some("ada"), &request).join(" "), expected, "{rule}");
    }
}

/// A whole number beyond 2^53 became a double while it was read, so a document that holds it was not found by it, a text of
/// those digits neither, and its neighbour was.
#[test]
fn whole_numbers_are_compared_as_they_are_written() {
    let mut world = World::new();
    let big = 9_007_199_254_740_993_i64;
    world
        .add("posts", "exact", json!({"title": "9007199254740993", "meta": {"n": big}, "views": big as f64}))
        .add("posts", "below", json!({"title": "9007199254740992", "meta": {"n": big - 1}, "views": 0.0}))
        .add("posts", "most", json!({"title": "-9223372036854775808", "meta": {"n": i64::MIN}}))
        .add("posts", "more", json!({"meta": {"n": 18_446_744_073_709_551_615_u64}}));
    for (filter, expected) in [
        ("meta.n = 9007199254740993", "exact"),
        ("meta.n != 9007199254740993 && meta.n > 0", "below more"),
        ("meta.n < 9007199254740993 && meta.n > 0", "below"),
        ("meta.n = -9223372036854775808", "most"),
        // Beyond 64 bits there are doubles only, in a document as in a question.
        ("meta.n = 18446744073709551615", "more"),
        ("title = 9007199254740993", "exact"),
        ("title = -9223372036854775808", "most"),
        // A number field holds doubles, and what is asked of it is understood as what would be stored.
        ("views = 9007199254740993", "exact"),
        ("views = 9007199254740992", "exact"),
    ] {
        assert_eq!(world.filter("posts", filter, None).unwrap().join(" "), expected, "{filter}");
    }
}

/// A rule over a number of the caller's, or over one that is sent, did not hold for the very digits with which both were
/// written, because a number field holds a double and the rule's number had stayed whole.
#[test]
fn whole_numbers_in_rules_are_understood_as_the_number_field_would_hold_them() {
    let mut world = World::with(json!([
        {"name": "users", "type": "auth", "fields": [{"name": "orgId", "type": "number"}, {"name": "prefs", "type": "json"}]},
        {"name": "posts", "type": "base", "fields": [{"name": "n", "type": "number"}, {"name": "meta", "type": "json"}]},
    ]));
    let big = 9_007_199_254_740_993_i64;
    world.add("users", "ada", json!({"orgId": big as f64, "prefs": {"n": big}})).add("posts", "p1", json!({}));
    let mut request = world.request(Some("ada"));
    request.body = json!({"n": big as f64, "meta": big}).as_object().unwrap().clone();
    for (rule, expected) in [
        ("@request.auth.orgId = 9007199254740993", "p1"),
        ("9007199254740993 = @request.auth.orgId", "p1"),
        ("@request.auth.orgId = 9007199254740992", "p1"),
        ("@request.auth.orgId != 9007199254740993 || @request.auth.orgId < 9007199254740993", ""),
        ("@request.body.n = 9007199254740993", "p1"),
        ("@request.body.n = 9007199254740992", "p1"),
        ("@request.body.n != 9007199254740993", ""),
        // Documents hold them as they are, the caller's and those that are sent.
        ("@request.auth.prefs.n = 9007199254740993", "p1"),
        ("@request.auth.prefs.n = 9007199254740992", ""),
        ("@request.body.meta = 9007199254740993", "p1"),
        ("@request.body.meta = 9007199254740992", ""),
    ] {
        assert_eq!(world.rule_for("posts", rule, Some("ada"), &request).join(" "), expected, "{rule}");
    }
}

/// A view's column that is a number field unchanged was compared with the digits that are written, though it holds the double of
/// the record; the record was found by them and its row in the view was not. What a view makes itself stays exact.
#[test]
fn a_view_answers_about_a_number_field_as_the_record_does() {
    let mut world = World::with(json!([
        {"name": "users", "type": "auth", "fields": []},
        {"name": "posts", "type": "base", "fields": [
            {"name": "n", "type": "number"}, {"name": "meta", "type": "json"}, {"name": "flag", "type": "bool"}]},
        {"name": "direct", "type": "view", "viewQuery": "SELECT id, n, meta, flag FROM posts"},
        {"name": "again", "type": "view", "viewQuery": "SELECT id, n FROM direct"},
        {"name": "made", "type": "view",
         "viewQuery": "SELECT id, cast(json_extract(meta, '$.n') as integer) AS n FROM posts"},
    ]));
    let big = 9_007_199_254_740_993_i64;
    world
        .add("posts", "big", json!({"n": big as f64, "meta": {"n": big}}))
        .add("posts", "low", json!({"n": -(big as f64), "meta": {"n": -big}}))
        .add("posts", "one", json!({"n": 1.0, "meta": {"n": 1}}));
    world.take_views();
    for (filter, expected) in [
        ("n = 9007199254740993", "big"),
        ("9007199254740993 = n", "big"),
        ("n = 9007199254740992", "big"),
        ("n != 9007199254740993", "low one"),
        ("n < 9007199254740993", "low one"),
        ("n >= 9007199254740993", "big"),
        ("n ?= -9007199254740993", "low"),
        ("n ~ 9007199254740992", "big low"),
        ("n ~ 9007199254740993", "big low"),
        ("n > 9007199254740994", ""),
    ] {
        for collection in ["posts", "direct", "again"] {
            let found = world.filter(collection, filter, None).unwrap().join(" ");
            assert_eq!(found, expected, "{collection}: {filter}");
        }
    }
    for (filter, expected) in [
        ("n = 9007199254740993", "big"),
        ("n = 9007199254740992", ""),
        ("n != -9007199254740993 && n < 9007199254740993", "one"),
    ] {
        assert_eq!(world.filter("made", filter, None).unwrap().join(" "), expected, "{filter}");
    }
    let ask = |rule: &str| world.rule_for("posts", rule, None, &world.request(None)).join(" ");
    assert_eq!(ask("@collection.direct.n ?= 9007199254740993 && id = 'one'"), "one");
    assert_eq!(ask("@collection.direct.n ?= 9007199254740995 && id = 'one'"), "");
}

/// A text in a JSON field counted as changed although the same was sent; whatever a body said of a new record did, if its
/// value was completed before it was stored.
#[test]
fn only_what_was_there_before_can_be_changed() {
    let mut world = World::new();
    world
        .add("posts", "text", json!({"title": "a", "meta": "same"}))
        .add("posts", "list", json!({"title": "b", "meta": ["same"]}))
        .add("posts", "null", json!({"title": "c", "meta": null}));
    let mut request = world.request(None);
    for (meta, changed) in [
        (json!("same"), "list null"),
        (json!(["same"]), "null text"),
        (json!(null), "list text"),
        (json!(5), "list null text"),
    ] {
        request.body = json!({"meta": meta}).as_object().unwrap().clone();
        let rule = "@request.body.meta:changed = true";
        assert_eq!(world.rule_for("posts", rule, None, &request).join(" "), changed, "{meta}");
    }
    request.body = json!({"title": "a", "meta": 5}).as_object().unwrap().clone();
    request.fresh = true;
    for (rule, expected) in [
        ("@request.body.title:changed = true || @request.body.meta:changed = true", ""),
        ("@request.body.title:changed = false && @request.body.title:isset = true", "list null text"),
    ] {
        assert_eq!(world.rule_for("posts", rule, None, &request).join(" "), expected, "{rule}");
    }
}

/// A pattern with a NUL in it found, in lists alone, whatever began as it did.
#[test]
fn a_nul_in_a_pattern_is_no_end_of_it() {
    let mut world = World::new();
    world.add("posts", "p1", json!({"title": "ab", "meta": {"a": "a\0b", "b": "\0"}})).add(
        "posts",
        "p2",
        json!({"title": "b", "meta": {"a": "c"}}),
    );
    for (filter, expected) in [
        ("title ~ 'a\0x'", ""),
        ("title ~ 'a\0%'", ""),
        ("title ~ meta.b", ""),
        ("title !~ meta.b", "p1"),
        ("meta.a ~ 'a'", "p1"),
        ("meta.a ~ 'b'", ""),
        ("meta.a != 'a' && meta.a > 'a'", "p1 p2"),
    ] {
        assert_eq!(world.filter("posts", filter, None).unwrap().join(" "), expected, "{filter:?}");
    }
}

/// Three walks over all comments visit the cube of them; the evaluator had no bound, whatever SQLite's was.
#[test]
fn an_evaluation_ends_where_its_steps_do() {
    let mut world = World::new();
    for at in 0..60 {
        world.add("comments", &format!("k{at:02}"), json!({"text": format!("t{at}")}));
    }
    world.add("posts", "p1", json!({"title": "x"}));
    let rule = "@collection.comments:a.text ?= @collection.comments:b.post \
         && @collection.comments:b.text ?= @collection.comments:c.post";
    let class = CallerClass::Anonymous;
    let predicate = Lens::new(&world.schema, &class).rule(world.collection("posts"), rule).unwrap();
    let (request, record) = (world.request(None), world.record("posts", "p1"));
    let ask = |steps: &Steps| eval::holds(&predicate, &world, &request, &record, steps);
    let enough = Steps::new(1_000_000);
    assert_eq!(ask(&enough), Ok(false));
    assert!(enough.left() < 1_000_000 - 60 * 60, "{}", enough.left());
    let few = Steps::new(500);
    let exhausted = ask(&few).unwrap_err();
    assert_eq!((exhausted.code(), few.left()), (Code::QueryTooExpensive, 0));
    // What is asked next takes from the same steps.
    assert!(ask(&few).is_err());
    let seen = eval::observe(&predicate, &world, &request, &record, &Steps::new(500));
    assert!(!seen.complete && !seen.comparisons.is_empty() && seen.comparisons.len() < 500);
}

#[test]
fn clients_get_what_they_may_read() {
    let world = world();
    // Strangers see no users: what is asked about them is unknown, whether it exists or not.
    for name in ["author.name", "author.nothing", "author.org.name", "comments_via_post.likes.name"] {
        let refused = world.filter("posts", &format!("{name} = ''"), None).unwrap_err();
        assert!(matches!(refused.problem, Problem::Unknown { suggestion: None, .. }), "{name}: {refused}");
    }
    // They see no members or closed organisations either: such rows are not there.
    for (filter, user, expected) in [
        ("author.name = 'Ada'", Some("bob"), "p1"),
        ("org.name = 'Alpha'", None, "p1"),
        ("org.name = 'Beta'", None, ""),
        ("author.email ~ 'x.org'", Some("bob"), "p2"),
        ("author.email ~ 'x.org'", Some("ada"), "p1 p2"),
        ("salary >= 0", Some("bob"), "p2"),
        ("org.members_via_org.role ?= 'owner'", Some("ada"), "p1"),
        ("org.members_via_org.role ?= 'owner'", Some("bob"), ""),
    ] {
        assert_eq!(world.filter("posts", filter, user).unwrap().join(" "), expected, "{filter} for {user:?}");
    }
}

#[test]
fn refusals_point() {
    let world = world();
    for (filter, code, position, message) in [
        ("titel = 1", Code::FilterInvalid, 1, "unknown field \"titel\", did you mean \"title\"?"),
        ("views > 1 && nope = 2", Code::FilterInvalid, 14, "unknown field \"nope\""),
        // A hidden field and a field that does not exist look the same, and are never suggested.
        ("internal = 1", Code::FilterInvalid, 1, "unknown field \"internal\""),
        ("interna = 1", Code::FilterInvalid, 1, "unknown field \"interna\""),
        ("author.secret = 1", Code::FilterInvalid, 1, "unknown field \"secret\""),
        ("author.password = 1", Code::FilterInvalid, 1, "unknown field \"password\""),
        ("author.tokenKey = 1", Code::FilterInvalid, 1, "unknown field \"tokenKey\""),
        ("title = @request.auth.id", Code::Forbidden, 9, "\"@request.auth.id\" may only be used"),
        ("@collection.users.id = 1", Code::Forbidden, 1, "may only be used"),
        ("title.x = 1", Code::FilterInvalid, 1, "is not a relation or JSON field"),
        ("title:lenght = 1", Code::FilterInvalid, 1, "unknown modifier \"lenght\", did you mean \"length\"?"),
        ("title:length = 1", Code::FilterInvalid, 1, "needs a field that holds a list"),
        ("title:isset = 1", Code::FilterInvalid, 1, "only works on @request"),
        ("@tomorow = 1", Code::FilterInvalid, 1, "did you mean \"@tomorrow\"?"),
        ("median(views) = 1", Code::FilterInvalid, 1, "unknown function"),
        ("geoDistance(1) = 1", Code::FilterInvalid, 1, "takes 4 arguments"),
        ("comments_via_nothing.x = 1", Code::FilterInvalid, 1, "unknown field"),
        (
            "author.org.posts_via_org.author.org.posts_via_org.author.org.name = 1",
            Code::FilterInvalid,
            1,
            "more than 6",
        ),
    ] {
        let error = world.filter("posts", filter, Some("ada")).expect_err(filter);
        assert_eq!((error.code(), error.position), (code, position), "{filter}: {error}");
        assert!(error.to_string().contains(message), "{filter}: {error}");
        assert!(!error.to_string().contains("did you mean \"internal\"") && !error.to_string().contains("\"secret\"?"));
    }
}

#[test]
fn superusers_may_name_more_but_never_passwords() {
    let world = world();
    let lens = Lens::new(&world.schema, &CallerClass::Superuser);
    let posts = world.collection("posts");
    for filter in ["internal = ''", "author.secret = ''", "@collection.users.name ?= 'x'", "@request.auth.id = ''"] {
        assert!(lens.filter(posts, filter).is_ok(), "{filter}");
    }
    for filter in ["author.password = ''", "author.tokenKey = ''"] {
        assert!(lens.filter(posts, filter).is_err(), "{filter}");
    }
}

#[test]
fn rules_are_checked_for_every_name_of_the_caller() {
    let world = world();
    let posts = world.collection("posts");
    for class in [CallerClass::Anonymous, world.class(Some("ada"))] {
        let lens = Lens::new(&world.schema, &class);
        assert!(lens.rule(posts, "@request.auth.nothing = 1").is_err(), "{class:?}");
        assert!(lens.rule(posts, "@request.auth.role = 'admin' && @request.auth.secret = ''").is_ok(), "{class:?}");
        assert!(lens.rule(posts, "@request.nothing = 1").is_err(), "{class:?}");
        assert!(lens.rule(posts, "@collection.nothing.id = 1").is_err(), "{class:?}");
    }
}

/// A view shows what its SELECT gives: NULL anywhere, numbers where text is meant, text that is no JSON.
#[test]
fn views_may_hold_anything() {
    let mut world = world();
    let posts = world.collection("posts").clone();
    let mut view = (*posts).clone();
    view.id = tenantry::kernel::ident::CollectionId::parse("shown").unwrap();
    view.name = tenantry::kernel::ident::CollectionName::parse("shown").unwrap();
    view.kind = tenantry::schema::CollectionKind::View;
    view.indexes.clear();
    for field in &mut view.fields {
        field.searchable = false;
    }
    let columns: Vec<String> = posts
        .fields
        .iter()
        .filter(|field| field.number.0 > 0)
        .map(|field| {
            let name = field.column();
            match field.name.as_str() {
                "title" => format!("CASE WHEN id != 'p2' THEN {name} END AS {name}"),
                "meta" => format!("CASE WHEN id = 'p1' THEN 'no json' WHEN id = 'p2' THEN 7 END AS {name}"),
                "tags" => format!("CASE WHEN id = 'p1' THEN 'a' WHEN id = 'p2' THEN '[\"b\"]' END AS {name}"),
                "views" => format!("NULLIF({name}, 0) AS {name}"),
                _ => name.into_owned(),
            }
        })
        .collect();
    let sql = format!("CREATE VIEW c_shown AS SELECT id, {} FROM \"{}\"", columns.join(", "), posts.table());
    world.file.execute_batch(&sql).unwrap();
    let mut collections = world.schema.collections().to_vec();
    collections.push(std::sync::Arc::new(view));
    world.schema = std::sync::Arc::new(tenantry::schema::Schema::new(2, collections));
    let view = world.collection("shown").clone();
    let class = CallerClass::Anonymous;
    let lens = Lens::new(&world.schema, &class);
    let request = world.request(None);
    for (filter, expected) in [
        ("title = ''", "p2"),
        ("title != 'First'", "p2 p3"),
        ("title = null && views = 5", "p2"),
        ("views = null", "p3"),
        ("meta = 'no json'", "p1"),
        ("meta = 7", "p2"),
        ("meta.a = null", "p1 p2 p3"),
        ("tags ?= 'a'", "p1"),
        ("tags:length = 1", "p1 p2"),
        ("tags:each = 'b'", "p2"),
    ] {
        let predicate = lens.filter(&view, filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
        assert_eq!(world.by_sql(&predicate, &request).join(" "), expected, "{filter}");
    }
    for sort in ["", "title", "-views,title", "@rowid", "meta"] {
        let query =
            tenantry::query::list::ListQuery::parse([("sort", sort), ("expand", "author,comments_via_post")]).unwrap();
        for position in [tenantry::query::plan::Position::Offset, tenantry::query::plan::Position::First] {
            let plan = tenantry::query::plan::list(lens, &view, None, &query, position).unwrap();
            let page = [tenantry::kernel::value::Stored::Integer(10), tenantry::kernel::value::Stored::Integer(0)];
            assert_eq!(world.run(&plan.page, &request, &page).len(), 3, "{sort}");
        }
    }
}
