//! The task that posts: gathers for a moment, names what changed, sends in bounded pieces, tries again with growing pauses.
//!
//! Keeps true: one post at a time, in order; every attempt has a deadline, every post a last attempt, and what is given up
//! is counted and logged once. Does not do: blocking anybody; while it waits, changes gather in [`super::pending`].

use super::pending::Changes;
use super::tags::{self, Place};
use super::{PurgeOptions, Shared};
use crate::kernel::ident::TenantId;
use crate::kernel::limits;
use crate::services::tenants::{MAIN, Registry, TenantEntry};
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Client, StatusCode, redirect};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

const POST_TIMEOUT: Duration = Duration::from_secs(10);
/// Patience with a post while the node is stopping.
const LAST_POST_TIMEOUT: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);

pub(super) struct Sender {
    shared: Arc<Shared>,
    options: PurgeOptions,
    registry: Registry,
    client: Client,
    header: HeaderName,
    secret: HeaderValue,
    closing: watch::Receiver<bool>,
}

/// How an attempt ended.
enum Outcome {
    Accepted,
    /// Trying again may help.
    Failed(String),
    /// It will not.
    Refused(StatusCode),
}

impl Sender {
    pub(super) fn new(
        shared: Arc<Shared>,
        options: PurgeOptions,
        registry: Registry,
        closing: watch::Receiver<bool>,
    ) -> Result<Self, String> {
        let client = Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(POST_TIMEOUT).build();
        let client = client.map_err(|error| format!("no client: {error}"))?;
        let header = HeaderName::try_from(options.header.as_str()).map_err(|error| error.to_string())?;
        let mut secret = HeaderValue::try_from(options.secret.expose()).map_err(|error| error.to_string())?;
        secret.set_sensitive(true);
        Ok(Self { shared, options, registry, client, header, secret, closing })
    }

    pub(super) async fn run(mut self) {
        loop {
            if self.shared.pending.lock().len() == 0 {
                if *self.closing.borrow() {
                    return;
                }
                tokio::select! {
                    () = self.shared.wake.notified() => {}
                    // A vanished handle is a stop too.
                    _ = self.closing.changed() => continue,
                }
            }
            self.pause(self.options.window).await;
            let taken = self.shared.pending.lock().take();
            for (url, words) in self.name(taken).await {
                for piece in words.chunks(self.options.batch_len_max.max(1)) {
                    self.deliver(&url, piece).await;
                }
            }
            self.shared.pending.lock().settle();
        }
    }

    /// Waits, but not while stopping.
    #[expect(clippy::disallowed_methods, reason = "changes are gathered for a span of time")]
    async fn pause(&mut self, span: Duration) {
        if !*self.closing.borrow() {
            tokio::select! {
                () = tokio::time::sleep(span) => {}
                _ = self.closing.changed() => {}
            }
        }
    }

    /// What is posted where.
    async fn name(&self, taken: Vec<(TenantId, Changes)>) -> BTreeMap<String, Vec<String>> {
        let mut posts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (tenant, changes) in taken {
            let entry = self.registry.entry(&tenant);
            let slug = entry.as_ref().map_or(tenant.as_str(), |entry| entry.slug.as_str());
            if !self.options.tenants.is_empty() && !self.options.tenants.iter().any(|wanted| wanted == slug) {
                continue;
            }
            // Suspended, deleted, or a file that cannot be opened: nothing of it may be shown any more.
            let schema = self.registry.open_tenant(&tenant).await.ok().map(|tenant| tenant.schema());
            let place = Place { tenant: &tenant, roots: self.roots(slug, entry.as_deref()) };
            let words = tags::render(&place, schema.as_deref(), &changes, self.options.form);
            if !words.is_empty() {
                posts.entry(self.address(slug, &tenant)).or_default().extend(words);
            }
        }
        posts
    }

    /// Where a tenant's changes are posted; slugs and ids need no escaping.
    fn address(&self, slug: &str, tenant: &TenantId) -> String {
        self.options.url.replace("{tenant}", slug).replace("{slug}", slug).replace("{id}", tenant.as_str())
    }

    /// Every beginning of an address under which the tenant answers.
    fn roots(&self, slug: &str, entry: Option<&TenantEntry>) -> Vec<String> {
        let base = self.options.public_url.trim_end_matches('/');
        let mut roots = vec![format!("{base}/t/{slug}")];
        if slug == MAIN {
            roots.push(base.to_owned());
        }
        let scheme = base.split("://").next().unwrap_or("https");
        roots.extend(entry.iter().flat_map(|entry| &entry.hosts).map(|host| format!("{scheme}://{host}")));
        roots
    }

    /// Posts one piece until it is accepted, refused or given up.
    async fn deliver(&mut self, url: &str, words: &[String]) {
        let numbers = &Arc::clone(&self.shared).numbers;
        let count = words.len() as u64;
        for attempt in 0..limits::PURGE_ATTEMPTS_MAX {
            let why = match self.post(url, words).await {
                Outcome::Accepted => {
                    numbers.succeeded(count);
                    return;
                }
                Outcome::Failed(why) => why,
                Outcome::Refused(status) => {
                    let why = format!("refused with {status}");
                    numbers.failed(&why);
                    return self.give_up(count, &why);
                }
            };
            numbers.failed(&why);
            if *self.closing.borrow() {
                return self.give_up(count, &why);
            }
            tracing::debug!({ attempt, cache.why = %why }, "purge hook: a post failed");
            self.pause(pause_after(attempt)).await;
        }
        self.give_up(count, "too many attempts");
    }

    fn give_up(&self, count: u64, why: &str) {
        self.shared.numbers.dropped.fetch_add(count, Ordering::Relaxed);
        tracing::warn!({ cache.tags = count, cache.why = %why }, "purge hook: gave up telling the caches in front");
    }

    async fn post(&self, url: &str, words: &[String]) -> Outcome {
        let body = match self.options.form {
            super::PurgeForm::Tags => json!({ "tags": words }),
            super::PurgeForm::Urls => json!({ "urls": words }),
        };
        let mut request = self.client.post(url).json(&body);
        if !self.secret.is_empty() {
            request = request.header(self.header.clone(), self.secret.clone());
        }
        if *self.closing.borrow() {
            request = request.timeout(LAST_POST_TIMEOUT);
        }
        match request.send().await.map(|response| response.status()) {
            Ok(status) if status.is_success() => Outcome::Accepted,
            Ok(status) if may_recover(status) => Outcome::Failed(status.to_string()),
            Ok(status) => Outcome::Refused(status),
            // Without the address: it may carry a key.
            Err(error) => Outcome::Failed(error.without_url().to_string()),
        }
    }
}

/// Server errors and "later"; anything else is a mistake in what is sent or in where it is sent to.
fn may_recover(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS)
}

/// Doubling, up to half a minute.
fn pause_after(attempt: u32) -> Duration {
    PAUSE_MIN.saturating_mul(1 << attempt.min(16)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        let pauses: Vec<u128> = (0..9).map(|attempt| pause_after(attempt).as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for (status, again) in
            [(500, true), (503, true), (429, true), (408, true), (401, false), (404, false), (302, false)]
        {
            assert_eq!(may_recover(StatusCode::from_u16(status).unwrap()), again, "{status}");
        }
    }
}
