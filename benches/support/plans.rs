//! Plans of whole questions, made anew and found in memory.
//!
//! Keeps true: the same call that a list makes is measured, memory and schema check included. Does not do: running them.

use super::schema;
use super::tenants::Node;
use std::path::Path;
use std::sync::Arc;
use tenantry::access::Principal;
use tenantry::kernel::clock::SystemClock;
use tenantry::kernel::random::SystemRandom;
use tenantry::query::request::RequestContext;
use tenantry::query::resolve::Reach;
use tenantry::schema::Schema;
use tenantry::secrets::keys::NodeSecret;
use tenantry::secrets::password::{PasswordHasher, PasswordOptions};
use tenantry::services::records::read::{self, ListRequest};
use tenantry::services::records::{RecordTools, Scope};

/// A caller of a tenant with the small tournament schema.
pub(crate) struct Planner {
    scope: Scope,
    schema: Arc<Schema>,
    /// Keeps the tenant's folder and threads.
    _node: Node,
}

impl Planner {
    /// Starts a store in `dir`; must be called inside a runtime.
    pub(crate) async fn start(dir: &Path) -> anyhow::Result<Self> {
        let node = Node::start(dir, 8)?;
        let tenant = node.create(0).await?;
        let random = Arc::new(SystemRandom::default());
        let hasher = PasswordHasher::new(PasswordOptions::default(), random.clone())?;
        let secret = NodeSecret::load_or_create(dir, random.as_ref())?;
        let tools = RecordTools::new(Arc::new(SystemClock), random, hasher, secret);
        let scope = Scope {
            tenant,
            principal: Principal::Anonymous,
            reach: Reach::EVERYWHERE,
            by: None,
            request: Arc::new(RequestContext::default()),
            tools: Arc::new(tools),
            request_id: Arc::from("bench"),
            ip: None,
        };
        let schema = scope.tenant.schema();
        Ok(Self { scope, schema, _node: node })
    }

    /// Reads the parameters of a list and plans it, from memory where the plan is known.
    pub(crate) fn plan(&self, collection: &str, filter: &str) -> anyhow::Result<()> {
        self.plan_under(&self.schema, collection, filter)
    }

    /// The same under a schema that the memory of plans has not met, so that the plan is made.
    pub(crate) fn plan_anew(&self, collection: &str, filter: &str) -> anyhow::Result<()> {
        self.plan_under(&Arc::new(schema::schema()), collection, filter)
    }

    /// What `plan_anew` costs beside planning.
    pub(crate) fn schema_alone() -> usize {
        Arc::new(schema::schema()).collections().len()
    }

    fn plan_under(&self, schema: &Arc<Schema>, collection: &str, filter: &str) -> anyhow::Result<()> {
        let request = ListRequest::parse([("filter", filter), ("perPage", "20"), ("sort", "-id")])?;
        read::plan_list(&self.scope, schema, collection, &request)?;
        Ok(())
    }
}
