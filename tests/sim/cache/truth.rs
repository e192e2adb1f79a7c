//! The tenant's file as the simulation keeps it: every state that was ever committed, and what a reader of it must see.

use std::collections::BTreeMap;
use std::sync::Arc;
use tenantry::cache::stamp::{Generation, Mark, Seed, Touched, value_hash};
use tenantry::kernel::ident::{CollectionId, RecordId};
use tenantry::kernel::value::Stored;
use tenantry::schema::cache_policy::Policy;

pub(super) const RECORDS: usize = 4;
pub(super) const PARTITIONS: usize = 2;
pub(super) const USERS: usize = 2;

pub(super) fn posts() -> CollectionId {
    CollectionId::parse("posts").unwrap()
}

pub(super) fn members() -> CollectionId {
    CollectionId::parse("members").unwrap()
}

pub(super) fn record_id(n: usize) -> RecordId {
    RecordId::parse(&format!("r{n}")).unwrap()
}

pub(super) fn partition(n: usize) -> Stored {
    Stored::text(format!("p{n}"))
}

/// Which access rule the posts have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Everyone sees everything.
    Public,
    /// A row is seen by its owner: the rule reads the caller's id.
    Owner,
    /// Admins see everything: the rule reads the caller's role, taken when the request begins.
    Role,
    /// Admins see everything: the rule looks the caller up among the members.
    Lookup,
}

pub(super) const RULES: [Rule; 4] = [Rule::Public, Rule::Owner, Rule::Role, Rule::Lookup];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) value: u64,
    pub(super) partition: usize,
    pub(super) owner: usize,
}

/// One committed state.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) lsn: i64,
    pub(super) schema_lsn: i64,
    pub(super) lineage: [u8; 16],
    pub(super) rule: Rule,
    pub(super) rows: [Option<Row>; RECORDS],
    pub(super) admins: [bool; USERS],
    /// Something outside the log that answers show; only a purge can tell the cache about it.
    pub(super) external: u64,
    /// Which build of the program answers: each answers the same question in words of its own.
    pub(super) build: u64,
    pub(super) generations: BTreeMap<(CollectionId, Option<u64>), i64>,
    pub(super) log: Vec<Touched>,
    /// The stamp of every transaction; no two transactions that were ever run have the same.
    pub(super) marks: Vec<Mark>,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Query {
    Record(usize),
    Everything,
    Partition(usize),
    /// Everything and the external value; tagged, as single records are, which show it too.
    External,
}

impl Query {
    /// Whether the answer shows what is outside the log.
    pub(super) fn shows_external(self) -> bool {
        matches!(self, Self::External | Self::Record(_))
    }

    /// How the answer is kept: what shows the external value can be purged by a tag and by an event.
    pub(super) fn policy(self) -> Policy {
        let mut policy = Policy::default();
        if self.shows_external() {
            policy.tags.push(Arc::from("external"));
            policy.events.push(Arc::from("external.changed"));
        }
        policy
    }
}

/// Who asks, with the role as it was when the request began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    pub(super) user: Option<usize>,
    pub(super) admin: bool,
}

impl State {
    pub(super) fn new(lineage: [u8; 16]) -> Self {
        Self {
            lsn: 0,
            schema_lsn: 0,
            lineage,
            rule: Rule::Public,
            rows: [None; RECORDS],
            admins: [false; USERS],
            external: 0,
            build: 0,
            generations: BTreeMap::new(),
            log: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// The answer that a reader of exactly this state gives.
    pub(super) fn answer(&self, tenant: usize, caller: Caller, query: Query) -> String {
        let mut text = format!("t{tenant} b{} {query:?}", self.build);
        for (n, row) in self.rows.iter().enumerate() {
            let Some(row) = row else { continue };
            let asked = match query {
                Query::Record(wanted) => wanted == n,
                Query::Partition(wanted) => wanted == row.partition,
                Query::Everything | Query::External => true,
            };
            if asked && self.admits(caller, row) {
                text.push_str(&format!(" r{n}={}", row.value));
            }
        }
        if query.shows_external() {
            text.push_str(&format!(" external={}", self.external));
        }
        text
    }

    fn admits(&self, caller: Caller, row: &Row) -> bool {
        match self.rule {
            Rule::Public => true,
            Rule::Owner => caller.user == Some(row.owner),
            Rule::Role => caller.admin,
            Rule::Lookup => caller.user.is_some_and(|user| self.admins[user]),
        }
    }

    /// This state where it is put in place of `present`: what is not in the file does not go back with it.
    pub(super) fn beside(self, present: &Self) -> Self {
        Self { external: present.external, build: present.build, ..self }
    }

    /// Begins a transaction; `stamp` is like no other.
    pub(super) fn begin(&mut self, stamp: u64) {
        self.lsn += 1;
        self.marks.push(Mark { lsn: self.lsn, stamp: i64::try_from(stamp).unwrap() });
    }

    /// The stamp of the last transaction.
    pub(super) fn stamp(&self) -> i64 {
        self.marks.last().map_or(0, |mark| mark.stamp)
    }

    /// Writes a row in the transaction that was begun; returns what it touched, `partly` without the partition it left.
    pub(super) fn write(&mut self, n: usize, row: Option<Row>, partly: bool) -> Touched {
        let before = self.rows[n].filter(|_| !partly);
        let mut partitions: Vec<Stored> = [before, row].iter().flatten().map(|row| partition(row.partition)).collect();
        partitions.dedup();
        self.rows[n] = row;
        self.touched(posts(), record_id(n), partitions)
    }

    /// Changes a member in the transaction that was begun; returns what it touched.
    pub(super) fn set_admin(&mut self, user: usize, admin: bool) -> Touched {
        self.admins[user] = admin;
        self.touched(members(), record_id(user), Vec::new())
    }

    pub(super) fn set_rule(&mut self, rule: Rule) {
        self.schema_lsn = self.lsn;
        self.rule = rule;
    }

    fn touched(&mut self, collection: CollectionId, record: RecordId, partitions: Vec<Stored>) -> Touched {
        self.generations.insert((collection.clone(), None), self.lsn);
        for value in &partitions {
            self.generations.insert((collection.clone(), Some(value_hash(value))), self.lsn);
        }
        let touched = Touched { collection, record, partitions, lsn: self.lsn };
        self.log.push(touched.clone());
        touched
    }

    /// What this file tells the cache at opening, with the log's tail after `tail_after`.
    pub(super) fn seed(&self, tail_after: i64) -> Seed {
        Seed {
            lineage: self.lineage,
            lsn: self.lsn,
            marks: self.marks.clone(),
            schema_lsn: self.schema_lsn,
            generations: self
                .generations
                .iter()
                .map(|((collection, partition), lsn)| Generation {
                    collection: collection.clone(),
                    partition: *partition,
                    lsn: *lsn,
                })
                .collect(),
            unlisted_lsn: 0,
            tail: self.log.iter().filter(|touched| touched.lsn > tail_after).cloned().collect(),
            tail_after,
        }
    }
}
