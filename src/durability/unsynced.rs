//! What a log still owes the disk.

use std::fs::File;
use std::path::PathBuf;

use super::StoreError;

/// Records that were appended to a log's current file. Those of the files before are on disk: a file is begun after the one before it was synced.
#[derive(Debug)]
pub struct Unsynced {
    file: File,
    path: PathBuf,
    until: Until,
}

/// How far a log had come, in bytes appended since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Until(u64);

impl Unsynced {
    pub(super) fn new(file: File, path: PathBuf, until: Until) -> Self {
        Self { file, path, until }
    }

    /// Returns when they are on disk, and how far that is.
    ///
    /// # Errors
    /// [`StoreError::Io`]: the log must not be used any more.
    pub fn sync(&self) -> Result<Until, StoreError> {
        self.file.sync_data().map_err(StoreError::io("sync", &self.path))?;
        Ok(self.until)
    }
}

impl Until {
    pub(super) fn of(appended: u64) -> Self {
        Self(appended)
    }

    pub(super) fn bytes(self) -> u64 {
        self.0
    }
}
