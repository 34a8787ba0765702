//! Entries that can be indexed: what random draws pick from before filters.

use super::anchors::Anchor;
use super::eligibility::Eligibility;
use crate::bank::{Bank, Place, Shard};
use crate::model::Plan;

/// Lists of slots laid end to end, so that a number below [`Universe::len`] names an entry: the rosters of all shards, or the
/// posting lists of the labels asked for. Its order is a function of the writes.
#[derive(Debug)]
pub(super) struct Universe<'b> {
    lists: Vec<(u32, &'b [u32])>,
    ends: Vec<usize>,
    pub(super) plan: Plan,
}

const FEW: usize = 32;

/// A list of each shard.
fn lists<'b>(bank: &'b Bank, list: impl Fn(&'b Shard) -> &'b [u32]) -> impl Iterator<Item = (u32, &'b [u32])> {
    (0u32..).zip(bank.shards()).map(move |(number, shard)| (number, list(shard)))
}

impl<'b> Universe<'b> {
    /// What may be drawn for an anchor, before filters.
    pub(super) fn new(bank: &'b Bank, eligibility: &Eligibility, anchor: &Anchor) -> Self {
        if let Some(group) = eligibility.only_group(anchor) {
            return Self::of(lists(bank, move |shard| shard.grouped(group)), Plan::PostingList);
        }
        if let Some(label) = eligibility.only_label(anchor) {
            return Self::labelled(bank, label);
        }
        let Some(labels) = eligibility.only_labels() else {
            return Self::of(lists(bank, Shard::roster), Plan::Roster);
        };
        let of_label = |&label: &i64| lists(bank, move |shard| shard.labelled(label));
        Self::of(labels.iter().flat_map(of_label), Plan::PostingList)
    }

    /// The entries of one label.
    pub(super) fn labelled(bank: &'b Bank, label: i64) -> Self {
        Self::of(lists(bank, move |shard| shard.labelled(label)), Plan::PostingList)
    }

    /// The entries whose weight has one binary exponent.
    pub(super) fn weighing(bank: &'b Bank, exponent: i16) -> Self {
        Self::of(lists(bank, move |shard| shard.weighing(exponent)), Plan::Roster)
    }

    fn of(lists: impl Iterator<Item = (u32, &'b [u32])>, plan: Plan) -> Self {
        let lists: Vec<_> = lists.filter(|(_, list)| !list.is_empty()).collect();
        let mut end = 0;
        let ends = lists
            .iter()
            .map(|(_, list)| {
                end += list.len();
                end
            })
            .collect();
        Self { lists, ends, plan }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or_default()
    }

    /// Entry number `at`, below [`Self::len`].
    pub(super) fn get(&self, at: usize) -> Place {
        // Few lists are counted through sooner than searched: no branch is mispredicted.
        let list = if self.ends.len() <= FEW {
            self.ends.iter().map(|&end| usize::from(end <= at)).sum()
        } else {
            self.ends.partition_point(|&end| end <= at)
        };
        let (shard, slots) = self.lists[list];
        let start = self.ends[list] - slots.len();
        Place { shard, slot: slots[at - start] }
    }

    /// The lists, each with its shard.
    pub(super) fn lists(&self) -> impl Iterator<Item = (u32, &'b [u32])> + '_ {
        self.lists.iter().copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Place> + '_ {
        self.lists.iter().flat_map(|&(shard, slots)| slots.iter().map(move |&slot| Place { shard, slot }))
    }
}
