//! L2: logs and metrics.
//!
//! Keeps true: the subscriber is installed once per process and a second try is harmless; secrets have no field here; a
//! log line never makes its writer wait ([`sink`]).
//! Does not do: deciding what to log. Each boundary logs a failure once, where it handles it.

mod access;
mod sink;
pub mod health;
pub mod metrics;

pub use access::Access;

use metrics::{Exposition, MetricSource};
use sink::Sink;
use std::io::IsTerminal;
use std::sync::OnceLock;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// What this process logs through, once it is installed. Never replaced.
static INSTALLED: OnceLock<Installed> = OnceLock::new();

#[derive(Debug)]
struct Installed {
    sink: Sink,
    json: bool,
    coloured: bool,
}

/// How to log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// What passes, in the syntax of `tracing_subscriber::EnvFilter`.
    pub filter: String,
    /// One JSON object per line instead of text.
    pub json: bool,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The filter has another syntax.
    #[error("log.filter {filter:?} cannot be understood: {source}")]
    Filter {
        /// As it was given.
        filter: String,
        /// Why.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The thread that writes the log could not be started.
    #[error("the log's thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// Writes what is still buffered when it is dropped, so that the end of a process loses no line.
#[derive(Debug)]
#[must_use = "dropping it writes the last lines"]
pub struct LogGuard(());

impl Drop for LogGuard {
    fn drop(&mut self) {
        if let Some(installed) = INSTALLED.get() {
            // Lines that cannot be written within the time are lost; there is nobody left to tell.
            let _ = installed.sink.flush();
        }
    }
}

/// Says what is wrong with a text for [`LogOptions::filter`].
pub fn check_filter(text: &str) -> Result<(), String> {
    let refused = |error| format!("expected a filter such as info,tenantry::store=debug, found {text:?}: {error}");
    EnvFilter::try_new(text).map(|_| ()).map_err(refused)
}

/// Installs the process-wide subscriber, writing to the standard error stream.
pub fn install(options: &LogOptions) -> Result<LogGuard, LogError> {
    let filter = EnvFilter::try_new(&options.filter)
        .map_err(|source| LogError::Filter { filter: options.filter.clone(), source })?;
    let coloured = !options.json && std::io::stderr().is_terminal();
    let sink = Sink::start(std::io::stderr(), options.json)?;
    let builder = fmt().with_env_filter(filter).with_writer(sink.clone());
    let installed = if options.json {
        builder.json().flatten_event(true).with_current_span(false).try_init()
    } else {
        builder.with_target(false).with_ansi(coloured).try_init()
    };
    // Only the first installation in a process counts; embedding programs may have their own subscriber.
    if installed.is_ok() {
        let _first = INSTALLED.set(Installed { sink, json: options.json, coloured });
    } else {
        sink.close();
    }
    Ok(LogGuard(()))
}

/// Logs one answered request.
pub fn log_access(access: &Access<'_>) {
    let plain = INSTALLED.get().filter(|installed| !installed.coloured);
    access::log(access, plain.map(|installed| (&installed.sink, installed.json)));
}

/// Counts what the log itself lost.
#[derive(Debug)]
pub struct LogWatch;

impl MetricSource for LogWatch {
    fn collect(&self, out: &mut Exposition) {
        let dropped = INSTALLED.get().map_or(0, |installed| installed.sink.dropped());
        out.single("tenantry_log_dropped_lines_total", "counter", "Log lines that found no room.", dropped);
    }
}
