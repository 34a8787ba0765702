//! The probability of a pick under a whole mixture of draws.

use rustc_hash::FxHashMap;

use super::anchors::Anchor;
use super::choose::log_q_of;
use super::eligibility::Eligibility;
use super::nearest::place;
use super::picked::Picked;
use crate::bank::{Bank, Place};
use crate::model::{Draw, Strategy};

/// The draws of one anchor as one distribution: with probability k_j / K an entry comes from draw j (Yang et al. 2020, mixed negative
/// sampling).
pub(super) struct Mixture<'a> {
    bank: &'a Bank,
    anchor: &'a Anchor,
    components: Vec<(f64, Component<'a>)>,
}

/// q of one draw.
enum Component<'a> {
    /// 1 / n for what is eligible.
    Uniform { eligibility: &'a Eligibility, q: f64 },
    /// Known for each entry of the window.
    Window(FxHashMap<Place, f64>),
}

impl<'a> Mixture<'a> {
    /// The mixture of `draws`, each with its filters and what it picked for `anchor`.
    pub(super) fn new(
        bank: &'a Bank,
        anchor: &'a Anchor,
        draws: impl Iterator<Item = (&'a Draw, &'a Eligibility, &'a Picked)> + Clone,
    ) -> Self {
        let total: usize = draws.clone().map(|(draw, ..)| draw.k).sum();
        let component = |(draw, eligibility, picked): (&'a Draw, &'a Eligibility, &'a Picked)| {
            let component = match &draw.strategy {
                Strategy::Uniform { .. } => {
                    Component::Uniform { eligibility, q: 1.0 / picked.n.unwrap_or_default().max(1) as f64 }
                }
                Strategy::Nearest(nearest) => {
                    let log_q = log_q_of(&picked.window, nearest.choose);
                    let q = picked.window.iter().zip(log_q).map(|(ranked, log_q)| (place(ranked), libm::exp(log_q)));
                    Component::Window(q.collect())
                }
            };
            (draw.k as f64 / total as f64, component)
        };
        Self { bank, anchor, components: draws.map(component).collect() }
    }

    /// ln sum_j (k_j / K) q_j(entry).
    pub(super) fn log_q(&self, place: Place) -> f32 {
        let terms = self.components.iter().map(|(share, component)| share * self.q(component, place));
        libm::log(terms.sum()) as f32
    }

    fn q(&self, component: &Component<'_>, place: Place) -> f64 {
        match component {
            Component::Uniform { eligibility, q } => {
                let rejected = eligibility.rejects(self.anchor, self.bank.columns(place), place.slot).is_some();
                if rejected { 0.0 } else { *q }
            }
            Component::Window(q) => q.get(&place).copied().unwrap_or_default(),
        }
    }
}
