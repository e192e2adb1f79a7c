//! Over HTTP, in one run: the real binary against the bare yardstick (DESIGN.md 11), 32 keep-alive connections.
//!
//! Keeps true: every contestant is a process of its own, started fresh, with the same data shape and the same client.
//! Does not do: absolute promises; the ratios are the result, the rates belong to the machine named beside them.

mod support;

use std::path::Path;
use std::time::Duration;
use support::args::Args;
use support::load::Plan;
use support::report::{Report, count, time_us};
use support::rounds::{self, Contestant};
use support::site::{Ask, Form, Site};
use support::{bare, process};

const CONNECTIONS: usize = 32;

/// One line of the table in DESIGN.md 11.
struct Work {
    name: &'static str,
    ask: Ask,
    form: Form,
    /// Whether both sides answer from memory.
    cached: bool,
    /// The least ratio to the yardstick.
    target: f64,
}

const fn work(name: &'static str, ask: Ask, form: Form, cached: bool, target: f64) -> Work {
    Work { name, ask, form, cached, target }
}

const WORKS: [Work; 13] = [
    work("read by id", Ask::Get, Form::Plain, false, 0.9),
    work("list 20 of 20,000 with total", Ask::List, Form::Plain, false, 0.9),
    work("leaderboard of 50", Ask::Leaderboard, Form::Plain, false, 0.9),
    work("read by id, cached", Ask::Get, Form::Plain, true, 0.9),
    work("list, cached", Ask::List, Form::Plain, true, 0.9),
    work("leaderboard, cached", Ask::Leaderboard, Form::Plain, true, 0.9),
    work("read by id, 304", Ask::Get, Form::Conditional, true, 1.0),
    work("list, 304", Ask::List, Form::Conditional, true, 1.0),
    work("list, cached, compressed", Ask::List, Form::Compressed, true, 0.9),
    work("leaderboard, cached, compressed", Ask::Leaderboard, Form::Compressed, true, 0.9),
    work("durable create", Ask::Create, Form::Plain, false, 0.7),
    work("durable create, cache on", Ask::Create, Form::Plain, true, 0.7),
    work("mix 10/45/25/20", Ask::Mix, Form::Plain, true, 0.8),
];

fn main() -> anyhow::Result<()> {
    let Some(args) = Args::read() else { return Ok(()) };
    match &args.bare {
        Some(dir) => bare::serve(dir, args.cached),
        None => measure(&args),
    }
}

fn measure(args: &Args) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut sides = [Sides::start(args, dir.path(), false)?, Sides::start(args, dir.path(), true)?];
    let columns = ["work", "yardstick", "Tenantry", "ratio", "target", "p50 / p99", "CPU per request", "bytes"];
    let mut report = Report::new("http", &columns, args);
    for work in WORKS.iter().filter(|work| args.wants(work.name)) {
        let [plain, cached] = &sides;
        measure_work(args, work, if work.cached { cached } else { plain }, &mut report)?;
    }
    if let [_, Sides { tenantry: site @ Some(_), .. }] = &mut sides {
        measure_process(site, &mut report)?;
    }
    report.finish()
}

/// The yardstick and the real binary, both with or both without cached reads.
struct Sides {
    bare: Site,
    tenantry: Option<Site>,
}

impl Sides {
    fn start(args: &Args, dir: &Path, cached: bool) -> anyhow::Result<Self> {
        let name = |side: &str| dir.join(format!("{side}-{}", if cached { "cached" } else { "plain" }));
        let bare = Site::start_bare(name("bare"), cached)?;
        let tenantry = if args.bare_only { None } else { Some(Site::start_tenantry(name("tenantry"), cached)?) };
        Ok(Self { bare, tenantry })
    }
}

fn measure_work(args: &Args, work: &Work, sides: &Sides, report: &mut Report) -> anyhow::Result<()> {
    let mut contestants = Vec::new();
    for site in [Some(&sides.bare), sides.tenantry.as_ref()].into_iter().flatten() {
        contestants.push(Contestant { server: &site.server, fill: site.requests(work.ask, work.form)? });
    }
    let plan = Plan { connections: CONNECTIONS, warmup: args.warmup(), window: args.window(), seed: 7 };
    let results = rounds::run(&contestants, args.rounds, plan)?;
    let both = |figure: &dyn Fn(&rounds::Rounds) -> String| results.iter().map(figure).collect::<Vec<_>>().join(" · ");
    let rate = |at: usize| results.get(at).map_or("-".to_owned(), |side| count(side.median(|o| o.per_second)));
    let ratio = match &results[..] {
        [bare, tenantry] => format!("{:.2}", tenantry.ratio_to(bare)),
        _ => "-".to_owned(),
    };
    report.row(vec![
        work.name.to_owned(),
        rate(0),
        rate(1),
        ratio,
        format!("{:.1}", work.target),
        both(&|side| format!("{} / {}", time_us(side.median(|o| o.p50_us)), time_us(side.median(|o| o.p99_us)))),
        both(&|side| time_us(side.cpu_median_us())),
        both(&|side| count(side.median(|o| o.bytes_per_answer))),
    ]);
    Ok(())
}

/// Memory after the load, then a restart on the same folder: time to the first answer, memory at rest.
fn measure_process(slot: &mut Option<Site>, report: &mut Report) -> anyhow::Result<()> {
    let Some(site) = slot.take() else { return Ok(()) };
    let mut row = |name: &str, value: String, target: &str| {
        let empty = String::new;
        report.row(vec![name.to_owned(), empty(), value, empty(), target.to_owned(), empty(), empty(), empty()]);
    };
    let mib = |kib: u64| format!("{:.0} MiB", kib as f64 / 1024.0);
    row("resident memory after the load", mib(site.server.resident_kib()), "120 MB");
    let site = site.restart_tenantry(true)?;
    row("start on an existing folder", time_us(site.server.started_in.as_micros() as f64), "100 ms");
    process::pause(Duration::from_secs(1));
    row("resident memory at rest", mib(site.server.resident_kib()), "40 MB");
    Ok(())
}
