//! A store with tenants of the small tournament schema, as the benches below HTTP use it.
//!
//! Keeps true: each tenant holds one record, `first`, that a reader can look for. Does not do: the registry; a tenant
//! here is its file.

use super::histogram::Histogram;
use super::rng::Rng;
use super::schema;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tenantry::kernel::clock;
use tenantry::kernel::clock::SystemClock;
use tenantry::kernel::ident::{FieldNumber, NodeId, RecordId, TenantId};
use tenantry::kernel::random::SystemRandom;
use tenantry::kernel::value::Stored;
use tenantry::schema::plan::{Plan, Step};
use tenantry::schema::record::RecordImage;
use tenantry::schema::{Collection, Schema};
use tenantry::store::{StoreError, StoreOptions, TenantDb, Tenants, WriteMeta};

/// A running store.
pub(crate) struct Node {
    /// Its tenants.
    pub(crate) tenants: Tenants,
    plan: Plan,
    players: Arc<Collection>,
}

impl Node {
    /// Starts a store in `dir` that holds at most `open_max` handles.
    pub(crate) fn start(dir: &Path, open_max: usize) -> anyhow::Result<Self> {
        let random = Arc::new(SystemRandom::default());
        let mut options = StoreOptions::new(dir.to_owned(), NodeId([7; 16]), Arc::new(SystemClock), random);
        options.open_max = open_max;
        let next = Arc::new(schema::schema());
        let steps = next.collections().iter().map(|collection| Step::CreateTable(Arc::clone(collection))).collect();
        let players = next.find("players").cloned().ok_or_else(|| anyhow::anyhow!("a fixed collection"))?;
        let plan = Plan { steps, previous: Arc::new(Schema::default()), next };
        Ok(Self { tenants: Tenants::start(options)?, plan, players })
    }

    /// The id of the tenant with number `at`.
    pub(crate) fn id(at: usize) -> anyhow::Result<TenantId> {
        Ok(TenantId::parse(&format!("bench{at:010}"))?)
    }

    /// Makes a tenant with its collections and one record.
    pub(crate) async fn create(&self, at: usize) -> anyhow::Result<TenantDb> {
        let (tenant, plan) = (self.tenants.create(&Self::id(at)?).await?, self.plan.clone());
        tenant.write::<_, StoreError, _>(WriteMeta::system("bench"), move |tx| tx.apply_schema(&plan)).await?;
        self.insert(&tenant, player("first", &mut Rng::new(at as u64))).await?;
        Ok(tenant)
    }

    /// Makes a tenant as a copy of tenant 0.
    pub(crate) async fn copy(&self, at: usize) -> anyhow::Result<()> {
        self.tenants.clone_tenant(&Self::id(0)?, &Self::id(at)?).await?;
        Ok(())
    }

    /// Whether the record every tenant has is there.
    pub(crate) async fn read_first(&self, tenant: &TenantDb) -> anyhow::Result<bool> {
        let players = Arc::clone(&self.players);
        let read = tenant.read::<_, StoreError, _>(move |reader| reader.find_record(&players, "first"));
        Ok(read.await?.is_some())
    }

    /// Durable creates per second by `clients` at once, with their latencies.
    pub(crate) async fn creates_per_second(
        self: &Arc<Self>,
        tenant: &TenantDb,
        clients: usize,
        window: Duration,
    ) -> anyhow::Result<(f64, Histogram)> {
        let began = clock::instant();
        let tasks: Vec<_> = (0..clients)
            .map(|client| {
                let (node, tenant) = (Arc::clone(self), tenant.clone());
                let mut rng = Rng::new(u64::from(began.elapsed().subsec_nanos()) ^ ((client as u64) << 40));
                tokio::spawn(async move {
                    let mut latencies = Histogram::new();
                    while began.elapsed() < window {
                        let sent_at = clock::instant();
                        let id = rng.record_id();
                        node.insert(&tenant, player(&id, &mut rng)).await?;
                        latencies.record(sent_at.elapsed());
                    }
                    Ok::<_, anyhow::Error>(latencies)
                })
            })
            .collect();
        let mut all = Histogram::new();
        for task in tasks {
            all.merge(&task.await??);
        }
        Ok((all.count() as f64 / began.elapsed().as_secs_f64(), all))
    }

    async fn insert(&self, tenant: &TenantDb, record: RecordImage) -> anyhow::Result<()> {
        let players = Arc::clone(&self.players);
        tenant.write::<_, StoreError, _>(WriteMeta::system("bench"), move |tx| tx.insert(&players, &record)).await?;
        Ok(())
    }
}

/// A player by field number (see `schema`).
fn player(id: &str, rng: &mut Rng) -> RecordImage {
    let moment = "2026-03-01 18:00:00.000Z";
    let values = [
        Stored::from(rng.record_id()),
        Stored::from(""),
        Stored::from("Player Number 1"),
        Stored::from("registered"),
        Stored::from(rng.below(50_000) as f64),
        Stored::from(4.0),
        Stored::from(7.0),
        Stored::from(0.0),
        Stored::from(moment),
        Stored::from(moment),
        Stored::from(moment),
    ];
    let id = RecordId::parse(id).expect("invariant: letters and digits");
    RecordImage::new(id, (1..).map(FieldNumber).zip(values))
}
