//! Everything below HTTP, opened once and closed once.
//!
//! Keeps true: observers are in place before the first tenant opens, so no commit goes unseen; closing commits, then
//! checkpoints, then releases the files. Does not do: answering requests.

use super::metering::{Feed, Scales, UsageWatch};
use super::observe::{
    CacheFeed, CacheWatch, DiskHealth, PurgeWatch, SlowQueryLog, StoreWatch, TenantsWatch, ValuesWatch,
};
use super::reserve::Reserve;
use super::upkeep::Upkeep;
use super::warming::Warming;
use super::{Parts, StartError, folder};
use crate::cache::kv::{Bounds, Kv, KvOptions};
use crate::cache::{Cache, CacheOptions};
use crate::config::{BudgetsConfig, Config, LimitsConfig, OutboundConfig};
use crate::http::{
    self, AuthPart, BlueprintsPart, CachePart, CollectionsPart, DoctorPart, OpsPart, RequestLimits, RequestQuotas,
    SettingsPart, TenantsPart, TransitFolder, ValuesPart, VisitPart,
};
use crate::kernel::clock::Clock;
use crate::kernel::ident::TenantId;
use crate::kernel::limits;
use crate::kernel::random::Random;
use crate::outbound::Outbound;
use crate::secrets::Secret;
use crate::secrets::keys::NodeSecret;
use crate::secrets::password::{PasswordHasher, PasswordOptions};
use crate::secrets::seal::Sealer;
use crate::services::auth::{
    Auth, AuthJournal, AuthParts, Challenges, Known, MailGuard, MailLimits, OAuthTools, PartyOptions,
};
use crate::services::blueprints::Catalog;
use crate::services::budget::{Budgets, TenantLimits};
use crate::services::login_guard::{LoginGuard, LoginLimits};
use crate::services::mail::{Courier, CourierOptions, Route};
use crate::services::purging::{PurgeForm, PurgeHook, PurgeOptions, PurgeTask};
use crate::services::records::RecordTools;
use crate::services::records::cached::RecordCache;
use crate::services::settings::Encryption;
use crate::services::tenants::{Registry, RegistryOptions};
use crate::services::throttle::Quota;
use crate::store::{self, CommitObserver, StoreOptions};
use crate::telemetry::LogWatch;
use crate::telemetry::health::HealthSource;
use crate::telemetry::metrics::{HttpMetrics, MetricSource};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// How often idle tenants, and tenants due for upkeep, are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(15);
/// Time that stopping waits for mails to be written.
const MAIL_STOP: Duration = Duration::from_secs(5);
/// How often the disk is looked at, and the cache writes hot answers to it and adapts.
const UPKEEP_EVERY: Duration = Duration::from_secs(2);

/// The opened engines and services.
pub(super) struct Engines {
    store: Arc<store::Tenants>,
    pub(super) registry: Registry,
    pub(super) auth: Auth,
    pub(super) catalog: Catalog,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    cache: Option<Cache>,
    kv: Kv,
    tools: Arc<RecordTools>,
    node_key: Secret,
    /// Keeps open tenants tidy and closes idle ones; aborted by `close`, between two sweeps or inside one, which holds
    /// nothing half-done.
    sweeper: JoinHandle<()>,
    budgets: Arc<Budgets>,
    /// Measures what tenants keep on disk; aborted by `close`, it only reads.
    weigher: JoinHandle<()>,
    sealer: Sealer,
    courier: Courier,
    /// Sends mails; ends by itself once nobody hands any over, after writing what it was given.
    posting: JoinHandle<()>,
    /// Told of changes for caches in front of the node, if there is an address to tell them at.
    purges: Option<PurgeHook>,
    /// Posts them; ended by `close` after the last commit.
    purger: Option<PurgeTask>,
    /// Looks after the cache and the values of applications; aborted by `close`, between two rounds.
    keeper: JoinHandle<()>,
    /// What the node has left where the disk is full.
    reserve: Arc<Reserve>,
    /// Refills the cache; aborted by `close`, between two reads or inside one.
    warmer: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Engines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engines").finish_non_exhaustive()
    }
}

impl Engines {
    pub(super) async fn open(config: &Config, parts: &Parts, reserve: Arc<Reserve>) -> Result<Self, StartError> {
        let known = Arc::new(Known::default());
        let cache = open_cache(config, parts);
        let mut observers: Vec<Arc<dyn CommitObserver>> = vec![Arc::clone(&known) as Arc<dyn CommitObserver>];
        observers.extend(cache.clone().map(|cache| Arc::new(CacheFeed(cache)) as Arc<dyn CommitObserver>));
        let purges = (!config.cache.purge_url.is_empty()).then(PurgeHook::new);
        observers.extend(purges.clone().map(|hook| Arc::new(hook) as Arc<dyn CommitObserver>));
        let budgets = Arc::new(Budgets::new(budget_defaults(&config.budgets)));
        let feed = Arc::new(Feed { budgets: Arc::clone(&budgets), clock: Arc::clone(&parts.clock) });
        observers.push(Arc::clone(&feed) as Arc<dyn CommitObserver>);
        let secret = NodeSecret::load_or_create(&config.data.dir, parts.random.as_ref())?;
        let sealer = Sealer::new(&secret);
        let outbound = outbound(&config.outbound);
        let mut options = store_options(config, parts, observers)?;
        options.sealer = Some(Arc::new(SchemaSeal(sealer.clone(), Arc::clone(&parts.random))));
        options.meters = Some(feed);
        let store = Arc::new(store::Tenants::start(options)?);
        let (clock, random) = (Arc::clone(&parts.clock), Arc::clone(&parts.random));
        let options = RegistryOptions {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            random: Arc::clone(&random),
            sealer: sealer.clone(),
        };
        let registry = Registry::open(options).await?;
        let purger = match &purges {
            Some(hook) => {
                let started = hook.start(purge_options(config), registry.clone());
                Some(started.map_err(StartError::PurgeHook)?)
            }
            None => None,
        };
        let hasher = PasswordHasher::new(PasswordOptions::default(), Arc::clone(&random))?;
        let (courier, posting) = Courier::start(courier_options(config, &registry, &sealer, &outbound, parts)?)?;
        let tools = RecordTools::new(Arc::clone(&clock), Arc::clone(&random), hasher.clone(), secret);
        let guard = Arc::new(LoginGuard::new(login_limits(&config.limits)));
        let room = Arc::clone(&reserve);
        let tools = tools.with_guard(Arc::clone(&guard)).with_registry(registry.clone());
        let tools = tools.with_room(move || room.has_room());
        let tools = match &cache {
            Some(cache) => tools.with_cache(RecordCache::new(cache.clone())),
            None => tools,
        };
        let auth = Auth::new(AuthParts {
            registry: registry.clone(),
            hasher,
            sealer: sealer.clone(),
            oauth: OAuthTools::new(outbound.clone()),
            mailer: Arc::new(courier.clone()),
            known,
            guard,
            journal: Arc::new(AuthJournal::default()),
            mail_guard: MailGuard::new(mail_limits(&config.limits)),
            mail_work: Arc::new(Semaphore::new(limits::MAIL_WORK_MAX)),
            clock: Arc::clone(&clock),
            random: Arc::clone(&random),
            party: PartyOptions {
                public_url: config.http.public_url.clone(),
                rp_id: config.passkeys.rp_id.to_ascii_lowercase(),
                origins: config.passkeys.origins.clone(),
            },
            challenges: Challenges::default(),
            app_url: Arc::from(config.http.public_url.trim_end_matches('/')),
        });
        let kv = match &cache {
            Some(cache) => cache.kv(kv_options(config)),
            None => Kv::in_memory(kv_options(config), Arc::clone(&clock)),
        };
        kv.restore().await;
        let node_key = folder::load_or_create_key(&config.data.dir, random.as_ref())?;
        let tools = Arc::new(tools);
        let tidying = Upkeep::new(
            Arc::clone(&store),
            auth.clone(),
            Arc::clone(&tools),
            Arc::clone(&budgets),
            Arc::clone(&clock),
            &config.data,
        );
        let sweeper = tokio::spawn(sweep(tidying));
        let scales = Scales {
            store: Arc::clone(&store),
            budgets: Arc::clone(&budgets),
            clock: Arc::clone(&clock),
            uploads: HashMap::new(),
        };
        let weigher = tokio::spawn(scales.run());
        let warmer = cache.clone().map(|cache| {
            let (tools, registry) = (Arc::clone(&tools), registry.clone());
            tokio::spawn(Warming { cache, tools, registry, store: Arc::clone(&store) }.run())
        });
        let keeper = tokio::spawn(upkeep(cache.clone(), kv.clone(), Arc::clone(&reserve)));
        let catalog = Catalog::new(registry.control().clone(), Arc::clone(&random), sealer.clone());
        Ok(Self {
            store,
            registry,
            auth,
            catalog,
            clock,
            random,
            cache,
            kv,
            tools,
            node_key,
            sweeper,
            budgets,
            weigher,
            sealer,
            courier,
            posting,
            purges,
            purger,
            keeper,
            warmer,
            reserve,
        })
    }

    /// The handles of every handler part.
    pub(super) fn handlers(
        &self,
        config: &Config,
        parts: &Parts,
        metrics: Arc<HttpMetrics>,
        draining: Arc<AtomicBool>,
    ) -> Result<http::Parts, StartError> {
        let watch = Arc::new(StoreWatch(Arc::clone(&self.store)));
        let mut health: Vec<Arc<dyn HealthSource>> =
            vec![Arc::clone(&watch) as _, Arc::new(DiskHealth(config.data.dir.clone()))];
        let mut sources: Vec<Arc<dyn MetricSource>> =
            vec![Arc::clone(&metrics) as _, watch, Arc::new(TenantsWatch(self.registry.clone())), Arc::new(LogWatch)];
        sources.push(Arc::new(UsageWatch {
            budgets: Arc::clone(&self.budgets),
            registry: self.registry.clone(),
            clock: Arc::clone(&parts.clock),
        }));
        sources.push(Arc::new(ValuesWatch(self.kv.clone())));
        if let Some(cache) = self.cache.clone().map(CacheWatch).map(Arc::new) {
            health.push(Arc::clone(&cache) as _);
            sources.push(cache);
        }
        if let Some(watch) = self.purges.clone().map(PurgeWatch).map(Arc::new) {
            health.push(Arc::clone(&watch) as _);
            sources.push(watch);
        }
        let transit = TransitFolder::open(config.data.dir.join("transit"), Arc::clone(&parts.random))?;
        let proxies = config.http.trusted_proxies.clone();
        Ok(http::Parts {
            visit: VisitPart {
                registry: self.registry.clone(),
                auth: self.auth.clone(),
                tools: Arc::clone(&self.tools),
                clock: Arc::clone(&parts.clock),
                limits: Arc::new(RequestLimits::new(request_quotas(&config.limits))),
                budgets: Arc::clone(&self.budgets),
                node_key: self.node_key.clone(),
                tenant_domains: config.http.tenant_domains.clone(),
                trusted: Box::new(move |address| proxies.iter().any(|range| range.contains(address))),
            },
            auth: AuthPart { auth: self.auth.clone() },
            collections: CollectionsPart { random: Arc::clone(&parts.random) },
            blueprints: BlueprintsPart {
                catalog: self.catalog.clone(),
                registry: self.registry.clone(),
                random: Arc::clone(&parts.random),
                clock: Arc::clone(&parts.clock),
            },
            tenants: TenantsPart {
                budgets: Arc::clone(&self.budgets),
                auth: self.auth.clone(),
                registry: self.registry.clone(),
                catalog: self.catalog.clone(),
                clock: Arc::clone(&parts.clock),
                random: Arc::clone(&parts.random),
                tools: Arc::clone(&self.tools),
                values: self.kv.clone(),
                purges: self.purges.clone(),
                transit,
            },
            cache: CachePart {
                tools: Arc::clone(&self.tools),
                registry: self.registry.clone(),
                purges: self.purges.clone(),
                values: self.kv.clone(),
            },
            values: ValuesPart { kv: self.kv.clone(), random: Arc::clone(&parts.random) },
            settings: SettingsPart {
                random: Arc::clone(&parts.random),
                sealer: self.sealer.clone(),
                courier: self.courier.clone(),
            },
            doctor: DoctorPart { registry: self.registry.clone(), folder: config.data.dir.clone() },
            ops: OpsPart {
                clock: Arc::clone(&parts.clock),
                health,
                metrics: sources,
                metrics_token: Some(config.http.metrics_token.clone()).filter(|token| !token.is_empty()),
                draining,
            },
            metrics,
            random: Arc::clone(&parts.random),
        })
    }

    /// Commits what is queued, checkpoints, closes every file.
    pub(super) async fn close(self) {
        let Self {
            store,
            registry,
            auth,
            catalog,
            tools,
            cache,
            kv,
            courier,
            posting,
            sweeper,
            weigher,
            purger,
            keeper,
            warmer,
            reserve,
            ..
        } = self;
        // Mails that were asked for are on disk before the node ends; those that cannot be are not waited for.
        let _ = tokio::time::timeout(MAIL_STOP, auth.mail_work_done()).await;
        auth.events_written().await;
        sweeper.abort();
        keeper.abort();
        // Aborted is the expected end.
        let _ = sweeper.await;
        weigher.abort();
        let _ = weigher.await;
        if let Some(warmer) = warmer {
            warmer.abort();
            let _ = warmer.await;
        }
        if let Some(purger) = purger {
            purger.close().await;
        }
        // These hold a handle of the control database, which could not close before they are gone.
        drop((registry, auth, catalog, tools, courier));
        let ending = posting.abort_handle();
        if tokio::time::timeout(MAIL_STOP, posting).await.is_err() {
            ending.abort();
        }
        store.shutdown().await;
        // Waits for the disk tier's thread; a panic there has been contained and must not stop the stop.
        let saved = tokio::task::spawn_blocking(move || {
            kv.save();
            if let Some(cache) = cache {
                cache.close();
            }
        });
        let _ = saved.await;
        reserve.close();
    }
}

async fn upkeep(cache: Option<Cache>, kv: Kv, reserve: Arc<Reserve>) {
    let mut ticks = tokio::time::interval(UPKEEP_EVERY);
    loop {
        ticks.tick().await;
        let looking = Arc::clone(&reserve);
        // It waits for the disk; a panic there is no reason to keep nothing any more.
        let _ = tokio::task::spawn_blocking(move || looking.look()).await;
        if let Some(cache) = &cache {
            cache.maintain();
        }
        kv.maintain();
    }
}

fn kv_options(config: &Config) -> KvOptions {
    let cache = &config.cache;
    let tenant = Bounds {
        keys_max: cache.values_tenant_keys_max,
        bytes_max: cache.values_tenant_bytes_max.min(cache.values_bytes_max),
        ..Bounds::default()
    };
    KvOptions { tenant, bytes_max: cache.values_bytes_max }
}

/// The cache in `cache/`, unless it is switched off.
fn open_cache(config: &Config, parts: &Parts) -> Option<Cache> {
    let disk_root = config.cache.disk.then(|| config.data.dir.join("cache"));
    let options = CacheOptions {
        memory_bytes_max: u64::try_from(config.cache.memory_bytes_max).unwrap_or(u64::MAX),
        disk_root,
        disk_bytes_max: config.cache.disk_bytes_max,
        disk_read_deadline_ms: config.cache.disk_read_deadline_ms,
        verify_every: config.cache.verify_every,
        adaptive: config.cache.adaptive,
        clock: Arc::clone(&parts.clock),
        ..CacheOptions::default()
    };
    config.cache.enabled.then(|| Cache::open(options))
}

fn purge_options(config: &Config) -> PurgeOptions {
    let cache = &config.cache;
    PurgeOptions {
        url: cache.purge_url.clone(),
        header: cache.purge_header.clone(),
        secret: cache.purge_secret.clone(),
        form: if cache.purge_sends == "urls" { PurgeForm::Urls } else { PurgeForm::Tags },
        tenants: cache.purge_tenants.clone(),
        window: Duration::from_millis(cache.purge_window_ms),
        batch_len_max: cache.purge_batch_len_max,
        public_url: config.http.public_url.clone(),
    }
}

async fn sweep(mut upkeep: Upkeep) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    loop {
        ticks.tick().await;
        upkeep.run().await;
    }
}

/// Client secrets of identity providers are sealed wherever a schema is stored.
struct SchemaSeal(Sealer, Arc<dyn Random>);

impl store::SchemaSealer for SchemaSeal {
    fn seal(&self, tenant: &TenantId, place: &str, plain: &str) -> String {
        self.0.seal(self.1.as_ref(), tenant, place, plain.as_bytes())
    }
}

fn outbound(config: &OutboundConfig) -> Outbound {
    let ranges = config.private_allowed.clone();
    Outbound::new(Arc::new(move |address| ranges.iter().any(|range| range.contains(address))))
}

fn store_options(
    config: &Config,
    parts: &Parts,
    observers: Vec<Arc<dyn CommitObserver>>,
) -> Result<StoreOptions, StartError> {
    let node = store::load_or_create_node_id(&config.data.dir, parts.random.as_ref())?;
    let (clock, random) = (Arc::clone(&parts.clock), Arc::clone(&parts.random));
    Ok(StoreOptions {
        open_max: config.data.open_tenants_max,
        idle_close_ms: i64::try_from(config.data.idle_close_s * 1_000).unwrap_or(i64::MAX),
        writer_threads: config.data.writer_threads,
        faults: Arc::clone(&parts.faults),
        observers,
        slow_queries: Some(Arc::new(SlowQueryLog)),
        slow_query: Duration::from_millis(config.data.slow_query_ms),
        ..StoreOptions::new(config.data.dir.clone(), node, clock, random)
    })
}

fn budget_defaults(config: &BudgetsConfig) -> TenantLimits {
    let limit = |value: u64| Some(value).filter(|value| *value > 0);
    TenantLimits {
        requests_per_minute: limit(config.requests_per_minute),
        requests_per_day: limit(config.requests_per_day),
        writes_per_minute: limit(config.writes_per_minute),
        read_steps_per_minute: limit(config.read_steps_per_minute),
        storage_bytes: limit(config.storage_bytes),
        concurrent_requests: limit(config.concurrent_requests),
        connections: limit(config.connections),
    }
}

fn login_limits(config: &LimitsConfig) -> LoginLimits {
    LoginLimits {
        per_identity: Quota::new(config.login_failures_max, config.login_window_s),
        per_address: Quota::new(config.login_failures_per_ip_max, config.login_window_s),
    }
}

fn mail_limits(config: &LimitsConfig) -> MailLimits {
    let quota = |permits| Quota::new(permits, config.mail_window_s);
    MailLimits {
        per_pair: quota(config.mails_asked_max),
        per_address: quota(config.mails_asked_per_ip_max),
        per_recipient: quota(config.mails_per_recipient_max),
        per_tenant: quota(config.mails_per_tenant_max),
    }
}

fn courier_options(
    config: &Config,
    registry: &Registry,
    sealer: &Sealer,
    outbound: &Outbound,
    parts: &Parts,
) -> Result<CourierOptions, StartError> {
    let mail = &config.mail;
    let authorities = mail.ca_files.iter().map(std::fs::read).collect::<Result<_, _>>()?;
    Ok(CourierOptions {
        folder: config.data.dir.join("outbox"),
        node_route: Route {
            sender_name: mail.sender_name.clone(),
            host: mail.smtp_host.clone(),
            port: u16::try_from(mail.smtp_port).unwrap_or(587),
            username: mail.smtp_username.clone(),
            password: mail.smtp_password.clone(),
            login_method: mail.smtp_auth_method == "LOGIN",
            encryption: Encryption::parse(&mail.smtp_encryption).unwrap_or_default(),
            local_name: mail.smtp_local_name.clone(),
            ..Route::none(&mail.sender_address)
        },
        authorities,
        timeout: Duration::from_millis(mail.timeout_ms),
        retry_ms: mail.retry_ms,
        give_up_ms: i64::from(mail.give_up_h) * 3_600_000,
        registry: registry.clone(),
        sealer: sealer.clone(),
        outbound: outbound.clone(),
        clock: Arc::clone(&parts.clock),
        random: Arc::clone(&parts.random),
    })
}

fn request_quotas(config: &LimitsConfig) -> RequestQuotas {
    let quota = |permits| Quota::new(permits, config.window_s);
    RequestQuotas {
        address: quota(config.requests_per_ip_max),
        account: quota(config.requests_per_account_max),
        tenant: quota(config.requests_per_tenant_max),
    }
}
