//! Below HTTP: durable creates per second, cold tenants, memory per tenant, ten thousand tenants.
//!
//! Keeps true: every create is acknowledged after COMMIT with `synchronous=FULL`, log included.
//! Does not do: rules and validation; the store knows none.

mod support;

use std::path::Path;
use support::args::Args;
use support::disk;
use support::report::{Report, count};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CLIENTS: [usize; 3] = [1, 16, 64];

fn main() -> anyhow::Result<()> {
    let Some(args) = Args::read() else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    measure_creates(&args, dir.path())
}

fn measure_creates(args: &Args, dir: &Path) -> anyhow::Result<()> {
    let columns = ["clients", "flushes/s of the disk", "one commit per request"];
    let mut report = Report::new("store-creates", &columns, args);
    for clients in CLIENTS {
        let flushes = disk::flushes_per_second(dir, args.window())?;
        let single = disk::single_commits_per_second(dir, clients, args.window())?;
        report.row(vec![clients.to_string(), count(flushes), count(single)]);
    }
    report.finish()
}
