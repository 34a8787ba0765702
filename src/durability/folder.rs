//! The folder of a bank.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::doomed::Doomed;
use super::log::Log;
use super::replay::{Apply, Replayed};
use super::section_file::{GRAPH, SNAPSHOT, SectionFile};
use super::segment::Segment;
use super::snapshot::Snapshot;
use super::{Complaint, StoreError, frames, removal, sync};
use crate::codec::BankRecord;
use crate::model::{Position, Seed};

/// A bank on disk: its settings and its log.
#[derive(Debug, Clone)]
pub struct Folder {
    pub(super) path: PathBuf,
    /// What its files know it by: the bank's first incarnation.
    pub(super) identity: u64,
    pub(super) record: BankRecord,
    pub(super) segment_bytes: u64,
    pub(super) lock: Arc<File>,
    pub(super) doomed: Doomed,
}

impl Folder {
    const RECORD: &str = "bank";
    /// The settings with a later incarnation.
    const RENEWED: &str = "renewed";

    /// Writes the settings into a new folder.
    pub(super) fn write_record(path: &Path, record: &BankRecord) -> Result<(), StoreError> {
        let path = path.join(Self::RECORD);
        let mut content = Vec::new();
        frames::write(&mut content, 0, 0, &record.encode()).map_err(StoreError::io("write", &path))?;
        sync::new_file(&path, &content)
    }

    pub(super) fn read_record(path: &Path) -> Result<BankRecord, StoreError> {
        Self::read(&path.join(Self::RECORD))
    }

    fn read(path: &Path) -> Result<BankRecord, StoreError> {
        let payload = frames::read_one(path)?;
        let version = BankRecord::version_of(&payload).unwrap_or_default();
        StoreError::check_version(path, ("a bank's settings", version), BankRecord::VERSION)?;
        BankRecord::decode(&payload).map_err(|unreadable| StoreError::damaged(path, 0, unreadable.to_string()))
    }

    /// As it is since it was last given an incarnation.
    pub(super) fn renewed(self) -> Result<Self, StoreError> {
        let path = self.path.join(Self::RENEWED);
        if !path.try_exists().map_err(StoreError::io("read", &path))? {
            return Ok(self);
        }
        let record = Self::read(&path)?;
        if (&record.name, record.spec, record.durability) != (&self.record.name, self.record.spec, self.record.durability) {
            return Err(StoreError::damaged(&path, 0, "it holds the settings of another bank"));
        }
        Ok(Self { record, ..self })
    }

    /// Gives the bank another incarnation, which goes on from mutation `sequence` of the one before: what came after that is lost, and its
    /// positions are none of this bank. It is on disk when this returns.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn renew(&self, sequence: u64) -> Result<Self, StoreError> {
        let (path, nascent) = (self.path.join(Self::RENEWED), self.path.join(".renewed"));
        let renewed = self.renewed_for_now(sequence)?;
        let mut content = Vec::new();
        let written = frames::write(&mut content, 0, 0, &renewed.record.encode()).and_then(|_| {
            let mut file = File::create(&nascent)?;
            file.write_all(&content)?;
            file.sync_all()?;
            std::fs::rename(&nascent, &path)
        });
        written.map_err(StoreError::io("write", &path))?;
        sync::folder(&self.path)?;
        Ok(renewed)
    }

    /// The same for as long as the server runs, of a bank that takes no writes: no later one has this incarnation.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the system gives no entropy.
    pub fn renewed_for_now(&self, sequence: u64) -> Result<Self, StoreError> {
        let incarnation = drawn(&self.path.join(Self::RENEWED))?;
        let last = Position { incarnation: self.record.incarnation, sequence };
        let record = BankRecord { incarnation, lineage: self.record.lineage.and(last), ..self.record.clone() };
        Ok(Self { record, ..self.clone() })
    }

    /// The last mutation that the bank had when it went on without later ones that were acknowledged, or may have; `None`: it never did. Of a
    /// bank that did so more than once, the last time.
    pub fn lost_after(&self) -> Option<u64> {
        let is_renewed = self.record.incarnation != self.identity;
        let last = self.record.lineage.last().last().filter(|_| is_renewed);
        last.map(|last| last.sequence)
    }

    /// What the bank is.
    pub fn record(&self) -> &BankRecord {
        &self.record
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True if the next start does not find it, or may remove it: what is written into it may be lost.
    pub fn is_lost(&self) -> bool {
        !self.path.exists() || self.doomed.has(&self.path)
    }

    /// Bytes of the newest snapshot, and of the log: what a recovery reads at most.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn bytes(&self) -> Result<(u64, u64), StoreError> {
        let snapshot = SNAPSHOT.bytes(&self.path)?;
        Ok((snapshot, Segment::list(&self.path)?.iter().map(|segment| segment.bytes).sum()))
    }

    /// Removes the files of the log that hold nothing after `sequence`, the oldest first: whatever ends it, what is left has no gap.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn remove_log_behind(&self, sequence: u64) -> Result<(), StoreError> {
        let mut segments = Segment::list(&self.path)?;
        segments.truncate(Segment::behind(&segments, sequence));
        for segment in &segments {
            removal::file(&segment.path).map_err(StoreError::io("remove", &segment.path))?;
        }
        if segments.is_empty() { Ok(()) } else { sync::folder(&self.path) }
    }

    /// Begins a snapshot of what the bank was after `sequence`.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn begin_snapshot(&self, sequence: u64) -> Result<SectionFile, StoreError> {
        SectionFile::create(self, &SNAPSHOT, sequence)
    }

    /// Begins to keep the graph that was built from what the bank was after `sequence`.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn begin_graph(&self, sequence: u64) -> Result<SectionFile, StoreError> {
        SectionFile::create(self, &GRAPH, sequence)
    }

    /// Gives `section` the sections of the newest graph, in order; it says of each whether it is the last. False: there is none.
    ///
    /// # Errors
    /// [`StoreError`]: anything but a whole graph, or none.
    pub fn read_graph(&self, section: &mut dyn FnMut(&[u8]) -> Result<bool, Complaint>) -> Result<bool, StoreError> {
        Ok(GRAPH.read(self, section)?.is_some())
    }

    /// Removes the graphs that are kept.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn remove_graphs(&self) -> Result<(), StoreError> {
        GRAPH.remove(self)
    }

    /// Gives `section` the sections of the newest snapshot, in order; it says of each whether it is the last, and what it complains about
    /// is reported with that section's place.
    ///
    /// # Errors
    /// [`StoreError`]: anything but a whole snapshot, or none.
    pub fn read_snapshot(&self, section: &mut dyn FnMut(&[u8]) -> Result<bool, Complaint>) -> Result<Snapshot, StoreError> {
        let found = SNAPSHOT.read(self, section)?;
        Ok(found.map_or_else(Snapshot::default, |(sequence, bytes)| Snapshot { sequence, bytes }))
    }

    /// Opens the log and replays what comes after sequence `after`: each record with the sequence it was appended under. Whatever
    /// `apply` complains about is reported with that record's place. Where the disk has no room to go on with what was read, the log is
    /// that error.
    ///
    /// # Errors
    /// [`StoreError`]: anything but a log of which all is whole that was known to be on disk.
    pub fn replay(&self, after: u64, apply: Apply<'_>) -> Result<(Result<Log, StoreError>, Replayed), StoreError> {
        Log::open(self, after, apply)
    }
}

/// A number that nobody can guess, for what becomes of the file `path`.
pub(super) fn drawn(path: &Path) -> Result<u64, StoreError> {
    let drawn = Seed::from_entropy().map_err(|none| io::Error::other(none.to_string()));
    drawn.map(|Seed(number)| number).map_err(StoreError::io("draw a number for", path))
}
