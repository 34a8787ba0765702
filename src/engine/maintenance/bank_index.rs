//! One bank's index, and how its build stands.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::bank::Bank;
use crate::engine::ledger::Share;
use crate::model::clock;
use crate::rows::Shared;
use crate::sampling::{Indexed, Source, Standing, calibrate};

/// The index of a bank, shared by its searches, its committer and the builder.
#[derive(Debug)]
pub(in crate::engine) struct BankIndex {
    pub(in crate::engine) indexed: Indexed,
    closed: AtomicBool,
    /// True until a graph that was kept has been looked for.
    to_be_reloaded: AtomicBool,
    /// What the graph that serves takes.
    memory: Share,
    status: Mutex<Status>,
}

#[derive(Debug)]
pub(super) struct Status {
    /// Share of the nodes that a build has in; `None`: none runs.
    pub(super) building: Option<f64>,
    /// Why it is as it is.
    pub(super) reason: String,
    /// True if that is a build that failed.
    pub(super) failed: bool,
    /// No build before.
    pub(super) not_before: Option<Instant>,
    /// When it was last measured what searches cost.
    pub(super) measured: Option<Instant>,
    /// Entries when the bank was last looked at.
    pub(super) seen_entries: usize,
}

/// The index of a bank as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexInfo {
    /// The graph that serves.
    pub standing: Option<Standing>,
    /// Share of the nodes that the running build has in.
    pub building: Option<f64>,
    /// Why it is as it is.
    pub reason: String,
    /// True if that is a build that failed.
    pub failed: bool,
    /// Mean recall of checked answers, and how many were checked.
    pub recall: Option<(f64, u64)>,
}

impl BankIndex {
    /// No graph yet, for the reason given; `kept`: there may be one on disk.
    pub(in crate::engine) fn new(reason: String, kept: bool, memory: Share) -> Self {
        let status = Status { building: None, reason, failed: false, not_before: None, measured: None, seen_entries: 0 };
        let (closed, to_be_reloaded) = (AtomicBool::new(false), AtomicBool::new(kept));
        Self { indexed: Indexed::default(), closed, to_be_reloaded, memory, status: Mutex::new(status) }
    }

    /// Stops a running build, and begins no other.
    pub(in crate::engine) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// True once, where a graph may be on disk.
    pub(super) fn is_to_be_reloaded(&self) -> bool {
        self.to_be_reloaded.swap(false, Ordering::Relaxed)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Notes what the graph that serves takes.
    pub(super) fn note_memory(&self) {
        self.memory.set(self.indexed.standing().map_or(0, |standing| standing.bytes));
    }

    pub(in crate::engine) fn describe(&self) -> IndexInfo {
        let standing = self.indexed.standing();
        let (building, reason, failed) = self.status(|status| (status.building, status.reason.clone(), status.failed));
        IndexInfo { standing, building, reason, failed, recall: self.indexed.recall().mean() }
    }

    /// Holds an approximate answer against a scan, if one waits for that.
    pub(super) fn check_recall(&self, bank: &Shared<Bank>, closing: &AtomicBool) {
        let source = Source { bank, indexed: Some(&self.indexed) };
        self.indexed.recall().check(source, &|| !closing.load(Ordering::Relaxed) && !self.is_closed());
    }

    /// True if it was not measured for so long what searches cost.
    pub(super) fn is_to_be_measured(&self, every: Duration) -> bool {
        let now = clock::now();
        self.status(|status| status.measured.is_none_or(|measured| now.duration_since(measured) >= every))
    }

    /// Measures what searches cost.
    pub(super) fn calibrate(&self, bank: &Shared<Bank>, closing: &AtomicBool) {
        self.status(|status| status.measured = Some(clock::now()));
        let source = Source { bank, indexed: Some(&self.indexed) };
        calibrate(source, &|| !closing.load(Ordering::Relaxed) && !self.is_closed());
    }

    pub(super) fn status<T>(&self, change: impl FnOnce(&mut Status) -> T) -> T {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn explain(&self, reason: String) {
        self.status(|status| (status.reason, status.failed) = (reason, false));
    }

    /// Says that a build of so many entries has begun; if the one before failed, that is told until this one has not.
    pub(super) fn begin(&self, entries: usize) {
        self.status(|status| {
            let before = if status.failed { format!("; the one before failed: {}", status.reason) } else { String::new() };
            (status.building, status.reason) = (Some(0.0), format!("building from {entries} entries{before}"));
        });
    }

    /// Notes that a build came to nothing, and begins none for a while.
    pub(super) fn fail(&self, reason: String, pause: Duration) {
        tracing::warn!(reason, ?pause, "no new graph");
        self.status(|status| {
            status.building = None;
            (status.reason, status.failed) = (reason, true);
            status.not_before = clock::now().checked_add(pause);
        });
    }
}
