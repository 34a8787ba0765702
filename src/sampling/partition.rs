//! Sums of exp(beta * s) over a column of scores.

use crate::kernels::exp::{self, BLOCK};
use crate::model::Stream;

/// The sum of each block, relative to its largest term.
#[derive(Debug)]
pub(super) struct Partition {
    beta: f32,
    /// The score of the largest term, NaN where a block has none; a whole number of blocks again.
    tops: Vec<f32>,
    sums: Vec<f64>,
}

/// The sums of all blocks, brought together.
pub(super) struct Total {
    /// beta * s of the largest term of all.
    largest: f64,
    /// The sum up to each block and with it, relative to the largest term.
    ends: Vec<f64>,
}

impl Partition {
    pub(super) fn new(beta: f32, scores: &[f32]) -> Self {
        let blocks = scores.as_chunks::<BLOCK>().0;
        let len = blocks.len().next_multiple_of(BLOCK);
        let mut partition = Self { beta, tops: vec![f32::NAN; len], sums: vec![0.0; len] };
        (0..blocks.len()).for_each(|block| partition.sum(block, &blocks[block]));
        partition
    }

    /// Brings the sums up to date with a column of which these places, in their order, have changed.
    pub(super) fn mend(&mut self, scores: &[f32], changed: &[usize]) {
        let blocks = scores.as_chunks::<BLOCK>().0;
        let of_one_block = changed.chunk_by(|a, b| a / BLOCK == b / BLOCK).filter_map(|places| places.first());
        of_one_block.for_each(|place| self.sum(place / BLOCK, &blocks[place / BLOCK]));
    }

    fn sum(&mut self, block: usize, scores: &[f32; BLOCK]) {
        (self.tops[block], self.sums[block]) = exp::sum(self.beta, scores).unwrap_or((f32::NAN, 0.0));
    }

    /// The exponentials of a block relative to its largest term, and beta * s of that; `None` if it has no term.
    pub(super) fn block(&self, block: usize, scores: &[f32; BLOCK]) -> Option<([f32; BLOCK], f64)> {
        let top = self.tops[block];
        (!top.is_nan()).then(|| (exp::exps(self.beta, top, scores), self.logit(top)))
    }

    pub(super) fn logit(&self, score: f32) -> f64 {
        f64::from(self.beta) * f64::from(score)
    }

    /// The sums of all blocks; `None` if there is no term.
    pub(super) fn total(&self) -> Option<Total> {
        let groups = || self.tops.as_chunks::<BLOCK>().0.iter();
        let top = groups().filter_map(|tops| exp::sum(self.beta, tops)).map(|(top, _)| top);
        let top = top.reduce(|a, b| if self.logit(b) > self.logit(a) { b } else { a })?;
        let mut end = 0.0;
        let mut ends = Vec::with_capacity(self.sums.len());
        for (tops, sums) in groups().zip(self.sums.as_chunks::<BLOCK>().0) {
            for (relative, sum) in exp::exps(self.beta, top, tops).iter().zip(sums) {
                end += f64::from(*relative) * sum;
                ends.push(end);
            }
        }
        Some(Total { largest: self.logit(top), ends })
    }

    /// Draws one place of the column, by its term.
    pub(super) fn draw(&self, total: &Total, scores: &[f32], stream: &mut Stream) -> usize {
        let block = at(&total.ends, stream.unit());
        let Some((exps, _)) = self.block(block, &scores.as_chunks::<BLOCK>().0[block]) else { return block * BLOCK };
        let mut end = 0.0;
        let ends = exps.map(|exp| {
            end += f64::from(exp);
            end
        });
        block * BLOCK + at(&ends, stream.unit())
    }
}

/// The item at `share`, 0 to below 1, of the way from the first to the last, of items that end at `ends`; never one that is empty.
fn at(ends: &[f64], share: f64) -> usize {
    let last = ends.last().copied().unwrap_or_default();
    // Rounding may lead to the very end, and behind the last item that isn't empty.
    let point = (share * last).min(last.next_down());
    ends.partition_point(|&end| end <= point)
}

impl Total {
    /// Natural log of the sum.
    pub(super) fn log(&self) -> f64 {
        self.largest + libm::log(self.ends.last().copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Partition};
    use crate::model::Seed;

    #[test]
    fn the_sum_is_that_of_all_terms_and_only_terms_are_drawn() {
        let mut stream = Seed(5).stream(0, 0);
        for beta in [3.0f32, -50.0, 0.0, 1e30] {
            let mut scores: Vec<f32> = (0..70 * BLOCK).map(|_| stream.unit() as f32 * 2.0 - 1.0).collect();
            scores[..5 * BLOCK].fill(f32::NAN);
            scores.iter_mut().step_by(3).for_each(|score| *score = f32::NAN);
            let partition = Partition::new(beta, &scores);
            let total = partition.total().unwrap();
            let logits = || scores.iter().filter(|score| !score.is_nan()).map(|score| f64::from(beta) * f64::from(*score));
            let top = logits().fold(f64::NEG_INFINITY, f64::max);
            let expected = top + logits().map(|logit| (logit - top).exp()).sum::<f64>().ln();
            assert!((total.log() - expected).abs() <= 1e-6 + 1e-15 * expected.abs(), "{beta}: {} {expected}", total.log());
            for _ in 0..2_000 {
                let drawn = partition.draw(&total, &scores, &mut stream);
                assert!(!scores[drawn].is_nan());
                assert!(beta < 1e30 || f64::from(beta) * f64::from(scores[drawn]) == top);
            }
        }
        assert!(Partition::new(1.0, &[f32::NAN; 2 * BLOCK]).total().is_none());
    }
}
