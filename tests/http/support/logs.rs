//! Catches what the node logs as ERROR while the suites run.
//!
//! Keeps true: an error that no test announced by [`expect_error`] fails the test that drops its server next.

use std::fmt::Write as _;
use std::sync::{Mutex, Once};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
static EXPECTED: Mutex<Vec<String>> = Mutex::new(Vec::new());
static INSTALL: Once = Once::new();

struct Catch;

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

impl<S: Subscriber> Layer<S> for Catch {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // The framework reports garbage on the wire as errors; what the node itself reports is what counts.
        let metadata = event.metadata();
        if *metadata.level() == Level::ERROR && metadata.target().starts_with("tenantry") {
            let mut text = Text(String::new());
            event.record(&mut text);
            SEEN.lock().unwrap().push(text.0);
        }
    }
}

/// Starts to catch; safe to call often.
pub(crate) fn install() {
    INSTALL.call_once(|| {
        let filter = tracing_subscriber::filter::LevelFilter::WARN;
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(filter).with(Catch));
    });
}

/// Announces that an ERROR whose text contains `part` is part of the test. All tests of the binary share what is announced:
/// `part` is to be a word that no other test's errors have, as the id of a tenant, of a request, or a folder.
pub(crate) fn expect_error(part: &str) {
    EXPECTED.lock().unwrap().push(part.to_owned());
}

/// The announced errors so far whose text contains `part`.
pub(crate) fn errors_with(part: &str) -> Vec<String> {
    SEEN.lock().unwrap().iter().filter(|text| text.contains(part)).cloned().collect()
}

/// The errors that nobody announced, taken out.
pub(crate) fn take_unexpected() -> Vec<String> {
    let expected = EXPECTED.lock().unwrap();
    let mut seen = SEEN.lock().unwrap();
    let (announced, unexpected) = seen.drain(..).partition(|text| expected.iter().any(|part| text.contains(part)));
    *seen = announced;
    unexpected
}
