//! How far a long call has come, for those who watch it.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// What a call is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It waits for its turn.
    Waiting,
    /// It copies a bank to the spool.
    Copying,
    /// It uploads the spool.
    Uploading,
    /// It reads a checkpoint.
    Reading,
}

const PHASES: [Phase; 4] = [Phase::Waiting, Phase::Copying, Phase::Uploading, Phase::Reading];

/// A reading: the phase, and bytes done of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stand {
    /// The phase.
    pub phase: Phase,
    /// Bytes done in it.
    pub done: u64,
    /// Of how many.
    pub total: u64,
}

/// Written by whoever works, read by whoever waits. A reading may mix two moments.
#[derive(Debug, Default)]
pub(super) struct Meter {
    phase: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
}

impl Meter {
    pub(super) fn begin(&self, phase: Phase, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(super) fn done(&self, bytes: u64) {
        self.done.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Stand {
        let phase = PHASES.get(usize::from(self.phase.load(Ordering::Relaxed))).copied().unwrap_or(Phase::Waiting);
        Stand { phase, done: self.done.load(Ordering::Relaxed), total: self.total.load(Ordering::Relaxed) }
    }
}
