//! The filters of a draw, as a scan asks for them.

use super::anchors::Anchor;
use super::eligibility::Eligibility;
use super::search::identity;
use crate::bank::Columns;
use crate::index::{Admit, Identity};
use crate::model::{Reason, ReasonCounts};

/// A draw's filters for the anchors that are searched for.
#[derive(Debug)]
pub(super) struct Sieve<'a> {
    anchors: &'a [Anchor],
    eligibility: &'a Eligibility,
    /// Of each anchor from which nothing is kept but one label's entries, that label: the most frequent case, asked of thousands of
    /// entries an anchor.
    one_label: Vec<Option<i64>>,
}

impl<'a> Sieve<'a> {
    pub(super) fn new(anchors: &'a [Anchor], eligibility: &'a Eligibility) -> Self {
        let one_label = anchors.iter().map(|anchor| eligibility.rejects_one_label(anchor)).collect();
        Self { anchors, eligibility, one_label }
    }

    /// The sieve for entries of these columns; what it rejects is counted.
    pub(super) fn of<'s>(&'s self, columns: &'s Columns, rejections: &'s mut ReasonCounts) -> Filtered<'s> {
        Filtered { anchors: self.anchors, eligibility: self.eligibility, one_label: &self.one_label, columns, rejections }
    }
}

/// A [`Sieve`] for the entries of one shard.
#[derive(Debug)]
pub(super) struct Filtered<'a> {
    anchors: &'a [Anchor],
    eligibility: &'a Eligibility,
    one_label: &'a [Option<i64>],
    columns: &'a Columns,
    rejections: &'a mut ReasonCounts,
}

impl Admit for Filtered<'_> {
    fn admits(&mut self, probe: usize, slot: u32) -> bool {
        let reason = match self.one_label[probe] {
            Some(label) => (self.columns.label(slot) == Some(label)).then_some(Reason::SameLabel),
            None => self.eligibility.rejects(&self.anchors[probe], self.columns, slot),
        };
        if let Some(reason) = reason {
            self.rejections.add(reason, 1);
        }
        reason.is_none()
    }

    fn is_occupied(&self, slot: u32) -> bool {
        self.columns.is_occupied(slot)
    }

    fn expect(&self, slot: u32) {
        self.columns.prefetch_filtered(slot);
    }

    fn out_of_range(&mut self) {
        self.rejections.add(Reason::Score, 1);
    }

    fn identity(&self, slot: u32) -> Option<Identity> {
        identity(self.columns, slot)
    }
}
