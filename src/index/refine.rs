//! Better links for the lowest layer, chosen by searches of the graph that there is.

use std::cell::RefCell;

use rayon::ThreadPool;
use rayon::prelude::*;

use super::flat_graph::{FlatGraph, Reach, Scratch, Space};
use super::frozen::Frozen;
use super::hnsw::BuildError;
use crate::kernels::prefetch::prefetch;

/// Nearest nodes among which a node's links are chosen (Vamana's L).
const CHOSEN_FROM: usize = 96;

/// How much nearer to a link than to the node another must be to go without a link of its own, where there is room for it (Vamana's
/// alpha), squared as distances are.
const ALPHA: f32 = 1.2 * 1.2;

/// Nodes that are linked anew by each thread before the build asks whether to go on: about 20 milliseconds.
const SLICE: usize = 128;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// A node that may be linked, and how far it is.
type Near = (f32, u32);

/// Chooses each node's links anew, `degree` at most, the nearest first: by robust pruning (Subramanya et al. 2019, algorithm 2) of what a
/// search for the node finds, together with the links that it has; then of those and the nodes that chose it. The builder chose among
/// the nodes that had come before, with the graph as it was then, and dropped the farthest links where there were too many.
pub(super) fn refine(
    frozen: &Frozen,
    graph: &FlatGraph,
    degree: usize,
    pool: &ThreadPool,
    go_on: &dyn Fn(f64) -> Result<(), BuildError>,
) -> Result<Vec<Vec<u32>>, BuildError> {
    let nodes = graph.len();
    let chosen = in_slices(nodes, pool, &|done| go_on(done / 2.0), &|node| {
        let mut near = found(frozen, graph, node);
        near.extend(measured(frozen, node, graph.base_links(node)));
        prune(frozen, node, near, degree)
    })?;
    let mut choosers: Vec<Vec<u32>> = vec![Vec::new(); nodes];
    for (node, links) in (0u32..).zip(&chosen) {
        links.iter().for_each(|&to| choosers[to as usize].push(node));
    }
    in_slices(nodes, pool, &|done| go_on(0.5 + done / 2.0), &|node| {
        let (own, choosers) = (&chosen[node as usize], &choosers[node as usize]);
        let near = measured(frozen, node, own.iter().chain(choosers).copied());
        prune(frozen, node, near, degree)
    })
}

fn in_slices(
    nodes: usize,
    pool: &ThreadPool,
    go_on: &dyn Fn(f64) -> Result<(), BuildError>,
    linked: &(dyn Fn(u32) -> Vec<u32> + Sync),
) -> Result<Vec<Vec<u32>>, BuildError> {
    let slice = SLICE * pool.current_num_threads();
    let mut all = Vec::with_capacity(nodes);
    while all.len() < nodes {
        go_on(all.len() as f64 / nodes as f64)?;
        let part = all.len() as u32..nodes.min(all.len() + slice) as u32;
        let part: Vec<Vec<u32>> = pool.install(|| part.into_par_iter().map(linked).collect());
        all.extend(part);
    }
    Ok(all)
}

/// What a search for a node's own row finds.
fn found(frozen: &Frozen, graph: &FlatGraph, node: u32) -> Vec<Near> {
    let mut found = Vec::new();
    let reach = Reach { ef: CHOSEN_FROM, most: usize::MAX };
    SCRATCH.with_borrow_mut(|scratch| graph.search(&mut Around { frozen, node }, reach, scratch, &mut found));
    found.into_iter().map(|(node, distance)| (distance, node)).collect()
}

fn measured(frozen: &Frozen, node: u32, others: impl Iterator<Item = u32>) -> Vec<Near> {
    let (others, mut distances): (Vec<u32>, _) = (others.collect(), Vec::new());
    frozen.distances(node, &others, &mut distances);
    distances.into_iter().zip(others).collect()
}

/// The links that are kept of `near`. First those that no nearer one makes superfluous, being nearer to it than the node is; then, where
/// there is room, those that one is not nearer to by far.
fn prune(frozen: &Frozen, node: u32, mut near: Vec<Near>, degree: usize) -> Vec<u32> {
    near.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    near.dedup();
    near.retain(|&(_, other)| other != node);
    let mut kept: Vec<Near> = Vec::with_capacity(degree);
    for alpha in [1.0, ALPHA] {
        let mut left = Vec::with_capacity(near.len());
        for (distance, other) in near {
            let reaches = |&(_, link): &Near| alpha * frozen.distance(link, other) <= distance;
            if kept.len() < degree && !kept.iter().any(reaches) {
                kept.push((distance, other));
            } else {
                left.push((distance, other));
            }
        }
        near = left;
    }
    kept.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    kept.into_iter().map(|(_, other)| other).collect()
}

/// The nodes, seen from one of them.
struct Around<'a> {
    frozen: &'a Frozen,
    node: u32,
}

impl Space for Around<'_> {
    fn distances(&mut self, nodes: &[u32], distances: &mut Vec<f32>) {
        self.frozen.distances(self.node, nodes, distances);
    }

    fn prefetch(&self, node: u32) {
        prefetch(self.frozen.row(node));
    }

    fn admits(&mut self, _: u32) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use rayon::ThreadPoolBuilder;

    use super::refine;
    use crate::index::flat_graph::{FlatGraph, Reach, Scratch};
    use crate::index::frozen::{Freezer, Frozen, Spot};
    use crate::index::hnsw::BuildError;
    use crate::model::{Metric, Seed};

    const NODES: u32 = 1_500;
    const DEGREE: usize = 12;

    fn frozen(metric: Metric) -> Frozen {
        let (mut random, mut freezer) = (Seed(4).stream(0, 0), Freezer::new(metric, 8, NODES as usize, &[]).unwrap());
        for slot in 0..NODES {
            let row: Vec<f32> = (0..8).map(|_| random.unit() as f32 - 0.5).collect();
            freezer.add(Spot { shard: 0, slot, occupied_at: 1 }, &row);
        }
        freezer.finish()
    }

    fn graph(links: &[Vec<u32>]) -> FlatGraph {
        let layer = (links.len(), DEGREE, links.iter().map(Vec::as_slice).collect());
        FlatGraph::new([layer].into_iter()).unwrap()
    }

    /// Of the ten nearest to each fiftieth node, the share that a narrow search finds.
    fn recall(frozen: &Frozen, graph: &FlatGraph) -> f64 {
        let (mut scratch, mut found, mut hits) = (Scratch::default(), Vec::new(), 0);
        let asked: Vec<u32> = (0..NODES).step_by(50).collect();
        for &node in &asked {
            let mut truth: Vec<u32> = (0..NODES).collect();
            truth.sort_by(|&a, &b| frozen.distance(node, a).total_cmp(&frozen.distance(node, b)));
            let reach = Reach { ef: 20, most: usize::MAX };
            graph.search(&mut super::Around { frozen, node }, reach, &mut scratch, &mut found);
            hits += truth[..10].iter().filter(|&&near| found.iter().any(|&(there, _)| there == near)).count();
        }
        hits as f64 / (10 * asked.len()) as f64
    }

    #[test]
    fn links_that_were_chosen_anew_lead_to_what_is_near() {
        for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
            let (frozen, mut random) = (frozen(metric), Seed(5).stream(0, 0));
            let mut links: Vec<Vec<u32>> =
                (0..NODES).map(|_| (0..DEGREE).map(|_| random.below(u64::from(NODES)) as u32).collect()).collect();
            let pools = [1, 3].map(|threads| ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
            let before = recall(&frozen, &graph(&links));
            for _ in 0..3 {
                let from = graph(&links);
                let [one, three] = pools.each_ref().map(|pool| refine(&frozen, &from, DEGREE, pool, &|_| Ok(())).unwrap());
                assert_eq!(one, three, "on any number of threads");
                links = one;
            }
            for (node, links) in (0u32..).zip(&links) {
                assert!(links.len() <= DEGREE && !links.contains(&node));
                let mut once = links.clone();
                once.sort_unstable();
                once.dedup();
                assert_eq!(once.len(), links.len());
            }
            let after = recall(&frozen, &graph(&links));
            assert!(after > 0.95 && before < 0.8, "{metric:?}: {before} before, {after} after");
            let stopped = refine(&frozen, &graph(&links), DEGREE, &pools[0], &|done| match done {
                ..0.6 => Ok(()),
                _ => Err(BuildError::Stopped("enough".to_owned())),
            });
            assert!(matches!(stopped, Err(BuildError::Stopped(_))));
        }
    }
}
