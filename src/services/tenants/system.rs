//! The collections that Tenantry itself brings: those of the control database and those of every tenant.
//!
//! Keeps true: ids and field numbers are fixed, so every node and every version agrees on the columns; a list here only
//! ever grows. Hidden from everyone but superusers, because no rule is set; owners see their own identities at providers.
//! Does not do: business collections; these come from blueprints and from users of the API.

use crate::kernel::ident::{CollectionId, CollectionName, FieldId, FieldName, FieldNumber};
use crate::kernel::random::Random;
use crate::schema::field::{
    AutodateOptions, DateOptions, DomainOptions, Field, FieldKind, FileOptions, NumberOptions, PasswordOptions,
    SelectOptions, TextOptions,
};
use crate::schema::plan::{Plan, Step};
use crate::schema::{
    AuthOptions, Collection, CollectionKind, Index, IndexColumn, IndexCondition, IndexTerm, Rules, Schema, auth_form,
};
use std::sync::Arc;

/// Name of the superusers' collection; it exists in the control database alone.
pub const SUPERUSERS: &str = "_superusers";
/// Name of the registry's collection.
pub const TENANTS: &str = "_tenants";
/// Name of the collection of published blueprints.
pub const BLUEPRINTS: &str = "_blueprints";
/// Name of the collection of settings: of the node in the control database, of the tenant in its own.
pub const SETTINGS: &str = "_settings";
/// Name of the collection of refresh-token families.
pub const SESSIONS: &str = "_sessions";
/// Name of the collection of one-time codes.
pub const OTPS: &str = "_otps";
/// Name of the collection of logins that wait for a second factor.
pub const MFAS: &str = "_mfas";
/// Name of the collection of authenticator apps.
pub const TOTPS: &str = "_totps";
/// Name of the collection of recovery codes.
pub const RECOVERY_CODES: &str = "_recoveryCodes";
/// Name of the collection of passkeys.
pub const PASSKEYS: &str = "_passkeys";
/// Name of the collection of accounts' identities at providers, as in PocketBase.
pub const EXTERNAL_AUTHS: &str = "_externalAuths";
/// Name of the collection of places from which accounts were entered, as in PocketBase.
pub const AUTH_ORIGINS: &str = "_authOrigins";
/// Name of the collection of accounts that may not come in for the time being.
pub const SUSPENSIONS: &str = "_suspensions";
/// Name of the collection of logins and what else was done to whose access.
pub const AUTH_EVENTS: &str = "_authEvents";
/// Id of [`AUTH_EVENTS`], the same in every file.
pub const AUTH_EVENTS_ID: &str = "tn_auth_events";
/// Name of the collection of accounts that are made once their address is confirmed.
pub const REGISTRATIONS: &str = "_registrations";
/// Name of the collection of API keys.
pub const API_KEYS: &str = "_apiKeys";
/// Name of the auth collection every tenant starts with, as in PocketBase.
pub const USERS: &str = "users";

/// The system collections of the control database.
pub fn control_collections(random: &dyn Random, now_ms: i64) -> Vec<Collection> {
    vec![
        superusers(random, now_ms),
        tenants(now_ms),
        blueprints(now_ms),
        settings(now_ms),
        sessions(now_ms),
        api_keys(now_ms),
        otps(now_ms),
        mfas(now_ms),
        totps(now_ms),
        recovery_codes(now_ms),
        passkeys(now_ms),
        external_auths(now_ms),
        auth_origins(now_ms),
        suspensions(now_ms),
        auth_events(now_ms),
    ]
}

/// The system collections of every tenant.
pub fn tenant_collections(now_ms: i64) -> Vec<Collection> {
    vec![
        settings(now_ms),
        sessions(now_ms),
        otps(now_ms),
        api_keys(now_ms),
        mfas(now_ms),
        totps(now_ms),
        recovery_codes(now_ms),
        passkeys(now_ms),
        external_auths(now_ms),
        auth_origins(now_ms),
        suspensions(now_ms),
        auth_events(now_ms),
        registrations(now_ms),
    ]
}

/// The auth collection that a tenant without a blueprint starts with; rules as in PocketBase: everyone may register,
/// each user sees and changes only the own account.
pub fn users(random: &dyn Random, now_ms: i64) -> Collection {
    let own = || Some(Arc::from("id = @request.auth.id"));
    let mut draft = Draft::auth("_pb_users_auth_", USERS, random, 604_800);
    draft.field("text1579384326", "name", FieldKind::Text(TextOptions { max: 255, ..TextOptions::default() }));
    draft.field(
        "file376926767",
        "avatar",
        FieldKind::File(FileOptions {
            max_select: 1,
            mime_types: ["image/jpeg", "image/png", "image/svg+xml", "image/gif", "image/webp"].map(Arc::from).into(),
            ..FileOptions::default()
        }),
    );
    draft.stamps();
    let mut collection = draft.build(now_ms);
    collection.system = false;
    collection.rules = Rules {
        list: own(),
        view: own(),
        create: Some(Arc::from("")),
        update: own(),
        delete: own(),
        ..collection.rules
    };
    collection
}

/// The plan that makes `collections` in an empty file.
pub fn plan(collections: Vec<Collection>) -> Plan {
    plan_missing(&Arc::new(Schema::default()), collections).unwrap_or_else(|| Plan {
        steps: Vec::new(),
        previous: Arc::new(Schema::default()),
        next: Arc::new(Schema::default()),
    })
}

/// The plan that brings what `schema` lacks of the system collections `wanted`; `None` if it lacks nothing.
///
/// Collections, fields and indexes are only ever added; what is there stays as it is.
pub fn plan_missing(schema: &Arc<Schema>, wanted: Vec<Collection>) -> Option<Plan> {
    let mut collections = schema.collections().to_vec();
    let mut steps = Vec::new();
    for wanted in wanted {
        match collections.iter_mut().find(|present| present.id == wanted.id) {
            None => {
                let made = Arc::new(wanted);
                steps.push(Step::CreateTable(Arc::clone(&made)));
                collections.push(made);
            }
            Some(present) => {
                if let Some(after) = grown(present, &wanted) {
                    let before = std::mem::replace(present, Arc::new(after));
                    steps.push(Step::AlterTable { before, after: Arc::clone(present) });
                }
            }
        }
    }
    if steps.is_empty() {
        return None;
    }
    let next = Arc::new(Schema::new(schema.version() + 1, collections));
    Some(Plan { steps, previous: Arc::clone(schema), next })
}

/// `present` with the system fields and indexes that it lacks; `None` if it lacks none.
fn grown(present: &Collection, wanted: &Collection) -> Option<Collection> {
    let fields = wanted.fields.iter().filter(|field| present.find_field_number(field.number).is_none());
    let indexes = wanted.indexes.iter().filter(|index| present.indexes.iter().all(|have| have.name != index.name));
    let (fields, indexes): (Vec<_>, Vec<_>) = (fields.cloned().collect(), indexes.cloned().collect());
    if !present.system || (fields.is_empty() && indexes.is_empty()) {
        return None;
    }
    let mut after = present.clone();
    after.fields.extend(fields);
    after.indexes.extend(indexes);
    after.next_field_number = after.next_field_number.max(wanted.next_field_number);
    after.updated_ms = wanted.updated_ms;
    Some(after)
}

fn superusers(random: &dyn Random, now_ms: i64) -> Collection {
    let mut draft = Draft::auth("pbc_3142635823", SUPERUSERS, random, 86_400);
    draft.stamps();
    draft.build(now_ms)
}

fn tenants(now_ms: i64) -> Collection {
    let mut draft = Draft::base("tn_tenants", TENANTS);
    draft.required_text("slug", 63);
    draft.required_text("name", 200);
    draft.field("f_state", "state", select(&["creating", "active", "suspended", "deleting"]));
    draft.text("blueprint", 100);
    draft.number("blueprintVersion");
    draft.json("hosts");
    draft.stamps();
    // After the stamps: fields are numbered in this order, and folders of earlier versions have those above.
    draft.json("policy");
    draft.unique("slug", &["slug"], None);
    draft.build(now_ms)
}

fn blueprints(now_ms: i64) -> Collection {
    let mut draft = Draft::base("tn_blueprints", BLUEPRINTS);
    draft.required_text("name", 100);
    draft.number("version");
    draft.text("checksum", 64);
    draft.json("definition");
    draft.stamps();
    draft.unique("name_version", &["name", "version"], None);
    draft.build(now_ms)
}

fn settings(now_ms: i64) -> Collection {
    let mut draft = Draft::base("tn_settings", SETTINGS);
    draft.required_text("key", 100);
    draft.json("value");
    draft.stamps();
    draft.unique("key", &["key"], None);
    draft.build(now_ms)
}

fn sessions(now_ms: i64) -> Collection {
    let mut draft = Draft::base("tn_sessions", SESSIONS);
    draft.required_text("collectionRef", 64);
    draft.required_text("recordRef", 255);
    draft.secret("keyHash");
    draft.secret("familyHash");
    draft.secret("currentHash");
    draft.number("rotation");
    draft.date("expires");
    draft.date("lastUsed");
    draft.text("ip", 64);
    draft.text("userAgent", 300);
    draft.stamps();
    draft.index("record", &["collectionRef", "recordRef"]);
    draft.build(now_ms)
}

fn otps(now_ms: i64) -> Collection {
    let mut draft = Draft::base("tn_otps", OTPS);
    draft.required_text("collectionRef", 64);
    draft.required_text("recordRef", 255);
    draft.secret("codeHash");
    draft.number("attempts");
    draft.text("sentTo", 255);
    draft.date("expires");
    draft.stamps();
    draft.secret("keyHash");
    draft.index("record", &["collectionRef", "recordRef"]);
    draft.build(now_ms)
}

fn mfas(now_ms: i64) -> Collection {
    let mut draft = Draft::base("tn_mfas", MFAS);
    draft.required_text("collectionRef", 64);
    draft.required_text("recordRef", 255);
    draft.text("method", 32);
    draft.secret("tokenHash");
    draft.number("attempts");
    draft.date("expires");
    draft.stamps();
    draft.secret("keyHash");
    draft.index("record", &["collectionRef", "recordRef"]);
    draft.build(now_ms)
}

fn totps(now_ms: i64) -> Collection {
    let mut draft = Draft::base("tn_totps", TOTPS);
    draft.required_text("collectionRef", 64);
    draft.required_text("recordRef", 255);
    draft.secret("sealed");
    draft.named("confirmed", FieldKind::Bool);
    draft.number("lastStep");
    draft.number("misses");
    draft.date("missed");
    draft.stamps();
    draft.unique("record", &["collectionRef", "recordRef"], None);
    draft.build(now_ms)
}

fn recovery_codes(now_ms: i64) -> Collection {
    let mut draft = Draft::base("tn_recovery_codes", RECOVERY_CODES);
    draft.required_text("collectionRef", 64);
    draft.required_text("recordRef", 255);
    draft.secret("codeHash");
    draft.stamps();
    draft.index("record", &["collectionRef", "recordRef"]);
    draft.build(now_ms)
}

fn passkeys(now_ms: i64) -> Collection {
    let mut draft = Draft::base("tn_passkeys", PASSKEYS);
    draft.required_text("collectionRef", 64);
    draft.required_text("recordRef", 255);
    draft.text("name", 100);
    draft.text("rpId", 255);
    draft.required_text("credentialId", 2_000);
    draft.secret("userHandle");
    draft.named("credential", FieldKind::Json { max_size: 0 }).hidden = true;
    draft.named("backedUp", FieldKind::Bool);
    draft.date("lastUsed");
    draft.stamps();
    draft.index("record", &["collectionRef", "recordRef"]);
    draft.unique("credentialId", &["credentialId"], None);
    draft.build(now_ms)
}

/// Seen and removed by the account's owner, as in PocketBase; made by logging in alone.
fn external_auths(now_ms: i64) -> Collection {
    let mut draft = Draft::base("tn_external_auths", EXTERNAL_AUTHS);
    draft.required_text("collectionRef", 64);
    draft.required_text("recordRef", 255);
    draft.required_text("provider", 100);
    draft.required_text("providerId", 255);
    draft.required_text("issuer", 255);
    draft.stamps();
    draft.unique("identity", &["collectionRef", "issuer", "providerId"], None);
    draft.unique("record", &["collectionRef", "recordRef", "provider"], None);
    let mut collection = draft.build(now_ms);
    let own = || {
        let rule = "@request.auth.id != '' && recordRef = @request.auth.id \
                    && collectionRef = @request.auth.collectionId";
        Some(Arc::from(rule))
    };
    collection.rules = Rules { list: own(), view: own(), delete: own(), ..collection.rules };
    collection
}

fn auth_origins(now_ms: i64) -> Collection {
    let mut draft = Draft::base("tn_auth_origins", AUTH_ORIGINS);
    draft.required_text("collectionRef", 64);
    draft.required_text("recordRef", 255);
    draft.secret("fingerprint");
    draft.stamps();
    draft.index("record", &["collectionRef", "recordRef"]);
    draft.build(now_ms)
}

/// One row for each suspended account; its id follows from the account, so that looking for it is one look.
fn suspensions(now_ms: i64) -> Collection {
    let mut draft = Draft::base("tn_suspensions", SUSPENSIONS);
    draft.required_text("collectionRef", 64);
    draft.required_text("recordRef", 255);
    draft.text("reason", 500);
    draft.date("until");
    draft.stamps();
    draft.unique("record", &["collectionRef", "recordRef"], None);
    draft.build(now_ms)
}

/// Says `account`, not `recordRef`: what happened stays when the account goes.
fn auth_events(now_ms: i64) -> Collection {
    let mut draft = Draft::base(AUTH_EVENTS_ID, AUTH_EVENTS);
    draft.required_text("event", 32);
    draft.text("method", 32);
    draft.text("outcome", 32);
    draft.text("collectionRef", 64);
    draft.text("account", 255);
    draft.text("identity", 64);
    draft.text("ip", 64);
    draft.text("requestId", 100);
    draft.number("count");
    draft.date("expires");
    draft.stamps();
    draft.index("account", &["account"]);
    draft.index("expires", &["expires"]);
    draft.index("outcome", &["outcome", "expires"]);
    draft.build(now_ms)
}

/// `record` is the account as it will be; `origin` the address that registered it, IPv6 by its /64.
fn registrations(now_ms: i64) -> Collection {
    let mut draft = Draft::base("tn_registrations", REGISTRATIONS);
    draft.required_text("collectionRef", 64);
    draft.required_text("recordRef", 255);
    draft.named("record", FieldKind::Json { max_size: 0 }).hidden = true;
    draft.date("expires");
    draft.stamps();
    // After the stamps: fields are numbered in this order, and files of earlier versions have those above.
    draft.text("origin", 64).hidden = true;
    draft.index("expires", &["expires"]);
    draft.index("origin", &["origin", "created"]);
    draft.build(now_ms)
}

fn api_keys(now_ms: i64) -> Collection {
    let mut draft = Draft::base("tn_api_keys", API_KEYS);
    draft.required_text("name", 100);
    draft.text("collectionRef", 64);
    draft.text("recordRef", 255);
    draft.secret("secretHash");
    draft.json("scopes");
    draft.json("ips");
    draft.date("expires");
    draft.date("lastUsed");
    draft.stamps();
    draft.index("record", &["collectionRef", "recordRef"]);
    draft.build(now_ms)
}

fn select(values: &[&str]) -> FieldKind {
    FieldKind::Select(SelectOptions { values: values.iter().map(|value| Arc::from(*value)).collect(), max_select: 1 })
}

/// A collection while it is being put together; field numbers follow the order of the calls.
struct Draft {
    id: &'static str,
    name: &'static str,
    kind: CollectionKind,
    fields: Vec<Field>,
    indexes: Vec<Index>,
    auth: Option<Arc<AuthOptions>>,
}

impl Draft {
    fn base(id: &'static str, name: &'static str) -> Self {
        let mut draft =
            Self { id, name, kind: CollectionKind::Base, fields: Vec::new(), indexes: Vec::new(), auth: None };
        let options = TextOptions {
            min: 15,
            max: 15,
            pattern: Arc::from("^[a-z0-9]+$"),
            autogenerate_pattern: Arc::from("[a-z0-9]{15}"),
            primary_key: true,
        };
        draft.field("text3208210256", "id", FieldKind::Text(options)).required = true;
        draft
    }

    /// An auth collection with the system fields of PocketBase, in its order and with its ids.
    fn auth(id: &'static str, name: &'static str, random: &dyn Random, token_duration_s: u64) -> Self {
        let mut draft = Self::base(id, name);
        draft.kind = CollectionKind::Auth;
        let password = FieldKind::Password(PasswordOptions { min: 8, ..PasswordOptions::default() });
        let field = draft.field("password901924565", "password", password);
        (field.hidden, field.required) = (true, true);
        let token_key = TextOptions {
            min: 30,
            max: 60,
            autogenerate_pattern: Arc::from("[a-zA-Z0-9]{50}"),
            ..TextOptions::default()
        };
        let field = draft.field("text2504183744", "tokenKey", FieldKind::Text(token_key));
        (field.hidden, field.required) = (true, true);
        draft.field("email3885137012", "email", FieldKind::Email(DomainOptions::default())).required = true;
        draft.field("bool1547992806", "emailVisibility", FieldKind::Bool);
        draft.field("bool256245529", "verified", FieldKind::Bool);
        draft.unique("tokenKey", &["tokenKey"], None);
        draft.unique("email", &["email"], Some("email"));
        draft.auth = Some(Arc::new(AuthOptions { token_duration_s, ..auth_form::defaults(random) }));
        draft
    }

    fn field(&mut self, id: &str, name: &str, kind: FieldKind) -> &mut Field {
        let number = u32::try_from(self.fields.len()).expect("invariant: a system collection has few fields");
        self.fields.push(Field {
            id: FieldId::parse(id).expect("invariant: system field ids are well formed"),
            number: FieldNumber(number),
            name: FieldName::parse(name).expect("invariant: system field names are well formed"),
            kind,
            system: true,
            hidden: false,
            presentable: false,
            required: false,
            searchable: false,
            read_rule: None,
            write_rule: None,
        });
        self.fields.last_mut().expect("invariant: a field was just added")
    }

    fn named(&mut self, name: &str, kind: FieldKind) -> &mut Field {
        self.field(&format!("f_{name}"), name, kind)
    }

    fn text(&mut self, name: &str, max: u64) -> &mut Field {
        self.named(name, FieldKind::Text(TextOptions { max, ..TextOptions::default() }))
    }

    fn required_text(&mut self, name: &str, max: u64) {
        self.text(name, max).required = true;
    }

    /// A digest or key: not even shown to superusers' lists unless asked for.
    fn secret(&mut self, name: &str) {
        self.text(name, 200).hidden = true;
    }

    fn number(&mut self, name: &str) {
        self.named(name, FieldKind::Number(NumberOptions::default()));
    }

    fn json(&mut self, name: &str) {
        self.named(name, FieldKind::Json { max_size: 0 });
    }

    fn date(&mut self, name: &str) {
        self.named(name, FieldKind::Date(DateOptions::default()));
    }

    fn stamps(&mut self) {
        let created = AutodateOptions { on_create: true, on_update: false };
        self.field("autodate2990389176", "created", FieldKind::Autodate(created));
        let updated = AutodateOptions { on_create: true, on_update: true };
        self.field("autodate3332085495", "updated", FieldKind::Autodate(updated));
    }

    fn number_of(&self, name: &str) -> FieldNumber {
        let field = self.fields.iter().find(|field| field.name.as_str() == name);
        field.expect("invariant: system indexes name their own fields").number
    }

    fn index(&mut self, name: &str, fields: &[&str]) {
        self.add_index(name, fields, IndexKind::Plain);
    }

    fn unique(&mut self, name: &str, fields: &[&str], unless_empty: Option<&str>) {
        self.add_index(name, fields, IndexKind::Unique { unless_empty });
    }

    fn add_index(&mut self, name: &str, fields: &[&str], kind: IndexKind<'_>) {
        let columns = fields
            .iter()
            .map(|name| IndexColumn { field: self.number_of(name), descending: false, nocase: false })
            .collect();
        let condition = match kind {
            IndexKind::Unique { unless_empty: Some(name) } => Some(IndexCondition(vec![IndexTerm {
                field: self.number_of(name),
                operator: Arc::from("!="),
                literal: Arc::from("''"),
            }])),
            _ => None,
        };
        self.indexes.push(Index {
            name: Arc::from(format!("idx_{name}_{}", self.id)),
            unique: matches!(kind, IndexKind::Unique { .. }),
            columns,
            condition,
        });
    }

    fn build(self, now_ms: i64) -> Collection {
        let rules = Rules { auth: self.auth.is_some().then(|| Arc::from("")), ..Rules::default() };
        let next = u32::try_from(self.fields.len()).expect("invariant: a system collection has few fields");
        Collection {
            id: CollectionId::parse(self.id).expect("invariant: system collection ids are well formed"),
            name: CollectionName::parse(self.name).expect("invariant: system collection names are well formed"),
            kind: self.kind,
            system: true,
            fields: self.fields,
            indexes: self.indexes,
            rules,
            auth: self.auth,
            view_query: None,
            partition: None,
            cache: None,
            next_field_number: next,
            created_ms: now_ms,
            updated_ms: now_ms,
        }
    }
}

enum IndexKind<'name> {
    Plain,
    Unique { unless_empty: Option<&'name str> },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::random::SeededRandom;
    use std::collections::BTreeSet;

    fn all() -> Vec<Collection> {
        let random = SeededRandom::new(1);
        let mut all = control_collections(&random, 5);
        all.extend(tenant_collections(5));
        all.push(users(&random, 5));
        all
    }

    #[test]
    fn every_definition_is_well_formed_and_locked() {
        for collection in all() {
            let numbers: BTreeSet<_> = collection.fields.iter().map(|field| field.number.0).collect();
            assert_eq!(numbers.len(), collection.fields.len(), "{}", collection.name);
            let ids: BTreeSet<_> = collection.fields.iter().map(|field| field.id.clone()).collect();
            assert_eq!(ids.len(), collection.fields.len(), "{}", collection.name);
            assert_eq!(collection.fields[0].name.as_str(), "id");
            if collection.system {
                let Rules { list, view, create, update, delete, manage, auth } = &collection.rules;
                assert!([create, update, manage].iter().all(|rule| rule.is_none()), "{}", collection.name);
                // Owners see and remove their own identities, as in PocketBase.
                let own = collection.name.as_str() == EXTERNAL_AUTHS;
                assert!([list, view, delete].iter().all(|rule| rule.is_some() == own), "{}", collection.name);
                assert_eq!(auth.is_some(), collection.is_auth());
            }
        }
    }

    #[test]
    fn an_older_file_gets_what_it_lacks_and_nothing_twice() {
        let wanted = tenant_collections(5);
        let whole = plan(wanted.clone());
        assert_eq!(whole.steps.len(), wanted.len());
        assert_eq!(plan_missing(&whole.next, wanted.clone()), None);
        let mut older = wanted.clone();
        older[1].fields.pop();
        let older = plan(older).next;
        let upgrade = plan_missing(&older, wanted.clone()).unwrap();
        assert!(matches!(upgrade.steps.as_slice(), [Step::AlterTable { .. }]));
        assert_eq!(upgrade.next.find(SESSIONS).unwrap().fields, wanted[1].fields);
    }

    #[test]
    fn two_tenants_do_not_share_collection_secrets() {
        let random = SeededRandom::new(1);
        let secret = |collection: Collection| collection.auth.unwrap().token_secret.clone();
        assert_ne!(secret(users(&random, 0)), secret(users(&random, 0)));
    }
}
