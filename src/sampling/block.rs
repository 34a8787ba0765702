//! One block of anchors, all draws, on one thread.

use std::ops::Range;

use super::SampleError;
use super::anchors::{Anchor, resolve};
use super::eligibility::Eligibility;
use super::observed::Observed;
use super::pooled::Pooled;
use super::{nearest, uniform};
use crate::bank::{Bank, Place};
use crate::kernels::score::score;
use crate::model::{BlockAnswer, Choose, Draw, DrawAnswer, Nearest, Plan, Reason, ReasonCounts, SampleQuery, Strategy};
use crate::rows::Shared;

/// Anchors in a block: four panels of the scan.
pub const BLOCK: usize = 64;

/// Answers the anchors `block` of `query`. Asks `wanted` between holds, and gives up when it says no.
///
/// # Errors
/// [`SampleError`]
pub fn answer_block(
    bank: &Shared<Bank>,
    query: &SampleQuery,
    block: Range<usize>,
    wanted: &dyn Fn() -> bool,
) -> Result<BlockAnswer, SampleError> {
    let mut observed = Observed::new(bank);
    let anchors = resolve(&mut observed, query, block)?;
    let mut work = Work { observed, query, anchors, pooled: Pooled::new(query.columns()), wanted };
    let mut draws = Vec::with_capacity(query.draws().len());
    for (number, draw) in query.draws().iter().enumerate() {
        draws.push(match &draw.strategy {
            Strategy::Uniform { replace } => work.uniform(number, draw, *replace)?,
            Strategy::Nearest(nearest) => work.nearest(number, draw, nearest)?,
        });
    }
    let Work { observed, pooled, .. } = work;
    let (sequence_first, sequence_last) = observed.sequences.unwrap_or_default();
    Ok(BlockAnswer {
        rows: pooled.rows,
        identities: pooled.identities,
        draws,
        sequence_first,
        sequence_last,
        revisions: observed.revisions,
        step: observed.step,
        between: observed.between,
    })
}

struct Work<'a> {
    observed: Observed<'a>,
    query: &'a SampleQuery,
    anchors: Vec<Anchor>,
    pooled: Pooled,
    wanted: &'a dyn Fn() -> bool,
}

impl Work<'_> {
    fn uniform(&mut self, number: usize, draw: &Draw, replace: bool) -> Result<DrawAnswer, SampleError> {
        let columns = self.query.columns();
        let mut eligibility = Eligibility::new(&draw.filters, self.query.step());
        let mut answer = empty(Plan::Roster, self.anchors.len(), replace);
        for anchor in &mut self.anchors {
            if !(self.wanted)() {
                return Err(SampleError::Unwanted);
            }
            let bank = self.observed.read()?;
            if let Some(now) = self.observed.anchor_now(&bank, self.query, anchor) {
                *anchor = now;
            }
            let mut stream = self.query.seed().stream(number, anchor.number);
            let asked = (draw.k, replace);
            let drawn = uniform::draw(&bank, &mut eligibility, anchor, asked, &mut stream, &mut answer.rejections);
            answer.shortfalls.add(Reason::TooFew, (draw.k - drawn.places.len()) as u64);
            answer.plan = answer.plan.max(drawn.plan);
            answer.n.push(drawn.n as u32);
            let log_q = -libm::log(drawn.n as f64) as f32;
            answer.log_q.extend(drawn.places.iter().filter(|_| columns.log_q).map(|_| log_q));
            let metric = bank.spec().metric();
            let scored = |place: &Place| {
                let row = anchor.row.as_deref().filter(|_| columns.scores);
                row.map(|row| score(metric, row, bank.padded_row(*place)))
            };
            let picks = drawn.places.iter().map(|place| (*place, scored(place)));
            push_picks(&mut answer, &mut self.pooled, &bank, picks);
        }
        Ok(answer)
    }

    fn nearest(&mut self, number: usize, draw: &Draw, nearest: &Nearest) -> Result<DrawAnswer, SampleError> {
        let columns = self.query.columns();
        let mut eligibility = Eligibility::new(&draw.filters, self.query.step());
        let replace = matches!(nearest.choose, Choose::Softmax { replace: true, .. });
        let mut answer = empty(Plan::Scan, self.anchors.len(), replace);
        let (rankings, began) =
            nearest::search(&mut self.observed, &self.anchors, &eligibility, nearest, &mut answer.rejections, self.wanted)?;
        for (anchor, ranking) in self.anchors.iter_mut().zip(rankings) {
            if !(self.wanted)() {
                return Err(SampleError::Unwanted);
            }
            let bank = self.observed.read()?;
            let mut ranked = Some((ranking, began));
            if let Some(now) = self.observed.anchor_now(&bank, self.query, anchor) {
                // What was ranked was ranked for another anchor.
                (*anchor, ranked) = (now, None);
            }
            let mut stream = self.query.seed().stream(number, anchor.number);
            let served = nearest::settle(&bank, anchor, &mut eligibility, nearest, draw.k, ranked, &mut stream);
            answer.shortfalls.merge(&served.shortfalls);
            if nearest.rules.is_empty() {
                answer.n.push(served.n as u32);
            }
            if columns.log_q {
                answer.log_q.extend(&served.chosen.log_q);
            }
            if matches!(nearest.choose, Choose::Softmax { .. }) {
                answer.log_partition.push(served.chosen.log_partition.unwrap_or(f32::NEG_INFINITY));
                answer.kappa.extend(served.chosen.kappa);
            }
            let picks = served.picks.iter().map(|&(place, score)| (place, columns.scores.then_some(score)));
            push_picks(&mut answer, &mut self.pooled, &bank, picks);
        }
        Ok(answer)
    }
}

fn empty(plan: Plan, anchors: usize, with_replacement: bool) -> DrawAnswer {
    DrawAnswer {
        counts: Vec::with_capacity(anchors),
        indices: Vec::new(),
        scores: Vec::new(),
        log_q: Vec::new(),
        n: Vec::with_capacity(anchors),
        log_partition: Vec::new(),
        kappa: Vec::new(),
        with_replacement,
        plan,
        shortfalls: ReasonCounts::default(),
        rejections: ReasonCounts::default(),
    }
}

fn push_picks(
    answer: &mut DrawAnswer,
    pooled: &mut Pooled,
    bank: &Bank,
    picks: impl ExactSizeIterator<Item = (Place, Option<f32>)>,
) {
    answer.counts.push(picks.len() as u32);
    for (place, score) in picks {
        answer.indices.push(pooled.add(bank, place));
        answer.scores.extend(score);
    }
}
