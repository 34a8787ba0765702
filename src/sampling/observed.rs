//! Which states of the bank an answer was read from.

use crossbeam_utils::sync::ShardedLockReadGuard;

use super::anchors::{self, Anchor};
use super::indexed::Indexed;
use super::source::Source;
use crate::bank::Bank;
use crate::model::SampleQuery;
use crate::rows::Poisoned;

/// The first and the last state of a bank that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Bank's sequence at the first read.
    pub sequence_first: u64,
    /// Bank's sequence at the last read.
    pub sequence_last: u64,
    /// Bank's change counter at the first and the last read; equal if no write came between.
    pub revisions: (u64, u64),
    /// Bank's step at the last read.
    pub step: Option<u64>,
    /// True if a read fell into the middle of a mutation.
    pub between: bool,
}

/// Reads a bank and remembers what it has seen.
pub(super) struct Observed<'a> {
    source: Source<'a>,
    seen: Option<Seen>,
}

impl Seen {
    /// True if everything was read from one state between two mutations.
    pub fn is_one_state(&self) -> bool {
        self.revisions.0 == self.revisions.1 && !self.between
    }

    /// What both have seen.
    pub(super) fn and(self, other: Self) -> Self {
        let last = if other.revisions.1 >= self.revisions.1 { other } else { self };
        Self {
            sequence_first: self.sequence_first.min(other.sequence_first),
            revisions: (self.revisions.0.min(other.revisions.0), last.revisions.1),
            between: self.between || other.between,
            ..last
        }
    }
}

impl<'a> Observed<'a> {
    pub(super) fn new(source: Source<'a>) -> Self {
        Self { source, seen: None }
    }

    /// The bank's index, if it is searched by one.
    pub(super) fn indexed(&self) -> Option<&'a Indexed> {
        self.source.indexed
    }

    /// Holds the bank for reading.
    pub(super) fn read(&mut self) -> Result<ShardedLockReadGuard<'a, Bank>, Poisoned> {
        let bank = self.source.bank.read()?;
        let now = Seen {
            sequence_first: bank.sequence(),
            sequence_last: bank.sequence(),
            revisions: (bank.revision(), bank.revision()),
            step: bank.step(),
            between: bank.is_applying(),
        };
        self.seen = Some(self.seen.map_or(now, |seen| seen.and(now)));
        Ok(bank)
    }

    /// Takes note of what another has read for the same answer.
    pub(super) fn saw(&mut self, seen: Seen) {
        self.seen = Some(self.seen.map_or(seen, |mine| mine.and(seen)));
    }

    /// What was read; reads once if nothing was.
    pub(super) fn seen(mut self) -> Result<Seen, Poisoned> {
        if self.seen.is_none() {
            drop(self.read()?);
        }
        self.seen.ok_or(Poisoned)
    }

    /// `anchor` as it would be looked up in the bank now, if the bank has changed since the first read and that differs.
    pub(super) fn anchor_now(&self, bank: &Bank, query: &SampleQuery, anchor: &Anchor) -> Option<Anchor> {
        let began = self.seen.map(|seen| seen.revisions.0);
        if began == Some(bank.revision()) { None } else { anchors::changed(bank, query, anchor) }
    }
}
