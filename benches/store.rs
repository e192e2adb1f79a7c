//! Below HTTP: durable creates per second, cold tenants, memory per tenant, ten thousand tenants.
//!
//! Keeps true: every create is acknowledged after COMMIT with `synchronous=FULL`, log included.
//! Does not do: rules and validation; the store knows none.

mod support;

use std::path::Path;
use std::sync::Arc;
use support::args::Args;
use support::disk;
use support::histogram::Histogram;
use support::process::resident_kib;
use support::report::{Report, count, time_us};
use support::rng::Rng;
use support::rounds::median;
use support::tenants::Node;
use tenantry::kernel::clock;

const CLIENTS: [usize; 3] = [1, 16, 64];
/// Handles open at once in the run over many tenants.
const OPEN_MAX: usize = 512;

fn main() -> anyhow::Result<()> {
    let Some(args) = Args::read() else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let dir = tempfile::tempdir()?;
    if args.wants("creates") {
        runtime.block_on(measure_creates(&args, &dir.path().join("creates")))?;
    }
    if args.wants("tenants") {
        runtime.block_on(measure_tenants(&args, &dir.path().join("tenants")))?;
    }
    Ok(())
}

async fn measure_creates(args: &Args, dir: &Path) -> anyhow::Result<()> {
    let node = Arc::new(Node::start(dir, OPEN_MAX)?);
    let tenant = node.create(0).await?;
    let columns = [
        "clients",
        "flushes/s of the disk",
        "one commit per request",
        "group commit",
        "ratio",
        "per flush",
        "p50 / p99",
    ];
    let mut report = Report::new("store-creates", &columns, args);
    for clients in CLIENTS {
        let (mut flushes, mut singles, mut groups, mut ratios) = (vec![], vec![], vec![], vec![]);
        let mut latencies = Histogram::new();
        for _ in 0..args.rounds {
            let flush = disk::flushes_per_second(dir, args.window() / 2)?;
            let single = disk::single_commits_per_second(dir, clients, args.window())?;
            let (group, seen) = node.creates_per_second(&tenant, clients, args.window()).await?;
            latencies.merge(&seen);
            ratios.push(group / single);
            flushes.push(flush);
            singles.push(single);
            groups.push(group);
        }
        let per_flush = median(groups.clone()) / median(flushes.clone());
        report.row(vec![
            clients.to_string(),
            count(median(flushes)),
            count(median(singles)),
            count(median(groups)),
            format!("{:.1}", median(ratios)),
            format!("{per_flush:.1}"),
            format!("{} / {}", time_us(latencies.quantile_us(0.5)), time_us(latencies.quantile_us(0.99))),
        ]);
    }
    report.finish()
}

async fn measure_tenants(args: &Args, dir: &Path) -> anyhow::Result<()> {
    let mut report = Report::new("store-tenants", &["what", "figure", "detail"], args);
    let node = Node::start(dir, OPEN_MAX)?;
    let before = resident_kib(std::process::id());
    make_tenants(&node, args.tenants, &mut report).await?;

    node.tenants.shutdown().await;
    drop(node);
    let node = Node::start(dir, OPEN_MAX)?;
    let closed = resident_kib(std::process::id());
    let mut rng = Rng::new(9);
    let cold = open_and_read(&node, 0..args.tenants.min(OPEN_MAX)).await?;
    report.row(vec![
        "open a cold tenant and read a record".into(),
        time_us(cold.quantile_us(0.5)),
        format!("p99 {}; the files are in the page cache of the system", time_us(cold.quantile_us(0.99))),
    ]);
    let open = resident_kib(std::process::id());
    let handles = node.tenants.open_len();
    let per_handle = open.saturating_sub(closed) as f64 / handles.max(1) as f64;
    report.row(vec![
        "resident memory per open tenant".into(),
        format!("{per_handle:.0} KiB"),
        format!("{handles} open"),
    ]);

    let wanted: Vec<usize> = (0..args.tenants).map(|_| rng.below(args.tenants)).collect();
    let began = clock::instant();
    let random = open_and_read(&node, wanted.into_iter()).await?;
    let rate = random.count() as f64 / began.elapsed().as_secs_f64();
    let after = resident_kib(std::process::id());
    report.row(vec![
        format!("read from a random tenant, {OPEN_MAX} handles"),
        format!("{} reads/s", count(rate)),
        format!("p50 {}, p99 {}", time_us(random.quantile_us(0.5)), time_us(random.quantile_us(0.99))),
    ]);
    report.row(vec![
        "resident memory of the process".into(),
        format!("{} MiB", after / 1024),
        format!("{} MiB before the first tenant, {} open", before / 1024, node.tenants.open_len()),
    ]);
    measure_closed(&node, args.tenants, &mut report).await?;
    report.finish()
}

/// The first hundred with their collections from nothing, the rest as copies.
async fn make_tenants(node: &Node, tenants: usize, report: &mut Report) -> anyhow::Result<()> {
    let fresh = tenants.min(100);
    let mut timed = Histogram::new();
    for at in 0..fresh {
        let began = clock::instant();
        node.create(at).await?;
        timed.record(began.elapsed());
    }
    let detail = format!("median of {fresh}, with 3 collections and a record");
    report.row(vec!["create a tenant".into(), time_us(timed.quantile_us(0.5)), detail]);
    let mut timed = Histogram::new();
    for at in fresh..tenants {
        let began = clock::instant();
        node.copy(at).await?;
        timed.record(began.elapsed());
    }
    let detail = format!("median of {}", count((tenants - fresh) as f64));
    report.row(vec!["clone a tenant".into(), time_us(timed.quantile_us(0.5)), detail]);
    Ok(())
}

/// What a tenant leaves behind in memory after its handle was closed.
async fn measure_closed(node: &Node, tenants: usize, report: &mut Report) -> anyhow::Result<()> {
    for at in 0..tenants {
        node.tenants.close(&Node::id(at)?).await;
    }
    let first = resident_kib(std::process::id());
    for at in 0..tenants {
        drop(node.tenants.open(&Node::id(at)?).await?);
        node.tenants.close(&Node::id(at)?).await;
    }
    let bytes = resident_kib(std::process::id()).saturating_sub(first) as f64 * 1024.0 / tenants as f64;
    let detail = format!("growth of the process over opening and closing each of {}", count(tenants as f64));
    report.row(vec!["memory per closed tenant".into(), format!("{bytes:.0} bytes"), detail]);
    Ok(())
}

async fn open_and_read(node: &Node, which: impl Iterator<Item = usize>) -> anyhow::Result<Histogram> {
    let mut latencies = Histogram::new();
    for at in which {
        let began = clock::instant();
        let tenant = node.tenants.open(&Node::id(at)?).await?;
        anyhow::ensure!(node.read_first(&tenant).await?, "tenant {at} lost its record");
        latencies.record(began.elapsed());
    }
    Ok(latencies)
}
