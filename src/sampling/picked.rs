//! What one draw picked for one anchor.

use super::odds::Odds;
use crate::bank::Place;
use crate::model::{DrawAnswer, Hardness, ReasonCounts};

/// The picks of one anchor, with all that is told of them.
#[derive(Debug, Default)]
pub(super) struct Picked {
    pub(super) places: Vec<Place>,
    /// Score of each pick; empty where not asked for.
    pub(super) scores: Vec<f32>,
    /// Where scores are known, and it is counted.
    pub(super) hardness: Hardness,
    /// log_q of each pick; empty where the draw is deterministic.
    pub(super) log_q: Vec<f32>,
    /// Size of the eligible set; `None` where it is not told.
    pub(super) n: Option<usize>,
    /// Entries that pass filters and score rules, where counted.
    pub(super) n_scored: Option<usize>,
    /// Entries in the band, where there is one.
    pub(super) n_band: Option<usize>,
    /// Softmax: ln sum exp(beta * s) over what is drawn from.
    pub(super) log_partition: Option<f32>,
    /// Without replacement by unequal probabilities: (k+1)th perturbed log-probability.
    pub(super) kappa: Option<f32>,
    /// log_q of each of the anchor's positives, where asked for.
    pub(super) positive_log_q: Vec<f32>,
    /// Missing picks.
    pub(super) shortfalls: ReasonCounts,
    /// With which probability one draw picks what.
    pub(super) odds: Odds,
}

impl Picked {
    /// Appends all but the rows to the draw's answer.
    pub(super) fn tell(&self, answer: &mut DrawAnswer, with_log_q: bool) {
        answer.counts.push(self.places.len() as u32);
        answer.scores.extend(&self.scores);
        answer.hardness.merge(&self.hardness);
        if with_log_q {
            answer.log_q.extend(&self.log_q);
        }
        answer.n.extend(self.n.map(|n| n as u32));
        answer.n_scored.extend(self.n_scored.map(|n| n as u32));
        answer.n_band.extend(self.n_band.map(|n| n as u32));
        answer.log_partition.extend(self.log_partition);
        answer.kappa.extend(self.kappa);
        answer.positive_log_q.extend(&self.positive_log_q);
        answer.shortfalls.merge(&self.shortfalls);
    }
}
