//! The folder of a bank.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::log::{Apply, Log, Replayed};
use super::section_file::{GRAPH, SNAPSHOT, SectionFile};
use super::segment::Segment;
use super::snapshot::Snapshot;
use super::{Complaint, StoreError, frames, sync};
use crate::codec::BankRecord;

/// A bank on disk: its settings and its log.
#[derive(Debug, Clone)]
pub struct Folder {
    pub(super) path: PathBuf,
    pub(super) record: BankRecord,
    pub(super) segment_bytes: u64,
    pub(super) lock: Arc<File>,
}

impl Folder {
    const RECORD: &str = "bank";

    /// Writes the settings into a new folder.
    pub(super) fn write_record(path: &Path, record: &BankRecord) -> Result<(), StoreError> {
        let path = path.join(Self::RECORD);
        let mut content = Vec::new();
        frames::write(&mut content, 0, 0, &record.encode()).map_err(StoreError::io("write", &path))?;
        sync::new_file(&path, &content)
    }

    pub(super) fn read_record(path: &Path) -> Result<BankRecord, StoreError> {
        let path = path.join(Self::RECORD);
        let payload = frames::read_one(&path)?;
        BankRecord::decode(&payload).map_err(|unreadable| StoreError::damaged(&path, 0, unreadable.to_string()))
    }

    /// What the bank is.
    pub fn record(&self) -> &BankRecord {
        &self.record
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the files of the log that hold nothing after `sequence`, the oldest first: whatever ends it, what is left has no gap.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn remove_log_behind(&self, sequence: u64) -> Result<(), StoreError> {
        let mut segments = Segment::list(&self.path)?;
        segments.truncate(Segment::behind(&segments, sequence));
        for segment in &segments {
            std::fs::remove_file(&segment.path).map_err(StoreError::io("remove", &segment.path))?;
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
    /// `apply` complains about is reported with that record's place.
    ///
    /// # Errors
    /// [`StoreError`]: anything but a whole log, or one whose last record was cut short.
    pub fn replay(&self, after: u64, apply: Apply<'_>) -> Result<(Log, Replayed), StoreError> {
        Log::open(self, after, apply)
    }
}
