//! The program: run the command line, turn the result into an exit code.

use std::process::ExitCode;


fn main() -> ExitCode {
    tenantry::cli::run(std::env::args_os())
}
