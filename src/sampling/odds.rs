//! With which probability one draw of an anchor picks an entry.

use rustc_hash::FxHashMap;

use super::anchors::Anchor;
use super::balanced::OwnClasses;
use super::band::Edges;
use super::choose::log_q_of;
use super::eligibility::Eligibility;
use super::nearest::{place, ranked_at};
use crate::bank::{Bank, Place};
use crate::index::Ranked;
use crate::model::{Choose, ScoreRange};

/// The probabilities of one draw, as of the anchor's closing hold.
#[derive(Debug, Default)]
pub(super) enum Odds {
    /// There are none: the draw is deterministic.
    #[default]
    None,
    /// The same for each of n.
    Uniform { n: usize },
    /// w^alpha of the sum of all.
    Weighted { alpha: f32, log_total: f64 },
    /// The same for each label, and for each entry of a label.
    Balanced(OwnClasses),
    /// exp(beta * s) of the sum of all whose scores are kept.
    Softmax { beta: f32, log_partition: f64, range: ScoreRange },
    /// The same for each entry of a band.
    Band(Edges),
    /// Those of the entries of a window.
    Window { window: Vec<Ranked>, how: Choose },
}

/// Odds that many entries will be looked up in.
pub(super) enum Table<'a> {
    Odds(&'a Odds),
    Window(FxHashMap<Place, f64>),
}

impl Odds {
    pub(super) fn table(&self) -> Table<'_> {
        let Self::Window { window, how } = self else { return Table::Odds(self) };
        let log_q = log_q_of(window, *how);
        Table::Window(window.iter().map(place).zip(log_q.into_iter().map(libm::exp)).collect())
    }

    /// Natural log of the probability that the entry at `place`, one of the anchor's positives, would have if it were eligible too; minus
    /// infinity if it could not be drawn then either. Windows and bands are asked where they were found.
    pub(super) fn log_q_beside(&self, bank: &Bank, anchor: &Anchor, eligibility: &Eligibility, place: Place) -> f64 {
        let columns = bank.columns(place);
        let beside = |log_total: f64, term: f64| term - log_sum(log_total, term);
        match self {
            Self::None | Self::Window { .. } | Self::Band(_) => f64::NEG_INFINITY,
            Self::Uniform { n } => -libm::log((n + 1) as f64),
            Self::Weighted { alpha, log_total } => match columns.weight(place.slot) {
                weight if weight > 0.0 => beside(*log_total, f64::from(*alpha) * libm::log(f64::from(weight))),
                _ => f64::NEG_INFINITY,
            },
            Self::Balanced(own) => columns.label(place.slot).map_or(f64::NEG_INFINITY, |label| {
                own.log_q_beside(bank, label, eligibility.shared().takes_label(Some(label)))
            }),
            Self::Softmax { beta, log_partition, .. } => {
                let term = |score: f32| f64::from(*beta) * f64::from(score);
                anchor.score(bank, place).map_or(f64::NEG_INFINITY, |score| beside(*log_partition, term(score)))
            }
        }
    }

    /// The probability of an entry that passes the filters. A window is looked up in its [`Table`].
    pub(super) fn q(&self, bank: &Bank, anchor: &Anchor, place: Place) -> f64 {
        let columns = bank.columns(place);
        match self {
            Self::None | Self::Window { .. } => 0.0,
            Self::Uniform { n } => 1.0 / *n as f64,
            Self::Weighted { alpha, log_total } => {
                let weight = f64::from(columns.weight(place.slot));
                if weight > 0.0 { libm::exp(f64::from(*alpha) * libm::log(weight) - log_total) } else { 0.0 }
            }
            Self::Softmax { beta, log_partition, range } => {
                let logit = |score: f32| f64::from(*beta) * f64::from(score) - log_partition;
                // A partition is summed of scores that lie a few roundings off.
                anchor
                    .score(bank, place)
                    .filter(|&score| range.keeps(score))
                    .map_or(0.0, |score| libm::exp(logit(score).min(0.0)))
            }
            Self::Band(edges) => {
                let holds = |score: &f32| edges.hold(&ranked_at(bank, place, *score));
                anchor.score(bank, place).filter(holds).map_or(0.0, |_| 1.0 / edges.len as f64)
            }
            Self::Balanced(own) => columns.label(place.slot).map_or(0.0, |label| libm::exp(own.log_q(bank, label))),
        }
    }
}

/// ln(exp(a) + exp(b)).
fn log_sum(a: f64, b: f64) -> f64 {
    let (more, less) = (a.max(b), a.min(b));
    more + libm::log1p(libm::exp(less - more))
}

impl Table<'_> {
    /// The probability of an entry that passes the filters.
    pub(super) fn q(&self, bank: &Bank, anchor: &Anchor, place: Place) -> f64 {
        match self {
            Self::Odds(odds) => odds.q(bank, anchor, place),
            Self::Window(q) => q.get(&place).copied().unwrap_or_default(),
        }
    }
}
