//! Metrics: each declared once, with help text and unit, and written in the Prometheus text format.
//!
//! Keeps true: recording is a few relaxed atomic additions, no lock, no allocation; labels come from small closed sets,
//! so memory is bounded. Does not do: collecting what engines count themselves; they implement [`MetricSource`].

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Which family of routes a request went to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteClass {
    /// Records: list, get, create, update, delete.
    Records,
    /// Logins and tokens.
    Auth,
    /// Collection definitions.
    Collections,
    /// Tenants and blueprints.
    Tenants,
    /// Batches.
    Batch,
    /// Uploaded files.
    Files,
    /// Health, metrics and the rest of operations.
    Ops,
    /// Everything else, unknown paths included.
    Other,
}

const CLASSES: [&str; 8] = ["records", "auth", "collections", "tenants", "batch", "files", "ops", "other"];
const METHODS: [&str; 6] = ["GET", "POST", "PATCH", "PUT", "DELETE", "OTHER"];
const STATUSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// Upper bounds of the duration buckets, microseconds.
const BUCKETS_US: [u64; 12] = [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_000_000];

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
    sum_us: AtomicU64,
}

/// Everything the HTTP edge counts. One per node, shared by its workers; lives as long as the node.
#[derive(Debug, Default)]
pub struct HttpMetrics {
    requests: [[[AtomicU64; STATUSES.len()]; METHODS.len()]; CLASSES.len()],
    durations: [Histogram; CLASSES.len()],
    in_flight: AtomicI64,
    panics: AtomicU64,
    internal_errors: AtomicU64,
    sent_bytes: AtomicU64,
    refused_connections: AtomicU64,
}

impl HttpMetrics {
    /// Notes that a request began.
    pub fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a request ended without an answer because its client left.
    pub fn abandon(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Notes the answer of a request that began.
    pub fn finish(&self, class: RouteClass, method: &str, status: u16, duration_us: u64) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.count_answer(class, method, status, duration_us);
    }

    /// Notes an answer that was given at once, so that its request never was in flight.
    pub fn count_answer(&self, class: RouteClass, method: &str, status: u16, duration_us: u64) {
        let method = METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1);
        let status = usize::from((status / 100).clamp(1, 5) - 1);
        let counter = self.requests.get(class as usize).and_then(|by| by.get(method)).and_then(|by| by.get(status));
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let bucket = BUCKETS_US.iter().position(|bound| duration_us <= *bound).unwrap_or(BUCKETS_US.len());
        if let Some(histogram) = self.durations.get(class as usize) {
            histogram.sum_us.fetch_add(duration_us, Ordering::Relaxed);
            if let Some(bucket) = histogram.buckets.get(bucket) {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Notes a handler that panicked.
    pub fn count_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes a failure that was answered with "internal".
    pub fn count_internal_error(&self) {
        self.internal_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes body bytes handed to the socket.
    pub fn count_sent_bytes(&self, bytes: u64) {
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes a connection that was shut because its address had too many.
    pub fn count_refused_connection(&self) {
        self.refused_connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Handlers that panicked since start.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Failures answered with "internal" since start.
    pub fn internal_errors(&self) -> u64 {
        self.internal_errors.load(Ordering::Relaxed)
    }
}

/// A part that counts for itself and writes its figures when `/metrics` is read.
pub trait MetricSource: Send + Sync {
    /// Writes the present figures.
    fn collect(&self, out: &mut Exposition);
}

/// The growing text of a scrape.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// Opens a metric: name with unit, `counter` | `gauge` | `histogram`, help.
    pub fn declare(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// Writes one sample; `labels` is empty or `a="b",c="d"`.
    pub fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    /// Declares and writes a metric of one sample.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.declare(name, kind, help);
        self.sample(name, "", value);
    }

    /// The finished text.
    pub fn into_text(self) -> String {
        self.0
    }
}

impl MetricSource for HttpMetrics {
    fn collect(&self, out: &mut Exposition) {
        const REQUESTS: &str = "tenantry_http_requests_total";
        out.declare(REQUESTS, "counter", "Answered requests by route class, method and status class.");
        for (class, by_method) in CLASSES.iter().zip(&self.requests) {
            for (method, by_status) in METHODS.iter().zip(by_method) {
                for (status, count) in STATUSES.iter().zip(by_status) {
                    let count = count.load(Ordering::Relaxed);
                    if count > 0 {
                        let labels = format!("route=\"{class}\",method=\"{method}\",status=\"{status}\"");
                        out.sample(REQUESTS, &labels, count);
                    }
                }
            }
        }
        self.collect_durations(out);
        let gauge = self.in_flight.load(Ordering::Relaxed);
        out.single(
            "tenantry_http_requests_in_flight",
            "gauge",
            "Requests being answered now, without those that memory answers at once.",
            gauge,
        );
        out.single("tenantry_http_panics_total", "counter", "Handlers that panicked.", self.panics());
        let internal = self.internal_errors();
        out.single("tenantry_http_internal_errors_total", "counter", "Answers with code internal.", internal);
        let sent = self.sent_bytes.load(Ordering::Relaxed);
        out.single("tenantry_http_sent_bytes_total", "counter", "Body bytes of answers.", sent);
        let refused = self.refused_connections.load(Ordering::Relaxed);
        let help = "Connections shut because their address had too many.";
        out.single("tenantry_http_connections_refused_total", "counter", help, refused);
    }
}

impl HttpMetrics {
    fn collect_durations(&self, out: &mut Exposition) {
        const DURATION: &str = "tenantry_http_request_duration_seconds";
        out.declare(DURATION, "histogram", "Time from the head of a request to the head of its answer.");
        for (class, histogram) in CLASSES.iter().zip(&self.durations) {
            let mut total = 0;
            let counts: Vec<u64> = histogram.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
            if counts.iter().all(|count| *count == 0) {
                continue;
            }
            for (position, count) in counts.iter().enumerate() {
                total += count;
                let bound = BUCKETS_US.get(position).map_or_else(|| "+Inf".to_owned(), |us| seconds(*us));
                out.sample(&format!("{DURATION}_bucket"), &format!("route=\"{class}\",le=\"{bound}\""), total);
            }
            let labels = format!("route=\"{class}\"");
            out.sample(&format!("{DURATION}_sum"), &labels, seconds(histogram.sum_us.load(Ordering::Relaxed)));
            out.sample(&format!("{DURATION}_count"), &labels, total);
        }
    }
}

fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_shows_what_was_counted() {
        let metrics = HttpMetrics::default();
        metrics.begin();
        metrics.finish(RouteClass::Records, "GET", 200, 300);
        metrics.begin();
        let mut out = Exposition::default();
        metrics.collect(&mut out);
        let text = out.into_text();
        for line in [
            "tenantry_http_requests_total{route=\"records\",method=\"GET\",status=\"2xx\"} 1",
            "tenantry_http_request_duration_seconds_bucket{route=\"records\",le=\"0.00025\"} 0",
            "tenantry_http_request_duration_seconds_bucket{route=\"records\",le=\"0.0005\"} 1",
            "tenantry_http_request_duration_seconds_bucket{route=\"records\",le=\"+Inf\"} 1",
            "tenantry_http_request_duration_seconds_sum{route=\"records\"} 0.0003",
            "tenantry_http_requests_in_flight 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
