//! Which entries were counted.

/// A set of places, and how many they are. It remembers which, so that a count can be mended when some of them change.
#[derive(Debug, Clone, Default)]
pub struct Counted {
    len: usize,
    /// A bit a slot, by shard.
    shards: Vec<Vec<u64>>,
}

impl Counted {
    /// Counts a place, once however often it is met.
    pub(super) fn note(&mut self, shard: u32, slot: u32) {
        let (shard, word, bit) = (shard as usize, slot as usize / 64, 1u64 << (slot % 64));
        if shard >= self.shards.len() {
            self.shards.resize(shard + 1, Vec::new());
        }
        let words = &mut self.shards[shard];
        if word >= words.len() {
            words.resize(word + 1, 0);
        }
        self.len += usize::from(words[word] & bit == 0);
        words[word] |= bit;
    }

    /// True if the place was counted.
    pub fn holds(&self, shard: u32, slot: u32) -> bool {
        let word = self.shards.get(shard as usize).and_then(|words| words.get(slot as usize / 64));
        word.is_some_and(|word| word & (1 << (slot % 64)) != 0)
    }

    /// Places counted.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if none was.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::Counted;

    #[test]
    fn places_count_once() {
        let mut counted = Counted::default();
        for (shard, slot) in [(0, 0), (3, 64), (3, 64), (3, 63), (0, 0)] {
            counted.note(shard, slot);
        }
        assert_eq!(counted.len(), 3);
        assert!(counted.holds(3, 63) && counted.holds(0, 0));
        assert!(!counted.holds(1, 0) && !counted.holds(3, 65) && !counted.holds(9, 9));
    }
}
