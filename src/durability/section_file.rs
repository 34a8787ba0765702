//! Files of what a bank was after one of its mutations: a chain of sections, seen by nobody before it is whole and on disk.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::appender::Appender;
use super::folder::Folder;
use super::frames::{self, Around, Frames};
use super::{Complaint, StoreError, removal, sync};

/// What such a file is of.
#[derive(Debug)]
pub(super) struct Kind {
    magic: &'static [u8],
    /// Raised also with the version of what the sections hold.
    pub(super) version: u32,
    what: &'static str,
    prefix: &'static str,
    /// What a file is called while it is written.
    nascent: &'static str,
    /// Bytes after which what was written goes to the disk, so that the end is no long wait for whoever syncs beside it. Not where rows
    /// are copied aside meanwhile: the sooner it is written the fewer.
    synced: u64,
}

/// The whole bank.
pub(super) static SNAPSHOT: Kind = Kind {
    magic: b"negbank bank\n",
    version: 1,
    what: "a bank's snapshot",
    prefix: "snapshot-",
    nascent: ".snapshot-",
    synced: u64::MAX,
};
/// The graph that it is searched by.
pub(super) static GRAPH: Kind = Kind {
    magic: b"negbank graph\n",
    version: 1,
    what: "a bank's graph",
    prefix: "graph-",
    nascent: ".graph-",
    synced: 16 << 20,
};

/// A file that is being written.
#[derive(Debug)]
pub struct SectionFile {
    kind: &'static Kind,
    nascent: PathBuf,
    path: PathBuf,
    file: Appender,
    checksum: u32,
    sections: u64,
    bytes: u64,
}

/// A file that is on disk under its name.
#[derive(Debug)]
pub struct Published {
    /// Its bytes.
    pub bytes: u64,
    /// Why one that it took the place of is still there.
    pub left: Option<StoreError>,
}

impl SectionFile {
    /// Begins a file of what the bank was after `sequence`.
    pub(super) fn create(folder: &Folder, kind: &'static Kind, sequence: u64) -> Result<Self, StoreError> {
        let nascent = folder.path.join(format!("{}{sequence:020}", kind.nascent));
        let file =
            File::create(&nascent).and_then(|_| Appender::open(&nascent, 0)).map_err(StoreError::io("write", &nascent))?;
        let path = folder.path.join(format!("{}{sequence:020}", kind.prefix));
        let mut begun = Self { kind, nascent, path, file, checksum: 0, sections: 0, bytes: 0 };
        begun.put(&kind.head(folder, sequence))?;
        Ok(begun)
    }

    /// Adds a section.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn put(&mut self, section: &[u8]) -> Result<(), StoreError> {
        let Around { before, after, checksum, bytes } = frames::around(self.checksum, self.sections, None, &[section]);
        let put = [before.as_slice(), section, after].into_iter().try_for_each(|part| self.file.put(part, true));
        put.map_err(StoreError::io("write", &self.nascent))?;
        self.checksum = checksum;
        self.sections += 1;
        let synced = self.bytes / self.kind.synced;
        self.bytes += bytes;
        if self.bytes / self.kind.synced > synced {
            let on_disk = self.file.write(true).and_then(|_| self.file.sync());
            on_disk.map_err(StoreError::io("sync", &self.nascent))?;
        }
        Ok(())
    }

    /// Puts it in the place of the one before.
    ///
    /// # Errors
    /// [`StoreError::Io`]; not for one before it that can't be removed: it takes room, and is removed with the next.
    pub fn publish(mut self) -> Result<Published, StoreError> {
        let on_disk = self.file.write(true).and_then(|_| {
            self.file.trim()?;
            self.file.sync()
        });
        on_disk.map_err(StoreError::io("sync", &self.nascent))?;
        fs::rename(&self.nascent, &self.path).map_err(StoreError::io("rename", &self.nascent))?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        sync::folder(folder)?;
        Ok(Published { bytes: self.bytes, left: self.remove_older(folder).err() })
    }

    fn remove_older(&self, folder: &Path) -> Result<(), StoreError> {
        let older = self.kind.list(folder)?.into_iter().map(|(_, path)| path).filter(|path| *path < self.path);
        let removed = older.map(|path| removal::file(&path).map_err(StoreError::io("remove", &path)));
        // Each is tried, whatever became of the others.
        removed.fold(Ok(()), Result::and)
    }
}

impl Drop for SectionFile {
    fn drop(&mut self) {
        // Published, there is no such file any more; what can't be removed is at the next start.
        let _gone = removal::file(&self.nascent);
    }
}

impl Kind {
    fn head(&self, folder: &Folder, sequence: u64) -> Vec<u8> {
        let mut head = self.magic.to_vec();
        head.extend_from_slice(&self.version.to_le_bytes());
        head.extend_from_slice(&folder.identity.to_le_bytes());
        head.extend_from_slice(&sequence.to_le_bytes());
        head
    }

    /// Gives `section` the sections of the newest file, in order; it says of each whether it is the last. Returns what the file is of and its
    /// bytes; `None`: there is none. What was left of one that was not finished is removed.
    pub(super) fn read(
        &self,
        folder: &Folder,
        section: &mut dyn FnMut(&[u8]) -> Result<bool, Complaint>,
    ) -> Result<Option<(u64, u64)>, StoreError> {
        for entry in folder.path.read_dir().map_err(StoreError::io("list", &folder.path))? {
            let path = entry.map_err(StoreError::io("list", &folder.path))?.path();
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(self.nascent.as_bytes())) {
                fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
            }
        }
        let Some((sequence, path)) = self.list(&folder.path)?.pop() else { return Ok(None) };
        let mut frames = Frames::open(&path)?;
        let head = self.head(folder, sequence);
        let mut expected = 0;
        let mut ended = false;
        while let Some(frame) = frames.next().map_err(|broken| broken.refused(&path))? {
            let damaged = |what: String| StoreError::damaged(&path, frame.at, what);
            if frame.sequence != expected || ended {
                return Err(damaged("a section stands where it does not belong".to_owned()));
            }
            if expected == 0 && frame.payload != head {
                let Self { magic, what, version, .. } = self;
                let found = frame.payload.strip_prefix(*magic).and_then(<[u8]>::first_chunk);
                let found = found.map_or(*version, |found| u32::from_le_bytes(*found));
                StoreError::check_version(&path, (what, found), *version)?;
                return Err(damaged(format!("it is not {what}, of version {version} and of this bank, as its name says")));
            }
            if expected > 0 {
                ended = section(&frame.payload).map_err(|complaint| complaint.about(&path, frame.at))?;
            }
            expected += 1;
        }
        if ended {
            Ok(Some((sequence, frames.at())))
        } else {
            Err(StoreError::damaged(&path, frames.at(), "it ends too early"))
        }
    }

    /// Bytes of the newest file; 0: there is none.
    pub(super) fn bytes(&self, folder: &Path) -> Result<u64, StoreError> {
        let Some((_, path)) = self.list(folder)?.pop() else { return Ok(0) };
        Ok(fs::metadata(&path).map_err(StoreError::io("read", &path))?.len())
    }

    /// Removes all files of the kind.
    pub(super) fn remove(&self, folder: &Folder) -> Result<(), StoreError> {
        self.list(&folder.path)?
            .into_iter()
            .try_for_each(|(_, path)| fs::remove_file(&path).map_err(StoreError::io("remove", &path)))
    }

    /// The files of a folder, in order.
    fn list(&self, folder: &Path) -> Result<Vec<(u64, PathBuf)>, StoreError> {
        let mut files = Vec::new();
        for entry in folder.read_dir().map_err(StoreError::io("list", folder))? {
            let entry = entry.map_err(StoreError::io("list", folder))?;
            let name = entry.file_name();
            let sequence = name.to_str().and_then(|name| name.strip_prefix(self.prefix)).and_then(|number| number.parse().ok());
            files.extend(sequence.map(|sequence| (sequence, entry.path())));
        }
        files.sort();
        Ok(files)
    }
}
