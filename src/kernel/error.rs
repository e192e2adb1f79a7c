//! The error vocabulary: kinds, stable codes, and the trait by which any layer describes a failure.
//!
//! Keeps true: every code maps to exactly one [`Kind`], in one table; codes never change once released.
//! Does not do: HTTP. The translation to status codes lives in `http::problem` alone.

use crate::kernel::limits;
use std::borrow::Cow;

/// The families of failure; a transport decides what each family looks like on its wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request itself is wrong and will stay wrong.
    Invalid,
    /// Nobody is logged in, or the credentials do not hold.
    Unauthenticated,
    /// The caller is known and may not do this.
    Forbidden,
    /// The thing does not exist, or the caller may not know that it does.
    NotFound,
    /// The request clashes with the present state.
    Conflict,
    /// A stated precondition (`If-Match`) does not hold.
    Precondition,
    /// The request or its body is larger than a bound.
    TooLarge,
    /// The part of a file that was asked for is not there.
    OutOfRange,
    /// The same idempotency key was used for another request.
    Unprocessable,
    /// The method does not exist on this resource.
    MethodNotAllowed,
    /// A rate or budget bound was reached; trying later helps.
    Limited,
    /// The node cannot do it now; trying later helps.
    Unavailable,
    /// The disk or a quota is full.
    StorageFull,
    /// The request took longer than its deadline to arrive.
    TimedOut,
    /// A defect inside; nothing about it is shown.
    Internal,
}

macro_rules! codes {
    ($($variant:ident = $text:literal => $kind:ident, $doc:literal;)*) => {
        /// A stable, documented error code. The table in this file is the only list.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $doc] $variant,)*
        }
        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];
            /// The code as it appears on the wire.
            pub const fn as_str(self) -> &'static str { match self { $(Code::$variant => $text,)* } }
            /// The family this code belongs to.
            pub const fn kind(self) -> Kind { match self { $(Code::$variant => Kind::$kind,)* } }
            /// One sentence that explains the code.
            pub const fn explanation(self) -> &'static str { match self { $(Code::$variant => $doc,)* } }
        }
    };
}

codes! {
    RequestInvalid = "request_invalid" => Invalid, "The request is malformed.";
    JsonInvalid = "json_invalid" => Invalid, "The body is not valid JSON of the expected shape.";
    ParameterInvalid = "parameter_invalid" => Invalid, "A query parameter or header has a value that is not allowed.";
    ValidationFailed = "validation_failed" => Invalid, "One or more fields were refused.";
    FilterInvalid = "filter_invalid" => Invalid, "The filter cannot be understood.";
    SortInvalid = "sort_invalid" => Invalid, "The sort cannot be understood.";
    FieldsInvalid = "fields_invalid" => Invalid, "The field selection cannot be understood.";
    ExpandInvalid = "expand_invalid" => Invalid, "The expand cannot be understood.";
    CursorInvalid = "cursor_invalid" => Invalid, "The cursor is forged, damaged or belongs to another query.";
    RuleInvalid = "rule_invalid" => Invalid, "An access rule cannot be understood.";
    SchemaInvalid = "schema_invalid" => Invalid, "A collection definition was refused.";
    BatchFailed = "batch_request_failed" => Invalid, "A request inside the batch failed and the batch was undone.";
    CreateRefused = "create_refused" => Invalid, "The create rule of the collection does not admit this record.";
    TenantAmbiguous = "tenant_ambiguous" => Invalid, "Path, host and header name different tenants.";
    TenantSlugInvalid = "tenant_slug_invalid" => Invalid, "The tenant slug is not allowed.";
    CredentialsInvalid = "credentials_invalid" => Invalid, "The identity or the password is wrong.";
    TokenInvalid = "token_invalid" => Unauthenticated, "The token is forged, expired, revoked or meant for someone else.";
    AuthRequired = "auth_required" => Unauthenticated, "The request needs a logged-in caller.";
    MfaRequired = "mfa_required" => Unauthenticated, "A second factor is needed.";
    Forbidden = "forbidden" => Forbidden, "The caller may not do this.";
    SuperuserRequired = "superuser_required" => Forbidden, "Only a superuser may do this.";
    AccountSuspended = "account_suspended" => Forbidden, "The account is suspended; an administrator can resume it.";
    TenantSuspended = "tenant_suspended" => Forbidden, "The tenant is suspended.";
    TenantNotFound = "tenant_not_found" => NotFound, "No such tenant.";
    RouteNotFound = "route_not_found" => NotFound, "No such route.";
    CollectionNotFound = "collection_not_found" => NotFound, "No such collection.";
    RecordNotFound = "record_not_found" => NotFound, "No such record, or the caller may not see it.";
    FileNotFound = "file_not_found" => NotFound, "No such file, or the caller may not see it.";
    BlueprintNotFound = "blueprint_not_found" => NotFound, "No such blueprint.";
    KeyNotFound = "key_not_found" => NotFound, "No such key.";
    MethodNotAllowed = "method_not_allowed" => MethodNotAllowed, "The method does not exist on this resource.";
    TenantExists = "tenant_exists" => Conflict, "A tenant with this slug exists.";
    Conflict = "conflict" => Conflict, "The request clashes with the present state.";
    TenantBusy = "tenant_busy" => Conflict, "Another administrative operation on the tenant is under way.";
    PreconditionFailed = "precondition_failed" => Precondition, "The record is not as If-Match says: it changed since it was read, or the text is no ETag of it. Read it again and send the ETag of that answer.";
    IdempotencyMismatch = "idempotency_mismatch" => Unprocessable, "The idempotency key was used for another request.";
    BodyTooLarge = "body_too_large" => TooLarge, "The body is larger than the limit.";
    RateLimited = "rate_limited" => Limited, "Too many requests.";
    QuotaExceeded = "quota_exceeded" => Limited, "A budget of the tenant is used up.";
    QueryTooExpensive = "query_too_expensive" => Invalid, "The query did more work than its budget allows.";
    QueueFull = "queue_full" => Unavailable, "The write queue of the tenant is full.";
    Busy = "busy" => Unavailable, "The node is at a bound and cannot take this now.";
    OauthRefused = "oauth_refused" => Invalid, "The identity provider refused the sign-in, or its answer does not hold.";
    OauthUnverified = "oauth_unverified" => Invalid, "The account with this e-mail address cannot be linked yet.";
    UpstreamFailed = "upstream_failed" => Invalid, "Another server did not answer, or not as it should.";
    ShuttingDown = "shutting_down" => Unavailable, "The node is stopping.";
    StorageFull = "storage_full" => StorageFull, "The disk of the node, or its share of it, is full; reads go on.";
    RequestTimeout = "request_timeout" => TimedOut, "The request took too long to arrive or to be answered.";
    RangeNotSatisfiable = "range_not_satisfiable" => OutOfRange, "There is no such part.";
    TenantDamaged = "tenant_damaged" => Internal, "A file of the tenant is damaged or missing; the operator's log says more.";
    Internal = "internal" => Internal, "Something went wrong inside; the request id finds it in the log.";
}

/// One refused part of a request: which field, why, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    /// Path of the field, dots between levels (`requests.2.body.title`).
    pub field: String,
    /// Stable code such as `validation_required`.
    pub code: Cow<'static, str>,
    /// One sentence for a person.
    pub message: String,
}

impl Detail {
    /// Builds a detail for `field`. Both texts may quote what was sent, so both are cut to what a person reads.
    pub fn new(field: impl Into<String>, code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            field: clip(field.into(), limits::REFUSAL_FIELD_CHARS_MAX),
            code: code.into(),
            message: clip(message.into(), limits::REFUSAL_CHARS_MAX),
        }
    }
}

/// `text`, cut behind `chars_max` characters and then marked as cut.
pub fn clip(mut text: String, chars_max: usize) -> String {
    // A text of so many bytes has no more characters.
    if text.len() > chars_max
        && let Some((end, _)) = text.char_indices().nth(chars_max)
    {
        text.truncate(end);
        text.push('…');
        text.shrink_to_fit();
    }
    text
}

/// How an error presents itself to whoever asked.
///
/// `Display` of the implementing type is for the log and may name internals; [`Fault::public`] is what a caller sees.
pub trait Fault: std::error::Error {
    /// The stable code of this failure.
    fn code(&self) -> Code;

    /// One sentence that is safe to show; it names the field and the fix where there is one.
    fn public(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.code().explanation())
    }

    /// The refused fields, empty when the failure is not about fields.
    fn details(&self) -> Vec<Detail> {
        Vec::new()
    }

    /// Further members of the answer by name, texts that the caller needs in order to go on.
    fn members(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Seconds after which trying again makes sense.
    fn retry_after_s(&self) -> Option<u32> {
        None
    }
}
