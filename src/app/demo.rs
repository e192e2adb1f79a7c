//! What `serve --demo` finds ready: a superuser, and a tenant with sample data.
//!
//! Keeps true: what is there is left alone; a tenant whose filling was cut off is gone, so the next start fills it anew.
//! Does not do: printing.

use super::{RunningNode, StartError};
use crate::kernel::error::Fault;
use crate::kernel::ident::TenantSlug;
use crate::schema::blueprint::Blueprint;
use crate::secrets::{Secret, opaque};
use crate::services::blueprints::{self, BlueprintError};
use crate::services::sample::{self, SampleRequest, SampleSize};
use crate::services::tenants::{BlueprintRef, Contents, CreateTenant, Fill};
use crate::store::WriteMeta;
use std::sync::Arc;

/// The address of the demo's superuser.
pub const DEMO_EMAIL: &str = "admin@example.com";
/// The slug of the tenant with sample data.
pub const DEMO_TENANT: &str = "demo-org";
/// The blueprint it is made from.
const BLUEPRINT: &str = "tournament";

/// Told how many records of about how many are written.
pub type Progress = Arc<dyn Fn(usize, usize) + Send + Sync>;

impl RunningNode {
    /// Makes what the demo needs and is not there, with `players` players in place of 20,000 and everything else in
    /// proportion. Answers the superuser's password if one was made.
    pub async fn prepare_demo(&self, players: Option<usize>, progress: Progress) -> Result<Option<Secret>, StartError> {
        let engines = &self.engines;
        let meta = WriteMeta::system("demo");
        if engines.registry.find(DEMO_TENANT).is_err() {
            let blueprint = engines.catalog.find(BLUEPRINT, None).await?;
            let slug = TenantSlug::parse(DEMO_TENANT).expect("invariant: the demo's slug is well formed");
            let request = CreateTenant {
                name: "Demo organisation".to_owned(),
                blueprint: Some(BlueprintRef { name: Arc::clone(&blueprint.name), version: blueprint.version }),
                contents: Contents::Filled(self.fill(blueprint, request(players), progress)),
                ..CreateTenant::plain(slug)
            };
            engines.registry.create(meta.clone(), request).await?;
        }
        // Last: the password can be shown only once, so whoever stops the filling must not have lost it.
        if engines.auth.has_superuser().await? {
            return Ok(None);
        }
        let password = opaque::generate_password(engines.random.as_ref());
        engines.auth.create_superuser(meta, DEMO_EMAIL, password.clone()).await?;
        Ok(Some(password))
    }

    fn fill(&self, blueprint: Blueprint, request: SampleRequest, progress: Progress) -> Fill {
        let (random, clock) = (Arc::clone(&self.engines.random), Arc::clone(&self.engines.clock));
        Box::new(move |tenant| {
            Box::pin(async move {
                let fault = |error: BlueprintError| Box::new(error) as Box<dyn Fault + Send + Sync>;
                let meta = WriteMeta::system("demo");
                blueprints::apply(&tenant, meta, random, &blueprint).await.map_err(fault)?;
                let filled = sample::fill(&tenant, &blueprint.name, request, clock.as_ref(), progress.as_ref()).await;
                filled.map(drop).map_err(|error| fault(BlueprintError::Store(error)))
            })
        })
    }
}

/// The sample of a demo with so many players.
fn request(players: Option<usize>) -> SampleRequest {
    let SampleSize { tournaments, players: all, .. } = SampleSize::DEMO;
    let size = players.map_or(SampleSize::DEMO, |players| SampleSize {
        tournaments: (tournaments * players / all).max(1),
        players,
        matches: players,
    });
    SampleRequest { size, ..SampleRequest::default() }
}
