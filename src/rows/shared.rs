//! The reader-biased lock in front of a bank.

use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};

/// A value that many threads read in short holds and one writes: readers on different cores don't share a cache line.
///
/// Hold it for about 100 microseconds at most: a scan tile, one anchor's closing, 256 rows of a write, a MiB of a copy.
#[derive(Debug, Default)]
pub struct Shared<T>(ShardedLock<T>);

/// A writer panicked half-way: the value may be inconsistent and is served no more.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("a write failed half-way and left the bank inconsistent: delete it or restart the server")]
pub struct Poisoned;

impl<T> Shared<T> {
    /// Shares `value`.
    pub fn new(value: T) -> Self {
        Self(ShardedLock::new(value))
    }

    /// Holds the value for reading.
    ///
    /// # Errors
    /// [`Poisoned`]
    pub fn read(&self) -> Result<ShardedLockReadGuard<'_, T>, Poisoned> {
        self.0.read().map_err(|_| Poisoned)
    }

    /// Holds the value for writing.
    ///
    /// # Errors
    /// [`Poisoned`]
    pub fn write(&self) -> Result<ShardedLockWriteGuard<'_, T>, Poisoned> {
        self.0.write().map_err(|_| Poisoned)
    }
}
