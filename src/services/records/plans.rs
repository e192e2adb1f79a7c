//! What is made once per question and class of caller: compiled statements, row writers, rule checks.
//!
//! Keeps true: a plan belongs to one tenant, one schema, one class of caller and one text; nothing of a caller's values
//! is in it. A locked rule (`null`) is told apart from a rule that admits nobody.
//! Does not do: running plans.

use super::RecordError;
use super::embed::Embedding;
use super::keeping::{Asked, Keeping};
use super::plan_cache::PlanCache;
use super::shape::RowWriter;
use crate::kernel::ident::{CollectionId, TenantId};
use crate::query::aggregate::{self, AggregatePlan};
use crate::query::list::ListQuery;
use crate::query::plan::{self, GetPlan, ListPlan, Position};
use crate::query::request::CallerClass;
use crate::query::resolve::{Lens, Reach};
use crate::query::resolved::{Predicate, Visibility};
use crate::query::select::{ExpandTree, Selection};
use crate::query::statement::Statement;
use crate::schema::{Collection, Schema};
use std::sync::Arc;

/// Who asks what where; the schema is compared by the cache itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PlanKey {
    pub(super) tenant: TenantId,
    pub(super) collection: CollectionId,
    pub(super) class: CallerClass,
    /// How far the question may lead; what a rule asks goes everywhere.
    pub(super) reach: Reach,
    pub(super) question: Question,
}

/// What is asked, as far as the plan depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Question {
    /// A page of records, by the text of the request's parameters.
    List(Position, Arc<str>),
    /// Totals, by the text of the request's parameters.
    Aggregate(Arc<str>),
    /// One record under the view rule.
    View(Arc<str>),
    /// One record that a write has already admitted.
    Written(Arc<str>),
    /// Whether a rule admits a record.
    Rule(Arc<str>),
}

/// Every plan of the node.
#[derive(Debug)]
pub(super) struct Plans(PlanCache<PlanKey, Made>);

/// A compiled question.
#[derive(Debug)]
enum Made {
    List(Arc<ListWork>),
    Aggregate(Arc<AggregateWork>),
    Get(Arc<GetWork>),
    Rule(Arc<RuleWork>),
}

/// What a collection's rule leaves to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// The rule is `null` and the caller no superuser.
    Locked,
    /// The rule admits nobody of this class.
    Nobody,
    /// The statement itself checks what is left.
    Checked,
}

/// A compiled list.
#[derive(Debug)]
pub(super) struct ListWork {
    pub(super) access: Access,
    pub(super) keeping: Keeping,
    pub(super) plan: ListPlan,
    pub(super) rows: Embedding,
}

/// Compiled totals.
#[derive(Debug)]
pub(super) struct AggregateWork {
    pub(super) access: Access,
    pub(super) keeping: Keeping,
    pub(super) plan: AggregatePlan,
    pub(super) writer: RowWriter,
}

/// A compiled read of one record.
#[derive(Debug)]
pub(super) struct GetWork {
    pub(super) access: Access,
    /// No rule is checked: every record is shown to this class of caller.
    pub(super) unruled: bool,
    pub(super) keeping: Keeping,
    pub(super) plan: GetPlan,
    pub(super) rows: Embedding,
}

/// A compiled rule.
#[derive(Debug)]
pub(super) enum RuleWork {
    /// It holds for every record.
    Everyone,
    /// It holds for none.
    Nobody,
    /// It depends on the record or on the request.
    Check(RuleCheck),
}

/// A rule that has to be asked.
#[derive(Debug)]
pub(super) struct RuleCheck {
    /// Gives a row where it holds for a record that is stored.
    pub(super) stored: Statement,
    /// Gives a row where it would hold for a record that is not.
    pub(super) would_be: Statement,
    /// The rule itself, for what it decides without a record.
    pub(super) predicate: Arc<Predicate>,
}

impl Plans {
    pub(super) fn new() -> Self {
        Self(PlanCache::new())
    }

    pub(super) fn list(
        &self,
        schema: &Arc<Schema>,
        key: PlanKey,
        collection: &Arc<Collection>,
        query: &ListQuery,
        position: Position,
    ) -> Result<Arc<ListWork>, RecordError> {
        let (class, reach, owner) = (key.class.clone(), key.reach.clone(), key.tenant.clone());
        let made = self.0.get_or_make(schema, key, || {
            let lens = Lens::new(schema, &class).within(&reach);
            let (access, rule) = access(lens.listed(collection), collection.rules.list.is_none());
            let plan = plan::list(lens, collection, rule.as_deref(), query, position)?;
            let rows = Embedding::new(&plan.row, &plan.expand);
            let shuffled = query.sort.iter().any(|key| &*key.path == "@random");
            let asked = match query.search {
                _ if shuffled => Asked::Shuffled,
                Some(_) => Asked::Search,
                None => Asked::List,
            };
            let keeping = Keeping::new(schema, &owner, collection, &plan.facts, asked);
            Ok::<_, RecordError>(Made::List(Arc::new(ListWork { access, keeping, plan, rows })))
        })?;
        match &*made {
            Made::List(work) => Ok(Arc::clone(work)),
            _ => Err(mixed_up()),
        }
    }

    pub(super) fn aggregate(
        &self,
        schema: &Arc<Schema>,
        key: PlanKey,
        collection: &Arc<Collection>,
        query: &ListQuery,
    ) -> Result<Arc<AggregateWork>, RecordError> {
        let (class, reach, owner) = (key.class.clone(), key.reach.clone(), key.tenant.clone());
        let made = self.0.get_or_make(schema, key, || {
            let lens = Lens::new(schema, &class).within(&reach);
            let (access, rule) = access(lens.listed(collection), collection.rules.list.is_none());
            let plan = aggregate::aggregate(lens, collection, rule.as_deref(), query)?;
            let writer = RowWriter::of_columns(&plan.columns);
            let keeping = Keeping::new(schema, &owner, collection, &plan.facts, Asked::Totals);
            Ok::<_, RecordError>(Made::Aggregate(Arc::new(AggregateWork { access, keeping, plan, writer })))
        })?;
        match &*made {
            Made::Aggregate(work) => Ok(Arc::clone(work)),
            _ => Err(mixed_up()),
        }
    }

    /// One record, under the view rule or, for [`Question::Written`], without a rule.
    pub(super) fn get(
        &self,
        schema: &Arc<Schema>,
        key: PlanKey,
        collection: &Arc<Collection>,
        fields: &Selection,
        expand: &ExpandTree,
    ) -> Result<Arc<GetWork>, RecordError> {
        let (class, written) = (key.class.clone(), matches!(key.question, Question::Written(_)));
        let (reach, owner) = (key.reach.clone(), key.tenant.clone());
        let made = self.0.get_or_make(schema, key, || {
            let lens = Lens::new(schema, &class).within(&reach);
            let (access, rule) = match written {
                true => (Access::Checked, None),
                false => access(lens.viewed(collection), collection.rules.view.is_none()),
            };
            let unruled = access == Access::Checked && rule.is_none();
            let plan = plan::get(lens, collection, rule.as_deref(), fields, expand);
            let rows = Embedding::new(&plan.row, &plan.expand);
            let keeping = Keeping::new(schema, &owner, collection, &plan.facts, Asked::View);
            Ok::<_, RecordError>(Made::Get(Arc::new(GetWork { access, unruled, keeping, plan, rows })))
        })?;
        match &*made {
            Made::Get(work) => Ok(Arc::clone(work)),
            _ => Err(mixed_up()),
        }
    }

    pub(super) fn rule(
        &self,
        schema: &Arc<Schema>,
        key: PlanKey,
        collection: &Arc<Collection>,
        rule: &str,
    ) -> Result<Arc<RuleWork>, RecordError> {
        let class = key.class.clone();
        let made = self.0.get_or_make(schema, key, || {
            let lens = Lens::new(schema, &class);
            let work = match lens.under_rule(collection, Some(rule)) {
                Visibility::Always => RuleWork::Everyone,
                Visibility::Never => RuleWork::Nobody,
                Visibility::When(predicate) => RuleWork::Check(RuleCheck {
                    stored: plan::check(lens, &predicate),
                    would_be: plan::check_would_be(lens, &predicate),
                    predicate,
                }),
            };
            Ok::<_, RecordError>(Made::Rule(Arc::new(work)))
        })?;
        match &*made {
            Made::Rule(work) => Ok(Arc::clone(work)),
            _ => Err(mixed_up()),
        }
    }
}

fn access(visibility: Visibility, locked: bool) -> (Access, Option<Arc<Predicate>>) {
    match visibility {
        Visibility::Always => (Access::Checked, None),
        Visibility::When(predicate) => (Access::Checked, Some(predicate)),
        Visibility::Never if locked => (Access::Locked, None),
        Visibility::Never => (Access::Nobody, None),
    }
}

/// Keys say what they ask, so a plan of another kind under a key is a defect.
fn mixed_up() -> RecordError {
    RecordError::Defect("a plan of another kind stands under this key".into())
}
