//! What can go wrong on disk.

use std::io;
use std::path::{Path, PathBuf};

/// Why something could not be kept or read back.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried, as in "append to".
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is not as it was written.
    #[error("{} is damaged at byte {offset}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// A newer program wrote it, and it may be whole.
    #[error("{} is of version {version} of {what}, and this program reads up to {reads}: use a newer negbank", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// As in "a bank's log".
        what: &'static str,
        /// Its version.
        version: u32,
        /// The newest that is known here.
        reads: u32,
    },
    /// It may be whole, and there is no room for it.
    #[error("there is not enough memory for what is in {}: {what}", path.display())]
    OutOfMemory {
        /// The file.
        path: PathBuf,
        /// What could not be had.
        what: String,
    },
    /// Of two banks of a name nobody may be served yet.
    #[error("it was to take the place of another bank of its name, and could not: {0}")]
    Unsettled(String),
    /// Another server has the folder.
    #[error("{} is in use by another server{by} (setting durability.dir): two servers can't share it", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
        /// As in ", process 77"; empty if it is not known.
        by: String,
    },
}

/// Why what was read of a file can't be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Complaint {
    /// It is not what was written.
    Damaged(String),
    /// There is no room for it.
    OutOfMemory(String),
}

impl Complaint {
    pub(super) fn about(self, path: &Path, offset: u64) -> StoreError {
        match self {
            Self::Damaged(what) => StoreError::damaged(path, offset, what),
            Self::OutOfMemory(what) => StoreError::OutOfMemory { path: path.to_owned(), what },
        }
    }
}

impl From<String> for Complaint {
    fn from(what: String) -> Self {
        Self::Damaged(what)
    }
}

impl StoreError {
    /// True if there was no room on the disk: what is there is as good as before.
    pub fn wants_room(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Refuses a file that says that it is of a later version than `reads`.
    pub(super) fn check_version(path: &Path, (what, version): (&'static str, u32), reads: u32) -> Result<(), Self> {
        if version > reads { Err(Self::Newer { path: path.to_owned(), what, version, reads }) } else { Ok(()) }
    }

    /// For `map_err` of what the system refused.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }

    pub(super) fn damaged(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), offset, what: what.into() }
    }
}
