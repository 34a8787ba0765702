//! A hash table of slots by id, one cache line a look-up.

use crate::kernels::prefetch::prefetch;
use crate::model::Seed;

/// Open addressing with linear probing (Knuth, volume 3, 6.4, algorithms L and R): what is looked up lies where its hash says or a little behind, so
/// that its memory can be asked for before it is needed. A write of thousands of rows does that, since ids lie anywhere. The hash is one of
/// this process, so that nobody can choose ids that pile up.
#[derive(Debug)]
pub(super) struct IdTable {
    /// A power of two of them, or none; some are always vacant.
    cells: Vec<Cell>,
    len: usize,
    seed: u64,
}

impl Default for IdTable {
    fn default() -> Self {
        Self { cells: Vec::new(), len: 0, seed: Seed::of_this_process().0 }
    }
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    id: u64,
    /// [`IdTable::NONE`]: vacant.
    slot: u32,
}

const VACANT: Cell = Cell { id: 0, slot: IdTable::NONE };

impl IdTable {
    /// No slot.
    pub(super) const NONE: u32 = u32::MAX;
    const FEWEST: usize = 8;

    pub(super) fn get(&self, id: u64) -> Option<u32> {
        self.find(id).map(|at| self.cells[at].slot)
    }

    /// Asks for the memory in which an id is looked up.
    pub(super) fn prefetch(&self, id: u64) {
        if let Some(at) = self.first(id) {
            prefetch(&self.cells[at..=at]);
        }
    }

    /// Returns the slot that the id had before.
    pub(super) fn insert(&mut self, id: u64, slot: u32) -> Option<u32> {
        if let Some(at) = self.find(id) {
            return Some(std::mem::replace(&mut self.cells[at].slot, slot));
        }
        // At three quarters full a look-up of what is not there sees eight cells: two cache lines.
        if 4 * (self.len + 1) > 3 * self.cells.len() {
            self.grow();
        }
        self.put(Cell { id, slot });
        self.len += 1;
        None
    }

    pub(super) fn remove(&mut self, id: u64) {
        let Some(mut hole) = self.find(id) else { return };
        let mask = self.cells.len() - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            if self.cells[at].slot == Self::NONE {
                break;
            }
            // It may move to the hole if it doesn't lie before its first cell then.
            let first = self.first(self.cells[at].id).unwrap_or(at);
            if (at.wrapping_sub(first) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.cells[hole] = self.cells[at];
                hole = at;
            }
        }
        self.cells[hole] = VACANT;
        self.len -= 1;
    }

    fn find(&self, id: u64) -> Option<usize> {
        let mask = self.cells.len().wrapping_sub(1);
        let mut at = self.first(id)?;
        loop {
            let cell = self.cells[at];
            if cell.slot == Self::NONE {
                return None;
            }
            if cell.id == id {
                return Some(at);
            }
            at = (at + 1) & mask;
        }
    }

    /// Where the search for an id begins; `None` if there are no cells. Both halves of a product, folded (Wang's wyhash).
    fn first(&self, id: u64) -> Option<usize> {
        let product = u128::from(id ^ self.seed) * u128::from(0x9E37_79B9_7F4A_7C15 ^ self.seed.rotate_left(32) | 1);
        let mask = self.cells.len().checked_sub(1)?;
        Some(((product as u64 ^ (product >> 64) as u64) as usize) & mask)
    }

    fn put(&mut self, cell: Cell) {
        let mask = self.cells.len() - 1;
        let Some(mut at) = self.first(cell.id) else { return };
        while self.cells[at].slot != Self::NONE {
            at = (at + 1) & mask;
        }
        self.cells[at] = cell;
    }

    fn grow(&mut self) {
        let cells = (2 * self.cells.len()).max(Self::FEWEST);
        let before = std::mem::replace(&mut self.cells, vec![VACANT; cells]);
        before.into_iter().filter(|cell| cell.slot != Self::NONE).for_each(|cell| self.put(cell));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::IdTable;

    proptest! {
        /// Few ids, so that runs of cells form, wrap around the end and break up.
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((prop_oneof![0u64..40, any::<u64>()], 0u32..1_000, 0u8..3), 0..600)) {
            let (mut table, mut map) = (IdTable::default(), HashMap::new());
            for (id, slot, what) in steps {
                if what == 0 {
                    table.remove(id);
                    map.remove(&id);
                } else {
                    prop_assert_eq!(table.insert(id, slot), map.insert(id, slot));
                }
                table.prefetch(id);
                prop_assert_eq!(table.len, map.len());
                for id in 0..40 {
                    prop_assert_eq!(table.get(id), map.get(&id).copied());
                }
            }
            prop_assert!(map.iter().all(|(&id, &slot)| table.get(id) == Some(slot)));
        }
    }

    /// Ids as data sets have them must not pile up, whatever the seed.
    #[test]
    fn usual_ids_are_found_after_few_cells() {
        let spread: [fn(u64) -> u64; 5] = [|n| n, |n| n << 20, |n| n << 40, |n| n * 1_000, |n| (n << 32) | (n % 8)];
        for (of, seed) in spread.into_iter().flat_map(|of| [0, 1, u64::MAX, 0x0123_4567_89AB_CDEF].map(|seed| (of, seed))) {
            let mut table = IdTable { seed, ..IdTable::default() };
            assert!((0..100_000).all(|number| table.insert(of(number), number as u32).is_none()));
            let mask = table.cells.len() - 1;
            let steps: usize = (0..100_000)
                .map(|number| {
                    let (first, at) = (table.first(of(number)).unwrap(), table.find(of(number)).unwrap());
                    at.wrapping_sub(first) & mask
                })
                .sum();
            assert!(steps < 3 * 100_000, "{steps} steps for ids like {:?}", [of(1), of(2)]);
        }
    }
}
