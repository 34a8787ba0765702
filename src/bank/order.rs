//! Lists of slots, linked through one array, so that an entry leaves the middle of its list at no cost.

use crate::kernels::prefetch::prefetch;

/// No slot.
const NONE: u32 = u32::MAX;

/// The links of all lists of a shard, by slot. A slot is in one list at most.
#[derive(Debug, Default)]
pub(super) struct Links(Vec<Link>);

#[derive(Debug, Clone, Copy)]
struct Link {
    older: u32,
    newer: u32,
}

/// One list, from its oldest slot to its newest.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    oldest: u32,
    newest: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { oldest: NONE, newest: NONE }
    }
}

impl Links {
    /// The slot after this one in its list.
    pub(super) fn newer(&self, slot: u32) -> Option<u32> {
        let newer = self.0[slot as usize].newer;
        (newer != NONE).then_some(newer)
    }

    /// Asks for the memory of a slot's links.
    pub(super) fn prefetch(&self, slot: u32) {
        prefetch(&self.0[slot as usize..=slot as usize]);
    }
}

impl List {
    pub(super) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    pub(super) fn push(&mut self, links: &mut Links, slot: u32) {
        let (links, at) = (&mut links.0, slot as usize);
        if at >= links.len() {
            links.resize(at + 1, Link { older: NONE, newer: NONE });
        }
        links[at] = Link { older: self.newest, newer: NONE };
        match self.newest {
            NONE => self.oldest = slot,
            newest => links[newest as usize].newer = slot,
        }
        self.newest = slot;
    }

    pub(super) fn remove(&mut self, links: &mut Links, slot: u32) {
        let links = &mut links.0;
        let Link { older, newer } = links[slot as usize];
        match older {
            NONE => self.oldest = newer,
            older => links[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => links[newer as usize].older = older,
        }
    }
}
