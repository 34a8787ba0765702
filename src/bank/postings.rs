//! Posting lists: the entries of a label or a group.

use std::hash::Hash;

use rustc_hash::FxHashMap;

use super::roster::placed;

/// Slots by key, each list in an order that is a function of the writes (as the roster's).
#[derive(Debug)]
pub(super) struct Postings<K> {
    lists: FxHashMap<K, Vec<u32>>,
    positions: Vec<u32>,
}

impl<K> Default for Postings<K> {
    fn default() -> Self {
        Self { lists: FxHashMap::default(), positions: Vec::new() }
    }
}

impl<K: Copy + Eq + Hash> Postings<K> {
    pub(super) fn list(&self, key: K) -> &[u32] {
        self.lists.get(&key).map_or(&[], Vec::as_slice)
    }

    /// Keys that have an entry, in no order that may be relied on.
    pub(super) fn keys(&self) -> impl Iterator<Item = K> + '_ {
        self.lists.keys().copied()
    }

    /// By slot, the position in its list; of no meaning for slots that are in none.
    pub(super) fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// The lists in which each of these slots has its position.
    pub(super) fn restore(members: impl Iterator<Item = (K, u32)>, positions: Vec<u32>) -> Option<Self> {
        let mut slots: FxHashMap<K, Vec<u32>> = FxHashMap::default();
        members.for_each(|(key, slot)| slots.entry(key).or_default().push(slot));
        let lists: Option<FxHashMap<K, Vec<u32>>> =
            slots.into_iter().map(|(key, slots)| Some((key, placed(slots.iter().copied(), &positions)?))).collect();
        Some(Self { lists: lists?, positions })
    }

    /// Moves a slot from the list of `old` to the list of `new`; nothing if they are equal.
    pub(super) fn change(&mut self, slot: u32, old: Option<K>, new: Option<K>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.remove(slot, old);
        }
        if let Some(new) = new {
            self.add(slot, new);
        }
    }

    fn add(&mut self, slot: u32, key: K) {
        let at = slot as usize;
        if at >= self.positions.len() {
            self.positions.resize(at + 1, 0);
        }
        let list = self.lists.entry(key).or_default();
        self.positions[at] = list.len() as u32;
        list.push(slot);
    }

    fn remove(&mut self, slot: u32, key: K) {
        let Some(list) = self.lists.get_mut(&key) else { return };
        let position = self.positions[slot as usize];
        list.swap_remove(position as usize);
        if let Some(&moved) = list.get(position as usize) {
            self.positions[moved as usize] = position;
        }
        if list.is_empty() {
            self.lists.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Postings;

    #[test]
    fn lists_follow_changes_and_vanish_when_empty() {
        let mut postings = Postings::default();
        for slot in 0..4 {
            postings.change(slot, None, Some('a'));
        }
        postings.change(1, Some('a'), Some('b'));
        assert_eq!(postings.list('a'), [0, 3, 2]);
        postings.change(3, Some('a'), None);
        assert_eq!((postings.list('a'), postings.list('b')), (&[0, 2][..], &[1][..]));
        postings.change(1, Some('b'), None);
        assert_eq!(postings.keys().collect::<Vec<_>>(), ['a']);
    }
}
