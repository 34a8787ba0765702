//! Draws by exp(beta * s) over everything that is eligible.

use std::collections::BinaryHeap;
use std::ops::Range;

use super::dense::{Column, Layout};
use super::partition::Partition;
use crate::bank::{Bank, Place};
use crate::kernels::exp::BLOCK;
use crate::model::{Exponential, Noise, Stream};

/// What was drawn of a column.
#[derive(Debug, Default)]
pub(super) struct Drawn {
    /// Places in the column.
    pub(super) picks: Vec<usize>,
    /// ln sum exp(beta * s).
    pub(super) log_partition: f64,
    /// Without replacement: the (k+1)th perturbed log-probability.
    pub(super) kappa: Option<f64>,
}

/// Draws k of a column whose sums are `partition`, each time one by its term.
pub(super) fn with_replacement(partition: &Partition, column: &Column<'_>, k: usize, stream: &mut Stream) -> Drawn {
    let Some(total) = partition.total() else { return Drawn { log_partition: f64::NEG_INFINITY, ..Drawn::default() } };
    let picks = (0..k).map(|_| partition.draw(&total, column.scores, stream)).collect();
    Drawn { picks, log_partition: total.log(), kappa: None }
}

/// Draws k different ones of a column whose sums are `partition`, by noise that each entry has of its own: what is drawn doesn't depend
/// on where entries lie. `found` is what the search for it found.
pub(super) fn without_replacement(
    bank: &Bank,
    (partition, column): (&Partition, &Column<'_>),
    (k, noise): (usize, Noise),
    found: &Arrivals,
) -> Drawn {
    let Some(total) = partition.total() else {
        return Drawn { log_partition: f64::NEG_INFINITY, kappa: Some(f64::NEG_INFINITY), ..Drawn::default() };
    };
    let log_partition = total.log();
    let mut first = found.settled(bank, (partition, column), (k, noise));
    // Kool, van Hoof and Welling 2019: of arrival times -log_q - Gumbel noise the first k are k draws without replacement.
    let kappa = first.get(k).map_or(f64::NEG_INFINITY, |next| -next.log_time - log_partition);
    first.truncate(k);
    Drawn { picks: first.into_iter().map(|arrival| arrival.index).collect(), log_partition, kappa: Some(kappa) }
}

/// Terms are known but for a millionth.
const NEARLY: f64 = 1.0 + 1e-5;

/// Below it, a bar times a term that is taken for 0 is below every variate.
const HIGH: f64 = 1e20;

/// When an entry comes: after an exponential time of rate exp(beta * s).
#[derive(Debug, Clone, Copy)]
struct Arrival {
    log_time: f64,
    stamp: u64,
    index: usize,
}

/// The entries of a column that come first.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// As many as are kept.
    depth: usize,
    /// The last on top.
    first: BinaryHeap<Arrival>,
}

impl Arrivals {
    /// None yet of the k + 1 that are wanted, and of spares for entries that writes take away.
    pub(super) fn new(k: usize) -> Self {
        Self { depth: k + k / 8 + 9, first: BinaryHeap::new() }
    }

    /// Looks at some blocks of a column.
    pub(super) fn look(
        &mut self,
        bank: &Bank,
        (partition, layout, scores): (&Partition, &Layout, &[f32]),
        blocks: Range<usize>,
        noise: Noise,
    ) {
        for (block, scores) in scores.as_chunks::<BLOCK>().0.iter().enumerate().take(blocks.end).skip(blocks.start) {
            let Some((exps, logit)) = partition.block(block, scores) else { continue };
            let Place { shard, slot } = layout.place(block * BLOCK);
            let columns = bank.shards()[shard as usize].columns();
            let mut bar = self.bar(logit);
            for (at, &exp) in exps.iter().enumerate() {
                let stamp = columns.stamp(slot as usize + at);
                let wait = noise.of(stamp);
                // Where a term is too small to be told from 0, and the bar is high, only the logarithms tell.
                if wait.floor() > bar * f64::from(exp) && (exp > 0.0 || bar < HIGH) || scores[at].is_nan() {
                    continue;
                }
                self.offer(Arrival::new(partition, (block * BLOCK + at, scores[at]), (stamp, wait)));
                bar = self.bar(logit);
            }
        }
    }

    /// What an entry's exponential variate, over its term's share of the block's largest, must be below to come before the last.
    fn bar(&self, logit: f64) -> f64 {
        let last = self.first.peek().filter(|_| self.first.len() >= self.depth);
        last.map_or(f64::INFINITY, |last| libm::exp(last.log_time + logit) * NEARLY)
    }

    fn offer(&mut self, arrival: Arrival) {
        if self.first.len() < self.depth {
            self.first.push(arrival);
        } else if let Some(mut last) = self.first.peek_mut()
            && arrival < *last
        {
            *last = arrival;
        }
    }

    /// The k + 1 entries that come first of the column as it stands now.
    fn settled(&self, bank: &Bank, (partition, column): (&Partition, &Column<'_>), (k, noise): (usize, Noise)) -> Vec<Arrival> {
        let first = column.changed.as_ref().and_then(|changed| self.patched(bank, (partition, column), changed, (k, noise)));
        first.unwrap_or_else(|| {
            let mut anew = Self { depth: k + 1, first: BinaryHeap::new() };
            anew.look(bank, (partition, column.layout, column.scores), 0..usize::MAX, noise);
            anew.first.into_sorted_vec()
        })
    }

    /// The same where only these places of the column have changed; `None` if that can't be told.
    fn patched(
        &self,
        bank: &Bank,
        (partition, column): (&Partition, &Column<'_>),
        changed: &[usize],
        (k, noise): (usize, Noise),
    ) -> Option<Vec<Arrival>> {
        let mut first: Vec<Arrival> =
            self.first.iter().filter(|arrival| changed.binary_search(&arrival.index).is_err()).copied().collect();
        let fresh = |&index: &usize| {
            let (score, place) = (column.scores[index], column.layout.place(index));
            let stamp = bank.columns(place).occupied_at(place.slot);
            (!score.is_nan()).then(|| Arrival::new(partition, (index, score), (stamp, noise.of(stamp))))
        };
        first.extend(changed.iter().filter_map(fresh));
        first.sort_unstable();
        first.truncate(k + 1);
        // Entries that come after the last that was kept were not.
        let known = |last: &Arrival| first.len() > k && first.last().is_some_and(|needed| needed <= last);
        let complete = self.first.len() < self.depth || self.first.peek().is_some_and(known);
        (self.depth > 0 && complete).then_some(first)
    }
}

impl Arrival {
    fn new(partition: &Partition, (index, score): (usize, f32), (stamp, wait): (u64, Exponential)) -> Self {
        Self { log_time: libm::log(wait.value()) - partition.logit(score), stamp, index }
    }
}

impl Ord for Arrival {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.log_time.total_cmp(&other.log_time).then(self.stamp.cmp(&other.stamp))
    }
}

impl PartialOrd for Arrival {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Arrival {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Arrival {}
