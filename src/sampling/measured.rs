//! How large eligible sets are: in entries, or in weight.

use std::ops::{AddAssign, SubAssign};

use rustc_hash::FxHashMap;

use super::anchors::Anchor;
use super::eligibility::{Eligibility, SharedFilters};
use crate::bank::{Bank, Mass, Place, Powers, Shard};

/// Something that each entry has, which adds up exactly.
pub(super) trait Measure {
    type Sum: Clone + Default + AddAssign + SubAssign;

    /// Adds what the entry at `place` has.
    fn add(&self, bank: &Bank, place: Place, to: &mut Self::Sum);

    /// What all entries have.
    fn all(&self, bank: &Bank) -> Self::Sum;

    /// What the entries of one label have.
    fn labelled(&self, bank: &Bank, label: i64) -> Self::Sum {
        self.each(bank, |shard| shard.labelled(label))
    }

    /// What the entries that have a label have.
    fn with_label(&self, bank: &Bank) -> Self::Sum;

    /// What these slots of each shard have.
    fn each<'b>(&self, bank: &'b Bank, slots: impl Fn(&'b Shard) -> &'b [u32]) -> Self::Sum {
        self.passing(bank, slots, |_, _| true)
    }

    /// What those of these slots have that pass.
    fn passing<'b>(
        &self,
        bank: &'b Bank,
        slots: impl Fn(&'b Shard) -> &'b [u32],
        passes: impl Fn(&Shard, u32) -> bool,
    ) -> Self::Sum {
        let mut sum = Self::Sum::default();
        for (number, shard) in (0u32..).zip(bank.shards()) {
            let passing = slots(shard).iter().filter(|&&slot| passes(shard, slot));
            passing.for_each(|&slot| self.add(bank, Place { shard: number, slot }, &mut sum));
        }
        sum
    }
}

/// Each entry counts one.
pub(super) struct Entries;

impl Measure for Entries {
    type Sum = usize;

    fn add(&self, _bank: &Bank, _place: Place, to: &mut usize) {
        *to += 1;
    }

    fn all(&self, bank: &Bank) -> usize {
        bank.entries()
    }

    fn labelled(&self, bank: &Bank, label: i64) -> usize {
        bank.classes().entries_of(label)
    }

    fn with_label(&self, bank: &Bank) -> usize {
        bank.classes().entries()
    }
}

impl Measure for Powers {
    type Sum = Mass;

    fn add(&self, bank: &Bank, place: Place, to: &mut Mass) {
        self.add(place, bank.columns(place).weight(place.slot), to);
    }

    fn all(&self, _bank: &Bank) -> Mass {
        self.total().clone()
    }

    fn with_label(&self, bank: &Bank) -> Mass {
        self.passing(bank, Shard::roster, |shard, slot| shard.columns().label(slot).is_some())
    }
}

/// Sums that many anchors share, as of one state of the bank.
#[derive(Debug, Default)]
pub(super) struct Measured<S> {
    revision: Option<u64>,
    passing: S,
    of_label: FxHashMap<i64, S>,
}

impl<S: Clone + Default + AddAssign + SubAssign> Measured<S> {
    /// What passes the filters that don't depend on the anchor.
    pub(super) fn of_everybody<M: Measure<Sum = S>>(&mut self, measure: &M, filters: &SharedFilters, bank: &Bank) -> S {
        if self.revision != Some(bank.revision()) {
            self.revision = Some(bank.revision());
            self.passing = filters.measure(measure, bank);
            self.of_label.clear();
        }
        self.passing.clone()
    }

    /// What the anchor's eligible set has: what passes the shared filters, summed once for all anchors, less the few entries that only this
    /// anchor excludes.
    pub(super) fn of_anchor<M: Measure<Sum = S>>(
        &mut self,
        measure: &M,
        eligibility: &Eligibility,
        anchor: &Anchor,
        bank: &Bank,
    ) -> S {
        if let Some(group) = eligibility.only_group(anchor) {
            let passes = |shard: &Shard, slot| eligibility.rejects(anchor, shard.columns(), slot).is_none();
            return measure.passing(bank, |shard| shard.grouped(group), passes);
        }
        let mut sum = self.of_everybody(measure, eligibility.shared(), bank);
        let mut of_label = |label: i64| {
            let of_label = self.of_label.entry(label);
            of_label.or_insert_with(|| eligibility.shared().measure_label(measure, label, bank)).clone()
        };
        if let Some(label) = eligibility.only_label(anchor) {
            sum = of_label(label);
        } else if let Some(label) = eligibility.barred_label(anchor) {
            sum -= of_label(label);
        }
        let mut barred = S::default();
        eligibility.for_each_barred(anchor, bank, |place| measure.add(bank, place, &mut barred));
        sum -= barred;
        sum
    }
}

impl SharedFilters {
    /// What passes, by sums over whole lists where those tell, else entry by entry.
    fn measure<M: Measure>(&self, measure: &M, bank: &Bank) -> M::Sum {
        let mut sum = M::Sum::default();
        if let Some(labels) = self.only_labels() {
            labels.iter().for_each(|&label| sum += self.measure_label(measure, label, bank));
            return sum;
        }
        if self.min_step() > 0 {
            return measure.passing(bank, Shard::roster, |shard, slot| self.rejects(shard.columns(), slot).is_none());
        }
        sum += if self.excludes_unlabelled() { measure.with_label(bank) } else { measure.all(bank) };
        self.excluded_labels().for_each(|label| sum -= measure.labelled(bank, label));
        sum -= self.measure_excluded(measure, bank, |label| self.takes_label(label));
        sum
    }

    /// What the entries of one label have that pass.
    fn measure_label<M: Measure>(&self, measure: &M, label: i64, bank: &Bank) -> M::Sum {
        if !self.takes_label(Some(label)) {
            return M::Sum::default();
        }
        if self.min_step() > 0 {
            let passes = |shard: &Shard, slot| self.rejects(shard.columns(), slot).is_none();
            return measure.passing(bank, |shard| shard.labelled(label), passes);
        }
        let mut sum = measure.labelled(bank, label);
        sum -= self.measure_excluded(measure, bank, |there| there == Some(label));
        sum
    }

    /// What the entries have that are excluded by their id, of the labels that `counts`.
    fn measure_excluded<M: Measure>(&self, measure: &M, bank: &Bank, counts: impl Fn(Option<i64>) -> bool) -> M::Sum {
        let mut sum = M::Sum::default();
        let counted = |place: &Place| counts(bank.columns(*place).label(place.slot));
        let places = self.excluded_ids().flat_map(|id| bank.find_all(id)).filter(counted);
        places.for_each(|place| measure.add(bank, place, &mut sum));
        sum
    }
}
