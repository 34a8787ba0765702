//! Entries that one anchor drew more than once.

use rustc_hash::FxHashSet;

use crate::bank::Place;

/// Finds them, for one anchor after the other.
#[derive(Debug, Default)]
pub(super) struct Repeats(FxHashSet<Place>);

impl Repeats {
    /// Which of an anchor's picks are of an entry that is among the picks before.
    pub(super) fn of<'a>(&'a mut self, places: &'a [Place]) -> impl Iterator<Item = usize> + 'a {
        self.0.clear();
        places.iter().enumerate().filter_map(|(at, place)| (!self.0.insert(*place)).then_some(at))
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, Repeats};

    #[test]
    fn every_pick_but_the_first_of_an_entry_is_one() {
        let places = |slots: &[u32]| slots.iter().map(|&slot| Place { shard: slot % 2, slot }).collect::<Vec<_>>();
        let mut repeats = Repeats::default();
        assert_eq!(repeats.of(&places(&[4, 1, 4, 2, 1, 4])).collect::<Vec<_>>(), [2, 4, 5]);
        assert_eq!(repeats.of(&places(&[1, 2, 4])).count(), 0, "another anchor's picks are no matter");
    }
}
