//! The last changes.

use std::collections::VecDeque;
use std::num::NonZeroU64;

use super::state::Place;

/// A changed row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Where it lies, or lay.
    pub place: Place,
    /// Stamp of the entry that left, if one did.
    pub left: Option<NonZeroU64>,
}

/// The last [`Recent::LEN`] changes, and which of them each mutation of that span made.
#[derive(Debug)]
pub(super) struct Recent {
    /// Change number r lies at r modulo the length.
    changes: Vec<Change>,
    /// Number of the last change.
    last: u64,
    /// Changes up to this one are not remembered, whatever their number.
    forgotten: u64,
    /// Mutations that changed something: their sequence, and the number of their last change.
    ends: VecDeque<(u64, u64)>,
}

impl Default for Recent {
    fn default() -> Self {
        Self { changes: Vec::new(), last: 0, forgotten: 0, ends: VecDeque::from([(0, 0)]) }
    }
}

impl Recent {
    /// Changes remembered: 1 MiB, and as much again where every mutation changes one row.
    const LEN: u64 = 65_536;

    /// Nothing is remembered of what came before mutation `sequence` made change number `revision`, its last.
    pub(super) fn restore(sequence: u64, revision: u64) -> Self {
        Self { changes: Vec::new(), last: revision, forgotten: revision, ends: VecDeque::from([(sequence, revision)]) }
    }

    /// Notes change number `revision`; they come in order, from 1 on.
    pub(super) fn note(&mut self, revision: u64, change: Change) {
        let at = (revision % Self::LEN) as usize;
        if at >= self.changes.len() {
            self.changes.resize(at + 1, change);
        }
        self.changes[at] = change;
        self.last = revision;
    }

    /// Notes that mutation `sequence` has made its last change.
    pub(super) fn end(&mut self, sequence: u64) {
        if self.ends.back().is_none_or(|&(_, end)| end < self.last) {
            self.ends.push_back((sequence, self.last));
        }
        while self.ends.front().is_some_and(|&(_, end)| self.last - end > Self::LEN) {
            self.ends.pop_front();
        }
    }

    /// Number of the last change that the mutations up to `sequence` made; `None` if it is forgotten.
    pub(super) fn end_of(&self, sequence: u64) -> Option<u64> {
        let later = self.ends.partition_point(|&(ended, _)| ended <= sequence);
        self.ends.get(later.checked_sub(1)?).map(|&(_, end)| end)
    }

    /// Changes `after + 1 ..= until`; `None` if some are forgotten.
    pub(super) fn between(&self, after: u64, until: u64) -> Option<impl Iterator<Item = Change> + '_> {
        let remembered = self.last.saturating_sub(after) <= Self::LEN && after >= self.forgotten;
        remembered.then(|| (after + 1..=until).map(|revision| self.changes[(revision % Self::LEN) as usize]))
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, Place, Recent};

    fn note(recent: &mut Recent, revisions: std::ops::RangeInclusive<u64>) {
        for revision in revisions {
            recent.note(revision, Change { place: Place { shard: 0, slot: revision as u32 }, left: None });
        }
    }

    fn slots(recent: &Recent, after: u64, until: u64) -> Option<Vec<u64>> {
        recent.between(after, until).map(|changes| changes.map(|change| u64::from(change.place.slot)).collect())
    }

    #[test]
    fn a_span_is_remembered_whole_or_not_at_all() {
        let mut recent = Recent::default();
        assert_eq!((recent.end_of(0), slots(&recent, 0, 0)), (Some(0), Some(vec![])));
        note(&mut recent, 1..=Recent::LEN);
        recent.end(1);
        assert_eq!(slots(&recent, 0, Recent::LEN), Some((1..=Recent::LEN).collect()));
        assert_eq!((recent.end_of(0), recent.end_of(1)), (Some(0), Some(Recent::LEN)));
        note(&mut recent, Recent::LEN + 1..=Recent::LEN + 5);
        assert_eq!(slots(&recent, 4, Recent::LEN), None, "the fifth is overwritten");
        assert_eq!(slots(&recent, 5, Recent::LEN + 5).map(|slots| (slots.len(), slots[0])), Some((65_536, 6)));
        recent.end(2);
        assert_eq!(recent.end_of(0), None);
    }

    #[test]
    fn mutations_that_change_nothing_take_no_memory() {
        let mut recent = Recent::default();
        note(&mut recent, 1..=3);
        recent.end(1);
        (2..=1_000_000).for_each(|sequence| recent.end(sequence));
        assert_eq!((recent.ends.len(), recent.end_of(999_999)), (2, Some(3)));
        note(&mut recent, 4..=4);
        recent.end(1_000_001);
        assert_eq!((recent.end_of(1_000_000), recent.end_of(1_000_001), recent.end_of(0)), (Some(3), Some(4), Some(0)));
    }
}
