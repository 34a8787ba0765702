//! What a committer does to its bank.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::Announce;
use crate::bank::{Bank, Budget, Cut, Known};
use crate::engine::EngineError;
use crate::engine::bank_memory::BankMemory;
use crate::engine::group::{Flying, Group};
use crate::engine::journal::Alarm;
use crate::engine::maintenance::BankIndex;
use crate::model::{Applied, BankImage, BankKind, BankName, Invalid, Mutation, WriteBatch, clock};
use crate::rows::Shared;

/// Rows applied in one hold of the bank's lock.
const ROWS_PER_HOLD: usize = 256;

/// How long a copy of the bank may take to let the next rows be written.
const STUCK: Duration = Duration::from_secs(1);
/// A copy takes a MiB of rows in about that time.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// What a committer works on.
pub(in crate::engine) struct Work {
    pub(in crate::engine) name: BankName,
    pub(in crate::engine) bank: Arc<Shared<Bank>>,
    pub(in crate::engine) memory: Arc<BankMemory>,
    pub(in crate::engine) index: Option<Arc<BankIndex>>,
    /// What is wrong with its files, if that is why it takes no writes.
    pub(in crate::engine) damage: Option<String>,
    /// Entries to which a keyed bank without a capacity grows at most.
    pub(in crate::engine) max_entries: usize,
    /// Hears of a mutation before whoever sent it does.
    pub(in crate::engine) announce: Announce,
    /// Hears that no more are applied, and why.
    pub(in crate::engine) alarm: Alarm,
}

/// What may become of a mutation, before it is numbered.
pub(super) enum Decided {
    /// Nothing can refuse it; new entries that it and the group before it could add to each shard.
    Joins(Vec<usize>),
    /// It was applied before.
    Done(Applied),
    /// That depends on what becomes of the group before it.
    Waits,
}

impl Work {
    pub(super) fn cut(&self, budget: Budget, room: BankImage) -> Result<(BankImage, Arc<Cut>), EngineError> {
        let image = self.bank.read()?.image_in(room);
        Ok((image, self.bank.write()?.begin_cut(budget)))
    }

    /// What becomes of a mutation after those that fly and those of the group.
    pub(super) fn decide(&self, mutation: &Mutation, group: &Group, flying: &Flying) -> Result<Decided, EngineError> {
        if let Some(what) = &self.damage {
            return Err(EngineError::ReadOnly { name: self.name.clone(), what: what.clone() });
        }
        // Only this thread changes the bank, so what is seen beside its readers still holds when it is applied.
        let (arrivals, entries, kind) = {
            let bank = self.bank.read()?;
            for batch in mutation.batches() {
                match (known(&bank, batch)?, mutation) {
                    (None, _) => {}
                    (Some(done), Mutation::Write(_)) => return Ok(Decided::Done(done)),
                    // Whoever writes to a stage was not known when it did.
                    (Some(_), _) => {
                        let reason = "another write of the stage's writers has this number and was applied meanwhile";
                        return Err(Invalid::one("origin.number", reason).into());
                    }
                }
                let leave_known = |origin| group.leaves_known(origin) && flying.leaves_known(origin);
                if batch.origin().is_some_and(|origin| !leave_known(origin)) {
                    return Ok(Decided::Waits);
                }
            }
            (bank.arrivals(mutation), bank.entries(), bank.spec().kind())
        };
        let unbounded = matches!(kind, BankKind::Keyed { capacity: None, .. });
        let alone: usize = arrivals.iter().sum();
        let arrivals = group.arrivals_with(&arrivals);
        let with_flying = flying.arrivals_with(&arrivals);
        let more: usize = with_flying.iter().sum();
        if unbounded && alone > 0 && entries + more > self.max_entries {
            if !group.is_empty() || !flying.is_empty() {
                return Ok(Decided::Waits);
            }
            let (limit, setting) = (self.max_entries, "limits.max_entries");
            return Err(EngineError::LimitReached { what: "the number of a bank's entries", limit, setting });
        }
        if alone > 0
            && let Err(full) = self.memory.may_grow(&*self.bank.read()?, &with_flying, bytes(mutation))
        {
            return if group.is_empty() && flying.is_empty() { Err(full) } else { Ok(Decided::Waits) };
        }
        self.bank.write()?.reserve(&with_flying).map_err(|refused| EngineError::OutOfMemory(refused.to_string()))?;
        Ok(Decided::Joins(arrivals))
    }

    /// `keep_up` is called again and again while this waits.
    pub(super) fn apply(&self, mutation: &Mutation, keep_up: &dyn Fn()) -> Result<Applied, EngineError> {
        let mut applied = Applied::default();
        let mut next = Some(0);
        while let Some(row) = next {
            self.wait_for_copies(keep_up)?;
            next = self.bank.write()?.apply(mutation, row, ROWS_PER_HOLD, &mut applied);
            if let Some(index) = &self.index {
                index.indexed.follow(&*self.bank.read()?);
            }
        }
        self.memory.note(&*self.bank.read()?);
        Ok(applied)
    }

    /// Lets copies of the bank catch up that writes are not to overtake; one that comes no further fails.
    fn wait_for_copies(&self, keep_up: &dyn Fn()) -> Result<(), EngineError> {
        let mut waited = None;
        while self.bank.read()?.is_ahead_of_a_copy() {
            if waited.get_or_insert_with(clock::now).elapsed() > STUCK {
                self.bank.read()?.give_up_copies();
            }
            keep_up();
            thread::sleep(BETWEEN_LOOKS);
        }
        Ok(())
    }
}

/// What the rows of a mutation take while it waits.
fn bytes(mutation: &Mutation) -> usize {
    mutation.batches().iter().map(|batch| size_of_val(batch.embeddings().values())).sum()
}

/// What came of a batch that was applied before; `None` if it was not.
pub(in crate::engine) fn known(bank: &Bank, batch: &WriteBatch) -> Result<Option<Applied>, EngineError> {
    let Some(origin) = batch.origin() else { return Ok(None) };
    match bank.known(origin) {
        Known::No => Ok(None),
        Known::Applied { sequence, first_id } => {
            let numbered = if batch.is_numbered_by_bank() { batch.rows() as u64 } else { 0 };
            let assigned = (first_id..first_id + numbered).collect();
            Ok(Some(Applied { sequence, assigned, duplicate: true, ..Applied::default() }))
        }
        Known::Forgotten { highest } => {
            Err(EngineError::Forgotten { writer: origin.writer.name.to_string(), number: origin.number, highest })
        }
    }
}
