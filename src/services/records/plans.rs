//! What is made once per question and class of caller: compiled statements, row writers, rule checks.
//!
//! Keeps true: a plan belongs to one tenant, one schema, one class of caller and one text; nothing of a caller's values
//! is in it. A class of caller to whom no record is shown learns no names from a plan.
//! Does not do: running plans.

use super::RecordError;
use super::embed::Embedding;
use super::keeping::{Asked, Keeping};
use super::plan_cache::{PlanCache, PlanKeyed, Weighed};
use super::shape::RowWriter;
use crate::kernel::ident::{CollectionId, TenantId};
use crate::query::aggregate::{self, AggregatePlan};
use crate::query::list::ListQuery;
use crate::query::parse_filter;
use crate::query::plan::{self, Expand, GetPlan, ListPlan, Position};
use crate::query::request::{Bind, CallerClass};
use crate::query::resolve::{Lens, Reach};
use crate::query::resolved::{Predicate, Visibility};
use crate::query::select::{ExpandTree, Selection};
use crate::query::statement::{RowShape, Statement};
use crate::schema::{Collection, Schema};
use std::borrow::Cow;
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
            let (access, rule) = access(lens.listed(collection));
            let asked = askable(access, query)?;
            let plan = plan::list(lens, collection, rule.as_deref(), &asked, position)?;
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
            let (access, rule) = access(lens.listed(collection));
            let asked = askable(access, query)?;
            let plan = aggregate::aggregate(lens, collection, rule.as_deref(), &asked)?;
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
                false => access(lens.viewed(collection)),
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
                Visibility::When(predicate) if predicate.wants_no_id() => RuleWork::Nobody,
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

impl PlanKeyed for PlanKey {
    fn owner(&self) -> &str {
        self.tenant.as_str()
    }
}

/// Bytes of a plan or key besides what is counted: maps, headers, the facts.
const PLAN_BYTES: usize = 2 * 1024;
/// Bytes that one column of a row takes, in the shape and in the writer.
const COLUMN_BYTES: usize = 256;
/// Bytes that one value to bind takes.
const BIND_BYTES: usize = 96;

impl Weighed for PlanKey {
    fn weight(&self) -> usize {
        let text = match &self.question {
            Question::List(_, text) | Question::Aggregate(text) | Question::View(text) => text.len(),
            Question::Written(text) | Question::Rule(text) => text.len(),
        };
        PLAN_BYTES + text
    }
}

impl Weighed for Made {
    fn weight(&self) -> usize {
        let inside = match self {
            Self::List(work) => {
                let plan = &work.plan;
                let statements = [Some(&plan.page), Some(&plan.count), plan.seek.as_ref()];
                statements.into_iter().flatten().map(weight_of).sum::<usize>() + weight_of_rows(&plan.row, &plan.expand)
            }
            Self::Aggregate(work) => weight_of(&work.plan.statement) + work.plan.columns.len() * COLUMN_BYTES,
            Self::Get(work) => weight_of(&work.plan.statement) + weight_of_rows(&work.plan.row, &work.plan.expand),
            Self::Rule(work) => match &**work {
                RuleWork::Check(check) => weight_of(&check.stored) + weight_of(&check.would_be),
                RuleWork::Everyone | RuleWork::Nobody => 0,
            },
        };
        PLAN_BYTES + inside
    }
}

/// A statement: its text, and what is bound, which texts of the question may be part of.
fn weight_of(statement: &Statement) -> usize {
    let constant = |bind: &Bind| match bind {
        Bind::Value(value) => value.as_text().map_or(0, str::len),
        _ => 0,
    };
    statement.sql.len() + statement.binds.iter().map(|bind| BIND_BYTES + constant(bind)).sum::<usize>()
}

/// Rows and what they embed; the statements of an expand are held by the plan and by its loader.
fn weight_of_rows(row: &RowShape, expands: &[Expand]) -> usize {
    let embedded =
        |expand: &Expand| PLAN_BYTES + 2 * weight_of(&expand.statement) + weight_of_rows(&expand.row, &expand.children);
    row.columns.len() * COLUMN_BYTES + expands.iter().map(embedded).sum::<usize>()
}

/// The question, without its names where no record is ever shown: what is said about a name would tell the fields of a
/// collection that is closed to this class of caller. Its grammar is checked all the same.
fn askable(access: Access, query: &ListQuery) -> Result<Cow<'_, ListQuery>, RecordError> {
    if access == Access::Checked {
        return Ok(Cow::Borrowed(query));
    }
    query.filter.as_deref().map(parse_filter).transpose()?;
    Ok(Cow::Owned(query.without_names()))
}

fn access(visibility: Visibility) -> (Access, Option<Arc<Predicate>>) {
    match visibility {
        Visibility::Always => (Access::Checked, None),
        Visibility::When(predicate) => (Access::Checked, Some(predicate)),
        Visibility::Never => (Access::Nobody, None),
    }
}

/// Keys say what they ask, so a plan of another kind under a key is a defect.
fn mixed_up() -> RecordError {
    RecordError::Defect("a plan of another kind stands under this key".into())
}
