//! Reads past their budget: what is said would help, and that it does.

use super::*;
use crate::kernel::ident::RecordId;
use crate::kernel::value::Stored;
use crate::query::advice::Advice;
use crate::query::request::CallerClass;
use crate::query::resolve::Lens;
use crate::schema::Schema;
use crate::schema::record::RecordImage;
use crate::services::records::transfer::{Exporter, Format};
use crate::store::{StoreError, WriteTx};

const ROWS: usize = 3_000;
/// Steps that a list over an index stays below and one over all rows does not.
const STEPS: u64 = 2_000;

fn collections(rules: &[(usize, &str, &str)]) -> Vec<Value> {
    let relation = |name: &str, target: &str| json!({"name": name, "type": "relation", "collectionId": format!("RELATION:{target}"), "maxSelect": 1});
    let text = |name: &str| json!({"name": name, "type": "text"});
    let mut all = vec![
        json!({"name": "authors", "type": "base", "fields": [text("name"), text("town")]}),
        json!({"name": "posts", "type": "base", "fields": [text("title"), text("status"), {"name": "score", "type": "number"},
            {"name": "views", "type": "number"}, {"name": "meta", "type": "json"}, relation("author", "authors")]}),
        json!({"name": "comments", "type": "base", "fields": [relation("post", "posts"), text("text")]}),
    ];
    for collection in &mut all {
        collection["listRule"] = json!("");
        collection["viewRule"] = json!("");
    }
    for (at, rule, text) in rules {
        all[*at][*rule] = json!(text);
    }
    all
}

async fn world(rules: &[(usize, &str, &str)]) -> World {
    let budget = |options: &mut StoreOptions| (options.read_inline_steps, options.read_steps_max) = (500, STEPS);
    let world = World::with(&collections(rules), budget).await;
    let schema = world.db.schema();
    // Past the budget of a write, which what is checked for a caller takes from.
    let fill = move |tx: &mut WriteTx<'_>| {
        let mut insert = |collection: &str, id: String, values: &[(&str, Stored)]| {
            let collection = schema.find(collection).unwrap();
            let number = |name: &str| collection.find_field(name).unwrap().number;
            let values: Vec<_> = values.iter().map(|(name, value)| (number(name), value.clone())).collect();
            tx.insert(collection, &RecordImage::new(RecordId::parse(&id).unwrap(), values))
        };
        let id = |kind: &str, at: usize| format!("{kind}{at:0width$}", width = 15 - kind.len());
        let text = |text: String| Stored::from(text);
        for n in 0..ROWS {
            let number = |n: usize| Stored::Real(f64::from(u32::try_from(n).unwrap()));
            let author = [("name", text(format!("Name {n:04}"))), ("town", text(format!("T{}", n % 90)))];
            insert("authors", id("a", n), &author)?;
            let post = [
                ("title", text(format!("Title {n:04}"))),
                ("status", text(format!("s{}", n % 90))),
                ("score", number(n)),
                ("views", number(n % 100)),
                ("meta", text(format!("{{\"n\":{n}}}"))),
                ("author", text(id("a", n))),
            ];
            insert("posts", id("p", n), &post)?;
            insert("comments", id("c", n), &[("post", text(id("p", n))), ("text", text(format!("text {}", n % 300)))])?;
        }
        Ok::<_, StoreError>(())
    };
    world.db.write(WriteMeta::system("test"), fill).await.unwrap();
    world
}

/// What is said about a refused read.
#[track_caller]
fn said<T: std::fmt::Debug>(outcome: Result<T, RecordError>) -> String {
    let error = outcome.expect_err("past the budget");
    assert_eq!(error.code(), Code::QueryTooExpensive, "{error:?}");
    error.public().into_owned()
}

/// The indexes that a refusal names, as statements.
fn named(said: &str) -> Vec<(String, String)> {
    let help = said.split("allows; ").nth(1).unwrap();
    let list = help.split(" would help").next().filter(|_| help.contains(" would help")).unwrap_or_default();
    let list = list.trim_start_matches("an index on ").trim_start_matches("indexes on ");
    let parts = list.split(" and ").filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let collection = part.split(' ').next().unwrap().to_owned();
            (collection, part.to_owned())
        })
        .collect()
}

async fn follow(world: &World, said: &str) {
    let named = named(said);
    for (collection, _) in &named {
        let own = named.iter().enumerate().filter(|(_, (of, _))| of == collection);
        let indexes: Vec<String> = own.map(|(at, (_, columns))| format!("CREATE INDEX i_{at} ON {columns}")).collect();
        change_indexes(world, collection, json!(indexes)).await;
    }
}

async fn change_indexes(world: &World, collection: &str, indexes: Value) {
    let schema: Arc<Schema> = world.db.schema();
    let context = PlanContext {
        random: world.random.as_ref(),
        now_ms: world.clock.now_ms(),
        describe: &crate::store::describe_in_scratch,
    };
    let input = definition::parse(&json!({"indexes": indexes})).unwrap();
    let plan = plan::plan_update(&schema, collection, &input, &context).unwrap();
    world.db.write(WriteMeta::system("test"), move |tx| tx.apply_schema(&plan)).await.unwrap();
}

async fn forget(world: &World) {
    for collection in ["authors", "posts", "comments"] {
        change_indexes(world, collection, json!([])).await;
    }
}

/// Every list is refused with exactly this advice, and answered once it is followed.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_past_its_budget_names_the_indexes_that_help() {
    let world = world(&[]).await;
    let (guest, admin) = (world.guest(), world.admin());
    for (filter, sort, expected) in [
        ("title = 'Title 2890'", "", "an index on posts (title) would help"),
        ("status = 's7' && score > 2900", "", "an index on posts (status, score) would help"),
        ("score > 2890 && score < 2892 && meta.n > 5", "", "an index on posts (score) would help"),
        ("", "-views", "an index on posts (views) would help"),
        ("", "views,-score", "an index on posts (views, score DESC) would help"),
        ("status = 's7'", "-views", "an index on posts (status, views) would help"),
        // One for each branch; a composite one would serve neither.
        ("title = 'Title 2890' || score = 2997", "", "indexes on posts (title) and posts (score) would help"),
        ("status = 's7' && (title = 'x' || score > 2998)", "", "an index on posts (status) would help"),
        ("author.name = 'Name 2890' && score > 5", "", "indexes on authors (name) and posts (author) would help"),
        ("comments_via_post.text ?= 'text 7'", "", "an index on comments (post, text) would help"),
        ("comments_via_post.text = 'text 7'", "", "an index on comments (post) would help"),
    ] {
        let asked = [("filter", filter), ("sort", sort), ("skipTotal", "1"), ("perPage", "1")];
        let to_guest = said(guest.try_list("posts", &asked).await);
        let said = said(admin.try_list("posts", &asked).await);
        // Where a relation leads is nothing that the guest's question says.
        assert_eq!(to_guest, said.replace("authors (name)", "author.name"));
        assert!(!to_guest.contains("authors"), "{to_guest}");
        assert_eq!(said, format!("The query did more work than its budget allows; {expected}."), "{filter} by {sort}");
        follow(&world, &said).await;
        guest.try_list("posts", &asked).await.unwrap_or_else(|error| panic!("{filter} by {sort}: {}", error.public()));
        forget(&world).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_index_is_named_that_would_not_be_used() {
    let world = world(&[]).await;
    let guest = world.guest();
    let inside = "no index serves title ~ 'none', which looks into every text";
    for (filter, sort, expected) in [
        ("title ~ 'none'", "", inside.to_owned()),
        ("title ~ 'Title 2%' && meta.n = 5000", "", inside.replace("none", "Title 2%")),
        // Every record is looked at for the one branch, so an index for the other serves nothing.
        ("title ~ 'none' || score > 5000", "", inside.to_owned()),
        ("title ~ 'none'", "-views", format!("an index on posts (views) would help; {inside}")),
        ("title ~ 'none' && status = 's7'", "", "an index on posts (status) would help".to_owned()),
        ("score > 5000", "-views", "indexes on posts (score) and posts (views) would help".to_owned()),
        // SQLite keeps to the order of creation where a range is open on one side.
        ("score > 5000", "", "narrow the filter".to_owned()),
        ("title = 'none' || score > 5000", "", "narrow the filter".to_owned()),
        ("author.name > 'none'", "", "narrow the filter".to_owned()),
        ("meta.n = 5000", "", "narrow the filter".to_owned()),
        ("title != '' && meta.n = 5000", "", "narrow the filter".to_owned()),
        ("title:lower = 'none'", "", "narrow the filter".to_owned()),
    ] {
        let asked = [("filter", filter), ("sort", sort)];
        let said = said(guest.try_list("posts", &asked).await);
        assert_eq!(said, format!("The query did more work than its budget allows; {expected}."), "{filter} by {sort}");
    }
    let totals = [("aggregate", "count"), ("group", "status"), ("filter", "score >= 0")];
    let said = said(guest.try_list("posts", &totals).await);
    assert!(said.ends_with("indexes on posts (score) and posts (status) would help."), "{said}");
    world.stop().await;
}

/// Only lists said what would help; a single record, a batch and an export said nothing.
#[tokio::test(flavor = "multi_thread")]
async fn records_batches_and_exports_say_it_too() {
    let world = world(&[]).await;
    let (guest, admin) = (world.guest(), world.admin());
    let expand = [("expand", "author.posts_via_author.comments_via_post")];
    let one = said(guest.try_get("posts", "p00000000000007", &expand).await);
    assert!(one.ends_with("; indexes on posts (author) and comments (post) would help."), "{one}");
    let listed = said(guest.try_list("posts", &[("filter", "title = 'Title 2890'")]).await);

    let path = |rest: &str| format!("/api/collections/posts/records{rest}");
    let read = |rest: &str| json!({"method": "GET", "url": path(rest)});
    let costly = read("?filter=title%3D'Title%202890'");
    let write = json!({"method": "POST", "url": path(""), "body": {"title": "new"}});
    for requests in [json!([read("/p00000000000001"), costly]), json!([write, costly])] {
        let refused = admin.batch(json!({"requests": requests}), BatchOptions::default()).await.unwrap_err();
        let RecordError::Batch { index: 1, fault } = refused else { panic!("{refused:?}") };
        assert_eq!(fault.public(), listed);
    }
    let apart = json!({"requests": [costly, read("/p00000000000001")], "transactional": false});
    let answer = admin.batch(apart, BatchOptions::default()).await.unwrap();
    let batch::ItemAnswer::Failed(fault) = &answer.items[0] else { panic!("{:?}", answer.items[0]) };
    assert_eq!(fault.public(), listed);
    assert!(matches!(answer.items[1], batch::ItemAnswer::Done(_)));

    let request = ListRequest::parse([("filter", "title = 'Title 2890'")]).unwrap();
    let mut exporter = Exporter::new(guest.0.clone(), "posts", Format::Ndjson, request);
    assert_eq!(said(exporter.next().await), listed);
    world.stop().await;
}

/// A question that no index serves was told that the rule was to blame, whatever the rule said.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_is_blamed_where_it_lacks_an_index_or_nothing_was_asked() {
    let world = world(&[(1, "listRule", "title != ''"), (2, "listRule", "text = 'text 7'")]).await;
    let guest = world.guest();
    for (collection, filter, expected) in [
        ("posts", "meta.n = 5000", "narrow the filter"),
        ("posts", "", "the list rule of posts is what has to be looked at"),
        ("comments", "post:lower = 'none'", "the list rule of comments is what has to be looked at"),
    ] {
        let said = said(guest.try_list(collection, &[("filter", filter)]).await);
        assert_eq!(said, format!("The query did more work than its budget allows; {expected}."), "{filter}");
    }
    world.stop().await;
}

/// A rule is nothing that its caller may read about.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_rule_costs_is_told_without_what_is_in_it() {
    let rule = "@collection.comments:a.text ?= @collection.comments:b.post";
    let world = world(&[(1, "viewRule", rule), (1, "listRule", rule)]).await;
    let guest = world.guest();
    let one = said(guest.try_get("posts", "p00000000000007", &[]).await);
    assert_eq!(
        one,
        "The query did more work than its budget allows; the view rule of posts is what has to be looked at."
    );
    let list = said(guest.try_list("posts", &[]).await);
    assert_eq!(list, one.replace("view", "list"));
    world.admin().get("posts", "p00000000000007").await;

    let endless = json!({"name": "endless", "type": "view", "listRule": "", "viewQuery":
        "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT x AS id FROM r"});
    world.make(&world.db, &endless).await;
    let view = said(guest.try_list("endless", &[]).await);
    assert!(view.ends_with("; the SELECT of endless is what has to be looked at."), "{view}");
    world.stop().await;
}

/// A write that asked too much said nothing of what would help.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_past_its_budget_names_its_rule_and_superusers_the_index() {
    let walk = "comments_via_post.text ?!= 'text 7' && @request.method != ''";
    let anywhere = "@collection.comments.text ?= 'none' && @collection.comments.post ?= id";
    let rules = [
        (1, "createRule", anywhere),
        (1, "updateRule", walk),
        (1, "deleteRule", walk),
        (0, "deleteRule", ""),
        (0, "updateRule", ""),
    ];
    let world = world(&rules).await;
    let (guest, admin) = (world.guest(), world.admin());
    let refused = |what: &str| {
        format!("The query did more work than its budget allows; the {what} of posts is what has to be looked at.")
    };
    let post = "p00000000002999";
    assert_eq!(said(guest.try_create("posts", json!({"title": "new"})).await), refused("create rule"));
    assert_eq!(said(guest.try_update("posts", post, json!({"title": "new"})).await), refused("update rule"));
    assert_eq!(said(guest.delete("posts", post).await), refused("delete rule"));
    // Nothing of it happened, and the log said once for whoever wrote the rule what would help.
    assert_eq!(admin.get("posts", post).await["title"], "Title 2999");
    let batch = json!({"requests": [{"method": "DELETE", "url": format!("/api/collections/posts/records/{post}")}]});
    let RecordError::Batch { index: 0, fault } = guest.batch(batch, BatchOptions::default()).await.unwrap_err() else {
        panic!("refused as one of a batch")
    };
    assert_eq!(fault.public(), refused("delete rule"));

    // Superusers pass every rule; what refers to the record has to be found all the same.
    let found = said(admin.delete("posts", post).await);
    assert_eq!(found, "The query did more work than its budget allows; an index on comments (post) would help.");
    let stranger = said(guest.delete("authors", "a00000000002999").await);
    let search = "the search for what refers to a record of authors is what has to be looked at";
    assert_eq!(stranger, format!("The query did more work than its budget allows; {search}."));
    let mut embedding = admin.request(WriteVerb::Update, "authors", Some("a00000000000007"), json!({"name": "new"}));
    embedding.view = View::parse([("expand", "posts_via_author.comments_via_post")]).unwrap();
    let embedded = said(admin.send(embedding).await);
    assert!(embedded.ends_with("; indexes on posts (author) and comments (post) would help."), "{embedded}");

    follow(&world, &found).await;
    guest.try_update("posts", post, json!({"title": "new"})).await.unwrap();
    guest.delete("posts", post).await.unwrap();
    assert_eq!(code(guest.try_create("posts", json!({"title": "new"})).await), Code::CreateRefused);
    world.stop().await;
}

/// What the rules of writes lack is worked out for one record, which is found by its id.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_about_one_record_lacks_the_way_to_others() {
    let world = World::new(&collections(&[])).await;
    let (schema, class) = (world.db.schema(), CallerClass::Anonymous);
    let posts = schema.find("posts").unwrap();
    for (rule, expected) in [
        ("title = 'x' && status = 'y'", ""),
        ("author.name = 'x'", ""),
        ("comments_via_post.text ?= 'x'", "an index on comments (post, text) would help"),
        ("comments_via_post.text = 'x'", "an index on comments (post) would help"),
        ("comments_via_post.text ?= title", "an index on comments (post, text) would help"),
        ("@collection.comments.post ?= id && title != ''", "an index on comments (post) would help"),
        (
            "@collection.comments.post ?= id && @collection.comments.text ?= @request.query.q",
            "an index on comments (post, text) would help",
        ),
        ("@collection.comments.post ?= id || title = ''", "an index on comments (post) would help"),
        ("@collection.comments.text ?~ 'x'", ""),
        ("@collection.comments.post = id", ""),
    ] {
        let condition = Lens::new(&schema, &class).rule(posts, rule).unwrap();
        let mut advice = Advice::default();
        advice.on_check(&condition);
        assert_eq!(advice.to_string(), expected, "{rule}");
    }
    world.stop().await;
}
