//! Draws by exp(beta * s) over everything that is eligible.

use std::collections::BinaryHeap;

use super::dense::Column;
use super::partition::Partition;
use crate::bank::Bank;
use crate::kernels::exp::BLOCK;
use crate::model::{Noise, Stream};

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
/// on where entries lie.
pub(super) fn without_replacement(
    bank: &Bank,
    (partition, column): (&Partition, &Column<'_>),
    k: usize,
    noise: Noise,
) -> Drawn {
    let Some(total) = partition.total() else {
        return Drawn { log_partition: f64::NEG_INFINITY, kappa: Some(f64::NEG_INFINITY), ..Drawn::default() };
    };
    let log_partition = total.log();
    let mut first = arrivals(bank, (partition, column), k, noise);
    // Kool, van Hoof and Welling 2019: of arrival times -log_q - Gumbel noise the first k are k draws without replacement.
    let next = if first.len() > k { first.pop() } else { None };
    let kappa = next.map_or(f64::NEG_INFINITY, |next| -next.log_time - log_partition);
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

/// The k + 1 entries of the column that come first, in that order.
fn arrivals(bank: &Bank, (partition, column): (&Partition, &Column<'_>), k: usize, noise: Noise) -> Vec<Arrival> {
    let mut first: BinaryHeap<Arrival> = BinaryHeap::new();
    for (block, scores) in column.scores.as_chunks::<BLOCK>().0.iter().enumerate() {
        let Some((exps, logit)) = partition.block(block, scores) else { continue };
        // An entry comes before the last of those that are first so far if its exponential variate is below this times its term.
        let last = first.peek().filter(|_| first.len() > k).map_or(f64::INFINITY, |last| last.log_time);
        let mut bar = libm::exp(last + logit) * NEARLY;
        let (place, columns) = (column.layout.place(block * BLOCK), bank.columns(column.layout.place(block * BLOCK)));
        for (at, (&score, &exp)) in scores.iter().zip(&exps).enumerate().filter(|(_, (score, _))| !score.is_nan()) {
            let stamp = columns.occupied_at(place.slot + at as u32);
            let wait = noise.of(stamp);
            // Where a term is too small to be told from 0, and the bar is high, only the logarithms tell.
            if wait.floor() > bar * f64::from(exp) && (exp > 0.0 || bar < HIGH) {
                continue;
            }
            let log_time = libm::log(wait.value()) - partition.logit(score);
            let arrival = Arrival { log_time, stamp, index: block * BLOCK + at };
            if first.len() <= k {
                first.push(arrival);
            } else if let Some(mut last) = first.peek_mut()
                && arrival < *last
            {
                *last = arrival;
            }
            if first.len() > k {
                bar = first.peek().map_or(bar, |last| libm::exp(last.log_time + logit) * NEARLY);
            }
        }
    }
    first.into_sorted_vec()
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
