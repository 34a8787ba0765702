//! A bank as it was after one of its mutations, in one file.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use super::folder::Folder;
use super::frames::{self, Frames};
use super::{Complaint, StoreError, sync};

const MAGIC: &[u8; 13] = b"negbank bank\n";
const VERSION: u32 = 1;
const PREFIX: &str = "snapshot-";
/// What a file is called while it is written.
const NASCENT: &str = ".snapshot-";

/// A snapshot that is being written: nobody sees it before it is whole and on disk.
#[derive(Debug)]
pub struct SnapshotFile {
    nascent: PathBuf,
    path: PathBuf,
    file: BufWriter<File>,
    checksum: u32,
    sections: u64,
    bytes: u64,
}

impl SnapshotFile {
    /// Begins a snapshot of what the bank was after `sequence`.
    pub(super) fn create(folder: &Folder, sequence: u64) -> Result<Self, StoreError> {
        let nascent = folder.path.join(format!("{NASCENT}{sequence:020}"));
        let file = File::create(&nascent).map_err(StoreError::io("write", &nascent))?;
        let path = folder.path.join(format!("{PREFIX}{sequence:020}"));
        let file = BufWriter::with_capacity(1 << 20, file);
        let mut snapshot = Self { nascent, path, file, checksum: 0, sections: 0, bytes: 0 };
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&folder.record.incarnation.to_le_bytes());
        head.extend_from_slice(&sequence.to_le_bytes());
        snapshot.put(&head)?;
        Ok(snapshot)
    }

    /// Adds a section.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn put(&mut self, section: &[u8]) -> Result<(), StoreError> {
        let written = frames::write(&mut self.file, self.checksum, self.sections, section);
        let (checksum, bytes) = written.map_err(StoreError::io("write", &self.nascent))?;
        self.checksum = checksum;
        self.sections += 1;
        self.bytes += bytes;
        Ok(())
    }

    /// Puts it in the place of the one before, and returns its bytes.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn publish(mut self) -> Result<u64, StoreError> {
        let on_disk = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        on_disk.map_err(StoreError::io("sync", &self.nascent))?;
        fs::rename(&self.nascent, &self.path).map_err(StoreError::io("rename", &self.nascent))?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        sync::folder(folder)?;
        for (_, path) in list(folder)? {
            if path < self.path {
                fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
            }
        }
        Ok(self.bytes)
    }
}

impl Drop for SnapshotFile {
    fn drop(&mut self) {
        // Published, there is no such file any more; what can't be removed is at the next start.
        let _gone = fs::remove_file(&self.nascent);
    }
}

/// What a snapshot is of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The last mutation in it; 0: there is none.
    pub sequence: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// Gives `section` the sections of the newest snapshot, in order; it says of each whether it is the last. What was left of one that was not
/// finished is removed.
pub(super) fn read(folder: &Folder, section: &mut dyn FnMut(&[u8]) -> Result<bool, Complaint>) -> Result<Snapshot, StoreError> {
    for entry in folder.path.read_dir().map_err(StoreError::io("list", &folder.path))? {
        let path = entry.map_err(StoreError::io("list", &folder.path))?.path();
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(NASCENT.as_bytes())) {
            fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
        }
    }
    let Some((sequence, path)) = list(&folder.path)?.pop() else { return Ok(Snapshot::default()) };
    let mut frames = Frames::open(&path)?;
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&folder.record.incarnation.to_le_bytes());
    head.extend_from_slice(&sequence.to_le_bytes());
    let mut expected = 0;
    let mut ended = false;
    while let Some(frame) = frames.next().map_err(|broken| broken.refused(&path))? {
        let damaged = |what: String| StoreError::damaged(&path, frame.at, what);
        if frame.sequence != expected || ended {
            return Err(damaged("a section stands where it does not belong".to_owned()));
        }
        if expected == 0 && frame.payload != head {
            return Err(damaged(format!("it is no snapshot of version {VERSION} of this bank, as its name says")));
        }
        if expected > 0 {
            ended = section(&frame.payload).map_err(|complaint| complaint.about(&path, frame.at))?;
        }
        expected += 1;
    }
    if ended {
        Ok(Snapshot { sequence, bytes: frames.at() })
    } else {
        Err(StoreError::damaged(&path, frames.at(), "it ends too early"))
    }
}

/// The snapshots of a folder, in order.
fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let mut snapshots = Vec::new();
    for entry in folder.read_dir().map_err(StoreError::io("list", folder))? {
        let entry = entry.map_err(StoreError::io("list", folder))?;
        let name = entry.file_name();
        let sequence = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|number| number.parse().ok());
        snapshots.extend(sequence.map(|sequence| (sequence, entry.path())));
    }
    snapshots.sort();
    Ok(snapshots)
}
