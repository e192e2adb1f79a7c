//! What an answer is filed under: `{tenant}:{category}:{resource}:{sub-resource}#{digest}`.
//!
//! Keeps true: the digest covers the tenant, every visible part, the normalised plan and the part of the caller that
//! the rule reads, each with its length, so two different questions never share a key. Building one allocates nothing.
//! Does not do: deciding what of the caller matters. That is the compiler of rules; here it is only hashed.

use crate::kernel::ident::{CollectionId, RecordId, TenantId};
use std::fmt;

/// What sort of answer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Category {
    /// One record.
    Record,
    /// A page of records.
    List,
    /// Grouped or counted values.
    Aggregate,
    /// A full-text search.
    Search,
    /// Session state.
    Session,
    /// A profile.
    Profile,
    /// Analytics.
    Analytics,
    /// Something that changes with releases only.
    Static,
    /// Anything else.
    Custom,
}

impl Category {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Record, "record"),
        (Self::List, "list"),
        (Self::Aggregate, "aggregate"),
        (Self::Search, "search"),
        (Self::Session, "session"),
        (Self::Profile, "profile"),
        (Self::Analytics, "analytics"),
        (Self::Static, "static"),
        (Self::Custom, "custom"),
    ];

    /// The word in the key.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(category, _)| *category == self).map_or("custom", |(_, text)| text)
    }

    /// The category that `text` names.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, word)| *word == text).map(|(category, _)| *category)
    }
}

/// The last visible part of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sub {
    /// A record id.
    Record(RecordId),
    /// A fixed word such as `page`.
    Word(&'static str),
}

impl Sub {
    /// The text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Record(id) => id.as_str(),
            Self::Word(word) => word,
        }
    }
}

/// Whether an answer depends on who asks. What it reads of the caller is among the values of its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallerClass {
    identity: bool,
}

impl CallerClass {
    /// The rule reads nothing of the caller: everyone shares.
    pub const fn everyone() -> Self {
        Self { identity: false }
    }

    /// The answer depends on who asks, and the plan's values say how.
    pub const fn somebody() -> Self {
        Self { identity: true }
    }

    /// Whether the answer depends on who asks; such an answer is never publicly cacheable.
    pub const fn depends_on_identity(&self) -> bool {
        self.identity
    }
}

/// Where one answer is filed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    tenant: TenantId,
    category: Category,
    resource: CollectionId,
    sub: Sub,
    digest: [u8; 32],
    identity: bool,
}

impl Key {
    /// Files an answer. `plan` holds everything that shapes the answer: normalised query text, bound values (those read of
    /// the caller too), schema version, output options.
    pub fn new(
        tenant: &TenantId,
        category: Category,
        resource: &CollectionId,
        sub: Sub,
        plan: &[&[u8]],
        caller: &CallerClass,
    ) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"tenantry.key.1");
        absorb(&mut hasher, tenant.as_str().as_bytes());
        absorb(&mut hasher, category.as_str().as_bytes());
        absorb(&mut hasher, resource.as_str().as_bytes());
        absorb(&mut hasher, sub.as_str().as_bytes());
        hasher.update(&[if caller.identity { 0xff } else { 0 }; 32]);
        for part in plan {
            absorb(&mut hasher, part);
        }
        Self {
            tenant: tenant.clone(),
            category,
            resource: resource.clone(),
            sub,
            digest: hasher.finalize().into(),
            identity: caller.identity,
        }
    }

    /// The tenant.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The category.
    pub fn category(&self) -> Category {
        self.category
    }

    /// The collection.
    pub fn resource(&self) -> &CollectionId {
        &self.resource
    }

    /// The last visible part.
    pub fn sub(&self) -> &Sub {
        &self.sub
    }

    /// The digest of everything.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Whether the answer depends on who asks.
    pub fn depends_on_identity(&self) -> bool {
        self.identity
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{}#", self.tenant, self.category.as_str(), self.resource, self.sub.as_str())?;
        self.digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A key's text taken apart, for purging and statistics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyParts {
    /// The tenant.
    pub tenant: TenantId,
    /// The category.
    pub category: Category,
    /// The collection.
    pub resource: CollectionId,
    /// The sub-resource.
    pub sub: String,
    /// The digest; absent in a text that means every answer with these visible parts.
    pub digest: Option<[u8; 32]>,
}

impl KeyParts {
    /// Takes apart what `Display` of a [`Key`] writes, with or without its digest.
    pub fn parse(text: &str) -> Option<Self> {
        let (visible, digest) = match text.rsplit_once('#') {
            Some((visible, digest)) => (visible, Some(digest_from_hex(digest)?)),
            None => (text, None),
        };
        let mut parts = visible.splitn(4, ':');
        let tenant = TenantId::parse(parts.next()?).ok()?;
        let category = Category::parse(parts.next()?)?;
        let resource = CollectionId::parse(parts.next()?).ok()?;
        Some(Self { tenant, category, resource, sub: parts.next()?.to_owned(), digest })
    }

    /// Whether `key` is written so.
    pub fn names(&self, key: &Key) -> bool {
        let visible = (key.tenant(), key.category(), key.resource(), key.sub().as_str())
            == (&self.tenant, self.category, &self.resource, &*self.sub);
        visible && self.digest.as_ref().is_none_or(|digest| digest == key.digest())
    }

    /// The visible part: `{tenant}:{category}:{resource}:{sub-resource}`.
    pub fn visible(&self) -> String {
        format!("{}:{}:{}:{}", self.tenant, self.category.as_str(), self.resource, self.sub)
    }
}

fn digest_from_hex(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0_u8; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (slot, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *slot = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(digest)
}

fn absorb(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(tenant: &str, sub: Sub, plan: &[&[u8]], caller: &CallerClass) -> Key {
        let resource = CollectionId::parse("pbc_1").unwrap();
        Key::new(&TenantId::parse(tenant).unwrap(), Category::List, &resource, sub, plan, caller)
    }

    #[test]
    fn the_text_comes_apart_again() {
        let id = RecordId::parse("a:b~c").unwrap();
        let made = key("demo", Sub::Record(id), &[b"q"], &CallerClass::everyone());
        let parts = KeyParts::parse(&made.to_string()).unwrap();
        assert_eq!((parts.tenant.as_str(), parts.category, parts.sub.as_str()), ("demo", Category::List, "a:b~c"));
        assert_eq!(parts.digest.as_ref(), Some(made.digest()));
        assert_eq!(KeyParts::parse(&parts.visible()).unwrap().digest, None);
        for bad in ["", "demo", "demo:list:x", "demo:nothing:x:y", "demo:list:x:y#zz", "Demo:list:x:y"] {
            assert!(KeyParts::parse(bad).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn different_questions_never_share_a_key(
            a in (0_u8..3, prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 0..4), any::<bool>()),
            b in (0_u8..3, prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 0..4), any::<bool>()),
        ) {
            let build = |(tenant, plan, identity): &(u8, Vec<Vec<u8>>, bool)| {
                let plan: Vec<&[u8]> = plan.iter().map(Vec::as_slice).collect();
                let class = if *identity { CallerClass::somebody() } else { CallerClass::everyone() };
                key(&format!("t{tenant}"), Sub::Word("page"), &plan, &class)
            };
            prop_assert_eq!(a == b, build(&a).digest() == build(&b).digest());
        }
    }
}
