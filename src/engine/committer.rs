//! The committer: one thread per bank that gives every mutation its place in the bank's one order.

mod waiting;
mod work;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, TrySendError, bounded, select};

pub(super) use self::waiting::Account;
use self::waiting::{Queued, Waiting};
use self::work::Decided;
pub(super) use self::work::{Work, known};
use super::EngineError;
use super::acknowledge::Acknowledge;
use super::group::{Flying, Group, Pace};
use super::journal::Journal;
use super::logger::{Ended, Logged, Logger};
use crate::bank::{Budget, Cut};
use crate::model::clock::{self, Deadline};
use crate::model::{BankImage, Caller, Mutation};

/// Called with the sequence of each applied mutation.
pub(super) type Announce = Box<dyn Fn(u64) + Send>;

/// Called when everything before it is on disk, or with why it is not.
pub(super) type Flushed = Box<dyn FnOnce(Result<(), EngineError>) + Send>;

/// The way to a bank's committer thread, which ends when all clones of this are dropped and what is queued has been applied.
#[derive(Debug, Clone)]
pub(super) struct Committer {
    queue: Sender<Request>,
    waiting: Arc<Waiting>,
}

/// Called with a bank as it is between two mutations.
pub(super) type Taken = Box<dyn FnOnce(Result<(BankImage, Arc<Cut>), EngineError>) + Send>;

enum Request {
    /// The next of the mutations that wait.
    Mutate,
    Flush(Flushed),
    Cut(Budget, BankImage, Taken),
}

/// What the thread is to do.
enum Todo {
    Mutate(Queued, Account),
    Flush(Flushed),
    Cut(Budget, BankImage, Taken),
}

impl Committer {
    /// Starts the committer of a bank, with room for `bound` waiting mutations; without a journal nothing outlives the process.
    pub(super) fn start(work: Work, journal: Option<Journal>, bound: usize) -> std::io::Result<Self> {
        let (queue, requests) = bounded(bound);
        let start = |journal| Logger::start(&work.name, journal, Arc::clone(&work.bank));
        let logger = journal.map(start).transpose()?;
        let name = format!("commit-{}", work.name);
        let waiting = Arc::new(Waiting::new(bound));
        let committing = Committing { work, logger, waiting: Arc::clone(&waiting), since: Cell::new(clock::now()) };
        thread::Builder::new().name(name).spawn(move || committing.run(&requests))?;
        Ok(Self { queue, waiting })
    }

    /// Queues a mutation of a caller; `acknowledge` hears when every later read sees it, or that it was refused. It hears nothing of a queue
    /// that has no room for the caller, or in which it would wait past `deadline`. Those of one caller are done in their order.
    pub(super) fn submit(
        &self,
        caller: &Caller,
        mutation: Mutation,
        deadline: Option<Deadline>,
        acknowledge: Acknowledge,
    ) -> Result<(), EngineError> {
        let queued = Queued { mutation, acknowledge };
        let announce = || {
            self.queue.try_send(Request::Mutate).map_err(|refused| match refused {
                TrySendError::Full(_) => TrySendError::Full(()),
                TrySendError::Disconnected(_) => TrySendError::Disconnected(()),
            })
        };
        self.waiting.add(caller, queued, deadline, announce)
    }

    /// Syncs what was acknowledged before, whatever the bank's policy. Waits for room in the queue.
    pub(super) fn flush(&self, flushed: Flushed) {
        // Whoever waits hears of a committer that has ended by what it waits on.
        let _ended = self.queue.send(Request::Flush(flushed));
    }

    /// Takes the bank as it is after what was acknowledged before, into the memory of `room`: writes wait until it is copied. Waits for room in the
    /// queue until `deadline`.
    pub(super) fn cut(&self, (budget, room): (Budget, BankImage), deadline: Deadline, taken: Taken) -> Result<(), EngineError> {
        self.queue.send_deadline(Request::Cut(budget, room, taken), deadline.instant()).map_err(|refused| match refused {
            SendTimeoutError::Timeout(_) => EngineError::DeadlineExceeded,
            SendTimeoutError::Disconnected(_) => EngineError::Internal("the bank's committer has ended"),
        })
    }
}

/// Where nothing is logged, company is no gain.
const ALONE: Pace = Pace { floats: 0, ahead: 0 };

/// What the thread has.
struct Committing {
    work: Work,
    /// `None`: nothing outlives the process.
    logger: Option<Logger>,
    waiting: Arc<Waiting>,
    /// When there was first something to do since the last group was settled.
    since: Cell<Instant>,
}

impl Committing {
    fn run(self, requests: &Receiver<Request>) {
        let why = match catch_unwind(AssertUnwindSafe(|| self.work_off(requests))) {
            Ok(Ok(())) => return,
            Ok(Err(Ended)) => "the thread that logs them has ended",
            Err(_) => "applying one panicked",
        };
        tracing::error!(bank = %self.work.name, why, "the bank takes no more writes: this is a defect of negbank");
        // What was logged is as good as it can be, whatever went wrong after it.
        let _failed = catch_unwind(AssertUnwindSafe(|| self.sync()));
        let refused = EngineError::WritesEnded { name: self.work.name.clone(), why };
        (self.work.alarm)(&format!("{why}, which is a defect of negbank"));
        // Whoever comes hears of it, for as long as anybody may come.
        for todo in requests.iter().filter_map(|request| self.todo(request)) {
            match todo {
                Todo::Mutate(Queued { acknowledge, .. }, account) => {
                    self.waiting.refused(&account, Duration::ZERO);
                    acknowledge.tell(Err(refused.clone()));
                }
                Todo::Flush(flushed) => flushed(Err(refused.clone())),
                Todo::Cut(_, _, taken) => taken(Err(refused.clone())),
            }
        }
    }

    fn todo(&self, request: Request) -> Option<Todo> {
        match request {
            Request::Mutate => self.waiting.next().map(|(queued, account)| Todo::Mutate(queued, account)),
            Request::Flush(flushed) => Some(Todo::Flush(flushed)),
            Request::Cut(budget, room, taken) => Some(Todo::Cut(budget, room, taken)),
        }
    }

    /// Does what comes, until nobody is left who could ask for more.
    fn work_off(&self, requests: &Receiver<Request>) -> Result<(), Ended> {
        let mut left = None;
        while let Some(todo) = left.take().or_else(|| self.next(requests)) {
            match todo {
                Todo::Mutate(queued, account) => left = self.commit(Todo::Mutate(queued, account), requests)?,
                Todo::Flush(flushed) => flushed(self.sync()),
                Todo::Cut(budget, room, taken) => taken(self.work.cut(budget, room)),
            }
        }
        // Whoever is left to hear of a failure reads the log.
        let _failed = self.sync();
        Ok(())
    }

    /// What comes next; the log is kept up meanwhile. A failure the journal remembers, and tells whoever writes next.
    fn next(&self, requests: &Receiver<Request>) -> Option<Todo> {
        loop {
            let Some(logger) = &self.logger else {
                match self.todo(requests.recv().ok()?) {
                    None => continue,
                    todo => return todo,
                }
            };
            let (due, room, synced) = {
                let mut journal = logger.journal();
                let due = journal.due().map_or_else(crossbeam_channel::never, crossbeam_channel::at);
                (due, journal.room().awaited(), journal.synced().clone())
            };
            select! {
                recv(requests) -> request => match self.todo(request.ok()?) {
                    None => {}
                    todo => return todo,
                },
                recv(synced) -> synced => match synced {
                    Ok(synced) => {
                        let _failed = logger.journal().note_synced(synced);
                        self.begin_due_snapshot(logger);
                    }
                    Err(_) => match self.todo(requests.recv().ok()?) {
                        None => {}
                        todo => return todo,
                    },
                },
                recv(due) -> _ => drop(logger.journal().keep_up()),
                recv(room) -> room => {
                    logger.journal().room().came(room.ok());
                    self.begin_due_snapshot(logger);
                }
            }
        }
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.logger.as_ref().map_or(Ok(()), |logger| logger.journal().sync())
    }

    /// Applies a mutation and those that wait already, each group of them once it is logged. Returns what comes after them, if that was taken;
    /// `Err`: the thread that logs has ended.
    fn commit(&self, first: Todo, requests: &Receiver<Request>) -> Result<Option<Todo>, Ended> {
        self.since.set(clock::now());
        let mut left = Some(first);
        match &self.logger {
            Some(logger) => self.log_and_apply(logger, &mut left, requests)?,
            None => {
                while let Some(group) = self.fill(ALONE, &Flying::default(), &mut left, requests) {
                    self.settle(group, &Ok(()));
                }
            }
        }
        Ok(left)
    }

    /// The groups that come are logged on another thread while those before them are applied.
    fn log_and_apply(&self, logger: &Logger, left: &mut Option<Todo>, requests: &Receiver<Request>) -> Result<(), Ended> {
        let (mut flying, mut holds_off) = (Flying::default(), false);
        loop {
            if !holds_off {
                self.take_off(logger, &mut flying, left, requests)?;
            }
            if flying.is_empty() {
                self.begin_due_snapshot(logger);
                if std::mem::take(&mut holds_off) {
                    continue;
                }
                return Ok(());
            }
            let Logged { recorded, wants_snapshot } = logger.wait()?;
            flying.land();
            holds_off |= wants_snapshot;
            if !holds_off {
                // Meanwhile more have come.
                self.take_off(logger, &mut flying, left, requests)?;
            }
            if let Some(group) = flying.pop() {
                self.settle(group, &recorded);
            }
        }
    }

    /// Begins to log what waits, as far ahead as the pace allows.
    fn take_off(
        &self,
        logger: &Logger,
        flying: &mut Flying,
        left: &mut Option<Todo>,
        requests: &Receiver<Request>,
    ) -> Result<(), Ended> {
        while flying.has_room(logger.pace())
            && let Some(group) = self.fill(logger.pace(), flying, left, requests)
        {
            let first = self.work.bank.read().map_err(|_| Ended)?.sequence() + flying.mutations() as u64 + 1;
            // Waking another thread is worth it only if several write at once: then the next are here before this is applied.
            if flying.is_empty() && group.len() == 1 && left.is_none() && requests.is_empty() {
                let recorded = logger.journal().record(first, &group.mutations());
                self.settle(group, &recorded);
                self.begin_due_snapshot(logger);
            } else {
                logger.begin(first, group.mutations())?;
                flying.push(group);
            }
        }
        Ok(())
    }

    /// A group of what waits and can't be refused any more, until something else comes, which is `left`; `None`: there is none.
    fn fill(&self, pace: Pace, flying: &Flying, left: &mut Option<Todo>, requests: &Receiver<Request>) -> Option<Group> {
        let mut group = Group::default();
        while group.is_empty() || group.has_room(pace) {
            let come = || requests.try_recv().ok().and_then(|request| self.todo(request));
            let Some(next) = left.take().or_else(come) else { break };
            match next {
                Todo::Mutate(Queued { mutation, mut acknowledge }, account) => {
                    acknowledge.begin();
                    let began = clock::now();
                    let decided = match self.work.decide(&mutation, &group, flying) {
                        Ok(Decided::Joins(arrivals)) => {
                            group.push((mutation, acknowledge), account, arrivals);
                            continue;
                        }
                        Ok(Decided::Waits) => {
                            *left = Some(Todo::Mutate(Queued { mutation, acknowledge }, account));
                            break;
                        }
                        Ok(Decided::Done(applied)) => Ok(applied),
                        Err(refused) => Err(refused),
                    };
                    // Refusing is work too, and no work of the group's.
                    self.waiting.refused(&account, self.spent_since(began));
                    acknowledge.tell(decided);
                }
                other => {
                    *left = Some(other);
                    break;
                }
            }
        }
        (!group.is_empty()).then_some(group)
    }

    /// Applies what was logged, or refuses what was not.
    fn settle(&self, group: Group, recorded: &Result<(), EngineError>) {
        let accounts = group.accounts();
        // The journal remembers a failure.
        let keep_up = || self.logger.as_ref().map_or((), |logger| drop(logger.journal().keep_up()));
        for (mutation, acknowledge) in group.into_members() {
            let result = recorded.clone().and_then(|()| self.work.apply(&mutation, &keep_up));
            if let Ok(applied) = &result {
                (self.work.announce)(applied.sequence);
            }
            acknowledge.tell(result);
        }
        let now = clock::now();
        self.waiting.took(&accounts, now.duration_since(self.since.replace(now)));
    }

    /// Nothing may be under way to the log.
    fn begin_due_snapshot(&self, logger: &Logger) {
        let mut journal = logger.journal();
        if journal.wants_snapshot(&self.work.bank) {
            let began = clock::now();
            // The journal remembers a failure, and tells whoever writes next.
            let _failed = journal.begin_snapshot(&self.work.bank, &self.work.memory);
            self.spent_since(began);
        }
    }

    /// How long something took that is not charged to the next group.
    fn spent_since(&self, began: Instant) -> Duration {
        let took = clock::now().duration_since(began);
        self.since.set(self.since.get() + took);
        took
    }
}

impl Drop for Committing {
    /// Whoever waits still, however this ended, hears that nobody works any more.
    fn drop(&mut self) {
        while self.waiting.next().is_some() {}
    }
}

#[cfg(test)]
mod tests;
