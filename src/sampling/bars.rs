//! What a block of anchors may not be served, asked of an entry for all of them at once.

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
        if !self.labels.is_empty()
            && let Some(barred) = columns.label(slot).and_then(|label| self.labels.get(&label))
        {
            bar(*barred, Reason::SameLabel);
        }
        if let Some(reason) = self.eligibility.shared().rejects(columns, slot) {
            bar(self.everybody, reason);
        }
        left
    }
}
