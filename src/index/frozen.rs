//! A copy of a bank's rows as they were when a graph's build began.

use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;

use crate::kernels::bf16;
use crate::model::{Half, Metric};
use crate::rows::{OutOfMemory, Slab};

/// Whose row an entry of the copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// Shard's number.
    pub shard: u32,
    /// Slot in the shard.
    pub slot: u32,
    /// Stamp of the slot's entry then.
    pub occupied_at: u64,
}

/// Rows as bf16, by entry number: half the bytes, and the sums in the build cost a third. Rows of l2 banks are taken relative to a
/// centre, so that a common offset costs no precision.
///
/// The first [`Frozen::nodes`] entries are all different; each of those after them repeats one of them, from which it hangs.
#[derive(Debug)]
pub struct Frozen {
    metric: Metric,
    stride: usize,
    rows: Slab<u16>,
    spots: Vec<Spot>,
    /// Squared norms of the rows as they are stored.
    squares: Vec<f32>,
    /// Dot banks: the coordinate that brings every row to the largest norm.
    lifts: Vec<f32>,
    centre: Vec<f32>,
    nodes: usize,
    /// By entry: the next one of the same row; [`NONE`]: no other.
    next: Vec<u32>,
}

/// No entry.
pub const NONE: u32 = u32::MAX;

/// A copy under way.
#[derive(Debug)]
pub struct Freezer {
    frozen: Frozen,
    len: usize,
    scratch: Vec<f32>,
}

impl Freezer {
    /// A copy of at most `most` rows of `dim` floats; `centre` is the middle of an l2 bank's rows, roughly.
    ///
    /// # Errors
    /// [`OutOfMemory`]
    pub fn new(metric: Metric, dim: usize, most: usize, centre: &[f32]) -> Result<Self, OutOfMemory> {
        let stride = bf16::stride(dim);
        let mut middle = vec![0.0; stride];
        if metric == Metric::L2 {
            middle.iter_mut().zip(centre).for_each(|(to, &from)| *to = from);
        }
        let (mut spots, mut squares, mut next) = (Vec::new(), Vec::new(), Vec::new());
        let refused = |_| OutOfMemory::from(std::io::Error::from(std::io::ErrorKind::OutOfMemory));
        spots.try_reserve_exact(most).map_err(refused)?;
        squares.try_reserve_exact(most).map_err(refused)?;
        next.try_reserve_exact(most).map_err(refused)?;
        let rows = Slab::new(most.saturating_mul(stride))?;
        let frozen = Frozen { metric, stride, rows, spots, squares, lifts: Vec::new(), centre: middle, nodes: 0, next };
        Ok(Self { frozen, len: most, scratch: vec![0.0; stride] })
    }

    /// True if no more rows fit.
    pub fn is_full(&self) -> bool {
        self.frozen.spots.len() >= self.len
    }

    /// Copies a row, padded or not. Does nothing if it is full.
    pub fn add(&mut self, spot: Spot, row: &[f32]) {
        if self.is_full() {
            return;
        }
        let Self { frozen, scratch, .. } = self;
        frozen.centred(row, scratch);
        let at = frozen.spots.len();
        let bits = &mut frozen.rows.as_mut_slice()[at * frozen.stride..][..frozen.stride];
        Half::Bf16.round(scratch, bits);
        frozen.squares.push(bf16::dot(bits, bits));
        frozen.spots.push(spot);
    }

    /// The copy, different rows first.
    pub fn finish(mut self) -> Frozen {
        let frozen = &mut self.frozen;
        frozen.next = vec![NONE; frozen.spots.len()];
        frozen.part_repeated();
        frozen.lift();
        self.frozen
    }
}

impl Frozen {
    /// Entries.
    pub fn len(&self) -> usize {
        self.spots.len()
    }

    /// Memory that it takes.
    pub fn bytes(&self) -> usize {
        let by_entry = size_of::<Spot>() + size_of::<u32>();
        let by_node = (self.squares.len() + self.lifts.len()) * size_of::<f32>();
        size_of_val(self.rows.as_slice()) + self.spots.len() * by_entry + by_node
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.spots.is_empty()
    }

    /// Entries of different rows.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// Whose row an entry is.
    pub fn spot(&self, entry: u32) -> Spot {
        self.spots[entry as usize]
    }

    /// Whose rows they are, by entry.
    pub fn spots(&self) -> &[Spot] {
        &self.spots
    }

    /// The next entry of the same row.
    pub fn repeated(&self, entry: u32) -> Option<u32> {
        Some(self.next[entry as usize]).filter(|&next| next != NONE)
    }

    /// True if other entries have the same row: they share a node.
    pub fn is_repeated(&self, entry: u32) -> bool {
        entry as usize >= self.nodes || self.next[entry as usize] != NONE
    }

    /// The halves of an entry's row.
    pub fn row(&self, entry: u32) -> &[u16] {
        &self.rows.as_slice()[entry as usize * self.stride..][..self.stride]
    }

    /// All rows.
    pub(super) fn slab(&self) -> &[u16] {
        self.rows.as_slice()
    }

    /// Values of a row as it is stored.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    pub(super) fn metric(&self) -> Metric {
        self.metric
    }

    pub(super) fn centre(&self) -> &[f32] {
        &self.centre
    }

    /// The next entry of the same row, by entry.
    pub(super) fn next(&self) -> &[u32] {
        &self.next
    }

    /// A copy of these parts, `rows` of which has a row for each spot; `None`: they do not belong together.
    pub(super) fn restore(
        (metric, dim): (Metric, usize),
        (rows, spots): (Slab<u16>, Vec<Spot>),
        centre: Vec<f32>,
        nodes: usize,
        next: Vec<u32>,
    ) -> Option<Self> {
        let stride = bf16::stride(dim);
        let len = spots.len();
        let hangs = |(at, next): (usize, &u32)| {
            *next == NONE || ((nodes..len).contains(&(*next as usize)) && (at < nodes || (*next as usize) < at))
        };
        let fits =
            rows.as_slice().len() == len.checked_mul(stride)? && centre.len() == stride && next.len() == len && nodes <= len;
        if !fits || !next.iter().enumerate().all(hangs) {
            return None;
        }
        let squares = rows.as_slice().chunks_exact(stride).map(|row| bf16::dot(row, row)).collect();
        let mut frozen = Self { metric, stride, rows, spots, squares, lifts: Vec::new(), centre, nodes, next };
        frozen.lift();
        Some(frozen)
    }

    /// In a dot bank, brings every row to the largest norm.
    fn lift(&mut self) {
        if self.metric == Metric::Dot {
            let largest = self.squares.iter().copied().fold(0.0, f32::max);
            self.lifts = self.squares.iter().map(|square| (largest - square).max(0.0).sqrt()).collect();
        }
    }

    /// Squared distance of two entries' rows, at least 0; in a dot bank of the rows lifted to one sphere. Then the order by distance
    /// to an anchor that isn't lifted is the order by dot product (Bachrach et al. 2014), so one build serves all metrics.
    pub fn distance(&self, a: u32, b: u32) -> f32 {
        let lift = |entry: u32| self.lifts.get(entry as usize).copied().unwrap_or(0.0);
        let square = |entry: u32| self.squares[entry as usize] + lift(entry) * lift(entry);
        let dot = bf16::dot(self.row(a), self.row(b)) + lift(a) * lift(b);
        (square(a) + square(b) - 2.0 * dot).max(0.0)
    }

    /// [`Self::distance`] of an entry to each of `others`.
    pub(super) fn distances(&self, from: u32, others: &[u32], distances: &mut Vec<f32>) {
        let lift = |entry: u32| self.lifts.get(entry as usize).copied().unwrap_or(0.0);
        let square = |entry: u32| self.squares[entry as usize] + lift(entry) * lift(entry);
        let (own_square, own_lift) = (square(from), lift(from));
        bf16::dots(self.row(from), self.rows.as_slice(), others, distances);
        for (&other, distance) in others.iter().zip(distances) {
            let dot = *distance + own_lift * lift(other);
            *distance = (own_square + square(other) - 2.0 * dot).max(0.0);
        }
    }

    /// An anchor, padded or not, as the rows are: relative to the centre, as bf16.
    pub fn query(&self, anchor: &[f32]) -> Vec<u16> {
        let (mut floats, mut bits) = (vec![0.0; self.stride], vec![0; self.stride]);
        self.centred(anchor, &mut floats);
        Half::Bf16.round(&floats, &mut bits);
        bits
    }

    /// What is added to -2 times the dot product with a query to order entries by distance.
    pub(super) fn offset(&self, entry: u32) -> f32 {
        if self.metric == Metric::L2 { self.squares[entry as usize] } else { 0.0 }
    }

    /// The part of an l2 bank's squared distances to a query that all of them have, and which orders by [`Self::offset`] leave out.
    pub(super) fn beyond(&self, query: &[u16]) -> f32 {
        if self.metric == Metric::L2 { bf16::dot(query, query) } else { 0.0 }
    }

    /// How near a row still is to that of `entry`: their cosine where both have norm 1, in general 2ab / (aa + bb), which is 1 for
    /// equal rows only. `scratch` is room for a row.
    pub fn similarity(&self, entry: u32, row: &[f32], scratch: &mut Vec<f32>) -> f32 {
        scratch.resize(self.stride, 0.0);
        self.centred(row, scratch);
        let squares = self.squares[entry as usize] + bf16::dot_floats(scratch, scratch);
        if squares > 0.0 { 2.0 * bf16::dot_mixed(scratch, self.row(entry)) / squares } else { 1.0 }
    }

    fn centred(&self, row: &[f32], to: &mut [f32]) {
        to.fill(0.0);
        for ((to, &x), &centre) in to.iter_mut().zip(row).zip(&self.centre) {
            *to = x - centre;
        }
    }

    /// Moves rows that repeat an earlier one behind the others, and hangs them from it.
    fn part_repeated(&mut self) {
        let mut first: FxHashMap<&[u16], u32> = FxHashMap::default();
        first.reserve(self.spots.len());
        let rows = self.rows.as_slice();
        let mut of = Vec::with_capacity(self.spots.len());
        for (at, row) in (0u32..).zip(rows.chunks_exact(self.stride)).take(self.spots.len()) {
            of.push(match first.entry(row) {
                Entry::Occupied(there) => *there.get(),
                Entry::Vacant(vacant) => *vacant.insert(at),
            });
        }
        drop(first);
        let is_first = |at: u32| of[at as usize] == at;
        let (mut order, repeated): (Vec<u32>, Vec<u32>) = (0..of.len() as u32).partition(|&at| is_first(at));
        self.nodes = order.len();
        order.extend(repeated);
        if self.nodes == self.spots.len() {
            return;
        }
        let mut to = vec![0; order.len()];
        (0u32..).zip(&order).for_each(|(now, &was)| to[was as usize] = now);
        self.reorder(&order);
        for (now, &was) in (0u32..).zip(&order).skip(self.nodes) {
            let first = to[of[was as usize] as usize] as usize;
            self.next[now as usize] = self.next[first];
            self.next[first] = now;
        }
    }

    /// Puts entry `order[i]` at i. Rows must not hang from each other yet, or hang from nodes that `order` moves among nodes.
    pub(super) fn reorder(&mut self, order: &[u32]) {
        let mut moved: Vec<u32> = (0..order.len() as u32).collect();
        (0u32..).zip(order).for_each(|(now, &was)| moved[was as usize] = now);
        self.next = order.iter().map(|&was| self.next[was as usize]).collect();
        self.next.iter_mut().filter(|next| **next != NONE).for_each(|next| *next = moved[*next as usize]);
        self.spots = order.iter().map(|&was| self.spots[was as usize]).collect();
        self.squares = order.iter().map(|&was| self.squares[was as usize]).collect();
        if !self.lifts.is_empty() {
            self.lifts = order.iter().map(|&was| self.lifts[was as usize]).collect();
        }
        self.permute_rows(order);
    }

    /// In place, cycle by cycle: a second copy of all rows would be the largest piece of a build's memory.
    fn permute_rows(&mut self, order: &[u32]) {
        let (stride, rows) = (self.stride, self.rows.as_mut_slice());
        let mut done = vec![false; order.len()];
        let mut held = vec![0; stride];
        for start in 0..order.len() {
            if done[start] {
                continue;
            }
            held.copy_from_slice(&rows[start * stride..][..stride]);
            let mut at = start;
            loop {
                done[at] = true;
                let from = order[at] as usize;
                if from == start {
                    rows[at * stride..][..stride].copy_from_slice(&held);
                    break;
                }
                rows.copy_within(from * stride..(from + 1) * stride, at * stride);
                at = from;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Freezer, Spot};
    use crate::model::Metric;

    fn spot(slot: u32) -> Spot {
        Spot { shard: 0, slot, occupied_at: u64::from(slot) + 1 }
    }

    proptest! {
        #[test]
        fn repeated_rows_hang_from_their_first(values in prop::collection::vec(0u8..6, 1..60)) {
            let mut freezer = Freezer::new(Metric::Dot, 3, values.len(), &[]).unwrap();
            for (slot, &value) in (0u32..).zip(&values) {
                freezer.add(spot(slot), &[f32::from(value), 1.0, 0.5]);
            }
            let frozen = freezer.finish();
            let mut seen = vec![false; values.len()];
            let different: std::collections::BTreeSet<u8> = values.iter().copied().collect();
            prop_assert_eq!(frozen.nodes(), different.len());
            for node in 0..frozen.nodes() as u32 {
                let mut entry = Some(node);
                while let Some(at) = entry {
                    let slot = frozen.spot(at).slot as usize;
                    prop_assert!(!std::mem::replace(&mut seen[slot], true));
                    prop_assert_eq!(values[slot], values[frozen.spot(node).slot as usize]);
                    prop_assert_eq!(frozen.row(at).to_vec(), frozen.query(&[f32::from(values[slot]), 1.0, 0.5]));
                    entry = frozen.repeated(at);
                }
            }
            prop_assert!(seen.into_iter().all(|seen| seen));
        }
    }

    #[test]
    fn lifted_distances_order_by_dot_product() {
        let rows = [[1.0f32, 0.0], [3.0, 0.0], [0.0, 2.0], [2.0, 2.0]];
        let mut freezer = Freezer::new(Metric::Dot, 2, 4, &[]).unwrap();
        (0..4).for_each(|slot| freezer.add(spot(slot), &rows[slot as usize]));
        let frozen = freezer.finish();
        // All lie on one sphere: |a|^2 + |b|^2 is the same for every pair.
        assert!((frozen.distance(1, 2) - 2.0 * 9.0 + 2.0 * (5.0f32.sqrt() * 0.0)).abs() < 8.1);
        assert_eq!(frozen.distance(3, 3), 0.0);
    }

    #[test]
    fn a_common_offset_costs_an_l2_bank_no_precision_and_drift_is_one_for_what_stays() {
        let mut freezer = Freezer::new(Metric::L2, 2, 2, &[1_000.0, 1_000.0]).unwrap();
        freezer.add(spot(0), &[1_000.25, 1_000.0]);
        freezer.add(spot(1), &[1_000.5, 1_000.0]);
        let frozen = freezer.finish();
        assert!((frozen.distance(0, 1) - 0.0625).abs() < 1e-6);
        let mut scratch = Vec::new();
        assert_eq!(frozen.similarity(0, &[1_000.25, 1_000.0], &mut scratch), 1.0);
        assert!(frozen.similarity(0, &[999.75, 1_000.0], &mut scratch) < -0.99);
    }
}
