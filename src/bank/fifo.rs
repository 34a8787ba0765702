//! The order in which entries came.

use super::order::{Links, List};

/// Slots of a queue's shard from the oldest to the newest; entries may also be removed from the middle.
#[derive(Debug, Default)]
pub(super) struct Fifo {
    links: Links,
    list: List,
}

impl Fifo {
    pub(super) fn oldest(&self) -> Option<u32> {
        self.list.oldest()
    }

    pub(super) fn push(&mut self, slot: u32) {
        self.list.push(&mut self.links, slot);
    }

    pub(super) fn remove(&mut self, slot: u32) {
        self.list.remove(&mut self.links, slot);
    }
}

#[cfg(test)]
mod tests {
    use super::Fifo;

    #[test]
    fn the_oldest_leaves_first_whatever_was_taken_from_the_middle() {
        let mut fifo = Fifo::default();
        for slot in [4, 2, 0, 1] {
            fifo.push(slot);
        }
        fifo.remove(2);
        fifo.remove(4);
        fifo.push(4);
        let mut order = Vec::new();
        while let Some(slot) = fifo.oldest() {
            order.push(slot);
            fifo.remove(slot);
        }
        assert_eq!(order, [0, 1, 4]);
    }
}
