//! Who writes, so that a write may be sent again without being applied twice.

use std::sync::atomic::{AtomicU64, Ordering};

use super::ClientError;
use super::entropy::random;
use crate::proto::v1::Origin;

/// One writer in one life: its batches are numbered 1, 2, 3, ... A process that forks needs another, or the bank takes the
/// child's batches for the parent's.
#[derive(Debug)]
pub(super) struct Writer {
    name: String,
    incarnation: u64,
    written: AtomicU64,
}

impl Writer {
    /// A writer that nobody has been.
    pub(super) fn new(name: String) -> Result<Self, ClientError> {
        let incarnation = random().ok_or_else(|| ClientError::Other {
            code: tonic::Code::Internal,
            message: "the system gives no random number, so that writes cannot be told apart from another process's".to_owned(),
        })?;
        Ok(Self { name, incarnation, written: AtomicU64::new(0) })
    }

    /// The origin of the next batch.
    pub(super) fn next(&self) -> Origin {
        let number = self.written.fetch_add(1, Ordering::Relaxed) + 1;
        Origin { writer: self.name.clone(), incarnation: self.incarnation, number }
    }
}
