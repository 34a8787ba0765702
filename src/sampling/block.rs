//! One block of anchors, all draws that each of them makes for itself, on one thread.

use std::ops::Range;

use super::SampleError;
use super::anchors::{Anchor, resolve};
use super::drawing::Drawing;
use super::mixture::Mixture;
use super::observed::Observed;
use super::part::{Part, PartRows};
use super::picked::Picked;
use super::source::Source;
use crate::bank::Bank;
use crate::model::{SampleQuery, Scope};
use crate::rows::Recycler;

/// Anchors in a block: four panels of the scan.
pub const BLOCK: usize = 64;

/// How often a block is searched anew because writers were faster than its search; after that, anchors whose ranking can't be mended
/// are searched for in their closing holds.
const SEARCHES_AGAIN: usize = 2;

/// A block of anchors that have been looked up; what their draws need may be searched for with other requests', by
/// [`search_together`](super::search_together).
pub struct Block<'a> {
    query: &'a SampleQuery,
    pub(super) observed: Observed<'a>,
    pub(super) anchors: Vec<Anchor>,
    pub(super) drawings: Vec<Option<Drawing<'a>>>,
}

/// Answers the anchors `block` of `query`, gathering rows into memory of `recycler`. Asks `wanted` between holds, and gives up
/// when it says no.
///
/// Searches first, in short holds; then each anchor has one closing hold in which all its draws are settled and gathered, so
/// that they are true of one moment.
///
/// # Errors
/// [`SampleError`]
pub fn answer_block<'a>(
    source: impl Into<Source<'a>>,
    query: &'a SampleQuery,
    block: Range<usize>,
    recycler: &Recycler,
    wanted: &dyn Fn() -> bool,
) -> Result<Part, SampleError> {
    Block::new(source, query, block)?.answer(recycler, wanted)
}

impl<'a> Block<'a> {
    /// Looks up the anchors `block` of `query`.
    ///
    /// # Errors
    /// [`SampleError`]
    pub fn new(source: impl Into<Source<'a>>, query: &'a SampleQuery, block: Range<usize>) -> Result<Self, SampleError> {
        let mut observed = Observed::new(source.into());
        let anchors = resolve(&mut observed, query, block)?;
        let mut drawings = Vec::with_capacity(query.draws().len());
        for (number, draw) in query.draws().iter().enumerate() {
            drawings.push((draw.scope == Scope::PerAnchor).then(|| Drawing::new(query, number, draw)));
        }
        Ok(Self { query, observed, anchors, drawings })
    }

    /// The second half of [`answer_block`].
    ///
    /// # Errors
    /// [`SampleError`]
    pub fn answer(self, recycler: &Recycler, wanted: &dyn Fn() -> bool) -> Result<Part, SampleError> {
        let Self { query, mut observed, mut anchors, mut drawings } = self;
        let mut rows = room(&mut observed, query, &drawings, anchors.len(), recycler)?;
        let mut patience = SEARCHES_AGAIN;
        let mut at = 0;
        while at < anchors.len() {
            if !wanted() {
                return Err(SampleError::Unwanted);
            }
            for drawing in drawings.iter_mut().flatten().filter(|drawing| !drawing.covers(at)) {
                drawing.search(&mut observed, (&anchors, at), wanted)?;
            }
            let bank = observed.read()?;
            let now = observed.anchor_now(&bank, query, &anchors[at]);
            let moved = now.is_some();
            if let Some(now) = now {
                anchors[at] = now;
            }
            if patience > 0 && drawings.iter().flatten().any(|drawing| drawing.is_stale(&bank, moved)) {
                // In short holds again, for all that are left, rather than one by one under the lock.
                drop(bank);
                patience -= 1;
                for drawing in drawings.iter_mut().flatten() {
                    drawing.search(&mut observed, (&anchors, at), wanted)?;
                }
                continue;
            }
            close(&bank, query, &mut drawings, &anchors[at], (at, moved), &mut rows);
            rows.check_size(&query.form())?;
            at += 1;
        }
        let draws = drawings.into_iter().map(|drawing| drawing.map(|drawing| drawing.answer)).collect();
        Ok(Part { rows, draws, seen: observed.seen()? })
    }
}

/// The closing hold of one anchor.
fn close(
    bank: &Bank,
    query: &SampleQuery,
    drawings: &mut [Option<Drawing<'_>>],
    anchor: &Anchor,
    (at, moved): (usize, bool),
    rows: &mut PartRows,
) {
    let form = query.form();
    let positives = anchor.positives(bank, query);
    let pick = |drawing: &mut Option<Drawing<'_>>| {
        drawing.as_mut().map_or_else(Picked::default, |drawing| drawing.pick(bank, anchor, (at, moved), &positives))
    };
    let picks: Vec<Picked> = drawings.iter_mut().map(pick).collect();
    if form.log_q_mix {
        let mixed = mixed(bank, anchor, drawings, &picks);
        for (drawing, log_q) in drawings.iter_mut().zip(mixed) {
            if let Some(drawing) = drawing {
                drawing.answer.log_q_mix.extend(log_q);
            }
        }
    }
    for ((number, drawing), picked) in drawings.iter_mut().enumerate().zip(&picks) {
        let Some(drawing) = drawing else { continue };
        drawing.tell(picked);
        rows.serve(bank, number, &picked.places, &mut drawing.answer);
    }
}

/// The log-probability of each draw's picks under all draws together.
fn mixed(bank: &Bank, anchor: &Anchor, drawings: &[Option<Drawing<'_>>], picks: &[Picked]) -> Vec<Vec<f32>> {
    let draws =
        drawings.iter().flatten().zip(picks).map(|(drawing, picked)| (drawing.draw.k, &drawing.eligibility, &picked.odds));
    let mixture = Mixture::new(bank, anchor, draws);
    picks.iter().map(|picked| picked.places.iter().map(|&place| mixture.log_q(place)).collect()).collect()
}

/// Room for what the draws may serve.
fn room(
    observed: &mut Observed<'_>,
    query: &SampleQuery,
    drawings: &[Option<Drawing<'_>>],
    anchors: usize,
    recycler: &Recycler,
) -> Result<PartRows, SampleError> {
    let of_draw = |drawing: &Option<Drawing<'_>>| drawing.as_ref().map_or(0, |drawing| drawing.draw.k.saturating_mul(anchors));
    let expected: Vec<usize> = drawings.iter().map(of_draw).collect();
    let bank = observed.read()?;
    Ok(PartRows::new(&query.form(), &expected, bank.entries(), bank.spec(), recycler))
}
