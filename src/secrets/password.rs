//! Password hashing: argon2id with a bound on how many run and how many wait.
//!
//! Keeps true: at most `concurrency_max` hashes hold memory at a time, even when callers give up (the permit travels with
//! the work) and callers take turns by lane; checking a password costs the same whether or not there is a user; a stored hash cannot make the node do
//! more work than [`CEILING`] allows.
//! Does not do: judging password strength beyond length, throttling by caller, storing anything.

use super::Secret;
use super::turns::{TurnLimits, Turns};
use crate::kernel::error::{Code, Detail, Fault};
use crate::kernel::limits::{HASH_CONCURRENCY_MAX, HASH_LANE_LEN_MAX, HASH_QUEUE_LEN_MAX, PASSWORD_BYTES_MAX};
use crate::kernel::random::Random;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{CustomizedPasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// What one hash costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordCost {
    /// Memory, KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl PasswordCost {
    /// OWASP Password Storage Cheat Sheet: argon2id, m=19456 (19 MiB), t=2, p=1.
    pub const OWASP: Self = Self { memory_kib: 19_456, passes: 2, lanes: 1 };
}

/// The most that a stored hash may ask for; above it the hash is refused, not computed.
pub const CEILING: PasswordCost = PasswordCost { memory_kib: 65_536, passes: 8, lanes: 4 };

const SALT_LEN: usize = 16;
const OUTPUT_LEN: usize = 32;

/// How the hasher is set up.
#[derive(Debug, Clone, Copy)]
pub struct PasswordOptions {
    /// Cost of new hashes.
    pub cost: PasswordCost,
    /// Hashes computed at the same time.
    pub concurrency_max: usize,
    /// Callers that may wait for their turn.
    pub queue_len_max: usize,
    /// Callers of one lane that may wait.
    pub lane_len_max: usize,
}

impl Default for PasswordOptions {
    fn default() -> Self {
        Self {
            cost: PasswordCost::OWASP,
            concurrency_max: HASH_CONCURRENCY_MAX,
            queue_len_max: HASH_QUEUE_LEN_MAX,
            lane_len_max: HASH_LANE_LEN_MAX,
        }
    }
}

/// Why a password could not be hashed or checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// More bytes than argon2 is given.
    #[error("the password is longer than {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
    /// Too many callers wait already.
    #[error("the password queue is full")]
    Busy,
    /// The hash could not be computed.
    #[error("the password could not be hashed: {0}")]
    Failed(String),
}

impl Fault for PasswordError {
    fn code(&self) -> Code {
        match self {
            Self::TooLong => Code::ValidationFailed,
            Self::Busy => Code::Busy,
            Self::Failed(_) => Code::Internal,
        }
    }

    fn public(&self) -> Cow<'_, str> {
        match self {
            Self::TooLong => Cow::Owned(format!("The password may have at most {PASSWORD_BYTES_MAX} bytes.")),
            Self::Busy => Cow::Borrowed("Too many logins are under way; try again shortly."),
            Self::Failed(_) => Cow::Borrowed(Code::Internal.explanation()),
        }
    }

    fn details(&self) -> Vec<Detail> {
        match self {
            Self::TooLong => {
                vec![Detail::new("password", "validation_length_out_of_range", self.public().into_owned())]
            }
            _ => Vec::new(),
        }
    }

    fn retry_after_s(&self) -> Option<u32> {
        matches!(self, Self::Busy).then_some(1)
    }
}

/// The outcome of checking a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the one.
    Match {
        /// The stored hash was made at another cost; hash again and store the result.
        needs_rehash: bool,
    },
    /// It is not, or there was nothing to compare with.
    Mismatch,
}

/// Hashes and checks passwords; cheap to clone, one per node.
#[derive(Debug, Clone)]
pub struct PasswordHasher(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: PasswordOptions,
    params: Params,
    random: Arc<dyn Random>,
    /// Bound: `concurrency_max` turns, each moved into the closure that computes; `queue_len_max` callers wait.
    turns: Arc<Turns>,
    /// What an unknown user's password is compared with.
    dummy: String,
}

impl PasswordHasher {
    /// Prepares a hasher.
    pub fn new(options: PasswordOptions, random: Arc<dyn Random>) -> Result<Self, PasswordError> {
        let PasswordCost { memory_kib, passes, lanes } = options.cost;
        let params = Params::new(memory_kib, passes, lanes, Some(OUTPUT_LEN)).map_err(failed)?;
        let dummy = nobody(&options.cost, random.as_ref());
        Ok(Self(Arc::new(Shared {
            options,
            params,
            random,
            turns: Turns::new(TurnLimits {
                running_max: options.concurrency_max,
                waiting_max: options.queue_len_max,
                lane_waiting_max: options.lane_len_max,
            }),
            dummy,
        })))
    }

    /// Hashes `password` into a PHC string with a fresh salt.
    pub async fn hash(&self, password: Secret) -> Result<String, PasswordError> {
        self.hash_in(Lane::default(), password).await
    }

    /// [`Self::hash`], waiting in `lane`.
    pub async fn hash_in(&self, lane: Lane, password: Secret) -> Result<String, PasswordError> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(PasswordError::TooLong);
        }
        let params = self.0.params.clone();
        let salt = salt(self.0.random.as_ref());
        self.run(lane, move || hash_with(&params, password.expose().as_bytes(), &salt)).await?
    }

    /// Hashes on the calling thread, outside the queue. For command-line use and bulk sample data only.
    pub fn hash_blocking(&self, password: &Secret) -> Result<String, PasswordError> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(PasswordError::TooLong);
        }
        hash_with(&self.0.params, password.expose().as_bytes(), &salt(self.0.random.as_ref()))
    }

    /// Compares `password` with `stored`; with no stored hash, or one that is unusable, the same work ends in
    /// [`Verdict::Mismatch`].
    pub async fn verify(&self, password: Secret, stored: Option<&str>) -> Result<Verdict, PasswordError> {
        self.verify_in(Lane::default(), password, stored).await
    }

    /// [`Self::verify`], waiting in `lane`.
    pub async fn verify_in(
        &self,
        lane: Lane,
        password: Secret,
        stored: Option<&str>,
    ) -> Result<Verdict, PasswordError> {
        if password.len() > PASSWORD_BYTES_MAX {
            // A hash of such a password cannot exist; refusing before the work tells nothing about any user.
            return Ok(Verdict::Mismatch);
        }
        let usable = stored.filter(|text| is_usable(text));
        let compared = usable.unwrap_or(&self.0.dummy).to_owned();
        let known = usable.is_some();
        let current = self.0.options.cost;
        self.run(lane, move || {
            let matched = matches(password.expose().as_bytes(), &compared);
            match (matched, known) {
                (true, true) => Verdict::Match { needs_rehash: cost_of(&compared) != Some(current) },
                _ => Verdict::Mismatch,
            }
        })
        .await
    }

    /// Whether `stored` was made at another cost than new hashes are.
    pub fn needs_rehash(&self, stored: &str) -> bool {
        cost_of(stored) != Some(self.0.options.cost)
    }

    async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let turn = self.0.turns.take(lane.0).await.map_err(|_| PasswordError::Busy)?;
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        })
        .await
        .map_err(failed)
    }
}

/// Whose work waits behind whose: callers of one lane queue among themselves, lanes take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lane(u64);

impl Lane {
    /// The lane of an address; all callers without one share a lane.
    pub fn of(address: Option<&str>) -> Self {
        let mut hasher = std::hash::DefaultHasher::new();
        address.unwrap_or_default().hash(&mut hasher);
        Self(hasher.finish())
    }
}

fn failed(error: impl std::fmt::Display) -> PasswordError {
    PasswordError::Failed(error.to_string())
}

fn salt(random: &dyn Random) -> [u8; SALT_LEN] {
    let mut salt = [0_u8; SALT_LEN];
    random.fill(&mut salt);
    salt
}

/// The hash of no password, at this cost. Drawn instead of computed: comparing with it costs the same, and a start does
/// not have to take, and keep, the memory of a hash.
fn nobody(cost: &PasswordCost, random: &dyn Random) -> String {
    let PasswordCost { memory_kib, passes, lanes } = cost;
    let mut output = [0_u8; OUTPUT_LEN];
    random.fill(&mut output);
    let (salt, output) = (STANDARD_NO_PAD.encode(salt(random)), STANDARD_NO_PAD.encode(output));
    format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${output}")
}

fn hash_with(params: &Params, password: &[u8], salt: &[u8]) -> Result<String, PasswordError> {
    let hash: PasswordHash = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
        .hash_password_customized(password, salt, None, None, params.clone())
        .map_err(failed)?;
    Ok(hash.to_string())
}

fn matches(password: &[u8], stored: &str) -> bool {
    PasswordHash::new(stored).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

fn is_usable(stored: &str) -> bool {
    cost_of(stored).is_some_and(|cost| {
        cost.memory_kib <= CEILING.memory_kib && cost.passes <= CEILING.passes && cost.lanes <= CEILING.lanes
    })
}

/// The cost a stored argon2id hash names; `None` for anything else.
fn cost_of(stored: &str) -> Option<PasswordCost> {
    let hash = PasswordHash::new(stored).ok()?;
    if hash.algorithm.as_str() != "argon2id" || hash.hash.is_none() || hash.salt.is_none() {
        return None;
    }
    let params = Params::try_from(&hash).ok()?;
    Some(PasswordCost { memory_kib: params.m_cost(), passes: params.t_cost(), lanes: params.p_cost() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::random::SeededRandom;

    const CHEAP: PasswordCost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };

    fn hasher(options: PasswordOptions) -> PasswordHasher {
        PasswordHasher::new(options, Arc::new(SeededRandom::new(7))).unwrap()
    }

    fn cheap() -> PasswordHasher {
        hasher(PasswordOptions { cost: CHEAP, ..PasswordOptions::default() })
    }

    #[tokio::test]
    async fn the_default_cost_is_owasps_and_in_the_stored_text() {
        let stored = hasher(PasswordOptions::default()).hash("hunter2hunter2".into()).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
    }

    /// A comparison with it must do the whole work: a text that cannot be read would be refused at once, and so tell who
    /// has an account.
    #[test]
    fn nobodys_hash_is_a_hash_of_the_same_cost() {
        let random = SeededRandom::new(3);
        for cost in [CHEAP, PasswordCost::OWASP] {
            let (one, two) = (nobody(&cost, &random), nobody(&cost, &random));
            assert_ne!(one, two);
            assert_eq!(cost_of(&one), Some(cost));
            let hash = PasswordHash::new(&one).unwrap();
            assert_eq!(hash.hash.unwrap().as_bytes().len(), OUTPUT_LEN);
            let checked = Argon2::default().verify_password(b"anything", &hash);
            assert!(matches!(checked, Err(argon2::password_hash::Error::PasswordInvalid)), "{checked:?}");
        }
    }

    #[tokio::test]
    async fn only_the_right_password_matches() {
        let hasher = cheap();
        let stored = hasher.hash("hunter2hunter2".into()).await.unwrap();
        assert_ne!(stored, hasher.hash("hunter2hunter2".into()).await.unwrap(), "salts differ");
        for (password, against, expected) in [
            ("hunter2hunter2", Some(stored.as_str()), Verdict::Match { needs_rehash: false }),
            ("hunter2hunter3", Some(stored.as_str()), Verdict::Mismatch),
            ("", Some(stored.as_str()), Verdict::Mismatch),
            ("hunter2hunter2", None, Verdict::Mismatch),
            ("hunter2hunter2", Some(""), Verdict::Mismatch),
            ("hunter2hunter2", Some("$2a$10$notargon"), Verdict::Mismatch),
        ] {
            assert_eq!(hasher.verify(password.into(), against).await.unwrap(), expected, "{password:?} {against:?}");
        }
    }

    #[tokio::test]
    async fn a_hash_of_another_cost_matches_and_asks_to_be_made_again() {
        let stored = cheap().hash("hunter2hunter2".into()).await.unwrap();
        let dearer = hasher(PasswordOptions {
            cost: PasswordCost { memory_kib: 128, passes: 1, lanes: 1 },
            ..PasswordOptions::default()
        });
        assert_eq!(
            dearer.verify("hunter2hunter2".into(), Some(&stored)).await.unwrap(),
            Verdict::Match { needs_rehash: true }
        );
    }

    #[tokio::test]
    async fn a_planted_hash_cannot_ask_for_more_than_the_ceiling() {
        let stored = cheap().hash("hunter2hunter2".into()).await.unwrap();
        for planted in ["m=4194304,t=1,p=1", "m=64,t=1000000,p=1"] {
            let planted = stored.replace("m=64,t=1,p=1", planted);
            assert!(!is_usable(&planted));
            assert_eq!(cheap().verify("hunter2hunter2".into(), Some(&planted)).await.unwrap(), Verdict::Mismatch);
        }
    }

    #[tokio::test]
    async fn a_password_above_the_bound_is_refused() {
        let long = "x".repeat(PASSWORD_BYTES_MAX + 1);
        assert!(matches!(cheap().hash(long.as_str().into()).await, Err(PasswordError::TooLong)));
        let stored = cheap().hash("x".repeat(PASSWORD_BYTES_MAX).into()).await.unwrap();
        assert_eq!(cheap().verify(long.into(), Some(&stored)).await.unwrap(), Verdict::Mismatch);
    }

    #[tokio::test]
    async fn past_the_queue_bound_callers_are_refused_at_once() {
        let hasher = hasher(PasswordOptions { cost: CHEAP, concurrency_max: 1, queue_len_max: 2, lane_len_max: 2 });
        let held = hasher.0.turns.take(0).await.unwrap();
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let hasher = hasher.clone();
                tokio::spawn(async move { hasher.hash("hunter2hunter2".into()).await })
            })
            .collect();
        while hasher.0.turns.waiting() < 2 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(hasher.hash("hunter2hunter2".into()).await, Err(PasswordError::Busy)));
        drop(held);
        for waiter in waiters {
            assert!(waiter.await.unwrap().is_ok());
        }
        assert_eq!(hasher.0.turns.waiting(), 0);
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_while_waiting_frees_its_place() {
        let hasher = hasher(PasswordOptions { cost: CHEAP, concurrency_max: 1, queue_len_max: 1, lane_len_max: 1 });
        let held = hasher.0.turns.take(0).await.unwrap();
        let waiter = {
            let hasher = hasher.clone();
            tokio::spawn(async move { hasher.hash("hunter2hunter2".into()).await })
        };
        while hasher.0.turns.waiting() < 1 {
            tokio::task::yield_now().await;
        }
        waiter.abort();
        assert!(waiter.await.unwrap_err().is_cancelled());
        drop(held);
        assert!(hasher.hash("hunter2hunter2".into()).await.is_ok());
    }
}
