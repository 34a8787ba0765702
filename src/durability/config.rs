//! Settings of durability.

use std::path::PathBuf;
use std::time::Duration;

use crate::model::Durability;

/// Where banks are kept, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Folder of the data; `None`: banks live in memory and end with the server.
    pub dir: Option<PathBuf>,
    /// Durability of a bank that is created without one.
    pub policy: Durability,
    /// What becomes of a bank whose log is damaged.
    pub damaged: Damaged,
    /// What a bank of [`Durability::Interval`] may lose, if a sync takes no longer than half of it.
    pub interval: Duration,
    /// Bytes after which a log begins a new file.
    pub segment_bytes: u64,
    /// Bytes of log that are not worth a snapshot; from there on one is taken when the log is four times as large as one.
    pub snapshot_log_bytes: u64,
    /// Bytes of rows that writes may make a snapshot copy aside before it fails.
    pub snapshot_memory_bytes: usize,
}

/// What becomes of a bank whose log is damaged in the middle. One whose snapshot is damaged is always refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damaged {
    /// It is not served.
    Refuse,
    /// It is served as it was before the damage, and takes no writes.
    ReadOnly,
}

impl Damaged {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Refuse, Self::ReadOnly];

    /// As settings name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::ReadOnly => "read_only",
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: None,
            policy: Durability::Interval,
            damaged: Damaged::Refuse,
            interval: Duration::from_millis(1_000),
            segment_bytes: 256 << 20,
            snapshot_log_bytes: 256 << 20,
            snapshot_memory_bytes: 1 << 30,
        }
    }
}
