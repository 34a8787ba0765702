//! The committer: one thread per bank that gives every mutation its place in the bank's one order.

use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::EngineError;
use super::maintenance::BankIndex;
use crate::bank::{Bank, Known};
use crate::model::{Applied, BankKind, BankName, Invalid, Mutation, WriteBatch};
use crate::rows::Shared;

/// Rows applied in one hold of the bank's lock.
const ROWS_PER_HOLD: usize = 256;

/// Called with what came of a mutation.
pub(super) type Acknowledge = Box<dyn FnOnce(Result<Applied, EngineError>) + Send>;

/// Called with the sequence of each applied mutation.
pub(super) type Announce = Box<dyn Fn(u64) + Send>;

/// The way to a bank's committer thread, which ends when all clones of this are dropped and what is queued has been applied.
#[derive(Debug, Clone)]
pub(super) struct Committer {
    queue: Sender<(Mutation, Acknowledge)>,
    bound: usize,
}

impl Committer {
    /// Starts the committer of `bank`, with room for `bound` waiting mutations; a keyed bank without a capacity grows to
    /// `max_entries` at most. `announce` hears of a mutation before whoever sent it does.
    pub(super) fn start(
        name: &BankName,
        (bank, index): (Arc<Shared<Bank>>, Option<Arc<BankIndex>>),
        bound: usize,
        max_entries: usize,
        announce: Announce,
    ) -> std::io::Result<Self> {
        let (queue, mutations) = bounded(bound);
        let run = move || run(&bank, index.as_deref(), &mutations, max_entries, &announce);
        thread::Builder::new().name(format!("commit-{name}")).spawn(run)?;
        Ok(Self { queue, bound })
    }

    /// Queues a mutation; `acknowledge` hears when every later read sees it, or that it was refused. It hears nothing of a full queue.
    pub(super) fn submit(&self, mutation: Mutation, acknowledge: Acknowledge) -> Result<(), EngineError> {
        self.queue.try_send((mutation, acknowledge)).map_err(|refused| match refused {
            TrySendError::Full(_) => {
                EngineError::Busy { queue: "the bank's write queue", limit: self.bound, setting: "compute.write_queue" }
            }
            TrySendError::Disconnected(_) => EngineError::Internal("the bank's committer has ended"),
        })
    }
}

fn run(
    bank: &Shared<Bank>,
    index: Option<&BankIndex>,
    mutations: &Receiver<(Mutation, Acknowledge)>,
    max_entries: usize,
    announce: &Announce,
) {
    for (mutation, acknowledge) in mutations {
        let result = apply(bank, index, &mutation, max_entries);
        if let Ok(applied) = &result
            && !applied.duplicate
        {
            announce(applied.sequence);
        }
        acknowledge(result);
    }
}

fn apply(
    bank: &Shared<Bank>,
    index: Option<&BankIndex>,
    mutation: &Mutation,
    max_entries: usize,
) -> Result<Applied, EngineError> {
    // Only this thread changes the bank, so what is seen beside its readers still holds when it is applied.
    let (arrivals, entries, kind) = {
        let bank = bank.read()?;
        for batch in mutation.batches() {
            match (known(&bank, batch)?, mutation) {
                (None, _) => {}
                (Some(done), Mutation::Write(_)) => return Ok(done),
                // Whoever writes to a stage was not known when it did.
                (Some(_), _) => {
                    let reason = "another write of the stage's writers has this number and was applied meanwhile";
                    return Err(Invalid::one("origin.number", reason).into());
                }
            }
        }
        (bank.arrivals(mutation), bank.entries(), bank.spec().kind())
    };
    let unbounded = matches!(kind, BankKind::Keyed { capacity: None, .. });
    let more: usize = arrivals.iter().sum();
    if unbounded && more > 0 && entries + more > max_entries {
        let setting = "limits.max_entries";
        return Err(EngineError::LimitReached { what: "the number of a bank's entries", limit: max_entries, setting });
    }
    bank.write()?.reserve(&arrivals).map_err(|refused| EngineError::OutOfMemory(refused.to_string()))?;
    let mut applied = Applied::default();
    let mut next = Some(0);
    while let Some(row) = next {
        next = bank.write()?.apply(mutation, row, ROWS_PER_HOLD, &mut applied);
        if let Some(index) = index {
            index.indexed.follow(&*bank.read()?);
        }
    }
    Ok(applied)
}

/// What came of a batch that was applied before; `None` if it was not.
pub(super) fn known(bank: &Bank, batch: &WriteBatch) -> Result<Option<Applied>, EngineError> {
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
