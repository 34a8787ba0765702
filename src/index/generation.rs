//! One immutable build of the graph.

use std::cell::RefCell;

use super::flat_graph::{FlatGraph, Reach, Scratch, Space};
use super::frozen::{Frozen, Spot};
use super::hnsw::{self, BuildConfig, BuildError};
use crate::kernels::bf16;
use crate::kernels::prefetch::prefetch;

/// When rows were copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Mutations applied before the copy began.
    pub sequence: u64,
    /// The bank's change counter then.
    pub revision: u64,
}

/// A graph, the rows that it was built from, and where they were. A slot that holds another entry now still routes, by the row it
/// had then, but is never returned.
#[derive(Debug)]
pub struct Generation {
    frozen: Frozen,
    graph: FlatGraph,
    taken: Taken,
    /// Entries that a search for their own row does not find; sorted.
    unreachable: Vec<u32>,
    /// By shard and slot: the entry, plus one; 0: none.
    entries: Vec<Vec<u32>>,
}

/// An entry that a search found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Whose row it is.
    pub spot: Spot,
    /// Distance to the row as it was, up to what all candidates of an anchor have in common.
    pub distance: f32,
}

/// Width of the search in which every node must find itself.
const AUDIT_EF: usize = 64;

/// Nodes audited between two questions whether to go on.
const AUDITED: u32 = 1_024;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Generation {
    /// Builds the graph over `frozen`, and looks whether every node finds itself. `go_on` hears the share of nodes that are in, and
    /// may stop the build.
    ///
    /// # Errors
    /// [`BuildError`]
    pub fn build(
        frozen: Frozen,
        taken: Taken,
        config: BuildConfig,
        go_on: &(dyn Fn(&Frozen, f64) -> Result<(), BuildError> + Sync),
    ) -> Result<Self, BuildError> {
        if frozen.is_empty() {
            return Err(BuildError::Stopped("there is nothing to index".to_owned()));
        }
        let (frozen, graph) = hnsw::build(frozen, config, go_on)?;
        let entries = by_slot(frozen.spots());
        let mut generation = Self { frozen, graph, taken, unreachable: Vec::new(), entries };
        for start in (0..generation.graph.len() as u32).step_by(AUDITED as usize) {
            go_on(&generation.frozen, 1.0)?;
            let end = (start + AUDITED).min(generation.graph.len() as u32);
            let lost = (start..end).filter(|&node| !generation.finds(node));
            let lost: Vec<u32> = lost.flat_map(|node| generation.with_repeated(node)).collect();
            generation.unreachable.extend(lost);
        }
        generation.unreachable.sort_unstable();
        Ok(generation)
    }

    /// A generation of parts that were one before; `None`: they do not belong together.
    pub(super) fn restore(frozen: Frozen, graph: FlatGraph, taken: Taken, unreachable: Vec<u32>) -> Option<Self> {
        let known = unreachable.iter().all(|&entry| (entry as usize) < frozen.len());
        let entries = by_slot(frozen.spots());
        let fits = graph.len() == frozen.nodes() && known && unreachable.is_sorted();
        fits.then_some(Self { frozen, graph, taken, unreachable, entries })
    }

    pub(super) fn graph(&self) -> &FlatGraph {
        &self.graph
    }

    /// The copy that it was built from.
    pub fn frozen(&self) -> &Frozen {
        &self.frozen
    }

    /// Memory that it takes.
    pub fn bytes(&self) -> usize {
        let by_slot: usize = self.entries.iter().map(Vec::len).sum();
        self.frozen.bytes() + self.graph.bytes() + by_slot * size_of::<u32>()
    }

    /// When the copy was taken.
    pub fn taken(&self) -> Taken {
        self.taken
    }

    /// Entries that searches miss, sorted: they belong to what is scanned.
    pub fn unreachable(&self) -> &[u32] {
        &self.unreachable
    }

    /// The entry that was in a slot.
    pub fn entry(&self, shard: u32, slot: u32) -> Option<u32> {
        self.entries.get(shard as usize)?.get(slot as usize)?.checked_sub(1)
    }

    /// Finds entries near `anchor`, padded or not, that `admits` lets pass: `found` gets at least the `reach.ef` nearest of those that
    /// the walk met, in no order. Returns the distances computed; `reach.most` or more: it was cut short.
    pub fn search(
        &self,
        anchor: &[f32],
        reach: Reach,
        mut admits: impl FnMut(Spot) -> bool,
        found: &mut Vec<Candidate>,
    ) -> usize {
        found.clear();
        let query = self.frozen.query(anchor);
        let any = |node: u32| self.with_repeated(node).any(|entry| admits(self.frozen.spot(entry)));
        let mut space = Walk { frozen: &self.frozen, query: &query, admits: any };
        let mut nodes = Vec::new();
        let computed = SCRATCH.with_borrow_mut(|scratch| self.graph.search(&mut space, reach, scratch, &mut nodes));
        for (node, distance) in nodes {
            found.extend(self.with_repeated(node).map(|entry| Candidate { spot: self.frozen.spot(entry), distance }));
        }
        computed
    }

    /// A node and the entries of the same row.
    fn with_repeated(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(Some(node), |&entry| self.frozen.repeated(entry))
    }

    fn finds(&self, node: u32) -> bool {
        let query = self.frozen.row(node);
        let mut space = Walk { frozen: &self.frozen, query, admits: |_| true };
        let (mut nodes, reach) = (Vec::new(), Reach { ef: AUDIT_EF, most: usize::MAX });
        SCRATCH.with_borrow_mut(|scratch| self.graph.search(&mut space, reach, scratch, &mut nodes));
        nodes.iter().any(|&(found, _)| found == node)
    }
}

/// The rows as they were, seen from an anchor.
struct Walk<'a, A> {
    frozen: &'a Frozen,
    query: &'a [u16],
    admits: A,
}

impl<A: FnMut(u32) -> bool> Space for Walk<'_, A> {
    fn distances(&mut self, nodes: &[u32], distances: &mut Vec<f32>) {
        bf16::dots(self.query, self.frozen.slab(), nodes, distances);
        for (&node, distance) in nodes.iter().zip(distances) {
            *distance = self.frozen.offset(node) - 2.0 * *distance;
        }
    }

    fn prefetch(&self, node: u32) {
        prefetch(self.frozen.row(node));
    }

    fn admits(&mut self, node: u32) -> bool {
        (self.admits)(node)
    }
}

fn by_slot(spots: &[Spot]) -> Vec<Vec<u32>> {
    let mut entries: Vec<Vec<u32>> = Vec::new();
    for (entry, spot) in (0u32..).zip(spots) {
        let (shard, slot) = (spot.shard as usize, spot.slot as usize);
        if shard >= entries.len() {
            entries.resize(shard + 1, Vec::new());
        }
        let slots = &mut entries[shard];
        if slot >= slots.len() {
            slots.resize(slot + 1, 0);
        }
        slots[slot] = entry + 1;
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::{Candidate, Generation, Taken};
    use crate::index::flat_graph::Reach;
    use crate::index::frozen::{Freezer, Spot};
    use crate::index::hnsw::{BuildConfig, BuildError};
    use crate::kernels::score::score;
    use crate::model::{Metric, Seed};

    const DIM: usize = 16;
    const REACH: Reach = Reach { ef: 64, most: usize::MAX };

    fn random(entries: usize) -> Vec<[f32; DIM]> {
        let mut stream = Seed(3).stream(0, 0);
        (0..entries).map(|_| std::array::from_fn(|_| stream.gumbel() as f32)).collect()
    }

    fn built(metric: Metric, rows: &[[f32; DIM]], threads: usize) -> Generation {
        let mut freezer = Freezer::new(metric, DIM, rows.len(), &[0.5; DIM]).unwrap();
        for (slot, row) in (0u32..).zip(rows) {
            freezer.add(Spot { shard: slot % 3, slot: slot / 3, occupied_at: 1 }, row);
        }
        let config = BuildConfig { m: 8, ef_construction: 60, threads };
        Generation::build(freezer.finish(), Taken::default(), config, &|_, _| Ok(())).unwrap()
    }

    fn slots(found: &[Candidate]) -> Vec<u32> {
        found.iter().map(|found| found.spot.slot * 3 + found.spot.shard).collect()
    }

    #[test]
    fn every_metric_finds_what_a_search_of_all_rows_finds() {
        let rows = random(3_000);
        // On the sphere that rows of a dot bank are lifted to, they are all far from an anchor: such walks need to be wider.
        for (metric, ef) in [(Metric::Dot, 256), (Metric::L2, 64)] {
            let generation = built(metric, &rows, 2);
            let (mut hit, mut found) = (0, Vec::new());
            for anchor in random(40) {
                let mut all: Vec<u32> = (0..rows.len() as u32).collect();
                all.sort_by(|&a, &b| {
                    let of = |row: u32| score(metric, &anchor, &rows[row as usize]);
                    of(b).total_cmp(&of(a))
                });
                generation.search(&anchor, Reach { ef, ..REACH }, |_| true, &mut found);
                let found = slots(&found);
                hit += all[..10].iter().filter(|row| found.contains(row)).count();
            }
            assert!(hit >= 380, "{metric:?}: {hit} of 400");
        }
    }

    #[test]
    fn all_repeated_one_entry_and_none() {
        let same = built(Metric::L2, &[[0.25; DIM]; 500], 1);
        let mut found = Vec::new();
        same.search(&[0.0; DIM], REACH, |_| true, &mut found);
        let mut met = slots(&found);
        met.sort_unstable();
        assert_eq!(met, (0..500).collect::<Vec<_>>());
        assert!(same.unreachable().is_empty());

        let one = built(Metric::L2, &[[0.25; DIM]], 1);
        one.search(&[0.0; DIM], REACH, |_| true, &mut found);
        assert_eq!(slots(&found), [0]);
        assert_eq!((one.entry(0, 0), one.entry(0, 1), one.entry(9, 0)), (Some(0), None, None));

        let none = Freezer::new(Metric::L2, DIM, 0, &[]).unwrap().finish();
        let config = BuildConfig { m: 8, ef_construction: 60, threads: 1 };
        assert!(Generation::build(none, Taken::default(), config, &|_, _| Ok(())).is_err());
    }

    #[test]
    fn a_stopped_build_and_a_panic_leave_no_graph() {
        let mut freezer = Freezer::new(Metric::L2, DIM, 1_000, &[]).unwrap();
        for (slot, row) in (0u32..).zip(random(1_000)) {
            freezer.add(Spot { shard: 0, slot, occupied_at: 1 }, &row);
        }
        let config = BuildConfig { m: 8, ef_construction: 60, threads: 1 };
        let stop = |_: &_, done: f64| match done > 0.5 {
            true => Err(BuildError::Stopped("enough".to_owned())),
            false => Ok(()),
        };
        let stopped = Generation::build(freezer.finish(), Taken::default(), config, &stop);
        assert!(matches!(stopped, Err(BuildError::Stopped(reason)) if reason == "enough"));

        let mut freezer = Freezer::new(Metric::L2, DIM, 1_000, &[]).unwrap();
        for (slot, row) in (0u32..).zip(random(1_000)) {
            freezer.add(Spot { shard: 0, slot, occupied_at: 1 }, &row);
        }
        let panics = Generation::build(freezer.finish(), Taken::default(), config, &|_, _| panic!("on purpose"));
        assert!(matches!(panics, Err(BuildError::Panicked)));
    }

    #[test]
    fn what_is_not_admitted_is_not_kept() {
        let rows = random(2_000);
        let generation = built(Metric::L2, &rows, 1);
        let mut found = Vec::new();
        let computed = generation.search(&rows[0], REACH, |spot| spot.slot % 50 == 7, &mut found);
        assert!(found.len() >= 30 && found.iter().all(|found| found.spot.slot % 50 == 7), "{}", found.len());
        assert!(computed > 1_000, "it walked through the others");
    }
}
