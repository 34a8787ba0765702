//! The log of a bank, synced by its policy.

use std::time::{Duration, Instant};

use super::EngineError;
use crate::codec::encode_group;
use crate::durability::{Log, StoreError};
use crate::model::{BankName, Durability, Mutation, clock};

/// Called when a log has failed.
pub(super) type Alarm = Box<dyn Fn() + Send>;

/// Keeps what a committer is about to apply. Once it has failed it takes nothing more: what the page cache holds after a failed sync
/// can't be trusted.
pub(super) struct Journal {
    bank: BankName,
    log: Log,
    durability: Durability,
    interval: Duration,
    /// When the log must be synced; `None` if it is.
    due: Option<Instant>,
    failure: Option<String>,
    alarm: Alarm,
    scratch: Vec<u8>,
}

/// Bytes of the scratch buffer that are kept from one record to the next.
const KEPT_SCRATCH: usize = 16 << 20;

impl Journal {
    pub(super) fn new(bank: BankName, log: Log, durability: Durability, interval: Duration, alarm: Alarm) -> Self {
        Self { bank, log, durability, interval, due: None, failure: None, alarm, scratch: Vec::new() }
    }

    /// Until when what was recorded must be synced.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Why nothing can be recorded, if the log has failed.
    pub(super) fn check(&self) -> Result<(), EngineError> {
        match &self.failure {
            Some(why) => Err(EngineError::LogFailed { name: self.bank.clone(), why: why.clone() }),
            None => Ok(()),
        }
    }

    /// Appends mutations that get the sequence numbers from `first` on; when this returns they are as safe as the bank's policy says.
    pub(super) fn record<'a>(
        &mut self,
        first: u64,
        mutations: impl ExactSizeIterator<Item = &'a Mutation>,
    ) -> Result<(), EngineError> {
        self.check()?;
        self.scratch.clear();
        encode_group(mutations, &mut self.scratch);
        let appended = self.log.append(first, &self.scratch);
        self.scratch.shrink_to(KEPT_SCRATCH);
        self.note(appended)?;
        let now = clock::now();
        match self.durability {
            Durability::Always => self.sync(),
            Durability::Memory | Durability::Interval => {
                let due = *self.due.get_or_insert(now + self.interval);
                if now >= due { self.sync() } else { Ok(()) }
            }
        }
    }

    /// Syncs what is not synced yet.
    pub(super) fn sync(&mut self) -> Result<(), EngineError> {
        self.check()?;
        self.due = None;
        let synced = self.log.sync();
        self.note(synced)
    }

    fn note(&mut self, done: Result<(), StoreError>) -> Result<(), EngineError> {
        if let Err(fault) = done {
            tracing::error!(bank = %self.bank, %fault, "the log has failed: no more writes to this bank until the server is restarted");
            (self.failure, self.due) = (Some(fault.to_string()), None);
            (self.alarm)();
        }
        self.check()
    }
}
