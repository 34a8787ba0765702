//! One scan of the bank for the anchors of several small requests.

use super::SampleError;
use super::block::Block;
use super::coded_search;
use super::drawing::Drawing;
use super::joint_sieve::JointSieve;
use super::observed::Observed;
use super::route::scanned_together;
use super::search::{Searched, probe, search_depth, search_rows};
use super::source::Source;
use crate::bank::Bank;
use crate::index::{Found, Probe};
use crate::model::{Draw, Nearest, Plan, ReasonCounts, SampleQuery, Scope, Strategy, clock};

/// Anchors that are searched for together at most, each counted once for each draw of the nearest. A request of as many has a scan of its own.
pub const MOST_TOGETHER: usize = 32;

/// What a scan of all rows reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Their codes, then the rows of those that may be among the best.
    Codes,
    /// All of the rows.
    Rows,
}

impl Pass {
    /// What a scan for such a draw reads.
    pub(super) fn of(bank: &Bank, nearest: &Nearest) -> Self {
        if coded_search::pays(bank, nearest) { Self::Codes } else { Self::Rows }
    }

    /// What a scan reads that answers the query and may answer others, with the number of anchors that it is for; `None` if the query has
    /// too many or another search is better for some draw. `walks`: the bank has a graph.
    pub fn shared(bank: &Bank, walks: bool, query: &SampleQuery) -> Option<(Self, usize)> {
        let scanned = |draw: &&Draw| draw.strategy.is_scored();
        let anchors = query.anchors().count.saturating_mul(query.draws().iter().filter(scanned).count());
        if anchors == 0 || anchors >= MOST_TOGETHER || query.anchors().views.each > 1 {
            return None;
        }
        let mut pass = None;
        for draw in query.draws() {
            let filters = &draw.filters;
            let listed = !filters.only_labels.is_empty() || filters.only_same_label || filters.only_same_group;
            match &draw.strategy {
                _ if draw.scope == Scope::Shared => return None,
                Strategy::Uniform { .. } | Strategy::Weighted { .. } | Strategy::Balanced { .. } => {}
                Strategy::Nearest(nearest) if !(listed || walks && nearest.search.approximate) => {
                    let of_draw = Self::of(bank, nearest);
                    if *pass.get_or_insert(of_draw) != of_draw {
                        return None;
                    }
                }
                Strategy::Nearest(_) | Strategy::Softmax(_) | Strategy::Band(_) => return None,
            }
        }
        pass.map(|pass| (pass, anchors))
    }
}

/// A draw that takes part.
struct Seat {
    block: usize,
    draw: usize,
    /// Why it is found by a scan.
    reason: String,
}

/// Searches the bank once for the anchors of all these blocks of it, for those of their draws that a scan by `pass` answers, and says how
/// many blocks have such draws; fewer than two are left alone. Whatever was not searched for each block searches for itself when it is
/// answered, and so does each that is answered after this has failed. What is found is the same either way. Asks `wanted` between
/// holds of the bank's lock.
///
/// # Errors
/// [`SampleError`]
pub fn search_together(
    source: Source<'_>,
    blocks: &mut [&mut Block<'_>],
    pass: Pass,
    wanted: &dyn Fn() -> bool,
) -> Result<usize, SampleError> {
    let seats = seats(blocks, pass)?;
    let taking_part = seats.chunk_by(|a, b| a.block == b.block).count();
    if taking_part < 2 {
        return Ok(0);
    }
    let mut observed = Observed::new(source);
    let (began, entries) = {
        let bank = observed.read()?;
        (bank.revision(), bank.entries())
    };
    let started = clock::now();
    let (found, rejections) = scan(&mut observed, blocks, &seats, (pass, began), wanted)?;
    scanned_together(&observed, (found.len(), entries), clock::now().duration_since(started));
    let seen = observed.seen()?;
    let mut found = found.into_iter();
    for (Seat { block, draw, reason }, rejected) in seats.into_iter().zip(rejections) {
        let block = &mut *blocks[block];
        let mine = found.by_ref().take(block.anchors.len()).collect();
        if let Some(drawing) = &mut block.drawings[draw] {
            drawing.searched(Searched::new(0, mine, began, Plan::Scan), &rejected, reason);
        }
        block.observed.saw(seen);
    }
    Ok(taking_part)
}

fn seats(blocks: &mut [&mut Block<'_>], pass: Pass) -> Result<Vec<Seat>, SampleError> {
    let mut seats = Vec::new();
    for (number, block) in blocks.iter_mut().enumerate() {
        let Block { observed, anchors, drawings, .. } = &mut **block;
        for (draw, drawing) in drawings.iter().enumerate() {
            let Some(drawing) = drawing else { continue };
            if let Some(reason) = drawing.scans(observed, anchors, pass)? {
                seats.push(Seat { block: number, draw, reason });
            }
        }
    }
    Ok(seats)
}

/// What is found for each anchor of each seat, and what each seat's draw has rejected.
fn scan(
    observed: &mut Observed<'_>,
    blocks: &[&mut Block<'_>],
    seats: &[Seat],
    (pass, began): (Pass, u64),
    wanted: &dyn Fn() -> bool,
) -> Result<(Vec<Found>, Vec<ReasonCounts>), SampleError> {
    let drawing = |seat: &Seat| blocks[seat.block].drawings[seat.draw].as_ref();
    let probes = || -> Vec<Probe<'_>> {
        let of_draw = |seat: &Seat| {
            let anchors = blocks[seat.block].anchors.iter();
            let nearest = drawing(seat).and_then(Drawing::nearest);
            anchors.filter_map(move |anchor| probe(anchor, nearest?, search_depth(nearest?)))
        };
        seats.iter().flat_map(of_draw).collect()
    };
    let of_draw = |seat: &Seat| Some((blocks[seat.block].anchors.as_slice(), &drawing(seat)?.eligibility));
    let mut sieve = JointSieve::new(seats.iter().filter_map(of_draw));
    let by_codes = match pass {
        Pass::Codes => coded_search::search_for(observed, &probes(), &mut sieve, began, wanted)?,
        Pass::Rows => None,
    };
    let found = match by_codes {
        Some(found) => found,
        None => {
            sieve.begin_again();
            search_rows(observed, probes(), &mut sieve, wanted)?
        }
    };
    Ok((found, sieve.into_rejections()))
}
