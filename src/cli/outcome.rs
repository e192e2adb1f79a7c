//! How a command ended: exit codes and the failures behind them.
//!
//! Keeps true: a code means one thing, listed once here and shown by `--help`. Does not do: printing.

use crate::app::StartError;
use crate::config::ConfigError;
use serde_json::Value;
use std::io;

pub(super) const OK: u8 = 0;
pub(super) const FAILED: u8 = 1;
pub(super) const USAGE: u8 = 2;
pub(super) const CONFIG: u8 = 3;
pub(super) const CANNOT_START: u8 = 4;
pub(super) const REFUSED: u8 = 5;
pub(super) const UNHEALTHY: u8 = 6;

/// Every exit code with its meaning, as `--help` shows them.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  something failed while doing it
  2  the command line cannot be understood
  3  the configuration has mistakes; all are listed
  4  the node cannot start: folder in use, address taken, disk
  5  the node refused the request; the message says why
  6  doctor, rules test or rules lint found something wrong";

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Log(#[from] crate::telemetry::LogError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{message} ({code}, HTTP {status}){}{}", fields(errors), noted(request))]
    Refused { status: u16, code: String, message: String, errors: Vec<Value>, request: Option<String> },
    #[error("the node does not answer: {0}")]
    Unreachable(String),
    #[error("{0}")]
    Usage(String),
    /// What was named is not there.
    #[error("{0}")]
    NotFound(String),
    #[error("{0} row(s) were refused")]
    Incomplete(u64),
    #[error("{0} problem(s) found")]
    Unhealthy(usize),
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn fields(errors: &[Value]) -> String {
    let line = |error: &Value| {
        format!(
            "\n  {}: {}",
            error["field"].as_str().unwrap_or_default(),
            error["message"].as_str().unwrap_or_default()
        )
    };
    errors.iter().map(line).collect()
}

/// Where to look for more.
fn noted(request: &Option<String>) -> String {
    request.as_ref().map(|id| format!("\n  the node's log says more under the request id {id}")).unwrap_or_default()
}

impl Failure {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Log(_) => CONFIG,
            Self::Start(_) => CANNOT_START,
            Self::Refused { .. } => REFUSED,
            Self::Usage(_) => USAGE,
            Self::Unhealthy(_) => UNHEALTHY,
            Self::Unreachable(_) | Self::Io(_) | Self::Incomplete(_) | Self::NotFound(_) => FAILED,
        }
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::Unreachable(text)
    }
}
