//! Slots by id.

use super::id_table::IdTable;

const NONE: u32 = IdTable::NONE;

/// Slots by id. In a queue an id may have several entries: they are chained from the newest to the oldest.
#[derive(Debug, Default)]
pub(super) struct IdIndex {
    newest: IdTable,
    chain: Vec<Link>,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    newer: u32,
    older: u32,
}

impl IdIndex {
    pub(super) fn newest(&self, id: u64) -> Option<u32> {
        self.newest.get(id)
    }

    /// Asks for the memory in which an id is looked up.
    pub(super) fn prefetch(&self, id: u64) {
        self.newest.prefetch(id);
    }

    /// The entries of an id, newest first.
    pub(super) fn all(&self, id: u64) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(self.newest(id), |&slot| {
            let older = self.chain.get(slot as usize).map_or(NONE, |link| link.older);
            (older != NONE).then_some(older)
        })
    }

    /// Adds the newest entry of an id.
    pub(super) fn add(&mut self, id: u64, slot: u32) {
        let older = self.newest.insert(id, slot).unwrap_or(NONE);
        // Keyed banks never chain, so they never pay for links.
        if older == NONE && self.chain.is_empty() {
            return;
        }
        let needed = slot.max(if older == NONE { 0 } else { older }) as usize + 1;
        if needed > self.chain.len() {
            self.chain.resize(needed, Link { newer: NONE, older: NONE });
        }
        self.chain[slot as usize] = Link { newer: NONE, older };
        if older != NONE {
            self.chain[older as usize].newer = slot;
        }
    }

    /// Removes one entry of an id.
    pub(super) fn remove(&mut self, id: u64, slot: u32) {
        let link = self.chain.get(slot as usize).copied().unwrap_or(Link { newer: NONE, older: NONE });
        if link.newer != NONE {
            self.chain[link.newer as usize].older = link.older;
        } else if link.older != NONE {
            self.newest.insert(id, link.older);
        } else {
            self.newest.remove(id);
        }
        if link.older != NONE {
            self.chain[link.older as usize].newer = link.newer;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::IdIndex;

    #[test]
    fn chains_survive_removal_anywhere() {
        let mut index = IdIndex::default();
        index.add(9, 5);
        for slot in [0, 3, 1] {
            index.add(7, slot);
        }
        assert_eq!(index.all(7).collect::<Vec<_>>(), [1, 3, 0]);
        index.remove(7, 3);
        assert_eq!(index.all(7).collect::<Vec<_>>(), [1, 0]);
        index.remove(7, 1);
        index.add(7, 3);
        assert_eq!(index.all(7).collect::<Vec<_>>(), [3, 0]);
        index.remove(7, 0);
        index.remove(7, 3);
        assert_eq!((index.newest(7), index.newest(9)), (None, Some(5)));
    }
}
