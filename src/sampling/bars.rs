//! What a block of anchors may not be served, asked of an entry for all of them at once.

use std::hash::Hash;

use rustc_hash::FxHashMap;

use super::anchors::Anchor;
use super::eligibility::Eligibility;
use crate::bank::Columns;
use crate::model::{Reason, ReasonCounts};

/// The filters of a draw for up to 64 anchors: a bit an anchor.
#[derive(Debug)]
pub(super) struct Bars<'a> {
    eligibility: &'a Eligibility,
    everybody: u64,
    ids: FxHashMap<u64, Named>,
    groups: FxHashMap<u64, u64>,
    labels: FxHashMap<i64, u64>,
    only_groups: Only<u64>,
    only_labels: Only<i64>,
}

/// Anchors that are served entries of one key only.
#[derive(Debug)]
struct Only<K> {
    anchors: u64,
    of_key: FxHashMap<K, u64>,
}

impl<K: Eq + Hash> Only<K> {
    fn new() -> Self {
        Self { anchors: 0, of_key: FxHashMap::default() }
    }

    fn add(&mut self, key: K, bit: u64) {
        self.anchors |= bit;
        *self.of_key.entry(key).or_default() |= bit;
    }

    /// The anchors that an entry of this key, or without one, is kept from.
    fn barred(&self, key: Option<K>) -> u64 {
        self.anchors & !key.and_then(|key| self.of_key.get(&key)).copied().unwrap_or(0)
    }
}

/// The anchors that an id is kept from, by the reason that counts first.
#[derive(Debug, Clone, Copy, Default)]
struct Named {
    itself: u64,
    positive: u64,
    denied: u64,
}

impl<'a> Bars<'a> {
    pub(super) fn new(anchors: &[Anchor], eligibility: &'a Eligibility) -> Self {
        let everybody = u64::MAX.checked_shr(64 - anchors.len().min(64) as u32).unwrap_or(0);
        let mut bars = Self {
            eligibility,
            everybody,
            ids: FxHashMap::default(),
            groups: FxHashMap::default(),
            labels: FxHashMap::default(),
            only_groups: Only::new(),
            only_labels: Only::new(),
        };
        for (at, anchor) in anchors.iter().enumerate() {
            let bit = 1 << at;
            if let Some(id) = eligibility.barred_id(anchor) {
                bars.ids.entry(id).or_default().itself |= bit;
            }
            anchor.positive_ids.iter().for_each(|&id| bars.ids.entry(id).or_default().positive |= bit);
            anchor.denied_ids.iter().for_each(|&id| bars.ids.entry(id).or_default().denied |= bit);
            if let Some(group) = eligibility.barred_group(anchor) {
                *bars.groups.entry(group).or_default() |= bit;
            }
            if let Some(label) = eligibility.barred_label(anchor) {
                *bars.labels.entry(label).or_default() |= bit;
            }
            eligibility.only_group(anchor).into_iter().for_each(|group| bars.only_groups.add(group, bit));
            eligibility.only_label(anchor).into_iter().for_each(|label| bars.only_labels.add(label, bit));
        }
        bars
    }

    /// The anchors that the entry in a slot may be served to; why not to the others is counted. None of a free slot.
    pub(super) fn admitted(&self, columns: &Columns, slot: u32, rejections: &mut ReasonCounts) -> u64 {
        if !columns.is_occupied(slot) {
            return 0;
        }
        let mut left = self.everybody;
        let mut bar = |barred: u64, reason: Reason| {
            rejections.add(reason, u64::from((left & barred).count_ones()));
            left &= !barred;
        };
        if !self.ids.is_empty()
            && let Some(named) = self.ids.get(&columns.id(slot))
        {
            bar(named.itself, Reason::Itself);
            bar(named.positive, Reason::Positive);
            bar(named.denied, Reason::Denied);
        }
        if !self.groups.is_empty()
            && let Some(barred) = columns.group(slot).and_then(|group| self.groups.get(&group))
        {
            bar(*barred, Reason::SameGroup);
        }
        if self.only_groups.anchors != 0 {
            bar(self.only_groups.barred(columns.group(slot)), Reason::Group);
        }
        if !self.labels.is_empty()
            && let Some(barred) = columns.label(slot).and_then(|label| self.labels.get(&label))
        {
            bar(*barred, Reason::SameLabel);
        }
        if self.only_labels.anchors != 0 {
            bar(self.only_labels.barred(columns.label(slot)), Reason::Label);
        }
        if let Some(reason) = self.eligibility.shared().rejects(columns, slot) {
            bar(self.everybody, reason);
        }
        left
    }
}
