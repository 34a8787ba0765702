//! Which states of the bank an answer was read from.

use crossbeam_utils::sync::ShardedLockReadGuard;

use super::anchors::{self, Anchor};
use crate::bank::Bank;
use crate::model::SampleQuery;
use crate::rows::{Poisoned, Shared};

/// Reads a bank and remembers the first and last state it saw.
#[derive(Debug)]
pub(super) struct Observed<'a> {
    bank: &'a Shared<Bank>,
    pub(super) sequences: Option<(u64, u64)>,
    pub(super) revisions: (u64, u64),
    pub(super) step: Option<u64>,
    /// True if a read fell into the middle of a mutation.
    pub(super) between: bool,
}

impl<'a> Observed<'a> {
    pub(super) fn new(bank: &'a Shared<Bank>) -> Self {
        Self { bank, sequences: None, revisions: (0, 0), step: None, between: false }
    }

    /// `anchor` as it would be looked up in the bank now, if the bank has changed and that differs.
    pub(super) fn anchor_now(&self, bank: &Bank, query: &SampleQuery, anchor: &Anchor) -> Option<Anchor> {
        if bank.revision() == self.revisions.0 { None } else { anchors::changed(bank, query, anchor) }
    }

    /// Holds the bank for reading.
    pub(super) fn read(&mut self) -> Result<ShardedLockReadGuard<'a, Bank>, Poisoned> {
        let bank = self.bank.read()?;
        let (first_sequence, first_revision) =
            self.sequences.map_or((bank.sequence(), bank.revision()), |(first, _)| (first, self.revisions.0));
        self.sequences = Some((first_sequence, bank.sequence()));
        self.revisions = (first_revision, bank.revision());
        self.step = bank.step();
        self.between |= bank.is_applying();
        Ok(bank)
    }
}
