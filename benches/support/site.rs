//! One server under comparison with everything needed to ask it: address, token, ids, and how its requests look.
//!
//! Keeps true: both kinds of site answer the same five questions over data of the same amounts, and are checked to
//! answer them rightly before anything is measured. Does not do: measuring.

use super::load::{self, Answer, Fill};
use super::process::{self, Server};
use super::rng::{Rng, Zipf};
use super::{bare, tournament};
use anyhow::{Context, ensure};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;
use tenantry::kernel::clock;

/// Requests choose among this many players.
const HOT_PLAYERS: usize = 2_000;
/// Requests choose among this many pages of the list.
const HOT_PAGES: usize = 10;
const EMAIL: &str = "bench@example.com";
const PASSWORD: &str = "a password for one bench run";
const TENANT: &str = "/t/demo-org";

/// The requests of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// One player by id.
    Get,
    /// Twenty players of twenty thousand, with the total.
    List,
    /// Fifty players of one tournament, most chips first.
    Leaderboard,
    /// One new player.
    Create,
    /// 10 % create, 45 % get, 25 % list, 20 % leaderboard.
    Mix,
}

/// How reads are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The whole body.
    Plain,
    /// With the tag of the answer, so that it is 304.
    Conditional,
    /// Accepting brotli.
    Compressed,
}

/// A running server and how to ask it.
pub(crate) struct Site {
    /// The process.
    pub(crate) server: Server,
    /// Its folder.
    pub(crate) dir: PathBuf,
    headers: Vec<String>,
    ids: tournament::Ids,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bare,
    Tenantry,
}

impl Site {
    /// Starts the yardstick on fresh sample data in `dir`.
    pub(crate) fn start_bare(dir: PathBuf, cached: bool) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let ids = tournament::create(&dir.join("bare.db"))?;
        let server = Server::start_bare(&dir, cached)?;
        let headers = vec![format!("Authorization: {}", bare::token())];
        let site = Self { server, dir, headers, ids, kind: Kind::Bare };
        site.check()?;
        Ok(site)
    }

    /// Starts the real binary with the demo data in `dir` and logs in.
    pub(crate) fn start_tenantry(dir: PathBuf, cached: bool) -> anyhow::Result<Self> {
        Self::start_tenantry_with(dir, cached, &[])
    }

    /// The same with some configuration, as environment variables.
    pub(crate) fn start_tenantry_with(dir: PathBuf, cached: bool, config: &[(&str, &str)]) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        create_superuser(&dir)?;
        let server = serve_tenantry(&dir, cached, &["--demo"], config)?;
        let ids = tournament::Ids { tournaments: Vec::new(), players: Vec::new() };
        let mut site = Self { server, dir, headers: Vec::new(), ids, kind: Kind::Tenantry };
        site.log_in()?;
        site.await_demo()?;
        site.ids = tournament::Ids { tournaments: site.list_ids("tournaments")?, players: site.list_ids("players")? };
        site.check()?;
        Ok(site)
    }

    /// The load of one kind of question.
    pub(crate) fn requests(&self, ask: Ask, form: Form) -> anyhow::Result<Fill> {
        let wanted = |part: Ask| ask == part || ask == Ask::Mix;
        let reads = |part: Ask, paths: Vec<String>| -> anyhow::Result<Vec<Vec<u8>>> {
            if wanted(part) { paths.iter().map(|path| self.read(path, form)).collect() } else { Ok(Vec::new()) }
        };
        let gets = reads(Ask::Get, self.get_paths())?;
        let lists = reads(Ask::List, (1..=HOT_PAGES).map(|page| self.list_path(page)).collect())?;
        let boards = reads(Ask::Leaderboard, self.board_paths())?;
        let create = self.creates();
        let read_status = if form == Form::Conditional { 304 } else { 200 };
        Ok(Rc::new(move |rng: &mut Rng, out: &mut Vec<u8>| {
            match ask.draw(rng) {
                Ask::List => out.extend_from_slice(rng.pick::<Vec<u8>>(&lists)),
                Ask::Leaderboard => out.extend_from_slice(rng.pick::<Vec<u8>>(&boards)),
                Ask::Get | Ask::Mix => out.extend_from_slice(rng.pick::<Vec<u8>>(&gets)),
                Ask::Create => return create(rng, out),
            }
            read_status
        }))
    }

    /// One new player after the other.
    pub(crate) fn creates(&self) -> Fill {
        let (path, headers, ids) = (self.create_path(), self.headers.clone(), self.ids.clone());
        Rc::new(move |rng: &mut Rng, out: &mut Vec<u8>| {
            load::write_request(out, "POST", &path, &headers, Some(&new_player(rng, &ids)));
            200
        })
    }

    /// The paths of the players that requests choose among.
    pub(crate) fn get_paths(&self) -> Vec<String> {
        self.ids.players.iter().take(HOT_PLAYERS).map(|id| self.get_path(id)).collect()
    }

    /// The paths of all leaderboards.
    pub(crate) fn board_paths(&self) -> Vec<String> {
        self.ids.tournaments.iter().map(|id| self.board_path(id)).collect()
    }

    /// The paths of the first twenty players of every tournament, by name.
    pub(crate) fn roster_paths(&self) -> Vec<String> {
        let path = |id: &String| {
            format!(
                "{TENANT}/api/collections/players/records?filter=tournament%3D%27{id}%27&sort=display_name&perPage=20"
            )
        };
        self.ids.tournaments.iter().map(path).collect()
    }

    /// Stops the real binary gracefully and starts it again on its folder.
    pub(crate) fn restart_tenantry(mut self, cached: bool) -> anyhow::Result<Self> {
        self.server.stop()?;
        self.server = serve_tenantry(&self.dir, cached, &[], &[])?;
        Ok(self)
    }

    /// Kills the real binary and starts it again on its folder.
    pub(crate) fn restart_killed(mut self) -> anyhow::Result<Self> {
        self.server.kill()?;
        self.server = serve_tenantry(&self.dir, true, &[], &[])?;
        Ok(self)
    }

    /// Stops the real binary, takes its cache folder away, and starts it again.
    pub(crate) fn restart_without_cache_folder(mut self) -> anyhow::Result<Self> {
        self.server.stop()?;
        std::fs::remove_dir_all(self.dir.join("cache"))?;
        self.server = serve_tenantry(&self.dir, true, &[], &[])?;
        Ok(self)
    }

    /// Changes of the players that reads choose among, the hottest most often.
    pub(crate) fn updates(&self, exponent: f64) -> Fill {
        let (paths, headers) = (self.get_paths(), self.headers.clone());
        let zipf = Zipf::new(paths.len(), exponent);
        Rc::new(move |rng: &mut Rng, out: &mut Vec<u8>| {
            let body = format!(r#"{{"chips":{}}}"#, rng.below(50_000));
            if let Some(path) = paths.get(zipf.draw(rng)) {
                load::write_request(out, "PATCH", path, &headers, Some(&body));
            }
            200
        })
    }

    /// Asks once with the token of this site.
    pub(crate) fn fetch(&self, path: &str) -> anyhow::Result<Answer> {
        load::fetch(self.server.addr, &self.render(path))
    }

    /// A GET with the token of this site.
    pub(crate) fn render(&self, path: &str) -> Vec<u8> {
        load::render("GET", path, &self.headers, None)
    }

    /// Registers an ordinary user of the demo tenant; the headers with which they ask.
    pub(crate) fn register_user(&self) -> anyhow::Result<Vec<String>> {
        let account =
            serde_json::json!({ "email": "player@example.com", "password": PASSWORD, "passwordConfirm": PASSWORD });
        let path = format!("{TENANT}/api/collections/users/records");
        let made =
            load::fetch(self.server.addr, &load::render("POST", &path, &self.headers, Some(&account.to_string())))?;
        ensure!(made.status == 200, "a user: {}", made.head);
        let login = serde_json::json!({ "identity": "player@example.com", "password": PASSWORD }).to_string();
        let path = format!("{TENANT}/api/collections/users/auth-with-password");
        let answer = load::fetch(self.server.addr, &load::render("POST", &path, &[], Some(&login)))?.json()?;
        let token = answer["token"].as_str().with_context(|| format!("log in: {answer}"))?;
        Ok(vec![format!("Authorization: {token}")])
    }

    /// The headers of the superuser.
    pub(crate) fn headers(&self) -> &[String] {
        &self.headers
    }

    /// The id of some tournament.
    pub(crate) fn tournament(&self) -> &str {
        self.ids.tournaments.first().map_or("", String::as_str)
    }

    /// Up to three relation fields of a collection.
    pub(crate) fn relations(&self, collection: &str) -> anyhow::Result<Vec<String>> {
        let collection = self.fetch(&format!("{TENANT}/api/collections/{collection}"))?.json()?;
        let fields = collection["fields"].as_array().with_context(|| format!("no fields: {collection}"))?;
        let relations = fields.iter().filter(|field| field["type"] == "relation");
        Ok(relations.filter_map(|field| Some(field["name"].as_str()?.to_owned())).take(3).collect())
    }

    /// A read in the asked form; a conditional one asks for the tag first.
    pub(crate) fn read(&self, path: &str, form: Form) -> anyhow::Result<Vec<u8>> {
        let mut headers = self.headers.clone();
        match form {
            Form::Plain => {}
            Form::Compressed => headers.push("Accept-Encoding: br".to_owned()),
            Form::Conditional => {
                let answer = self.fetch(path)?;
                let tag = answer.header("etag").with_context(|| format!("no ETag on {path}"))?;
                headers.push(format!("If-None-Match: {tag}"));
            }
        }
        Ok(load::render("GET", path, &headers, None))
    }

    /// Wrong answers are fast; so they are ruled out first.
    fn check(&self) -> anyhow::Result<()> {
        let list = self.fetch(&self.list_path(1))?.json()?;
        ensure!(list["items"].as_array().map(Vec::len) == Some(20), "list: {list}");
        ensure!(
            list["totalItems"].as_u64().unwrap_or(0) >= tournament::PLAYERS as u64,
            "total: {}",
            list["totalItems"]
        );
        for id in &self.ids.tournaments {
            let board = self.fetch(&self.board_path(id))?.json()?;
            ensure!(board["items"].as_array().map(Vec::len) == Some(50), "leaderboard {id}: {board}");
        }
        let id = self.ids.players.first().context("no players")?;
        let player = self.fetch(&self.get_path(id))?.json()?;
        ensure!(player["id"] == id.as_str(), "{player}");
        Ok(())
    }

    fn get_path(&self, id: &str) -> String {
        match self.kind {
            Kind::Bare => format!("/players/{id}"),
            Kind::Tenantry => format!("{TENANT}/api/collections/players/records/{id}"),
        }
    }

    /// The path of one page of twenty players.
    pub(crate) fn list_path(&self, page: usize) -> String {
        match self.kind {
            Kind::Bare => format!("/players?page={page}"),
            Kind::Tenantry => format!("{TENANT}/api/collections/players/records?page={page}&perPage=20"),
        }
    }

    fn board_path(&self, tournament: &str) -> String {
        match self.kind {
            Kind::Bare => format!("/leaderboards/{tournament}"),
            Kind::Tenantry => format!(
                "{TENANT}/api/collections/players/records?filter=tournament%3D%27{tournament}%27&sort=-chips&perPage=50&skipTotal=1"
            ),
        }
    }

    fn create_path(&self) -> String {
        match self.kind {
            Kind::Bare => "/players".to_owned(),
            Kind::Tenantry => format!("{TENANT}/api/collections/players/records"),
        }
    }
}

impl Site {
    fn log_in(&mut self) -> anyhow::Result<()> {
        let body = serde_json::json!({ "identity": EMAIL, "password": PASSWORD }).to_string();
        let path = "/api/collections/_superusers/auth-with-password";
        let answer = load::fetch(self.server.addr, &load::render("POST", path, &[], Some(&body)))?.json()?;
        let token = answer["token"].as_str().with_context(|| format!("log in: {answer}"))?;
        self.headers = vec![format!("Authorization: {token}")];
        Ok(())
    }

    /// The demo data is written after the node answers; waits until the last collection is full.
    fn await_demo(&self) -> anyhow::Result<()> {
        let began = clock::instant();
        for (collection, wanted) in [("players", tournament::PLAYERS), ("matches", tournament::MATCHES)] {
            let path = format!("{TENANT}/api/collections/{collection}/records?perPage=1");
            loop {
                let answer = self.fetch(&path)?;
                let total = answer.json().ok().and_then(|list| list["totalItems"].as_u64()).unwrap_or(0);
                if total >= wanted as u64 {
                    break;
                }
                ensure!(
                    began.elapsed() < Duration::from_secs(300),
                    "{collection}: {total} of {wanted}: {}",
                    answer.head
                );
                process::pause(Duration::from_millis(100));
            }
        }
        Ok(())
    }

    fn list_ids(&self, collection: &str) -> anyhow::Result<Vec<String>> {
        let mut ids = Vec::new();
        for page in 1..=HOT_PLAYERS.div_ceil(500) {
            let path = format!("{TENANT}/api/collections/{collection}/records?perPage=500&page={page}&fields=id");
            let list = self.fetch(&path)?.json()?;
            let items = list["items"].as_array().with_context(|| format!("{collection}: {list}"))?;
            ids.extend(items.iter().filter_map(|item| Some(item["id"].as_str()?.to_owned())));
        }
        Ok(ids)
    }
}

impl Ask {
    /// One of the four plain questions; only the mix draws.
    fn draw(self, rng: &mut Rng) -> Self {
        if self != Self::Mix {
            return self;
        }
        match rng.below(100) {
            0..10 => Self::Create,
            10..55 => Self::Get,
            55..80 => Self::List,
            _ => Self::Leaderboard,
        }
    }
}

/// The same new player for both sides; a player without an account is what both indexes and relations allow freely.
fn new_player(rng: &mut Rng, ids: &tournament::Ids) -> String {
    let (tournament, number) = (rng.pick(&ids.tournaments), rng.next() % 1_000_000_000);
    let chips = number % 50_000;
    format!(
        r#"{{"tournament":"{tournament}","user":"","display_name":"Player Number {number}","status":"registered","chips":{chips},"table_no":4,"seat":7,"place":0,"registered_at":"2026-03-01 18:00:00.000Z"}}"#
    )
}

/// Where cargo put the real binary, built with the profile of this bench.
fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tenantry"))
}

fn create_superuser(dir: &Path) -> anyhow::Result<()> {
    let mut command = binary();
    command.args(["superuser", "create", EMAIL, "--password-stdin", "--data-dir"]).arg(dir);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let mut input = child.stdin.take().context("a piped input")?;
    writeln!(input, "{PASSWORD}")?;
    drop(input);
    ensure!(child.wait()?.success(), "the superuser was not created");
    Ok(())
}

fn serve_tenantry(dir: &Path, cached: bool, extra: &[&str], config: &[(&str, &str)]) -> anyhow::Result<Server> {
    let addr = process::free_address()?;
    let mut command = binary();
    command.args(["serve", "--listen", &addr.to_string(), "--data-dir"]).arg(dir).args(extra);
    command.env("TENANTRY__CACHE__ENABLED", cached.to_string()).env("TENANTRY__HTTP__WORKERS", "2");
    command.envs(config.iter().copied());
    command.stderr(std::fs::File::create(dir.join("stderr.log"))?);
    Server::start(command, addr, "/api/health")
        .with_context(|| std::fs::read_to_string(dir.join("stderr.log")).unwrap_or_default())
}
