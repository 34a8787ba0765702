//! How negatives are drawn.

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
}

impl Strategy {
    /// Largest magnitude of a weight's exponent.
    pub const LARGEST_ALPHA: f32 = 4.0;

    /// True if an entry may be picked twice.
    pub fn replaces(&self) -> bool {
        match self {
            Self::Uniform { replace } | Self::Weighted { replace, .. } | Self::Balanced { replace } => *replace,
            Self::Nearest(nearest) => nearest.choose.replaces(),
        }
    }

    /// True if entries are scored against the anchor.
    pub fn is_scored(&self) -> bool {
        matches!(self, Self::Nearest(_))
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
