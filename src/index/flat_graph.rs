//! The graph as it is searched: read-only, links in rows of one length.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::kernels::prefetch::prefetch;
use crate::rows::{OutOfMemory, Slab};

/// A navigable graph in layers (Malkov and Yashunin 2016). Nodes are numbered by falling level, so that those of an upper layer are the
/// first ones and node 0 is the entry.
#[derive(Debug)]
pub struct FlatGraph {
    nodes: usize,
    /// The lowest layer, of all nodes, first.
    layers: Vec<Layer>,
}

/// Links of the nodes below a number.
#[derive(Debug)]
struct Layer {
    /// Links of a node, [`END`] after the last.
    degree: usize,
    links: Slab<u32>,
    nodes: usize,
}

/// No more links.
const END: u32 = u32::MAX;

/// Marks a word whose node the walk has left.
const LEFT: u64 = 1 << 31;

/// More nodes than this a graph can't have: their numbers leave a bit for the mark of nodes that a walk has left.
pub const MOST_NODES: usize = 1 << 31;

/// What a search needs to know of nodes.
pub trait Space {
    /// Distance of each of `nodes` to the anchor; smaller is nearer.
    fn distances(&mut self, nodes: &[u32], distances: &mut Vec<f32>);

    /// Asks for the memory of a node that [`Self::distances`] will be asked for.
    fn prefetch(&self, node: u32);

    /// True if the node may be returned; else it is only a stepping stone.
    fn admits(&mut self, node: u32) -> bool;
}

/// How far a search goes.
#[derive(Debug, Clone, Copy)]
pub struct Reach {
    /// Admitted nodes that are kept while it goes on (Malkov's ef).
    pub ef: usize,
    /// Distances computed at most.
    pub most: usize,
}

/// Memory of one search, to use again.
#[derive(Debug, Default)]
pub struct Scratch {
    /// A bit a node, and which words to clear.
    visited: Vec<u64>,
    touched: Vec<u32>,
    /// Admitted nodes, the nearest first: distance, then node, in one word that sorts as they do, with [`LEFT`] once the walk has been
    /// there.
    kept: Vec<u64>,
    /// Nodes of `kept` before this one were all walked from.
    next: usize,
    /// Nodes that are not admitted and not walked from yet.
    stones: BinaryHeap<Reverse<u64>>,
    batch: Vec<u32>,
    distances: Vec<f32>,
}

impl FlatGraph {
    /// A graph of the layers given, the lowest first: number of nodes, links of a node at most, and the links of each, of which those
    /// outside the layer and the node itself are left out.
    ///
    /// # Errors
    /// [`OutOfMemory`]
    pub fn new<'a>(layers: impl Iterator<Item = (usize, usize, Vec<&'a [u32]>)>) -> Result<Self, OutOfMemory> {
        let mut flat = Vec::new();
        for (nodes, degree, linked) in layers {
            let mut links = Slab::new(nodes * degree)?;
            for ((node, room), from) in (0u32..).zip(links.as_mut_slice().chunks_exact_mut(degree.max(1))).zip(linked) {
                let kept = from.iter().copied().filter(|&to| (to as usize) < nodes && to != node);
                room.fill(END);
                room.iter_mut().zip(kept).for_each(|(room, to)| *room = to);
            }
            flat.push(Layer { degree, links, nodes });
        }
        Ok(Self { nodes: flat.first().map_or(0, |layer| layer.nodes), layers: flat })
    }

    /// A graph of layers as [`Self::layers`] gives them; `None`: they are not those of a graph.
    pub(super) fn restore(layers: Vec<(usize, usize, Slab<u32>)>) -> Option<Self> {
        let falls = layers.windows(2).all(|pair| pair[1].0 <= pair[0].0);
        let whole = |(nodes, degree, links): &(usize, usize, Slab<u32>)| {
            let links = links.as_slice();
            Some(links.len()) == nodes.checked_mul(*degree) && links.iter().all(|&to| to == END || (to as usize) < *nodes)
        };
        if !falls || !layers.iter().all(whole) || layers.is_empty() {
            return None;
        }
        let layers: Vec<Layer> = layers.into_iter().map(|(nodes, degree, links)| Layer { degree, links, nodes }).collect();
        Some(Self { nodes: layers.first().map_or(0, |layer| layer.nodes), layers })
    }

    /// Nodes of each layer, the lowest first, links of a node at most, and the links.
    pub(super) fn layers(&self) -> impl ExactSizeIterator<Item = (usize, usize, &[u32])> {
        self.layers.iter().map(|layer| (layer.nodes, layer.degree, layer.links.as_slice()))
    }

    /// Links of a node in the lowest layer.
    pub(super) fn base_links(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        let links = self.layers.first().map_or(&[][..], |base| base.links(node));
        links.iter().copied().take_while(|&to| to != END)
    }

    /// Nodes.
    pub fn len(&self) -> usize {
        self.nodes
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.nodes == 0
    }

    /// Bytes of links.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(|layer| size_of_val(layer.links.as_slice())).sum()
    }

    /// Finds the nearest admitted nodes: `found` gets at most `reach.ef` of them with their distances, nearest first. Returns the distances
    /// computed; as many as `reach.most`, or more: it was cut short.
    ///
    /// Nodes that are not admitted are walked through all the same, and the search ends when it has kept `ef` admitted ones and
    /// nothing nearer is left to walk to.
    pub fn search(&self, space: &mut impl Space, reach: Reach, scratch: &mut Scratch, found: &mut Vec<(u32, f32)>) -> usize {
        found.clear();
        let Some((base, upper)) = self.layers.split_first().filter(|(base, _)| base.nodes > 0) else { return 0 };
        scratch.begin(self.nodes);
        let (mut nearest, mut computed) = scratch.start(space);
        for layer in upper.iter().rev() {
            computed += layer.descend(&mut nearest, space, scratch);
        }
        computed += base.walk(nearest, space, reach, computed, scratch);
        found.extend(scratch.kept.iter().map(|word| parts(word & !LEFT)));
        computed
    }
}

impl Layer {
    fn links(&self, node: u32) -> &[u32] {
        &self.links.as_slice()[node as usize * self.degree..][..self.degree]
    }

    /// Goes to ever nearer nodes until none is.
    fn descend(&self, nearest: &mut (f32, u32), space: &mut impl Space, scratch: &mut Scratch) -> usize {
        let mut computed = 0;
        loop {
            let here = nearest.1;
            scratch.batch.clear();
            scratch.batch.extend(self.links(here).iter().copied().take_while(|&to| to != END));
            space.distances(&scratch.batch, &mut scratch.distances);
            computed += scratch.batch.len();
            for (&node, &distance) in scratch.batch.iter().zip(&scratch.distances) {
                if distance < nearest.0 {
                    *nearest = (distance, node);
                }
            }
            if nearest.1 == here {
                return computed;
            }
        }
    }

    fn walk(
        &self,
        (distance, start): (f32, u32),
        space: &mut impl Space,
        reach: Reach,
        before: usize,
        scratch: &mut Scratch,
    ) -> usize {
        let (mut computed, ef) = (0, reach.ef.max(1));
        scratch.visit(start);
        scratch.offer(word(distance, start), space, ef);
        while let Some(from) = scratch.leave(ef) {
            if before + computed >= reach.most {
                break;
            }
            scratch.batch.clear();
            for &to in self.links(from) {
                if to == END {
                    break;
                }
                if scratch.visit(to) {
                    space.prefetch(to);
                    scratch.batch.push(to);
                }
            }
            if let Some(&next) = scratch.kept.get(scratch.next) {
                prefetch(self.links(parts(next & !LEFT).0));
            }
            space.distances(&scratch.batch, &mut scratch.distances);
            computed += scratch.batch.len();
            for at in 0..scratch.batch.len() {
                scratch.offer(word(scratch.distances[at], scratch.batch[at]), space, ef);
            }
        }
        computed
    }
}

impl Scratch {
    fn begin(&mut self, nodes: usize) {
        for &node in &self.touched {
            self.visited[node as usize / 64] = 0;
        }
        self.touched.clear();
        self.visited.resize(nodes.div_ceil(64).max(self.visited.len()), 0);
        self.kept.clear();
        self.next = 0;
        self.stones.clear();
    }

    /// Distance of the entry node.
    fn start(&mut self, space: &mut impl Space) -> ((f32, u32), usize) {
        space.distances(&[0], &mut self.distances);
        ((self.distances.first().copied().unwrap_or(f32::INFINITY), 0), 1)
    }

    /// True at the first visit.
    fn visit(&mut self, node: u32) -> bool {
        let (word, bit) = (&mut self.visited[node as usize / 64], 1u64 << (node % 64));
        let first = *word & bit == 0;
        if first {
            *word |= bit;
            self.touched.push(node);
        }
        first
    }

    /// The nearest node that the walk has not left, which it leaves now; `None` if what is left is farther than all of `ef` kept ones.
    fn leave(&mut self, ef: usize) -> Option<u32> {
        let kept = self.kept.get(self.next).copied();
        let stone = self.stones.peek().map(|stone| stone.0);
        if let Some(stone) = stone.filter(|&stone| kept.is_none_or(|kept| stone < kept) && stone < self.bar(ef)) {
            self.stones.pop();
            return Some(parts(stone).0);
        }
        let kept = kept?;
        self.kept[self.next] |= LEFT;
        let more = self.kept[self.next..].iter().position(|word| word & LEFT == 0);
        self.next = more.map_or(self.kept.len(), |more| self.next + more);
        Some(parts(kept).0)
    }

    /// What must be undercut.
    fn bar(&self, ef: usize) -> u64 {
        self.kept.last().filter(|_| self.kept.len() >= ef).map_or(u64::MAX, |last| last & !LEFT)
    }

    /// Notes a node, if it is near enough.
    fn offer(&mut self, word: u64, space: &mut impl Space, ef: usize) {
        if word >= self.bar(ef) {
            return;
        }
        if !space.admits(parts(word).0) {
            self.stones.push(Reverse(word));
            return;
        }
        let at = self.kept.partition_point(|kept| kept & !LEFT < word);
        self.kept.truncate(ef.saturating_sub(1));
        self.kept.insert(at, word);
        self.next = self.next.min(at);
    }
}

/// A distance and a node as a number that is ordered as they are.
fn word(distance: f32, node: u32) -> u64 {
    let bits = distance.to_bits();
    let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    u64::from(ordered) << 32 | u64::from(node)
}

/// The node and the distance of a word.
fn parts(word: u64) -> (u32, f32) {
    let ordered = (word >> 32) as u32;
    let bits = if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered };
    (word as u32, f32::from_bits(bits))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{FlatGraph, Reach, Scratch, Space, parts, word};

    /// Nodes on a line, at their own number.
    struct Line(f32, fn(u32) -> bool);

    impl Space for Line {
        fn distances(&mut self, nodes: &[u32], distances: &mut Vec<f32>) {
            distances.clear();
            distances.extend(nodes.iter().map(|&node| (node as f32 - self.0).abs()));
        }

        fn prefetch(&self, _: u32) {}

        fn admits(&mut self, node: u32) -> bool {
            self.1(node)
        }
    }

    fn chain(nodes: u32) -> FlatGraph {
        let links: Vec<Vec<u32>> = (0..nodes).map(|node| vec![node.saturating_sub(1), node, node + 1, nodes + 7]).collect();
        let layer = (nodes as usize, 2, links.iter().map(Vec::as_slice).collect());
        FlatGraph::new([layer].into_iter()).unwrap()
    }

    fn search(graph: &FlatGraph, mut line: Line, ef: usize, most: usize) -> Vec<u32> {
        let mut found = Vec::new();
        graph.search(&mut line, Reach { ef, most }, &mut Scratch::default(), &mut found);
        found.into_iter().map(|(node, _)| node).collect()
    }

    #[test]
    fn rejected_nodes_are_walked_through() {
        let graph = chain(1_000);
        assert_eq!(search(&graph, Line(500.2, |_| true), 3, usize::MAX), [500, 501, 499]);
        assert_eq!(search(&graph, Line(500.2, |node| node % 100 == 0), 3, usize::MAX), [500, 600, 400]);
        assert_eq!(search(&graph, Line(500.2, |node| node == 999), 3, usize::MAX), [999]);
        assert!(search(&graph, Line(0.0, |_| false), 3, usize::MAX).is_empty());
        assert!(search(&graph, Line(500.0, |node| node == 999), 3, 100).is_empty(), "cut short");
        assert!(search(&chain(0), Line(0.0, |_| true), 3, 100).is_empty());
        assert_eq!(search(&chain(1), Line(0.0, |_| true), 3, 100), [0]);
    }

    #[test]
    fn scratch_of_one_graph_serves_another() {
        let (mut scratch, mut found) = (Scratch::default(), Vec::new());
        for nodes in [1_000, 10, 5_000] {
            chain(nodes).search(&mut Line(3.0, |_| true), Reach { ef: 1, most: 9_999 }, &mut scratch, &mut found);
            assert_eq!(found, [(3, 0.0)]);
        }
    }

    proptest! {
        #[test]
        fn words_are_ordered_as_distances(a in any::<f32>(), b in any::<f32>(), node in any::<u32>()) {
            prop_assume!(!a.is_nan() && !b.is_nan());
            prop_assert_eq!(word(a, node).cmp(&word(b, node)), a.total_cmp(&b));
            prop_assert_eq!(parts(word(a, node)), (node, a));
        }
    }
}
