//! The entries of a shard in an order that can be indexed.

/// Slots of all entries, densely. The order is a function of the writes: new entries last, and the last one takes the place
/// of one that leaves. Random draws index it.
#[derive(Debug, Default)]
pub(super) struct Roster {
    slots: Vec<u32>,
    positions: Vec<u32>,
}

impl Roster {
    pub(super) fn slots(&self) -> &[u32] {
        &self.slots
    }

    pub(super) fn add(&mut self, slot: u32) {
        let at = slot as usize;
        if at >= self.positions.len() {
            self.positions.resize(at + 1, 0);
        }
        self.positions[at] = self.slots.len() as u32;
        self.slots.push(slot);
    }

    pub(super) fn remove(&mut self, slot: u32) {
        let position = self.positions[slot as usize];
        self.slots.swap_remove(position as usize);
        if let Some(&moved) = self.slots.get(position as usize) {
            self.positions[moved as usize] = position;
        }
    }
}
