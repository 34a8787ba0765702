//! What work takes, learnt from what it took.

use std::time::Duration;

use crate::model::{BankSpec, Draw, SampleQuery, Scope, Strategy};
use crate::sampling::Learnt;

/// Kinds of work whose costs are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ranking the nearest by a scan; units: floats compared.
    Nearest,
    /// The same where the graph may answer; units: floats of the entries that walks keep.
    Walk,
    /// The same among entries of some labels or of one group; units: as of a scan.
    Listed,
    /// Weighing every entry; units: floats compared.
    Whole,
    /// Draws that score nothing; units: floats copied.
    Unscored,
    /// Reading entries; units: floats copied.
    Read,
    /// Describing a bank; units: entries.
    Describe,
    /// Listing the stalest; units: entries listed.
    Stalest,
}

const KINDS: usize = 8;

/// Nanoseconds a unit before anything was measured: rows of 128 floats on one core of a server of 2023.
const FIRST: [f32; KINDS] = [0.03, 3.0, 0.005, 0.1, 0.5, 0.5, 2.0, 100.0];

/// What the least work takes.
const FLOOR: Duration = Duration::from_micros(20);

/// What a bank's work takes on this machine.
#[derive(Debug)]
pub(super) struct Costs([Learnt; KINDS]);

impl Default for Costs {
    fn default() -> Self {
        Self(FIRST.map(Learnt::new))
    }
}

/// Units of each kind in one piece of work.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Effort([f64; KINDS]);

impl Effort {
    pub(super) fn of(kind: Kind, units: usize) -> Self {
        let mut effort = Self::default();
        effort.add(kind, units as f64);
        effort
    }

    /// Effort of a request's draws of one scope for `anchors` of its anchors; `walks`: the bank has a graph.
    pub(super) fn of_draws(query: &SampleQuery, scope: Scope, anchors: usize, spec: &BankSpec, bank: (usize, bool)) -> Self {
        let (entries, walks) = bank;
        let floats = spec.dim() as f64;
        let anchors = (anchors * query.anchors().views.each) as f64;
        let mut effort = Self::default();
        for draw in query.draws().iter().filter(|draw| draw.scope == scope) {
            let picks = draw.k as f64 * if scope == Scope::Shared { 1.0 } else { anchors };
            effort.add(Kind::Unscored, picks * (floats + 32.0));
            // Each row is read once for all anchors, which costs as much as comparing it with a few.
            let scan = (anchors + ROW_READ) * entries as f64 * floats;
            match &draw.strategy {
                _ if !draw.strategy.is_scored() => {}
                _ if is_listed(draw) => effort.add(Kind::Listed, scan),
                Strategy::Nearest(nearest) if walks && nearest.search.approximate => {
                    effort.add(Kind::Walk, anchors * nearest.depth().max(LEAST_KEPT) as f64 * floats);
                }
                Strategy::Nearest(_) => effort.add(Kind::Nearest, scan),
                _ => effort.add(Kind::Whole, scan),
            }
        }
        effort
    }

    /// Reading each row of a bank once, for a scan.
    pub(super) fn of_reading(entries: usize, dim: usize) -> Self {
        let mut effort = Self::default();
        effort.add(Kind::Nearest, ROW_READ * entries as f64 * dim as f64);
        effort
    }

    /// What is left of it if the rows are read by somebody else, for each of so many draws.
    pub(super) fn without(mut self, reading: &Self, draws: usize) -> Self {
        let less = |(units, read): (&mut f64, &f64)| *units = (*units - read * draws as f64).max(0.0);
        self.0.iter_mut().zip(&reading.0).for_each(less);
        self
    }

    /// Both.
    pub(super) fn and(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(&other.0).for_each(|(units, more)| *units += more);
        self
    }

    fn add(&mut self, kind: Kind, units: f64) {
        self.0[kind as usize] += units;
    }
}

/// Anchors with which a row is compared in the time that reading it takes.
const ROW_READ: f64 = 6.0;
/// Entries that a walk keeps at least, by halves.
const LEAST_KEPT: usize = 32;

fn is_listed(draw: &Draw) -> bool {
    !draw.filters.only_labels.is_empty() || draw.filters.only_same_label || draw.filters.only_same_group
}

impl Costs {
    /// What work will take.
    pub(super) fn estimate(&self, effort: &Effort) -> Duration {
        let nanos: f64 = self.parts(effort).iter().sum();
        FLOOR + Duration::from_secs_f64((nanos / 1e9).min(1e6))
    }

    /// Hears what work took, of which it teaches the kind that it was most of.
    pub(super) fn learn(&self, effort: &Effort, took: Duration) {
        let parts = self.parts(effort);
        let Some((most, part)) = parts.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)) else { return };
        let others: f64 = parts.iter().sum::<f64>() - part;
        let nanos = (took.saturating_sub(FLOOR).as_nanos() as f64 - others).max(1.0);
        if let (Some(learnt), Some(units)) = (self.0.get(most), effort.0.get(most).filter(|units| **units > 0.0)) {
            learnt.learn(nanos / units);
        }
    }

    fn parts(&self, effort: &Effort) -> [f64; KINDS] {
        std::array::from_fn(|kind| self.0[kind].get() * effort.0[kind])
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Costs, Effort, Kind};

    #[test]
    fn what_was_measured_is_expected_again() {
        let costs = Costs::default();
        let (half, whole) = (Effort::of(Kind::Nearest, 500_000), Effort::of(Kind::Nearest, 1_000_000));
        (0..50).for_each(|_| costs.learn(&half, Duration::from_millis(5)));
        let expected = costs.estimate(&whole).as_secs_f64();
        assert!((expected - 0.01).abs() < 0.000_5, "{expected}");
        let other = costs.estimate(&Effort::of(Kind::Read, 1_000));
        assert!(other < Duration::from_micros(30), "{other:?}");
    }

    #[test]
    fn a_mixture_teaches_what_it_is_most_of() {
        let costs = Costs::default();
        let mut mixed = Effort::of(Kind::Nearest, 1_000_000);
        mixed.add(Kind::Unscored, 100.0);
        let unscored = costs.estimate(&Effort::of(Kind::Unscored, 1_000_000));
        (0..50).for_each(|_| costs.learn(&mixed, Duration::from_millis(7)));
        assert_eq!(costs.estimate(&Effort::of(Kind::Unscored, 1_000_000)), unscored);
        assert!((costs.estimate(&mixed).as_secs_f64() - 0.007).abs() < 0.000_5);
    }
}
