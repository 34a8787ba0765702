//! The committer: one thread per bank that gives every mutation its place in the bank's one order.

use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};

use super::EngineError;
use super::acknowledge::Acknowledge;
use super::group::Group;
use super::journal::Journal;
use super::maintenance::BankIndex;
use crate::bank::{Bank, Budget, Cut, Known};
use crate::model::{Applied, BankImage, BankKind, BankName, Invalid, Mutation, WriteBatch};
use crate::rows::Shared;

/// Rows applied in one hold of the bank's lock.
const ROWS_PER_HOLD: usize = 256;

/// Called with the sequence of each applied mutation.
pub(super) type Announce = Box<dyn Fn(u64) + Send>;

/// Called when everything before it is on disk, or with why it is not.
pub(super) type Flushed = Box<dyn FnOnce(Result<(), EngineError>) + Send>;

/// The way to a bank's committer thread, which ends when all clones of this are dropped and what is queued has been applied.
#[derive(Debug, Clone)]
pub(super) struct Committer {
    queue: Sender<Request>,
    bound: usize,
}

/// Called with a bank as it is between two mutations.
pub(super) type Taken = Box<dyn FnOnce(Result<(BankImage, Arc<Cut>), EngineError>) + Send>;

enum Request {
    Mutate(Mutation, Acknowledge),
    Flush(Flushed),
    Cut(Budget, Taken),
}

/// What a committer works on.
pub(super) struct Work {
    pub(super) name: BankName,
    pub(super) bank: Arc<Shared<Bank>>,
    pub(super) index: Option<Arc<BankIndex>>,
    /// `None`: nothing outlives the process.
    pub(super) journal: Option<Journal>,
    /// What is wrong with its files, if that is why it takes no writes.
    pub(super) damage: Option<String>,
    /// Entries to which a keyed bank without a capacity grows at most.
    pub(super) max_entries: usize,
    /// Hears of a mutation before whoever sent it does.
    pub(super) announce: Announce,
}

impl Committer {
    /// Starts the committer of a bank, with room for `bound` waiting mutations.
    pub(super) fn start(work: Work, bound: usize) -> std::io::Result<Self> {
        let (queue, requests) = bounded(bound);
        thread::Builder::new().name(format!("commit-{}", work.name)).spawn(move || work.run(&requests))?;
        Ok(Self { queue, bound })
    }

    /// Queues a mutation; `acknowledge` hears when every later read sees it, or that it was refused. It hears nothing of a full queue.
    pub(super) fn submit(&self, mutation: Mutation, acknowledge: Acknowledge) -> Result<(), EngineError> {
        self.queue.try_send(Request::Mutate(mutation, acknowledge)).map_err(|refused| match refused {
            TrySendError::Full(_) => {
                EngineError::Busy { queue: "the bank's write queue", limit: self.bound, setting: "compute.write_queue" }
            }
            TrySendError::Disconnected(_) => EngineError::Internal("the bank's committer has ended"),
        })
    }

    /// Syncs what was queued before, whatever the bank's policy. Waits for room in the queue.
    pub(super) fn flush(&self, flushed: Flushed) {
        // A committer that has ended has flushed.
        let _ended = self.queue.send(Request::Flush(flushed));
    }

    /// Takes the bank as it is after what was queued before. Waits for room in the queue.
    pub(super) fn cut(&self, budget: Budget, taken: Taken) {
        // Whoever waits hears of a committer that has ended by what it waits on.
        let _ended = self.queue.send(Request::Cut(budget, taken));
    }
}

/// What may become of a mutation, before it is numbered.
enum Decided {
    /// Nothing can refuse it; new entries that it and the group before it could add to each shard.
    Joins(Vec<usize>),
    /// It was applied before.
    Done(Applied),
    /// That depends on what becomes of the group before it.
    Waits,
}

impl Work {
    fn run(mut self, requests: &Receiver<Request>) {
        let mut left = None;
        while let Some(request) = left.take().or_else(|| self.next(requests)) {
            match request {
                Request::Mutate(mutation, acknowledge) => left = self.commit((mutation, acknowledge), requests),
                Request::Flush(flushed) => flushed(self.sync()),
                Request::Cut(budget, taken) => taken(self.cut(budget)),
            }
        }
        // Whoever is left to hear of a failure reads the log.
        let _failed = self.sync();
    }

    /// The next request; the log is kept up meanwhile. A failure the journal remembers, and tells whoever writes next.
    fn next(&mut self, requests: &Receiver<Request>) -> Option<Request> {
        loop {
            let Some(journal) = &mut self.journal else { return requests.recv().ok() };
            let due = journal.due().map_or_else(crossbeam_channel::never, crossbeam_channel::at);
            select! {
                recv(requests) -> request => return request.ok(),
                recv(journal.synced()) -> synced => match synced {
                    Ok(synced) => drop(journal.note_synced(synced)),
                    Err(_) => return requests.recv().ok(),
                },
                recv(due) -> _ => drop(journal.keep_up()),
            }
        }
    }

    fn cut(&self, budget: Budget) -> Result<(BankImage, Arc<Cut>), EngineError> {
        let image = self.bank.read()?.image();
        Ok((image, self.bank.write()?.begin_cut(budget)))
    }

    fn sync(&mut self) -> Result<(), EngineError> {
        self.journal.as_mut().map_or(Ok(()), Journal::sync)
    }

    /// Logs and applies a mutation, together with those that wait already; returns the request that comes after them, if that was taken.
    fn commit(&mut self, first: (Mutation, Acknowledge), requests: &Receiver<Request>) -> Option<Request> {
        let mut group = Group::default();
        let mut next = Some(Request::Mutate(first.0, first.1));
        let left = loop {
            match next.take() {
                None => break None,
                Some(Request::Mutate(mutation, mut acknowledge)) => {
                    acknowledge.begin();
                    match self.decide(&mutation, &group) {
                        Ok(Decided::Joins(arrivals)) => group.push(mutation, acknowledge, arrivals),
                        Ok(Decided::Done(applied)) => acknowledge.tell(Ok(applied)),
                        Ok(Decided::Waits) => break Some(Request::Mutate(mutation, acknowledge)),
                        Err(refused) => acknowledge.tell(Err(refused)),
                    }
                }
                Some(other) => break Some(other),
            }
            // Only a log makes company worth while.
            let joins = group.is_empty() || (self.journal.is_some() && group.has_room());
            next = joins.then(|| requests.try_recv().ok()).flatten();
        };
        match self.record(&group) {
            Ok(()) => group.into_members().for_each(|(mutation, acknowledge)| {
                let result = self.apply(&mutation);
                if let Ok(applied) = &result {
                    (self.announce)(applied.sequence);
                }
                acknowledge.tell(result);
            }),
            Err(failed) => group.into_members().for_each(|(_, acknowledge)| acknowledge.tell(Err(failed.clone()))),
        }
        if let Some(journal) = &mut self.journal
            && journal.wants_snapshot()
        {
            // The journal remembers a failure, and tells whoever writes next.
            let _failed = journal.begin_snapshot(&self.bank);
        }
        left
    }

    fn decide(&self, mutation: &Mutation, group: &Group) -> Result<Decided, EngineError> {
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
                if batch.origin().is_some_and(|origin| !group.leaves_known(origin)) {
                    return Ok(Decided::Waits);
                }
            }
            (bank.arrivals(mutation), bank.entries(), bank.spec().kind())
        };
        if let Some(journal) = &self.journal {
            journal.check()?;
        }
        let unbounded = matches!(kind, BankKind::Keyed { capacity: None, .. });
        let alone: usize = arrivals.iter().sum();
        let arrivals = group.arrivals_with(&arrivals);
        let more: usize = arrivals.iter().sum();
        if unbounded && alone > 0 && entries + more > self.max_entries {
            if !group.is_empty() {
                return Ok(Decided::Waits);
            }
            let (limit, setting) = (self.max_entries, "limits.max_entries");
            return Err(EngineError::LimitReached { what: "the number of a bank's entries", limit, setting });
        }
        self.bank.write()?.reserve(&arrivals).map_err(|refused| EngineError::OutOfMemory(refused.to_string()))?;
        Ok(Decided::Joins(arrivals))
    }

    /// Makes a group as safe as the bank's policy says, before anything of it is seen.
    fn record(&mut self, group: &Group) -> Result<(), EngineError> {
        let Some(journal) = self.journal.as_mut().filter(|_| !group.is_empty()) else { return Ok(()) };
        let first = self.bank.read()?.sequence() + 1;
        journal.record(first, group.mutations())
    }

    fn apply(&self, mutation: &Mutation) -> Result<Applied, EngineError> {
        let mut applied = Applied::default();
        let mut next = Some(0);
        while let Some(row) = next {
            next = self.bank.write()?.apply(mutation, row, ROWS_PER_HOLD, &mut applied);
            if let Some(index) = &self.index {
                index.indexed.follow(&*self.bank.read()?);
            }
        }
        Ok(applied)
    }
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
