//! How negatives are drawn.

use std::ops::Range;

use super::{Filters, Plan, ScoreRules};

/// How k of a window are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Choose {
    /// The first k; deterministic.
    Top,
    /// k at random, without replacement.
    Uniform,
    /// k at random, an entry of score s with probability proportional to exp(beta * s).
    Softmax {
        /// Inverse temperature.
        beta: f32,
        /// Whether an entry may be picked twice.
        replace: bool,
    },
}

/// Hard negatives: entries ranked by score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nearest {
    /// First ranks left out.
    pub skip: usize,
    /// Ranks considered after the skip; at least k.
    pub window: usize,
    /// How k of the window are chosen.
    pub choose: Choose,
    /// Raw top entries kept before the score rules; `None`: all.
    pub candidates: Option<usize>,
    /// Which scores are kept.
    pub rules: ScoreRules,
    /// Whether the entries that pass filters and rules are counted.
    pub count_exact: bool,
    /// How they may be searched for.
    pub search: Search,
    /// True if a softmax over everything was asked for, and this window of it is drawn from instead.
    pub of_all: bool,
}

/// How a ranking may be found. The default is exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Search {
    /// Whether the graph may answer, which can miss entries.
    pub approximate: bool,
    /// Entries that a walk through the graph keeps while it goes on (Malkov's ef); `None`: by the ranks wanted.
    pub ef: Option<usize>,
    /// The plan to use whatever it costs, where it can answer.
    pub plan: Option<Plan>,
}

impl Choose {
    /// True if an entry may be picked twice.
    pub fn replaces(self) -> bool {
        matches!(self, Self::Softmax { replace: true, .. })
    }
}

impl Nearest {
    /// The `window` best, whatever their scores, found exactly.
    pub fn top(window: usize) -> Self {
        Self {
            skip: 0,
            window,
            choose: Choose::Top,
            candidates: None,
            rules: ScoreRules::default(),
            count_exact: false,
            search: Search::default(),
            of_all: false,
        }
    }

    /// Ranks that the search must find.
    pub fn depth(&self) -> usize {
        self.candidates.unwrap_or_else(|| self.skip.saturating_add(self.window))
    }
}

/// How entries are picked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Strategy {
    /// Uniformly.
    Uniform {
        /// Whether an entry may be picked twice.
        replace: bool,
    },
    /// An entry of weight w with probability proportional to w^alpha.
    Weighted {
        /// The exponent.
        alpha: f32,
        /// Whether an entry may be picked twice.
        replace: bool,
    },
    /// A label uniformly, then one of its entries uniformly.
    Balanced {
        /// Whether an entry may be picked twice.
        replace: bool,
    },
    /// By score.
    Nearest(Nearest),
    /// An entry of score s with probability proportional to exp(beta * s).
    Softmax(Softmax),
    /// Uniformly within a band of the ranks.
    Band(Band),
}

/// Draws by score over everything that is eligible.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Softmax {
    /// Inverse temperature.
    pub beta: f32,
    /// Whether an entry may be picked twice.
    pub replace: bool,
    /// Which scores are kept.
    pub rules: ScoreRules,
}

/// Draws from the entries whose scores lie between two shares of the anchor's own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Band {
    /// Share of the entries that score too low, 0 to below 1.
    pub lo: f64,
    /// Share of the entries that don't score too high, `lo` to 1.
    pub hi: f64,
    /// Whether an entry may be picked twice.
    pub replace: bool,
    /// Which scores are kept before ranks are counted.
    pub rules: ScoreRules,
}

impl Band {
    /// The ranks of the band among n, ascending from 0, the farthest: floor(lo n) <= r < max(floor(lo n) + 1, ceil(hi n)). None of none.
    pub fn ranks(&self, n: usize) -> Range<usize> {
        // Rounding may carry a share just below 1 to n itself.
        let first = ((self.lo * n as f64).floor() as usize).min(n.saturating_sub(1));
        let end = ((self.hi * n as f64).ceil() as usize).max(first + 1);
        first..end.min(n)
    }
}

impl Strategy {
    /// Largest magnitude of a weight's exponent.
    pub const LARGEST_ALPHA: f32 = 4.0;

    /// True if an entry may be picked twice.
    pub fn replaces(&self) -> bool {
        match self {
            Self::Uniform { replace } | Self::Weighted { replace, .. } | Self::Balanced { replace } => *replace,
            Self::Nearest(nearest) => nearest.choose.replaces(),
            Self::Softmax(softmax) => softmax.replace,
            Self::Band(band) => band.replace,
        }
    }

    /// Which scores are kept; `None`: entries aren't scored to be drawn.
    pub fn rules(&self) -> Option<&ScoreRules> {
        match self {
            Self::Uniform { .. } | Self::Weighted { .. } | Self::Balanced { .. } => None,
            Self::Nearest(nearest) => Some(&nearest.rules),
            Self::Softmax(softmax) => Some(&softmax.rules),
            Self::Band(band) => Some(&band.rules),
        }
    }

    /// True if entries are scored against the anchor to be drawn.
    pub fn is_scored(&self) -> bool {
        self.rules().is_some()
    }
}

/// One strategy with a count.
#[derive(Debug, Clone, PartialEq)]
pub struct Draw {
    /// Entries per anchor.
    pub k: usize,
    /// How they are picked.
    pub strategy: Strategy,
    /// Which are eligible.
    pub filters: Filters,
    /// For whom.
    pub scope: Scope,
}

/// For whom a draw is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scope {
    /// Each anchor draws for itself.
    #[default]
    PerAnchor,
    /// One set for all anchors, from which each one's own filters then take.
    Shared,
}

#[cfg(test)]
mod tests {
    use super::{Band, ScoreRules};

    #[test]
    fn a_band_holds_at_least_one_rank_and_none_beyond_the_last() {
        let ranks = |lo, hi, n| Band { lo, hi, replace: false, rules: ScoreRules::default() }.ranks(n);
        assert_eq!([ranks(0.5, 0.7, 10), ranks(0.9, 1.0, 10), ranks(0.0, 1.0, 7)], [5..7, 9..10, 0..7]);
        assert_eq!([ranks(0.5, 0.5, 10), ranks(0.55, 0.56, 10), ranks(0.99, 1.0, 3)], [5..6, 5..6, 2..3]);
        assert_eq!([ranks(1.0 - f64::EPSILON / 2.0, 1.0, 1 << 40), ranks(0.2, 0.9, 0)], [(1 << 40) - 1..1 << 40, 0..0]);
    }
}
