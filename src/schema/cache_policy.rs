//! How a collection's answers are kept: tier, time to live, tags, and what other caches are told.
//!
//! Keeps true: an answer that depends on who asks is never described as publicly cacheable, whatever the policy says.
//! Time bounds how long a thing is kept; coherence never rests on it.
//! Does not do: freshness, storage.

use serde_json::Value;
use std::fmt::Write as _;
use std::sync::Arc;

/// Which tiers keep an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Tier {
    /// Memory and disk.
    #[default]
    Both,
    /// Memory only.
    Memory,
    /// Disk only.
    Disk,
    /// None: every read goes to the database.
    Off,
}

impl Tier {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Both, "both"), (Self::Memory, "l1"), (Self::Disk, "l2"), (Self::Off, "off")];

    /// The word in a policy.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(tier, _)| *tier == self).map_or("both", |(_, text)| text)
    }

    /// Whether memory keeps it.
    pub fn uses_memory(self) -> bool {
        matches!(self, Self::Both | Self::Memory)
    }

    /// Whether the disk keeps it.
    pub fn uses_disk(self) -> bool {
        matches!(self, Self::Both | Self::Disk)
    }
}

/// Kinds of data by how long they are worth keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TtlClass {
    /// Sessions: 24 hours.
    Session,
    /// Profiles: 1 hour.
    Profile,
    /// Ordinary data: 5 minutes.
    #[default]
    Data,
    /// Live data: 1 minute.
    Live,
    /// Analytics: 15 minutes.
    Analytics,
    /// What changes with releases only: 1 hour.
    Static,
}

impl TtlClass {
    /// Every class with its word and its seconds.
    pub const ALL: [(Self, &'static str, u32); 6] = [
        (Self::Session, "session", 24 * 3_600),
        (Self::Profile, "profile", 3_600),
        (Self::Data, "data", 300),
        (Self::Live, "live", 60),
        (Self::Analytics, "analytics", 900),
        (Self::Static, "static", 3_600),
    ];

    /// The word in a policy.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|row| row.0 == self).map_or("data", |row| row.1)
    }

    /// Seconds.
    pub fn ttl_s(self) -> u32 {
        Self::ALL.iter().find(|row| row.0 == self).map_or(300, |row| row.2)
    }
}

/// Longest time to live a policy may ask for: 30 days.
pub const TTL_S_MAX: u32 = 30 * 24 * 3_600;
/// Tags in a policy at most.
pub const TAGS_MAX: usize = 16;
/// Events in a policy at most.
pub const EVENTS_MAX: usize = 16;
/// Extra key parts in a policy at most.
pub const KEY_PARTS_MAX: usize = 8;

/// What caches between here and the reader are told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CacheControl {
    /// Shared caches may keep it; ignored for answers that depend on identity.
    pub public: bool,
    /// Nobody may keep it.
    pub no_store: bool,
    /// Seconds a browser may use it without asking; `None` means it must ask (`no-cache`).
    pub max_age_s: Option<u32>,
    /// Seconds a shared cache may use it without asking; ignored for answers that depend on identity.
    pub s_maxage_s: Option<u32>,
    /// Seconds it may be used while a newer one is fetched.
    pub stale_while_revalidate_s: Option<u32>,
    /// It never changes.
    pub immutable: bool,
}

/// Which question of a collection a policy may treat apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// A page of records.
    List,
    /// One record.
    View,
    /// Grouped or counted values.
    Aggregate,
    /// A full-text search.
    Search,
}

impl Route {
    const ALL: [(Self, &'static str); 4] =
        [(Self::List, "list"), (Self::View, "view"), (Self::Aggregate, "aggregate"), (Self::Search, "search")];
}

/// What a policy says of one route alone; what it leaves out is as for the collection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoutePolicy {
    tier: Option<Tier>,
    class: Option<TtlClass>,
    ttl_s: Option<u32>,
    cache_control: Option<CacheControl>,
}

/// How the answers of one collection or route are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Which tiers.
    pub tier: Tier,
    /// The class, which also names the answer in statistics.
    pub class: TtlClass,
    /// Seconds, where the class's own are not wanted.
    pub ttl_s: Option<u32>,
    /// Tags by which the answers can be purged, and which `Cache-Tag` carries.
    pub tags: Vec<Arc<str>>,
    /// Names of happenings after which the answers can be purged.
    pub events: Vec<Arc<str>>,
    /// What other caches are told.
    pub cache_control: CacheControl,
    /// What single routes have of their own, each at most once.
    pub routes: Vec<(Route, RoutePolicy)>,
    /// Request paths (`@request.headers.x_lang`) by whose values answers are kept apart in addition.
    pub key_parts: Vec<Arc<str>>,
    /// Whether changes are told to caches in front of the node, where it has such a hook.
    pub purge: bool,
    /// Whether a record that was just written is kept at once; `None`: if it was kept before.
    pub write_through: Option<bool>,
}

/// A refused policy: which member and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cache policy: {member} {problem}")]
pub struct PolicyError {
    /// The member's path, such as `cacheControl.maxAge`; empty for the policy as a whole.
    pub member: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            tier: Tier::default(),
            class: TtlClass::default(),
            ttl_s: None,
            tags: Vec::new(),
            events: Vec::new(),
            routes: Vec::new(),
            cache_control: CacheControl::default(),
            key_parts: Vec::new(),
            purge: true,
            write_through: None,
        }
    }
}

impl Policy {
    /// The policy of a class with everything else at its default.
    pub fn of(class: TtlClass) -> Self {
        Self { class, ..Self::default() }
    }

    /// A policy that keeps nothing.
    pub fn off() -> Self {
        Self { tier: Tier::Off, ..Self::default() }
    }

    /// Milliseconds an answer is kept.
    pub fn ttl_ms(&self) -> i64 {
        i64::from(self.ttl_s.unwrap_or_else(|| self.class.ttl_s())) * 1_000
    }

    /// Reads a policy as the wire gives it; `null` is the default policy.
    pub fn parse(value: &Value) -> Result<Self, PolicyError> {
        let members = match value {
            Value::Null => return Ok(Self::default()),
            Value::Object(members) => members,
            _ => return Err(refused("", "must be an object, such as {\"tier\": \"off\"}, or null")),
        };
        let mut policy = Self::default();
        for (name, value) in members {
            if let Some((route, word)) = Route::ALL.iter().find(|(_, word)| word == name) {
                policy.routes.push((*route, RoutePolicy::parse(word, value)?));
                continue;
            }
            match name.as_str() {
                "tier" => policy.tier = tier(name, value)?,
                "class" => policy.class = class(name, value)?,
                "events" => policy.events = words(name, value, EVENTS_MAX, (is_tag, A_TAG))?,
                "ttlSeconds" => policy.ttl_s = Some(seconds(name, value)?),
                "tags" => policy.tags = words(name, value, TAGS_MAX, (is_tag, A_TAG))?,
                "key" => policy.key_parts = words(name, value, KEY_PARTS_MAX, (is_key_path, A_KEY_PATH))?,
                "cacheControl" => policy.cache_control = CacheControl::parse(name, value)?,
                "purge" => policy.purge = flag(name, value)?,
                "writeThrough" => policy.write_through = Some(flag(name, value)?),
                _ => return Err(unknown(name, "a cache policy", MEMBERS)),
            }
        }
        Ok(policy)
    }

    /// The policy of one route: what it says of that route in place of what it says of the collection.
    #[must_use]
    pub fn of_route(mut self, route: Route) -> Self {
        let own = self.routes.iter().position(|(named, _)| *named == route).map(|at| self.routes.swap_remove(at).1);
        self.routes.clear();
        let Some(RoutePolicy { tier, class, ttl_s, cache_control }) = own else { return self };
        self.tier = tier.unwrap_or(self.tier);
        // A class stands for its time: one of the route is not to be undone by the collection's seconds.
        self.ttl_s = ttl_s.or(if class.is_some() { None } else { self.ttl_s });
        self.class = class.unwrap_or(self.class);
        self.cache_control = cache_control.unwrap_or(self.cache_control);
        self
    }

    /// The `Cache-Control` of an answer. One that depends on identity is `private` at most.
    pub fn cache_control(&self, depends_on_identity: bool) -> String {
        self.cache_control.render(depends_on_identity)
    }

    /// The `Cache-Tag` of an answer: tenant, tenant and collection, the lists of every other collection that it was made
    /// from, then the policy's tags and events.
    pub fn cache_tag<'name>(
        &self,
        tenant: &str,
        collection: &str,
        others: impl IntoIterator<Item = &'name str>,
    ) -> String {
        let mut text = format!("{tenant},{}", collection_tag(tenant, collection));
        for other in others {
            let _ = write!(text, ",{}", lists_tag(tenant, other));
        }
        for tag in self.tags.iter().filter(|tag| is_tag(tag)) {
            let _ = write!(text, ",{tenant}:{tag}");
        }
        for event in &self.events {
            let _ = write!(text, ",{tenant}:{}", event_word(event));
        }
        text
    }
}

/// How an event is told to caches in front of the node, without the tenant.
pub fn event_word(event: &str) -> String {
    format!("event:{event}")
}

/// Every answer of a collection.
pub fn collection_tag(tenant: &str, collection: &str) -> String {
    format!("{tenant}:{collection}")
}

/// Every answer that may show several records of a collection, or one inside another record.
pub fn lists_tag(tenant: &str, collection: &str) -> String {
    format!("{tenant}:{collection}:lists")
}

/// The answers that show one record; an id that no header can carry shares the word of the lists, which every change posts.
pub fn record_tag(tenant: &str, collection: &str, id: &str) -> String {
    if is_tag(id) { format!("{tenant}:{collection}:{id}") } else { lists_tag(tenant, collection) }
}

impl RoutePolicy {
    fn parse(route: &str, value: &Value) -> Result<Self, PolicyError> {
        let members = value.as_object().ok_or_else(|| refused(route, "must be an object"))?;
        let mut policy = Self::default();
        for (name, value) in members {
            let path = format!("{route}.{name}");
            match name.as_str() {
                "tier" => policy.tier = Some(tier(&path, value)?),
                "class" => policy.class = Some(class(&path, value)?),
                "ttlSeconds" => policy.ttl_s = Some(seconds(&path, value)?),
                "cacheControl" => policy.cache_control = Some(CacheControl::parse(&path, value)?),
                _ => return Err(unknown(&path, "a route's policy", ROUTE_MEMBERS)),
            }
        }
        Ok(policy)
    }
}

impl CacheControl {
    /// Reads an object of members or a header-like text (`public, max-age=60`).
    fn parse(path: &str, value: &Value) -> Result<Self, PolicyError> {
        let mut control = Self::default();
        match value {
            Value::Null => {}
            Value::String(text) => {
                for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
                    control.directive(path, directive)?;
                }
            }
            Value::Object(members) => {
                for (name, value) in members {
                    control.member(&format!("{path}.{name}"), name, value)?;
                }
            }
            _ => return Err(refused(path, "must be a text, such as \"public, max-age=60\", or an object")),
        }
        if control.no_store && (control.public || control.max_age_s.is_some() || control.s_maxage_s.is_some()) {
            return Err(refused(path, "cannot forbid storing and allow it"));
        }
        Ok(control)
    }

    fn directive(&mut self, path: &str, directive: &str) -> Result<(), PolicyError> {
        let (name, number) = match directive.split_once('=') {
            Some((name, number)) => (name, Some(number)),
            None => (directive, None),
        };
        let seconds = || {
            let read = number.and_then(|number| number.parse::<u32>().ok()).filter(|seconds| *seconds <= TTL_S_MAX);
            let problem = || format!("has {directive:?}; {name} takes whole seconds from 0 to {TTL_S_MAX}: {name}=60");
            read.map(Some).ok_or_else(|| refused(path, problem()))
        };
        let flag = || {
            let problem = || format!("has {directive:?}; {name} takes no value");
            if number.is_none() { Ok(true) } else { Err(refused(path, problem())) }
        };
        match name.to_ascii_lowercase().as_str() {
            // Those without a value are in `FLAGS` too.
            "public" => self.public = flag()?,
            "private" | "no-cache" | "must-revalidate" => _ = flag()?,
            "no-store" => self.no_store = flag()?,
            "immutable" => self.immutable = flag()?,
            "max-age" => self.max_age_s = seconds()?,
            "s-maxage" => self.s_maxage_s = seconds()?,
            "stale-while-revalidate" => self.stale_while_revalidate_s = seconds()?,
            _ => return Err(refused(path, format!("has {directive:?}; what is known is {DIRECTIVES}"))),
        }
        Ok(())
    }

    fn member(&mut self, path: &str, name: &str, value: &Value) -> Result<(), PolicyError> {
        match name {
            "public" => self.public = flag(path, value)?,
            "noStore" => self.no_store = flag(path, value)?,
            "immutable" => self.immutable = flag(path, value)?,
            "maxAge" => self.max_age_s = Some(seconds(path, value)?),
            "sMaxage" => self.s_maxage_s = Some(seconds(path, value)?),
            "staleWhileRevalidate" => self.stale_while_revalidate_s = Some(seconds(path, value)?),
            _ => return Err(unknown(path, "cacheControl", CONTROL_MEMBERS)),
        }
        Ok(())
    }

    fn render(&self, depends_on_identity: bool) -> String {
        if self.no_store {
            return "no-store".to_owned();
        }
        let mut text = String::with_capacity(48);
        let public = self.public && !depends_on_identity;
        text.push_str(if public {
            "public"
        } else if depends_on_identity {
            "private"
        } else {
            ""
        });
        let mut add = |directive: std::fmt::Arguments<'_>| {
            if !text.is_empty() {
                text.push_str(", ");
            }
            let _ = text.write_fmt(directive);
        };
        match self.max_age_s {
            Some(seconds) => add(format_args!("max-age={seconds}")),
            None => add(format_args!("no-cache")),
        }
        if let Some(seconds) = self.s_maxage_s.filter(|_| !depends_on_identity) {
            add(format_args!("s-maxage={seconds}"));
        }
        if let Some(seconds) = self.stale_while_revalidate_s {
            add(format_args!("stale-while-revalidate={seconds}"));
        }
        if self.immutable {
            add(format_args!("immutable"));
        }
        text
    }
}

const MEMBERS: &str =
    "tier, class, ttlSeconds, tags, events, key, cacheControl, purge, writeThrough, list, view, aggregate and search";
const ROUTE_MEMBERS: &str = "tier, class, ttlSeconds and cacheControl";
const CONTROL_MEMBERS: &str = "public, noStore, immutable, maxAge, sMaxage and staleWhileRevalidate";
const DIRECTIVES: &str =
    "public, private, no-cache, no-store, must-revalidate, immutable, max-age, s-maxage and stale-while-revalidate";
/// The directives that take no value.
pub(crate) const FLAGS: &[&str] = &["public", "private", "no-cache", "no-store", "must-revalidate", "immutable"];
const A_TAG: &str = "1 to 64 letters, digits and - _ . : /";
const A_KEY_PATH: &str = "@request.headers.NAME, @request.query.NAME, @request.auth.id or @request.auth.collectionName, 128 characters at most";

fn refused(member: &str, problem: impl Into<String>) -> PolicyError {
    PolicyError { member: member.to_owned(), problem: problem.into() }
}

fn unknown(member: &str, of: &str, known: &str) -> PolicyError {
    refused(member, format!("is not a member of {of}; the members are {known}"))
}

fn tier(member: &str, value: &Value) -> Result<Tier, PolicyError> {
    word(member, value, &Tier::ALL, "must be both, l1, l2 or off")
}

fn class(member: &str, value: &Value) -> Result<TtlClass, PolicyError> {
    let classes = TtlClass::ALL.map(|(class, word, _)| (class, word));
    word(member, value, &classes, "must be session, profile, data, live, analytics or static")
}

fn word<T: Copy>(
    member: &str,
    value: &Value,
    table: &[(T, &'static str)],
    problem: &'static str,
) -> Result<T, PolicyError> {
    let text = value.as_str().unwrap_or("");
    table.iter().find(|(_, word)| *word == text).map(|(one, _)| *one).ok_or_else(|| refused(member, problem))
}

fn flag(member: &str, value: &Value) -> Result<bool, PolicyError> {
    value.as_bool().ok_or_else(|| refused(member, "must be true or false"))
}

fn seconds(member: &str, value: &Value) -> Result<u32, PolicyError> {
    value
        .as_u64()
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| *number <= TTL_S_MAX)
        .ok_or_else(|| refused(member, format!("must be whole seconds from 0 to {TTL_S_MAX}")))
}

fn words(
    member: &str,
    value: &Value,
    len_max: usize,
    (allowed, described): (fn(&str) -> bool, &str),
) -> Result<Vec<Arc<str>>, PolicyError> {
    let list = value.as_array().ok_or_else(|| refused(member, format!("must be a list, each of it {described}")))?;
    if list.len() > len_max {
        let problem = format!("has {} entries; at most {len_max} are allowed", list.len());
        return Err(refused(member, problem));
    }
    let word = |(place, one): (usize, &Value)| {
        let refusal = || refused(&format!("{member}.{place}"), format!("must be {described}"));
        one.as_str().filter(|text| allowed(text)).map(Arc::from).ok_or_else(refusal)
    };
    list.iter().enumerate().map(word).collect()
}

/// Tags travel in a header and are separated by commas there.
pub(crate) fn is_tag(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte))
}

/// What answers can be kept apart by; another path would be read as empty, and keep nothing apart.
pub(crate) fn is_key_path(text: &str) -> bool {
    let named = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    text.len() <= 128
        && match text.strip_prefix("@request.").and_then(|path| path.split_once('.')) {
            Some(("headers" | "query", name)) => named(name),
            Some(("auth", name)) => matches!(name, "id" | "collectionName"),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_classes_are_the_documented_ones() {
        let seconds: Vec<_> = TtlClass::ALL.iter().map(|(class, word, _)| (*word, class.ttl_s())).collect();
        assert_eq!(
            seconds,
            [
                ("session", 86_400),
                ("profile", 3_600),
                ("data", 300),
                ("live", 60),
                ("analytics", 900),
                ("static", 3_600)
            ]
        );
    }

    #[test]
    fn policies_are_read_and_refused_by_member() {
        let policy = Policy::parse(&json!({
            "tier": "l1", "class": "live", "ttlSeconds": 5, "tags": ["news"], "key": ["@request.headers.x_lang"],
            "cacheControl": "public, max-age=60, s-maxage=120",
        }))
        .unwrap();
        assert_eq!((policy.tier, policy.class, policy.ttl_ms()), (Tier::Memory, TtlClass::Live, 5_000));
        assert_eq!(Policy::parse(&Value::Null).unwrap(), Policy::default());
        for (value, member) in [
            (json!([]), ""),
            (json!({"tier": "l3"}), "tier"),
            (json!({"ttlSeconds": -1}), "ttlSeconds"),
            (json!({"ttlSeconds": 2_592_001}), "ttlSeconds"),
            (json!({"tags": ["a", "a,b"]}), "tags.1"),
            (json!({"tags": "a"}), "tags"),
            (json!({"key": ["@request.method"]}), "key.0"),
            (json!({"key": ["@request.headers.x.y"]}), "key.0"),
            (json!({"key": ["auth.id"]}), "key.0"),
            (json!({"cacheControl": {"maxage": 1}}), "cacheControl.maxage"),
            (json!({"cacheControl": "max-age"}), "cacheControl"),
            (json!({"cacheControl": "no-store, max-age=5"}), "cacheControl"),
            (json!({"purge": "no"}), "purge"),
            (json!({"writeThrough": 1}), "writeThrough"),
            (json!({"events": ["a b"]}), "events.0"),
            (json!({"list": 1}), "list"),
            (json!({"list": {"ttlSeconds": "1"}}), "list.ttlSeconds"),
            (json!({"view": {"class": "eternal"}}), "view.class"),
            (json!({"search": {"tags": []}}), "search.tags"),
            (json!({"aggregate": {"cacheControl": {"maxAge": -1}}}), "aggregate.cacheControl.maxAge"),
            (json!({"aggregate": {"cacheControl": "no-store, max-age=5"}}), "aggregate.cacheControl"),
            (json!({"extra": 1}), "extra"),
        ] {
            assert_eq!(Policy::parse(&value).unwrap_err().member, member, "{value}");
        }
    }

    #[test]
    fn a_refusal_says_the_bound_and_what_would_be_right() {
        let many: Vec<String> = (0..17).map(|number| format!("t{number}")).collect();
        for (value, said) in [
            (json!("off"), "{\"tier\": \"off\"}"),
            (json!({"teir": "off"}), "the members are tier, class"),
            (json!({"list": {"tags": []}}), "the members are tier, class, ttlSeconds and cacheControl"),
            (json!({"cacheControl": {"sMaxAge": 60}}), "maxAge, sMaxage and"),
            (json!({"tags": many}), "has 17 entries; at most 16"),
            (json!({"tags": "a"}), "must be a list"),
            (json!({"tags": ["a,b"]}), "1 to 64 letters, digits"),
            (json!({"key": ["x_lang"]}), "@request.headers.NAME"),
            (json!({"cacheControl": "public, maxage=3"}), "\"maxage=3\"; what is known is public"),
            (json!({"cacheControl": "max-age=-1"}), "\"max-age=-1\"; max-age takes whole seconds from 0 to 2592000"),
            (json!({"cacheControl": "public=1"}), "public takes no value"),
        ] {
            let refused = Policy::parse(&value).unwrap_err();
            assert!(refused.problem.contains(said), "{value}: {refused}");
        }
    }

    #[test]
    fn a_route_has_what_it_names_and_the_rest_of_the_collection() {
        let policy = Policy::parse(&json!({
            "tier": "l1", "ttlSeconds": 120, "tags": ["news"], "cacheControl": "public, max-age=60",
            "list": {"class": "live"}, "view": {"ttlSeconds": 9, "cacheControl": "max-age=1"}, "search": {"tier": "off"},
        }))
        .unwrap();
        let of = |route| policy.clone().of_route(route);
        let list = of(Route::List);
        assert_eq!((list.ttl_ms(), list.tier, list.tags.len()), (60_000, Tier::Memory, 1), "its class is its time");
        assert_eq!((of(Route::View).ttl_ms(), of(Route::View).cache_control(false)), (9_000, "max-age=1".to_owned()));
        assert_eq!((of(Route::Search).tier, of(Route::Search).ttl_ms()), (Tier::Off, 120_000));
        assert_eq!(of(Route::Aggregate), Policy { routes: Vec::new(), ..policy });
    }

    #[test]
    fn what_depends_on_identity_is_never_public() {
        for (control, anyone, somebody) in [
            (json!(null), "no-cache", "private, no-cache"),
            (json!("public, max-age=60, s-maxage=90"), "public, max-age=60, s-maxage=90", "private, max-age=60"),
            (json!("public, immutable, max-age=9"), "public, max-age=9, immutable", "private, max-age=9, immutable"),
            (json!({"noStore": true}), "no-store", "no-store"),
            (
                json!({"maxAge": 0, "staleWhileRevalidate": 5}),
                "max-age=0, stale-while-revalidate=5",
                "private, max-age=0, stale-while-revalidate=5",
            ),
        ] {
            let policy = Policy::parse(&json!({"cacheControl": control})).unwrap();
            assert_eq!(policy.cache_control(false), anyone);
            assert_eq!(policy.cache_control(true), somebody);
        }
    }

    #[test]
    fn cache_tags_name_the_tenant_everywhere() {
        let policy = Policy::parse(&json!({"tags": ["news"], "events": ["paid"]})).unwrap();
        assert_eq!(
            policy.cache_tag("demo", "posts", ["users"]),
            "demo,demo:posts,demo:users:lists,demo:news,demo:event:paid"
        );
        assert_eq!(record_tag("demo", "posts", "a1"), "demo:posts:a1");
        assert_eq!(record_tag("demo", "posts", "a,b"), lists_tag("demo", "posts"), "what no header can carry");
    }
}
