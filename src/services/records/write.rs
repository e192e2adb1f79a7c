//! Creating, changing, upserting and deleting records: prepare, then everything that needs data in one transaction.
//!
//! Keeps true: whatever refuses a write refuses all of it; rules, uniqueness, references, `If-Match` and
//! read-modify-write are decided on the data the transaction itself sees; a receipt is stored with the write it proves.
//! Does not do: more than one request (that is `batch`), reading (that is `read`), moving files (that is `uploads`).

use super::account::{self, Prepared, Standing};
use super::gate::{self, Subject};
use super::hint::{self, AskedRule, Question};
use super::idempotency::Idempotency;
use super::preparing::{method_seen, prepare, prepare_alone};
use super::read::{self, View};
use super::registering::MailGate;
use super::through::{Through, Written};
use super::values::{Build, Change};
use super::{Answer, RecordError, Scope, cascade, registering, uploads};
use crate::access::Action;
use crate::kernel::error::{Code, Detail, Fault};
use crate::kernel::ident::{CollectionId, FieldNumber, RecordId};
use crate::kernel::value::Stored;
use crate::query::request::RequestContext;
use crate::schema::body;
use crate::schema::field::FieldKind;
use crate::schema::record::RecordImage;
use crate::schema::{Collection, CollectionKind, Schema};
use crate::services::files::Upload;
use crate::store::{StoreError, WriteToken, WriteTx};
use serde_json::{Map, Value};
use std::cell::OnceCell;
use std::sync::Arc;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteVerb {
    /// A new record.
    Create,
    /// Changes to a record.
    Update,
    /// A new record, or changes to the one that has the body's id.
    Upsert,
    /// No record any more.
    Delete,
}

/// One write as its caller asked for it.
#[derive(Debug, Clone)]
pub struct WriteRequest {
    /// What is wanted.
    pub verb: WriteVerb,
    /// Name or id of the collection.
    pub collection: String,
    /// The record, for update and delete.
    pub id: Option<String>,
    /// The members; empty for delete.
    pub body: Map<String, Value>,
    /// Files that came along; the body names them.
    pub uploads: Vec<Upload>,
    /// The value of `If-Match`.
    pub if_match: Option<String>,
    /// What of the record is answered.
    pub view: View,
    /// Every check, no change.
    pub dry_run: bool,
    /// Where it comes from.
    pub source: WriteSource,
    /// Counts the mail of a registration that is to wait; without it none waits.
    pub mail_gate: Option<MailGate>,
}

/// Where a write comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WriteSource {
    /// A caller who is answered with the record.
    #[default]
    Caller,
    /// The same, by a request that makes one record and nothing else: only so does somebody register who must first confirm
    /// the address.
    Alone,
    /// A sign-in at a provider, which vouches for whom the account is made.
    Provider,
    /// A bulk import by a superuser: dates that the server would set are kept, nothing is answered.
    Import,
}

/// What a write did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A record was read (only inside a batch).
    Read,
    /// A record was made.
    Created,
    /// A record was changed.
    Updated,
    /// A record was deleted; there is no body.
    Deleted,
    /// A registration waits for its address to be confirmed, in this row; none where an earlier answer is repeated or
    /// nothing was to be changed.
    Registered(Option<RecordId>),
}

/// What one write did, before anybody knows that it is durable.
#[derive(Debug, Clone)]
pub struct Done {
    /// What happened.
    pub effect: Effect,
    /// The record as the caller may see it; empty after a delete.
    pub answer: Answer,
    /// Whose record it is, where this very call made or changed it.
    pub(super) of: Option<Of>,
}

/// A record as a write left it.
#[derive(Debug, Clone)]
pub(super) struct Of {
    /// The schema of the transaction.
    schema: Arc<Schema>,
    collection: CollectionId,
    id: RecordId,
}

/// A durable write.
#[derive(Debug, Clone)]
pub struct WriteAnswer {
    /// What happened.
    pub done: Done,
    /// The log position after it.
    pub lsn: i64,
    /// Names the transaction for read-your-writes; `None` for a dry run and for a repetition.
    pub token: Option<WriteToken>,
    /// The answer is that of an earlier request with the same idempotency key.
    pub replayed: bool,
}

/// Runs one write to durability.
pub async fn write(
    scope: &Scope,
    request: WriteRequest,
    idempotency: Option<Idempotency>,
) -> Result<WriteAnswer, RecordError> {
    let mut prepared = prepare_alone(scope, &request).await?;
    let kept = uploads::keep(scope, &request, &mut prepared).await?;
    let done = run_prepared(scope, request, prepared, idempotency).await;
    uploads::settle(&scope.tenant, kept).await;
    done
}

/// Runs a write; where the rules let one through for which nothing was prepared, that is made up for, once.
pub(super) async fn run_prepared(
    scope: &Scope,
    request: WriteRequest,
    prepared: Prepared,
    idempotency: Option<Idempotency>,
) -> Result<WriteAnswer, RecordError> {
    if !prepared.is_left_out() {
        return run(scope, request, prepared, idempotency).await;
    }
    let id = prepared.id.clone();
    match run(scope, request.clone(), prepared, idempotency.clone()).await {
        Err(RecordError::Overtaken) => {
            let mut prepared = prepare(scope, &request).await?;
            prepared.id = id;
            run(scope, request, prepared, idempotency).await
        }
        done => done,
    }
}

async fn run(
    scope: &Scope,
    request: WriteRequest,
    prepared: Prepared,
    idempotency: Option<Idempotency>,
) -> Result<WriteAnswer, RecordError> {
    let through = match (request.verb, request.source) {
        (WriteVerb::Delete, _) | (_, WriteSource::Import) => None,
        _ => Through::begin(scope).await,
    };
    let (run, view) = (scope.clone(), request.view.clone());
    let written = scope
        .tenant
        .write(scope.write_meta(), move |tx| {
            if let Some(key) = &idempotency
                && let Some(receipt) = key.find(tx)?
            {
                return Ok((Done::from_receipt(&receipt)?, true));
            }
            if request.dry_run {
                tx.dry_run();
            }
            let done = apply(tx, &run, &request, &prepared)?;
            if let Some(key) = idempotency.filter(|_| !request.dry_run) {
                key.save(tx, &done.to_receipt())?;
            }
            Ok::<_, RecordError>((done, false))
        })
        .await?;
    let (done, replayed) = written.value;
    // Without a token nothing was written, and the position is that of others who shared the commit.
    if let (Some(through), Some(of), Some(_)) = (through, &done.of, &written.token) {
        let made =
            Written { collection: &of.collection, id: &of.id, view: &view, answer: &done.answer, lsn: written.lsn };
        through.keep(scope, &of.schema, &made);
    }
    Ok(WriteAnswer { done, lsn: written.lsn, token: written.token, replayed })
}

/// Creates a record and runs `after` in the same transaction; a refusal of either undoes both.
pub async fn create_and<E>(
    scope: &Scope,
    request: WriteRequest,
    after: impl FnOnce(&mut WriteTx<'_>) -> Result<(), E> + Send + 'static,
) -> Result<(), E>
where
    E: From<RecordError> + From<StoreError> + Send + 'static,
{
    let prepared = prepare_alone(scope, &request).await?;
    let run = scope.clone();
    let written = scope.tenant.write(scope.write_meta(), move |tx| {
        apply(tx, &run, &request, &prepared)?;
        after(tx)
    });
    written.await?;
    Ok(())
}

/// Runs one write inside a transaction that may hold others.
pub(super) fn apply(
    tx: &mut WriteTx<'_>,
    scope: &Scope,
    request: &WriteRequest,
    prepared: &Prepared,
) -> Result<Done, RecordError> {
    let schema = Arc::clone(tx.schema());
    let collection =
        schema.find(&request.collection).ok_or_else(|| RecordError::UnknownCollection(request.collection.clone()))?;
    if collection.kind == CollectionKind::View {
        return Err(RecordError::ReadOnly(collection.name.clone()));
    }
    let job = Job { scope, request, prepared, collection, context: OnceCell::new() };
    match request.verb {
        WriteVerb::Create => job.create(tx),
        WriteVerb::Update => {
            let id = request.id.as_deref().unwrap_or_default();
            job.update(tx, &RecordId::parse(id).map_err(|_| RecordError::NotFound)?)
        }
        WriteVerb::Delete => {
            let id = request.id.as_deref().unwrap_or_default();
            job.delete(tx, &RecordId::parse(id).map_err(|_| RecordError::NotFound)?)
        }
        WriteVerb::Upsert => {
            let id = request.id.as_deref().or_else(|| request.body.get("id").and_then(Value::as_str));
            match id.and_then(|id| RecordId::parse(id).ok()) {
                Some(id) if tx.find_record(collection, id.as_str())?.is_some() => match job.update(tx, &id) {
                    // Whoever may not change it is answered as if it were not there.
                    Err(RecordError::NotFound | RecordError::SuperuserOnly { .. }) => job.anew().create(tx),
                    done => done,
                },
                _ => job.create(tx),
            }
        }
    }
}

/// One write under way.
struct Job<'a> {
    scope: &'a Scope,
    request: &'a WriteRequest,
    prepared: &'a Prepared,
    collection: &'a Arc<Collection>,
    context: OnceCell<RequestContext>,
}

impl Job<'_> {
    /// The same, nothing understood yet.
    fn anew(&self) -> Self {
        Self { context: OnceCell::new(), ..*self }
    }

    /// The request as rules see it, after [`Self::understand`].
    fn context(&self) -> &RequestContext {
        self.context.get().unwrap_or(&self.scope.request)
    }

    /// The body as rules see it; as it came where no rule is asked.
    fn body(&self) -> &Map<String, Value> {
        self.context.get().map_or(&self.request.body, |context| &context.body)
    }

    /// Lets rules see what the write would store instead of how the caller spelled it, and an upsert as what it is.
    fn understand(&self, build: &Build<'_>, current: Option<&RecordImage>) {
        if self.scope.is_superuser() {
            return;
        }
        let method = method_seen(self.scope, self.request.verb, current);
        let (body, fresh) = (build.seen_by_rules(current), current.is_none());
        self.context.get_or_init(|| RequestContext { method, body, fresh, ..(*self.scope.request).clone() });
    }

    fn create(&self, tx: &mut WriteTx<'_>) -> Result<Done, RecordError> {
        let rule = &self.collection.rules.create;
        gate::require_unlocked(self.scope, self.collection, rule, "create")?;
        if self.request.if_match.is_some() {
            return Err(RecordError::PreconditionFailed);
        }
        let build = self.build(tx);
        self.understand(&build, None);
        // What the rule refuses without looking at data is not looked at any further.
        if gate::refuses_all(self.scope, tx.schema(), self.collection, rule, Some(self.context()))? {
            return Err(RecordError::CreateRefused(self.collection.name.clone()));
        }
        if self.prepared.is_left_out() {
            let seen = Some(self.context());
            registering::refuse_early(self.scope, tx.schema(), self.collection, self.request, seen)?;
        }
        self.require_prepared()?;
        let mut record = build.new_record().map_err(RecordError::Invalid)?;
        if let Some((field, key)) =
            account::renewed_token_key(self.collection, None, record.values(), self.scope.tools.random.as_ref())
        {
            record.set(field, key);
        }
        let references = check_references(tx, self.collection, record.values());
        if self.must_wait(tx, &record)? {
            return self.wait(tx, &build, &record, references);
        }
        let stored = references.and_then(|()| Ok(tx.insert(self.collection, &record)?));
        let (subject, refusal) = match stored {
            Ok(()) => (Subject::Stored(&record.id), None),
            // That a value is taken or an id unknown is data, so it is told to those only who could have stored the record.
            Err(error) if error.code() == Code::ValidationFailed => (Subject::WouldBe(&record), Some(error)),
            Err(error) => return Err(error),
        };
        self.judge_creation(tx, &build, subject)?;
        match refusal {
            Some(refusal) => Err(refusal),
            None => self.done(tx, Effect::Created, &record.id),
        }
    }

    /// Refuses a new record that the rules do not let this caller make.
    fn judge_creation(&self, tx: &WriteTx<'_>, build: &Build<'_>, subject: Subject<'_>) -> Result<(), RecordError> {
        if !self.admits(tx, "create rule", &self.collection.rules.create, subject)? {
            return Err(RecordError::CreateRefused(self.collection.name.clone()));
        }
        self.check_account(tx, None, subject)?;
        self.check_field_rules(tx, build, subject)
    }

    /// Whether the record is an account that is made only once its address is confirmed.
    fn must_wait(&self, tx: &WriteTx<'_>, record: &RecordImage) -> Result<bool, RecordError> {
        let vouched = matches!(self.request.source, WriteSource::Import | WriteSource::Provider);
        if vouched || !registering::is_quiet(self.collection) {
            return Ok(false);
        }
        Ok(self.standing(tx, Subject::WouldBe(record))? == Standing::Plain)
    }

    /// Lets a registration wait; nothing here asks whether somebody has the address.
    fn wait(
        &self,
        tx: &mut WriteTx<'_>,
        build: &Build<'_>,
        record: &RecordImage,
        references: Result<(), RecordError>,
    ) -> Result<Done, RecordError> {
        registering::check(self.request, self.collection, record)?;
        self.judge_creation(tx, build, Subject::WouldBe(record))?;
        references?;
        let (ip, random) = (self.scope.ip.as_deref(), self.scope.tools.random.as_ref());
        let waiting = registering::keep(tx, self.collection, record, ip, random)?;
        let mailed = !self.request.dry_run;
        if mailed {
            registering::count_mail(self.request, self.collection, record)?;
        }
        Ok(Done {
            effect: Effect::Registered(mailed.then_some(waiting)),
            answer: registering::answer(self.collection),
            of: None,
        })
    }

    fn update(&self, tx: &mut WriteTx<'_>, id: &RecordId) -> Result<Done, RecordError> {
        let rule = &self.collection.rules.update;
        gate::require_unlocked(self.scope, self.collection, rule, "update")?;
        let current = tx.find_record(self.collection, id.as_str())?.ok_or(RecordError::NotFound)?;
        let build = self.build(tx);
        self.understand(&build, Some(&current));
        let subject = Subject::Stored(id);
        if !self.admits(tx, "update rule", rule, subject)? {
            return Err(RecordError::NotFound);
        }
        self.require_prepared()?;
        self.check_precondition(tx, id)?;
        self.check_account(tx, Some(&current), subject)?;
        self.check_field_rules(tx, &build, subject)?;
        let changes = build.changes(&current).map_err(RecordError::Invalid)?;
        self.store_changes(tx, &current, changes)?;
        self.done(tx, Effect::Updated, id)
    }

    /// A rule or what it reads changed since it was found to refuse this.
    fn require_prepared(&self) -> Result<(), RecordError> {
        if self.prepared.is_left_out() { Err(RecordError::Overtaken) } else { Ok(()) }
    }

    fn done(&self, tx: &WriteTx<'_>, effect: Effect, id: &RecordId) -> Result<Done, RecordError> {
        let answer = match self.request.source {
            WriteSource::Import => Answer::empty(),
            WriteSource::Caller | WriteSource::Alone | WriteSource::Provider => {
                self.load(tx, id, &self.request.view)?
            }
        };
        let of = Of { schema: Arc::clone(tx.schema()), collection: self.collection.id.clone(), id: id.clone() };
        Ok(Done { effect, answer, of: Some(of) })
    }

    fn store_changes(
        &self,
        tx: &mut WriteTx<'_>,
        current: &RecordImage,
        changes: Vec<Change>,
    ) -> Result<(), RecordError> {
        let (moved, set): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|change| change.delta.is_some_and(|delta| delta != 0.0));
        let mut set: Vec<(FieldNumber, Stored)> = set.into_iter().map(|change| (change.field, change.value)).collect();
        let random = self.scope.tools.random.as_ref();
        set.extend(account::renewed_token_key(self.collection, Some(current), &set, random));
        check_references(tx, self.collection, &set)?;
        if !set.is_empty() {
            tx.update(self.collection, &current.id, &set)?;
        }
        for change in moved {
            if let Some(delta) = change.delta {
                tx.increment(self.collection, &current.id, change.field, delta)?;
            }
        }
        Ok(())
    }

    fn delete(&self, tx: &mut WriteTx<'_>, id: &RecordId) -> Result<Done, RecordError> {
        let rule = &self.collection.rules.delete;
        gate::require_unlocked(self.scope, self.collection, rule, "delete")?;
        if tx.find_record(self.collection, id.as_str())?.is_none()
            || !self.admits(tx, "delete rule", rule, Subject::Stored(id))?
        {
            return Err(RecordError::NotFound);
        }
        self.check_precondition(tx, id)?;
        cascade::check_superusers(tx, self.collection)?;
        cascade::delete_record(tx, self.collection, id)
            .map_err(|error| hint::explain_deletion(error, self.scope, self.collection))?;
        Ok(Done { effect: Effect::Deleted, answer: Answer::empty(), of: None })
    }

    /// Whether a rule admits the caller; one that is too much to ask is told by its name.
    fn admits(
        &self,
        tx: &WriteTx<'_>,
        name: &'static str,
        rule: &Option<Arc<str>>,
        subject: Subject<'_>,
    ) -> Result<bool, RecordError> {
        let admitted = gate::admits(tx, self.scope, self.context(), self.collection, rule, subject);
        admitted.map_err(|error| {
            let asked = AskedRule { name, text: rule.as_deref(), class: &self.scope.class() };
            hint::explain_rule(error, self.scope, self.collection, asked)
        })
    }

    /// The record as the caller may see it.
    fn load(&self, tx: &WriteTx<'_>, id: &RecordId, view: &View) -> Result<Answer, RecordError> {
        let loaded = read::load_written(tx, self.scope, self.context(), self.collection, id, view);
        loaded.map_err(|error| hint::explain_cost(error, self.scope, self.collection, Question::Written(view.expand())))
    }

    fn build(&self, tx: &WriteTx<'_>) -> Build<'_> {
        Build {
            collection: self.collection,
            body: &self.request.body,
            superuser: self.scope.is_superuser(),
            keep_autodates: self.request.source == WriteSource::Import,
            prepared: self.prepared,
            random: self.scope.tools.random.as_ref(),
            now_ms: tx.now_ms(),
            uploaded: self.request.uploads.iter().map(|upload| Arc::from(upload.name().as_str())).collect(),
            modified: body::has_modifiers(&self.request.body),
        }
    }

    /// `If-Match`: the caller must have seen the record as it is now.
    fn check_precondition(&self, tx: &WriteTx<'_>, id: &RecordId) -> Result<(), RecordError> {
        let Some(wanted) = self.request.if_match.as_deref().map(str::trim) else { return Ok(()) };
        if wanted == "*" {
            return Ok(());
        }
        // The caller read the record whole, or with the same view that it writes with.
        for view in [View::default(), self.request.view.clone()] {
            let seen = self.load(tx, id, &view)?;
            if wanted.split(',').any(|tag| seen.has_tag(tag)) {
                return Ok(());
            }
        }
        Err(RecordError::PreconditionFailed)
    }

    fn check_account(
        &self,
        tx: &WriteTx<'_>,
        current: Option<&RecordImage>,
        subject: Subject<'_>,
    ) -> Result<(), RecordError> {
        if !self.collection.is_auth() || self.request.source == WriteSource::Import {
            return Ok(());
        }
        let standing = self.standing(tx, subject)?;
        let details = account::check(self.collection, self.body(), current, standing, self.prepared);
        if details.is_empty() { Ok(()) } else { Err(RecordError::Invalid(details)) }
    }

    fn standing(&self, tx: &WriteTx<'_>, subject: Subject<'_>) -> Result<Standing, RecordError> {
        let rule = Action::Manage.rule_text(self.collection).cloned();
        let admitted = self.admits(tx, "manage rule", &rule, subject)?;
        Ok(if admitted { Standing::Manager } else { Standing::Plain })
    }

    /// The write rules of the fields that the body names.
    fn check_field_rules(&self, tx: &WriteTx<'_>, build: &Build<'_>, subject: Subject<'_>) -> Result<(), RecordError> {
        if self.scope.is_superuser() {
            return Ok(());
        }
        let mut details = Vec::new();
        for field in build.named_fields().filter(|field| field.write_rule.is_some()) {
            if !self.admits(tx, "write rule of a field", &field.write_rule, subject)? {
                let message = "You are not allowed to set this field.";
                details.push(Detail::new(field.name.as_str(), "validation_not_allowed", message));
            }
        }
        if details.is_empty() { Ok(()) } else { Err(RecordError::Invalid(details)) }
    }
}

/// Every id in a relation must be that of a record.
pub(super) fn check_references(
    tx: &WriteTx<'_>,
    collection: &Collection,
    values: &[(FieldNumber, Stored)],
) -> Result<(), RecordError> {
    let schema = Arc::clone(tx.schema());
    let mut details = Vec::new();
    for (number, value) in values {
        let Some(field) = collection.find_field_number(*number) else { continue };
        let FieldKind::Relation(relation) = &field.kind else { continue };
        let (Some(target), Some(text)) = (schema.find_id(&relation.target), value.as_text()) else { continue };
        if text.is_empty() || text == "[]" {
            continue;
        }
        let source = if field.kind.is_list() { "SELECT value FROM json_each(?1)" } else { "SELECT ?1 AS value" };
        let sql = format!(
            "SELECT 1 FROM ({source}) AS given \
             WHERE NOT EXISTS (SELECT 1 FROM \"{}\" AS target WHERE target.id = given.value) LIMIT 1",
            target.table()
        );
        if tx.find_one(&sql, std::slice::from_ref(value), |_| Ok(()))?.is_some() {
            let message = "Failed to find all relation records with the provided ids.";
            details.push(Detail::new(field.name.as_str(), "validation_missing_rel_records", message));
        }
    }
    if details.is_empty() { Ok(()) } else { Err(RecordError::Invalid(details)) }
}

impl Done {
    /// One byte for the effect, then the body.
    pub(super) fn to_receipt(&self) -> Vec<u8> {
        let effect = match &self.effect {
            Effect::Read => 0,
            Effect::Created => 1,
            Effect::Updated => 2,
            Effect::Deleted => 3,
            Effect::Registered(_) => 4,
        };
        std::iter::once(effect).chain(self.answer.body.iter().copied()).collect()
    }

    pub(super) fn from_receipt(receipt: &[u8]) -> Result<Self, RecordError> {
        let (first, body) = receipt.split_first().ok_or_else(|| RecordError::Defect("empty receipt".into()))?;
        let effect = match first {
            0 => Effect::Read,
            1 => Effect::Created,
            2 => Effect::Updated,
            3 => Effect::Deleted,
            4 => Effect::Registered(None),
            other => return Err(RecordError::Defect(format!("receipt with effect {other}"))),
        };
        Ok(Self { effect, answer: Answer::new(body.to_vec()), of: None })
    }
}
