//! The cache as clients see it, superuser, user and stranger: hits against misses, hit rates of a Zipf mix, bytes saved, and
//! how soon it is warm again after a stop, a kill, or with nothing left.
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
use support::site::Site;
use tenantry::kernel::clock;

/// Exponent of the Zipf mix; web traffic is measured between 0.7 and 1.1.
const EXPONENT: f64 = 0.99;
const CONNECTIONS: usize = 32;
const PAGES: usize = 50;
/// Share of hits at which a node counts as warm.
const WARM: f64 = 0.95;
/// Requests after which that is looked at.
const WARM_STEP: usize = 200;
/// Looks after which it is given up.
const WARM_STEPS_MAX: usize = 200;
/// How long a node has to serve before it has written down what is hot, whatever happens to it then.
const LEARN: Duration = Duration::from_secs(70);

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
    measure_callers(&site, &mut report)?;
    let site = measure_restart(site, &keys, misses, &mut report)?;
    measure_warming(&args, site, &keys, &mut report)?;
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

/// What is written between the reads: new records, or the hot ones themselves.
#[derive(Debug, Clone, Copy)]
enum Writes {
    Creates,
    Updates,
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

    /// 50 % by id, 28 % lists, 22 % leaderboards, each by Zipf; and `percent` writes on top.
    fn mix(&self, site: &Site, lists: Lists, writes: Writes, percent: usize) -> Fill {
        let zipf = |requests: &[Vec<u8>]| (requests.to_vec(), Zipf::new(requests.len(), EXPONENT));
        let lists = match lists {
            Lists::OfAll => &self.lists,
            Lists::OfOneTournament => &self.rosters,
        };
        let kinds = [zipf(&self.gets), zipf(lists), zipf(&self.boards)];
        let write = match writes {
            Writes::Creates => site.creates(),
            Writes::Updates => site.updates(EXPONENT),
        };
        Rc::new(move |rng: &mut Rng, out: &mut Vec<u8>| {
            if rng.below(100) < percent {
                return write(rng, out);
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
        ("reads only", Lists::OfAll, Writes::Creates, 0, "95 %"),
        ("10 % creates, lists of one tournament", Lists::OfOneTournament, Writes::Creates, 10, "80 %"),
        ("10 % creates, lists of all players", Lists::OfAll, Writes::Creates, 10, "80 %"),
        ("10 % changes of hot records, lists of one tournament", Lists::OfOneTournament, Writes::Updates, 10, "80 %"),
        ("10 % changes of hot records, lists of all players", Lists::OfAll, Writes::Updates, 10, "80 %"),
    ];
    for (name, lists, writes, percent_written, target) in mixes {
        let outcome = load::drive(site.server.addr, &keys.mix(site, lists, writes, percent_written), plan)?;
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

/// The same reads by a superuser, a user and a stranger, as far as each may ask them; one connection.
fn measure_callers(site: &Site, report: &mut Report) -> anyhow::Result<()> {
    let user = site.register_user()?;
    let paths: Vec<String> = [site.get_paths(), (1..=PAGES).map(|page| site.list_path(page)).collect()].concat();
    for (name, headers) in [("superuser", site.headers()), ("user", &user), ("stranger", &[][..])] {
        let mut requests = Vec::new();
        for path in &paths {
            let request = load::render("GET", path, headers, None);
            if load::fetch(site.server.addr, &request)?.status == 200 {
                requests.push(request);
            }
        }
        let hits = load::sweep(site.server.addr, &requests)?;
        let detail = format!("{} of {} reads allowed; {}", requests.len(), paths.len(), sources(&hits));
        report.row(vec![format!("hit in memory as a {name}"), time_us(hits.p50_us), String::new(), detail]);
    }
    Ok(())
}

/// Stops and starts the node: is it still warm, and what does an answer from disk cost?
fn measure_restart(site: Site, keys: &Keys, misses: Outcome, report: &mut Report) -> anyhow::Result<Site> {
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
    Ok(site)
}

/// From a start until 95 % of the mix are hits: with what an orderly stop leaves, with what a kill leaves, with nothing.
fn measure_warming(args: &Args, site: Site, keys: &Keys, report: &mut Report) -> anyhow::Result<()> {
    let window = if args.quick { args.window() } else { LEARN };
    let learn = |site: &Site| {
        let plan = Plan { connections: CONNECTIONS, warmup: args.warmup(), window, seed: 5 };
        load::drive(site.server.addr, &keys.mix(site, Lists::OfAll, Writes::Creates, 0), plan)
    };
    learn(&site)?;
    let site = site.restart_tenantry(true)?;
    report.row(until_warm(&site, keys, "an orderly stop")?);
    learn(&site)?;
    let site = site.restart_killed()?;
    report.row(until_warm(&site, keys, "a kill")?);
    learn(&site)?;
    let site = site.restart_without_cache_folder()?;
    report.row(until_warm(&site, keys, "a stop, without hot list and disk tier")?);
    Ok(())
}

fn until_warm(site: &Site, keys: &Keys, after: &str) -> anyhow::Result<Vec<String>> {
    let (mix, mut rng) = (keys.mix(site, Lists::OfAll, Writes::Creates, 0), Rng::new(7));
    let (began, mut rates) = (clock::instant(), Vec::new());
    for _ in 0..WARM_STEPS_MAX {
        let requests: Vec<Vec<u8>> = (0..WARM_STEP)
            .map(|_| {
                let mut request = Vec::new();
                mix(&mut rng, &mut request);
                request
            })
            .collect();
        rates.push(load::sweep(site.server.addr, &requests)?.hit_rate());
        if rates.last().is_some_and(|rate| *rate >= WARM) {
            break;
        }
    }
    let (asked, first) = (rates.len() * WARM_STEP, rates.first().copied().unwrap_or(0.0));
    Ok(vec![
        format!("until 95 % hits after {after}"),
        time_us(began.elapsed().as_micros() as f64),
        String::new(),
        format!(
            "{asked} requests, {} of the first {WARM_STEP}; last {}",
            percent(first),
            percent(*rates.last().unwrap_or(&0.0))
        ),
    ])
}

/// Bytes of the demo tenant's lists, each coding against plain.
fn measure_savings(site: &Site, report: &mut Report) -> anyhow::Result<()> {
    for (coding, target) in [("br", "70 %"), ("zstd", ""), ("gzip", "")] {
        let headers = [site.headers(), &[format!("Accept-Encoding: {coding}")]].concat();
        let (mut plain, mut compressed) = (0, 0);
        for collection in ["tournaments", "players", "matches"] {
            for page in 1..=10 {
                let path = format!("/t/demo-org/api/collections/{collection}/records?page={page}&perPage=20");
                plain += site.fetch(&path)?.body.len();
                let answer = load::fetch(site.server.addr, &load::render("GET", &path, &headers, None))?;
                ensure!(answer.header("content-encoding") == Some(coding), "{path} came without {coding}");
                compressed += answer.body.len();
            }
        }
        let saved = 1.0 - compressed as f64 / plain.max(1) as f64;
        let detail = format!("{} → {} bytes", count(plain as f64), count(compressed as f64));
        report.row(vec![format!("bytes saved on lists, {coding}"), percent(saved), target.to_owned(), detail]);
    }
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
