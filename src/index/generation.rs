//! One immutable build of the graph.

use std::cell::RefCell;

use super::flat_graph::{FlatGraph, Reach, Scratch, Space};
use super::frozen::{Frozen, Spot};
use super::hnsw::{self, BuildConfig, BuildError};
use crate::kernels::bf16;
use crate::kernels::prefetch::prefetch;
use crate::kernels::score::score;
use crate::model::Metric;

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
    /// Distance to the row that led the search, as it was or as it is, up to what all candidates of an anchor have in common.
    pub distance: f32,
}

/// What a search asks of the bank as it is now.
pub trait Present {
    /// True if the entry may be returned.
    fn admits(&mut self, spot: Spot) -> bool;

    /// True if rows have moved: then the search is led by what [`Self::row`] tells, else by the rows as they were.
    fn is_live(&self) -> bool {
        false
    }

    /// The row of an entry that has a node to itself, padded; `None`: it has left.
    fn row(&mut self, _spot: Spot) -> Option<&[f32]> {
        None
    }

    /// Asks for the memory of what [`Self::row`] will be asked for.
    fn prefetch(&self, _spot: Spot) {}
}

impl<F: FnMut(Spot) -> bool> Present for F {
    fn admits(&mut self, spot: Spot) -> bool {
        self(spot)
    }
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

    /// Finds entries near `anchor`, which is padded where `present` is live: `found` gets at least the `reach.ef` nearest that are
    /// admitted of those that the walk met, in no order. Returns the distances computed; `reach.most` or more: it was cut short.
    pub fn search(&self, anchor: &[f32], reach: Reach, present: &mut impl Present, found: &mut Vec<Candidate>) -> usize {
        found.clear();
        let query = self.frozen.query(anchor);
        let mut space = Walk { generation: self, query: &query, anchor, beyond: self.frozen.beyond(&query), present };
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
        let present = &mut |_: Spot| true;
        let mut space = Walk { generation: self, query: self.frozen.row(node), anchor: &[], beyond: 0.0, present };
        let (mut nodes, reach) = (Vec::new(), Reach { ef: AUDIT_EF, most: usize::MAX });
        SCRATCH.with_borrow_mut(|scratch| self.graph.search(&mut space, reach, scratch, &mut nodes));
        nodes.iter().any(|&(found, _)| found == node)
    }
}

/// The rows, seen from an anchor.
struct Walk<'a, P> {
    generation: &'a Generation,
    query: &'a [u16],
    anchor: &'a [f32],
    /// What distances of rows as they are have, and those of rows as they were have not.
    beyond: f32,
    present: &'a mut P,
}

impl<P: Present> Space for Walk<'_, P> {
    fn distances(&mut self, nodes: &[u32], distances: &mut Vec<f32>) {
        let frozen = &self.generation.frozen;
        if !self.present.is_live() {
            bf16::dots(self.query, frozen.slab(), nodes, distances);
            for (&node, distance) in nodes.iter().zip(distances) {
                *distance = frozen.offset(node) - 2.0 * *distance;
            }
            return;
        }
        distances.clear();
        distances.extend(nodes.iter().map(|&node| {
            // Entries that shared a row have moved apart: those that did are scanned beside the graph.
            let alone = (!frozen.is_repeated(node)).then(|| frozen.spot(node));
            match alone.and_then(|spot| self.present.row(spot)) {
                Some(row) => match frozen.metric() {
                    Metric::L2 => -score(Metric::L2, self.anchor, row) - self.beyond,
                    metric => -2.0 * score(metric, self.anchor, row),
                },
                None => frozen.offset(node) - 2.0 * bf16::dot(self.query, frozen.row(node)),
            }
        }));
    }

    fn prefetch(&self, node: u32) {
        let frozen = &self.generation.frozen;
        if self.present.is_live() {
            self.present.prefetch(frozen.spot(node));
        } else {
            prefetch(frozen.row(node));
        }
    }

    fn admits(&mut self, node: u32) -> bool {
        let Self { generation, present, .. } = self;
        generation.with_repeated(node).any(|entry| present.admits(generation.frozen.spot(entry)))
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
    use super::{Candidate, Generation, Present, Taken};
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
                generation.search(&anchor, Reach { ef, ..REACH }, &mut |_| true, &mut found);
                let found = slots(&found);
                hit += all[..10].iter().filter(|row| found.contains(row)).count();
            }
            assert!(hit >= 380, "{metric:?}: {hit} of 400");
        }
    }

    /// Rows as they are after the graph was built; those of every tenth slot have left.
    struct Moved<'a>(&'a [[f32; DIM]]);

    impl Present for Moved<'_> {
        fn admits(&mut self, spot: Spot) -> bool {
            self.row(spot).is_some()
        }

        fn is_live(&self) -> bool {
            true
        }

        fn row(&mut self, spot: Spot) -> Option<&[f32]> {
            (!spot.slot.is_multiple_of(10)).then(|| &self.0[(spot.slot * 3 + spot.shard) as usize][..])
        }
    }

    #[test]
    fn a_live_walk_finds_rows_where_they_are_now() {
        let before = random(3_000);
        for (metric, ef) in [(Metric::Cosine, 32), (Metric::L2, 32)] {
            let unit = |row: [f32; DIM]| match metric {
                Metric::Cosine => row.map(|x| x / row.iter().map(|x| x * x).sum::<f32>().sqrt()),
                _ => row,
            };
            let before: Vec<[f32; DIM]> = before.iter().copied().map(unit).collect();
            // Each goes its own way.
            let ways = before.iter().rev();
            let now: Vec<[f32; DIM]> =
                before.iter().zip(ways).map(|(row, way)| unit(std::array::from_fn(|at| row[at] + 0.5 * way[at]))).collect();
            let generation = built(metric, &before, 1);
            let (mut live, mut frozen, mut found) = (0, 0, Vec::new());
            for anchor in random(40).into_iter().map(unit) {
                let mut all: Vec<u32> = (0..3_000u32).filter(|row| !(row / 3).is_multiple_of(10)).collect();
                all.sort_by(|&a, &b| {
                    let of = |row: u32| score(metric, &anchor, &now[row as usize]);
                    of(b).total_cmp(&of(a))
                });
                let hits = |found: &[Candidate]| all[..10].iter().filter(|row| slots(found).contains(row)).count();
                generation.search(&anchor, Reach { ef, ..REACH }, &mut Moved(&now), &mut found);
                assert!(slots(&found).iter().all(|row| !(row / 3).is_multiple_of(10)));
                live += hits(&found);
                let mut is_there = |spot: Spot| !spot.slot.is_multiple_of(10);
                generation.search(&anchor, Reach { ef, ..REACH }, &mut is_there, &mut found);
                frozen += hits(&found);
            }
            assert!(live >= 350 && live > frozen + 20, "{metric:?}: {live} and {frozen} of 400");
        }
    }

    #[test]
    fn all_repeated_one_entry_and_none() {
        let same = built(Metric::L2, &[[0.25; DIM]; 500], 1);
        let mut found = Vec::new();
        same.search(&[0.0; DIM], REACH, &mut |_| true, &mut found);
        let mut met = slots(&found);
        met.sort_unstable();
        assert_eq!(met, (0..500).collect::<Vec<_>>());
        assert!(same.unreachable().is_empty());

        let one = built(Metric::L2, &[[0.25; DIM]], 1);
        one.search(&[0.0; DIM], REACH, &mut |_| true, &mut found);
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
        let computed = generation.search(&rows[0], REACH, &mut |spot: Spot| spot.slot % 50 == 7, &mut found);
        assert!(found.len() >= 30 && found.iter().all(|found| found.spot.slot % 50 == 7), "{}", found.len());
        assert!(computed > 1_000, "it walked through the others");
    }
}
