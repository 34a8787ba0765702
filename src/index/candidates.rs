//! Entries of which only bounds of their scores are known so far.

use crate::model::ScoreRange;

/// An entry that may be among the best.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) shard: u32,
    pub(super) slot: u32,
    /// At most its score.
    pub(super) lower: f32,
    /// At least its score.
    pub(super) upper: f32,
}

/// The candidates of one anchor, and the score that an entry must be able to reach: the `depth`-th best of their lower bounds.
#[derive(Debug, Clone)]
pub(super) struct Candidates {
    depth: usize,
    range: ScoreRange,
    /// True if every score is in range.
    unruled: bool,
    bar: f32,
    /// True if the bar has risen since [`Self::refresh`].
    raised: bool,
    /// The bar, or the smallest score that the rules keep.
    low: f64,
    /// The `depth` best lower bounds and more, of entries that are in range whatever their score turns out to be.
    lowers: Vec<f32>,
    kept: Vec<Candidate>,
    /// Candidates kept after the last sifting.
    sifted: usize,
}

impl Candidates {
    pub(super) fn new(depth: usize, range: ScoreRange) -> Self {
        let low = range.floor.max(range.above);
        Self {
            depth,
            range,
            unruled: range == ScoreRange::ALL,
            bar: f32::NEG_INFINITY,
            raised: false,
            low,
            lowers: Vec::new(),
            kept: Vec::new(),
            sifted: 0,
        }
    }

    /// Scores that an entry must be able to have, smallest and largest.
    pub(super) fn cuts(&self) -> (f64, f64) {
        (self.low, self.range.ceiling)
    }

    /// Keeps an entry that may be served, if it may be among the best.
    pub(super) fn offer(&mut self, candidate: Candidate) {
        let Candidate { lower, upper, .. } = candidate;
        if f64::from(upper) < self.low || f64::from(lower) > self.range.ceiling {
            return;
        }
        self.kept.push(candidate);
        if lower > self.bar && (self.unruled || (self.range.keeps(lower) && self.range.keeps(upper))) {
            self.lowers.push(lower);
            if self.lowers.len() >= 2 * self.depth {
                self.raise();
            }
        }
    }

    /// Brings the bar up to date, if much has come since. True if the cuts are others than at the last time.
    pub(super) fn refresh(&mut self) -> bool {
        let few = self.bar > f32::NEG_INFINITY && self.lowers.len() < self.depth + self.depth / 2 + 1;
        if !few {
            self.raise();
        }
        std::mem::take(&mut self.raised)
    }

    fn raise(&mut self) {
        if self.lowers.len() < self.depth {
            return;
        }
        let (_, worst, _) = self.lowers.select_nth_unstable_by(self.depth - 1, |a, b| b.total_cmp(a));
        self.raised |= *worst > self.bar;
        self.bar = *worst;
        self.low = self.low.max(f64::from(self.bar));
        self.lowers.truncate(self.depth);
        if self.kept.len() > 2 * self.sifted + 2 * self.depth {
            self.sift();
        }
    }

    /// Candidates held.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// The candidates whose score may reach the bar, those that must first; and the bar, if there is one.
    pub(super) fn finish(mut self) -> (Vec<Candidate>, Option<f32>) {
        self.raise();
        self.sift();
        let mut kept = self.kept;
        if kept.len() > self.depth {
            kept.select_nth_unstable_by(self.depth - 1, |a, b| b.lower.total_cmp(&a.lower));
        }
        (kept, (self.bar > f32::NEG_INFINITY).then_some(self.bar))
    }

    fn sift(&mut self) {
        let bar = self.bar;
        self.kept.retain(|candidate| candidate.upper >= bar);
        self.sifted = self.kept.len();
    }
}
