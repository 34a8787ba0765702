//! A copy of a bank's embeddings as they were at one moment, taken while writes go on.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use super::state::Bank;
use crate::rows::Rows;

/// Embeddings that are taken shard by shard, from the first slot to the last. Before a write changes a row that was not taken yet, the
/// row is copied aside; if more lies aside than the budget allows, the copy fails, not the write.
#[derive(Debug)]
pub struct Cut {
    state: Mutex<State>,
    budget: Budget,
}

/// What may lie aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of rows.
    pub bytes: usize,
    /// The setting that says so.
    pub setting: &'static str,
}

#[derive(Debug)]
struct State {
    shards: Vec<OfShard>,
    aside: usize,
    over: bool,
}

#[derive(Debug)]
struct OfShard {
    slots: u32,
    /// Slots below this were taken.
    taken: u32,
    aside: FxHashMap<u32, Vec<u8>>,
}

/// More was written meanwhile than could be copied aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {} bytes of rows were written before they were copied (setting {})", .0.bytes, .0.setting)]
pub struct Overrun(pub Budget);

impl Cut {
    /// Slots taken in one hold of the bank at most.
    pub const SLOTS_PER_HOLD: u32 = 256;

    pub(super) fn new(slots: impl Iterator<Item = u32>, budget: Budget) -> Self {
        let shards = slots.map(|slots| OfShard { slots, taken: 0, aside: FxHashMap::default() }).collect();
        Self { state: Mutex::new(State { shards, aside: 0, over: false }), budget }
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
        of_shard.taken = of_shard.slots.min(first + Self::SLOTS_PER_HOLD);
        for slot in first..of_shard.taken {
            match of_shard.aside.remove(&slot) {
                Some(row) => {
                    *aside -= row.len();
                    raw.extend_from_slice(&row);
                }
                None => bank.shards()[shard].rows().row(slot).append_raw(raw),
            }
        }
        Ok((first < of_shard.taken).then_some(first))
    }

    /// Copies a row aside, if it was not taken yet. False if nobody needs it any more.
    pub(super) fn keep(&self, shard: usize, slot: u32, rows: &Rows) -> bool {
        let mut state = self.state();
        let State { shards, aside, over } = &mut *state;
        let Some(of_shard) = shards.get_mut(shard).filter(|_| !*over) else { return false };
        if slot < of_shard.taken || slot >= of_shard.slots {
            return shards.iter().any(|of_shard| of_shard.taken < of_shard.slots);
        }
        of_shard.aside.entry(slot).or_insert_with(|| {
            let mut raw = Vec::new();
            rows.row(slot).append_raw(&mut raw);
            *aside += raw.len();
            raw
        });
        if *aside > self.budget.bytes {
            *over = true;
            shards.iter_mut().for_each(|of_shard| of_shard.aside = FxHashMap::default());
        }
        !*over
    }

    /// Bytes of rows that lie aside.
    pub(super) fn aside(&self) -> usize {
        self.state().aside
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
