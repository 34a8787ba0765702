//! The committer: one thread per bank that gives every mutation its place in the bank's one order.

use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::EngineError;
use crate::bank::Bank;
use crate::model::{Applied, BankKind, BankName, Mutation};
use crate::rows::Shared;

/// Rows applied in one hold of the bank's lock.
const ROWS_PER_HOLD: usize = 256;

/// Called with what came of a mutation.
pub(super) type Acknowledge = Box<dyn FnOnce(Result<Applied, EngineError>) + Send>;

/// The way to a bank's committer thread, which ends when this is dropped and what is queued has been applied.
#[derive(Debug)]
pub(super) struct Committer {
    queue: Sender<(Mutation, Acknowledge)>,
    bound: usize,
}

impl Committer {
    /// Starts the committer of `bank`, with room for `bound` waiting mutations; a keyed bank grows to `max_entries` at most.
    pub(super) fn start(name: &BankName, bank: Arc<Shared<Bank>>, bound: usize, max_entries: usize) -> std::io::Result<Self> {
        let (queue, mutations) = bounded(bound);
        thread::Builder::new().name(format!("commit-{name}")).spawn(move || run(&bank, &mutations, max_entries))?;
        Ok(Self { queue, bound })
    }

    /// Queues a mutation; `acknowledge` hears when every later read sees it. Refuses if the queue is full.
    pub(super) fn submit(&self, mutation: Mutation, acknowledge: Acknowledge) -> Result<(), EngineError> {
        self.queue.try_send((mutation, acknowledge)).map_err(|refused| match refused {
            TrySendError::Full(_) => {
                EngineError::Busy { queue: "the bank's write queue", limit: self.bound, setting: "compute.write_queue" }
            }
            TrySendError::Disconnected(_) => EngineError::Internal("the bank's committer has ended"),
        })
    }
}

fn run(bank: &Shared<Bank>, mutations: &Receiver<(Mutation, Acknowledge)>, max_entries: usize) {
    for (mutation, acknowledge) in mutations {
        acknowledge(apply(bank, &mutation, max_entries));
    }
}

fn apply(bank: &Shared<Bank>, mutation: &Mutation, max_entries: usize) -> Result<Applied, EngineError> {
    // Only this thread changes the bank, so what is counted beside its readers still holds when it is applied.
    let (arrivals, entries, kind) = {
        let bank = bank.read()?;
        (bank.arrivals(mutation), bank.entries(), bank.spec().kind())
    };
    let keyed = matches!(kind, BankKind::Keyed { .. });
    let more: usize = arrivals.iter().sum();
    if keyed && more > 0 && entries + more > max_entries {
        let setting = "limits.max_entries";
        return Err(EngineError::LimitReached { what: "the number of a bank's entries", limit: max_entries, setting });
    }
    bank.write()?.reserve(&arrivals).map_err(|refused| EngineError::OutOfMemory(refused.to_string()))?;
    let mut applied = Applied::default();
    let mut next = Some(0);
    while let Some(row) = next {
        next = bank.write()?.apply(mutation, row, ROWS_PER_HOLD, &mut applied);
    }
    Ok(applied)
}
