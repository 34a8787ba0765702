//! Building the graph, with `hnsw_rs`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use hnsw_rs::prelude::{Distance, Hnsw};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::flat_graph::{FlatGraph, MOST_NODES};
use super::frozen::Frozen;
use super::refine::refine;
use crate::rows::OutOfMemory;

/// How a graph is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildConfig {
    /// Links of a node in the upper layers; twice as many in the lowest (Malkov's M).
    pub m: usize,
    /// Nearest nodes among which a new node's links are chosen.
    pub ef_construction: usize,
    /// Threads.
    pub threads: usize,
}

impl BuildConfig {
    /// Memory that an entry of `dim` floats takes while a graph is built: its copy, its node, and its links, each with a count and a
    /// distance. An estimate, from the structures of hnsw_rs 0.3: a node's lists by layer, and an allocation for each link.
    pub fn bytes_per_entry(&self, dim: usize) -> usize {
        2 * dim + 600 + 2 * self.m * 56
    }
}

/// Why there is no graph.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BuildError {
    /// Nobody wants it any more, or it would not be worth having.
    #[error("{0}")]
    Stopped(String),
    /// The system gave no memory or no threads.
    #[error("{0}")]
    Refused(String),
    /// A defect.
    #[error("the build panicked: this is a defect of negbank")]
    Panicked,
}

impl From<OutOfMemory> for BuildError {
    fn from(refused: OutOfMemory) -> Self {
        Self::Refused(refused.to_string())
    }
}

/// Nodes inserted, by each thread, before the build asks whether to go on: about 50 milliseconds.
const SLICE: usize = 64;

/// Of a build's work, about the share that the builder does.
const INSERTED: f64 = 0.8;

/// Times that links are chosen anew: the second from searches of what the first chose.
const REFINED: usize = 2;

/// Links that must lead to a node, so that walks find it.
const LEAST_LEADING: u32 = 3;

/// Of a node that more links lead to than this one can be taken.
const SPARED_ABOVE: u32 = 6;

/// Points are the numbers of entries: nothing is copied.
struct Apart(Arc<Frozen>);

impl Distance<u32> for Apart {
    fn eval(&self, a: &[u32], b: &[u32]) -> f32 {
        match (a, b) {
            (&[a], &[b]) => self.0.distance(a, b),
            _ => 0.0,
        }
    }
}

/// Links by node, per layer, as the builder left them.
struct Links {
    /// Highest layer of each node.
    levels: Vec<u8>,
    /// By node and layer.
    links: Vec<Vec<Vec<u32>>>,
}

/// Builds a graph over the different rows of `frozen`, and numbers its entries as the graph's nodes. `go_on` hears the share that
/// is done, after each slice, and may stop the build.
///
/// # Errors
/// [`BuildError`]
pub fn build(
    frozen: Frozen,
    config: BuildConfig,
    go_on: &(dyn Fn(&Frozen, f64) -> Result<(), BuildError> + Sync),
) -> Result<(Frozen, FlatGraph), BuildError> {
    if frozen.nodes() > MOST_NODES {
        return Err(BuildError::Refused(format!(
            "a graph has at most {MOST_NODES} nodes, and these are {} different rows",
            frozen.nodes()
        )));
    }
    let pool = ThreadPoolBuilder::new().num_threads(config.threads.max(1)).thread_name(|at| format!("index-{at}")).build();
    let pool = pool.map_err(|refused| BuildError::Refused(refused.to_string()))?;
    // An allocation that fails inside the builder would end the process: ask for as much first.
    let mut probe: Vec<u8> = Vec::new();
    let room = probe.try_reserve_exact(frozen.nodes().saturating_mul(config.bytes_per_entry(frozen.stride())));
    room.map_err(|refused| BuildError::Refused(format!("no memory to build a graph: {refused}")))?;
    drop(probe);
    // The builder uses the pool that it is called in, when it is dropped too.
    let whole = || pool.install(|| inserted(frozen, config, &pool, go_on));
    let (mut frozen, mut links) = catch_unwind(AssertUnwindSafe(whole)).map_err(|_| BuildError::Panicked)??;
    let order = order(&links);
    links.renumber(&order);
    links.mend(config.m);
    let mut whole: Vec<u32> = order;
    whole.extend(whole.len() as u32..frozen.len() as u32);
    frozen.reorder(&whole);
    let mut graph = links.flat(config.m)?;
    for pass in 0..REFINED {
        let go_on = |done: f64| {
            let refined = (pass as f64 + done) / REFINED as f64;
            go_on(&frozen, INSERTED + (1.0 - INSERTED) * refined)
        };
        let refined = || refine(&frozen, &graph, 2 * config.m, &pool, &go_on);
        links.replace_base(catch_unwind(AssertUnwindSafe(refined)).map_err(|_| BuildError::Panicked)??);
        links.mend(config.m);
        graph = links.flat(config.m)?;
    }
    Ok((frozen, graph))
}

fn inserted(
    frozen: Frozen,
    config: BuildConfig,
    pool: &ThreadPool,
    go_on: &(dyn Fn(&Frozen, f64) -> Result<(), BuildError> + Sync),
) -> Result<(Frozen, Links), BuildError> {
    let nodes = frozen.nodes();
    let frozen = Arc::new(frozen);
    let layers = 16;
    let hnsw = Hnsw::new(config.m, nodes, layers, config.ef_construction, Apart(Arc::clone(&frozen)));
    // One by one at first: nodes that come at the same time don't see each other.
    let alone = nodes.min(SLICE);
    (0..alone as u32).for_each(|node| hnsw.insert_slice((&[node], node as usize)));
    let mut done = alone;
    while done < nodes {
        go_on(&frozen, INSERTED * done as f64 / nodes as f64)?;
        let slice = done as u32..nodes.min(done + SLICE * config.threads.max(1)) as u32;
        done = slice.end as usize;
        let hnsw = &hnsw;
        pool.scope(|scope| {
            for part in split(slice, config.threads.max(1)) {
                scope.spawn(move |_| part.for_each(|node| hnsw.insert_slice((&[node], node as usize))));
            }
        });
    }
    let links = Links::of(&hnsw, nodes);
    drop(hnsw);
    let frozen = Arc::into_inner(frozen).ok_or(BuildError::Panicked)?;
    Ok((frozen, links))
}

fn split(range: std::ops::Range<u32>, parts: usize) -> impl Iterator<Item = std::ops::Range<u32>> {
    let len = range.len().div_ceil(parts).max(1) as u32;
    (range.start..range.end).step_by(len as usize).map(move |start| start..range.end.min(start + len))
}

impl Links {
    fn of(hnsw: &Hnsw<'_, u32, Apart>, nodes: usize) -> Self {
        let (mut levels, mut links) = (vec![0; nodes], vec![Vec::new(); nodes]);
        for point in hnsw.get_point_indexation() {
            let node = point.get_origin_id();
            let level = point.get_point_id().0;
            levels[node] = level;
            // Above its own layer a node's list holds what it was inserted by, which is no link.
            let layers = point.get_neighborhood_id().into_iter().take(usize::from(level) + 1);
            links[node] = layers.map(|layer| layer.into_iter().map(|neighbour| neighbour.d_id as u32).collect()).collect();
        }
        Self { levels, links }
    }

    /// Puts node `order[i]` at i.
    fn renumber(&mut self, order: &[u32]) {
        let mut to = vec![0; order.len()];
        (0u32..).zip(order).for_each(|(now, &was)| to[was as usize] = now);
        self.levels = order.iter().map(|&was| self.levels[was as usize]).collect();
        self.links = order.iter().map(|&was| std::mem::take(&mut self.links[was as usize])).collect();
        self.links.iter_mut().flatten().flatten().for_each(|link| *link = to[*link as usize]);
    }

    /// Gives each node other links in the lowest layer.
    fn replace_base(&mut self, base: Vec<Vec<u32>>) {
        for (layers, base) in self.links.iter_mut().zip(base) {
            if let Some(links) = layers.first_mut() {
                *links = base;
            }
        }
    }

    /// Sees to it that every node has links that lead to it. The builder makes room for a near link by dropping the farthest, which may
    /// have been the last one to lead there: in dense clusters one node in forty was lost.
    fn mend(&mut self, m: usize) {
        let mut leading = vec![0u32; self.links.len()];
        let base = |layers: &Vec<Vec<u32>>| layers.first().cloned().unwrap_or_default();
        self.links.iter().flat_map(base).for_each(|to| leading[to as usize] += 1);
        for node in 0..self.links.len() {
            // Sorted by the builder, the nearest first.
            for near in base(&self.links[node]) {
                if leading[node] >= LEAST_LEADING {
                    break;
                }
                let Some(links) = self.links[near as usize].first_mut().filter(|links| !links.contains(&(node as u32))) else {
                    continue;
                };
                if links.len() >= 2 * m {
                    // In place of the farthest that others lead to as well.
                    let spare = links.iter().rposition(|&to| leading[to as usize] > SPARED_ABOVE);
                    let Some(spare) = spare else { continue };
                    leading[links.remove(spare) as usize] -= 1;
                }
                links.push(node as u32);
                leading[node] += 1;
            }
        }
    }

    fn flat(&self, m: usize) -> Result<FlatGraph, OutOfMemory> {
        let top = self.levels.iter().copied().max().unwrap_or(0);
        let layer = |level: u8| {
            let nodes = self.levels.iter().take_while(|&&of| of >= level).count();
            let linked = self.links[..nodes].iter().map(|layers| layers.get(usize::from(level)).map_or(&[][..], Vec::as_slice));
            (nodes, if level == 0 { 2 * m } else { m }, linked.collect())
        };
        FlatGraph::new((0..=top).map(layer))
    }
}

/// Nodes by falling level; those of the lowest layer in the order in which a walk meets them, so that neighbours lie together.
fn order(links: &Links) -> Vec<u32> {
    let nodes = links.levels.len();
    let mut order: Vec<u32> = (0..nodes as u32).filter(|&node| links.levels[node as usize] > 0).collect();
    order.sort_by_key(|&node| std::cmp::Reverse(links.levels[node as usize]));
    let mut placed = vec![false; nodes];
    order.iter().for_each(|&node| placed[node as usize] = true);
    let starts = order.clone();
    for start in starts.into_iter().chain(0..nodes as u32) {
        let mut at = order.len();
        if !placed[start as usize] {
            placed[start as usize] = true;
            order.push(start);
        }
        let mut around = start;
        loop {
            for &to in links.links[around as usize].first().into_iter().flatten() {
                if !std::mem::replace(&mut placed[to as usize], true) {
                    order.push(to);
                }
            }
            let Some(&next) = order.get(at) else { break };
            around = next;
            at += 1;
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::{LEAST_LEADING, Links};

    #[test]
    fn nodes_that_nothing_leads_to_are_linked_from_those_near_them() {
        // Forty nodes link to the first eight only; nothing leads to the others.
        let first = |node: u32| (0..8).filter(|&to| to != node).collect::<Vec<u32>>();
        let mut links = Links { levels: vec![0; 40], links: (0..40).map(|node| vec![first(node)]).collect() };
        links.mend(8);
        for node in 0..40 {
            let leading = links.links.iter().filter(|layers| layers[0].contains(&node)).count();
            assert!(leading >= LEAST_LEADING as usize, "{leading} lead to {node}");
        }
        assert!(links.links.iter().all(|layers| layers[0].len() <= 16));
    }
}
