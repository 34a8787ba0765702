//! A copy of a bank's embeddings as they were at one moment, taken while writes go on.

use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::aside::Aside;
use super::state::Bank;
use crate::model::BankImage;
use crate::rows::Rows;

/// Embeddings that are taken shard by shard, from the first slot to the last. Before a write changes a row that was not taken yet, the
/// row is copied aside; if more lies aside than the budget allows, the copy fails, not the write, or the next writes wait for it.
#[derive(Debug)]
pub struct Cut {
    state: Mutex<State>,
    budget: Budget,
    /// Bytes of what is taken beside the embeddings, and there as long as this is.
    image: usize,
}

/// What may lie aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of rows, without the four of every slot that tell where.
    pub bytes: usize,
    /// The setting that says so.
    pub setting: &'static str,
    /// Whether writes wait where more would lie aside (`Cut::is_pressed`); else the copy fails.
    pub writes_wait: bool,
}

#[derive(Debug)]
struct State {
    shards: Vec<OfShard>,
    aside: Aside,
    /// More was written than could be copied aside, or nobody takes rows any more.
    over: bool,
}

#[derive(Debug)]
struct OfShard {
    slots: u32,
    /// Slots below this were taken.
    taken: u32,
    /// Where the rows of slots lie aside; empty until the first does.
    aside: Vec<Option<NonZeroU32>>,
}

/// More was written meanwhile than could be copied aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {} bytes of rows were written before they were copied (setting {})", .0.bytes, .0.setting)]
pub struct Overrun(pub Budget);

impl Cut {
    /// Slots of one [`Self::take`] at most.
    pub const SLOTS_PER_TAKE: u32 = 256;

    /// Of shards of so many slots, with rows of `row` bytes.
    pub(super) fn new(slots: impl Iterator<Item = u32>, row: usize, budget: Budget) -> Self {
        let shards: Vec<OfShard> = slots.map(|slots| OfShard { slots, taken: 0, aside: Vec::new() }).collect();
        let image = shards.iter().map(|of_shard| of_shard.slots as usize * BankImage::BYTES_PER_ENTRY).sum();
        Self { state: Mutex::new(State { shards, aside: Aside::new(row), over: false }), budget, image }
    }

    /// Appends the next embeddings of a shard to `raw`, and returns the slot of the first; `None` after the last.
    ///
    /// # Errors
    /// [`Overrun`]
    pub fn take(&self, bank: &Bank, shard: usize, raw: &mut Vec<u8>) -> Result<Option<u32>, Overrun> {
        let mut state = self.state();
        if state.over {
            return Err(Overrun(self.budget));
        }
        let State { shards, aside, .. } = &mut *state;
        let Some(of_shard) = shards.get_mut(shard) else { return Ok(None) };
        let first = of_shard.taken;
        of_shard.taken = of_shard.slots.min(first + Self::SLOTS_PER_TAKE);
        for slot in first..of_shard.taken {
            match of_shard.aside.get_mut(slot as usize).and_then(Option::take) {
                Some(at) => aside.take(at, raw),
                None => bank.shards()[shard].rows().row(slot).append_raw(raw),
            }
        }
        Ok((first < of_shard.taken).then_some(first))
    }

    /// Gives the memory of what lies aside back: whoever takes the cut needs no more of it. Takes a while, in which the bank should not be held.
    pub fn forget(&self) {
        let mut state = self.state();
        state.over = true;
        let aside = std::mem::replace(&mut state.aside, Aside::new(0));
        let places: Vec<_> = state.shards.iter_mut().map(|of_shard| std::mem::take(&mut of_shard.aside)).collect();
        drop(state);
        drop((aside, places));
    }

    /// True while rows must be kept for it: not all were taken yet, and it has not ended.
    pub(super) fn is_open(&self) -> bool {
        let state = self.state();
        !state.over && state.shards.iter().any(|of_shard| of_shard.taken < of_shard.slots)
    }

    /// Whoever changes rows has this meanwhile.
    pub(super) fn keeper(&self) -> Keeper<'_> {
        Keeper { state: self.state(), budget: self.budget }
    }

    /// True while writes are to wait until more of it was taken.
    pub(super) fn is_pressed(&self) -> bool {
        let state = self.state();
        self.budget.writes_wait && !state.over && state.aside.rows_bytes() > self.budget.bytes
    }

    /// It fails: nobody waits for it any longer.
    pub(super) fn give_up(&self) {
        self.state().over = true;
    }

    /// True while there is no hurry: less than half of what may lie aside does.
    pub fn has_time(&self) -> bool {
        self.state().aside.rows_bytes() <= self.budget.bytes / 2
    }

    /// Memory of what lies aside and of the image, in bytes.
    pub(super) fn resident(&self) -> usize {
        let state = self.state();
        let places: usize = state.shards.iter().map(|of_shard| size_of_val(of_shard.aside.as_slice())).sum();
        state.aside.resident() + places + self.image
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cut that rows are kept for while a writer holds the bank.
#[derive(Debug)]
pub(super) struct Keeper<'a> {
    state: MutexGuard<'a, State>,
    budget: Budget,
}

impl Keeper<'_> {
    /// Copies a row aside, if it was not taken yet. Must be called before it is changed.
    pub(super) fn keep(&mut self, shard: usize, slot: u32, rows: &Rows) {
        let State { shards, aside, over } = &mut *self.state;
        let Some(of_shard) = shards.get_mut(shard).filter(|_| !*over) else { return };
        if slot < of_shard.taken || slot >= of_shard.slots {
            return;
        }
        if of_shard.aside.is_empty() {
            of_shard.aside = vec![None; of_shard.slots as usize];
        }
        let mut kept = true;
        if let Some(at @ None) = of_shard.aside.get_mut(slot as usize) {
            *at = aside.put(rows.row(slot));
            kept = at.is_some();
        }
        // What lies aside goes with whoever takes the cut: no writer waits for that.
        *over |= !kept || (aside.rows_bytes() > self.budget.bytes && !self.budget.writes_wait);
    }
}
