//! Draws that look at the score of every entry: by softmax, from a band of the ranks, and the nearest to several views.

use super::SampleError;
use super::anchors::Anchor;
use super::band::{Bins, ranked};
use super::dense::{Column, Dense};
use super::eligibility::Eligibility;
use super::nearest::{chosen, ranked_at};
use super::observed::Observed;
use super::odds::Odds;
use super::partition::Partition;
use super::picked::Picked;
use super::softmax::Arrivals;
use super::{band, softmax};
use crate::bank::{Bank, Place};
use crate::index::{Ranked, Ranking};
use crate::kernels::dense::Precision;
use crate::kernels::exp::BLOCK;
use crate::model::{Band, Nearest, Noise, Reason, ReasonCounts, ScoreRange, ScoreRules, Softmax, Stream};

/// Such a draw at work on a block of anchors.
pub(super) struct Whole {
    kind: Kind,
    dense: Option<Dense>,
    /// What each column comes to.
    sums: Vec<Sums>,
}

/// What a column of scores comes to.
enum Sums {
    Softmax(Softmax, Partition, Arrivals),
    Band(Band, Bins),
    Nearest(Nearest),
}

impl Sums {
    /// Brings it up to date with a column of which these places have changed.
    fn mend(&mut self, scores: &[f32], changed: &[usize]) {
        match self {
            Self::Softmax(_, partition, _) => partition.mend(scores, changed),
            Self::Band(_, bins) if !changed.is_empty() => *bins = Bins::new(scores),
            Self::Band(..) | Self::Nearest(_) => {}
        }
    }
}

/// Blocks of scores in one hold of the bank's lock.
const BLOCKS_PER_HOLD: usize = 128;

/// What is made of the scores.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Softmax(Softmax),
    Band(Band),
    Nearest(Nearest),
}

impl Kind {
    fn rules(&self) -> &ScoreRules {
        match self {
            Self::Softmax(softmax) => &softmax.rules,
            Self::Band(band) => &band.rules,
            // With `candidates` the rules see only the raw top.
            Self::Nearest(nearest) if nearest.candidates.is_some() => &ScoreRules::NONE,
            Self::Nearest(nearest) => &nearest.rules,
        }
    }

    fn sums(&self, scores: &[f32]) -> Sums {
        match self {
            Self::Softmax(softmax) => Sums::Softmax(*softmax, Partition::new(softmax.beta, scores), Arrivals::default()),
            Self::Band(band) => Sums::Band(*band, Bins::new(scores)),
            Self::Nearest(nearest) => Sums::Nearest(*nearest),
        }
    }

    /// Ranks and rules are told by the last bit of a score; sums are not.
    fn precision(&self) -> Precision {
        match self {
            Self::Softmax(softmax) if softmax.rules.is_empty() => Precision::Fused,
            Self::Softmax(_) | Self::Band(_) | Self::Nearest(_) => Precision::Exact,
        }
    }
}

impl Whole {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, dense: None, sums: Vec::new() }
    }

    /// True if the block's anchor number `at` was searched for.
    pub(super) fn covers(&self, at: usize) -> bool {
        self.dense.as_ref().is_some_and(|dense| dense.covers(at))
    }

    /// True if what was found for the anchors is no more good enough to start from.
    pub(super) fn is_stale(&self, bank: &Bank) -> bool {
        self.dense.as_ref().is_some_and(|dense| dense.is_stale(bank))
    }

    /// Scores entries for the block's `anchors` from number `first` on, or the first few of them.
    pub(super) fn search(
        &mut self,
        observed: &mut Observed<'_>,
        (anchors, first): (&[Anchor], usize),
        eligibility: &Eligibility,
        (k, noise): (usize, &dyn Fn(&Anchor) -> Noise),
        rejections: &mut ReasonCounts,
        wanted: &dyn Fn() -> bool,
    ) -> Result<(), SampleError> {
        // The memory of the search before is needed for this one.
        self.dense = None;
        let how = (self.kind.rules(), self.kind.precision());
        let dense = Dense::search(observed, (anchors, first), eligibility, how, rejections, wanted)?;
        self.sums = dense.columns().map(|scores| self.kind.sums(scores)).collect();
        let anchors = anchors.get(first..).unwrap_or_default();
        for ((sums, scores), anchor) in self.sums.iter_mut().zip(dense.columns()).zip(anchors) {
            let Sums::Softmax(Softmax { replace: false, .. }, partition, arrivals) = sums else { break };
            *arrivals = Arrivals::new(k);
            for start in (0..scores.len() / BLOCK).step_by(BLOCKS_PER_HOLD) {
                if !wanted() {
                    return Err(SampleError::Unwanted);
                }
                let bank = observed.read()?;
                let blocks = start..start + BLOCKS_PER_HOLD;
                arrivals.look(&bank, (partition, dense.layout(), scores), blocks, noise(anchor));
            }
        }
        self.dense = Some(dense);
        Ok(())
    }

    /// The closing hold of the block's anchor number `at`, which is another than was searched for if it `moved`.
    pub(super) fn pick(
        &mut self,
        bank: &Bank,
        (anchor, at, moved): (&Anchor, usize, bool),
        eligibility: &mut Eligibility,
        (k, noise): (usize, Noise),
        (positives, stream): (&[Option<Place>], &mut Stream),
    ) -> Picked {
        let n = eligibility.count(anchor, bank);
        let dense = self.dense.get_or_insert_with(|| Dense::none(self.kind.precision()));
        let first = dense.first();
        let column = dense.settle(bank, (anchor, at, moved), eligibility, self.kind.rules());
        let ruled = !self.kind.rules().is_empty();
        let n_scored = if ruled { column.scores.iter().filter(|score| !score.is_nan()).count() } else { n };
        let sums = match (self.sums.get_mut(at.wrapping_sub(first)), &column.changed) {
            (Some(sums), Some(changed)) => {
                sums.mend(column.scores, changed);
                sums
            }
            _ => &mut self.kind.sums(column.scores),
        };
        let sums = &*sums;
        let (picks, picked) = match sums {
            Sums::Softmax(softmax, partition, arrivals) => {
                by_softmax(bank, softmax, (partition, arrivals, &column), (k, noise), (anchor, stream))
            }
            Sums::Band(band, bins) => by_rank(bank, band, (bins, &column), k, stream),
            Sums::Nearest(nearest) => {
                let (ranking, counted) = top(bank, &column, nearest, nearest.rules.range(anchor.positive));
                return chosen(bank, anchor, nearest, (k, n), (ranking, counted), (positives, stream));
            }
        };
        let log_q = |place: Place| match sums {
            Sums::Band(band, bins) => {
                let entry = anchor.score(bank, place).map(|score| ranked_at(bank, place, score));
                entry.map_or(f64::NEG_INFINITY, |entry| band::log_q_beside(bank, (bins, &column), band, &entry))
            }
            _ => picked.picked.odds.log_q_beside(bank, anchor, eligibility, place),
        };
        let positive_log_q = positives.iter().map(|place| place.map_or(f64::NEG_INFINITY, &log_q) as f32).collect();
        let places: Vec<Place> = picks.into_iter().map(|index| column.layout.place(index)).collect();
        Picked {
            scores: places.iter().filter_map(|&place| anchor.score(bank, place)).collect(),
            n: Some(n),
            n_scored: ruled.then_some(n_scored),
            positive_log_q,
            shortfalls: shortfalls((k, picked.replaces), (n, n_scored), places.len()),
            places,
            ..picked.picked
        }
    }
}

/// The best of a column, as deep as the draw has to know them, and how many of it are in `range`.
fn top(bank: &Bank, column: &Column<'_>, nearest: &Nearest, range: ScoreRange) -> (Vec<Ranked>, usize) {
    let (mut ranking, mut counted) = (Ranking::new(nearest.depth()), 0);
    for (index, &score) in column.scores.iter().enumerate() {
        counted += usize::from(nearest.count_exact && range.keeps(score));
        // Not so of what is no number.
        if score >= ranking.bar() {
            ranking.offer(ranked(bank, column, index));
        }
    }
    (ranking.into_sorted(), counted)
}

/// What a draw tells beside its places.
struct Told {
    picked: Picked,
    replaces: bool,
}

fn by_softmax(
    bank: &Bank,
    softmax: &Softmax,
    (partition, arrivals, column): (&Partition, &Arrivals, &Column<'_>),
    (k, noise): (usize, Noise),
    (anchor, stream): (&Anchor, &mut Stream),
) -> (Vec<usize>, Told) {
    let drawn = if softmax.replace {
        softmax::with_replacement(partition, column, k, stream)
    } else {
        softmax::without_replacement(bank, (partition, column), (k, noise), arrivals)
    };
    let log_partition = drawn.log_partition;
    let log_q = |&index: &usize| (partition.logit(column.scores[index]) - log_partition) as f32;
    let range = softmax.rules.range(anchor.positive);
    let picked = Picked {
        log_q: drawn.picks.iter().map(log_q).collect(),
        log_partition: Some(log_partition as f32),
        kappa: drawn.kappa.map(|kappa| kappa as f32),
        odds: Odds::Softmax { beta: softmax.beta, log_partition, range },
        ..Picked::default()
    };
    (drawn.picks, Told { picked, replaces: softmax.replace })
}

fn by_rank(
    bank: &Bank,
    band: &Band,
    (bins, column): (&Bins, &Column<'_>),
    k: usize,
    stream: &mut Stream,
) -> (Vec<usize>, Told) {
    let band::Drawn { picks, band: edges } = band::draw(bank, (bins, column), band, k, stream);
    let n_band = edges.map_or(0, |edges| edges.len);
    let picked = Picked {
        log_q: vec![-libm::log(n_band as f64) as f32; picks.len()],
        n_band: Some(n_band),
        odds: edges.map_or(Odds::None, Odds::Band),
        ..Picked::default()
    };
    (picks, Told { picked, replaces: band.replace })
}

/// Why `served` of k: too few of the n are eligible, then too few in the score rules, then the band holds fewer.
fn shortfalls((k, replaces): (usize, bool), (n, n_scored): (usize, usize), served: usize) -> ReasonCounts {
    let mut counts = ReasonCounts::default();
    if served < k {
        let most = |n: usize| if replaces && n > 0 { k } else { k.min(n) };
        let (eligible, kept) = (most(n), most(n_scored));
        counts.add(Reason::TooFew, (k - eligible) as u64);
        counts.add(Reason::Score, (eligible - kept) as u64);
        counts.add(Reason::Window, (kept - served) as u64);
    }
    counts
}
