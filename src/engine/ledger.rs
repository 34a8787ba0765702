//! The one account of what lies in memory, and who is refused when it is full.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::EngineError;
use super::no_room::NoRoom;
use crate::model::Excess;
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
    /// Copies for snapshots and checkpoints: of rows before they change, and of all but the rows.
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
    /// [`EngineError::Busy`] if it is not there now, [`EngineError::NeverFits`] if it can't ever be.
    pub fn take(&self, part: Part, bytes: usize) -> Result<Share, EngineError> {
        self.take_beside(part, bytes, 0)
    }

    /// The same for somebody who holds `held` bytes elsewhere meanwhile.
    ///
    /// # Errors
    /// As of [`Self::take`].
    pub fn take_beside(&self, part: Part, bytes: usize, held: usize) -> Result<Share, EngineError> {
        let share = self.share(part);
        share.grow_for(bytes, bytes.saturating_add(held)).map(|()| share)
    }

    /// Whether a bank may grow by so many bytes, for a request that takes `own` meanwhile. Nothing is taken for it: banks that grow at once may
    /// pass the mark by a batch each.
    ///
    /// # Errors
    /// [`EngineError::MemoryFull`]
    pub(super) fn may_grow(&self, bytes: usize, own: usize) -> Result<(), EngineError> {
        let Some((limit, most)) = self.limit().zip(self.write_limit()) else { return Ok(()) };
        if self.fits(bytes, most) {
            return Ok(());
        }
        if self.0.lasting().saturating_add(bytes).saturating_add(own) <= most {
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

    /// What only deleting gives back.
    fn lasting(&self) -> usize {
        LASTING.iter().map(|&part| self.taken[part as usize].load(Ordering::Relaxed)).sum()
    }

    /// Why there is never room for `needed` bytes at once, where there is none.
    fn excess(&self, needed: usize) -> Option<Excess> {
        NoRoom::ever((needed, self.lasting()), self.limit()?)
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

    /// Refuses what needs `needed` bytes at once, if there can never be as many.
    ///
    /// # Errors
    /// [`EngineError::NeverFits`]
    pub fn may_ever_be(&self, needed: usize) -> Result<(), EngineError> {
        self.book.excess(needed).map_or(Ok(()), |excess| Err(excess.into()))
    }

    /// Takes more for what will need `needed` bytes at once, these among them, unless that passes the limit.
    ///
    /// # Errors
    /// [`EngineError::Busy`], or [`EngineError::NeverFits`] where `needed` can't ever be there; nothing more is taken then.
    pub fn grow_for(&self, more: usize, needed: usize) -> Result<(), EngineError> {
        self.try_grow(more, needed).map_err(EngineError::from)
    }

    /// As [`Self::grow_for`].
    pub(super) fn try_grow(&self, more: usize, needed: usize) -> Result<(), NoRoom> {
        if !self.book.make_room(|| self.book.take(self.part, more)) {
            let limit = self.book.limit().unwrap_or(usize::MAX);
            return Err(self.book.excess(needed).map_or(NoRoom::Now { limit }, NoRoom::Ever));
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
mod tests;
