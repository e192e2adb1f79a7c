//! What a question costs: the language alone, and whole answers of the demo tenant over HTTP without the cache.
//!
//! Keeps true: an answer is measured only after it was seen to have the rows it should. Does not do: concurrency; one
//! connection asks, so the latency is that of the answer and not of a queue (`http` measures load).

mod support;

use anyhow::Context;
use std::rc::Rc;
use support::args::Args;
use support::load::{self, Fill, Plan};
use support::report::{Report, count, time_us};
use support::site::Site;
use support::timing::per_call_us;
use support::{bare, schema};
use tenantry::query::request::CallerClass;
use tenantry::query::resolve::Lens;

const API: &str = "/t/demo-org/api/collections";

fn main() -> anyhow::Result<()> {
    let Some(args) = Args::read() else { return Ok(()) };
    if let Some(dir) = &args.bare {
        return bare::serve(dir, args.cached);
    }
    measure_language(&args)?;
    if args.bare_only { Ok(()) } else { measure_answers(&args) }
}

const FILTERS: [(&str, &str); 4] = [
    ("one comparison", "status = 'seated'"),
    ("typical", "tournament = 'abcdefghijklmno' && status != 'eliminated' && chips >= 1000"),
    ("relation", "tournament.status = 'running' && (display_name ~ 'player' || user ~ 'abc')"),
    ("back-relation", "players_via_tournament.chips ?> 40000 && matches_via_tournament.table_no ?= 3"),
];

fn measure_language(args: &Args) -> anyhow::Result<()> {
    let mut report = Report::new("query-language", &["filter", "parse", "parse and resolve"], args);
    let (schema, class) = (schema::schema(), CallerClass::Anonymous);
    let lens = Lens::new(&schema, &class);
    for (name, filter) in FILTERS.into_iter().filter(|(name, _)| args.wants(name)) {
        let root = if name == "back-relation" { "tournaments" } else { "players" };
        let root = schema.find(root).context("a fixed collection")?;
        lens.filter(root, filter).map_err(|error| anyhow::anyhow!("{filter}: {error}"))?;
        let parse = per_call_us(|| tenantry::query::parse_filter(filter).is_ok());
        let resolve = per_call_us(|| lens.filter(root, filter).is_ok());
        report.row(vec![name.to_owned(), time_us(parse), time_us(resolve)]);
    }
    report.finish()
}

/// One question: its name, its path below the collections, and how many items a right answer has at least.
struct Question {
    name: &'static str,
    path: String,
    items: usize,
}

fn measure_answers(args: &Args) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let site = Site::start_tenantry(dir.path().join("tenantry"), false)?;
    let columns = ["question", "p50", "p99", "CPU per request", "bytes"];
    let mut report = Report::new("query-answers", &columns, args);
    for question in questions(&site)?.into_iter().filter(|question| args.wants(question.name)) {
        let path = format!("{API}{}", question.path);
        let answer = site.fetch(&path)?;
        let items = answer.json().ok().and_then(|list| list["items"].as_array().map(Vec::len)).unwrap_or(0);
        if answer.status != 200 || items < question.items {
            let why = format!("not measured: {} with {items} items", answer.status);
            report.row(vec![question.name.to_owned(), why, String::new(), String::new(), String::new()]);
            continue;
        }
        let request = site.render(&path);
        let fill: Fill = Rc::new(move |_, out: &mut Vec<u8>| {
            out.extend_from_slice(&request);
            200
        });
        let plan = Plan { connections: 1, warmup: args.warmup(), window: args.window(), seed: 1 };
        let before = site.server.cpu_us();
        let outcome = load::drive(site.server.addr, &fill, plan)?;
        let cpu = site.server.cpu_us().saturating_sub(before) as f64 / outcome.sent.max(1) as f64;
        report.row(vec![
            question.name.to_owned(),
            time_us(outcome.p50_us),
            time_us(outcome.p99_us),
            time_us(cpu),
            count(outcome.bytes_per_answer),
        ]);
    }
    report.finish()
}

fn questions(site: &Site) -> anyhow::Result<Vec<Question>> {
    let tournament = site.tournament();
    let question = |name, items, path: String| Question { name, path, items };
    let encode =
        |filter: &str| percent_encoding::utf8_percent_encode(filter, percent_encoding::NON_ALPHANUMERIC).to_string();
    let players = |filter: &str, rest: &str| format!("/players/records?perPage=20&filter={}{rest}", encode(filter));
    let mut all = vec![
        question("page of 20, no filter", 20, "/players/records?perPage=20&skipTotal=1".into()),
        question("page of 20 with total", 20, "/players/records?perPage=20".into()),
        question("filtered and sorted", 20, players("chips > 100", "&sort=-chips,display_name&skipTotal=1")),
        question("filtered by index, with total", 20, players(&format!("tournament = '{tournament}'"), "&sort=-chips")),
        question("relation filter", 20, players("tournament.status != ''", "&skipTotal=1")),
        question(
            "back-relation filter",
            1,
            format!(
                "/tournaments/records?perPage=20&skipTotal=1&filter={}",
                encode("players_via_tournament.chips ?> 100")
            ),
        ),
        question("aggregate by group", 0, "/players/records?aggregate=count,sum(chips)&group=status".into()),
        question("search", 1, "/players/records?perPage=20&search=a&skipTotal=1".into()),
        question("offset page 1,000 deep", 20, "/players/records?perPage=20&page=1000&skipTotal=1&sort=id".into()),
    ];
    let relations = site.relations("matches")?;
    all.push(question(
        "expand 20 rows",
        20,
        format!("/matches/records?perPage=20&skipTotal=1&expand={}", relations.join(",")),
    ));
    if let Some(cursor) = deep_cursor(site, 999)? {
        let path = format!("/players/records?perPage=20&sort=id&skipTotal=1&cursor={cursor}");
        all.push(question("cursor page 1,000 deep", 20, path));
    }
    Ok(all)
}

/// Walks `pages` pages and returns the cursor of the next; `None` where cursors are not answered.
fn deep_cursor(site: &Site, pages: usize) -> anyhow::Result<Option<String>> {
    let mut cursor = String::new();
    for _ in 0..pages {
        let path = format!("{API}/players/records?perPage=20&sort=id&skipTotal=1&fields=id&cursor={cursor}");
        match site.fetch(&path)?.json()?["nextCursor"].as_str() {
            Some(next) if !next.is_empty() => cursor = next.to_owned(),
            _ => return Ok(None),
        }
    }
    Ok(Some(cursor))
}
