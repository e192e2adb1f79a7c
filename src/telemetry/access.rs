//! The access log: one line per request, in the form in which the subscriber writes every other event.
//!
//! Keeps true: a line looks like the event it replaces, in both formats, and obeys the same filter
//! (`tenantry::access`). Written by hand because it is the one event that every request pays for.
//! Does not do: colours; on a terminal the subscriber itself writes these lines.

use super::sink::Sink;
use std::cell::RefCell;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::Level;

const TARGET: &str = "tenantry::access";

/// One answered request.
#[derive(Debug, Clone, Copy)]
pub struct Access<'request> {
    /// Its id.
    pub request_id: &'request str,
    /// The tenant that its path named; empty if it named none.
    pub tenant: &'request str,
    /// The method.
    pub method: &'request str,
    /// The path without the tenant's prefix and without the query string.
    pub path: &'request str,
    /// The status of the answer.
    pub status: u16,
    /// From the head of the request to the head of the answer.
    pub duration_us: u64,
    /// Length of the body, 0 if it is streamed.
    pub bytes: u64,
}

/// Logs `access`, through `sink` where there is one.
pub(super) fn log(access: &Access<'_>, sink: Option<(&Sink, bool)>) {
    let Some((sink, json)) = sink else { return by_subscriber(access) };
    if !tracing::enabled!(target: TARGET, Level::INFO) {
        return;
    }
    thread_local! {
        static LINE: RefCell<Line> = const { RefCell::new(Line { text: Vec::new(), second: 0, date: [0; 19] }) };
    }
    #[expect(clippy::disallowed_methods, reason = "a log says when the machine thought it was")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    LINE.with_borrow_mut(|line| {
        line.write(access, now.as_secs(), now.subsec_micros(), json);
        sink.push(&line.text, false);
    });
}

fn by_subscriber(access: &Access<'_>) {
    let Access { request_id, tenant, method, path, status, duration_us, bytes } = *access;
    tracing::info!(
        target: TARGET,
        { request.id = request_id, tenant.slug = tenant, method, path, status, duration_us, bytes },
        "{method} {path} {status}"
    );
}

/// The line under construction, with the date of the last one.
struct Line {
    text: Vec<u8>,
    second: u64,
    date: [u8; 19],
}

impl Line {
    fn write(&mut self, access: &Access<'_>, second: u64, micros: u32, json: bool) {
        if self.second != second {
            self.second = second;
            let date = jiff::Timestamp::new(i64::try_from(second).unwrap_or(0), 0).unwrap_or_default().to_string();
            if let Some(date) = date.as_bytes().first_chunk() {
                self.date = *date;
            }
        }
        self.text.clear();
        self.push(if json { b"{\"timestamp\":\"" } else { b"" });
        let date = self.date;
        self.push(&date);
        self.push(b".");
        for place in [100_000, 10_000, 1_000, 100, 10, 1] {
            self.text.push(b'0' + u8::try_from(micros / place % 10).unwrap_or(0));
        }
        if json {
            self.write_json(access)
        } else {
            self.write_text(access)
        }
        self.push(b"\n");
    }

    fn write_text(&mut self, access: &Access<'_>) {
        self.push(b"Z  INFO ");
        self.write_message(access);
        for (name, value) in Self::texts(access) {
            self.push(b" ");
            self.push(name);
            self.push(b"=");
            self.push_quoted(value, |out, value| write!(out, "{value:?}"));
        }
        for (name, value) in Self::numbers(access) {
            self.push(b" ");
            self.push(name);
            self.push(b"=");
            self.push_number(value);
        }
    }

    fn write_json(&mut self, access: &Access<'_>) {
        let in_json = |out: &mut Vec<u8>, value: &str| serde_json::to_writer(out, value).map_err(Into::into);
        self.push(b"Z\",\"level\":\"INFO\",\"message\":");
        if access.path.bytes().all(is_plain) {
            self.push(b"\"");
            self.write_message(access);
            self.push(b"\"");
        } else {
            let message = format!("{} {} {}", access.method, access.path, access.status);
            self.push_quoted(&message, in_json);
        }
        for (name, value) in Self::texts(access) {
            self.push(b",\"");
            self.push(name);
            self.push(b"\":");
            self.push_quoted(value, in_json);
        }
        for (name, value) in Self::numbers(access) {
            self.push(b",\"");
            self.push(name);
            self.push(b"\":");
            self.push_number(value);
        }
        self.push(b",\"target\":\"tenantry::access\"}");
    }

    fn write_message(&mut self, access: &Access<'_>) {
        for part in [access.method, " ", access.path, " "] {
            self.push(part.as_bytes());
        }
        self.push_number(u64::from(access.status));
    }

    fn texts<'request>(access: &Access<'request>) -> [(&'static [u8], &'request str); 4] {
        [
            (b"request.id", access.request_id),
            (b"tenant.slug", access.tenant),
            (b"method", access.method),
            (b"path", access.path),
        ]
    }

    fn numbers(access: &Access<'_>) -> [(&'static [u8], u64); 3] {
        [(b"status", u64::from(access.status)), (b"duration_us", access.duration_us), (b"bytes", access.bytes)]
    }

    fn push(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
    }

    /// Quotes `value`; what needs escapes is left to `escaped`.
    fn push_quoted(&mut self, value: &str, escaped: impl FnOnce(&mut Vec<u8>, &str) -> std::io::Result<()>) {
        if value.bytes().all(is_plain) {
            self.push(b"\"");
            self.push(value.as_bytes());
            self.push(b"\"");
        } else {
            // Writing into a Vec cannot fail.
            let _ = escaped(&mut self.text, value);
        }
    }

    fn push_number(&mut self, number: u64) {
        let (mut digits, mut rest, mut from) = ([0_u8; 20], number, 20);
        loop {
            from -= 1;
            if let Some(digit) = digits.get_mut(from) {
                *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            }
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.push(digits.get(from..).unwrap_or_default());
    }
}

/// Whether a byte stands for itself inside quotes.
const fn is_plain(byte: u8) -> bool {
    byte >= b' ' && byte < 0x7f && byte != b'"' && byte != b'\\'
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::io;
    use std::sync::Arc;
    use tracing_subscriber::fmt;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What the subscriber writes, from behind the time.
    fn by_tracing(access: &Access<'_>, json: bool) -> String {
        let kept = Kept::default();
        let out = kept.clone();
        let builder = fmt().with_writer(move || out.clone());
        if json {
            let subscriber = builder.json().flatten_event(true).with_current_span(false).finish();
            tracing::subscriber::with_default(subscriber, || by_subscriber(access));
        } else {
            let subscriber = builder.with_target(false).with_ansi(false).finish();
            tracing::subscriber::with_default(subscriber, || by_subscriber(access));
        }
        let text = String::from_utf8(kept.0.lock().clone()).unwrap();
        text[text.find('Z').unwrap()..].to_owned()
    }

    #[test]
    fn a_line_looks_like_every_other_event() {
        let plain = Access {
            request_id: "abc-1",
            tenant: "acme",
            method: "GET",
            path: "/api/collections/notes/records/1",
            status: 200,
            duration_us: 0,
            bytes: 18_446_744_073_709_551_615,
        };
        let odd = Access { path: "/a\"b\\c/é", tenant: "", status: 404, ..plain };
        for access in [plain, odd] {
            for json in [false, true] {
                let mut line = Line { text: Vec::new(), second: 0, date: [0; 19] };
                line.write(&access, 1_800_000_000, 42, json);
                let text = String::from_utf8(line.text).unwrap();
                let (time, rest) = text.split_at(text.find('Z').unwrap());
                assert!(time.ends_with("2027-01-15T08:00:00.000042"), "{time}");
                assert_eq!(rest, by_tracing(&access, json));
            }
        }
    }
}
