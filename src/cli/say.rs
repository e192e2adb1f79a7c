//! Printing for people and pipes.
//!
//! Keeps true: a reader that goes away (`tenantry tenant list | head`) ends the output, never the process with a panic.
//! Does not do: the error stream, which `outcome` writes.

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
