//! L1: who asks, and what a rule lets them do.
//!
//! Keeps true: nothing is allowed by accident. A missing rule admits superusers only, and so does one that can no
//! longer be understood; what needs no record is decided at once, the rest becomes a condition that is checked where
//! the record is read or written. Does not do: reading records, HTTP.

pub mod explain;
pub mod lint;

use crate::kernel::ident::{CollectionId, FieldNumber};
use crate::query::error::QueryError;
use crate::query::eval;
use crate::query::request::{AuthRecord, CallerClass, RequestContext};
use crate::query::resolve::Lens;
use crate::query::resolved::Predicate;
use crate::schema::{Collection, Schema};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// Who asks.
#[derive(Debug, Clone, Default)]
pub enum Principal {
    /// Nobody is logged in.
    #[default]
    Anonymous,
    /// A record of an auth collection.
    Record(Arc<AuthRecord>),
    /// A superuser.
    Superuser(Arc<AuthRecord>),
    /// The node itself: command line, sample data, imports.
    System,
}

impl Principal {
    /// The class of this caller, on which plans and compiled rules depend.
    pub fn class(&self) -> CallerClass {
        match self {
            Self::Anonymous => CallerClass::Anonymous,
            Self::Record(auth) => CallerClass::Auth(auth.collection.id.clone()),
            Self::Superuser(_) | Self::System => CallerClass::Superuser,
        }
    }

    /// Whether no rule applies.
    pub fn is_superuser(&self) -> bool {
        matches!(self, Self::Superuser(_) | Self::System)
    }

    /// The logged-in record, for [`RequestContext::auth`].
    pub fn auth(&self) -> Option<&Arc<AuthRecord>> {
        match self {
            Self::Record(auth) | Self::Superuser(auth) => Some(auth),
            Self::Anonymous | Self::System => None,
        }
    }

    /// Whether this is the record `id` of `collection`.
    pub fn is_record(&self, collection: &CollectionId, id: &str) -> bool {
        self.auth().is_some_and(|auth| &auth.collection.id == collection && auth.record.id.as_str() == id)
    }
}

/// What a caller wants to do with records of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// See it in a list.
    List,
    /// Read it by its id.
    View,
    /// Create it.
    Create,
    /// Change it.
    Update,
    /// Delete it.
    Delete,
    /// Manage it as an account: see its e-mail, set its password.
    Manage,
    /// Log in with it.
    Auth,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 7] =
        [Self::List, Self::View, Self::Create, Self::Update, Self::Delete, Self::Manage, Self::Auth];

    /// The rule's name on the wire.
    pub const fn rule_name(self) -> &'static str {
        match self {
            Self::List => "listRule",
            Self::View => "viewRule",
            Self::Create => "createRule",
            Self::Update => "updateRule",
            Self::Delete => "deleteRule",
            Self::Manage => "manageRule",
            Self::Auth => "authRule",
        }
    }

    /// Whether the action changes something.
    pub const fn is_write(self) -> bool {
        matches!(self, Self::Create | Self::Update | Self::Delete | Self::Manage)
    }

    /// The text of this action's rule.
    pub fn rule_text(self, collection: &Collection) -> Option<&Arc<str>> {
        let rules = &collection.rules;
        match self {
            Self::List => rules.list.as_ref(),
            Self::View => rules.view.as_ref(),
            Self::Create => rules.create.as_ref(),
            Self::Update => rules.update.as_ref(),
            Self::Delete => rules.delete.as_ref(),
            // An empty manage rule would make every stranger a manager; PocketBase reads it as none.
            Self::Manage => rules.manage.as_ref().filter(|text| !text.trim().is_empty()),
            Self::Auth => rules.auth.as_ref(),
        }
    }
}

/// A rule compiled for one class of caller.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// There is none: superusers only.
    Locked,
    /// It cannot be understood (any more): superusers only.
    Broken(QueryError),
    /// The same for every record and request of the class.
    Known(bool),
    /// It depends on the request or the record.
    Conditional(Arc<Predicate>),
}

impl Rule {
    /// Compiles a rule's text.
    pub fn compile(lens: Lens<'_>, collection: &Arc<Collection>, text: Option<&str>) -> Self {
        let Some(text) = text else { return Self::Locked };
        match lens.rule(collection, text) {
            Err(error) => Self::Broken(error),
            Ok(predicate) => match predicate.constant() {
                Some(known) => Self::Known(known),
                None => Self::Conditional(Arc::new(predicate)),
            },
        }
    }
}

/// What a rule says to one request.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Yes, for every record.
    Allow,
    /// No, whatever the record.
    Deny,
    /// For the records for which this holds.
    Narrow(Arc<Predicate>),
}

impl Decision {
    /// What is left to be checked per record; `None` for [`Decision::Allow`].
    pub fn predicate(&self) -> Option<&Predicate> {
        match self {
            Self::Narrow(predicate) => Some(predicate),
            Self::Allow | Self::Deny => None,
        }
    }
}

/// Decides as far as is possible without a record.
pub fn decide(rule: &Rule, principal: &Principal, request: &RequestContext) -> Decision {
    if principal.is_superuser() {
        return Decision::Allow;
    }
    match rule {
        Rule::Locked | Rule::Broken(_) | Rule::Known(false) => Decision::Deny,
        Rule::Known(true) => Decision::Allow,
        Rule::Conditional(predicate) => match eval::without_record(predicate, request) {
            Some(true) => Decision::Allow,
            Some(false) => Decision::Deny,
            None => Decision::Narrow(predicate.clone()),
        },
    }
}

/// The rules of one collection, compiled for one class of caller.
#[derive(Debug, Clone)]
pub struct CollectionRules {
    rules: [Rule; 7],
    /// Fields that not everybody who may write the record may set.
    pub field_writes: BTreeMap<FieldNumber, Rule>,
}

impl CollectionRules {
    /// Compiles all rules of `collection`.
    pub fn compile(lens: Lens<'_>, collection: &Arc<Collection>) -> Self {
        let rules =
            Action::ALL.map(|action| Rule::compile(lens, collection, action.rule_text(collection).map(|text| &**text)));
        let field_writes = collection
            .fields
            .iter()
            .filter_map(|field| {
                let text = field.write_rule.as_deref()?;
                Some((field.number, Rule::compile(lens, collection, Some(text))))
            })
            .collect();
        Self { rules, field_writes }
    }

    /// The rule of an action.
    pub fn rule(&self, action: Action) -> &Rule {
        let at = Action::ALL.iter().position(|known| *known == action).unwrap_or_default();
        self.rules.get(at).unwrap_or(&Rule::Locked)
    }
}

/// The rules of one schema version, each compiled when first asked for.
///
/// Shared by all requests of a tenant; replaced as a whole when the schema changes.
#[derive(Debug)]
pub struct RuleBook {
    schema: Arc<Schema>,
    compiled: BTreeMap<(CollectionId, CallerClass), OnceLock<CollectionRules>>,
}

impl RuleBook {
    /// An empty book for `schema`.
    pub fn new(schema: Arc<Schema>) -> Self {
        let auths = schema.collections().iter().filter(|collection| collection.is_auth());
        let mut classes: Vec<CallerClass> = auths.map(|collection| CallerClass::Auth(collection.id.clone())).collect();
        classes.extend([CallerClass::Anonymous, CallerClass::Superuser]);
        let mut compiled = BTreeMap::new();
        for collection in schema.collections() {
            for class in &classes {
                compiled.insert((collection.id.clone(), class.clone()), OnceLock::new());
            }
        }
        Self { schema, compiled }
    }

    /// The schema the rules belong to.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// The rules of a collection for a class of caller; `None` if the schema knows one of them not.
    pub fn find(&self, collection: &CollectionId, class: &CallerClass) -> Option<&CollectionRules> {
        let slot = self.compiled.get(&(collection.clone(), class.clone()))?;
        let collection = self.schema.find_id(collection)?;
        Some(slot.get_or_init(|| CollectionRules::compile(Lens::new(&self.schema, class), collection)))
    }

    /// Decides an action on a collection as far as is possible without a record.
    pub fn decide(
        &self,
        collection: &CollectionId,
        action: Action,
        principal: &Principal,
        request: &RequestContext,
    ) -> Decision {
        if principal.is_superuser() {
            return Decision::Allow;
        }
        match self.find(collection, &principal.class()) {
            Some(rules) => decide(rules.rule(action), principal, request),
            None => Decision::Deny,
        }
    }
}
