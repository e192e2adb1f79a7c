//! Looking through a store for values of which nobody will be given any more, a little at a time.
//!
//! Keeps true: one step touches a bounded number of rows; passes asked for while one is under way become one more pass, so
//! whatever died before the last asking is met. Owned by the disk thread alone.
//! Does not do: knowing what is dead; whoever asks for a pass says so.

use super::IsDead;
use super::engine::{Change, Engine, EngineError};

/// The pass under way, and the one after it.
#[derive(Default)]
pub(super) struct Sweep {
    dead: Option<IsDead>,
    /// Where the pass goes on.
    from: Vec<u8>,
    next: Option<IsDead>,
}

impl Sweep {
    /// Asks for a pass over everything.
    pub(super) fn ask(&mut self, dead: IsDead) {
        match &self.dead {
            Some(_) => self.next = Some(dead),
            None => (self.dead, self.from) = (Some(dead), Vec::new()),
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.dead.is_some()
    }

    /// Goes on over `rows_max` rows, telling `gone` of each removal; how many there were.
    pub(super) fn step(
        &mut self,
        engine: &Engine,
        rows_max: usize,
        mut gone: impl FnMut(&[u8], Change),
    ) -> Result<usize, EngineError> {
        let Some(dead) = &self.dead else { return Ok(0) };
        let mut found = Vec::new();
        let next = engine.scan(&self.from, rows_max, |key, _, beginning| {
            if dead(key, beginning) {
                found.push(key.to_vec());
            }
        })?;
        for key in &found {
            gone(key, engine.remove(key)?);
        }
        match next {
            Some(key) => self.from = key,
            None => (self.dead, self.from) = (self.next.take(), Vec::new()),
        }
        Ok(found.len())
    }
}
