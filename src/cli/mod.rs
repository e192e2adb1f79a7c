//! L5: the command line. What was typed becomes a request to the node that serves the folder.
//!
//! Keeps true: every command goes through the same HTTP routes as any other client, so nothing can be done here that is
//! not checked there. If no node serves the folder, one is started on a loopback port for the length of the command;
//! the folder's lock keeps two apart; only the doctor looks at such a folder itself, because a node that starts repairs.
//! Does not do: opening databases.

#[macro_use]
mod say;
mod args;
mod audit;
mod cache;
mod client;
mod commands;
mod demo;
mod doctor;
mod outcome;
mod schema;
mod usage;
mod user;

use args::{Args, Command};
use clap::{CommandFactory, Parser};
use outcome::Failure;
use std::ffi::OsString;
use std::process::ExitCode;

pub use outcome::EXIT_CODES;

/// Runs the command line and says how it went; see [`EXIT_CODES`].
pub fn run(typed: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(typed) {
        Ok(args) => args,
        Err(error) => {
            // Help and version are not failures; clap knows which stream each belongs to.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { outcome::USAGE } else { outcome::OK });
        }
    };
    match dispatch(args) {
        Ok(()) => ExitCode::from(outcome::OK),
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn dispatch(args: Args) -> Result<(), Failure> {
    crate::tls::install_provider();
    crate::app::keep_to_owner();
    if let Command::Completions { shell } = args.command {
        // Into memory first: the generator panics when its reader goes away.
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Args::command(), "tenantry", &mut script);
        say_as_is!("{}", String::from_utf8_lossy(&script));
        return Ok(());
    }
    let config = args.config()?;
    if matches!(args.command, Command::Config { .. }) {
        say_as_is!("{}", config.to_toml());
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(commands::run(args.command, config));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}
