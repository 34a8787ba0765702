//! Logging beside the committer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::EngineError;
use super::journal::Journal;
use crate::model::{BankName, Mutation};

/// A thread that logs a group while the committer applies the one before. It ends when this is dropped.
pub(super) struct Logger {
    queue: Sender<Logging>,
    logged: Receiver<Logged>,
}

/// A group to be logged.
pub(super) struct Logging {
    pub(super) journal: Box<Journal>,
    /// Sequence of its first mutation.
    pub(super) first: u64,
    pub(super) group: Vec<Arc<Mutation>>,
}

/// What came of it.
pub(super) struct Logged {
    pub(super) journal: Box<Journal>,
    pub(super) recorded: Result<(), EngineError>,
}

/// The thread panicked.
#[derive(Debug)]
pub(super) struct Ended;

impl Logger {
    /// Starts the thread.
    pub(super) fn start(bank: &BankName) -> std::io::Result<Self> {
        let (queue, begun) = bounded::<Logging>(1);
        let (ended, logged) = bounded(1);
        let log = move |Logging { mut journal, first, group }| {
            let recorded = catch_unwind(AssertUnwindSafe(|| journal.record(first, &group)));
            let recorded = recorded.unwrap_or_else(|_| journal.give_up("logging panicked, which is a defect of negbank"));
            ended.send(Logged { journal, recorded }).is_ok()
        };
        thread::Builder::new().name(format!("log-{bank}")).spawn(move || begun.iter().all(log))?;
        Ok(Self { queue, logged })
    }

    /// Begins to log a group; none may be under way.
    pub(super) fn begin(&self, logging: Logging) -> Result<(), Ended> {
        self.queue.send(logging).map_err(|_| Ended)
    }

    /// The end of what was begun.
    pub(super) fn wait(&self) -> Result<Logged, Ended> {
        self.logged.recv().map_err(|_| Ended)
    }
}
