//! Which writes of which writers were applied.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use crate::model::{Origin, Writer};

/// The last numbers of the writers that wrote last. A part of the bank's state: the same writes leave the same table.
#[derive(Debug, Default)]
pub(super) struct Writers {
    numbers: FxHashMap<Writer, Numbers>,
    /// Writers by the sequence of their last write.
    by_last_write: BTreeSet<(u64, Writer)>,
}

/// What the bank knows of an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It was not applied.
    No,
    /// It was applied.
    Applied {
        /// As which mutation.
        sequence: u64,
        /// The first of the ids that the bank gave its rows; 0 where the writer gave them.
        first_id: u64,
    },
    /// It is so far below the writer's highest number that nobody can tell.
    Forgotten {
        /// That number.
        highest: u64,
    },
}

/// Numbers of one writer.
#[derive(Debug, Default)]
struct Numbers {
    highest: u64,
    last_write: u64,
    /// Number n lies at n modulo [`Writers::REMEMBERED`]; number 0: nothing does.
    ring: Vec<Remembered>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Remembered {
    number: u64,
    sequence: u64,
    first_id: u64,
}

impl Writers {
    /// Numbers of a writer that are remembered.
    const REMEMBERED: u64 = 1_024;
    /// Writers that are remembered.
    const MOST: usize = 65_536;

    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(super) fn known(&self, origin: &Origin) -> Known {
        let Some(Numbers { highest, ring, .. }) = self.numbers.get(&origin.writer) else { return Known::No };
        match ring.get((origin.number % Self::REMEMBERED) as usize) {
            Some(there) if there.number == origin.number => {
                Known::Applied { sequence: there.sequence, first_id: there.first_id }
            }
            _ if highest.saturating_sub(origin.number) >= Self::REMEMBERED => Known::Forgotten { highest: *highest },
            _ => Known::No,
        }
    }

    /// Notes that `origin` was applied as mutation `sequence`.
    pub(super) fn note(&mut self, origin: &Origin, sequence: u64, first_id: u64) {
        let numbers = self.numbers.entry(origin.writer.clone()).or_default();
        self.by_last_write.remove(&(numbers.last_write, origin.writer.clone()));
        numbers.last_write = sequence;
        numbers.highest = numbers.highest.max(origin.number);
        let at = (origin.number % Self::REMEMBERED) as usize;
        if at >= numbers.ring.len() {
            numbers.ring.resize(at + 1, Remembered::default());
        }
        numbers.ring[at] = Remembered { number: origin.number, sequence, first_id };
        self.by_last_write.insert((sequence, origin.writer.clone()));
        if self.numbers.len() > Self::MOST
            && let Some((_, silent)) = self.by_last_write.pop_first()
        {
            self.numbers.remove(&silent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Known, Writers};
    use crate::model::Origin;

    fn origin(name: &str, incarnation: u64, number: u64) -> Origin {
        Origin::new(name, incarnation, number).unwrap()
    }

    #[test]
    fn numbers_may_come_in_any_order_within_the_window() {
        let mut writers = Writers::default();
        for (sequence, number) in [(1, 2), (2, 1), (3, 1_024), (4, 1_500)] {
            assert_eq!(writers.known(&origin("a", 1, number)), Known::No);
            writers.note(&origin("a", 1, number), sequence, 10 * number);
        }
        assert_eq!(writers.known(&origin("a", 1, 1_024)), Known::Applied { sequence: 3, first_id: 10_240 });
        assert_eq!(writers.known(&origin("a", 1, 477)), Known::No, "the lowest number of the window");
        assert_eq!(writers.known(&origin("a", 1, 476)), Known::Forgotten { highest: 1_500 });
        assert_eq!(
            writers.known(&origin("a", 1, 1)),
            Known::Applied { sequence: 2, first_id: 10 },
            "while its cell is its own"
        );
        assert_eq!(writers.known(&origin("a", 2, 1_024)), Known::No, "a restarted writer is another one");
        assert_eq!(writers.known(&origin("b", 1, 1_024)), Known::No);
    }

    #[test]
    fn the_writer_that_was_silent_longest_is_forgotten() {
        let mut writers = Writers::default();
        for writer in 0..Writers::MOST as u64 {
            writers.note(&origin("a", writer, 1), writer + 1, 0);
        }
        writers.note(&origin("a", 0, 2), 70_000, 0);
        writers.note(&origin("new", 0, 1), 70_001, 0);
        assert_eq!(writers.len(), Writers::MOST);
        assert_eq!(writers.known(&origin("a", 1, 1)), Known::No, "it wrote once, and before all others");
        assert_eq!(writers.known(&origin("a", 0, 1)), Known::Applied { sequence: 1, first_id: 0 });
        assert_eq!(writers.by_last_write.len(), writers.len());
    }
}
