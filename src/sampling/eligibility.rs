//! Which entries may be served to an anchor, and how many there are.

use rustc_hash::{FxHashMap, FxHashSet};

use super::anchors::Anchor;
use crate::bank::{Bank, Columns, Place, Shard};
use crate::model::{Filters, Reason};

/// The filters of one draw, ready to be asked per entry.
#[derive(Debug)]
pub(super) struct Eligibility {
    exclude_self: bool,
    exclude_same_group: bool,
    exclude_same_label: bool,
    shared: SharedFilters,
    counted: Counted,
}

/// The filters that are the same for every anchor.
#[derive(Debug)]
struct SharedFilters {
    excluded_ids: FxHashSet<u64>,
    /// Sorted, each once.
    only_labels: Option<Vec<i64>>,
    excluded_labels: FxHashSet<i64>,
    exclude_unlabelled: bool,
    /// The larger of min_step and the step that max_age sets.
    min_step: u64,
}

/// Sizes that many anchors share, as of one state of the bank.
#[derive(Debug, Default)]
struct Counted {
    revision: Option<u64>,
    passing: usize,
    passing_of_label: FxHashMap<i64, usize>,
}

impl Eligibility {
    /// The filters of a request of training step `step`.
    pub(super) fn new(filters: &Filters, step: Option<u64>) -> Self {
        let only_labels = (!filters.only_labels.is_empty()).then(|| {
            let mut labels = filters.only_labels.clone();
            labels.sort_unstable();
            labels.dedup();
            labels
        });
        let oldest = filters.max_age.zip(step).map(|(age, step)| step.saturating_sub(age));
        Self {
            exclude_self: filters.exclude_self.unwrap_or(true),
            exclude_same_group: filters.exclude_same_group.unwrap_or(true),
            exclude_same_label: filters.exclude_same_label,
            shared: SharedFilters {
                excluded_ids: filters.exclude_ids.iter().copied().collect(),
                only_labels,
                excluded_labels: filters.exclude_labels.iter().copied().collect(),
                exclude_unlabelled: filters.exclude_unlabelled,
                min_step: filters.min_step.unwrap_or(0).max(oldest.unwrap_or(0)),
            },
            counted: Counted::default(),
        }
    }

    /// The label whose entries are all that is kept from the anchor, if nothing else is; see [`Eligibility::rejects`].
    pub(super) fn rejects_one_label(&self, anchor: &Anchor) -> Option<i64> {
        self.barred_label(anchor).filter(|_| !self.bars_some(anchor) && self.shared.takes_all())
    }

    /// Why the entry in an occupied slot may not be served; `None` if it may.
    pub(super) fn rejects(&self, anchor: &Anchor, columns: &Columns, slot: u32) -> Option<Reason> {
        self.own(anchor, || columns.id(slot), || columns.label(slot), || columns.group(slot))
            .or_else(|| self.shared.rejects(columns, slot))
    }

    /// Why an entry of these columns, which passes the filters that don't depend on the anchor, may not be served to it.
    pub(super) fn rejects_own(&self, anchor: &Anchor, id: u64, label: Option<i64>, group: Option<u64>) -> Option<Reason> {
        self.own(anchor, || id, || label, || group)
    }

    fn own(
        &self,
        anchor: &Anchor,
        id: impl FnOnce() -> u64,
        label: impl FnOnce() -> Option<i64>,
        group: impl FnOnce() -> Option<u64>,
    ) -> Option<Reason> {
        // Asked of millions of entries: what an anchor doesn't name isn't read.
        let itself = anchor.id.filter(|_| self.exclude_self);
        if itself.is_some() || !anchor.positive_ids.is_empty() || !anchor.denied_ids.is_empty() {
            let id = id();
            if itself == Some(id) {
                return Some(Reason::Itself);
            }
            if anchor.positive_ids.binary_search(&id).is_ok() {
                return Some(Reason::Positive);
            }
            if anchor.denied_ids.binary_search(&id).is_ok() {
                return Some(Reason::Denied);
            }
        }
        if self.exclude_same_group && anchor.group.is_some() && group() == anchor.group {
            return Some(Reason::SameGroup);
        }
        let barred = self.barred_label(anchor);
        (barred.is_some() && label() == barred).then_some(Reason::SameLabel)
    }

    /// True if some entry may be kept from this anchor that isn't kept from others.
    pub(super) fn bars_any(&self, anchor: &Anchor) -> bool {
        self.bars_some(anchor) || self.barred_label(anchor).is_some()
    }

    /// The same, of entries that are kept from the anchor for something else than their label.
    fn bars_some(&self, anchor: &Anchor) -> bool {
        (self.exclude_self && anchor.id.is_some())
            || !anchor.positive_ids.is_empty()
            || !anchor.denied_ids.is_empty()
            || (self.exclude_same_group && anchor.group.is_some())
    }

    /// True if no entry is kept from this anchor by anything but labels asked for.
    pub(super) fn takes_all(&self, anchor: &Anchor) -> bool {
        !self.bars_any(anchor) && self.shared.takes_all_listed()
    }

    /// Size of the anchor's eligible set, exact: what passes the shared filters, counted once for all anchors, less the few
    /// entries that only this anchor excludes.
    pub(super) fn count(&mut self, anchor: &Anchor, bank: &Bank) -> usize {
        self.counted.refresh(&self.shared, bank);
        let of_label = self.barred_label(anchor).map_or(0, |label| self.counted.of_label(label, &self.shared, bank));
        self.counted.passing - of_label - self.excluded_in_group(anchor, bank) - self.excluded_by_id(anchor, bank)
    }

    /// Labels of which an eligible entry must have one; `None`: any, or none.
    pub(super) fn only_labels(&self) -> Option<&[i64]> {
        self.shared.only_labels.as_deref()
    }

    /// The anchor's own label, if its entries are excluded.
    fn barred_label(&self, anchor: &Anchor) -> Option<i64> {
        anchor.label.filter(|_| self.exclude_same_label)
    }

    fn in_group(&self, anchor: &Anchor, columns: &Columns, slot: u32) -> bool {
        self.exclude_same_group && anchor.group.is_some() && columns.group(slot) == anchor.group
    }

    /// True if neither the shared filters nor the anchor's label exclude the entry already.
    fn remains(&self, anchor: &Anchor, columns: &Columns, slot: u32) -> bool {
        let barred = self.barred_label(anchor);
        (barred.is_none() || columns.label(slot) != barred) && self.shared.rejects(columns, slot).is_none()
    }

    /// Entries of the anchor's group that nothing else excludes already.
    fn excluded_in_group(&self, anchor: &Anchor, bank: &Bank) -> usize {
        let Some(group) = anchor.group.filter(|_| self.exclude_same_group) else { return 0 };
        let in_shard =
            |shard: &Shard| shard.grouped(group).iter().filter(|&&slot| self.remains(anchor, shard.columns(), slot)).count();
        bank.shards().iter().map(in_shard).sum()
    }

    /// Entries that this anchor excludes by their id and nothing else excludes already.
    fn excluded_by_id(&self, anchor: &Anchor, bank: &Bank) -> usize {
        let itself = anchor.id.filter(|_| self.exclude_self);
        let mut named: Vec<u64> = itself.into_iter().chain(anchor.positive_ids.iter().copied()).collect();
        named.extend(&anchor.denied_ids);
        named.sort_unstable();
        named.dedup();
        let alone = |place: &Place| {
            let columns = bank.columns(*place);
            !self.in_group(anchor, columns, place.slot) && self.remains(anchor, columns, place.slot)
        };
        named.into_iter().map(|id| bank.find_all(id).filter(alone).count()).sum()
    }
}

impl SharedFilters {
    fn rejects(&self, columns: &Columns, slot: u32) -> Option<Reason> {
        if !self.excluded_ids.is_empty() && self.excluded_ids.contains(&columns.id(slot)) {
            return Some(Reason::Denied);
        }
        if !self.takes_label(columns.label(slot)) {
            return Some(Reason::Label);
        }
        (self.min_step > 0 && columns.step(slot) < self.min_step).then_some(Reason::Age)
    }

    /// True if every entry passes.
    fn takes_all(&self) -> bool {
        self.only_labels.is_none() && self.takes_all_listed()
    }

    /// True if every entry of the labels asked for passes.
    fn takes_all_listed(&self) -> bool {
        self.excluded_ids.is_empty() && self.excluded_labels.is_empty() && !self.exclude_unlabelled && self.min_step == 0
    }

    /// True if entries of this label, or without one, may pass.
    fn takes_label(&self, label: Option<i64>) -> bool {
        let Some(label) = label else { return self.only_labels.is_none() && !self.exclude_unlabelled };
        let listed = self.only_labels.as_ref().is_none_or(|only| only.binary_search(&label).is_ok());
        listed && !self.excluded_labels.contains(&label)
    }

    /// Entries that pass, by the lengths of lists where those tell, else one by one.
    fn count(&self, bank: &Bank) -> usize {
        if let Some(labels) = &self.only_labels {
            return labels.iter().map(|&label| self.count_of_label(label, bank)).sum();
        }
        if self.min_step > 0 || self.exclude_unlabelled {
            return bank.shards().iter().map(|shard| self.passing(shard, shard.roster())).sum();
        }
        let of_excluded: usize = self.excluded_labels.iter().map(|&label| labelled(bank, label)).sum();
        bank.entries() - of_excluded - self.excluded_where(bank, |label| self.takes_label(label))
    }

    /// Entries of one label that pass.
    fn count_of_label(&self, label: i64, bank: &Bank) -> usize {
        if !self.takes_label(Some(label)) {
            return 0;
        }
        if self.min_step > 0 {
            return bank.shards().iter().map(|shard| self.passing(shard, shard.labelled(label))).sum();
        }
        labelled(bank, label) - self.excluded_where(bank, |there| there == Some(label))
    }

    /// Entries excluded by their id, of the labels that `counts`.
    fn excluded_where(&self, bank: &Bank, counts: impl Fn(Option<i64>) -> bool) -> usize {
        let counted = |place: &Place| counts(bank.columns(*place).label(place.slot));
        self.excluded_ids.iter().map(|&id| bank.find_all(id).filter(counted).count()).sum()
    }

    fn passing(&self, shard: &Shard, slots: &[u32]) -> usize {
        slots.iter().filter(|&&slot| self.rejects(shard.columns(), slot).is_none()).count()
    }
}

impl Counted {
    /// Counts anew if the bank has changed.
    fn refresh(&mut self, filters: &SharedFilters, bank: &Bank) {
        if self.revision != Some(bank.revision()) {
            self.revision = Some(bank.revision());
            self.passing = filters.count(bank);
            self.passing_of_label.clear();
        }
    }

    fn of_label(&mut self, label: i64, filters: &SharedFilters, bank: &Bank) -> usize {
        *self.passing_of_label.entry(label).or_insert_with(|| filters.count_of_label(label, bank))
    }
}

fn labelled(bank: &Bank, label: i64) -> usize {
    bank.shards().iter().map(|shard| shard.labelled(label).len()).sum()
}
