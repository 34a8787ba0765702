//! Which entries most need a refresh.

use std::collections::BTreeMap;

use super::order::{Links, List};

/// Slots of a keyed bank's shard by the step of their last write, and within a step by when that was. There are few distinct steps
/// at a time, so a write costs one look-up among those.
#[derive(Debug, Default)]
pub(super) struct Ages {
    links: Links,
    steps: BTreeMap<u64, List>,
}

impl Ages {
    /// Adds a slot that was written just now.
    pub(super) fn add(&mut self, slot: u32, step: u64) {
        self.steps.entry(step).or_default().push(&mut self.links, slot);
    }

    /// Takes a slot out; `step` is the one that it was added with.
    pub(super) fn remove(&mut self, slot: u32, step: u64) {
        let Some(list) = self.steps.get_mut(&step) else { return };
        list.remove(&mut self.links, slot);
        if list.oldest().is_none() {
            self.steps.remove(&step);
        }
    }

    /// Asks for the memory of a slot's place.
    pub(super) fn prefetch(&self, slot: u32) {
        self.links.prefetch(slot);
    }

    /// The stalest slot.
    pub(super) fn stalest(&self) -> Option<u32> {
        self.steps.first_key_value().and_then(|(_, list)| list.oldest())
    }

    /// The next stalest after a slot that was added with `step`.
    pub(super) fn after(&self, slot: u32, step: u64) -> Option<u32> {
        let of_later = || self.steps.range(step.checked_add(1)?..).next().and_then(|(_, list)| list.oldest());
        self.links.newer(slot).or_else(of_later)
    }
}

#[cfg(test)]
mod tests {
    use super::Ages;

    #[test]
    fn slots_come_by_step_and_then_by_the_time_of_their_write() {
        let mut ages = Ages::default();
        for (slot, step) in [(0, 7), (1, 3), (2, 7), (3, 3), (4, u64::MAX)] {
            ages.add(slot, step);
        }
        ages.remove(1, 3);
        ages.add(1, 7);
        let step_of = |slot| [7, 7, 7, 3, u64::MAX][slot as usize];
        let order: Vec<u32> = std::iter::successors(ages.stalest(), |&slot| ages.after(slot, step_of(slot))).collect();
        assert_eq!(order, [3, 0, 2, 1, 4]);
        ages.remove(3, 3);
        assert_eq!(ages.stalest(), Some(0), "a step without entries is gone");
    }
}
