//! Collects the rows of a bench, prints them as a Markdown table and keeps them as JSON under `target/bench/`.
//!
//! Keeps true: the file names the machine and the length of the run beside the numbers. Does not do: judging.

use super::args::Args;
use serde_json::{Value, json};
use std::path::PathBuf;

/// The rows of one bench.
pub(crate) struct Report {
    name: &'static str,
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    run: Value,
}

impl Report {
    /// An empty report with these column titles.
    pub(crate) fn new(name: &'static str, columns: &[&'static str], args: &Args) -> Self {
        let run = json!({ "rounds": args.rounds, "seconds": args.seconds, "quick": args.quick });
        Self { name, columns: columns.to_vec(), rows: Vec::new(), run }
    }

    /// Adds a row and shows it at once, because a run takes minutes.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        eprintln!("  {}", cells.join("  "));
        self.rows.push(cells);
    }

    /// Prints the table and writes the file.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        println!("\n## {} ({})\n", self.name, machine());
        println!("| {} |", self.columns.join(" | "));
        println!("|{}", "---|".repeat(self.columns.len()));
        for row in &self.rows {
            println!("| {} |", row.join(" | "));
        }
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../bench");
        std::fs::create_dir_all(&folder)?;
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| self.columns.iter().zip(row).map(|(key, cell)| ((*key).to_owned(), json!(cell))).collect())
            .collect();
        let document = json!({ "bench": self.name, "machine": machine(), "run": self.run, "rows": rows });
        std::fs::write(folder.join(format!("{}.json", self.name)), serde_json::to_vec_pretty(&document)?)?;
        Ok(())
    }
}

/// Processor, cores and memory, as far as Linux tells.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name").and_then(|rest| rest.split_once(':')))
        .map_or("unknown processor", |(_, name)| name.trim());
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let gib = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().trim_end_matches("kB").trim().parse::<f64>().ok())
        .map_or(0.0, |kib| kib / 1024.0 / 1024.0);
    format!("{model}, {cores} cores, {gib:.0} GiB")
}

/// A count with thousands separators.
pub(crate) fn count(value: f64) -> String {
    let whole = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) && !out.ends_with('-') {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A time in microseconds in the unit that reads best.
pub(crate) fn time_us(value: f64) -> String {
    match value {
        v if v < 10.0 => format!("{v:.2} µs"),
        v if v < 1_000.0 => format!("{v:.0} µs"),
        v if v < 1_000_000.0 => format!("{:.2} ms", v / 1_000.0),
        v => format!("{:.2} s", v / 1_000_000.0),
    }
}
