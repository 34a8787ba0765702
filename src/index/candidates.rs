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

/// The candidates of one anchor, and the score that an entry must be able to reach.
///
/// Of all entries that may be served, the `depth`-th best lower bound is such a bar. While only a part of them was seen, a higher one can be
/// foreseen: what more of that part would reach than can be expected of the `depth` best. It is a guess, and it was right if in the end
/// `depth` entries reach it.
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
    /// True if the bar was ever foreseen.
    foreseen: bool,
    /// Lower bounds that reach the bar, the best of them, of entries that are in range whatever their score turns out to be.
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
            foreseen: false,
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
        if lower >= self.bar && (self.unruled || (self.range.keeps(lower) && self.range.keeps(upper))) {
            self.lowers.push(lower);
            if self.lowers.len() >= 2 * self.depth {
                self.raise(self.depth);
            }
        }
    }

    /// Brings the bar up to date, if much has come since, where `seen` of `rows` have, in an order that is as good as random; `None`: in
    /// any order. True if the cuts are others than at the last time.
    pub(super) fn refresh(&mut self, seen: Option<(usize, usize)>) -> bool {
        let (rank, more) = match seen {
            Some((seen, rows)) => {
                let rank = foreseen_rank(self.depth, seen as f64 / rows.max(1) as f64);
                // The rank rises too: to wait for half as many again would be to wait for ever.
                (rank, rank / 8)
            }
            None => (self.depth, self.depth / 2),
        };
        let few = self.bar > f32::NEG_INFINITY && self.lowers.len() < rank + more + 1;
        if !few {
            self.raise(rank);
        }
        std::mem::take(&mut self.raised)
    }

    /// Raises the bar to the best lower bound but `rank - 1`.
    fn raise(&mut self, rank: usize) {
        if self.lowers.len() < rank {
            return;
        }
        let (_, worst, _) = self.lowers.select_nth_unstable_by(rank - 1, |a, b| b.total_cmp(a));
        let bar = *worst;
        self.raised |= bar > self.bar;
        self.bar = bar;
        self.low = self.low.max(f64::from(bar));
        if rank < self.depth {
            self.foreseen = true;
            self.lowers.retain(|&lower| lower >= bar);
        } else {
            self.lowers.truncate(rank);
        }
        if self.kept.len() > 2 * self.sifted + 2 * self.depth {
            self.sift();
        }
    }

    /// True unless the bar was foreseen and fewer than `depth` reach it: then some of the best may have been missed.
    pub(super) fn is_sure(&self) -> bool {
        !self.foreseen || self.lowers.len() >= self.depth
    }

    /// Candidates held.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// The candidates whose score may reach the bar, those that must first; and the bar, if there is one.
    pub(super) fn finish(mut self) -> (Vec<Candidate>, Option<f32>) {
        self.raise(self.depth);
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

/// How far above what is expected a number of entries lies that a part of them all is not thought to have, in standard deviations.
const DEVIATIONS: f64 = 4.0;

/// Of the `depth` best of all, a share of `part` is expected in that part, give or take a binomial deviation, and rarely so many.
fn foreseen_rank(depth: usize, part: f64) -> usize {
    let expected = depth as f64 * part.min(1.0);
    let deviation = (expected * (1.0 - part).max(0.0)).sqrt();
    ((expected + DEVIATIONS * deviation + 1.0).ceil() as usize).clamp(1, depth)
}
