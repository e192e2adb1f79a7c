//! The queue of mails: files in the outbox folder, and one task that sends them.
//!
//! `outbox/<tenant>/queue/<id>.json` waits to be sent; `outbox/<tenant>/failed/<id>.eml` was refused for good or given up;
//! `outbox/<tenant>/<id>.eml` was written because there is no mail server, and the log says so.
//!
//! Keeps true: a mail is synced to disk before it is sent and its file goes when the server accepted it, so it may arrive
//! twice after a crash and is not lost; a tenant whose server hangs holds few of the places, never all; waiting between
//! tries doubles up to a bound, and after the configured time a mail is given up. Files are for the owner's eyes alone.
//! Does not do: what mails say.

use super::smtp::{MailError, Route, Servers};
use super::{Mail, Mailer, template};
use crate::kernel::clock::Clock;
use crate::kernel::ident::TenantId;
use crate::kernel::limits;
use crate::kernel::random::{self, Random};
use crate::outbound::Outbound;
use crate::secrets::seal::Sealer;
use crate::services::settings::{self, Encryption};
use crate::services::tenants::Registry;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

/// What a courier is built from.
#[derive(Debug)]
pub struct CourierOptions {
    /// The outbox folder.
    pub folder: PathBuf,
    /// The node's own route; an empty host is none.
    pub node_route: Route,
    /// Certificates of mail servers that are believed beside the built-in ones, PEM.
    pub authorities: Vec<Vec<u8>>,
    /// Deadline of each step of a delivery.
    pub timeout: Duration,
    /// Milliseconds before the second try; doubles with each.
    pub retry_ms: u64,
    /// Milliseconds after which a mail is given up.
    pub give_up_ms: i64,
    /// The tenants, for their settings.
    pub registry: Registry,
    /// Opens the passwords of tenants' mail servers.
    pub sealer: Sealer,
    /// Says which addresses of tenants' mail servers may be reached.
    pub outbound: Outbound,
    /// The present.
    pub clock: Arc<dyn Clock>,
    /// Names of files.
    pub random: Arc<dyn Random>,
}

/// Takes mails and sends them; cheap to clone.
#[derive(Debug, Clone)]
pub struct Courier {
    /// Bound: `limits::MAIL_QUEUE_LEN_MAX`.
    queue: mpsc::Sender<(TenantId, Mail)>,
    desk: Arc<Desk>,
}

impl Mailer for Courier {
    fn hand_over(&self, tenant: &TenantId, mail: Mail) {
        if self.queue.try_send((tenant.clone(), mail)).is_err() {
            tracing::error!(tenant.id = %tenant, "the mail queue is full; a mail was dropped");
        }
    }
}

impl Courier {
    /// Takes up what an earlier run left and starts the task; it ends when it is aborted, which loses nothing that was
    /// written.
    pub fn start(options: CourierOptions) -> io::Result<(Self, JoinHandle<()>)> {
        fs::create_dir_all(&options.folder)?;
        let (queue, mails) = mpsc::channel(limits::MAIL_QUEUE_LEN_MAX);
        let servers = Servers::new(options.authorities.clone(), options.timeout);
        let desk = Arc::new(Desk { options, servers });
        let round = Round {
            desk: Arc::clone(&desk),
            waiting: BTreeMap::new(),
            busy: HashMap::new(),
            under_way: JoinSet::new(),
        };
        let task = tokio::spawn(round.run(mails));
        Ok((Self { queue, desk }, task))
    }

    /// Sends a mail to `to` now and says what came of it; for trying settings out.
    pub async fn try_out(&self, tenant: &TenantId, to: &str) -> Result<(), MailTrial> {
        if to.parse::<lettre::Address>().is_err() {
            return Err(MailTrial::Address);
        }
        let failed = |error: MailError| MailTrial::Failed(error.to_string());
        let desk = &self.desk;
        let Some(route) = desk.route(tenant).await.map_err(failed)? else {
            return Err(MailTrial::Failed(
                "no mail server is set: smtp.enabled and smtp.host, or mail.smtp_host".to_owned(),
            ));
        };
        let id = random::lowercase_id(desk.options.random.as_ref(), 15);
        let mail = trial(to, &route.sender_name);
        desk.servers.send(&route, &mail, &id, desk.options.clock.now_ms()).await.map_err(failed)
    }
}

/// What came of trying settings out.
#[derive(Debug, thiserror::Error)]
pub enum MailTrial {
    /// It is no address.
    #[error("not an e-mail address")]
    Address,
    /// The mail server, or the way to it; what it said.
    #[error("{0}")]
    Failed(String),
}

/// A mail on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Queued {
    version: u32,
    since_ms: i64,
    mail: Mail,
}

/// Where a queued mail is, and how often it was tried.
#[derive(Debug, Clone)]
struct Item {
    tenant: TenantId,
    path: PathBuf,
    attempts: u32,
}

#[derive(Debug)]
struct Desk {
    options: CourierOptions,
    servers: Servers,
}

impl Desk {
    /// The tenant's own server, else the node's; `None` if there is neither.
    async fn route(&self, tenant: &TenantId) -> Result<Option<Route>, MailError> {
        let registry = &self.options.registry;
        let db = if tenant == registry.control().id() {
            registry.control().clone()
        } else {
            registry.open_tenant(tenant).await.map_err(|error| MailError::Later(error.to_string()))?
        };
        let set = settings::read(&db).await.map_err(|error| MailError::Later(error.to_string()))?;
        let mut route = self.options.node_route.clone();
        if !set.meta.sender_address.is_empty() {
            route.sender_address.clone_from(&set.meta.sender_address);
        }
        if !set.meta.sender_name.is_empty() {
            route.sender_name.clone_from(&set.meta.sender_name);
        } else if let (true, Some(entry)) = (route.sender_name.is_empty(), registry.entry(tenant)) {
            route.sender_name = entry.name.to_string();
        }
        if set.smtp.enabled {
            let password = set.smtp.open_password(&self.options.sealer, &db).ok_or_else(|| {
                MailError::Later("smtp.password was sealed by another node or tenant; set it again".to_owned())
            })?;
            // Whoever sets a tenant up says here where the node connects to; the node's own server is the operator's word.
            let addresses = self.options.outbound.resolve(&set.smtp.host).await;
            route.addresses = addresses.map_err(|error| MailError::Later(error.to_string()))?;
            route.host.clone_from(&set.smtp.host);
            route.port = set.smtp.port;
            route.username.clone_from(&set.smtp.username);
            route.password = password;
            route.login_method = set.smtp.auth_method == "LOGIN";
            route.encryption = set.smtp.encryption;
            route.local_name.clone_from(&set.smtp.local_name);
        }
        Ok(Some(route).filter(|route| !route.host.is_empty()))
    }

    fn place(&self, tenant: &TenantId, kind: &str) -> PathBuf {
        let folder = self.options.folder.join(tenant.as_str());
        if kind.is_empty() { folder } else { folder.join(kind) }
    }

    /// Writes a mail into the queue, or, without a mail server, for people to read.
    async fn take(&self, tenant: TenantId, mail: Mail) -> Option<Item> {
        let now_ms = self.options.clock.now_ms();
        let name = format!("{now_ms}-{}", random::lowercase_id(self.options.random.as_ref(), 8));
        // A server that cannot be read now may be there later.
        let queued = !matches!(self.route(&tenant).await, Ok(None));
        let (folder, file, text) = if queued {
            let entry = Queued { version: 1, since_ms: now_ms, mail };
            (self.place(&tenant, "queue"), format!("{name}.json"), serde_json::to_string(&entry).unwrap_or_default())
        } else {
            (self.place(&tenant, ""), format!("{name}.eml"), readable(&mail, ""))
        };
        let path = folder.join(&file);
        let written = tokio::task::spawn_blocking(move || write(&folder, &file, &text)).await;
        match written.map_err(io::Error::other).and_then(|done| done) {
            Ok(()) if queued => return Some(Item { tenant, path, attempts: 0 }),
            Ok(()) => tracing::info!(
                tenant.id = %tenant, mail.file = %name,
                "no mail server is configured; the mail is in the outbox folder"
            ),
            Err(error) => tracing::error!(tenant.id = %tenant, %error, "a mail could not be written"),
        }
        None
    }

    /// One try; the item comes back if there is to be another.
    async fn deliver(&self, item: Item) -> Option<Item> {
        let path = item.path.clone();
        let read = tokio::task::spawn_blocking(move || fs::read_to_string(path)).await.ok().and_then(Result::ok);
        let Some(queued) = read.and_then(|text| serde_json::from_str::<Queued>(&text).ok()) else {
            tracing::error!(tenant.id = %item.tenant, mail.file = %item.path.display(), "a queued mail cannot be read");
            return None;
        };
        let id = item.path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let now_ms = self.options.clock.now_ms();
        let outcome = match self.route(&item.tenant).await {
            Ok(Some(route)) => self.servers.send(&route, &queued.mail, &id, now_ms).await,
            Ok(None) => Err(MailError::Later("no mail server is set any more".to_owned())),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => {
                tracing::info!(tenant.id = %item.tenant, mail.id = %id, mail.attempts = item.attempts + 1, "a mail was sent");
                remove(item.path).await;
                None
            }
            Err(MailError::Later(why)) if now_ms.saturating_sub(queued.since_ms) < self.options.give_up_ms => {
                tracing::warn!(
                    tenant.id = %item.tenant, mail.id = %id, mail.attempts = item.attempts + 1, error = %why,
                    "a mail was not taken yet; it is tried again"
                );
                Some(Item { attempts: item.attempts.saturating_add(1), ..item })
            }
            Err(error) => {
                tracing::error!(tenant.id = %item.tenant, mail.id = %id, %error, "a mail is given up; it is in failed/");
                let text = readable(&queued.mail, &error.to_string());
                let folder = self.place(&item.tenant, "failed");
                let file = format!("{id}.eml");
                // Kept before the original goes, so that a crash in between leaves both.
                let kept = tokio::task::spawn_blocking(move || write(&folder, &file, &text)).await;
                if matches!(kept, Ok(Ok(()))) {
                    remove(item.path).await;
                }
                None
            }
        }
    }

    fn delay_ms(&self, attempts: u32) -> i64 {
        let doubled = self.options.retry_ms.saturating_mul(1 << attempts.saturating_sub(1).min(20));
        let bounded = doubled.min(limits::MAIL_RETRY_MS_MAX.max(self.options.retry_ms));
        // Up to a quarter more, so that what failed together is not tried together.
        let spread = random::below(self.options.random.as_ref(), bounded / 4 + 1);
        i64::try_from(bounded + spread).unwrap_or(i64::MAX)
    }
}

/// The task's own state: what waits until when, and what is under way.
struct Round {
    desk: Arc<Desk>,
    /// Bound: `limits::MAILS_WAITING_MAX`.
    waiting: BTreeMap<(i64, u64), Item>,
    /// How many of each tenant are under way.
    busy: HashMap<TenantId, usize>,
    /// Bound: `limits::MAIL_DELIVERIES_MAX`.
    under_way: JoinSet<(TenantId, Option<Item>)>,
}

impl Round {
    async fn run(mut self, mut mails: mpsc::Receiver<(TenantId, Mail)>) {
        self.recover().await;
        let mut tick = tokio::time::interval(Duration::from_millis(limits::MAIL_TICK_MS));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                mail = mails.recv() => match mail {
                    Some((tenant, mail)) => self.accept(tenant, mail).await,
                    None => return,
                },
                Some(done) = self.under_way.join_next() => self.finish(done),
                _ = tick.tick() => {}
            }
            self.start_due();
        }
    }

    /// Takes up the files that an earlier run left.
    async fn recover(&mut self) {
        let folder = self.desk.options.folder.clone();
        let found = tokio::task::spawn_blocking(move || list_queued(&folder)).await.unwrap_or_default();
        if !found.is_empty() {
            tracing::info!(mails = found.len(), "mails of an earlier run are sent now");
        }
        for item in found {
            self.wait(item, 0);
        }
    }

    async fn accept(&mut self, tenant: TenantId, mail: Mail) {
        if self.waiting.len() >= limits::MAILS_WAITING_MAX {
            tracing::error!(tenant.id = %tenant, "too many mails wait for a mail server; a mail was dropped");
            return;
        }
        if let Some(item) = self.desk.take(tenant, mail).await {
            self.wait(item, 0);
        }
    }

    fn wait(&mut self, item: Item, delay_ms: i64) {
        let due_ms = self.desk.options.clock.now_ms().saturating_add(delay_ms);
        let tie = random::below(self.desk.options.random.as_ref(), u64::MAX);
        self.waiting.insert((due_ms, tie), item);
    }

    fn start_due(&mut self) {
        let now_ms = self.desk.options.clock.now_ms();
        let due: Vec<(i64, u64)> = self.waiting.range(..=(now_ms, u64::MAX)).map(|(key, _)| *key).collect();
        for key in due {
            if self.under_way.len() >= limits::MAIL_DELIVERIES_MAX {
                return;
            }
            let free = self.waiting.get(&key).is_some_and(|item| {
                self.busy.get(&item.tenant).copied().unwrap_or(0) < limits::MAIL_DELIVERIES_PER_TENANT_MAX
            });
            let Some(item) = free.then(|| self.waiting.remove(&key)).flatten() else { continue };
            *self.busy.entry(item.tenant.clone()).or_default() += 1;
            let desk = Arc::clone(&self.desk);
            self.under_way.spawn(async move { (item.tenant.clone(), desk.deliver(item).await) });
        }
    }

    fn finish(&mut self, done: Result<(TenantId, Option<Item>), tokio::task::JoinError>) {
        let (tenant, again) = match done {
            Ok(done) => done,
            Err(error) => {
                // Which one it was is not known; all places of all tenants come back, its file waits for the next start.
                tracing::error!(%error, "a delivery broke off");
                self.busy.clear();
                return;
            }
        };
        if let Some(count) = self.busy.get_mut(&tenant) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.busy.remove(&tenant);
            }
        }
        if let Some(item) = again {
            let delay_ms = self.desk.delay_ms(item.attempts);
            self.wait(item, delay_ms);
        }
    }
}

fn list_queued(folder: &Path) -> Vec<Item> {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found = Vec::new();
    for tenant in entries(folder) {
        let Ok(id) = TenantId::parse(&tenant.file_name().to_string_lossy()) else { continue };
        for file in entries(&tenant.path().join("queue")) {
            let path = file.path();
            if path.extension().is_some_and(|kind| kind == "json") && found.len() < limits::MAILS_WAITING_MAX {
                found.push(Item { tenant: id.clone(), path, attempts: 0 });
            }
        }
    }
    found
}

/// Writes a file whole or not at all, readable by its owner alone.
fn write(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    // Created with mode 0600 by the crate.
    let mut file = tempfile::Builder::new().prefix(".mail.").tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(folder.join(name)).map_err(|error| error.error)?;
    fs::File::open(folder)?.sync_all()
}

async fn remove(path: PathBuf) {
    let shown = path.display().to_string();
    let removed = tokio::task::spawn_blocking(move || fs::remove_file(path)).await;
    if let Ok(Err(error)) = removed {
        tracing::error!(mail.file = %shown, %error, "a sent mail could not be taken out of the queue; it may be sent again");
    }
}

/// A mail for people to read in a file.
fn readable(mail: &Mail, why: &str) -> String {
    let line = |text: &str| text.replace(['\r', '\n'], " ");
    let reason = if why.is_empty() { String::new() } else { format!("X-Failed: {}\r\n", line(why)) };
    format!(
        "To: {}\r\nSubject: {}\r\n{reason}Content-Type: text/html; charset=utf-8\r\n\r\n{}\r\n",
        line(&mail.to),
        line(&mail.subject),
        mail.html
    )
}

impl Route {
    /// No server; `sender_address` is used by tenants that have one.
    pub fn none(sender_address: &str) -> Self {
        Self {
            sender_name: String::new(),
            sender_address: sender_address.to_owned(),
            host: String::new(),
            addresses: Vec::new(),
            port: 587,
            username: String::new(),
            password: crate::secrets::Secret::default(),
            login_method: false,
            encryption: Encryption::StartTls,
            local_name: String::new(),
        }
    }
}

/// A mail that tells that mails arrive.
fn trial(to: &str, app_name: &str) -> Mail {
    let name = template::escape(app_name);
    Mail {
        to: to.to_owned(),
        subject: format!("Test of {app_name}"),
        html: format!("<p>Mails of {name} arrive.</p>"),
        text: format!("Mails of {app_name} arrive."),
    }
}
