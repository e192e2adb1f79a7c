//! The yardstick: what a good engineer would write by hand for exactly these four requests, and nothing else.
//!
//! actix-web with two workers, one read connection per worker with prepared statements run on the worker itself, JSON
//! written straight from rows, an HS256 check on every request, and one writer thread that commits in groups with
//! `synchronous=FULL`. Keeps true: it is fast and durable. Does not do: tenants, rules, a log, validation, conditional
//! requests, limits. `bare_cache` adds the variant that answers reads from memory.

use super::bare_cache::{Cached, Memory};
use super::rng::Rng;
use super::tournament::{PLAYER_COLUMNS, PRAGMAS};
use actix_web::http::header;
use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Row, Statement, params};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use tokio::sync::oneshot;

const SECRET: &[u8] = b"a secret of the yardstick, known to everybody";
const QUEUE_LEN_MAX: usize = 1_024;
const GROUP_LEN_MAX: usize = 256;

/// A token the yardstick accepts, as it stands in the `Authorization` header.
pub(crate) fn token() -> String {
    let head = URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let claims = URL_SAFE_NO_PAD.encode(br#"{"id":"superuser000000","type":"auth","exp":4102444800}"#);
    let signed = format!("{head}.{claims}");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// Serves the sample data in `dir` at the address in `BARE_LISTEN` until killed.
pub(crate) fn serve(dir: &Path, cached: bool) -> anyhow::Result<()> {
    let file = dir.join("bare.db");
    let listen = std::env::var("BARE_LISTEN")?;
    let writer = Writer::start(&file)?;
    let memory = cached.then(|| Arc::new(Memory::new()));
    let make = move || {
        let site = Site::open(file.clone(), writer.clone(), memory.clone());
        App::new()
            .app_data(Data::new(site))
            .route("/health", web::get().to(HttpResponse::Ok))
            .route("/players/{id}", web::get().to(get_player))
            .route("/players", web::get().to(list_players))
            .route("/players", web::post().to(create_player))
            .route("/leaderboards/{tournament}", web::get().to(get_leaderboard))
    };
    let server = HttpServer::new(make).workers(2).bind(listen)?;
    actix_web::rt::System::new().block_on(server.run())?;
    Ok(())
}

/// What one worker owns; it is never shared, actix builds one per worker.
struct Site {
    reader: Connection,
    writer: Writer,
    memory: Option<Arc<Memory>>,
    key: hmac::Key,
    rng: Mutex<Rng>,
}

impl Site {
    fn open(file: PathBuf, writer: Writer, memory: Option<Arc<Memory>>) -> Self {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let reader = Connection::open_with_flags(file, flags).expect("invariant: the file was made before serving");
        configure(&reader).expect("invariant: pragmas of an open file");
        let mut seed = [0_u8; 8];
        SystemRandom::new().fill(&mut seed).expect("invariant: the system has randomness");
        let rng = Mutex::new(Rng::new(u64::from_le_bytes(seed)));
        Self { reader, writer, memory, key: hmac::Key::new(hmac::HMAC_SHA256, SECRET), rng }
    }

    /// The HS256 check: signature and expiry.
    fn admits(&self, request: &HttpRequest) -> bool {
        #[derive(serde::Deserialize)]
        struct Claims {
            exp: i64,
        }
        let check = || {
            let token = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
            let token = token.strip_prefix("Bearer ").unwrap_or(token);
            let (signed, tag) = token.rsplit_once('.')?;
            let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
            hmac::verify(&self.key, signed.as_bytes(), &tag).ok()?;
            let claims = URL_SAFE_NO_PAD.decode(signed.split_once('.')?.1).ok()?;
            let claims: Claims = serde_json::from_slice(&claims).ok()?;
            (claims.exp > 1_700_000_000).then_some(())
        };
        check().is_some()
    }

    /// Answers a read: from memory where there is one, else by `load`.
    fn answer(
        &self,
        request: &HttpRequest,
        stamp: impl Fn(&Memory) -> u64,
        load: impl FnOnce(&Connection) -> rusqlite::Result<Option<Vec<u8>>>,
    ) -> HttpResponse {
        if !self.admits(request) {
            return HttpResponse::Unauthorized().finish();
        }
        let path = request.uri().path_and_query().map_or("", |path| path.as_str());
        let stamp = self.memory.as_ref().map(|memory| stamp(memory));
        if let (Some(memory), Some(stamp)) = (&self.memory, stamp)
            && let Some(cached) = memory.find(path, stamp)
        {
            return cached.respond(request);
        }
        match load(&self.reader) {
            Ok(None) => HttpResponse::NotFound().finish(),
            Ok(Some(body)) => match (&self.memory, stamp) {
                (Some(memory), Some(stamp)) => memory.keep(path, Cached::new(body, stamp)).respond(request),
                _ => HttpResponse::Ok().content_type("application/json").body(body),
            },
            Err(_) => HttpResponse::InternalServerError().finish(),
        }
    }
}

/// Pragmas, and stable plans: a value bound to a LIMIT would otherwise compile its statement anew.
fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(PRAGMAS)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(|_| ())
}

const COLUMNS: &str =
    "id, tournament, user, display_name, status, chips, table_no, seat, place, registered_at, created, updated";

async fn get_player(site: Data<Site>, request: HttpRequest, id: web::Path<String>) -> HttpResponse {
    site.answer(
        &request,
        |_| 0,
        |reader| {
            let mut find = reader.prepare_cached(&format!("SELECT {COLUMNS} FROM players WHERE id = ?"))?;
            let mut rows = find.query([id.as_str()])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let mut body = Vec::with_capacity(512);
            write_player(&mut body, row)?;
            Ok(Some(body))
        },
    )
}

#[derive(serde::Deserialize)]
struct PageQuery {
    page: i64,
}

async fn list_players(site: Data<Site>, request: HttpRequest, query: web::Query<PageQuery>) -> HttpResponse {
    site.answer(&request, Memory::players, |reader| {
        let mut count = reader.prepare_cached("SELECT count(*) FROM players")?;
        let total: i64 = count.query_row([], |row| row.get(0))?;
        let mut list =
            reader.prepare_cached(&format!("SELECT {COLUMNS} FROM players ORDER BY _r LIMIT 20 OFFSET ?"))?;
        let mut body = Vec::with_capacity(8 * 1024);
        let head = format!(
            r#"{{"page":{},"perPage":20,"totalItems":{total},"totalPages":{},"items":"#,
            query.page,
            (total + 19) / 20
        );
        body.extend_from_slice(head.as_bytes());
        write_players(&mut body, &mut list, [(query.page - 1) * 20])?;
        body.push(b'}');
        Ok(Some(body))
    })
}

async fn get_leaderboard(site: Data<Site>, request: HttpRequest, tournament: web::Path<String>) -> HttpResponse {
    site.answer(
        &request,
        |memory| memory.tournament(&tournament),
        |reader| {
            let sql = format!("SELECT {COLUMNS} FROM players WHERE tournament = ? ORDER BY chips DESC, _r LIMIT 50");
            let mut list = reader.prepare_cached(&sql)?;
            let mut body = Vec::with_capacity(16 * 1024);
            body.extend_from_slice(br#"{"page":1,"perPage":50,"totalItems":-1,"totalPages":-1,"items":"#);
            write_players(&mut body, &mut list, [tournament.as_str()])?;
            body.push(b'}');
            Ok(Some(body))
        },
    )
}

fn write_players(out: &mut Vec<u8>, list: &mut Statement<'_>, binds: impl rusqlite::Params) -> rusqlite::Result<()> {
    out.push(b'[');
    let mut rows = list.query(binds)?;
    let mut first = true;
    while let Some(row) = rows.next()? {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        write_player(out, row)?;
    }
    out.push(b']');
    Ok(())
}

fn write_player(out: &mut Vec<u8>, row: &Row<'_>) -> rusqlite::Result<()> {
    out.extend_from_slice(br#"{"collectionId":"tn_players","collectionName":"players","id":"#);
    write_text(out, row.get_ref(0)?.as_str()?);
    for (at, (name, number)) in PLAYER_COLUMNS.iter().enumerate() {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        let value = row.get_ref(at + 1)?;
        if *number {
            tenantry::kernel::value::write_json_number(out, value.as_f64()?);
        } else {
            write_text(out, value.as_str()?);
        }
    }
    out.push(b'}');
    Ok(())
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    // Writing into a Vec cannot fail.
    let _ = serde_json::to_writer(&mut *out, text);
}

/// The body of a create.
#[derive(serde::Deserialize)]
pub(crate) struct NewPlayer {
    tournament: String,
    user: String,
    display_name: String,
    status: String,
    chips: f64,
    table_no: f64,
    seat: f64,
    place: f64,
    registered_at: String,
}

async fn create_player(site: Data<Site>, request: HttpRequest, body: Bytes) -> HttpResponse {
    if !site.admits(&request) {
        return HttpResponse::Unauthorized().finish();
    }
    let Ok(player) = serde_json::from_slice::<NewPlayer>(&body) else { return HttpResponse::BadRequest().finish() };
    let id = site.rng.lock().record_id();
    let now = now_text();
    let tournament = player.tournament.clone();
    let (done, written) = oneshot::channel();
    if site.writer.0.try_send(Insert { id, player, now, done }).is_err() {
        return HttpResponse::ServiceUnavailable().finish();
    }
    match written.await {
        Ok(Some(body)) => {
            if let Some(memory) = &site.memory {
                memory.player_added(&tournament);
            }
            HttpResponse::Ok().content_type("application/json").body(body)
        }
        _ => HttpResponse::InternalServerError().finish(),
    }
}

fn now_text() -> String {
    use tenantry::kernel::clock::{Clock as _, SystemClock};
    tenantry::kernel::datetime::format_ms(SystemClock.now_ms())
}

struct Insert {
    id: String,
    player: NewPlayer,
    now: String,
    done: oneshot::Sender<Option<Vec<u8>>>,
}

/// The queue of the writer thread; bounded, ends with the process.
#[derive(Clone)]
struct Writer(SyncSender<Insert>);

impl Writer {
    fn start(file: &Path) -> anyhow::Result<Self> {
        let connection = Connection::open(file)?;
        configure(&connection)?;
        let (sender, receiver) = sync_channel(QUEUE_LEN_MAX);
        std::thread::Builder::new().name("bare-writer".into()).spawn(move || write_loop(&connection, &receiver))?;
        Ok(Self(sender))
    }
}

fn write_loop(connection: &Connection, queue: &Receiver<Insert>) {
    while let Ok(first) = queue.recv() {
        let mut group = vec![first];
        while group.len() < GROUP_LEN_MAX
            && let Ok(next) = queue.try_recv()
        {
            group.push(next);
        }
        let bodies = write_group(connection, &group);
        for (at, insert) in group.into_iter().enumerate() {
            let body = bodies.as_ref().ok().and_then(|bodies| bodies.get(at)).cloned();
            // The client may be gone; its row is written all the same.
            let _ = insert.done.send(body);
        }
    }
}

/// One transaction for all; the bodies are worth sending only when it committed.
fn write_group(connection: &Connection, group: &[Insert]) -> rusqlite::Result<Vec<Vec<u8>>> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let insert_all = || {
        let sql =
            format!("INSERT INTO players ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING {COLUMNS}");
        let mut insert = connection.prepare_cached(&sql)?;
        let mut bodies = Vec::with_capacity(group.len());
        for Insert { id, player: p, now, .. } in group {
            let mut body = Vec::with_capacity(512);
            let mut rows = insert.query(params![
                id,
                p.tournament,
                p.user,
                p.display_name,
                p.status,
                p.chips,
                p.table_no,
                p.seat,
                p.place,
                p.registered_at,
                now,
                now
            ])?;
            if let Some(row) = rows.next()? {
                write_player(&mut body, row)?;
            }
            // A statement with RETURNING must be stepped to its end.
            while rows.next()?.is_some() {}
            bodies.push(body);
        }
        Ok(bodies)
    };
    let bodies = insert_all();
    connection.execute_batch(if bodies.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    bodies
}
