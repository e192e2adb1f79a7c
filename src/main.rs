//! The program: run the command line, turn the result into an exit code.

use std::process::ExitCode;

/// Chosen over the system allocator for the many small buffers of parallel requests; the bench in README compares both.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tenantry::cli::run(std::env::args_os())
}
