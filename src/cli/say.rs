//! Printing for people and pipes.
//!
//! Keeps true: a reader that goes away (`tenantry tenant list | head`) ends the output, never the process with a panic.
//! Does not do: the error stream, which `outcome` writes.

use std::io::{self, ErrorKind, Write};

/// Whether somebody still reads the standard output, of a write to it that went like this.
pub(super) fn wrote(outcome: io::Result<()>) -> io::Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        // Whoever closed the pipe has read enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// The standard output for writers to which a reader that went away is a failure.
#[derive(Debug)]
pub(super) struct Out;

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        wrote(io::stdout().write_all(bytes)).map(|_| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        wrote(io::stdout().flush()).map(|_| ())
    }
}

/// Prints a line to the standard output.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        // Whoever closed the pipe has read enough.
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// Prints to the standard output as it is.
macro_rules! say_as_is {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stdout(), $($text)*);
    }};
}
