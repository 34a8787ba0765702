//! What a generation does not know: rows that are new, replaced, or have moved too far since it was built.

use std::sync::Arc;

use super::generation::Generation;

/// Slots to be scanned beside a generation's graph, by shard, kept in step with every write at a cost that doesn't grow.
#[derive(Debug)]
pub struct Delta {
    generation: Arc<Generation>,
    /// The bank's change counter up to which writes are known.
    known: u64,
    /// Rows less similar than this to what they were are scanned.
    bound: f32,
    /// By shard. Readers keep what they got: a list that is read is copied before it changes.
    scanned: Vec<Arc<Vec<u32>>>,
    /// By shard and slot: its place in the list, plus one; 0: not listed.
    listed: Vec<Vec<u32>>,
    /// By entry: how similar its row is to what it was; negative infinity: another entry, or none, lies there.
    similarity: Vec<f32>,
    /// Of the indexed entries that are still there.
    all: Similarities,
    /// The same without those that are scanned.
    walked: Similarities,
    scratch: Vec<f32>,
}

/// How similar rows are to what they were, together.
#[derive(Debug, Default)]
struct Similarities {
    count: usize,
    sum: f64,
}

impl Similarities {
    fn add(&mut self, similarity: f32) {
        (self.count, self.sum) = (self.count + 1, self.sum + f64::from(similarity));
    }

    fn take(&mut self, similarity: f32) {
        (self.count, self.sum) = (self.count - 1, self.sum - f64::from(similarity));
    }

    /// 1 where there are none.
    fn mean(&self) -> f64 {
        if self.count == 0 { 1.0 } else { self.sum / self.count as f64 }
    }
}

/// Similarity from which on a row is where it was, and the graph's own copy of it, in fewer bytes, leads walks as well.
const UNMOVED: f32 = 0.998;

/// Slots to be scanned, by shard.
pub type Scanned = Vec<Arc<Vec<u32>>>;

impl Delta {
    /// Nothing is known yet of any slot of `shards` shards; `known` is the bank's change counter from which on writes will be told.
    pub fn new(generation: Arc<Generation>, shards: usize, bound: f32, known: u64) -> Self {
        let entries = generation.frozen().len();
        Self {
            generation,
            known,
            bound,
            scanned: vec![Arc::default(); shards],
            listed: vec![Vec::new(); shards],
            similarity: vec![f32::NEG_INFINITY; entries],
            all: Similarities::default(),
            walked: Similarities::default(),
            scratch: Vec::new(),
        }
    }

    /// The generation.
    pub fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    /// The bank's change counter up to which writes are known.
    pub fn known(&self) -> u64 {
        self.known
    }

    /// Notes that all writes up to `revision` were told.
    pub fn knows(&mut self, revision: u64) {
        self.known = revision;
    }

    /// Slots to be scanned.
    pub fn scanned(&self) -> Scanned {
        self.scanned.clone()
    }

    /// Slots to be scanned.
    pub fn len(&self) -> usize {
        self.scanned.iter().map(|slots| slots.len()).sum()
    }

    /// True if the graph knows all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Mean similarity of the indexed rows that are still there to what they were; 1 where there are none.
    pub fn mean_similarity(&self) -> f64 {
        self.all.mean()
    }

    /// True if the rows that the graph is walked for have moved since it was built, so that walks should see them as they are.
    pub fn has_drifted(&self) -> bool {
        self.walked.mean() < f64::from(UNMOVED)
    }

    /// Notes what lies in a slot now: the stamp of its entry and its row, padded or not; `None`: nothing.
    pub fn note(&mut self, (shard, slot): (u32, u32), occupant: Option<(u64, &[f32])>) {
        let generation = Arc::clone(&self.generation);
        let entry = generation.entry(shard, slot);
        let same = |entry: &u32, stamp: u64| generation.frozen().spot(*entry).occupied_at == stamp;
        let similarity = match (entry, occupant) {
            (Some(entry), Some((stamp, row))) if same(&entry, stamp) => {
                generation.frozen().similarity(entry, row, &mut self.scratch)
            }
            _ => f32::NEG_INFINITY,
        };
        let lost = entry.is_some_and(|entry| generation.unreachable().binary_search(&entry).is_ok());
        // Entries of one row are found where they were together.
        let shared = entry.is_some_and(|entry| generation.frozen().is_repeated(entry));
        let bound = if shared { self.bound.max(UNMOVED) } else { self.bound };
        // Not "smaller", so that what is not a number is scanned.
        let is_near = similarity >= bound;
        let is_scanned = occupant.is_some() && (lost || !is_near);
        if let Some(entry) = entry {
            self.count(entry, similarity, (self.is_listed(shard as usize, slot), is_scanned));
        }
        self.list(shard as usize, slot, is_scanned);
    }

    fn count(&mut self, entry: u32, similarity: f32, (was_scanned, is_scanned): (bool, bool)) {
        let before = std::mem::replace(&mut self.similarity[entry as usize], similarity);
        if before.is_finite() {
            self.all.take(before);
            if !was_scanned {
                self.walked.take(before);
            }
        }
        if similarity.is_finite() {
            self.all.add(similarity);
            if !is_scanned {
                self.walked.add(similarity);
            }
        }
    }

    fn is_listed(&self, shard: usize, slot: u32) -> bool {
        self.listed[shard].get(slot as usize).is_some_and(|&place| place > 0)
    }

    fn list(&mut self, shard: usize, slot: u32, wanted: bool) {
        let places = &mut self.listed[shard];
        if slot as usize >= places.len() {
            if !wanted {
                return;
            }
            places.resize(slot as usize + 1, 0);
        }
        match (places[slot as usize], wanted) {
            (0, true) => {
                let slots = Arc::make_mut(&mut self.scanned[shard]);
                slots.push(slot);
                places[slot as usize] = slots.len() as u32;
            }
            (place, false) if place > 0 => {
                let slots = Arc::make_mut(&mut self.scanned[shard]);
                slots.swap_remove(place as usize - 1);
                places[slot as usize] = 0;
                if let Some(&moved) = slots.get(place as usize - 1) {
                    places[moved as usize] = place;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Delta;
    use crate::index::frozen::{Freezer, Spot};
    use crate::index::generation::{Generation, Taken};
    use crate::index::hnsw::BuildConfig;
    use crate::model::Metric;

    fn row(at: u32) -> [f32; 2] {
        let angle = at as f32 / 40.0;
        [angle.cos(), angle.sin()]
    }

    #[test]
    fn new_replaced_and_drifted_rows_are_scanned_and_leave_again() {
        let mut freezer = Freezer::new(Metric::Cosine, 2, 100, &[]).unwrap();
        (0..100).for_each(|slot| freezer.add(Spot { shard: 1, slot, occupied_at: 5 }, &row(slot)));
        let config = BuildConfig { m: 8, ef_construction: 40, threads: 1 };
        let generation = Generation::build(freezer.finish(), Taken::default(), config, &|_, _| Ok(())).unwrap();
        let mut delta = Delta::new(Arc::new(generation), 2, 0.85, 0);
        (0..100).for_each(|slot| delta.note((1, slot), Some((5, &row(slot)))));
        assert!(delta.is_empty() && (delta.mean_similarity() - 1.0).abs() < 1e-3);

        let read = delta.scanned();
        delta.note((0, 7), Some((9, &row(3))));
        delta.note((1, 4), Some((9, &row(4))));
        delta.note((1, 5), Some((5, &row(5 + 30))));
        delta.note((1, 6), Some((5, &row(6 + 4))));
        delta.note((1, 8), None);
        assert_eq!(delta.scanned().iter().map(|slots| slots.to_vec()).collect::<Vec<_>>(), [vec![7], vec![4, 5]]);
        assert!(read.iter().all(|slots| slots.is_empty()), "what was read stays as it was");
        let mean = (96.0 + 0.75f64.cos() + 0.1f64.cos()) / 98.0;
        assert!((delta.mean_similarity() - mean).abs() < 1e-3, "{} {mean}", delta.mean_similarity());
        assert!(!delta.has_drifted(), "what is walked for has hardly moved: {}", delta.walked.mean());

        delta.note((1, 4), Some((5, &row(4))));
        delta.note((1, 5), Some((5, &row(5))));
        delta.note((1, 8), Some((5, &row(8))));
        delta.note((0, 7), None);
        assert!(delta.is_empty() && (delta.mean_similarity() - 1.0).abs() < 1e-3);
        assert_eq!((delta.all.count, delta.walked.count), (100, 100));
        (0..100).for_each(|slot| delta.note((1, slot), Some((5, &row(slot + 6)))));
        assert!(delta.is_empty() && delta.has_drifted(), "all have moved, none far");
    }

    #[test]
    fn entries_that_shared_a_row_are_scanned_once_they_move_apart() {
        let mut freezer = Freezer::new(Metric::Cosine, 2, 60, &[]).unwrap();
        (0..60).for_each(|slot| freezer.add(Spot { shard: 0, slot, occupied_at: 5 }, &row(slot / 3)));
        let config = BuildConfig { m: 8, ef_construction: 40, threads: 1 };
        let generation = Generation::build(freezer.finish(), Taken::default(), config, &|_, _| Ok(())).unwrap();
        let mut delta = Delta::new(Arc::new(generation), 1, 0.85, 0);
        (0..60).for_each(|slot| delta.note((0, slot), Some((5, &row(slot / 3)))));
        assert!(delta.is_empty());
        [3, 4].into_iter().for_each(|slot| delta.note((0, slot), Some((5, &row(1 + 5)))));
        assert_eq!(delta.scanned()[0].to_vec(), [3, 4], "though they have not moved far");
    }
}
