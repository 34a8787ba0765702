//! Exact search by codes: candidates first, then the rows of those that may be among the best.

use super::SampleError;
use super::anchors::Anchor;
use super::block::BLOCK;
use super::eligibility::Eligibility;
use super::filtered::{OfOneDraw, OfSome, Sieve, Sift};
use super::observed::Observed;
use super::search::{identity, probe, search_depth};
use crate::bank::{Bank, Shard};
use crate::index::{Admit, CodedRun, CodedScan, Found, Probe, Shortlist, Stretch, Visits};
use crate::kernels::stride;
use crate::model::{Nearest, Reason, ReasonCounts};

/// Products of codes in one hold of the bank's lock: about 50 microseconds with AVX-512.
const WORK_PER_HOLD: usize = 16 << 20;

/// Rows of a stretch that are asked for before it is scanned.
const ROWS_AHEAD: u32 = 8;

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
    let found = search_for(observed, &probes.collect::<Vec<_>>(), &mut sift, began, wanted)?;
    if found.is_some() {
        rejections.merge(&rejected);
    }
    Ok(found)
}

/// The same for probes of whatever draws.
///
/// Bars are foreseen. Probes for which that went wrong are searched for once more, without.
pub(super) fn search_for<'a>(
    observed: &mut Observed<'_>,
    probes: &[Probe<'a>],
    sift: &mut impl Sift,
    began: u64,
    wanted: &dyn Fn() -> bool,
) -> Result<Option<Vec<Found>>, SampleError> {
    let pass = Pass::new(observed, probes.len())?;
    let mut scan = CodedScan::new(pass.stride, probes.to_vec()).foreseeing(pass.visits.rows());
    if !pass.over(&mut scan, observed, sift, wanted)? {
        return Ok(None);
    }
    let unsure = scan.unsure();
    let mut shortlists: Vec<Shortlist<'a>> = scan.shortlists().collect();
    if !unsure.is_empty() {
        let mut scan = CodedScan::new(pass.stride, unsure.iter().map(|&probe| probes[probe].clone()).collect());
        if !pass.over(&mut scan, observed, &mut OfSome { sift, probes: &unsure }, wanted)? {
            return Ok(None);
        }
        unsure.iter().zip(scan.shortlists()).for_each(|(&probe, shortlist)| shortlists[probe] = shortlist);
    }
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

/// How all rows are looked at that there are when the search begins: for one probe as for many, so that the same are examined whoever is
/// searched for together.
struct Pass {
    visits: Visits,
    stride: usize,
    rows_per_hold: usize,
}

impl Pass {
    fn new(observed: &mut Observed<'_>, probes: usize) -> Result<Self, SampleError> {
        let bank = observed.read()?;
        let stride = stride(bank.spec().dim());
        Ok(Self {
            visits: Visits::spread(slots_of(&bank), stretch(stride)),
            stride,
            rows_per_hold: rows_per_hold(stride, probes),
        })
    }

    /// Scans all rows in short holds; false if codes tell too little of them.
    fn over(
        &self,
        scan: &mut CodedScan<'_>,
        observed: &mut Observed<'_>,
        sift: &mut impl Sift,
        wanted: &dyn Fn() -> bool,
    ) -> Result<bool, SampleError> {
        let mut visits = self.visits.clone().peekable();
        while visits.peek().is_some() {
            go_on(wanted)?;
            let bank = observed.read()?;
            let mut rows = 0;
            while rows < self.rows_per_hold
                && let Some(stretch) = visits.next()
            {
                let state = |stretch: Stretch| &bank.shards()[stretch.shard as usize];
                if let Some(&ahead) = visits.peek() {
                    prefetch(state(ahead), ahead);
                }
                scan_stretch(scan, state(stretch), stretch, &mut sift.over(state(stretch).columns()));
                rows += (stretch.end - stretch.start) as usize;
            }
            if scan.is_lost() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Rows that are visited one after the other: few, for what lies together is often alike, and many, for each stretch begins with rows that
/// memory has to be asked for. As many as a block of anchors may have in one hold.
fn stretch(stride: usize) -> u32 {
    let steps = WORK_PER_HOLD / (stride * BLOCK * CodedScan::STEP);
    (steps.clamp(1, 4) * CodedScan::STEP) as u32
}

/// Rows scanned for so many probes in one hold, and what is left of the last stretch.
fn rows_per_hold(stride: usize, probes: usize) -> usize {
    (WORK_PER_HOLD / (stride * probes.max(1))).clamp(64, 1 << 14)
}

/// What [`search`] finds for one anchor, in one hold and to its full depth.
pub(super) fn search_held(bank: &Bank, anchor: &Anchor, eligibility: &Eligibility, nearest: &Nearest) -> Option<Found> {
    let probe = probe(anchor, nearest, nearest.depth())?;
    let mut scan = CodedScan::new(stride(bank.spec().dim()), vec![probe]);
    let (sieve, mut rejections) = (Sieve::new(std::slice::from_ref(anchor), eligibility), ReasonCounts::default());
    for stretch in Visits::in_order(slots_of(bank), 1 << 14) {
        let state = &bank.shards()[stretch.shard as usize];
        scan_stretch(&mut scan, state, stretch, &mut sieve.of(state.columns(), &mut rejections));
        if scan.is_lost() {
            return None;
        }
    }
    let mut shortlist = scan.shortlists().next()?;
    rescore(&mut shortlist, bank, bank.revision(), &mut usize::MAX.clone(), &mut rejections);
    Some(shortlist.found())
}

/// Slots of each shard.
fn slots_of(bank: &Bank) -> impl Iterator<Item = u32> {
    bank.shards().iter().map(|shard| shard.columns().len() as u32)
}

/// Scans the rows of a stretch that are still there.
fn scan_stretch(scan: &mut CodedScan<'_>, state: &Shard, Stretch { shard, start, end }: Stretch, admit: &mut impl Admit) {
    let (Some(codes), end) = (state.rows().codes(), end.min(state.columns().len() as u32)) else { return };
    let mut slot = start;
    while slot < end {
        let (rows, count) = codes.run(slot, end);
        scan.run(CodedRun { rows, slot, shard, largest_norm: state.largest_norm() }, admit);
        slot += count;
    }
}

/// Asks for what is read of a stretch first: those that were visited before it lie elsewhere. The rest the CPU foresees by itself.
fn prefetch(state: &Shard, Stretch { start, end, .. }: Stretch) {
    let end = end.min(state.columns().len() as u32).min(start + ROWS_AHEAD);
    if let Some(codes) = state.rows().codes().filter(|_| start < end) {
        codes.prefetch_run(start, end);
        state.columns().prefetch_filtered(start..end);
    }
}

fn rescore(shortlist: &mut Shortlist<'_>, bank: &Bank, began: u64, budget: &mut usize, rejections: &mut ReasonCounts) {
    // Mostly nothing was written meanwhile, and then no column need be looked at before the few best are known.
    let all_unchanged = bank.revision() == began;
    let state = |shard: u32| &bank.shards()[shard as usize];
    let unchanged = |shard: u32, slot: u32| all_unchanged || state(shard).columns().revision(slot) <= began;
    let row = |shard: u32, slot: u32| unchanged(shard, slot).then(|| state(shard).rows().padded(slot));
    let identity = |shard: u32, slot: u32| identity(state(shard).columns(), slot).filter(|_| unchanged(shard, slot));
    let expect = |shard: u32, slot: u32| state(shard).columns().prefetch_identity(slot);
    shortlist.rescore(budget, row, (identity, expect), || rejections.add(Reason::Score, 1));
}

fn go_on(wanted: &dyn Fn() -> bool) -> Result<(), SampleError> {
    if wanted() { Ok(()) } else { Err(SampleError::Unwanted) }
}
