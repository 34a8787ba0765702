//! The filters of several draws, as one scan asks for them.

use super::anchors::Anchor;
use super::eligibility::Eligibility;
use super::filtered::Sift;
use super::search::identity;
use crate::bank::Columns;
use crate::index::{Admit, Identity};
use crate::kernels::coded::CodedHits;
use crate::model::{Reason, ReasonCounts};

/// Filters of the draws whose anchors are searched for together, probe by probe, and what each draw has rejected.
pub(super) struct JointSieve<'a> {
    probes: Vec<Seat<'a>>,
    rejections: Vec<ReasonCounts>,
}

/// One probe's place among the others.
struct Seat<'a> {
    draw: usize,
    anchor: &'a Anchor,
    eligibility: &'a Eligibility,
    /// The label whose entries are kept from the anchor, or none, if nothing else is.
    label: Option<Option<i64>>,
}

impl<'a> JointSieve<'a> {
    /// The sieve of these draws' anchors, probe after probe.
    pub(super) fn new(draws: impl Iterator<Item = (&'a [Anchor], &'a Eligibility)>) -> Self {
        let (mut probes, mut rejections) = (Vec::new(), Vec::new());
        for (draw, (anchors, eligibility)) in draws.enumerate() {
            rejections.push(ReasonCounts::default());
            let seat = |anchor| Seat { draw, anchor, eligibility, label: eligibility.rejects_at_most_a_label(anchor) };
            probes.extend(anchors.iter().map(seat));
        }
        Self { probes, rejections }
    }

    /// What each draw has rejected.
    pub(super) fn into_rejections(self) -> Vec<ReasonCounts> {
        self.rejections
    }

    /// Forgets what was rejected.
    pub(super) fn begin_again(&mut self) {
        self.rejections.fill(ReasonCounts::default());
    }
}

impl Sift for JointSieve<'_> {
    fn over<'s>(&'s mut self, columns: &'s Columns) -> impl Admit {
        Filtered { probes: &self.probes, rejections: &mut self.rejections, columns }
    }

    fn rejections(&mut self, probe: usize) -> &mut ReasonCounts {
        &mut self.rejections[self.probes[probe].draw]
    }
}

/// A [`JointSieve`] for the entries of one shard.
struct Filtered<'s, 'a> {
    probes: &'s [Seat<'a>],
    rejections: &'s mut [ReasonCounts],
    columns: &'s Columns,
}

impl Admit for Filtered<'_, '_> {
    fn admits(&mut self, probe: usize, slot: u32) -> bool {
        self.probes[probe].admits(self.columns, slot, self.rejections)
    }

    fn screen(&mut self, slot: u32, hits: &mut CodedHits) -> bool {
        let Self { probes, rejections, columns } = self;
        hits.retain(|row, probe| {
            let (seat, slot) = (&probes[probe as usize], slot + row);
            let Some(label) = seat.label else {
                return columns.is_occupied(slot) && seat.admits(columns, slot, rejections);
            };
            let other = columns.is_of_other(slot, label);
            let rejected = columns.is_occupied(slot) & !other;
            rejections[seat.draw].add(Reason::SameLabel, u64::from(rejected));
            other
        });
        true
    }

    fn is_occupied(&self, slot: u32) -> bool {
        self.columns.is_occupied(slot)
    }

    fn out_of_range(&mut self, probe: usize) {
        self.rejections[self.probes[probe].draw].add(Reason::Score, 1);
    }

    fn identity(&self, slot: u32) -> Option<Identity> {
        identity(self.columns, slot)
    }
}

impl Seat<'_> {
    fn admits(&self, columns: &Columns, slot: u32, rejections: &mut [ReasonCounts]) -> bool {
        let reason = self.eligibility.rejects(self.anchor, columns, slot);
        if let Some(reason) = reason {
            rejections[self.draw].add(reason, 1);
        }
        reason.is_none()
    }
}
