//! The committer: one thread per bank that gives every mutation its place in the bank's one order.

use std::cell::Cell;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};

use super::acknowledge::Acknowledge;
use super::bank_memory::BankMemory;
use super::group::Group;
use super::journal::Journal;
use super::logger::{Ended, Logger, Logging};
use super::maintenance::BankIndex;
use super::{EngineError, retry};
use crate::bank::{Bank, Budget, Cut, Known};
use crate::model::clock::{self, Deadline};
use crate::model::{Applied, BankImage, BankKind, BankName, Invalid, Mutation, WriteBatch};
use crate::rows::Shared;
use crate::sampling::Learnt;

/// Rows applied in one hold of the bank's lock.
const ROWS_PER_HOLD: usize = 256;

/// What a mutation is supposed to take before any was measured.
const FIRST_PACE_NS: f32 = 1e6;

/// Called with the sequence of each applied mutation.
pub(super) type Announce = Box<dyn Fn(u64) + Send>;

/// Called when everything before it is on disk, or with why it is not.
pub(super) type Flushed = Box<dyn FnOnce(Result<(), EngineError>) + Send>;

/// The way to a bank's committer thread, which ends when all clones of this are dropped and what is queued has been applied.
#[derive(Debug, Clone)]
pub(super) struct Committer {
    queue: Sender<Request>,
    bound: usize,
    /// Nanoseconds that a mutation takes.
    pace: Arc<Learnt>,
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
    pub(super) memory: Arc<BankMemory>,
    pub(super) index: Option<Arc<BankIndex>>,
    /// What is wrong with its files, if that is why it takes no writes.
    pub(super) damage: Option<String>,
    /// Entries to which a keyed bank without a capacity grows at most.
    pub(super) max_entries: usize,
    /// Hears of a mutation before whoever sent it does.
    pub(super) announce: Announce,
}

impl Committer {
    /// Starts the committer of a bank, with room for `bound` waiting mutations; without a journal nothing outlives the process.
    pub(super) fn start(work: Work, journal: Option<Journal>, bound: usize) -> std::io::Result<Self> {
        let (queue, requests) = bounded(bound);
        let logger = journal.as_ref().map(|_| Logger::start(&work.name)).transpose()?;
        let (name, journal) = (format!("commit-{}", work.name), journal.map(Box::new));
        let pace = Arc::new(Learnt::new(FIRST_PACE_NS));
        let committing = Committing { work, logger, journal, pace: Arc::clone(&pace), since: Cell::new(clock::now()) };
        thread::Builder::new().name(name).spawn(move || committing.run(&requests))?;
        Ok(Self { queue, bound, pace })
    }

    /// Queues a mutation; `acknowledge` hears when every later read sees it, or that it was refused. It hears nothing of a queue that is
    /// full, or in which it would wait past `deadline`.
    pub(super) fn submit(
        &self,
        mutation: Mutation,
        deadline: Option<Deadline>,
        acknowledge: Acknowledge,
    ) -> Result<(), EngineError> {
        let after = |mutations: usize| Duration::from_secs_f64((self.pace.get() * mutations as f64 / 1e9).min(1e6));
        let (done, now) = (after(self.queue.len()), clock::now());
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.instant().saturating_duration_since(now));
        if done > left {
            return Err(EngineError::Overloaded { done, left, retry_after: retry::after(done - left) });
        }
        self.queue.try_send(Request::Mutate(mutation, acknowledge)).map_err(|refused| match refused {
            TrySendError::Full(_) => {
                let retry_after = retry::after(after(self.bound / 2));
                let (queue, limit, setting) = ("the bank's write queue", self.bound, "compute.write_queue");
                EngineError::Busy { queue, limit, setting, retry_after }
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

/// What the thread has.
struct Committing {
    work: Work,
    /// `None`: nothing outlives the process.
    logger: Option<Logger>,
    /// Lent to the logger while it logs.
    journal: Option<Box<Journal>>,
    /// Nanoseconds that a mutation takes.
    pace: Arc<Learnt>,
    /// When there was first something to do since the last group was settled.
    since: Cell<Instant>,
}

impl Committing {
    fn run(mut self, requests: &Receiver<Request>) {
        let mut left = None;
        while let Some(request) = left.take().or_else(|| self.next(requests)) {
            match request {
                Request::Mutate(mutation, acknowledge) => match self.commit((mutation, acknowledge), requests) {
                    Ok(next) => left = next,
                    Err(Ended) => {
                        tracing::error!(bank = %self.work.name, "the thread that logs has ended: this is a defect of negbank, and the bank takes no more writes");
                        return;
                    }
                },
                Request::Flush(flushed) => flushed(self.sync()),
                Request::Cut(budget, taken) => taken(self.work.cut(budget)),
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

    fn sync(&mut self) -> Result<(), EngineError> {
        self.journal.as_mut().map_or(Ok(()), |journal| journal.sync())
    }

    /// Logs and applies a mutation and those that wait already, in groups: one is logged while the one before it is applied. Returns the
    /// request that comes after them, if that was taken; `Err`: the thread that logs has ended.
    fn commit(&mut self, first: (Mutation, Acknowledge), requests: &Receiver<Request>) -> Result<Option<Request>, Ended> {
        self.since.set(clock::now());
        let mut left = Some(Request::Mutate(first.0, first.1));
        // What is being logged.
        let mut flying = Group::default();
        loop {
            let mut group = Group::default();
            self.fill(&mut group, &flying, &mut left, requests);
            if flying.is_empty() {
                if group.is_empty() {
                    return Ok(left);
                }
                // Waking another thread is worth it only if several write at once: then the next are here before this is applied.
                if self.journal.is_none() || (group.len() == 1 && left.is_none() && requests.is_empty()) {
                    let recorded = self.record(&group);
                    self.settle(group, &recorded);
                    self.begin_due_snapshot();
                    continue;
                }
            } else {
                let recorded = self.land()?;
                // Meanwhile more have come.
                self.fill(&mut group, &flying, &mut left, requests);
                if group.is_empty() || self.wants_snapshot() {
                    self.settle(std::mem::take(&mut flying), &recorded);
                    self.begin_due_snapshot();
                    if group.is_empty() {
                        continue;
                    }
                } else {
                    self.launch(&group, flying.len())?;
                    self.settle(std::mem::replace(&mut flying, group), &recorded);
                    continue;
                }
            }
            self.launch(&group, 0)?;
            flying = group;
        }
    }

    /// Adds to `group` what waits and can't be refused any more, until another kind of request comes, which is `left`.
    fn fill(&self, group: &mut Group, flying: &Group, left: &mut Option<Request>, requests: &Receiver<Request>) {
        loop {
            // Only a log makes company worth while.
            let joins = group.is_empty() || (self.logger.is_some() && group.has_room());
            let next = if joins { left.take().or_else(|| requests.try_recv().ok()) } else { None };
            let Some(next) = next else { return };
            match next {
                Request::Mutate(mutation, mut acknowledge) => {
                    acknowledge.begin();
                    match self.work.decide(&mutation, group, flying) {
                        Ok(Decided::Joins(arrivals)) => group.push(mutation, acknowledge, arrivals),
                        Ok(Decided::Done(applied)) => acknowledge.tell(Ok(applied)),
                        Ok(Decided::Waits) => {
                            *left = Some(Request::Mutate(mutation, acknowledge));
                            return;
                        }
                        Err(refused) => acknowledge.tell(Err(refused)),
                    }
                }
                other => {
                    *left = Some(other);
                    return;
                }
            }
        }
    }

    /// Applies what was logged, or refuses what was not.
    fn settle(&self, group: Group, recorded: &Result<(), EngineError>) {
        let members = group.len();
        for (mutation, acknowledge) in group.into_members() {
            let result = recorded.clone().and_then(|()| self.work.apply(&mutation));
            if let Ok(applied) = &result {
                (self.work.announce)(applied.sequence);
            }
            acknowledge.tell(result);
        }
        let now = clock::now();
        let took = now.duration_since(self.since.replace(now));
        if members > 0 {
            self.pace.learn(took.as_nanos() as f64 / members as f64);
        }
    }

    fn wants_snapshot(&mut self) -> bool {
        self.journal.as_mut().is_some_and(|journal| journal.wants_snapshot(&self.work.bank))
    }

    fn begin_due_snapshot(&mut self) {
        if self.wants_snapshot()
            && let Some(journal) = &mut self.journal
        {
            // The journal remembers a failure, and tells whoever writes next.
            let _failed = journal.begin_snapshot(&self.work.bank);
        }
    }

    /// Makes a group as safe as the bank's policy says, before anything of it is seen.
    fn record(&mut self, group: &Group) -> Result<(), EngineError> {
        let first = self.work.bank.read()?.sequence() + 1;
        let Some(journal) = &mut self.journal else { return Ok(()) };
        journal.record(first, &group.mutations())
    }

    /// Begins to do that on another thread, which has the journal meanwhile; `flying` mutations before it are not applied yet.
    fn launch(&mut self, group: &Group, flying: usize) -> Result<(), Ended> {
        let first = self.work.bank.read().map_err(|_| Ended)?.sequence() + flying as u64 + 1;
        let Some((logger, journal)) = self.logger.as_ref().zip(self.journal.take()) else { return Err(Ended) };
        logger.begin(Logging { journal, first, group: group.mutations() })
    }

    /// Waits until the group that flies is logged.
    fn land(&mut self) -> Result<Result<(), EngineError>, Ended> {
        let logged = self.logger.as_ref().ok_or(Ended)?.wait()?;
        self.journal = Some(logged.journal);
        Ok(logged.recorded)
    }
}

impl Work {
    fn cut(&self, budget: Budget) -> Result<(BankImage, Arc<Cut>), EngineError> {
        let image = self.bank.read()?.image();
        Ok((image, self.bank.write()?.begin_cut(budget)))
    }

    /// What becomes of a mutation after those that fly and those of the group.
    fn decide(&self, mutation: &Mutation, group: &Group, flying: &Group) -> Result<Decided, EngineError> {
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
            && let Err(full) = self.memory.may_grow(&*self.bank.read()?, &with_flying)
        {
            return if group.is_empty() && flying.is_empty() { Err(full) } else { Ok(Decided::Waits) };
        }
        self.bank.write()?.reserve(&with_flying).map_err(|refused| EngineError::OutOfMemory(refused.to_string()))?;
        Ok(Decided::Joins(arrivals))
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
        self.memory.note(&*self.bank.read()?);
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
