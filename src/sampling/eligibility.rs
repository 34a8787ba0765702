//! Which entries may be served to an anchor, and how many there are.

use rustc_hash::FxHashSet;

use super::anchors::Anchor;
use super::measured::{Entries, Measured};
use crate::bank::{Bank, Columns, Place};
use crate::model::{Draw, Reason, Strategy};

/// The filters of one draw, ready to be asked per entry.
#[derive(Debug)]
pub(super) struct Eligibility {
    exclude_self: bool,
    exclude_same_group: bool,
    exclude_same_label: bool,
    only_same_label: bool,
    only_same_group: bool,
    shared: SharedFilters,
    counted: Measured<usize>,
}

/// The filters that are the same for every anchor.
#[derive(Debug)]
pub(super) struct SharedFilters {
    excluded_ids: FxHashSet<u64>,
    /// Sorted, each once.
    only_labels: Option<Vec<i64>>,
    excluded_labels: FxHashSet<i64>,
    exclude_unlabelled: bool,
    /// The larger of min_step and the step that max_age sets.
    min_step: u64,
}

impl Eligibility {
    /// The filters of a draw in a request of training step `step`. A balanced draw leaves out entries without a label.
    pub(super) fn new(draw: &Draw, step: Option<u64>) -> Self {
        let (filters, balanced) = (&draw.filters, matches!(draw.strategy, Strategy::Balanced { .. }));
        let only_labels = (!filters.only_labels.is_empty()).then(|| {
            let mut labels = filters.only_labels.clone();
            labels.sort_unstable();
            labels.dedup();
            labels
        });
        let oldest = filters.max_age.zip(step).map(|(age, step)| step.saturating_sub(age));
        Self {
            exclude_self: filters.exclude_self.unwrap_or(true),
            exclude_same_group: filters.exclude_same_group.unwrap_or(!filters.only_same_group),
            exclude_same_label: filters.exclude_same_label,
            only_same_label: filters.only_same_label,
            only_same_group: filters.only_same_group,
            shared: SharedFilters {
                excluded_ids: filters.exclude_ids.iter().copied().collect(),
                only_labels,
                excluded_labels: filters.exclude_labels.iter().copied().collect(),
                exclude_unlabelled: filters.exclude_unlabelled || balanced,
                min_step: filters.min_step.unwrap_or(0).max(oldest.unwrap_or(0)),
            },
            counted: Measured::default(),
        }
    }

    /// The label whose entries are kept from the anchor, or none, if nothing else is; see [`Eligibility::rejects`].
    pub(super) fn rejects_at_most_a_label(&self, anchor: &Anchor) -> Option<Option<i64>> {
        (!self.bars_some(anchor) && self.shared.takes_all()).then(|| self.barred_label(anchor))
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
        let itself = self.barred_id(anchor);
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
        if self.barred_group(anchor).or(self.only_group(anchor)).is_some() {
            match (group() == anchor.group, self.only_same_group) {
                (true, false) => return Some(Reason::SameGroup),
                (false, true) => return Some(Reason::Group),
                (true, true) | (false, false) => {}
            }
        }
        self.barred_label(anchor).or(self.only_label(anchor))?;
        match (label() == anchor.label, self.only_same_label) {
            (true, false) => Some(Reason::SameLabel),
            (false, true) => Some(Reason::Label),
            (true, true) | (false, false) => None,
        }
    }

    /// True if anchors are kept from their own label, which is what lies nearest to them.
    pub(super) fn bars_what_is_near(&self) -> bool {
        self.exclude_same_label
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
            || self.is_narrow(anchor)
    }

    /// True if no entry is kept from this anchor by anything but labels asked for.
    pub(super) fn takes_all(&self, anchor: &Anchor) -> bool {
        !self.bars_any(anchor) && self.shared.takes_all_listed()
    }

    /// Size of the anchor's eligible set, exact.
    pub(super) fn count(&mut self, anchor: &Anchor, bank: &Bank) -> usize {
        let mut counted = std::mem::take(&mut self.counted);
        let count = counted.of_anchor(&Entries, self, anchor, bank);
        self.counted = counted;
        count
    }

    /// The filters that don't depend on the anchor.
    pub(super) fn shared(&self) -> &SharedFilters {
        &self.shared
    }

    /// Labels of which an eligible entry must have one; `None`: any, or none.
    pub(super) fn only_labels(&self) -> Option<&[i64]> {
        self.shared.only_labels.as_deref()
    }

    /// The anchor's own label, if its entries are excluded.
    pub(super) fn barred_label(&self, anchor: &Anchor) -> Option<i64> {
        anchor.label.filter(|_| self.exclude_same_label)
    }

    /// The anchor's own label, if only its entries are served.
    pub(super) fn only_label(&self, anchor: &Anchor) -> Option<i64> {
        anchor.label.filter(|_| self.only_same_label)
    }

    /// The anchor's own group, if only its entries are served.
    pub(super) fn only_group(&self, anchor: &Anchor) -> Option<u64> {
        anchor.group.filter(|_| self.only_same_group)
    }

    /// True if only entries of the anchor's label or group are served.
    pub(super) fn is_narrow(&self, anchor: &Anchor) -> bool {
        self.only_label(anchor).is_some() || self.only_group(anchor).is_some()
    }

    /// The anchor's own id, if it is excluded.
    pub(super) fn barred_id(&self, anchor: &Anchor) -> Option<u64> {
        anchor.id.filter(|_| self.exclude_self)
    }

    /// The anchor's own group, if its entries are excluded.
    pub(super) fn barred_group(&self, anchor: &Anchor) -> Option<u64> {
        anchor.group.filter(|_| self.exclude_same_group)
    }

    fn in_group(&self, anchor: &Anchor, columns: &Columns, slot: u32) -> bool {
        self.exclude_same_group && anchor.group.is_some() && columns.group(slot) == anchor.group
    }

    /// True if neither the shared filters nor the anchor's label exclude the entry already.
    fn remains(&self, anchor: &Anchor, columns: &Columns, slot: u32) -> bool {
        let (barred, only) = (self.barred_label(anchor), self.only_label(anchor));
        (barred.is_none() || columns.label(slot) != barred)
            && (only.is_none() || columns.label(slot) == only)
            && self.shared.rejects(columns, slot).is_none()
    }

    /// Visits each entry that is kept from the anchor by its id or its group, and by nothing else.
    pub(super) fn for_each_barred(&self, anchor: &Anchor, bank: &Bank, mut visit: impl FnMut(Place)) {
        let mut visit = |place: Place| {
            if self.remains(anchor, bank.columns(place), place.slot) {
                visit(place);
            }
        };
        if let Some(group) = self.barred_group(anchor) {
            for (shard, state) in (0u32..).zip(bank.shards()) {
                state.grouped(group).iter().for_each(|&slot| visit(Place { shard, slot }));
            }
        }
        let itself = self.barred_id(anchor);
        let mut named: Vec<u64> = itself.into_iter().chain(anchor.positive_ids.iter().copied()).collect();
        named.extend(&anchor.denied_ids);
        named.sort_unstable();
        named.dedup();
        let places = named.into_iter().flat_map(|id| bank.find_all(id));
        places.filter(|place| !self.in_group(anchor, bank.columns(*place), place.slot)).for_each(visit);
    }
}

impl SharedFilters {
    pub(super) fn rejects(&self, columns: &Columns, slot: u32) -> Option<Reason> {
        if !self.excluded_ids.is_empty() && self.excluded_ids.contains(&columns.id(slot)) {
            return Some(Reason::Denied);
        }
        if !self.takes_label(columns.label(slot)) {
            return Some(Reason::Label);
        }
        (self.min_step > 0 && columns.step(slot) < self.min_step).then_some(Reason::Age)
    }

    /// True if every entry passes.
    pub(super) fn takes_all(&self) -> bool {
        self.only_labels.is_none() && self.takes_all_listed()
    }

    /// True if every entry of the labels asked for passes.
    pub(super) fn takes_all_listed(&self) -> bool {
        self.excluded_ids.is_empty() && self.excluded_labels.is_empty() && !self.exclude_unlabelled && self.min_step == 0
    }

    /// True if entries of this label, or without one, may pass.
    pub(super) fn takes_label(&self, label: Option<i64>) -> bool {
        let Some(label) = label else { return self.only_labels.is_none() && !self.exclude_unlabelled };
        let listed = self.only_labels.as_ref().is_none_or(|only| only.binary_search(&label).is_ok());
        listed && !self.excluded_labels.contains(&label)
    }

    /// The step from which on entries pass.
    pub(super) fn min_step(&self) -> u64 {
        self.min_step
    }

    /// Ids that are never served.
    pub(super) fn excluded_ids(&self) -> impl Iterator<Item = u64> + '_ {
        self.excluded_ids.iter().copied()
    }

    /// Labels that are never served.
    pub(super) fn excluded_labels(&self) -> impl Iterator<Item = i64> + '_ {
        self.excluded_labels.iter().copied()
    }

    /// True if entries without a label don't pass.
    pub(super) fn excludes_unlabelled(&self) -> bool {
        self.exclude_unlabelled
    }

    /// Labels of which an entry must have one; `None`: any, or none.
    pub(super) fn only_labels(&self) -> Option<&[i64]> {
        self.only_labels.as_deref()
    }
}
