//! Answers that are kept for those who come again, or late.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::{GatherId, GatherInfo, Gathered};

/// Gathers that have come to an answer.
#[derive(Debug, Default)]
pub(super) struct Finished {
    kept: BTreeMap<GatherId, Kept>,
    /// How many have ever been kept.
    count: u64,
}

#[derive(Debug)]
struct Kept {
    gathered: Arc<Gathered>,
    bytes: usize,
    /// Grows with the order in which they finished.
    number: u64,
    until: Instant,
}

/// Answers of one group that are kept: more than a rank has in flight, so that it may send each again.
const OF_A_GROUP: usize = 8;

impl Finished {
    pub(super) fn get(&self, id: &GatherId) -> Option<&Arc<Gathered>> {
        self.kept.get(id).map(|kept| &kept.gathered)
    }

    /// Keeps an answer until `until`, and lets go of its group's oldest ones.
    pub(super) fn keep(&mut self, id: GatherId, gathered: Arc<Gathered>, until: Instant) {
        self.count += 1;
        let of_group = |kept: &GatherId| kept.group() == id.group();
        while self.kept.keys().filter(|kept| of_group(kept)).count() >= OF_A_GROUP {
            self.drop_oldest(|kept, _| of_group(kept));
        }
        let bytes = gathered.bytes();
        self.kept.insert(id, Kept { gathered, bytes, number: self.count, until });
    }

    /// Lets go of those whose time is up.
    pub(super) fn forget(&mut self, now: Instant) {
        self.kept.retain(|_, kept| kept.until > now);
    }

    /// Lets go of the oldest, until there are at most so many with at most so many bytes.
    pub(super) fn shrink(&mut self, most: usize, bytes: usize) {
        while self.kept.len() > most || self.bytes() > bytes {
            self.drop_oldest(|_, _| true);
        }
    }

    /// Lets go of the oldest that nobody is being sent, until they have given back `missing` bytes of memory; of none if all of them
    /// together take less.
    pub(super) fn give_way(&mut self, missing: usize) {
        let idle: usize = self.kept.values().filter(|kept| kept.is_idle()).map(|kept| kept.gathered.memory()).sum();
        let mut given = 0;
        while given < missing && missing <= idle {
            given += self.drop_oldest(|_, kept| kept.is_idle());
        }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.kept.values().map(|kept| kept.until).min()
    }

    pub(super) fn describe(&self) -> impl Iterator<Item = GatherInfo> {
        self.kept.iter().map(|(id, kept)| GatherInfo {
            id: id.clone(),
            world_size: kept.gathered.world_size() as u32,
            missing: kept.gathered.missing().take(GatherInfo::MOST_NAMED).collect(),
            finished: true,
            bytes: kept.bytes,
        })
    }

    pub(super) fn bytes(&self) -> usize {
        self.kept.values().map(|kept| kept.bytes).sum()
    }

    /// Lets go of the one that finished first among those, and says what memory it took.
    fn drop_oldest(&mut self, among: impl Fn(&GatherId, &Kept) -> bool) -> usize {
        let oldest = self.kept.iter().filter(|(id, kept)| among(id, kept)).min_by_key(|(_, kept)| kept.number);
        let dropped = oldest.map(|(id, _)| id.clone()).and_then(|id| self.kept.remove(&id));
        dropped.map_or(0, |kept| kept.gathered.memory())
    }
}

impl Kept {
    /// True if nobody else has it: to let go of it gives memory back.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.gathered) == 1
    }
}
