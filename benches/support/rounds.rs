//! Interleaved rounds: every contestant is measured once per round, in alternating order, so that a machine that slows
//! down or speeds up during the run does so for all of them.
//!
//! Keeps true: a ratio is the median of the ratios of single rounds. Does not do: choosing targets.

use super::load::{self, Fill, Outcome, Plan};
use super::process::Server;

/// One server with the requests of one work.
pub(crate) struct Contestant<'run> {
    /// The process under load.
    pub(crate) server: &'run Server,
    /// Its requests.
    pub(crate) fill: Fill,
}

/// What a contestant reached over all rounds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rounds {
    /// One outcome per round.
    pub(crate) rounds: Vec<Outcome>,
    /// Server processor time per request and round, microseconds.
    pub(crate) cpu_us: Vec<f64>,
}

impl Rounds {
    /// Median of one figure over the rounds.
    pub(crate) fn median(&self, figure: impl Fn(&Outcome) -> f64) -> f64 {
        median(self.rounds.iter().map(figure).collect())
    }

    /// Median processor time per request, microseconds.
    pub(crate) fn cpu_median_us(&self) -> f64 {
        median(self.cpu_us.clone())
    }

    /// Median over the rounds of this result's answers per second divided by those of `other`.
    pub(crate) fn ratio_to(&self, other: &Self) -> f64 {
        median(self.rounds.iter().zip(&other.rounds).map(|(a, b)| a.per_second / b.per_second.max(1e-9)).collect())
    }
}

/// Runs `count` rounds of all contestants.
pub(crate) fn run(contestants: &[Contestant<'_>], count: usize, plan: Plan) -> anyhow::Result<Vec<Rounds>> {
    let mut results = vec![Rounds::default(); contestants.len()];
    for round in 0..count {
        let mut order: Vec<usize> = (0..contestants.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let (contestant, result) = (&contestants[at], &mut results[at]);
            let before = contestant.server.cpu_us();
            let plan = Plan { seed: plan.seed + round as u64, ..plan };
            let outcome = load::drive(contestant.server.addr, &contestant.fill, plan)?;
            let used = contestant.server.cpu_us().saturating_sub(before);
            result.cpu_us.push(used as f64 / outcome.sent.max(1) as f64);
            result.rounds.push(outcome);
        }
    }
    Ok(results)
}

/// The middle value, or the mean of the two middle ones; 0 of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        len if len % 2 == 1 => values[len / 2],
        len => (values[len / 2 - 1] + values[len / 2]) / 2.0,
    }
}
