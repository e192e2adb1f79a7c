//! Who did what: the tenant's log as an audit trail, oldest first.
//!
//! Keeps true: only superusers read it; passwords, token keys and hidden fields never leave it; every page says whether
//! the hash chain over all it looked at holds, whatever the filter left out, and whether the log begins and ends where it
//! should. One call looks at a bounded stretch.
//! Does not do: reads, which are not in the log; comparing the log with the records is the doctor's.

use super::changes::{Printer, place, require_superuser, separate};
use super::{Answer, RecordError, Scope};
use crate::kernel::ident::{CollectionId, RecordId};
use crate::kernel::limits;
use crate::services::tenants::system::AUTH_EVENTS;
use crate::store::{ChainWalk, LoggedTx};

/// Transactions read from the log in one step.
const STEP: usize = 1_000;

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuditKind {
    /// Everything.
    #[default]
    Any,
    /// Who came in, who tried to, and what was done to whose access.
    Auth,
    /// Everything else.
    Change,
}

/// Which entries are wanted; an empty text is any.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// What it is about.
    pub kind: AuditKind,
    /// Who, as the log calls them: `superuser:…`, `record:users/…`, `key:…`, `anonymous`, `system`. A key's entries are
    /// also found by its owner, an impersonated account's by whoever acted through it.
    pub actor: String,
    /// Name or id of a collection.
    pub collection: String,
    /// Id of a record.
    pub record: String,
    /// The address the change came from.
    pub ip: String,
    /// The id of the request: as the log has it, the node's part of it, or the one that the caller chose.
    pub request: String,
    /// Not before, milliseconds since the Unix epoch.
    pub from_ms: Option<i64>,
    /// Before, milliseconds since the Unix epoch.
    pub until_ms: Option<i64>,
    /// After this position.
    pub since: i64,
    /// Entries at most; 0 is the usual page.
    pub limit: usize,
}

/// How entries are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditForm {
    /// `{"position","next","verified","items":[…]}`.
    Page,
    /// One entry per line.
    Lines,
}

/// Entries, and where the next call goes on.
#[derive(Debug)]
pub struct AuditPage {
    /// The body.
    pub answer: Answer,
    /// Position up to which was looked; less than the log's while there is more.
    pub next: i64,
    /// Whether the chain over everything looked at holds.
    pub verified: bool,
    /// Whether the end of the log was reached.
    pub complete: bool,
}

/// Lists entries.
pub async fn list_audit(scope: &Scope, query: AuditQuery, form: AuditForm) -> Result<AuditPage, RecordError> {
    require_superuser(scope)?;
    let wanted = Wanted::resolve(scope, &query)?;
    let limit = if query.limit == 0 { limits::PAGE_LEN_DEFAULT } else { query.limit.min(limits::CHANGES_PAGE_MAX) };
    let (body, next, verified, position) = scope
        .tenant
        .read(move |reader| {
            let (mut out, mut count, mut looked) = (Vec::new(), 0, 0);
            let (mut at, mut verified) = (query.since, reader.log_ends_hold()?);
            // The entry the last page ended with, so that the chain is checked across pages.
            let before = reader.changes(query.since.saturating_sub(1), 1)?.pop();
            let mut chain = ChainWalk::default();
            before.filter(|before| before.lsn == query.since).iter().for_each(|before| _ = chain.holds(before));
            'log: while looked < limits::AUDIT_SCAN_MAX {
                let changes = reader.changes(at, STEP)?;
                if changes.is_empty() {
                    break;
                }
                for change in changes {
                    verified &= chain.holds(&change);
                    at = change.lsn;
                    looked += 1;
                    if wanted.is_met(&query, &change) {
                        if form == AuditForm::Page {
                            separate(&mut out, count);
                        }
                        let printer = Printer { schema: reader.schema(), redact_hidden: true };
                        printer.transaction(&mut out, &change, |of, record| wanted.is_about(of, record));
                        if form == AuditForm::Lines {
                            out.push(b'\n');
                        }
                        count += 1;
                    }
                    if count >= limit {
                        break 'log;
                    }
                }
            }
            Ok::<_, RecordError>((out, at, verified, reader.lsn()))
        })
        .await?;
    let body = match form {
        AuditForm::Lines => body,
        AuditForm::Page => {
            let head = format!("{{\"position\":{position},\"next\":{next},\"verified\":{verified},\"items\":[");
            [head.as_bytes(), body.as_slice(), b"]}"].concat()
        }
    };
    Ok(AuditPage { answer: Answer::new(body), next, verified, complete: next >= position })
}

/// Whether `wanted` is the actor of an entry or one of those it names: `key:… of record:…`, `record:… by superuser:…`.
fn names(actor: &str, wanted: &str) -> bool {
    actor == wanted || actor.split(" of ").flat_map(|part| part.split(" by ")).any(|part| part == wanted)
}

/// Whether `wanted` is the id of a request as it was noted, the node's own part of it, or the one its caller chose.
fn is_of_request(noted: &str, wanted: &str) -> bool {
    // The node's part has no dot.
    noted == wanted || noted.split_once('.').is_some_and(|(own, callers)| own == wanted || callers == wanted)
}

/// The filter by ids.
struct Wanted {
    collection: Option<CollectionId>,
    record: Option<RecordId>,
    kind: AuditKind,
    /// Where logins are.
    events: Option<CollectionId>,
}

impl Wanted {
    fn resolve(scope: &Scope, query: &AuditQuery) -> Result<Self, RecordError> {
        let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let collection = match named(&query.collection) {
            None => None,
            Some(name) => match scope.tenant.schema().find(&name) {
                Some(found) => Some(found.id.clone()),
                // One that was deleted is still in the log, by its id.
                None => Some(CollectionId::parse(&name).map_err(|_| RecordError::UnknownCollection(name))?),
            },
        };
        let record =
            named(&query.record).map(|id| RecordId::parse(&id).map_err(|_| RecordError::NotFound)).transpose()?;
        let events = scope.tenant.schema().find(AUTH_EVENTS).map(|events| events.id.clone());
        Ok(Self { collection, record, kind: query.kind, events })
    }

    fn is_about(&self, collection: &CollectionId, record: &RecordId) -> bool {
        let of_kind = match self.kind {
            AuditKind::Any => true,
            AuditKind::Auth => self.events.as_ref() == Some(collection),
            AuditKind::Change => self.events.as_ref() != Some(collection),
        };
        of_kind
            && self.collection.as_ref().is_none_or(|wanted| wanted == collection)
            && self.record.as_ref().is_none_or(|wanted| wanted == record)
    }

    fn is_met(&self, query: &AuditQuery, change: &LoggedTx) -> bool {
        let at_ms = change.frame.hlc.millis();
        let any = self.collection.is_none() && self.record.is_none() && self.kind == AuditKind::Any;
        let is = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        (query.actor.is_empty() || names(&change.frame.actor, &query.actor))
            && is(&query.ip, change.frame.ip.as_deref().unwrap_or_default())
            && (query.request.is_empty() || is_of_request(&change.frame.request_id, &query.request))
            && query.from_ms.is_none_or(|from| at_ms >= from)
            && query.until_ms.is_none_or(|until| at_ms < until)
            && (any || change.frame.ops.iter().any(|op| place(op).is_some_and(|(of, id)| self.is_about(of, id))))
    }
}
