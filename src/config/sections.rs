//! The table of configuration keys: name with unit, type, default, allowed range, one line of documentation.
//!
//! Keeps true: this table is the only list; the structs, `config print`, the README table and the check of unknown
//! keys are generated from it. Does not do: reading files, that is `super`.

use super::value::{Cidr, LogFormat, Setting};
use crate::kernel::limits;
use crate::secrets::Secret;
use std::net::SocketAddr;
use std::path::PathBuf;
use toml::Value;

/// One key as documentation shows it.
#[derive(Debug, Clone)]
pub struct Key {
    /// `section.key`.
    pub path: &'static str,
    /// Name of the type.
    pub kind: &'static str,
    /// The default, in TOML.
    pub default: String,
    /// What it does.
    pub doc: &'static str,
}

/// Keys that were renamed: the old path and what to write instead.
pub(super) const RENAMED: &[(&str, &str)] = &[("http.address", "http.listen"), ("data.folder", "data.dir")];

fn any<T>(_: &T) -> Result<(), String> {
    Ok(())
}

fn within<T: PartialOrd + std::fmt::Display + Copy>(low: T, high: T) -> impl Fn(&T) -> Result<(), String> {
    move |value| {
        let inside = (low..=high).contains(value);
        inside.then_some(()).ok_or_else(|| format!("expected {low} to {high}, found {value}"))
    }
}

#[expect(clippy::ptr_arg, reason = "the table hands every check a reference to the key's own type")]
fn host_names(hosts: &Vec<String>) -> Result<(), String> {
    let label = |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    match hosts.iter().find(|host| !host.split('.').all(label)) {
        Some(host) => Err(format!("expected host names such as example.com, found {host:?}")),
        None => Ok(()),
    }
}

fn web_address(text: &String) -> Result<(), String> {
    let address = ["http://", "https://"].iter().any(|scheme| text.len() > scheme.len() && text.starts_with(scheme));
    (text.is_empty() || address).then_some(()).ok_or_else(|| format!("expected http:// or https://, found {text:?}"))
}

fn header_name(text: &String) -> Result<(), String> {
    let good = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    good.then_some(()).ok_or_else(|| format!("expected the name of a header, found {text:?}"))
}

fn tags_or_urls(text: &String) -> Result<(), String> {
    matches!(text.as_str(), "tags" | "urls")
        .then_some(())
        .ok_or_else(|| format!("expected tags or urls, found {text:?}"))
}

#[expect(clippy::ptr_arg, reason = "the table hands every check a reference to the key's own type")]
fn origins(origins: &Vec<String>) -> Result<(), String> {
    let is_origin = |text: &String| {
        url::Url::parse(text).is_ok_and(|url| url.domain().is_some() && url.origin().ascii_serialization() == *text)
    };
    match origins.iter().find(|origin| !is_origin(origin)) {
        Some(origin) => Err(format!("expected origins such as https://app.example.com, found {origin:?}")),
        None => Ok(()),
    }
}

fn one_of(text: &str, known: &[&str]) -> Result<(), String> {
    known.contains(&text).then_some(()).ok_or_else(|| format!("expected {}, found {text:?}", known.join(", ")))
}

macro_rules! sections {
    ($($section:ident: $type:ident, $about:literal {
        $($key:ident: $kind:ty = $default:expr, $check:expr, $doc:literal;)*
    })*) => {
        $(
            #[doc = $about]
            #[derive(Debug, Clone)]
            pub struct $type { $(#[doc = $doc] pub $key: $kind,)* }
            impl Default for $type {
                fn default() -> Self { Self { $($key: $default,)* } }
            }
        )*

        /// The validated configuration: every value is in its range.
        #[derive(Debug, Clone, Default)]
        pub struct Config { $(#[doc = $about] pub $section: $type,)* }

        impl Config {
            /// Stores `value` under `path`; `None` if there is no such key.
            pub(super) fn set(&mut self, path: &str, value: &Value) -> Option<Result<(), String>> {
                match path {
                    $($(concat!(stringify!($section), ".", stringify!($key)) => {
                        let read = <$kind as Setting>::read(value)
                            .and_then(|value| ($check)(&value).map(|()| self.$section.$key = value));
                        Some(read)
                    })*)*
                    _ => None,
                }
            }

            /// The effective configuration as TOML, secrets hidden.
            pub fn to_toml(&self) -> String {
                let mut out = String::new();
                $(
                    out.push_str(concat!("[", stringify!($section), "]\n"));
                    $(
                        out.push_str(concat!(stringify!($key), " = "));
                        out.push_str(&Setting::show(&self.$section.$key));
                        out.push('\n');
                    )*
                    out.push('\n');
                )*
                out.truncate(out.trim_end().len());
                out.push('\n');
                out
            }

            /// Every key with its documentation, in the order of the table.
            pub fn keys() -> Vec<Key> {
                let defaults = Self::default();
                vec![$($(Key {
                    path: concat!(stringify!($section), ".", stringify!($key)),
                    kind: <$kind as Setting>::KIND,
                    default: Setting::show(&defaults.$section.$key),
                    doc: $doc,
                },)*)*]
            }
        }
    };
}

sections! {
    http: HttpConfig, "The HTTP listener and its bounds." {
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8090)), any, "Address and port to listen on.";
        public_url: String = "http://127.0.0.1:8090".to_owned(), any, "Where people reach this node; links in mails begin with it. Left out, it follows `http.listen`.";
        workers: usize = 0, within(0, 256), "Worker threads; 0 is one per core.";
        connections_max: usize = limits::CONNECTIONS_MAX, within(8, 1_000_000), "Open connections per worker; more wait unaccepted.";
        connections_per_ip_max: u32 = limits::CONNECTIONS_PER_ADDRESS_MAX, within(0, 1_000_000), "Open connections from one address (IPv6: from one /64), trusted proxies not counted; one more is closed at once. 0 is no limit.";
        head_timeout_ms: u64 = limits::REQUEST_HEAD_TIMEOUT_MS, within(100, 600_000), "Time a client has to send the head of a request.";
        body_timeout_ms: u64 = 30_000, within(100, 3_600_000), "Time a client has to send a JSON body, and between two pieces of an import.";
        write_timeout_ms: u64 = limits::WRITE_TIMEOUT_MS, within(100, 3_600_000), "Time for which a client may take nothing of what it is sent before its connection is ended; one that reads slowly goes on if it frees about 1/16 of its receive buffer in that time.";
        keep_alive_s: u64 = 75, within(1, 3_600), "Idle time after which a kept-alive connection is closed.";
        drain_timeout_s: u64 = 20, within(0, 3_600), "Time that requests under way get when the node stops.";
        body_bytes_max: usize = limits::BODY_BYTES_MAX, within(1_024, 1 << 30), "Largest JSON body.";
        multipart_bytes_max: usize = limits::MULTIPART_BYTES_MAX, within(1_024, 1 << 34), "Largest multipart body.";
        tenant_import_bytes_max: u64 = limits::TENANT_IMPORT_BYTES_MAX, within(1 << 20, 1 << 44), "Largest exported tenant that an import takes.";
        tenant_domains: Vec<String> = vec!["localhost".to_owned()], host_names, "Domains under which a first label names the tenant: `{tenant}.example.com`.";
        cors_origins: Vec<String> = vec!["*".to_owned()], any, "Origins whose pages may call, such as `https://app.example.com`; `*` is every one.";
        trusted_proxies: Vec<Cidr> = Vec::new(), any, "Peers whose `X-Forwarded-For` is believed.";
        metrics_token: Secret = Secret::default(), any, "If set, `/metrics` wants `Authorization: Bearer <token>`; without it answers this machine and superusers.";
    }
    tls: TlsConfig, "Certificates. With any, `http.listen` speaks TLS alone." {
        certificate_files: Vec<PathBuf> = Vec::new(), any, "PEM files with a certificate chain each; a client gets the one for the name it asks for, else the first.";
        key_files: Vec<PathBuf> = Vec::new(), any, "PEM files with the private keys, in the same order.";
        redirect_listen: Option<SocketAddr> = None, any, "Address and port that answers plain HTTP with a redirect to `https`; empty is none.";
        hsts_s: u64 = 31_536_000, within(0, 126_144_000), "Seconds for which browsers are told to come by `https` only; 0 tells nothing.";
        reload_s: u64 = 10, within(1, 86_400), "How often the files are looked at; they are also read again on SIGHUP.";
    }
    passkeys: PasskeysConfig, "Passkeys. They are bound to the host of `http.public_url`, or to a tenant's own host." {
        rp_id: String = String::new(), any, "A domain above those hosts, so that they share passkeys; changing it makes existing ones worthless.";
        origins: Vec<String> = Vec::new(), origins, "Further origins below that host or domain whose pages use passkeys, such as `https://app.example.com`.";
    }
    acme: AcmeConfig, "Certificates that the node obtains by itself (RFC 8555)." {
        enabled: bool = false, any, "Whether certificates are obtained for `acme.hosts` and the host names of tenants.";
        terms_agreed: bool = false, any, "Set it to agree to the terms of the authority; nothing is obtained without.";
        directory_url: String = "https://acme-v02.api.letsencrypt.org/directory".to_owned(), any, "The authority's directory.";
        contact: Vec<String> = Vec::new(), any, "Mail addresses the authority may write to.";
        hosts: Vec<String> = Vec::new(), host_names, "Names to obtain certificates for, beside those of tenants.";
        renew_before_days: u32 = 30, within(1, 365), "Days before its end at which a certificate is renewed, though not in its first two thirds.";
        orders_per_hour_max: u32 = 20, within(1, 10_000), "Certificates asked for per hour at most.";
        authority_files: Vec<PathBuf> = Vec::new(), any, "PEM files of whom the directory's own certificate is checked against; empty is the system's list.";
    }
    data: DataConfig, "The data folder." {
        dir: PathBuf = PathBuf::from("data"), any, "Folder with everything this node keeps.";
        open_tenants_max: usize = limits::OPEN_TENANTS_DEFAULT, within(1, 100_000), "Tenants with an open database at the same time.";
        writer_threads: usize = 4, within(1, 256), "Tenants that can write at the same moment; up to 16 more while long writes hold all of these up.";
        idle_close_s: u64 = 300, within(1, 86_400), "Idle time after which a tenant's database is closed.";
        log_keep_days: u32 = limits::LOG_KEEP_DAYS, within(1, 36_500), "Days a tenant's log is kept: how far history, audit and catching up reach back.";
        log_bytes_max: u64 = limits::LOG_BYTES_MAX, within(1 << 20, 1 << 44), "Log of one tenant at which its oldest records go before their time.";
        slow_query_ms: u64 = 100, within(1, 600_000), "Statements slower than this are logged with their plan.";
    }
    mail: MailConfig, "The node's own mail server, for tenants that have set none; without any, mails go to `outbox/`." {
        smtp_host: String = String::new(), any, "Host name or address of the mail server; empty is none.";
        smtp_port: u32 = 587, within(1, 65_535), "Its port.";
        smtp_encryption: String = "starttls".to_owned(), |text| one_of(text, &["starttls", "implicit", "none"]), "`starttls`, `implicit` (TLS from the first byte) or `none`.";
        smtp_username: String = String::new(), any, "Login; empty is none.";
        smtp_password: Secret = Secret::default(), any, "Password of the login.";
        smtp_auth_method: String = "PLAIN".to_owned(), |text| one_of(text, &["PLAIN", "LOGIN"]), "`PLAIN` or `LOGIN`.";
        smtp_local_name: String = String::new(), any, "What the node calls itself to the mail server; empty is the machine's name.";
        ca_files: Vec<PathBuf> = Vec::new(), any, "PEM files of authorities that are believed beside the public ones.";
        sender_address: String = "noreply@localhost".to_owned(), any, "Address in `From`.";
        sender_name: String = String::new(), any, "Name in `From`; empty is the tenant's.";
        timeout_ms: u64 = 15_000, within(100, 600_000), "Time each step of a delivery may take.";
        retry_ms: u64 = 10_000, within(50, 3_600_000), "Time before the second try; doubles with each, up to an hour.";
        give_up_h: u32 = 72, within(1, 8_760), "Time after which a mail that nobody takes is given up.";
    }
    outbound: OutboundConfig, "What the node itself asks on the network: identity providers." {
        private_allowed: Vec<Cidr> = Vec::new(), any, "Ranges that are not on the public internet and may be reached all the same, by plain HTTP too, such as `10.0.7.0/24`.";
    }
    limits: LimitsConfig, "How much one caller may do. 0 is no limit." {
        window_s: u32 = 60, within(1, 86_400), "Time in which requests are counted; a whole window's worth may come at once.";
        requests_per_ip_max: u32 = 3_000_000, within(0, 1_000_000_000), "Requests per window from one address (IPv6: from one /64).";
        requests_per_account_max: u32 = 0, within(0, 1_000_000_000), "Requests per window of one account or API key.";
        requests_per_tenant_max: u32 = 0, within(0, 1_000_000_000), "Requests per window at one tenant, superusers not counted.";
        login_window_s: u32 = 300, within(1, 86_400), "Time in which failed logins are counted.";
        login_failures_max: u32 = 20, within(0, 1_000_000), "Failed logins per window from one address for one identity.";
        login_failures_per_ip_max: u32 = 200, within(0, 1_000_000), "Failed logins per window from one address.";
        mail_window_s: u32 = 900, within(1, 86_400), "Time in which requests for mails are counted.";
        mails_asked_max: u32 = 5, within(0, 1_000_000), "Requests per window from one address for mails to one recipient.";
        mails_asked_per_ip_max: u32 = 60, within(0, 1_000_000), "Requests per window from one address for mails to anybody.";
        mails_per_recipient_max: u32 = 20, within(0, 1_000_000), "Mails per window to one recipient; the first that an address asks for is always sent.";
        mails_per_tenant_max: u32 = 5_000, within(0, 1_000_000_000), "Mails per window of one tenant; more are dropped and logged.";
    }
    budgets: BudgetsConfig, "What one tenant may do unless it has limits of its own (`tenantry tenant limit`). 0 is no limit." {
        requests_per_minute: u64 = 0, any, "Requests per minute; past it 429.";
        requests_per_day: u64 = 0, any, "Requests per day (UTC); past it 429.";
        writes_per_minute: u64 = 0, any, "Records created, changed or deleted per minute; past it writes get 429.";
        read_steps_per_minute: u64 = 0, any, "Steps of SQLite's virtual machine per minute, a handful per row looked at; past it 429.";
        storage_bytes: u64 = 0, any, "Bytes of database, log and files; past it writes other than deletions get 507.";
        concurrent_requests: u64 = 0, any, "Requests being answered at the same moment; past it 503.";
        connections: u64 = 0, any, "Open connections that asked the tenant last; past it 503 and closed.";
    }
    cache: CacheConfig, "The response cache." {
        enabled: bool = true, any, "Whether responses are cached in memory.";
        memory_bytes_max: usize = 64 * 1024 * 1024, within(1 << 20, 1 << 40), "Memory for cached responses of all tenants.";
        disk: bool = true, any, "Whether cached responses survive a restart in `cache/`.";
        disk_bytes_max: u64 = 256 * 1024 * 1024, within(1 << 20, 1 << 44), "Size of `cache/` at which it is started afresh.";
        disk_read_deadline_ms: u64 = 25, within(1, 60_000), "Time a read from `cache/` may take before the answer is loaded instead.";
        adaptive: bool = true, any, "Whether memory, times of classes and compression levels follow what is measured.";
        verify_every: u32 = 0, any, "Every so many hits one is recomputed and compared; a difference is logged, counted and mended. 0 never.";
        values_bytes_max: usize = limits::VALUES_BYTES_MAX, within(1 << 20, 1 << 40), "Memory for the values and locks of applications (`/api/cache`), all tenants together.";
        values_tenant_bytes_max: usize = limits::VALUES_TENANT_BYTES_MAX, within(1 << 20, 1 << 40), "The same for one tenant; no more than all may have together.";
        values_tenant_keys_max: usize = limits::VALUES_PER_TENANT_MAX, within(1, 100_000_000), "Values of one tenant's applications.";
        purge_url: String = String::new(), web_address, "If set, changed cache tags are posted here after a commit, for a CDN in front; `{slug}` in it stands for the tenant's slug, `{id}` for its id.";
        purge_header: String = "Authorization".to_owned(), header_name, "Header that carries `cache.purge_secret`.";
        purge_secret: Secret = Secret::default(), any, "Value of that header; none is sent if empty.";
        purge_sends: String = "tags".to_owned(), tags_or_urls, "`tags` posts `{\"tags\": […]}`, `urls` posts `{\"urls\": […]}`.";
        purge_tenants: Vec<String> = Vec::new(), any, "Slugs of the tenants whose changes are posted; empty is all.";
        purge_window_ms: u64 = 200, within(0, 60_000), "Time for which changes are gathered before they are posted.";
        purge_batch_len_max: usize = 30, within(1, 10_000), "Tags or addresses in one post.";
    }
    log: LogConfig, "Logging, to the standard error stream." {
        format: LogFormat = LogFormat::Text, any, "`text` for people, `json` for machines.";
        filter: String = "info,actix_server=warn,actix_http=off".to_owned(), any, "What is logged, in the syntax of tracing: `info,tenantry::store=debug`.";
        access: bool = true, any, "Whether each request is logged.";
    }
}
