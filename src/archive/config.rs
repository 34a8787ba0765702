//! Settings of checkpoints.

use std::path::PathBuf;

/// Where checkpoints are kept, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A directory, or `s3://bucket/prefix`; `None`: none are kept.
    pub location: Option<String>,
    /// Checkpoints of a bank that are kept when another is made; 0: all.
    pub keep: usize,
    /// Bytes of rows that writes may make a checkpoint copy aside before it fails.
    pub memory_bytes: usize,
    /// Folder that has room for a checkpoint before it is uploaded; `None`: the data folder, else the system's for temporary files.
    pub spool: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self { location: None, keep: 0, memory_bytes: 1 << 30, spool: None }
    }
}
