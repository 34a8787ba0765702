//! The one account of what lies in memory, and who is refused when it is full.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::EngineError;
use crate::rows::Recycler;

/// How much memory may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Bytes of everything that is accounted for; 0: no limit.
    pub max_bytes: usize,
    /// Percent of them up to which banks may grow; the rest is for requests and answers, and for rewrites, which never grow a bank.
    pub write_percent: usize,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { max_bytes: 0, write_percent: 90 }
    }
}

/// What memory is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Embeddings, their codes and columns, and the lists that find them.
    Rows,
    /// Graphs that serve.
    Graphs,
    /// The copy that a graph is built from, and the graph while it is built.
    Builds,
    /// Rows copied aside for snapshots and checkpoints.
    Cuts,
    /// Staged writes that wait for their ranks.
    Staged,
    /// Gathers.
    Gathers,
    /// Requests that are received, wait, or are worked on.
    Requests,
    /// Answers, from when they are begun until the last byte is sent.
    Answers,
    /// Memory of answers that were sent, kept for the next.
    Buffers,
}

impl Part {
    /// Every part, and its name.
    pub const ALL: [(Self, &str); 9] = [
        (Self::Rows, "rows"),
        (Self::Graphs, "graphs"),
        (Self::Builds, "builds"),
        (Self::Cuts, "cuts"),
        (Self::Staged, "staged"),
        (Self::Gathers, "gathers"),
        (Self::Requests, "requests"),
        (Self::Answers, "answers"),
        (Self::Buffers, "buffers"),
    ];
}

/// The account. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ledger(Arc<Book>);

#[derive(Debug)]
struct Book {
    config: MemoryConfig,
    taken: [AtomicUsize; Part::ALL.len()],
    recycler: Recycler,
}

/// Memory that somebody has taken, given back when this is dropped.
#[derive(Debug)]
pub struct Share {
    book: Arc<Book>,
    part: Part,
    bytes: AtomicUsize,
}

const SETTING: &str = "memory.max_bytes";

impl Ledger {
    /// Nothing taken yet but what `recycler` keeps.
    pub(super) fn new(config: MemoryConfig, recycler: Recycler) -> Self {
        Self(Arc::new(Book { config, taken: Default::default(), recycler }))
    }

    /// Bytes taken for a part.
    pub fn taken(&self, part: Part) -> usize {
        match part {
            Part::Buffers => self.0.recycler.kept(),
            _ => self.0.taken[part as usize].load(Ordering::Relaxed),
        }
    }

    /// Bytes taken for everything.
    pub fn total(&self) -> usize {
        Part::ALL.iter().fold(0usize, |sum, &(part, _)| sum.saturating_add(self.taken(part)))
    }

    /// Bytes that may be; `None`: no limit.
    pub fn limit(&self) -> Option<usize> {
        Some(self.0.config.max_bytes).filter(|&limit| limit > 0)
    }

    /// Bytes from which on banks do not grow; `None`: no limit.
    pub fn write_limit(&self) -> Option<usize> {
        self.limit().map(|limit| (limit as u128 * self.0.config.write_percent as u128 / 100) as usize)
    }

    /// Whether there is room for `bytes` below `most`, if need be once buffers that are only kept are freed.
    fn fits(&self, bytes: usize, most: usize) -> bool {
        let fits = || self.total().saturating_add(bytes) <= most;
        if !fits() {
            self.0.recycler.free();
        }
        fits()
    }

    /// A share that is nothing yet.
    pub fn share(&self, part: Part) -> Share {
        Share { book: Arc::clone(&self.0), part, bytes: AtomicUsize::new(0) }
    }

    /// Takes memory that is needed for a while.
    ///
    /// # Errors
    /// [`EngineError::Busy`] if it is not there now.
    pub fn take(&self, part: Part, bytes: usize) -> Result<Share, EngineError> {
        let share = self.share(part);
        share.grow(bytes).map(|()| share)
    }

    /// Whether a bank may grow by so many bytes.
    ///
    /// # Errors
    /// [`EngineError::MemoryFull`]
    pub(super) fn may_grow(&self, bytes: usize) -> Result<(), EngineError> {
        let Some((limit, most)) = self.limit().zip(self.write_limit()) else { return Ok(()) };
        if self.fits(bytes, most) {
            return Ok(());
        }
        let lasting: usize = LASTING.iter().map(|&part| self.taken(part)).sum();
        if lasting.saturating_add(bytes) <= most {
            // Builds, copies, requests and answers end.
            return Err(EngineError::full("the memory that banks grow into, in bytes,", most, SETTING));
        }
        let (used, percent) = (self.total(), self.0.config.write_percent);
        Err(EngineError::MemoryFull { bytes, used, most, percent, limit })
    }
}

/// What only deleting gives back.
const LASTING: [Part; 2] = [Part::Rows, Part::Graphs];

impl Share {
    /// What is taken.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Notes what is taken now.
    pub fn set(&self, bytes: usize) {
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        let of_part = &self.book.taken[self.part as usize];
        if bytes >= before {
            of_part.fetch_add(bytes - before, Ordering::Relaxed);
        } else {
            of_part.fetch_sub(before - bytes, Ordering::Relaxed);
        }
    }

    /// Takes more, unless that passes the limit.
    ///
    /// # Errors
    /// [`EngineError::Busy`]; nothing more is taken then.
    pub fn grow(&self, more: usize) -> Result<(), EngineError> {
        let book = Ledger(Arc::clone(&self.book));
        if let Some(limit) = book.limit()
            && !book.fits(more, limit)
        {
            return Err(EngineError::full("the memory for requests and answers, in bytes,", limit, SETTING));
        }
        self.bytes.fetch_add(more, Ordering::Relaxed);
        self.book.taken[self.part as usize].fetch_add(more, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::{Ledger, MemoryConfig, Part};
    use crate::engine::EngineError;
    use crate::rows::Recycler;

    #[test]
    fn what_is_taken_is_given_back_and_never_passes_the_limit() {
        let recycler = Recycler::default();
        let ledger = Ledger::new(MemoryConfig { max_bytes: 100_000, write_percent: 80 }, recycler.clone());
        let rows = ledger.share(Part::Rows);
        ledger.may_grow(80_000).unwrap();
        rows.set(70_000);
        let refused = ledger.may_grow(10_001).unwrap_err();
        assert!(matches!(refused, EngineError::MemoryFull { used: 70_000, most: 80_000, .. }), "{refused}");
        assert!(refused.to_string().contains("(setting memory.max_bytes)"), "{refused}");
        let answer = ledger.take(Part::Answers, 20_000).unwrap();
        assert!(matches!(ledger.take(Part::Answers, 10_001), Err(EngineError::Busy { limit: 100_000, .. })));
        answer.set(5_000);
        assert_eq!((ledger.taken(Part::Answers), ledger.total()), (5_000, 75_000));
        drop(answer);
        drop(recycler.buffer(20_000));
        assert_eq!((ledger.taken(Part::Buffers), ledger.total()), (20_000, 90_000));
        ledger.take(Part::Answers, 20_000).expect("buffers that are only kept make room");
        drop(rows);
        assert_eq!(ledger.total(), 0);
        let unbounded = Ledger::new(MemoryConfig::default(), Recycler::default());
        unbounded.may_grow(usize::MAX).unwrap();
    }
}
