//! Draws that need no scores: uniform, by weights, and balanced over labels.

use super::anchors::Anchor;
use super::balanced::Classes;
use super::eligibility::Eligibility;
use super::law::{Distinct, Law, with_replacement, without_replacement};
use super::odds::Odds;
use super::picked::Picked;
use super::uniform;
use super::weighted::Weights;
use crate::bank::{Bank, Place};
use crate::model::{Draw, Plan, Reason, ReasonCounts, Strategy, Stream};

/// Such a draw, for one anchor after the other.
#[derive(Debug)]
pub(super) struct Unscored<'q> {
    draw: &'q Draw,
    weights: Weights,
    classes: Classes,
}

/// What one anchor drew.
#[derive(Debug)]
pub(super) struct Drawn {
    pub(super) places: Vec<Place>,
    /// Natural log of each one's probability, in one draw.
    pub(super) log_q: Vec<f32>,
    /// Size of the eligible set.
    pub(super) n: usize,
    pub(super) plan: Plan,
    /// Drawn without replacement by unequal probabilities: the (k+1)th perturbed log-probability.
    pub(super) kappa: Option<f64>,
    /// Missing picks.
    pub(super) shortfalls: ReasonCounts,
    pub(super) odds: Odds,
}

impl<'q> Unscored<'q> {
    /// A draw by one of these strategies.
    pub(super) fn new(draw: &'q Draw) -> Self {
        Self { draw, weights: Weights::default(), classes: Classes::default() }
    }

    /// Draws for `anchor`.
    pub(super) fn draw(
        &mut self,
        bank: &Bank,
        eligibility: &mut Eligibility,
        anchor: &Anchor,
        stream: &mut Stream,
        rejections: &mut ReasonCounts,
    ) -> Drawn {
        let k = self.draw.k;
        match self.draw.strategy {
            Strategy::Weighted { alpha, replace } => {
                let n = eligibility.count(anchor, bank);
                let mut law = self.weights.law(bank, eligibility, anchor, alpha, rejections);
                let (plan, odds) = (law.plan, Odds::Weighted { alpha, log_total: law.log_total });
                by_law(&mut law, (k, replace), n, stream).found_by(plan, odds)
            }
            Strategy::Balanced { replace } => {
                let n = eligibility.count(anchor, bank);
                let mut law = self.classes.law(bank, eligibility, anchor, n, rejections);
                let odds = Odds::Balanced(law.own.clone());
                by_law(&mut law, (k, replace), n, stream).found_by(Plan::PostingList, odds)
            }
            _ => {
                let replace = self.draw.strategy.replaces();
                let uniform::Drawn { places, n, plan } =
                    uniform::draw(bank, eligibility, anchor, (k, replace), stream, rejections);
                let log_q = vec![-libm::log(n as f64) as f32; places.len()];
                let shortfalls = shortfalls((k, replace), n, places.len());
                Drawn { places, log_q, n, plan, kappa: None, shortfalls, odds: Odds::Uniform { n } }
            }
        }
    }

    /// Natural log of the probability with which what is drawn from the entries that pass the filters which don't depend on the anchor
    /// is one of its eligible ones, minus infinity if there are none; `n` and `n_shared` are the sizes of both sets.
    pub(super) fn log_share(
        &mut self,
        bank: &Bank,
        eligibility: &Eligibility,
        anchor: &Anchor,
        (n, n_shared): (usize, usize),
    ) -> f64 {
        if n == 0 {
            return f64::NEG_INFINITY;
        }
        match self.draw.strategy {
            Strategy::Weighted { alpha, .. } => self.weights.log_share(bank, eligibility, anchor, alpha),
            Strategy::Balanced { .. } => self.classes.log_share(bank, eligibility, anchor),
            _ => libm::log(n as f64) - libm::log(n_shared as f64),
        }
    }
}

impl Drawn {
    /// The picks, scored if that is `wanted` and the anchor has an embedding.
    pub(super) fn picked(self, bank: &Bank, anchor: &Anchor, wanted: bool) -> Picked {
        Picked {
            scores: self.places.iter().filter(|_| wanted).filter_map(|&place| anchor.score(bank, place)).collect(),
            places: self.places,
            log_q: self.log_q,
            n: Some(self.n),
            kappa: self.kappa.map(|kappa| kappa as f32),
            shortfalls: self.shortfalls,
            odds: self.odds,
            ..Picked::default()
        }
    }

    fn found_by(self, plan: Plan, odds: Odds) -> Self {
        Self { plan, odds, ..self }
    }
}

/// Draws by a law over some of n eligible entries.
fn by_law(law: &mut impl Law, (k, replace): (usize, bool), n: usize, stream: &mut Stream) -> Drawn {
    let (places, kappa) = if replace {
        (with_replacement(law, k, stream), None)
    } else {
        let Distinct { places, kappa } = without_replacement(law, k, stream);
        (places, Some(kappa))
    };
    let log_q = places.iter().map(|&place| law.log_q(place) as f32).collect();
    let shortfalls = shortfalls((k, replace), n, places.len());
    Drawn { places, log_q, n, plan: Plan::Roster, kappa, shortfalls, odds: Odds::None }
}

/// Why `served` of k: too few of the n are eligible, and the others have weight 0.
fn shortfalls((k, replace): (usize, bool), n: usize, served: usize) -> ReasonCounts {
    let mut counts = ReasonCounts::default();
    if served < k {
        let enough = if replace && n > 0 { k } else { k.min(n) };
        counts.add(Reason::TooFew, (k - enough) as u64);
        counts.add(Reason::Weight, (enough - served) as u64);
    }
    counts
}
