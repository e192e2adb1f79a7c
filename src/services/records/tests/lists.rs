//! Lists: pages, cursors, fields, expands, totals, plans, budgets.

use super::*;
use crate::kernel::limits;
use std::collections::BTreeSet;

async fn rows(world: &World, count: usize) {
    let admin = world.admin();
    let requests: Vec<Value> = (0..count)
        .map(|n| {
            json!({"method": "POST", "url": "/api/collections/posts/records", "body": {
                "title": format!("Row {n:03}"), "score": n % 7, "tags": if n % 2 == 0 { json!(["red"]) } else { json!(["red", "green"]) }}})
        })
        .collect();
    admin.batch(json!({"requests": requests}), BatchOptions::default()).await.unwrap();
}

#[tokio::test]
async fn pages_filters_sorts_and_totals() {
    let world = World::new(&library()).await;
    rows(&world, 45).await;
    let guest = world.guest();
    let page = guest
        .list("posts", &[("page", "2"), ("perPage", "20"), ("sort", "-title"), ("filter", "title ~ 'Row '")])
        .await;
    assert_eq!(
        (&page["page"], &page["perPage"], &page["totalItems"], &page["totalPages"]),
        (&json!(2), &json!(20), &json!(45), &json!(3))
    );
    assert_eq!((page["items"].as_array().unwrap().len(), &page["items"][0]["title"]), (20, &json!("Row 024")));
    let same =
        guest.list("posts", &[("page", "2"), ("pageSize", "20"), ("sortBy", "title"), ("sortDir", "desc")]).await;
    assert_eq!(same["items"], page["items"]);
    let beyond = guest.list("posts", &[("page", "9"), ("perPage", "20")]).await;
    assert_eq!((&beyond["totalItems"], &beyond["items"]), (&json!(45), &json!([])));
    let short = guest.list("posts", &[("skipTotal", "1"), ("limit", "5")]).await;
    assert_eq!((&short["totalItems"], &short["totalPages"]), (&json!(-1), &json!(-1)));
    assert_eq!(guest.list("posts", &[("filter", "tags:each = 'red'")]).await["totalItems"], 23);
    assert_eq!(guest.list("posts", &[("filter", "tags:each ?= 'green'")]).await["totalItems"], 22);
    assert_eq!(code(guest.try_list("posts", &[("filter", "title = = 'x'")]).await), Code::FilterInvalid);
    assert_eq!(code(guest.try_list("posts", &[("sort", "nothing")]).await), Code::SortInvalid);
    assert_eq!(code(guest.try_list("nothing", &[]).await), Code::CollectionNotFound);
    let hidden = guest.try_list("authors", &[("filter", "secret = 'x'")]).await.unwrap_err().to_string();
    let unknown = guest.try_list("authors", &[("filter", "secreu = 'x'")]).await.unwrap_err().to_string();
    assert_eq!(hidden.replace("secret", "?"), unknown.replace("secreu", "?"), "hidden and unknown are told alike");
    world.stop().await;
}

#[tokio::test]
async fn fields_are_chosen_and_cut() {
    let world = World::new(&library()).await;
    let admin = world.admin();
    let ada = admin.create("authors", json!({"name": "Ada"})).await;
    admin.create("posts", json!({"title": "Long", "author": ada["id"], "body": "<p>word word word</p>"})).await;
    let one = async |parameters: &[(&str, &str)]| admin.list("posts", parameters).await["items"][0].clone();
    assert_eq!(one(&[("fields", "title")]).await, json!({"title": "Long"}));
    assert_eq!(
        one(&[("fields", "title,expand.author.name"), ("expand", "author")]).await,
        json!({"title": "Long", "expand": {"author": {"name": "Ada"}}})
    );
    let cut = one(&[("fields", "body:excerpt(9,true)")]).await["body"].as_str().unwrap().to_owned();
    assert!(cut.starts_with("word word") && cut.len() < 16, "{cut}");
    let less = one(&[("excludeFields", "body,tags,collectionId")]).await;
    for (member, there) in [("body", false), ("tags", false), ("collectionId", false), ("title", true), ("id", true)] {
        assert_eq!(less.get(member).is_some(), there, "{member}");
    }
    world.stop().await;
}

#[tokio::test]
async fn walking_by_cursor_visits_each_row_once_while_rows_come_and_go() {
    let world = World::new(&library()).await;
    rows(&world, 40).await;
    let admin = world.admin();
    for sort in ["", "-score", "score,-title", "-created", "title"] {
        let before: BTreeSet<String> = admin.column("posts", "id", &[("perPage", "1000")]).await.into_iter().collect();
        let (mut seen, mut cursor, mut back) = (Vec::new(), String::new(), None);
        for round in 0.. {
            let page = admin.list("posts", &[("cursor", &cursor), ("perPage", "7"), ("sort", sort)]).await;
            let ids: Vec<String> =
                page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
            admin.create("posts", json!({"title": format!("New {round} {sort}"), "score": round})).await;
            if let (Some(before), true) = (&back, round == 2) {
                let again = admin
                    .list(
                        "posts",
                        &[("cursor", page["prevCursor"].as_str().unwrap()), ("perPage", "7"), ("sort", sort)],
                    )
                    .await;
                let before: &Vec<String> = before;
                let last = again["items"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
                assert!(
                    before.contains(&last) || !seen.contains(&last),
                    "{sort}: the page before ends where this one begins"
                );
            }
            seen.extend(ids.clone());
            back = Some(ids);
            match page["nextCursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
            assert!(round < 100, "{sort}: the walk ends");
        }
        let unique: BTreeSet<String> = seen.iter().cloned().collect();
        assert_eq!(unique.len(), seen.len(), "{sort}: no row twice");
        assert!(before.is_subset(&unique), "{sort}: no row left out");
    }
    world.stop().await;
}

#[tokio::test]
async fn cursors_are_bound_to_their_question_and_tenant() {
    let world = World::new(&library()).await;
    rows(&world, 10).await;
    let admin = world.admin();
    let page = admin.list("posts", &[("cursor", ""), ("perPage", "3"), ("sort", "title")]).await;
    assert_eq!(page["totalItems"], 10);
    let next = page["nextCursor"].as_str().unwrap();
    assert_eq!(page["prevCursor"], Value::Null);
    for parameters in [
        [("cursor", next), ("sort", "-title")],
        [("cursor", next), ("filter", "score > 1")],
        [("cursor", "AAAA"), ("sort", "title")],
    ] {
        assert_eq!(code(admin.try_list("posts", &parameters).await), Code::CursorInvalid);
    }
    let second = admin.list("posts", &[("cursor", next), ("perPage", "3"), ("sort", "title")]).await;
    let back = second["prevCursor"].as_str().unwrap();
    let first = admin.list("posts", &[("cursor", back), ("perPage", "3"), ("sort", "title")]).await;
    assert_eq!(first["items"], page["items"]);
    assert_eq!(first["prevCursor"], Value::Null);

    let other = world.store.create(&TenantId::parse("t2").unwrap()).await.unwrap();
    for collection in library() {
        world.make(&other, &collection).await;
    }
    let stranger = Caller(Scope { tenant: other, ..admin.0.clone() });
    assert_eq!(code(stranger.try_list("posts", &[("cursor", next), ("sort", "title")]).await), Code::CursorInvalid);
    drop(stranger);
    world.stop().await;
}

#[tokio::test]
async fn expands_cost_one_query_per_node_whatever_the_page() {
    let world = World::new(&library()).await;
    let admin = world.admin();
    let mut authors = Vec::new();
    for n in 0..5 {
        authors.push(admin.create("authors", json!({"name": format!("Author {n}")})).await["id"].clone());
    }
    for n in 0..20 {
        let body = json!({"title": format!("P{n:02}"), "author": authors[n % 5], "editors": [authors[(n + 1) % 5], authors[n % 5]]});
        admin.create("posts", body).await;
    }
    let parameters = [
        ("expand", "author,editors,author.posts_via_author"),
        ("perPage", "20"),
        ("sort", "title"),
        ("skipTotal", "1"),
    ];
    let (page, statements) = world.count_statements(admin.list("posts", &parameters)).await;
    assert_eq!(statements, 4, "rows, author, its posts, editors");
    let first = &page["items"][0];
    assert_eq!(first["expand"]["author"]["name"], "Author 0");
    let names: Vec<_> =
        first["expand"]["editors"].as_array().unwrap().iter().map(|editor| editor["name"].clone()).collect();
    assert_eq!(names, ["Author 1", "Author 0"], "in the order of the ids");
    assert_eq!(first["expand"]["author"]["expand"]["posts_via_author"].as_array().unwrap().len(), 4);
    let plain = admin.create("posts", json!({"title": "Nobody"})).await;
    let alone =
        admin.try_get("posts", plain["id"].as_str().unwrap(), &[("expand", "author,nothing,secret")]).await.unwrap();
    assert_eq!(alone.get("expand"), None);
    world.stop().await;
}

#[tokio::test]
async fn expands_show_what_the_target_shows() {
    let mut collections = library();
    collections[0]["viewRule"] = json!("name != 'Hidden'");
    let world = World::new(&collections).await;
    let admin = world.admin();
    let shown = admin.create("authors", json!({"name": "Shown", "secret": "s"})).await["id"].clone();
    let hidden = admin.create("authors", json!({"name": "Hidden"})).await["id"].clone();
    let post = admin.create("posts", json!({"title": "x", "author": hidden, "editors": [hidden, shown]})).await;
    let id = post["id"].as_str().unwrap();
    let seen = world.guest().try_get("posts", id, &[("expand", "author,editors")]).await.unwrap();
    assert_eq!(seen["expand"].get("author"), None);
    assert_eq!(seen["expand"]["editors"].as_array().unwrap().len(), 1);
    assert_eq!(seen["expand"]["editors"][0].get("secret"), None);
    let all = admin.try_get("posts", id, &[("expand", "author,editors")]).await.unwrap();
    assert_eq!(all["expand"]["author"]["name"], "Hidden");
    assert_eq!(all["expand"]["editors"][1]["secret"], "s");
    world.stop().await;
}

#[tokio::test]
async fn totals_follow_filter_and_groups() {
    let world = World::new(&library()).await;
    rows(&world, 14).await;
    let guest = world.guest();
    let all = guest.list("posts", &[("aggregate", "count,sum(score),max(title)")]).await;
    assert_eq!(all["items"], json!([{"count": 14, "sum(score)": 42, "max(title)": "Row 013"}]));
    let groups = guest.list("posts", &[("aggregate", "count"), ("group", "score"), ("filter", "score < 2")]).await;
    assert_eq!(groups["items"], json!([{"score": 0, "count": 2}, {"score": 1, "count": 2}]));
    assert_eq!(code(guest.try_list("authors", &[("aggregate", "count(secret)")]).await), Code::ParameterInvalid);
    world.stop().await;
}

/// Of two equal parameters the last counts, but plans were remembered by those that say something: a filter that an empty
/// one follows left its plan, which filters nothing, to everybody who asked with that filter.
#[tokio::test]
async fn a_plan_is_remembered_by_what_counts() {
    let world = World::new(&library()).await;
    rows(&world, 6).await;
    let guest = world.guest();
    let titles = async |asked: &[(&str, &str)]| guest.column("posts", "title", asked).await;
    let (filter, sort) = (("filter", "title = 'Row 001'"), ("sort", "-title"));
    assert_eq!(titles(&[filter, ("filter", "")]).await.len(), 6);
    assert_eq!(titles(&[filter]).await, ["Row 001"]);
    assert_eq!(titles(&[("filter", "title = 'x'"), filter]).await, ["Row 001"]);
    assert_eq!(titles(&[filter, ("filter", "title = 'x'")]).await, [""; 0]);
    assert_eq!(titles(&[sort, ("sort", "")]).await[0], "Row 000");
    assert_eq!(titles(&[sort]).await[0], "Row 005");
    let id = guest.list("posts", &[]).await["items"][0]["id"].as_str().unwrap().to_owned();
    let one = async |asked: &[(&str, &str)]| guest.try_get("posts", &id, asked).await.unwrap();
    assert!(one(&[("fields", "title"), ("fields", "")]).await["id"].is_string());
    assert_eq!(one(&[("fields", "title")]).await, json!({"title": "Row 000"}));
    world.stop().await;
}

/// Records without an author and those of one without a town were two groups that looked the same.
#[tokio::test]
async fn what_is_not_there_is_one_group_with_what_is_empty() {
    let open = |name: &str, fields: Value| json!({"name": name, "type": "base", "fields": fields, "listRule": ""});
    let world = World::new(&[
        open(
            "authors",
            json!([{"name": "town", "type": "text"}, {"name": "rank", "type": "number"}, {"name": "known", "type": "bool"}]),
        ),
        open(
            "posts",
            json!([{"name": "author", "type": "relation", "collectionId": "RELATION:authors", "maxSelect": 1},
                {"name": "meta", "type": "json"}]),
        ),
    ])
    .await;
    let admin = world.admin();
    let bern = admin.create("authors", json!({"town": "Bern", "rank": 2, "known": true})).await["id"].clone();
    let nowhere = admin.create("authors", json!({})).await["id"].clone();
    for (author, meta) in
        [(&bern, json!({"a": ""})), (&nowhere, json!({})), (&nowhere, json!(null)), (&Value::Null, json!({"a": "x"}))]
    {
        admin.create("posts", json!({"author": author, "meta": meta})).await;
    }
    let groups = async |path: &str| {
        let asked = [("aggregate", "count"), ("group", path)];
        let page = world.guest().list("posts", &asked).await;
        let items = page["items"].as_array().unwrap();
        items.iter().map(|item| (item[path].clone(), item["count"].as_u64().unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(groups("author.town").await, [(json!(""), 3), (json!("Bern"), 1)]);
    assert_eq!(groups("author.rank").await, [(json!(0), 3), (json!(2), 1)]);
    assert_eq!(groups("author.known").await, [(json!(false), 3), (json!(true), 1)]);
    assert_eq!(groups("meta.a").await, [(json!(""), 3), (json!("x"), 1)]);
    world.stop().await;
}

/// A view whose rows are counted had numbers for ids, which no address and no filter could name.
#[tokio::test]
async fn a_view_may_count_its_rows() {
    let mut collections = library();
    collections.push(json!({"name": "places", "type": "view", "listRule": "", "viewRule": "",
        "viewQuery": "SELECT (ROW_NUMBER() OVER (ORDER BY score DESC)) AS id, title FROM posts"}));
    let world = World::new(&collections).await;
    rows(&world, 12).await;
    let guest = world.guest();
    assert_eq!(guest.get("places", "2").await, guest.list("places", &[("filter", "id = '2'")]).await["items"][0]);
    assert_eq!(guest.list("places", &[("filter", "id = 12")]).await["totalItems"], 1);
    let (mut seen, mut cursor) = (BTreeSet::new(), String::new());
    while let Some(next) = {
        let page = guest.list("places", &[("cursor", &cursor), ("perPage", "5"), ("sort", "title")]).await;
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        page["nextCursor"].as_str().map(str::to_owned)
    } {
        cursor = next;
    }
    assert_eq!(seen.len(), 12);
    world.stop().await;
}

/// A walk by cursor answered with the number of a page that it was not on.
#[tokio::test]
async fn a_page_and_a_cursor_are_refused_together() {
    let world = World::new(&library()).await;
    rows(&world, 5).await;
    let guest = world.guest();
    let first = guest.list("posts", &[("cursor", ""), ("perPage", "2"), ("page", "1")]).await;
    let next = first["nextCursor"].as_str().unwrap();
    let refused = guest.try_list("posts", &[("cursor", next), ("perPage", "2"), ("page", "2")]).await.unwrap_err();
    assert_eq!(refused.code(), Code::ParameterInvalid);
    let said = refused.public();
    assert!(said.contains("page") && said.contains("cursor"), "{said}");
    assert_eq!(guest.list("posts", &[("cursor", next), ("perPage", "2")]).await["page"], 1);
    world.stop().await;
}

#[tokio::test]
async fn a_changed_schema_makes_new_plans() {
    let world = World::new(&library()).await;
    rows(&world, 3).await;
    assert_eq!(world.guest().list("posts", &[("sort", "title")]).await["totalItems"], 3);
    let schema = world.db.schema();
    let context =
        PlanContext { random: world.random.as_ref(), now_ms: 0, describe: &crate::store::describe_in_scratch };
    let input = definition::parse(&json!({"listRule": null})).unwrap();
    let plan = plan::plan_update(&schema, "posts", &input, &context).unwrap();
    world.db.write(WriteMeta::system("test"), move |tx| tx.apply_schema(&plan)).await.unwrap();
    assert_eq!(code(world.guest().try_list("posts", &[("sort", "title")]).await), Code::SuperuserRequired);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_past_its_budget_names_the_missing_index() {
    let world =
        World::with(&library(), |options| (options.read_inline_steps, options.read_steps_max) = (500, 2_000)).await;
    for _ in 0..15 {
        rows(&world, 50).await;
    }
    let refused = async |filter: &str| {
        let asked = [("filter", filter), ("sort", "-body")];
        let error = world.guest().try_list("posts", &asked).await.unwrap_err();
        assert_eq!(error.code(), Code::QueryTooExpensive);
        error.public().into_owned()
    };
    let inside = refused("title ~ 'nothing' || score > 90").await;
    assert!(inside.contains("posts (body)") && inside.contains("no index serves title ~ 'nothing'"), "{inside}");
    assert!(!inside.contains("score"), "every record is looked at for the title: {inside}");
    let apart = refused("title = 'nothing' || score = 90").await;
    assert!(apart.contains("posts (title) and posts (score)"), "{apart}");
    world.stop().await;
}

#[tokio::test]
async fn views_are_listed_expanded_and_never_written() {
    let mut collections = library();
    collections.push(json!({"name": "ranking", "type": "view", "listRule": "total > 1", "viewRule": "",
        "viewQuery": "SELECT authors.id AS id, authors.name AS name, COUNT(posts.id) AS total, MAX(posts.score) AS best \
            FROM authors LEFT JOIN posts ON posts.author = authors.id GROUP BY authors.id"}));
    let world = World::new(&collections).await;
    let admin = world.admin();
    for (name, posts) in [("Ada", 3), ("Bob", 1), ("Cyd", 2)] {
        let author = admin.create("authors", json!({"name": name})).await;
        for score in 0..posts {
            admin.create("posts", json!({"title": "x", "author": author["id"], "score": score})).await;
        }
    }
    let guest = world.guest();
    assert_eq!(guest.column("ranking", "name", &[("sort", "-total")]).await, ["Ada", "Cyd"]);
    assert_eq!(guest.column("ranking", "total", &[("sort", "name"), ("cursor", "")]).await, ["3", "2"]);
    let bob = admin.column("ranking", "id", &[("filter", "name = 'Bob'")]).await;
    assert_eq!(guest.get("ranking", &bob[0]).await["best"].as_f64(), Some(0.0));
    assert_eq!(code(admin.try_create("ranking", json!({"name": "x"})).await), Code::RequestInvalid);
    assert_eq!(code(admin.delete("ranking", &bob[0]).await), Code::RequestInvalid);
    world.stop().await;
}

#[tokio::test]
async fn search_finds_words_and_follows_writes() {
    let mut collections = library();
    collections[1]["fields"][0]["searchable"] = json!(true);
    collections[1]["fields"][1]["searchable"] = json!(true);
    let world = World::new(&collections).await;
    let admin = world.admin();
    let post = admin.create("posts", json!({"title": "The quick fox", "body": "<p>jumps</p>"})).await;
    admin.create("posts", json!({"title": "A lazy dog"})).await;
    let found = async |words: &str| admin.column("posts", "title", &[("search", words)]).await;
    assert_eq!(found("quick").await, ["The quick fox"]);
    assert_eq!(found("jumps").await, ["The quick fox"]);
    assert!(found("absent").await.is_empty());
    admin.update("posts", post["id"].as_str().unwrap(), json!({"title": "The slow fox"})).await;
    assert!(found("quick").await.is_empty());
    assert_eq!(found("slow").await, ["The slow fox"]);
    admin.delete("posts", post["id"].as_str().unwrap()).await.unwrap();
    assert!(found("slow").await.is_empty());
    assert_eq!(code(admin.try_list("authors", &[("search", "x")]).await), Code::ParameterInvalid);
    world.stop().await;
}

/// Words past the sixteenth were not looked for, and nobody was told.
#[tokio::test]
async fn every_word_of_a_search_counts_and_too_many_are_refused() {
    let mut collections = library();
    collections[1]["fields"][1]["searchable"] = json!(true);
    let world = World::new(&collections).await;
    let admin = world.admin();
    let words = |count: usize| (0..count).map(|n| format!("w{n}x")).collect::<Vec<_>>().join(" ");
    for body in [words(limits::SEARCH_WORDS_MAX), words(limits::SEARCH_WORDS_MAX - 1)] {
        admin.create("posts", json!({"title": "x", "body": body})).await;
    }
    for (count, expected) in [(1, 2), (16, 2), (limits::SEARCH_WORDS_MAX - 1, 2), (limits::SEARCH_WORDS_MAX, 1)] {
        let found = admin.list("posts", &[("search", &format!("- {}", words(count)))]).await;
        assert_eq!(found["totalItems"], expected, "{count} words");
    }
    let asked = words(limits::SEARCH_WORDS_MAX + 1);
    let refused = admin.try_list("posts", &[("search", &asked)]).await.unwrap_err();
    assert_eq!(refused.code(), Code::ParameterInvalid);
    let said = format!("{} {:?}", refused.public(), refused.details());
    assert!(said.contains("search") && said.contains("more than 64 words"), "{said}");
    world.stop().await;
}

/// How rare a word is, and how long a row, is weighed over the whole index: ranked by that, the order of what a caller may
/// see would tell of rows and fields that they may not.
#[tokio::test]
async fn the_order_of_a_search_tells_nothing_of_what_is_hidden() {
    // Which of the two is the better match depends on whether alpha or beta is the rarer word.
    let titles = ["alpha alpha alpha beta", "alpha beta beta beta"];
    let searched = async |rule: &str, hidden: &str, notes: [&str; 2]| {
        // Each half is about one thing alone.
        let read_rule = if notes == [""; 2] { "" } else { "@request.auth.id != ''" };
        let posts = json!({"name": "posts", "type": "base", "listRule": rule, "fields": [
            {"name": "title", "type": "text", "searchable": true},
            {"name": "open", "type": "bool"},
            {"name": "notes", "type": "text", "searchable": true, "readRule": read_rule}]});
        let world = World::new(&[posts]).await;
        let admin = world.admin();
        for (title, notes) in titles.into_iter().zip(notes) {
            admin.create("posts", json!({"title": title, "open": true, "notes": notes})).await;
        }
        for _ in 0..if hidden.is_empty() { 0 } else { 30 } {
            admin.create("posts", json!({"title": hidden})).await;
        }
        let asked = [("search", "alpha beta"), ("filter", "open = true")];
        let found =
            (world.guest().column("posts", "title", &asked).await, admin.column("posts", "title", &asked).await);
        world.stop().await;
        found
    };
    let (forward, backward) = (titles.map(str::to_owned), [titles[1], titles[0]].map(str::to_owned));
    // Rows that the rule hides.
    for (hidden, ranked) in [("alpha", &backward), ("beta", &forward)] {
        let (guest, admin) = searched("open = true", hidden, ["", ""]).await;
        assert_eq!(admin, *ranked, "the index does tell whether {hidden} is common");
        assert_eq!(guest, forward, "hidden rows are full of {hidden}");
    }
    // A field that the caller may not read, in rows that they may.
    let long = "word ".repeat(200);
    for (notes, ranked) in [([&*long, ""], &backward), (["", &*long], &forward)] {
        let (guest, admin) = searched("", "", notes).await;
        assert_eq!(admin, *ranked, "the index does tell which row is long");
        assert_eq!(guest, forward, "a hidden field is long");
    }
}

/// Totals under a rule that follows a relation are counted by group where an index allows it, row by row elsewhere; the
/// number is the same, and that of the rows that are shown.
#[tokio::test]
async fn totals_by_group_are_the_totals_of_the_rows() {
    let rule = "board.open = true || board.owner = @request.headers.x_who || (n = 5 && board.owner = 'ada')";
    let plain = "board.open = true || board.owner = @request.headers.x_who";
    let notes = |name: &str, rule: &str, indexes: Value| {
        json!({"name": name, "type": "base", "listRule": rule, "indexes": indexes, "fields": [
            {"name": "board", "type": "relation", "collectionId": "RELATION:boards", "maxSelect": 1},
            {"name": "n", "type": "number"}]})
    };
    let boards = json!({"name": "boards", "type": "base", "listRule": "", "fields": [
        {"name": "open", "type": "bool"}, {"name": "owner", "type": "text"}]});
    let world = World::new(&[
        boards,
        notes("grouped", plain, json!(["CREATE INDEX by_board ON grouped (board, n)"])),
        notes("scanned", plain, json!([])),
        notes("mixed", rule, json!(["CREATE INDEX by_board_too ON mixed (board)"])),
    ])
    .await;
    let admin = world.admin();
    let mut ids = vec![json!("")];
    for (open, owner) in [(true, "ada"), (false, "ada"), (false, "bob"), (true, "")] {
        ids.push(admin.create("boards", json!({"open": open, "owner": owner})).await["id"].clone());
    }
    for collection in ["grouped", "scanned", "mixed"] {
        for n in 0..30 {
            admin.create(collection, json!({"board": ids[n % 5], "n": n % 7})).await;
        }
    }
    let own = format!("board = '{}'", ids[1].as_str().unwrap());
    let filters =
        ["", "n > 3", &own, "board.owner = 'ada'", "n > 1 && board.open = true", "board.owner = '' || n = 2", "n = 99"];
    for who in ["", "ada", "bob"] {
        let mut guest = world.guest();
        let request = RequestContext {
            headers: [("x_who".to_owned(), who.to_owned())].into_iter().collect(),
            ..(*guest.0.request).clone()
        };
        guest.0.request = Arc::new(request);
        for filter in filters {
            let mut totals = Vec::new();
            for collection in ["grouped", "scanned", "mixed"] {
                let all = guest.list(collection, &[("filter", filter), ("perPage", "100")]).await;
                let some = guest.list(collection, &[("filter", filter), ("perPage", "1")]).await;
                let shown = all["items"].as_array().unwrap().len();
                assert_eq!(some["totalItems"], shown, "{collection}: {filter} for {who:?}");
                totals.push(shown);
            }
            assert_eq!(totals[0], totals[1], "{filter} for {who:?}");
        }
    }
    world.stop().await;
}
