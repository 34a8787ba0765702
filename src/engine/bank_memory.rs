//! What one bank takes of the ledger.

use super::EngineError;
use super::ledger::{Ledger, Part, Share};
use crate::bank::Bank;

/// The memory of a bank's entries, kept up to date by its committer.
#[derive(Debug)]
pub(super) struct BankMemory {
    ledger: Ledger,
    rows: Share,
    cuts: Share,
}

impl BankMemory {
    pub(super) fn of(bank: &Bank, ledger: &Ledger) -> Self {
        let memory = Self { ledger: ledger.clone(), rows: ledger.share(Part::Rows), cuts: ledger.share(Part::Cuts) };
        memory.note(bank);
        memory
    }

    /// Whether the bank may grow by what `arrivals` new entries of each shard take, for a mutation that takes `own` bytes itself.
    pub(super) fn may_grow(&self, bank: &Bank, arrivals: &[usize], own: usize) -> Result<(), EngineError> {
        match bank.growth(arrivals) {
            0 => Ok(()),
            more => self.ledger.may_grow(more, own),
        }
    }

    /// Notes what the bank takes now.
    pub(super) fn note(&self, bank: &Bank) {
        self.rows.set(bank.resident());
        self.cuts.set(bank.aside());
    }
}
