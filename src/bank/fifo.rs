//! The order in which entries came.

const NONE: u32 = u32::MAX;

/// Slots of a queue's shard from the oldest to the newest: a linked list, since entries may also be removed from the middle.
#[derive(Debug)]
pub(super) struct Fifo {
    links: Vec<Link>,
    oldest: u32,
    newest: u32,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    older: u32,
    newer: u32,
}

impl Default for Fifo {
    fn default() -> Self {
        Self { links: Vec::new(), oldest: NONE, newest: NONE }
    }
}

impl Fifo {
    pub(super) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    pub(super) fn push(&mut self, slot: u32) {
        let at = slot as usize;
        if at >= self.links.len() {
            self.links.resize(at + 1, Link { older: NONE, newer: NONE });
        }
        self.links[at] = Link { older: self.newest, newer: NONE };
        match self.newest {
            NONE => self.oldest = slot,
            newest => self.links[newest as usize].newer = slot,
        }
        self.newest = slot;
    }

    pub(super) fn remove(&mut self, slot: u32) {
        let Link { older, newer } = self.links[slot as usize];
        match older {
            NONE => self.oldest = newer,
            older => self.links[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.links[newer as usize].older = older,
        }
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
