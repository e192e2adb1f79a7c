//! What a question costs: the language alone, whole answers of the demo tenant over HTTP without the cache, by a superuser
//! and under the rules as an ordinary user, and rows in bulk.
//!
//! Keeps true: an answer is measured only after it was seen to have the rows it should. Does not do: concurrency; one
//! connection asks, so the latency is that of the answer and not of a queue (`http` measures load).

mod support;

use anyhow::Context;
use std::rc::Rc;
use support::args::Args;
use support::bulk::{Bulk, Form};
use support::load::{self, Fill, Plan};
use support::plans::Planner;
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
    measure_plans(&args)?;
    if args.bare_only {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let site = Site::start_tenantry(dir.path().join("tenantry"), false)?;
    measure_answers(&args, &site)?;
    if args.wants("bulk") { measure_bulk(&args, &site) } else { Ok(()) }
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

/// The plan of a whole list, made and remembered.
fn measure_plans(args: &Args) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let planner = runtime.block_on(Planner::start(dir.path()))?;
    let mut report = Report::new("query-plans", &["filter of a list", "plan made", "plan from memory"], args);
    let schema = per_call_us(Planner::schema_alone);
    for (name, filter) in FILTERS.into_iter().filter(|(name, _)| args.wants(name)) {
        let root = if name == "back-relation" { "tournaments" } else { "players" };
        planner.plan(root, filter)?;
        let made = (per_call_us(|| planner.plan_anew(root, filter).is_ok()) - schema).max(0.0);
        let kept = per_call_us(|| planner.plan(root, filter).is_ok());
        report.row(vec![name.to_owned(), time_us(made), time_us(kept)]);
    }
    report.finish()
}

/// A hundred thousand rows in and out.
fn measure_bulk(args: &Args, site: &Site) -> anyhow::Result<()> {
    let rows = if args.quick { 5_000 } else { 100_000 };
    let bulk = Bulk::new(site, rows)?;
    let mut report = Report::new("query-bulk", &["rows", "form", "dry run", "import", "export"], args);
    for form in [Form::Ndjson, Form::Csv] {
        let text = bulk.text(form);
        let dry = bulk.import(form, &text, "&dryRun=1")?;
        let import = bulk.import(form, &text, "")?;
        let export = bulk.export(form)?;
        bulk.empty()?;
        let shown = |took: std::time::Duration| format!("{:.2} s", took.as_secs_f64());
        report.row(vec![rows.to_string(), form.name().to_owned(), shown(dry), shown(import), shown(export)]);
    }
    report.finish()
}

/// One question: its name, its path below the collections, and how many items a right answer has at least.
struct Question {
    name: &'static str,
    path: String,
    items: usize,
}

fn measure_answers(args: &Args, site: &Site) -> anyhow::Result<()> {
    let user = site.register_user()?;
    let columns = ["question", "asked by", "p50", "p99", "CPU per request", "bytes"];
    let mut report = Report::new("query-answers", &columns, args);
    let questions = questions(site)?;
    let wanted = questions.iter().filter(|question| args.wants(question.name));
    // A user sees fewer players than there are, so the page 1,000 deep is beyond the last one.
    let asks = |question: &Question, who: &str| who == "superuser" || !question.name.ends_with("deep");
    for (question, (who, headers)) in
        wanted.flat_map(|question| [("superuser", site.headers()), ("a user", &user)].map(|caller| (question, caller)))
    {
        if !asks(question, who) {
            continue;
        }
        let request = load::render("GET", &format!("{API}{}", question.path), headers, None);
        let answer = load::fetch(site.server.addr, &request)?;
        let items = answer.json().ok().and_then(|list| list["items"].as_array().map(Vec::len)).unwrap_or(0);
        if answer.status != 200 || items < question.items {
            let why = format!("not measured: {} with {items} items", answer.status);
            let none = String::new;
            report.row(vec![question.name.to_owned(), who.to_owned(), why, none(), none(), none()]);
            continue;
        }
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
            who.to_owned(),
            time_us(outcome.p50_us),
            time_us(outcome.p99_us),
            time_us(cpu),
            count(outcome.bytes_per_answer),
        ]);
    }
    report.finish()
}

fn questions(site: &Site) -> anyhow::Result<Vec<Question>> {
    let open = format!("{API}/tournaments/records?perPage=1&filter={}", "status%20%21%3D%20%27draft%27");
    let open = site.fetch(&open)?.json()?;
    // Not a draft, so that everybody may see its players.
    let tournament = open["items"][0]["id"].as_str().context("a tournament that is no draft")?;
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
        // About a hundred players of each, numbered by a window so that none goes past the first thousand.
        question(
            "expand 20 rows, back-relation",
            20,
            "/tournaments/records?perPage=20&skipTotal=1&expand=players_via_tournament".into(),
        ),
        question(
            "expand 1 row, back-relation",
            1,
            "/tournaments/records?perPage=1&skipTotal=1&expand=players_via_tournament".into(),
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
