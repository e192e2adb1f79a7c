//! Over HTTP, in one run: the real binary against the bare yardstick (DESIGN.md 11), 32 keep-alive connections.
//!
//! Keeps true: every contestant is a process of its own, started fresh, with the same data shape and the same client.
//! Does not do: absolute promises; the ratios are the result, the rates belong to the machine named beside them.

mod support;

use anyhow::ensure;
use std::path::Path;
use std::rc::Rc;
use support::args::Args;
use support::load::{self, Fill, Plan};
use support::process::Server;
use support::report::{Report, count, time_us};
use support::rng::Rng;
use support::rounds::{self, Contestant};
use support::{bare, tournament};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECTIONS: usize = 32;
/// Requests choose among this many players, pages and tournaments.
const HOT_PLAYERS: usize = 2_000;
const HOT_PAGES: usize = 10;

fn main() -> anyhow::Result<()> {
    let Some(args) = Args::read() else { return Ok(()) };
    match &args.bare {
        Some(dir) => bare::serve(dir, args.cached),
        None => measure(&args),
    }
}

fn measure(args: &Args) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let site = Bare::start(dir.path())?;
    let columns = ["work", "bare", "bare cached", "ratio", "p50/p99 bare", "p50/p99 cached", "CPU/request", "bytes"];
    let mut report = Report::new("http", &columns, args);
    for work in Work::ALL.into_iter().filter(|work| args.wants(work.name())) {
        let plan = Plan { connections: CONNECTIONS, warmup: args.warmup(), window: args.window(), seed: 7 };
        let contestants = [
            Contestant { name: "bare", server: &site.plain, fill: site.requests(work) },
            Contestant { name: "bare cached", server: &site.cached, fill: site.requests(work) },
        ];
        let results = rounds::run(&contestants, args.rounds, plan)?;
        let (a, b) = (&results[0], &results[1]);
        let quantiles =
            |r: &rounds::Result| format!("{} / {}", time_us(r.median(|o| o.p50_us)), time_us(r.median(|o| o.p99_us)));
        report.row(vec![
            work.name().to_owned(),
            count(a.median(|o| o.per_second)),
            count(b.median(|o| o.per_second)),
            format!("{:.2}", b.ratio_to(a)),
            quantiles(a),
            quantiles(b),
            format!("{} / {}", time_us(a.cpu_median_us()), time_us(b.cpu_median_us())),
            count(a.median(|o| o.bytes_per_answer)),
        ]);
    }
    report.finish()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Get,
    List,
    Leaderboard,
    Create,
    Mix,
}

impl Work {
    const ALL: [Self; 5] = [Self::Get, Self::List, Self::Leaderboard, Self::Create, Self::Mix];

    fn name(self) -> &'static str {
        match self {
            Self::Get => "read by id",
            Self::List => "list 20 of 20,000 with total",
            Self::Leaderboard => "leaderboard of 50",
            Self::Create => "durable create",
            Self::Mix => "mix 10/45/25/20",
        }
    }
}

struct Bare {
    plain: Server,
    cached: Server,
    ids: tournament::Ids,
    headers: Vec<String>,
}

impl Bare {
    fn start(dir: &Path) -> anyhow::Result<Self> {
        let (plain_dir, cached_dir) = (dir.join("plain"), dir.join("cached"));
        std::fs::create_dir_all(&plain_dir)?;
        std::fs::create_dir_all(&cached_dir)?;
        let ids = tournament::create(&plain_dir.join("bare.db"))?;
        std::fs::copy(plain_dir.join("bare.db"), cached_dir.join("bare.db"))?;
        let (plain, cached) = (Server::start_bare(&plain_dir, false)?, Server::start_bare(&cached_dir, true)?);
        let site = Self { plain, cached, ids, headers: vec![format!("Authorization: {}", bare::token())] };
        for server in [&site.plain, &site.cached] {
            site.check(server)?;
        }
        Ok(site)
    }

    /// Wrong answers are fast; so they are ruled out first.
    fn check(&self, server: &Server) -> anyhow::Result<()> {
        let get = |path: &str| load::fetch(server.addr, &load::render("GET", path, &self.headers, None));
        let refused = load::fetch(server.addr, &load::render("GET", "/players?page=1", &[], None))?;
        ensure!(refused.status == 401, "a request without a token got {}", refused.status);
        for (path, items) in
            [("/players?page=1".to_owned(), 20), (format!("/leaderboards/{}", self.ids.tournaments[0]), 50)]
        {
            let list = get(&path)?.json()?;
            ensure!(list["items"].as_array().map(Vec::len) == Some(items), "{path}: {list}");
        }
        let player = get(&format!("/players/{}", self.ids.players[0]))?.json()?;
        ensure!(player["id"] == self.ids.players[0].as_str(), "{player}");
        Ok(())
    }

    fn requests(&self, work: Work) -> Fill {
        let (ids, headers) = (self.ids.clone(), self.headers.clone());
        let get = |path: String| load::render("GET", &path, &headers, None);
        let gets: Vec<_> = ids.players.iter().take(HOT_PLAYERS).map(|id| get(format!("/players/{id}"))).collect();
        let lists: Vec<_> = (1..=HOT_PAGES).map(|page| get(format!("/players?page={page}"))).collect();
        let boards: Vec<_> = ids.tournaments.iter().map(|id| get(format!("/leaderboards/{id}"))).collect();
        Rc::new(move |rng: &mut Rng, out: &mut Vec<u8>| {
            match work.draw(rng) {
                Work::List => out.extend_from_slice(rng.pick::<Vec<u8>>(&lists)),
                Work::Leaderboard => out.extend_from_slice(rng.pick::<Vec<u8>>(&boards)),
                Work::Create => {
                    let body = new_player(rng, &ids);
                    load::write_request(out, "POST", "/players", &headers, Some(&body));
                }
                Work::Get | Work::Mix => out.extend_from_slice(rng.pick::<Vec<u8>>(&gets)),
            }
            200
        })
    }
}

impl Work {
    /// One of the four requests; only the mix draws.
    fn draw(self, rng: &mut Rng) -> Self {
        match (self, rng.below(100)) {
            (Self::Mix, 0..10) => Self::Create,
            (Self::Mix, 10..55) => Self::Get,
            (Self::Mix, 55..80) => Self::List,
            (Self::Mix, _) => Self::Leaderboard,
            (work, _) => work,
        }
    }
}

fn new_player(rng: &mut Rng, ids: &tournament::Ids) -> String {
    let (tournament, user, number) = (rng.pick(&ids.tournaments), rng.record_id(), rng.next() % 1_000_000_000);
    format!(
        r#"{{"tournament":"{tournament}","user":"{user}","name":"Player Number {number}","email":"p{number}@example.com","status":"registered","chips":{}}}"#,
        number % 50_000
    )
}
