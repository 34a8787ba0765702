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
    /// What a bank of [`Durability::Interval`] may lose.
    pub interval: Duration,
    /// Bytes after which a log begins a new file.
    pub segment_bytes: u64,
    /// Bytes of log that are not worth a snapshot; from there on one is taken when the log is larger than the last.
    pub snapshot_log_bytes: u64,
    /// Bytes of rows that writes may make a snapshot copy aside before it fails.
    pub snapshot_memory_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: None,
            policy: Durability::Interval,
            interval: Duration::from_millis(1_000),
            segment_bytes: 64 << 20,
            snapshot_log_bytes: 256 << 20,
            snapshot_memory_bytes: 1 << 30,
        }
    }
}
