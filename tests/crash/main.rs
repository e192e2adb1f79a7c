//! Power cuts, in the small: a child process writes under load and is killed, at random moments and at planned points.
//!
//! The child prints an id only after the store acknowledged it. After each kill the parent opens the file and checks:
//! every printed id is there, the two rows of a write are there together or not at all, the doctor finds nothing.
//! The same file is used for many rounds, so damage adds up where there is any. Own `main`, because the test is also
//! the child.

#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is not as expected")]

mod cache;
mod disk;
mod lifecycle;

use serde_json::json;
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tenantry::kernel::clock;
use tenantry::kernel::clock::SystemClock;
use tenantry::kernel::ident::{NodeId, RecordId, TenantId};
use tenantry::kernel::random::{Random, SystemRandom, below, lowercase_id};
use tenantry::kernel::value::Stored;
use tenantry::schema::plan::{self, PlanContext};
use tenantry::schema::record::RecordImage;
use tenantry::schema::{Collection, definition};
use tenantry::store::{
    Commit, CommitObserver, FaultPoint, Faults, Injected, StoreError, StoreOptions, TenantDb, Tenants, WriteMeta,
    check_file, describe_in_scratch,
};

const RANDOM_ROUNDS: usize = 70;
const PLANNED_ROUNDS: usize = 12;
const WRITERS: usize = 8;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let [_, role, folder, point, after] = arguments.as_slice()
        && ["child", "node"].contains(&role.as_str())
    {
        match role.as_str() {
            "child" => runtime.block_on(child(Path::new(folder), point, after.parse().unwrap())),
            _ => runtime.block_on(cache::serve(Path::new(folder), point_named(point))),
        }
        return ExitCode::SUCCESS;
    }
    // `cargo test -- --list` and filters for other tests must not start a hundred processes.
    if arguments.iter().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    if let Some(code) = disk::run_with_right_to_mount() {
        return code;
    }
    tenantry::tls::install_provider();
    let began = clock::instant();
    // `cargo test --test crash cache` runs that part alone; `lifecycle`, `disk` and `writes` likewise.
    let parts = ["writes", "disk", "lifecycle", "cache"];
    let alone = parts.iter().find(|part| arguments.iter().any(|argument| argument == *part));
    let wanted = |part: &str| alone.is_none_or(|alone| *alone == part);
    if wanted("writes") {
        kills(&runtime);
    }
    if wanted("disk") {
        disk::full(&runtime);
    }
    if wanted("lifecycle") {
        runtime.block_on(lifecycle::kills());
    }
    if wanted("cache") {
        runtime.block_on(cache::all());
    }
    println!("crash: all held, {:.1} s", began.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}

/// Ends this process like a power cut once a point was passed often enough.
#[derive(Debug)]
struct KillAt {
    point: Option<FaultPoint>,
    /// Counts only while this file is there, if one is named.
    armed: Option<PathBuf>,
    left: AtomicI64,
}

impl Faults for KillAt {
    fn at(&self, point: FaultPoint) -> Option<Injected> {
        let counts = self.point == Some(point) && self.armed.as_ref().is_none_or(|file| file.exists());
        if counts && self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            let me = rustix::process::getpid();
            rustix::process::kill_process(me, rustix::process::Signal::KILL).unwrap();
            std::thread::park();
        }
        None
    }
}

/// The point inside an observer is only reached if there is one.
struct Listening;

impl CommitObserver for Listening {
    fn committed(&self, _tenant: &TenantId, _commit: &Commit) {}
}

fn options(folder: &Path) -> StoreOptions {
    let random = Arc::new(SystemRandom::default());
    let mut options = StoreOptions::new(folder.to_path_buf(), NodeId([1; 16]), Arc::new(SystemClock), random);
    options.writer_threads = 2;
    options.observers.push(Arc::new(Listening));
    options
}

fn tenant_id() -> TenantId {
    TenantId::parse("crash").unwrap()
}

async fn set_up(folder: &Path) {
    let tenants = Tenants::start(options(folder)).unwrap();
    let tenant = tenants.create(&tenant_id()).await.unwrap();
    let body = json!({"name": "pairs", "type": "base", "fields": [
        {"name": "half", "type": "text"}, {"name": "filler", "type": "text"}]});
    let random = SystemRandom::default();
    let context = PlanContext { random: &random, now_ms: 1, describe: &describe_in_scratch };
    let plan = plan::plan_create(&tenant.schema(), &definition::parse(&body).unwrap(), &context).unwrap();
    tenant.write::<_, StoreError, _>(WriteMeta::system("setup"), move |tx| tx.apply_schema(&plan)).await.unwrap();
    drop(tenant);
    tenants.shutdown().await;
}

/// Two records that belong together; the second carries the id of the first.
async fn write_pair(tenant: &TenantDb, pairs: &Arc<Collection>, id: &str, filler: usize) -> Result<(), StoreError> {
    let half = pairs.find_field("half").unwrap().number;
    let rest = pairs.find_field("filler").unwrap().number;
    let image = |suffix: &str| {
        let id = RecordId::parse(&format!("{id}{suffix}")).unwrap();
        RecordImage::new(id, [(half, Stored::text(suffix)), (rest, Stored::from("x".repeat(filler)))])
    };
    let (first, second, pairs) = (image("-a"), image("-b"), Arc::clone(pairs));
    tenant
        .write(WriteMeta::system("crash"), move |tx| {
            tx.insert(&pairs, &first)?;
            tx.insert(&pairs, &second)
        })
        .await
        .map(|_| ())
}

fn point_named(name: &str) -> Option<FaultPoint> {
    match name {
        "before_commit" => Some(FaultPoint::BeforeCommit),
        "after_commit" => Some(FaultPoint::AfterCommit),
        "in_observer" => Some(FaultPoint::InObserver),
        "before_rename" => Some(FaultPoint::BeforeRename),
        _ => None,
    }
}

/// Writes until killed; every acknowledged id is one line on standard output.
async fn child(folder: &Path, point: &str, after: i64) {
    let point = point_named(point);
    let mut options = options(folder);
    options.faults = Arc::new(KillAt { point, armed: None, left: AtomicI64::new(after) });
    let tenants = Tenants::start(options).unwrap();
    let tenant = tenants.open(&tenant_id()).await.unwrap();
    let pairs = tenant.schema().find("pairs").unwrap().clone();
    let tasks: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (tenant, pairs) = (tenant.clone(), pairs.clone());
            tokio::spawn(async move {
                let random = SystemRandom::default();
                loop {
                    let id = lowercase_id(&random, 12);
                    if write_pair(&tenant, &pairs, &id, 200).await.is_ok() {
                        let mut out = std::io::stdout().lock();
                        let _ = writeln!(out, "{id}");
                        let _ = out.flush();
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        let _ = task.await;
    }
}

fn kills(runtime: &tokio::runtime::Runtime) {
    let folder = tempfile::tempdir().unwrap();
    runtime.block_on(set_up(folder.path()));
    let random = SystemRandom::default();
    let mut acknowledged = HashSet::new();
    let plans = ["before_commit", "after_commit", "in_observer"];
    let mut rounds: Vec<(&str, i64)> = vec![("random", 0); RANDOM_ROUNDS];
    for point in plans {
        rounds.extend((0..PLANNED_ROUNDS).map(|round| (point, i64::try_from(round).unwrap() * 7 % 40)));
    }
    let total = rounds.len();
    for (round, (point, after)) in rounds.into_iter().enumerate() {
        let ids = one_round(folder.path(), point, after, &random);
        acknowledged.extend(ids);
        verify(runtime, folder.path(), &acknowledged, &format!("round {round}, {point} after {after}"));
    }
    println!("crash: {total} kills, {} acknowledged writes, none lost", acknowledged.len());
    assert!(acknowledged.len() > total, "the children wrote hardly anything");
}

/// Runs a child until it dies; returns what it acknowledged.
fn one_round(folder: &Path, point: &str, after: i64, random: &dyn Random) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", folder.to_str().unwrap(), point, &after.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.stdout.take().unwrap();
    let (first, began) = std::sync::mpsc::channel::<()>();
    let reader = std::thread::spawn(move || {
        let mut ids = Vec::new();
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // A line that the kill cut in half was written after an acknowledgement too, but its id is unknown.
            if line.len() == 12 {
                ids.push(line);
            }
            let _ = first.send(());
        }
        ids
    });
    if point == "random" {
        // The moment is drawn from the first acknowledgement on: before it the child only starts.
        began.recv().expect("a child that acknowledges");
        let pause = Duration::from_millis(below(random, 150));
        let (_never, wait) = std::sync::mpsc::channel::<()>();
        let _ = wait.recv_timeout(pause);
        child.kill().unwrap();
    }
    child.wait().unwrap();
    let ids = reader.join().unwrap();
    assert!(point != "random" || !ids.is_empty(), "a random kill before any write was acknowledged");
    ids
}

fn verify(runtime: &tokio::runtime::Runtime, folder: &Path, acknowledged: &HashSet<String>, what: &str) {
    runtime.block_on(async {
        let tenants = Tenants::start(options(folder)).unwrap();
        let tenant = tenants.open(&tenant_id()).await.unwrap();
        let found = all_ids(&tenant).await;
        for id in acknowledged {
            assert!(found.contains(&format!("{id}-a")), "{what}: acknowledged write {id} is lost");
        }
        for id in &found {
            let (stem, half) = id.split_at(id.len() - 2);
            let other = format!("{stem}{}", if half == "-a" { "-b" } else { "-a" });
            assert!(found.contains(&other), "{what}: {id} is there without its other half");
        }
        drop(tenant);
        tenants.shutdown().await;
        let report = check_file(folder, &tenant_id()).unwrap();
        assert!(report.is_healthy(), "{what}: {:?}", report.problems);
        assert_eq!(report.log_len, 1 + u64::try_from(found.len() / 2).unwrap(), "{what}: one log record per write");
    });
}

async fn all_ids(tenant: &TenantDb) -> HashSet<String> {
    let sql = format!("SELECT id FROM \"{}\"", tenant.schema().find("pairs").unwrap().table());
    let read = tenant.read(move |reader| {
        let mut ids = HashSet::new();
        reader.for_each(&sql, &[], &mut |row| {
            ids.extend(row.stored(0)?.as_text().map(str::to_owned));
            Ok(())
        })?;
        Ok::<_, StoreError>(ids)
    });
    read.await.unwrap()
}
