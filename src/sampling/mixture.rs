//! The probability of a pick under a whole mixture of draws.

use super::anchors::Anchor;
use super::eligibility::Eligibility;
use super::odds::{Odds, Table};
use crate::bank::{Bank, Place};

/// The draws of one anchor as one distribution: with probability k_j / K an entry comes from draw j (Yang et al. 2020, mixed negative
/// sampling).
pub(super) struct Mixture<'a> {
    bank: &'a Bank,
    anchor: &'a Anchor,
    components: Vec<(f64, &'a Eligibility, Table<'a>)>,
}

impl<'a> Mixture<'a> {
    /// The mixture of `draws`, each with its k, its filters and its probabilities.
    pub(super) fn new(
        bank: &'a Bank,
        anchor: &'a Anchor,
        draws: impl Iterator<Item = (usize, &'a Eligibility, &'a Odds)> + Clone,
    ) -> Self {
        let total: usize = draws.clone().map(|(k, ..)| k).sum();
        let component =
            |(k, eligibility, odds): (usize, &'a Eligibility, &'a Odds)| (k as f64 / total as f64, eligibility, odds.table());
        Self { bank, anchor, components: draws.map(component).collect() }
    }

    /// ln sum_j (k_j / K) q_j(entry).
    pub(super) fn log_q(&self, place: Place) -> f32 {
        let columns = self.bank.columns(place);
        let q = |(share, eligibility, table): &(f64, &Eligibility, Table<'_>)| {
            let rejected = eligibility.rejects(self.anchor, columns, place.slot).is_some();
            if rejected { 0.0 } else { share * table.q(self.bank, self.anchor, place) }
        };
        libm::log(self.components.iter().map(q).sum()) as f32
    }
}
