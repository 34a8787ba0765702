//! The one account of what lies in memory, and who is refused when it is full.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

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
    /// Gathers, from when their first rows come until the last rank's answer is sent, or they are forgotten if that is later.
    Gathers,
    /// Requests that are received, wait, or are worked on.
    Requests,
    /// Answers, from when they are begun until the last byte is sent, and those that are kept for other ranks.
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
    /// Of all parts but buffers: one number, so that no two who look at it at once take the same room.
    total: AtomicUsize,
    recycler: Recycler,
    reserves: Mutex<Vec<Weak<dyn Reserve>>>,
}

/// Memory that was taken, and is only kept in case somebody asks for it again.
pub trait Reserve: fmt::Debug + Send + Sync {
    /// Lets go of what nobody uses now.
    fn free(&self);
}

/// Memory that somebody has taken, given back when this is dropped.
#[derive(Debug)]
pub struct Share {
    book: Arc<Book>,
    part: Part,
    /// Never more than the book has of it, whoever sets it at once: the book's sums can't fall below zero.
    bytes: Mutex<usize>,
}

/// What is full, and what changes that.
pub(super) const ROOM: &str = "the memory for requests and answers, in bytes,";
pub(super) const SETTING: &str = "memory.max_bytes";

impl Ledger {
    /// Nothing taken yet but what `recycler` keeps.
    pub(super) fn new(config: MemoryConfig, recycler: Recycler) -> Self {
        let (taken, total, reserves) = Default::default();
        Self(Arc::new(Book { config, taken, total, recycler, reserves }))
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
        self.0.total.load(Ordering::Relaxed).saturating_add(self.0.recycler.kept())
    }

    /// Bytes that may be; `None`: no limit.
    pub fn limit(&self) -> Option<usize> {
        self.0.limit()
    }

    /// Bytes from which on banks do not grow; `None`: no limit.
    pub fn write_limit(&self) -> Option<usize> {
        self.limit().map(|limit| (limit as u128 * self.0.config.write_percent as u128 / 100) as usize)
    }

    /// Has a reserve freed before anybody is refused, for as long as it lives.
    pub fn has_reserve(&self, reserve: Weak<dyn Reserve>) {
        let mut reserves = self.0.reserves.lock().unwrap_or_else(PoisonError::into_inner);
        reserves.retain(|there| there.strong_count() > 0);
        reserves.push(reserve);
    }

    /// Whether there is room for `bytes` below `most`, if need be once what is only kept is freed.
    fn fits(&self, bytes: usize, most: usize) -> bool {
        self.0.make_room(|| self.total().saturating_add(bytes) <= most)
    }

    /// How much is missing for `bytes` more, once what is only kept is freed; 0: they are there.
    pub(super) fn missing(&self, bytes: usize) -> usize {
        let Some(limit) = self.limit() else { return 0 };
        if bytes == 0 || self.fits(bytes, limit) { 0 } else { self.total().saturating_add(bytes).saturating_sub(limit) }
    }

    /// A share that is nothing yet.
    pub fn share(&self, part: Part) -> Share {
        Share { book: Arc::clone(&self.0), part, bytes: Mutex::default() }
    }

    /// Takes memory that is needed for a while.
    ///
    /// # Errors
    /// [`EngineError::Busy`] if it is not there now.
    pub fn take(&self, part: Part, bytes: usize) -> Result<Share, EngineError> {
        let share = self.share(part);
        share.grow(bytes).map(|()| share)
    }

    /// Whether a bank may grow by so many bytes. Nothing is taken for it: banks that grow at once may pass the mark by a batch each.
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

impl Book {
    fn limit(&self) -> Option<usize> {
        Some(self.config.max_bytes).filter(|&limit| limit > 0)
    }

    /// Frees what is only kept, no more than is enough: first buffers, which cost whoever wants one only page faults.
    fn make_room(&self, enough: impl Fn() -> bool) -> bool {
        if enough() {
            return true;
        }
        self.recycler.free();
        if enough() {
            return true;
        }
        let reserves = self.reserves.lock().unwrap_or_else(PoisonError::into_inner).clone();
        reserves.iter().filter_map(Weak::upgrade).for_each(|reserve| reserve.free());
        // Where what they let go of may be by now.
        self.recycler.free();
        enough()
    }

    /// Takes memory, unless that passes the limit.
    fn take(&self, part: Part, bytes: usize) -> bool {
        if bytes == 0 {
            // What is set and not asked for may have passed it.
            return true;
        }
        let limit = self.limit().unwrap_or(usize::MAX);
        let most = limit.saturating_sub(self.recycler.kept());
        let grown = |total: usize| total.checked_add(bytes).filter(|&total| total <= most);
        let Ok(before) = self.total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown) else { return false };
        self.taken[part as usize].fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes).saturating_add(self.recycler.kept()) > limit {
            // Buffers that came back meanwhile.
            self.recycler.free();
        }
        true
    }

    fn set(&self, part: Part, before: usize, after: usize) {
        for count in [&self.taken[part as usize], &self.total] {
            if after >= before {
                count.fetch_add(after - before, Ordering::Relaxed);
            } else {
                count.fetch_sub(before - after, Ordering::Relaxed);
            }
        }
    }
}

impl Share {
    /// What is taken.
    pub fn bytes(&self) -> usize {
        *self.own()
    }

    /// Notes what is taken now.
    pub fn set(&self, bytes: usize) {
        let mut own = self.own();
        self.book.set(self.part, *own, bytes);
        *own = bytes;
    }

    /// Takes more, unless that passes the limit.
    ///
    /// # Errors
    /// [`EngineError::Busy`]; nothing more is taken then.
    pub fn grow(&self, more: usize) -> Result<(), EngineError> {
        self.try_grow(more).map_err(|limit| EngineError::full(ROOM, limit, SETTING))
    }

    /// As [`Self::grow`]; refused, the limit.
    pub(super) fn try_grow(&self, more: usize) -> Result<(), usize> {
        if !self.book.make_room(|| self.book.take(self.part, more)) {
            return Err(self.book.limit().unwrap_or(usize::MAX));
        }
        let mut own = self.own();
        *own = own.saturating_add(more);
        Ok(())
    }

    fn own(&self) -> MutexGuard<'_, usize> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, Weak};

    use super::{Ledger, MemoryConfig, Part, Reserve, Share};
    use crate::engine::EngineError;
    use crate::rows::{Buffer, Recycler};

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

    /// An answer that was sent and may be asked for again, in memory that can be recycled.
    #[derive(Debug, Default)]
    struct Kept(Mutex<Option<(Buffer, Share)>>);

    impl Reserve for Kept {
        fn free(&self) {
            drop(self.0.lock().unwrap().take());
        }
    }

    #[test]
    fn what_is_kept_for_others_is_given_up_before_anybody_is_refused() {
        let recycler = Recycler::default();
        let ledger = Ledger::new(MemoryConfig { max_bytes: 100_000, write_percent: 80 }, recycler.clone());
        let keep = || {
            let kept = Arc::new(Kept::default());
            *kept.0.lock().unwrap() = Some((recycler.buffer(40_000), ledger.take(Part::Answers, 40_000).unwrap()));
            let reserve: Weak<Kept> = Arc::downgrade(&kept);
            ledger.has_reserve(reserve);
            kept
        };
        let kept = keep();
        let others = ledger.take(Part::Answers, 60_000).unwrap();
        assert!(kept.0.lock().unwrap().is_some(), "while there is room, it is kept");
        let more = ledger.take(Part::Answers, 40_000).unwrap();
        assert!(kept.0.lock().unwrap().is_none());
        assert_eq!((ledger.taken(Part::Buffers), ledger.total()), (0, 100_000), "its buffer was no use in another place");
        drop(more);
        let kept = keep();
        assert_eq!(ledger.missing(50_000), 10_000);
        assert!(kept.0.lock().unwrap().is_none(), "it was given up all the same");
        drop(keep());
        assert_eq!(ledger.missing(40_000), 0);
        drop(others);
        assert_eq!(ledger.total(), 0);
    }

    #[test]
    fn callers_that_take_at_once_never_pass_the_limit_together() {
        let ledger = Ledger::new(MemoryConfig { max_bytes: 1_000, write_percent: 80 }, Recycler::default());
        let took = || {
            let mut most = 0;
            for round in 0..2_000 {
                let part = if round % 2 == 0 { Part::Requests } else { Part::Answers };
                let share = ledger.take(part, 300);
                most = most.max(ledger.total());
                drop(share);
            }
            most
        };
        let most = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..8).map(|_| scope.spawn(took)).collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).max()
        });
        assert!(most.is_some_and(|most| (300..=1_000).contains(&most)), "{most:?}");
        assert_eq!((ledger.total(), ledger.taken(Part::Requests), ledger.taken(Part::Answers)), (0, 0, 0));
    }

    #[test]
    fn a_share_that_many_set_at_once_never_has_the_account_below_nothing() {
        let ledger = Ledger::new(MemoryConfig { max_bytes: 1 << 20, write_percent: 80 }, Recycler::default());
        let share = ledger.share(Part::Rows);
        let set = |first: usize| (0..20_000).for_each(|round| share.set(1_000 * ((round + first) % 2)));
        let most = std::thread::scope(|scope| {
            let setters: Vec<_> = (0..4).map(|first| scope.spawn(move || set(first))).collect();
            let mut most = 0;
            while !setters.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                most = most.max(ledger.total()).max(ledger.taken(Part::Rows));
            }
            most
        });
        assert!(most <= 1_000, "{most}");
        share.set(7);
        assert_eq!((ledger.total(), ledger.taken(Part::Rows), share.bytes()), (7, 7, 7));
    }
}
