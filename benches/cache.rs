//! The cache as a client sees it: hits against misses, hit rates of a Zipf mix, bytes saved, warm after a restart.
//!
//! Keeps true: where an answer came from is what its `X-Cache` header says, and a figure of one source counts only its
//! answers. Does not do: coherence; that is a simulation in the tests.

mod support;

use anyhow::ensure;
use std::rc::Rc;
use std::time::Duration;
use support::args::Args;
use support::load::{self, Fill, Outcome, Plan};
use support::process;
use support::report::{Report, count, time_us};
use support::rng::{Rng, Zipf};
use support::site::{Form, Site};

/// Exponent of the Zipf mix; web traffic is measured between 0.7 and 1.1.
const EXPONENT: f64 = 0.99;
const CONNECTIONS: usize = 32;
const PAGES: usize = 50;

fn main() -> anyhow::Result<()> {
    let Some(args) = Args::read() else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let mut report = Report::new("cache", &["what", "figure", "target", "detail"], &args);
    let cold = Site::start_tenantry(dir.path().join("off"), false)?;
    let site = Site::start_tenantry(dir.path().join("on"), true)?;
    measure_savings(&site, &mut report)?;
    // Each node draws its own ids.
    let misses = load::sweep(cold.server.addr, &Keys::of(&cold).all())?;
    let keys = Keys::of(&site);
    drop(cold);
    measure_hits(&args, &site, &keys, misses, &mut report)?;
    measure_restart(site, &keys, misses, &mut report)?;
    report.finish()
}

/// The requests of the mix, hottest first within each kind.
struct Keys {
    gets: Vec<Vec<u8>>,
    lists: Vec<Vec<u8>>,
    boards: Vec<Vec<u8>>,
    /// Twenty players of one tournament, by name.
    rosters: Vec<Vec<u8>>,
}

/// Which lists the mix asks for: every create ages a list over all players, and only those of its own tournament.
#[derive(Debug, Clone, Copy)]
enum Lists {
    OfAll,
    OfOneTournament,
}

impl Keys {
    fn of(site: &Site) -> Self {
        let render = |paths: Vec<String>| paths.iter().map(|path| site.render(path)).collect();
        Self {
            gets: render(site.get_paths()),
            lists: render((1..=PAGES).map(|page| site.list_path(page)).collect()),
            boards: render(site.board_paths()),
            rosters: render(site.roster_paths()),
        }
    }

    fn all(&self) -> Vec<Vec<u8>> {
        [&self.gets, &self.lists, &self.boards].into_iter().flatten().cloned().collect()
    }

    /// 50 % by id, 28 % lists, 22 % leaderboards, each by Zipf; and `writes` percent creates on top.
    fn mix(&self, site: &Site, lists: Lists, writes: usize) -> Fill {
        let zipf = |requests: &[Vec<u8>]| (requests.to_vec(), Zipf::new(requests.len(), EXPONENT));
        let lists = match lists {
            Lists::OfAll => &self.lists,
            Lists::OfOneTournament => &self.rosters,
        };
        let kinds = [zipf(&self.gets), zipf(lists), zipf(&self.boards)];
        let create = site.creates();
        Rc::new(move |rng: &mut Rng, out: &mut Vec<u8>| {
            if rng.below(100) < writes {
                return create(rng, out);
            }
            let [gets, lists, boards] = &kinds;
            let (requests, zipf) = match rng.below(100) {
                0..50 => gets,
                50..78 => lists,
                _ => boards,
            };
            if let Some(request) = requests.get(zipf.draw(rng)) {
                out.extend_from_slice(request);
            }
            200
        })
    }
}

fn measure_hits(args: &Args, site: &Site, keys: &Keys, misses: Outcome, report: &mut Report) -> anyhow::Result<()> {
    let plan = Plan { connections: CONNECTIONS, warmup: args.warmup(), window: args.window(), seed: 3 };
    let mixes = [
        ("reads only", Lists::OfAll, 0, "95 %"),
        ("10 % creates, lists of one tournament", Lists::OfOneTournament, 10, "80 %"),
        ("10 % creates, lists of all players", Lists::OfAll, 10, "80 %"),
    ];
    for (name, lists, writes, target) in mixes {
        let outcome = load::drive(site.server.addr, &keys.mix(site, lists, writes), plan)?;
        ensure!(outcome.sources.iter().any(|source| source.count > 0), "no answer carries X-Cache");
        report.row(vec![
            format!("hit rate of a Zipf mix, {name}"),
            percent(outcome.hit_rate()),
            target.to_owned(),
            format!("{} answers/s, {}", count(outcome.per_second), sources(&outcome)),
        ]);
    }
    // One connection, so that a hit is compared with a miss and not with a queue.
    load::sweep(site.server.addr, &keys.all())?;
    let hits = load::sweep(site.server.addr, &keys.all())?;
    let detail = format!("{}; without the cache {}", sources(&hits), time_us(misses.p50_us));
    report.row(vec!["hit in memory, one connection".into(), time_us(hits.p50_us), String::new(), detail]);
    Ok(())
}

/// Stops and starts the node: is it still warm, and what does an answer from disk cost?
fn measure_restart(site: Site, keys: &Keys, misses: Outcome, report: &mut Report) -> anyhow::Result<()> {
    // Writing behind takes a moment; a warm cache that was never written down is not what is measured here.
    process::pause(Duration::from_secs(2));
    let site = site.restart_tenantry(true)?;
    let first = load::sweep(site.server.addr, &keys.all())?;
    let [_, l2, ..] = first.sources;
    report.row(vec![
        "hit rate of the first pass after a restart".into(),
        percent(first.hit_rate()),
        String::new(),
        format!("{}; started in {}", sources(&first), time_us(site.server.started_in.as_micros() as f64)),
    ]);
    report.row(vec![
        "hit on disk, one connection".into(),
        time_us(l2.p50_us),
        String::new(),
        format!("without the cache {}", time_us(misses.p50_us)),
    ]);
    Ok(())
}

/// Bytes of the demo tenant's lists, brotli against plain.
fn measure_savings(site: &Site, report: &mut Report) -> anyhow::Result<()> {
    let (mut plain, mut compressed) = (0, 0);
    for collection in ["tournaments", "players", "matches"] {
        for page in 1..=10 {
            let path = format!("/t/demo-org/api/collections/{collection}/records?page={page}&perPage=20");
            plain += site.fetch(&path)?.body.len();
            compressed += load::fetch(site.server.addr, &site.read(&path, Form::Compressed)?)?.body.len();
        }
    }
    let saved = 1.0 - compressed as f64 / plain.max(1) as f64;
    let detail = format!("{} → {} bytes", count(plain as f64), count(compressed as f64));
    report.row(vec!["bytes saved on lists, brotli".into(), percent(saved), "70 %".into(), detail]);
    Ok(())
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn sources(outcome: &Outcome) -> String {
    let named = load::SOURCES.iter().zip(outcome.sources).filter(|(_, source)| source.count > 0);
    named
        .map(|(name, source)| format!("{name} {} at {}", count(source.count as f64), time_us(source.p50_us)))
        .collect::<Vec<_>>()
        .join(", ")
}
