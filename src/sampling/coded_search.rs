//! Exact search by codes: candidates first, then the rows of those that may be among the best.

use super::SampleError;
use super::anchors::Anchor;
use super::eligibility::Eligibility;
use super::filtered::{OfOneDraw, Sieve, Sift};
use super::observed::Observed;
use super::search::{identity, probe, search_depth};
use crate::bank::{Bank, Shard};
use crate::index::{Admit, CodedRun, CodedScan, Found, Probe, Shortlist};
use crate::kernels::stride;
use crate::model::{Nearest, Reason, ReasonCounts};

/// Products of codes in one hold of the bank's lock: about 50 microseconds with AVX-512.
const WORK_PER_HOLD: usize = 16 << 20;

/// Rows scored in one hold.
const RESCORED_PER_HOLD: usize = 1_000;

/// True if the bank keeps codes and this search is faster by them.
pub(super) fn pays(bank: &Bank, nearest: &Nearest) -> bool {
    let coded = bank.shards().iter().all(|shard| shard.rows().codes().is_some());
    coded && !nearest.count_exact && CodedScan::pays(search_depth(nearest), bank.entries())
}

/// What a search for `anchors`, in short holds, finds; `None` if codes tell too little of these rows. The bank's change counter must have stood
/// at `began` or later when its first hold begins.
///
/// A candidate that was written after `began` is dropped, whether its codes were read before or after that write: what changed
/// since is judged anew in the closing hold anyway. One that was not is now what it was when its codes were read and its
/// filters asked.
pub(super) fn search(
    observed: &mut Observed<'_>,
    anchors: &[Anchor],
    eligibility: &Eligibility,
    (nearest, began): (&Nearest, u64),
    rejections: &mut ReasonCounts,
    wanted: &dyn Fn() -> bool,
) -> Result<Option<Vec<Found>>, SampleError> {
    let probes = anchors.iter().filter_map(|anchor| probe(anchor, nearest, search_depth(nearest)));
    let mut rejected = ReasonCounts::default();
    let mut sift = OfOneDraw { sieve: Sieve::new(anchors, eligibility), rejections: &mut rejected };
    let found = search_for(observed, probes.collect(), &mut sift, began, wanted)?;
    if found.is_some() {
        rejections.merge(&rejected);
    }
    Ok(found)
}

/// The same for probes of whatever draws.
pub(super) fn search_for(
    observed: &mut Observed<'_>,
    probes: Vec<Probe<'_>>,
    sift: &mut impl Sift,
    began: u64,
    wanted: &dyn Fn() -> bool,
) -> Result<Option<Vec<Found>>, SampleError> {
    let (shards, stride) = {
        let bank = observed.read()?;
        (bank.shards().len(), stride(bank.spec().dim()))
    };
    let tile = rows_per_hold(stride, probes.len());
    let mut scan = CodedScan::new(stride, probes);
    for shard in 0..shards {
        let mut slot = 0;
        loop {
            go_on(wanted)?;
            let bank = observed.read()?;
            let state = &bank.shards()[shard];
            let mut admit = sift.over(state.columns());
            let Some(next) = scan_run(&mut scan, (state, shard as u32), slot, tile, &mut admit) else { break };
            if scan.is_lost() {
                return Ok(None);
            }
            slot = next;
        }
    }
    let mut shortlists: Vec<Shortlist<'_>> = scan.shortlists().collect();
    let mut at = 0;
    while at < shortlists.len() {
        go_on(wanted)?;
        let bank = observed.read()?;
        let mut budget = RESCORED_PER_HOLD;
        while budget > 0 && at < shortlists.len() {
            rescore(&mut shortlists[at], &bank, began, &mut budget, sift.rejections(at));
            at += usize::from(shortlists[at].is_done());
        }
    }
    Ok(Some(shortlists.into_iter().map(Shortlist::found).collect()))
}

/// Rows scanned for so many probes in one hold: whole steps of the scan, where there is time for one.
fn rows_per_hold(stride: usize, probes: usize) -> u32 {
    let rows = (WORK_PER_HOLD / (stride * probes.max(1))).clamp(64, 1 << 14);
    (if rows < CodedScan::MOST_AT_ONCE { rows } else { rows - rows % CodedScan::MOST_AT_ONCE }) as u32
}

/// What [`search`] finds for one anchor, in one hold and to its full depth.
pub(super) fn search_held(bank: &Bank, anchor: &Anchor, eligibility: &Eligibility, nearest: &Nearest) -> Option<Found> {
    let probe = probe(anchor, nearest, nearest.depth())?;
    let mut scan = CodedScan::new(stride(bank.spec().dim()), vec![probe]);
    let (sieve, mut rejections) = (Sieve::new(std::slice::from_ref(anchor), eligibility), ReasonCounts::default());
    for (number, shard) in (0u32..).zip(bank.shards()) {
        let mut admit = sieve.of(shard.columns(), &mut rejections);
        let mut slot = 0;
        while let Some(next) = scan_run(&mut scan, (shard, number), slot, 1 << 14, &mut admit) {
            if scan.is_lost() {
                return None;
            }
            slot = next;
        }
    }
    let mut shortlist = scan.shortlists().next()?;
    rescore(&mut shortlist, bank, bank.revision(), &mut usize::MAX.clone(), &mut rejections);
    Some(shortlist.found())
}

/// Scans at most `most` rows from `slot` on, and returns the slot to go on from; `None` at the end of the shard.
fn scan_run(
    scan: &mut CodedScan<'_>,
    (state, shard): (&Shard, u32),
    slot: u32,
    most: u32,
    admit: &mut impl Admit,
) -> Option<u32> {
    let end = (state.columns().len() as u32).min(slot.saturating_add(most));
    let codes = state.rows().codes().filter(|_| slot < end)?;
    let (rows, count) = codes.run(slot, end);
    scan.run(CodedRun { rows, slot, shard, largest_norm: state.largest_norm() }, admit);
    Some(slot + count)
}

fn rescore(shortlist: &mut Shortlist<'_>, bank: &Bank, began: u64, budget: &mut usize, rejections: &mut ReasonCounts) {
    // Mostly nothing was written meanwhile, and then no column need be looked at before the few best are known.
    let all_unchanged = bank.revision() == began;
    let state = |shard: u32| &bank.shards()[shard as usize];
    let unchanged = |shard: u32, slot: u32| all_unchanged || state(shard).columns().revision(slot) <= began;
    let row = |shard: u32, slot: u32| unchanged(shard, slot).then(|| state(shard).rows().padded(slot));
    let identity = |shard: u32, slot: u32| identity(state(shard).columns(), slot).filter(|_| unchanged(shard, slot));
    shortlist.rescore(budget, row, identity, || rejections.add(Reason::Score, 1));
}

fn go_on(wanted: &dyn Fn() -> bool) -> Result<(), SampleError> {
    if wanted() { Ok(()) } else { Err(SampleError::Unwanted) }
}
