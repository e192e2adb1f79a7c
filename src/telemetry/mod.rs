//! L2: logs and metrics.
//!
//! Keeps true: the subscriber is installed once per process and a second try is harmless; secrets have no field here.
//! Does not do: deciding what to log. Each boundary logs a failure once, where it handles it.

pub mod health;
pub mod metrics;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

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
#[error("log.filter {filter:?} cannot be understood: {source}")]
pub struct LogFilterError {
    filter: String,
    source: tracing_subscriber::filter::ParseError,
}

/// Installs the process-wide subscriber, writing to the standard error stream.
pub fn install(options: &LogOptions) -> Result<(), LogFilterError> {
    let filter = EnvFilter::try_new(&options.filter)
        .map_err(|source| LogFilterError { filter: options.filter.clone(), source })?;
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Only the first installation in a process counts; embedding programs may have their own subscriber.
    let _installed_before = if options.json {
        builder.json().flatten_event(true).with_current_span(false).try_init().is_err()
    } else {
        builder.with_target(false).with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init().is_err()
    };
    Ok(())
}
