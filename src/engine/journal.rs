//! The log of a bank, synced by its policy.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Receiver;

use super::EngineError;
use super::bank_memory::BankMemory;
use super::group::Pace;
use super::image_room::ImageRoom;
use super::snapshots::{Failed, Job, Outcome, Snapshots, image_bytes};
use super::syncer::{Synced, Syncer};
use crate::bank::{Bank, Budget};
use crate::codec::encode_group;
use crate::durability::{Config, Folder, Log, Snapshot, StoreError};
use crate::model::{BankName, Durability, Mutation, clock};
use crate::rows::Shared;

/// Called when a bank takes no more writes, with why.
pub(super) type Alarm = Arc<dyn Fn(&str) + Send + Sync>;

/// Keeps what a committer is about to apply. Once it has failed it takes nothing more: what the page cache holds after a failed sync
/// can't be trusted.
pub(super) struct Journal {
    bank: BankName,
    log: Log,
    durability: Durability,
    /// When the next sync must begin; `None` if everything is on disk or on its way there.
    due: Option<Instant>,
    syncer: Syncer,
    failure: Option<String>,
    alarm: Alarm,
    snapshots: Snapshots,
    folder: Folder,
    /// The last snapshot.
    snapshot: Snapshot,
    /// Bytes of log from which on the next is taken.
    outgrown: u64,
    limits: Config,
    /// The last try could not copy as much aside as was written: writes wait for the next, or the log would grow without end.
    has_overrun: bool,
    /// Of the snapshot that is being taken.
    outcome: Option<Outcome>,
    /// For the next one.
    room: ImageRoom,
}

/// Sizes of a snapshot that the log has when another is taken: of what is written of a bank that is written over and over, a fifth is
/// snapshots then, and a restart reads five times the bank.
pub(super) const WORTH: u64 = 4;

/// Floats of a record's rows at most, where it is of several mutations: a record is read twice, for its checksum and to be written, and the
/// second time it should lie near still.
const RECORD_FLOATS: usize = 256 << 10;

/// Groups that are logged ahead where none waits for a sync: whoever applies them waits for the disk the less.
const AHEAD: usize = 4;

/// What goes to the log as a record each.
fn records(group: &[Arc<Mutation>]) -> impl Iterator<Item = &[Arc<Mutation>]> {
    let floats = |mutation: &Mutation| mutation.batches().iter().map(|batch| batch.embeddings().values().len()).sum::<usize>();
    let mut held = 0;
    group.chunk_by(move |last, next| {
        held += floats(last);
        let joins = held + floats(next) <= RECORD_FLOATS;
        held = if joins { held } else { 0 };
        joins
    })
}

/// How a bank stands with the disk.
pub(super) enum Keeping {
    /// Nothing of it outlives the server.
    Not,
    Kept(Kept),
    /// Its log is damaged: it is what could be read before the damage, and takes no writes.
    Damaged {
        folder: Folder,
        what: String,
    },
    /// The disk has no room to go on with its log: it is whole, and takes no writes.
    Full {
        folder: Folder,
        what: String,
    },
}

impl From<Option<Kept>> for Keeping {
    fn from(kept: Option<Kept>) -> Self {
        kept.map_or(Self::Not, Self::Kept)
    }
}

/// What a journal writes to.
pub(super) struct Kept {
    pub(super) folder: Folder,
    pub(super) log: Log,
    /// The last snapshot.
    pub(super) snapshot: Snapshot,
}

impl Journal {
    pub(super) fn new(kept: Kept, limits: &Config, snapshots: Snapshots, alarm: Alarm) -> std::io::Result<Self> {
        let Kept { folder, log, snapshot } = kept;
        let (bank, durability) = (folder.record().name.clone(), folder.record().durability);
        let syncer = Syncer::start(&bank)?;
        let mut journal = Self {
            bank,
            log,
            durability,
            due: None,
            syncer,
            failure: None,
            alarm,
            snapshots,
            folder,
            snapshot,
            outgrown: 0,
            has_overrun: false,
            limits: limits.clone(),
            outcome: None,
            room: ImageRoom::default(),
        };
        journal.outgrown = journal.threshold(0);
        Ok(journal)
    }

    /// What is synced together may be much; else as much as a record, so that it is applied while the next is logged.
    pub(super) fn pace(&self) -> Pace {
        match self.durability {
            Durability::Always => Pace { floats: usize::MAX, ahead: 1 },
            Durability::Memory | Durability::Interval => Pace { floats: RECORD_FLOATS, ahead: AHEAD },
        }
    }

    /// True if the log has outgrown the bank, no snapshot is being taken, and memory for one is ready; for that a log waits until it is twice
    /// as long.
    pub(super) fn wants_snapshot(&mut self, bank: &Shared<Bank>) -> bool {
        if let Some(known) = self.outcome.as_ref().and_then(Outcome::known) {
            self.outcome = None;
            match known {
                Ok(snapshot) => {
                    (self.snapshot, self.has_overrun) = (snapshot, false);
                    self.log.forget_behind(snapshot.sequence);
                    self.outgrown = self.threshold(0);
                }
                Err(failed) => {
                    self.outgrown = self.threshold(self.log.bytes());
                    self.has_overrun |= failed == Failed::Overrun;
                }
            }
        }
        let may_begin = self.outcome.is_none() && self.failure.is_none() && self.log.bytes() >= self.outgrown;
        if !may_begin || !(self.log.is_settled() || self.log.bytes() >= 2 * self.outgrown) {
            return false;
        }
        // The bank may have grown since the last one: a log of what is new is no longer than the snapshot that would take its place.
        let worth = bank.read().map_or(0, |bank| WORTH * image_bytes(&bank));
        self.outgrown = self.outgrown.max(worth);
        if self.log.bytes() < self.outgrown {
            return false;
        }
        let extents = || bank.read().map_or(Vec::new(), |bank| bank.extents());
        self.room.is_ready(extents) || self.log.bytes() >= 2 * self.outgrown
    }

    /// Hears of the memory that a snapshot waits for.
    pub(super) fn room(&mut self) -> &mut ImageRoom {
        &mut self.room
    }

    /// True if a new file is wanted, which is to wait until little of this one is left to sync.
    fn wants_file(&self) -> bool {
        self.log.is_full() || (self.outcome.is_none() && self.log.bytes() >= self.outgrown)
    }

    /// Bytes of log, beyond `from`, that may be worth a snapshot.
    fn threshold(&self, from: u64) -> u64 {
        from + (WORTH * self.snapshot.bytes).max(self.limits.snapshot_log_bytes)
    }

    /// Begins a snapshot of the bank as it is now.
    pub(super) fn begin_snapshot(&mut self, bank: &Arc<Shared<Bank>>, memory: &Arc<BankMemory>) -> Result<(), EngineError> {
        let image = bank.read()?.image_in(self.room.take());
        self.wait_for_syncer()?;
        let begun = self.log.begin_file(image.sequence + 1);
        self.note(begun)?;
        self.due = None;
        let (bytes, setting) = (self.limits.snapshot_memory_bytes, "durability.snapshot_memory_bytes");
        let budget = Budget { bytes, setting, writes_wait: self.has_overrun };
        let cut = bank.write()?.begin_cut(budget);
        let outcome = Outcome::default();
        self.outcome = Some(outcome.clone());
        let (bank, memory) = (Arc::clone(bank), Arc::clone(memory));
        let trouble = self.snapshots.trouble().clone();
        self.snapshots.submit(Job { folder: self.folder.clone(), bank, memory, image, cut, outcome, trouble });
        Ok(())
    }

    /// When to call [`Self::keep_up`]; `None`: after the next record.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Hears of the end of a sync in the background, which [`Self::note_synced`] is to be told.
    pub(super) fn synced(&self) -> &Receiver<Synced> {
        self.syncer.synced()
    }

    /// A sync in the background has ended. After a failure it tells nothing: that one may have taken what this one waited for.
    pub(super) fn note_synced(&mut self, synced: Synced) -> Result<(), EngineError> {
        self.syncer.note_ended();
        self.check()?;
        let noted = synced.and_then(|until| self.log.note_synced(until));
        self.note(noted)
    }

    /// Why nothing can be recorded, if the log has failed.
    pub(super) fn check(&self) -> Result<(), EngineError> {
        match &self.failure {
            Some(why) => Err(EngineError::LogFailed { name: self.bank.clone(), why: why.clone() }),
            None => Ok(()),
        }
    }

    /// Appends a group whose mutations get the sequence numbers from `first` on; when this returns they are as safe as the bank's policy
    /// says.
    pub(super) fn record(&mut self, first: u64, group: &[Arc<Mutation>]) -> Result<(), EngineError> {
        self.check()?;
        let mut sequence = first;
        for record in records(group) {
            if self.log.begins_file() {
                // A file is left when all of it is on disk: a sync of it that is under way may be the one that hears it is not.
                self.wait_for_syncer()?;
            }
            let appended = self.log.append(sequence, &encode_group(record.iter().map(AsRef::as_ref)).parts());
            self.note(appended)?;
            sequence += record.len() as u64;
        }
        let written = self.log.write();
        self.note(written)?;
        match self.durability {
            Durability::Always => {
                self.wait_for_syncer()?;
                let synced = self.log.sync();
                self.note(synced)
            }
            Durability::Memory | Durability::Interval => self.keep_up(),
        }
    }

    /// Begins a sync in the background when half of the interval is over, so that a disk that takes no longer than the other half keeps
    /// to it; waits only for a sync that takes longer.
    pub(super) fn keep_up(&mut self) -> Result<(), EngineError> {
        while let Ok(synced) = self.syncer.synced().try_recv() {
            self.note_synced(synced)?;
        }
        self.check()?;
        let now = clock::now();
        let due = *self.due.get_or_insert(now + self.limits.interval / 2);
        let early = self.wants_file() && !self.log.is_settled() && !self.syncer.is_busy();
        if now < due && !early {
            return Ok(());
        }
        self.wait_for_syncer()?;
        self.due = None;
        let unsynced = self.log.unsynced();
        let unsynced = unsynced.map(|unsynced| self.syncer.begin(unsynced));
        self.note(unsynced)
    }

    /// Returns when everything recorded is on disk, and how far that is as well.
    pub(super) fn sync(&mut self) -> Result<(), EngineError> {
        self.wait_for_syncer()?;
        self.due = None;
        let flushed = self.log.flush();
        self.note(flushed)
    }

    fn wait_for_syncer(&mut self) -> Result<(), EngineError> {
        self.check()?;
        while self.syncer.is_busy() {
            match self.syncer.synced().recv() {
                Ok(synced) => self.note_synced(synced)?,
                Err(_) => self.give_up("the thread that syncs has ended, which is a defect of negbank")?,
            }
        }
        Ok(())
    }

    /// Takes nothing more.
    pub(super) fn give_up(&mut self, why: &str) -> Result<(), EngineError> {
        let (doing, path, source) = ("write the log in", self.folder.path().to_owned(), std::io::Error::other(why));
        self.note(Err(StoreError::Io { doing, path, source }))
    }

    fn note(&mut self, done: Result<(), StoreError>) -> Result<(), EngineError> {
        if let Err(fault) = done {
            tracing::error!(bank = %self.bank, %fault, "the log has failed: no more writes to this bank until the server is restarted");
            let why = fault.to_string();
            self.log.distrust();
            (self.alarm)(&format!("its log has failed: {why}"));
            (self.failure, self.due, self.room) = (Some(why), None, ImageRoom::default());
        }
        self.check()
    }
}

#[cfg(test)]
mod tests;
