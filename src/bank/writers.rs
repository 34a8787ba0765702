//! Which writes of which writers were applied.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use crate::model::{Origin, Writer, WriterImage};

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

/// Numbers of one writer: of the window that ends at the highest. Number n lies at n modulo [`Writers::REMEMBERED`].
#[derive(Debug, Default)]
struct Numbers {
    highest: u64,
    last_write: u64,
    /// As which mutation each number was applied; 0: it was not.
    sequences: Vec<u64>,
    /// The first ids that the bank gave; empty if it never gave any.
    first_ids: Vec<u64>,
}

impl Numbers {
    fn note(&mut self, number: u64, sequence: u64, first_id: u64) {
        // The numbers that enter the window take the cells of those that leave it.
        let entering = number.saturating_sub(self.highest).min(Writers::REMEMBERED);
        (number - entering..number).map(|before| before + 1).for_each(|entering| {
            if let Some(cell) = self.sequences.get_mut(cell_of(entering)) {
                *cell = 0;
            }
        });
        self.highest = self.highest.max(number);
        put(&mut self.sequences, cell_of(number), sequence);
        if first_id > 0 || !self.first_ids.is_empty() {
            put(&mut self.first_ids, cell_of(number), first_id);
        }
    }
}

fn cell_of(number: u64) -> usize {
    (number % Writers::REMEMBERED) as usize
}

fn put(cells: &mut Vec<u64>, at: usize, value: u64) {
    if at >= cells.len() {
        cells.resize(at + 1, 0);
    }
    cells[at] = value;
}

impl Writers {
    /// Numbers of a writer that are remembered.
    const REMEMBERED: u64 = 1_024;
    /// Writers that are remembered.
    const MOST: usize = 65_536;

    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(super) fn image(&self) -> Vec<WriterImage> {
        let of = |(last_write, writer): &(u64, Writer)| {
            let numbers = self.numbers.get(writer)?;
            let (sequences, first_ids) = (numbers.sequences.clone(), numbers.first_ids.clone());
            Some(WriterImage {
                writer: writer.clone(),
                highest: numbers.highest,
                last_write: *last_write,
                sequences,
                first_ids,
            })
        };
        self.by_last_write.iter().filter_map(of).collect()
    }

    pub(super) fn restore(images: Vec<WriterImage>) -> Self {
        let mut writers = Self::default();
        for WriterImage { writer, highest, last_write, sequences, first_ids } in images {
            writers.by_last_write.insert((last_write, writer.clone()));
            writers.numbers.insert(writer, Numbers { highest, last_write, sequences, first_ids });
        }
        writers
    }

    pub(super) fn known(&self, origin: &Origin) -> Known {
        let Some(numbers) = self.numbers.get(&origin.writer) else { return Known::No };
        if numbers.highest.saturating_sub(origin.number) >= Self::REMEMBERED {
            return Known::Forgotten { highest: numbers.highest };
        }
        let cell = |cells: &[u64]| cells.get(cell_of(origin.number)).copied().unwrap_or(0);
        match cell(&numbers.sequences) {
            _ if origin.number > numbers.highest => Known::No,
            0 => Known::No,
            sequence => Known::Applied { sequence, first_id: cell(&numbers.first_ids) },
        }
    }

    /// Notes that `origin` was applied as mutation `sequence`.
    pub(super) fn note(&mut self, origin: &Origin, sequence: u64, first_id: u64) {
        let numbers = self.numbers.entry(origin.writer.clone()).or_default();
        self.by_last_write.remove(&(numbers.last_write, origin.writer.clone()));
        numbers.last_write = sequence;
        numbers.note(origin.number, sequence, first_id);
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
        assert_eq!(writers.known(&origin("a", 1, 1)), Known::Forgotten { highest: 1_500 });
        assert_eq!(writers.known(&origin("a", 1, 1_501)), Known::No);
        assert_eq!(writers.known(&origin("a", 2, 1_024)), Known::No, "a restarted writer is another one");
        assert_eq!(writers.known(&origin("b", 1, 1_024)), Known::No);
        writers.note(&origin("a", 1, 5_000), 5, 0);
        assert_eq!(writers.known(&origin("a", 1, 4_572)), Known::No, "the cell of 1,500 was cleared");
        assert_eq!(writers.known(&origin("a", 1, 5_000)), Known::Applied { sequence: 5, first_id: 0 });
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
