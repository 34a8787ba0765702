//! Walks through the graph for a block of anchors, joined with a scan of what the graph does not know.

use super::SampleError;
use super::anchors::Anchor;
use super::eligibility::Eligibility;
use super::filtered::Sieve;
use super::held::{Held, Seeker, at};
use super::indexed::View;
use super::observed::Observed;
use super::search::{identity, probe, rows_per_hold, search_depth};
use crate::bank::{Bank, Place};
use crate::index::{Candidate, Found, Known, Ranked, Ranking, Reach, Run, Scan, Slots, Spot};
use crate::kernels::stride;
use crate::model::{Nearest, ReasonCounts, ScoreRange};
use crate::rows::Stored;

/// Entries judged in one hold of the bank's lock.
const JUDGED_PER_HOLD: u32 = 128;

/// The searches of a block.
pub(super) struct Walk<'s, 'o> {
    pub(super) observed: &'s mut Observed<'o>,
    pub(super) view: &'s View,
    pub(super) eligibility: &'s mut Eligibility,
    pub(super) nearest: &'s Nearest,
    pub(super) rejections: &'s mut ReasonCounts,
    pub(super) wanted: &'s dyn Fn() -> bool,
    pub(super) reach: Reach,
    /// Distances computed so far.
    pub(super) computed: usize,
}

impl Walk<'_, '_> {
    /// What is found for each anchor, with what [`Self::scan_beside`] found; `None` where it may be too little.
    pub(super) fn all(&mut self, anchors: &[Anchor], beside: Vec<Found>) -> Result<Vec<Option<Found>>, SampleError> {
        let mut all = Vec::with_capacity(anchors.len());
        // Anchors without an embedding have no probe, so the scan found nothing for them; a scored draw has none.
        for (anchor, beside) in anchors.iter().zip(beside) {
            if !(self.wanted)() {
                return Err(SampleError::Unwanted);
            }
            all.push(self.one(anchor, beside)?);
        }
        Ok(all)
    }

    fn one(&mut self, anchor: &Anchor, beside: Found) -> Result<Option<Found>, SampleError> {
        let depth = search_depth(self.nearest);
        let Some(range) = probe(anchor, self.nearest, depth).map(|probe| probe.range) else { return Ok(None) };
        let Some(candidates) = self.candidates(anchor, range)? else { return Ok(None) };
        let mut ranking = Ranking::new(depth);
        // What drifted away is scanned, and the graph may still find it.
        let mut known: Vec<Place> = beside.ranking.iter().map(super::nearest::place).collect();
        known.sort_unstable();
        beside.ranking.into_iter().for_each(|ranked| ranking.offer(ranked));
        for part in candidates.chunks(JUDGED_PER_HOLD as usize) {
            let bank = self.observed.read()?;
            for candidate in part {
                let place = at(candidate.spot);
                if known.binary_search(&place).is_err()
                    && let Some(ranked) = judged(&bank, anchor, self.eligibility, candidate.spot)
                    && range.keeps(ranked.score)
                {
                    ranking.offer(ranked);
                }
            }
        }
        let ranking = ranking.into_sorted();
        if ranking.len() < depth {
            // With score rules nobody knows how many there are, nor, once writes have come, how many there were.
            let bank = self.observed.read()?;
            let moved_on = bank.revision() != self.view.known;
            if moved_on || range != ScoreRange::ALL || ranking.len() < self.eligibility.count(anchor, &bank) {
                return Ok(None);
            }
        }
        let known = ranking.last().filter(|_| ranking.len() >= depth).map_or(Known::All, |&last| Known::DownTo(last));
        Ok(Some(Found { ranking, known, ..Found::default() }))
    }

    /// Entries near the anchor that pass its filters and the score rules' ceiling, with others of the same rows; `None` if the walk
    /// was cut short.
    fn candidates(&mut self, anchor: &Anchor, range: ScoreRange) -> Result<Option<Vec<Candidate>>, SampleError> {
        let Some(row) = anchor.row.as_deref() else { return Ok(None) };
        let mut found = Vec::new();
        let seeker = Seeker { anchor, eligibility: &*self.eligibility, range, live: self.view.has_drifted };
        let mut held = Held::new(self.observed, seeker, self.rejections)?;
        let computed = self.view.generation.search(row, self.reach, &mut held, &mut found);
        held.end()?;
        self.computed += computed;
        Ok((computed < self.reach.most).then_some(found))
    }

    /// Scans the rows that the graph does not know, for all anchors together.
    pub(super) fn scan_beside(&mut self, anchors: &[Anchor]) -> Result<Vec<Found>, SampleError> {
        let (mut scan, tile) = {
            let bank = self.observed.read()?;
            let stride = stride(bank.spec().dim());
            let probes = anchors.iter().filter_map(|anchor| probe(anchor, self.nearest, search_depth(self.nearest)));
            (Scan::new(bank.spec().metric(), stride, probes.collect()), rows_per_hold(stride, anchors.len()))
        };
        let (sieve, mut scratch) = (Sieve::new(anchors, self.eligibility), Vec::new());
        for (shard, slots) in (0u32..).zip(&self.view.scanned) {
            for slots in slots.chunks(tile) {
                if !(self.wanted)() {
                    return Err(SampleError::Unwanted);
                }
                let bank = self.observed.read()?;
                let state = &bank.shards()[shard as usize];
                scratch.clear();
                slots.iter().for_each(|&slot| state.rows().padded(slot).append_to(&mut scratch));
                let (rows, slots) = (Stored::F32(&scratch), Slots::Listed(slots));
                let mut admit = sieve.of(state.columns(), self.rejections);
                scan.run(Run { rows, slots, shard, largest_norm: state.largest_norm() }, &mut admit);
            }
        }
        Ok(scan.found().collect())
    }
}

/// The entry as it is ranked, if it is still there and may be served.
fn judged(bank: &Bank, anchor: &Anchor, eligibility: &Eligibility, spot: Spot) -> Option<Ranked> {
    let (place, columns) = (at(spot), bank.columns(at(spot)));
    let identity = identity(columns, place.slot).filter(|identity| identity.occupied_at == spot.occupied_at)?;
    let admitted = eligibility.rejects(anchor, columns, place.slot).is_none();
    let score = anchor.score(bank, place).filter(|_| admitted)?;
    Some(Ranked { score, shard: place.shard, slot: place.slot, identity })
}
