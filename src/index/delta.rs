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
    present: usize,
    sum: f64,
    scratch: Vec<f32>,
}

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
            present: 0,
            sum: 0.0,
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
        if self.present == 0 { 1.0 } else { self.sum / self.present as f64 }
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
        if let Some(entry) = entry {
            self.count(entry, similarity);
        }
        let lost = entry.is_some_and(|entry| generation.unreachable().binary_search(&entry).is_ok());
        // Negated, so that what is not a number is scanned.
        let found = similarity >= self.bound && !lost;
        self.list(shard as usize, slot, occupant.is_some() && !found);
    }

    fn count(&mut self, entry: u32, similarity: f32) {
        let before = std::mem::replace(&mut self.similarity[entry as usize], similarity);
        for (similarity, sign) in [(before, -1.0), (similarity, 1.0)] {
            if similarity.is_finite() {
                self.sum += sign * f64::from(similarity);
                self.present = if sign > 0.0 { self.present + 1 } else { self.present - 1 };
            }
        }
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

        delta.note((1, 4), Some((5, &row(4))));
        delta.note((1, 5), Some((5, &row(5))));
        delta.note((1, 8), Some((5, &row(8))));
        delta.note((0, 7), None);
        assert!(delta.is_empty() && (delta.mean_similarity() - 1.0).abs() < 1e-3);
    }
}
