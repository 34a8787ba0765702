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

    /// By slot, the position in the list; of no meaning for slots that are not in it.
    pub(super) fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// The list in which each of `members` has its position.
    pub(super) fn restore(members: impl Iterator<Item = u32> + Clone, positions: Vec<u32>) -> Option<Self> {
        let slots = placed(members, &positions)?;
        Some(Self { slots, positions })
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

/// Members in the order of their positions, which must be 0, 1, 2, ...
pub(super) fn placed(members: impl Iterator<Item = u32> + Clone, positions: &[u32]) -> Option<Vec<u32>> {
    const NONE: u32 = u32::MAX;
    let mut slots = vec![NONE; members.clone().count()];
    for slot in members {
        let place = slots.get_mut(*positions.get(slot as usize)? as usize)?;
        if std::mem::replace(place, slot) != NONE {
            return None;
        }
    }
    Some(slots)
}
