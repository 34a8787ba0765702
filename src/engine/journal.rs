//! The log of a bank, synced by its policy.

use std::sync::Arc;
use std::time::Instant;

use super::EngineError;
use super::snapshots::{Job, Outcome, Snapshots};
use crate::bank::{Bank, Budget};
use crate::codec::encode_group;
use crate::durability::{Config, Folder, Log, Snapshot, StoreError};
use crate::model::{BankName, Durability, Mutation, clock};
use crate::rows::Shared;

/// Called when a log has failed.
pub(super) type Alarm = Box<dyn Fn() + Send>;

/// Keeps what a committer is about to apply. Once it has failed it takes nothing more: what the page cache holds after a failed sync
/// can't be trusted.
pub(super) struct Journal {
    bank: BankName,
    log: Log,
    durability: Durability,
    /// When the log must be synced; `None` if it is.
    due: Option<Instant>,
    failure: Option<String>,
    alarm: Alarm,
    scratch: Vec<u8>,
    snapshots: Snapshots,
    folder: Folder,
    /// The last snapshot.
    snapshot: Snapshot,
    /// Bytes of log from which on the next is taken.
    outgrown: u64,
    limits: Config,
    /// Of the snapshot that is being taken.
    outcome: Option<Outcome>,
}

/// What a journal writes to.
pub(super) struct Kept {
    pub(super) folder: Folder,
    pub(super) log: Log,
    /// The last snapshot.
    pub(super) snapshot: Snapshot,
}

/// Bytes of the scratch buffer that are kept from one record to the next.
const KEPT_SCRATCH: usize = 16 << 20;

impl Journal {
    pub(super) fn new(kept: Kept, limits: &Config, snapshots: Snapshots, alarm: Alarm) -> Self {
        let Kept { folder, log, snapshot } = kept;
        let (bank, durability) = (folder.record().name.clone(), folder.record().durability);
        let mut journal = Self {
            bank,
            log,
            durability,
            due: None,
            failure: None,
            alarm,
            scratch: Vec::new(),
            snapshots,
            folder,
            snapshot,
            outgrown: 0,
            limits: limits.clone(),
            outcome: None,
        };
        journal.outgrown = journal.threshold(0);
        journal
    }

    /// True if the log has outgrown the last snapshot, and no other is being taken.
    pub(super) fn wants_snapshot(&mut self) -> bool {
        if let Some(known) = self.outcome.as_ref().and_then(Outcome::known) {
            self.outcome = None;
            match known {
                Some(snapshot) => {
                    self.snapshot = snapshot;
                    // What can't be removed costs room, and is removed with the next.
                    if let Err(fault) = self.log.drop_behind(snapshot.sequence) {
                        tracing::warn!(bank = %self.bank, %fault, "the log behind a snapshot stays");
                    }
                    self.outgrown = self.threshold(0);
                }
                None => self.outgrown = self.threshold(self.log.bytes()),
            }
        }
        self.outcome.is_none() && self.failure.is_none() && self.log.bytes() >= self.outgrown
    }

    /// Bytes of log, beyond `from`, that are worth a snapshot.
    fn threshold(&self, from: u64) -> u64 {
        from + self.snapshot.bytes.max(self.limits.snapshot_log_bytes)
    }

    /// Begins a snapshot of the bank as it is now.
    pub(super) fn begin_snapshot(&mut self, bank: &Arc<Shared<Bank>>) -> Result<(), EngineError> {
        let image = bank.read()?.image();
        let begun = self.log.begin_file(image.sequence + 1);
        self.note(begun)?;
        self.due = None;
        let budget = Budget { bytes: self.limits.snapshot_memory_bytes, setting: "durability.snapshot_memory_bytes" };
        let cut = bank.write()?.begin_cut(budget);
        let outcome = Outcome::default();
        self.outcome = Some(outcome.clone());
        self.snapshots.submit(Job { folder: self.folder.clone(), bank: Arc::clone(bank), image, cut, outcome });
        Ok(())
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
                let due = *self.due.get_or_insert(now + self.limits.interval);
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
