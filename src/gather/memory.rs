//! Memory that gathers take, of an account that is kept elsewhere.

use std::fmt;

use super::GatherError;

/// The account.
pub trait Memory: fmt::Debug + Send {
    /// Room for a gather, of no bytes yet.
    fn room(&self) -> Box<dyn Room>;

    /// Bytes that are missing for so many more; 0: they are there.
    fn missing(&self, bytes: usize) -> usize;
}

/// Memory of one gather, its answer included; given back when this is dropped.
pub trait Room: fmt::Debug + Send + Sync {
    /// What is taken.
    fn bytes(&self) -> usize;

    /// Takes more, for somebody who has `held` bytes elsewhere until then; nothing more is always there.
    ///
    /// # Errors
    /// [`GatherError::Full`], [`GatherError::NeverFits`]; nothing more is taken then.
    fn grow(&self, more: usize, held: usize) -> Result<(), GatherError>;

    /// Gives back what is more than this.
    fn shrink(&self, to: usize);
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use bytes::Bytes;

    use super::super::{Answer, Config, Contribution, GatherError, GatherId, Gathering, Part, Seat};
    use super::{Memory, Room};
    use crate::model::Dtype;
    use crate::model::clock::now;

    /// So many bytes, of which some are left. Cheap to clone.
    #[derive(Debug, Clone)]
    pub(in crate::gather) struct Purse(Arc<AtomicUsize>);

    #[derive(Debug)]
    struct Spent {
        of: Purse,
        bytes: AtomicUsize,
    }

    impl Purse {
        pub(in crate::gather) fn of(bytes: usize) -> Self {
            Self(Arc::new(AtomicUsize::new(bytes)))
        }

        fn left(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    impl Memory for Purse {
        fn room(&self) -> Box<dyn Room> {
            Box::new(Spent { of: self.clone(), bytes: AtomicUsize::new(0) })
        }

        fn missing(&self, bytes: usize) -> usize {
            bytes.saturating_sub(self.left())
        }
    }

    impl Room for Spent {
        fn bytes(&self) -> usize {
            self.bytes.load(Ordering::Relaxed)
        }

        fn grow(&self, more: usize, _held: usize) -> Result<(), GatherError> {
            let limit = self.of.left();
            if more > limit {
                return Err(GatherError::Full { room: "the purse", limit, setting: "none" });
            }
            self.of.0.fetch_sub(more, Ordering::Relaxed);
            self.bytes.fetch_add(more, Ordering::Relaxed);
            Ok(())
        }

        fn shrink(&self, to: usize) {
            assert!(to <= self.bytes(), "{to} bytes are more than the {} that were taken", self.bytes());
            self.of.0.fetch_add(self.bytes.swap(to, Ordering::Relaxed) - to, Ordering::Relaxed);
        }
    }

    impl Drop for Spent {
        fn drop(&mut self) {
            self.shrink(0);
        }
    }

    const WORLD: u32 = 3;

    /// Rows of 64 bytes.
    fn rows(rows: usize) -> Part {
        Part::new((16, Dtype::F32, Bytes::from(vec![1; rows * 64])), vec![7; rows], None, None).unwrap()
    }

    fn from(group: &str, rank: u32, part: Part) -> Contribution {
        let (id, seat) = (GatherId::new(group, 1, 0).unwrap(), Seat::new(rank, WORLD).unwrap());
        Contribution { id, seat, part, held: 0, wait: None }
    }

    fn send(gathering: &mut Gathering<u32>, from: Contribution, at: Instant) -> Vec<Answer<u32>> {
        let rank = from.seat.rank();
        gathering.contribute(from, at + Duration::from_secs(9), at, rank).1
    }

    fn is_refused(answers: &[Answer<u32>]) -> bool {
        matches!(answers, [(_, Err(GatherError::Full { room: "the purse", .. }))])
    }

    /// What a gather of such parts takes while it waits for the others.
    fn taken(part: &Part) -> usize {
        part.memory_of_all(WORLD as usize)
    }

    fn gathering(purse: &Purse) -> Gathering<u32> {
        Gathering::new(Config::default(), Box::new(purse.clone()))
    }

    #[test]
    fn a_refusal_changes_nothing_and_who_is_in_has_room_for_all() {
        let small = taken(&rows(4));
        let purse = Purse::of(small + 100);
        let (mut gathering, start) = (gathering(&purse), now());
        assert!(send(&mut gathering, from("g", 0, rows(4)), start).is_empty());
        assert_eq!(purse.left(), 100);
        let before = gathering.describe();
        assert!(is_refused(&send(&mut gathering, from("other", 0, rows(4)), start)), "another has no room");
        assert!(is_refused(&send(&mut gathering, from("g", 1, rows(40)), start)), "nor has a rank that brings much more");
        assert_eq!((gathering.describe(), purse.left()), (before, 100));
        assert!(send(&mut gathering, from("g", 1, rows(4)), start).is_empty(), "the same rank may come again");
        assert!(send(&mut gathering, from("g", 1, rows(4)), start).is_empty());
        let told = send(&mut gathering, from("g", 2, rows(3)), start);
        assert_eq!(
            told.iter().map(|(rank, answer)| (*rank, answer.as_ref().unwrap().rows())).collect::<Vec<_>>(),
            [(0, 11), (1, 11), (1, 11), (2, 11)]
        );
        assert!(purse.left() > 100, "what the last rank did not bring is given back");
        drop(told);
        gathering.stop();
        assert_eq!(purse.left(), small + 100);
    }

    /// However uneven the ranks are, and whether or not their rows are copied into one piece, no more is taken when all are there.
    #[test]
    fn what_is_taken_at_first_is_enough() {
        for sizes in [[1, 1, 1], [0, 0, 0], [0, 500, 0], [510, 1, 0], [500, 500, 500], [765, 1, 1], [769, 0, 2]] {
            let purse = Purse::of(1 << 20);
            let (mut gathering, start) = (gathering(&purse), now());
            for (rank, size) in (0..).zip(sizes) {
                for (_, answer) in send(&mut gathering, from("g", rank, rows(size)), start) {
                    // `Spent::shrink` fails where it would have to grow.
                    assert_eq!(answer.unwrap().rows(), sizes.iter().sum::<usize>());
                }
            }
        }
    }

    #[test]
    fn memory_is_taken_until_the_last_copy_of_the_answer_is_gone() {
        let purse = Purse::of(1 << 20);
        let (mut gathering, start) = (gathering(&purse), now());
        let mut told: Vec<_> = (0..WORLD).flat_map(|rank| send(&mut gathering, from("g", rank, rows(9)), start)).collect();
        let taken = (1 << 20) - purse.left();
        assert!(taken > 3 * 9 * 64);
        gathering.expire(start + Duration::from_secs(100));
        assert!(gathering.describe().is_empty(), "it is forgotten");
        for left in (0..told.len()).rev() {
            assert_eq!((1 << 20) - purse.left(), taken, "{} copies are still sent", left + 1);
            told.truncate(left);
        }
        assert_eq!(purse.left(), 1 << 20);
    }

    #[test]
    fn answers_that_nobody_is_sent_give_way_to_new_gathers_if_that_helps() {
        let one = taken(&rows(100));
        let purse = Purse::of(3 * one);
        let (mut gathering, start) = (gathering(&purse), now());
        let whole = |gathering: &mut Gathering<u32>, group| -> Vec<Answer<u32>> {
            (0..WORLD).flat_map(|rank| send(gathering, from(group, rank, rows(100)), start)).collect()
        };
        let sent = whole(&mut gathering, "a");
        drop(whole(&mut gathering, "b"));
        drop(whole(&mut gathering, "c"));
        let groups = |gathering: &Gathering<u32>| -> Vec<String> {
            gathering.describe().iter().map(|info| info.id.group().to_owned()).collect()
        };
        assert_eq!(groups(&gathering), ["a", "b", "c"]);
        assert!(is_refused(&send(&mut gathering, from("large", 0, rows(290)), start)));
        assert_eq!(groups(&gathering), ["a", "b", "c"], "as much as would not be enough");
        assert!(send(&mut gathering, from("d", 0, rows(100)), start).is_empty());
        assert_eq!(groups(&gathering), ["a", "c", "d"], "the oldest that is not being sent");
        drop(sent);
        assert!(send(&mut gathering, from("e", 0, rows(100)), start).is_empty());
        assert_eq!(groups(&gathering), ["c", "d", "e"]);
    }
}
