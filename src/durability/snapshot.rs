//! What a snapshot is of.

/// A bank as it was after one of its mutations, in a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The last mutation in it; 0: there is none.
    pub sequence: u64,
    /// Bytes on disk.
    pub bytes: u64,
}
