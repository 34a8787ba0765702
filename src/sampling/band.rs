//! Draws from between two shares of an anchor's own scores.

use super::dense::Column;
use super::nearest::ranked_at;
use super::permutation::Permutation;
use crate::bank::Bank;
use crate::index::Ranked;
use crate::model::{self, Stream};

/// What was drawn of a column, and the band.
#[derive(Debug, Default)]
pub(super) struct Drawn {
    /// Places in the column.
    pub(super) picks: Vec<usize>,
    pub(super) band: Option<Edges>,
}

/// The entries of a band's first and last rank, and how many there are from one to the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edges {
    lowest: Ranked,
    highest: Ranked,
    pub(super) len: usize,
}

impl Edges {
    /// True if an entry lies between them.
    pub(super) fn hold(&self, entry: &Ranked) -> bool {
        self.highest <= *entry && *entry <= self.lowest
    }
}

/// Draws k of the band's entries, all equally likely, from a column that was counted in `bins`.
pub(super) fn draw(
    bank: &Bank,
    (bins, column): (&Bins, &Column<'_>),
    band: &model::Band,
    k: usize,
    stream: &mut Stream,
) -> Drawn {
    let ranks = band.ranks(bins.entries);
    let edge = |rank: usize| bins.of_rank(rank).map(|(bin, below)| Edge { bin, from_the_best: below - rank - 1 });
    let Some((low, high)) = edge(ranks.start).zip(edge(ranks.end.saturating_sub(1))) else { return Drawn::default() };
    let (mut held, mut near) = (Vec::with_capacity(ranks.len()), Vec::new());
    for (index, &score) in column.scores.iter().enumerate() {
        // Not so of what is no number.
        let step = bins.step(score);
        if step >= low.bin as f32 && step < (high.bin + 1) as f32 {
            if step >= (low.bin + 1) as f32 && step < high.bin as f32 {
                held.push(index as u32);
            } else {
                near.push((index as u32, ranked(bank, column, index)));
            }
        }
    }
    let find = |edge: Edge| {
        let in_bin = |(_, entry): &&(u32, Ranked)| bins.bin(entry.score) == edge.bin;
        let mut entries: Vec<Ranked> = near.iter().filter(in_bin).map(|(_, entry)| *entry).collect();
        (edge.from_the_best < entries.len()).then(|| *entries.select_nth_unstable(edge.from_the_best).1)
    };
    let Some((lowest, highest)) = find(low).zip(find(high)) else { return Drawn::default() };
    let edges = Edges { lowest, highest, len: ranks.len() };
    held.extend(near.iter().filter(|(_, entry)| edges.hold(entry)).map(|(index, _)| *index));
    let at = |place: usize| held.get(place).map(|&index| index as usize);
    let picks = if band.replace {
        (0..k).filter_map(|_| at(stream.below(held.len() as u64) as usize)).collect()
    } else {
        Permutation::new(held.len(), stream).take(k).filter_map(at).collect()
    };
    Drawn { picks, band: Some(edges) }
}

/// Natural log of the probability that `entry` would have if it were one of the column's; minus infinity outside the band.
pub(super) fn log_q_beside(bank: &Bank, (bins, column): (&Bins, &Column<'_>), band: &model::Band, entry: &Ranked) -> f64 {
    let below =
        |(index, score): (usize, &f32)| *score < entry.score || *score == entry.score && ranked(bank, column, index) > *entry;
    let rank = column.scores.iter().enumerate().filter(|&scored| below(scored)).count();
    let ranks = band.ranks(bins.entries + 1);
    if ranks.contains(&rank) { -libm::log(ranks.len() as f64) } else { f64::NEG_INFINITY }
}

/// Where an edge lies.
#[derive(Debug, Clone, Copy)]
struct Edge {
    bin: usize,
    /// How many entries of its bin rank before it.
    from_the_best: usize,
}

/// The entry at a place of the column, as rankings order it.
pub(super) fn ranked(bank: &Bank, column: &Column<'_>, index: usize) -> Ranked {
    ranked_at(bank, column.layout.place(index), column.scores[index])
}

/// Scores counted in steps between the smallest and the largest.
#[derive(Debug)]
pub(super) struct Bins {
    smallest: f32,
    per_unit: f32,
    counts: Vec<u32>,
    entries: usize,
}

const BINS: usize = 4_096;

impl Bins {
    pub(super) fn new(scores: &[f32]) -> Self {
        let (mut smallest, mut largest) = (f32::INFINITY, f32::NEG_INFINITY);
        for &score in scores {
            smallest = if score < smallest { score } else { smallest };
            largest = if score > largest { score } else { largest };
        }
        let per_unit = (BINS - 1) as f32 / (largest - smallest);
        // Scores that are all the same, or nearly, share a bin.
        let per_unit = if per_unit.is_finite() { per_unit } else { 0.0 };
        let mut bins = Self { smallest, per_unit, counts: vec![0; BINS], entries: 0 };
        for &score in scores.iter().filter(|score| !score.is_nan()) {
            let bin = bins.bin(score);
            bins.counts[bin] += 1;
            bins.entries += 1;
        }
        bins
    }

    /// Rises with the score.
    fn step(&self, score: f32) -> f32 {
        (score - self.smallest) * self.per_unit
    }

    fn bin(&self, score: f32) -> usize {
        (self.step(score) as i32 as usize).min(BINS - 1)
    }

    /// The bin of an ascending rank, and the entries up to its end.
    fn of_rank(&self, rank: usize) -> Option<(usize, usize)> {
        let mut below = 0;
        let bin = self.counts.iter().position(|&count| {
            below += count as usize;
            below > rank
        })?;
        Some((bin, below))
    }
}
