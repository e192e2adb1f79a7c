//! The options every bench takes after `--`, and the two hidden ones by which a bench runs a yardstick in a child.
//!
//! Keeps true: without `--bench`, which only `cargo bench` passes, nothing is measured; so `cargo test --all-targets`
//! stays quick. Does not do: options of a single bench.

use clap::Parser;
use std::path::PathBuf;
use std::time::Duration;

/// Options of a bench run.
#[derive(Debug, Clone, Parser)]
pub(crate) struct Args {
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
    /// Rounds per comparison; each round measures every contestant once.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Measured seconds per contestant and round.
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// One short round: shows that the bench works, not how fast anything is.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only works whose name contains this text.
    #[arg(long)]
    pub(crate) only: Option<String>,
    /// Tenants of the many-tenants run.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) tenants: usize,
    /// Measure the yardstick alone, to judge the yardstick and the load generator.
    #[arg(long)]
    pub(crate) bare_only: bool,
    /// Serve the yardstick from this folder instead of measuring.
    #[arg(long, hide = true)]
    pub(crate) bare: Option<PathBuf>,
    /// The yardstick answers reads from memory.
    #[arg(long, hide = true)]
    pub(crate) cached: bool,
}

impl Args {
    /// Reads the command line; `None` when this run is not a measurement.
    pub(crate) fn read() -> Option<Self> {
        let mut args = Self::parse();
        if args.quick {
            (args.rounds, args.seconds, args.tenants) = (1, 0.5, args.tenants.min(200));
        }
        if !args.bench && args.bare.is_none() {
            println!("nothing measured: run it with `cargo bench`");
            return None;
        }
        Some(args)
    }

    /// The measured window of one contestant in one round.
    pub(crate) fn window(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// The unmeasured run-in before each window.
    pub(crate) fn warmup(&self) -> Duration {
        self.window().mul_f64(0.25).max(Duration::from_millis(200))
    }

    /// Whether `--only` lets `work` through.
    pub(crate) fn wants(&self, work: &str) -> bool {
        self.only.as_deref().is_none_or(|text| work.contains(text))
    }
}
