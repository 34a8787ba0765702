//! Logging beside the committer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::EngineError;
use super::group::Pace;
use super::journal::Journal;
use crate::bank::Bank;
use crate::model::{BankName, Mutation};
use crate::rows::Shared;

/// A bank's journal, and a thread that logs groups while the committer applies those before them.
pub(super) struct Logger {
    journal: Arc<Mutex<Journal>>,
    pace: Pace,
    queue: Sender<Logging>,
    logged: Receiver<Logged>,
    thread: Option<JoinHandle<()>>,
}

/// A group to be logged.
struct Logging {
    /// Sequence of its first mutation.
    first: u64,
    group: Vec<Arc<Mutation>>,
}

/// What came of it.
pub(super) struct Logged {
    pub(super) recorded: Result<(), EngineError>,
    /// A snapshot is due: nothing more should be logged until it has begun.
    pub(super) wants_snapshot: bool,
}

/// The thread panicked.
#[derive(Debug)]
pub(super) struct Ended;

impl Logger {
    /// Starts the thread.
    pub(super) fn start(name: &BankName, journal: Journal, bank: Arc<Shared<Bank>>) -> std::io::Result<Self> {
        let pace = journal.pace();
        let journal = Arc::new(Mutex::new(journal));
        let (queue, begun) = bounded::<Logging>(pace.ahead);
        let (ended, logged) = bounded(pace.ahead);
        let own = Arc::clone(&journal);
        let log = move |Logging { first, group }| {
            let mut journal = own.lock().unwrap_or_else(PoisonError::into_inner);
            let recorded = catch_unwind(AssertUnwindSafe(|| journal.record(first, &group)));
            let recorded = recorded.unwrap_or_else(|_| journal.give_up("logging panicked, which is a defect of negbank"));
            let wants_snapshot = journal.wants_snapshot(&bank);
            drop(journal);
            ended.send(Logged { recorded, wants_snapshot }).is_ok()
        };
        let work = move || _ = begun.iter().all(log);
        let thread = thread::Builder::new().name(format!("log-{name}")).spawn(work)?;
        Ok(Self { journal, pace, queue, logged, thread: Some(thread) })
    }

    /// How much is logged together, and how far ahead.
    pub(super) fn pace(&self) -> Pace {
        self.pace
    }

    /// The journal, for whoever logs by itself: none that was begun may be under way.
    pub(super) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to log a group; as many may be under way as the pace says.
    pub(super) fn begin(&self, first: u64, group: Vec<Arc<Mutation>>) -> Result<(), Ended> {
        self.queue.send(Logging { first, group }).map_err(|_| Ended)
    }

    /// The end of the first that was begun and not waited for.
    pub(super) fn wait(&self) -> Result<Logged, Ended> {
        self.logged.recv().map_err(|_| Ended)
    }
}

impl Drop for Logger {
    /// The thread ends, and nothing keeps the log's folder any more.
    fn drop(&mut self) {
        (self.queue, _) = bounded(0);
        // It catches its panics, or has told of one already.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}
