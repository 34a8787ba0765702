//! The filters of a draw, as a scan asks for them.

use super::anchors::Anchor;
use super::eligibility::Eligibility;
use super::search::identity;
use crate::bank::Columns;
use crate::index::{Admit, Identity};
use crate::kernels::coded::{Barred, CodedHits};
use crate::model::{Reason, ReasonCounts};

/// The filters of all probes of a scan, and where it is noted what they reject.
pub(super) trait Sift {
    /// The filters for entries of these columns.
    fn over<'s>(&'s mut self, columns: &'s Columns) -> impl Admit;

    /// What is rejected on behalf of a probe.
    fn rejections(&mut self, probe: usize) -> &mut ReasonCounts;
}

/// One draw's sieve, and what it has rejected.
#[derive(Debug)]
pub(super) struct OfOneDraw<'r, 'a> {
    pub(super) sieve: Sieve<'a>,
    pub(super) rejections: &'r mut ReasonCounts,
}

impl Sift for OfOneDraw<'_, '_> {
    fn over<'s>(&'s mut self, columns: &'s Columns) -> impl Admit {
        self.sieve.of(columns, self.rejections)
    }

    fn rejections(&mut self, _probe: usize) -> &mut ReasonCounts {
        self.rejections
    }
}

/// The filters of some of the probes of a scan, numbered anew in this order.
#[derive(Debug)]
pub(super) struct OfSome<'s, S> {
    pub(super) sift: &'s mut S,
    pub(super) probes: &'s [usize],
}

impl<S: Sift> Sift for OfSome<'_, S> {
    fn over<'s>(&'s mut self, columns: &'s Columns) -> impl Admit {
        Renumbered { admit: self.sift.over(columns), probes: self.probes }
    }

    fn rejections(&mut self, probe: usize) -> &mut ReasonCounts {
        self.sift.rejections(self.probes[probe])
    }
}

struct Renumbered<'s, A> {
    admit: A,
    probes: &'s [usize],
}

impl<A: Admit> Admit for Renumbered<'_, A> {
    fn admits(&mut self, probe: usize, slot: u32) -> bool {
        self.admit.admits(self.probes[probe], slot)
    }

    fn expect(&self, slot: u32) {
        self.admit.expect(slot);
    }

    fn classes(&self, slot: u32, classes: &mut [u32]) -> bool {
        self.admit.classes(slot, classes)
    }

    fn own_class(&self, probe: usize) -> u32 {
        self.admit.own_class(self.probes[probe])
    }

    fn left_out(&mut self, hits: u64) {
        self.admit.left_out(hits);
    }

    fn out_of_range(&mut self, probe: usize) {
        self.admit.out_of_range(self.probes[probe]);
    }

    fn identity(&self, slot: u32) -> Option<Identity> {
        self.admit.identity(slot)
    }

    fn is_occupied(&self, slot: u32) -> bool {
        self.admit.is_occupied(slot)
    }
}

/// A draw's filters for the anchors that are searched for.
#[derive(Debug)]
pub(super) struct Sieve<'a> {
    anchors: &'a [Anchor],
    eligibility: &'a Eligibility,
    /// Of each anchor the label whose entries are kept from it, if nothing else is kept from any of them: the most frequent case. The tile
    /// leaves such entries out by itself, and the rest is asked in one pass.
    labels: Option<Vec<Option<i64>>>,
}

impl<'a> Sieve<'a> {
    pub(super) fn new(anchors: &'a [Anchor], eligibility: &'a Eligibility) -> Self {
        let labels = anchors.iter().map(|anchor| eligibility.rejects_at_most_a_label(anchor)).collect();
        Self { anchors, eligibility, labels }
    }

    /// The sieve for entries of these columns; what it rejects is counted.
    pub(super) fn of<'s>(&'s self, columns: &'s Columns, rejections: &'s mut ReasonCounts) -> Filtered<'s> {
        Filtered { sieve: self, columns, rejections }
    }
}

/// A [`Sieve`] for the entries of one shard.
#[derive(Debug)]
pub(super) struct Filtered<'a> {
    sieve: &'a Sieve<'a>,
    columns: &'a Columns,
    rejections: &'a mut ReasonCounts,
}

impl Admit for Filtered<'_> {
    fn admits(&mut self, probe: usize, slot: u32) -> bool {
        let reason = self.sieve.eligibility.rejects(&self.sieve.anchors[probe], self.columns, slot);
        if let Some(reason) = reason {
            self.rejections.add(reason, 1);
        }
        reason.is_none()
    }

    fn classes(&self, slot: u32, classes: &mut [u32]) -> bool {
        self.columns.classes(slot, classes);
        true
    }

    fn own_class(&self, probe: usize) -> u32 {
        let label = self.sieve.labels.as_ref().and_then(|labels| labels[probe]);
        label.and_then(Columns::class).unwrap_or(Barred::NO_ANCHORS)
    }

    fn left_out(&mut self, hits: u64) {
        self.rejections.add(Reason::SameLabel, hits);
    }

    fn screen(&mut self, slot: u32, hits: &mut CodedHits) -> bool {
        let Some(labels) = &self.sieve.labels else { return false };
        let columns = self.columns;
        let (before, mut free) = (hits.len(), 0);
        hits.retain(|row, anchor| {
            free += usize::from(!columns.is_occupied(slot + row));
            columns.is_of_other(slot + row, labels[anchor as usize])
        });
        self.rejections.add(Reason::SameLabel, (before - hits.len() - free) as u64);
        true
    }

    fn is_occupied(&self, slot: u32) -> bool {
        self.columns.is_occupied(slot)
    }

    fn expect(&self, slot: u32) {
        self.columns.prefetch_filtered(slot..slot + 1);
    }

    fn out_of_range(&mut self, _probe: usize) {
        self.rejections.add(Reason::Score, 1);
    }

    fn identity(&self, slot: u32) -> Option<Identity> {
        identity(self.columns, slot)
    }
}
