//! Where log lines go: a bounded buffer that a thread of its own writes to the standard error stream.
//!
//! Keeps true: whoever logs never waits for the terminal, pipe or disk behind the stream. What does not fit is dropped,
//! counted, and told in the log itself; blocking instead would let a stuck reader of the log stop every request.
//! Warnings and errors are written at once, everything else within [`limits::LOG_FLUSH_MS`], and all of it by
//! [`Sink::flush`] before an orderly end. A killed process loses at most what was younger than that.
//! Does not do: formatting, choosing what is logged.

use crate::kernel::limits;
use parking_lot::{Condvar, Mutex};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

const FLUSH_EVERY: Duration = Duration::from_millis(limits::LOG_FLUSH_MS);
/// Time that the end of a process gives its last lines.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// The way to the stream; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Sink(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Locked by whoever logs, to append one line, and by the writer, to take all of them.
    buffer: Mutex<Buffer>,
    /// Wakes the writer.
    filled: Condvar,
    /// Wakes whoever waits in [`Sink::flush`].
    written: Condvar,
}

#[derive(Debug, Default)]
struct Buffer {
    lines: Vec<u8>,
    urgent: bool,
    /// The writer has taken lines that are not out yet.
    writing: bool,
    /// Lines lost since the loss was last told.
    untold: u64,
    dropped: u64,
    closed: bool,
}

impl Sink {
    /// A sink in front of `out`. Its thread ends when [`Sink::close`] is called, or with the process.
    pub(crate) fn start(out: impl Write + Send + 'static, json: bool) -> io::Result<Self> {
        let shared = Shared { buffer: Mutex::default(), filled: Condvar::new(), written: Condvar::new() };
        let sink = Self(Arc::new(shared));
        let writer = sink.clone();
        std::thread::Builder::new().name("tn-log".to_owned()).spawn(move || writer.run(out, json))?;
        Ok(sink)
    }

    /// Appends a complete line; an urgent one is written at once.
    pub(crate) fn push(&self, line: &[u8], urgent: bool) {
        let mut buffer = self.0.buffer.lock();
        if buffer.lines.len() + line.len() > limits::LOG_BUFFER_BYTES_MAX {
            buffer.untold += 1;
            buffer.dropped += 1;
            return;
        }
        let len = buffer.lines.len();
        buffer.lines.extend_from_slice(line);
        let half = limits::LOG_BUFFER_BYTES_MAX / 2;
        // The writer sleeps while there is nothing, then lets lines gather for a while unless they are urgent or many.
        let wakes = len == 0 || (urgent && !buffer.urgent) || (len < half && buffer.lines.len() >= half);
        buffer.urgent |= urgent;
        drop(buffer);
        if wakes {
            self.0.filled.notify_one();
        }
    }

    /// Lines dropped since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.0.buffer.lock().dropped
    }

    /// Waits until everything logged so far is written, for a bounded time; whether it is.
    pub(crate) fn flush(&self) -> bool {
        let mut buffer = self.0.buffer.lock();
        buffer.urgent = true;
        self.0.filled.notify_one();
        let unwritten = |buffer: &mut Buffer| !buffer.lines.is_empty() || buffer.writing;
        !self.0.written.wait_while_for(&mut buffer, unwritten, LAST_WAIT).timed_out()
    }

    /// Ends the writer's thread once everything is written.
    pub(crate) fn close(&self) {
        self.0.buffer.lock().closed = true;
        self.0.filled.notify_one();
    }

    fn run(&self, mut out: impl Write, json: bool) {
        let mut lines = Vec::new();
        while let Some(untold) = self.take(&mut lines) {
            if untold > 0 {
                lines.extend_from_slice(loss(untold, json).as_bytes());
            }
            // Nobody could be told that the log itself cannot be written.
            let _ = out.write_all(&lines).and_then(|()| out.flush());
            lines.clear();
            lines.shrink_to(limits::LOG_BUFFER_BYTES_MAX / 16);
            self.0.buffer.lock().writing = false;
            self.0.written.notify_all();
        }
    }

    /// Waits for lines and takes them; returns how many were lost before. `None` is the end.
    fn take(&self, lines: &mut Vec<u8>) -> Option<u64> {
        let mut buffer = self.0.buffer.lock();
        self.0.filled.wait_while(&mut buffer, |buffer| buffer.lines.is_empty() && !buffer.closed);
        if buffer.lines.is_empty() {
            return None;
        }
        let gathers = |buffer: &mut Buffer| {
            !buffer.urgent && !buffer.closed && buffer.lines.len() < limits::LOG_BUFFER_BYTES_MAX / 2
        };
        self.0.filled.wait_while_for(&mut buffer, gathers, FLUSH_EVERY);
        std::mem::swap(&mut buffer.lines, lines);
        buffer.urgent = false;
        buffer.writing = true;
        Some(std::mem::take(&mut buffer.untold))
    }
}

fn loss(lines: u64, json: bool) -> String {
    if json {
        format!("{{\"level\":\"WARN\",\"message\":\"log lines were dropped\",\"dropped\":{lines}}}\n")
    } else {
        format!("WARN {lines} log lines were dropped: standard error did not take them in time\n")
    }
}

/// One event on its way to the sink.
#[derive(Debug)]
pub(crate) struct Line<'sink> {
    sink: &'sink Sink,
    urgent: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.sink.push(line, self.urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'sink> MakeWriter<'sink> for Sink {
    type Writer = Line<'sink>;

    fn make_writer(&'sink self) -> Line<'sink> {
        Line { sink: self, urgent: false }
    }

    fn make_writer_for(&'sink self, metadata: &Metadata<'_>) -> Line<'sink> {
        Line { sink: self, urgent: *metadata.level() <= Level::WARN }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A stream that hands over what is written, and takes it only when the test lets it.
    struct Gate(mpsc::Sender<Vec<u8>>, Arc<Mutex<()>>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            drop(self.1.lock());
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (Sink, mpsc::Receiver<Vec<u8>>, Arc<Mutex<()>>) {
        let (sender, receiver) = mpsc::channel();
        let gate = Arc::new(Mutex::new(()));
        (Sink::start(Gate(sender, Arc::clone(&gate)), false).unwrap(), receiver, gate)
    }

    #[test]
    fn lines_arrive_in_order_and_a_flush_waits_for_them() {
        let (sink, written, _) = gated();
        for number in 0..100 {
            sink.push(format!("{number}\n").as_bytes(), number % 10 == 0);
        }
        assert!(sink.flush());
        let text: Vec<u8> = written.try_iter().flatten().collect();
        let expected: String = (0..100).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        sink.close();
    }

    #[test]
    fn lines_are_written_without_being_flushed_and_a_close_ends_the_thread() {
        let (sink, written, _) = gated();
        sink.push(b"by and by\n", false);
        assert_eq!(written.recv_timeout(Duration::from_secs(60)).unwrap(), b"by and by\n");
        sink.push(b"last\n", false);
        sink.close();
        assert_eq!(written.recv_timeout(Duration::from_secs(60)).unwrap(), b"last\n");
        assert!(written.recv_timeout(Duration::from_secs(60)).is_err(), "the thread has dropped its stream");
    }

    #[test]
    fn a_stuck_stream_stops_nobody_and_the_loss_is_told() {
        let (sink, written, gate) = gated();
        let stuck = gate.lock();
        let line = vec![b'x'; 1_024];
        // The writer may hold one buffer full while the next fills.
        let lines = 3 * limits::LOG_BUFFER_BYTES_MAX / line.len();
        for _ in 0..lines {
            sink.push(&line, false);
        }
        let dropped = sink.dropped();
        assert!(dropped > 0);
        drop(stuck);
        assert!(sink.flush());
        sink.push(b"after\n", false);
        assert!(sink.flush());
        let text: Vec<u8> = written.try_iter().flatten().collect();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.matches('x').count() / line.len(), lines - usize::try_from(dropped).unwrap());
        assert!(text.contains(" log lines were dropped") && text.ends_with("after\n"), "{}", &text[text.len() - 200..]);
        sink.close();
    }
}
