//! Exact search for a block of anchors: over all rows, or over the posting lists of the labels asked for.

use super::SampleError;
use super::anchors::Anchor;
use super::coded_search;
use super::eligibility::Eligibility;
use super::filtered::{OfOneDraw, Sieve, Sift};
use super::observed::Observed;
use super::universe::Universe;
use crate::bank::{Bank, Columns, Shard};
use crate::index::{Found, Identity, Probe, Run, Scan, Slots};
use crate::kernels::stride;
use crate::model::{Nearest, Plan, ReasonCounts, ScoreRange};
use crate::rows::Stored;

/// Multiply-adds in one hold of the bank's lock: about 50 microseconds on one AVX2 core.
const WORK_PER_HOLD: usize = 2 << 20;

/// What a search found, anchor by anchor.
#[derive(Debug)]
pub(super) struct Searched {
    /// The first anchor of the block that was searched for.
    first: usize,
    found: Vec<Option<Found>>,
    /// Bank's change counter when the search began.
    began: u64,
    pub(super) plan: Plan,
}

impl Searched {
    /// What a search that began when the bank's change counter stood at `began` found for the anchors from number `first` on.
    pub(super) fn new(first: usize, found: Vec<Found>, began: u64, plan: Plan) -> Self {
        Self { first, found: found.into_iter().map(Some).collect(), began, plan }
    }

    /// What was found for anchor number `at` of the block, once, and the bank's change counter when the search began.
    pub(super) fn take(&mut self, at: usize) -> Option<(Found, u64)> {
        Some((self.found.get_mut(at.checked_sub(self.first)?)?.take()?, self.began))
    }

    /// True if more has changed since the search began than can be made good in one hold.
    pub(super) fn is_stale(&self, bank: &Bank) -> bool {
        bank.revision() - self.began > MOST_MENDED
    }
}

/// Changes that the closing hold makes good at most: one score each.
pub(super) const MOST_MENDED: u64 = 16_384;

/// Searches the bank for the block's `anchors` from number `first` on, in short holds. Writes may come between the holds, so rankings are a little deeper
/// than asked for, and `nearest::settle` brings them up to date.
pub(super) fn search(
    observed: &mut Observed<'_>,
    (anchors, first): (&[Anchor], usize),
    eligibility: &Eligibility,
    nearest: &Nearest,
    rejections: &mut ReasonCounts,
    wanted: &dyn Fn() -> bool,
) -> Result<Searched, SampleError> {
    let anchors = anchors.get(first..).unwrap_or_default();
    let (began, plan, by_codes) = {
        let bank = observed.read()?;
        (bank.revision(), plan(&bank, eligibility, nearest), coded_search::pays(&bank, nearest))
    };
    if by_codes && plan == Plan::Scan {
        let found = coded_search::search(observed, anchors, eligibility, (nearest, began), rejections, wanted)?;
        if let Some(found) = found {
            return Ok(Searched { first, found: found.into_iter().map(Some).collect(), began, plan });
        }
    }
    let probes = anchors.iter().filter_map(|anchor| probe(anchor, nearest, search_depth(nearest)));
    let mut sift = OfOneDraw { sieve: Sieve::new(anchors, eligibility), rejections };
    let mut search = Search::new(observed, probes.collect(), &mut sift, wanted)?;
    match (plan, eligibility.only_labels()) {
        (Plan::PostingList, Some(labels)) => search.lists(labels)?,
        _ => search.rows()?,
    }
    Ok(Searched { first, found: search.scan.found().map(Some).collect(), began, plan })
}

/// What a scan of all rows finds for probes of whatever draws, in short holds.
pub(super) fn search_rows(
    observed: &mut Observed<'_>,
    probes: Vec<Probe<'_>>,
    sift: &mut impl Sift,
    wanted: &dyn Fn() -> bool,
) -> Result<Vec<Found>, SampleError> {
    let mut search = Search::new(observed, probes, sift, wanted)?;
    search.rows()?;
    Ok(search.scan.found().collect())
}

/// What [`search`] finds for one anchor, in one hold: nothing can change under it, whatever it costs the writers.
pub(super) fn search_held(bank: &Bank, anchor: &Anchor, eligibility: &Eligibility, nearest: &Nearest) -> Found {
    if eligibility.is_narrow(anchor) {
        return search_own(bank, anchor, eligibility, nearest);
    }
    if coded_search::pays(bank, nearest)
        && let Some(found) = coded_search::search_held(bank, anchor, eligibility, nearest)
    {
        return found;
    }
    let probes = probe(anchor, nearest, nearest.depth()).into_iter().collect();
    let mut scan = Scan::new(bank.spec().metric(), stride(bank.spec().dim()), probes);
    let (sieve, mut rejections) = (Sieve::new(std::slice::from_ref(anchor), eligibility), ReasonCounts::default());
    for (number, shard) in (0u32..).zip(bank.shards()) {
        let (mut slot, end) = (0, shard.columns().len() as u32);
        while slot < end {
            let (rows, count) = shard.rows().run(slot, end);
            let mut admit = sieve.of(shard.columns(), &mut rejections);
            scan.run(Run { rows, slots: Slots::From(slot), shard: number, largest_norm: shard.largest_norm() }, &mut admit);
            slot += count;
        }
    }
    scan.found().next().unwrap_or_default()
}

/// Entries of an anchor's own label or group that are scored in its closing hold at most.
const MOST_OWN: usize = 8_192;

/// Nothing yet, if only entries of their own label or group are served to the block's `anchors` from number `first` on, and these are few
/// enough to be looked at in the closing holds.
pub(super) fn own_lists(
    observed: &mut Observed<'_>,
    (anchors, first): (&[Anchor], usize),
    eligibility: &Eligibility,
) -> Result<Option<Searched>, SampleError> {
    let bank = observed.read()?;
    let few = |anchor: &Anchor| eligibility.is_narrow(anchor) && Universe::new(&bank, eligibility, anchor).len() <= MOST_OWN;
    let listed = anchors.get(first..).unwrap_or_default().iter().all(few);
    Ok(listed.then(|| Searched::new(first, Vec::new(), bank.revision(), Plan::PostingList)))
}

/// What there is of an anchor's own label or group.
fn search_own(bank: &Bank, anchor: &Anchor, eligibility: &Eligibility, nearest: &Nearest) -> Found {
    let probes = probe(anchor, nearest, nearest.depth()).into_iter().collect();
    let mut scan = Scan::new(bank.spec().metric(), stride(bank.spec().dim()), probes);
    let (sieve, mut rejections) = (Sieve::new(std::slice::from_ref(anchor), eligibility), ReasonCounts::default());
    let mut scratch = Vec::new();
    for (number, slots) in Universe::new(bank, eligibility, anchor).lists() {
        let shard = &bank.shards()[number as usize];
        for slots in slots.chunks(ROWS_COPIED) {
            scratch.clear();
            slots.iter().for_each(|&slot| shard.rows().padded(slot).append_to(&mut scratch));
            let run = Run {
                rows: Stored::F32(&scratch),
                slots: Slots::Listed(slots),
                shard: number,
                largest_norm: shard.largest_norm(),
            };
            scan.run(run, &mut sieve.of(shard.columns(), &mut rejections));
        }
    }
    scan.found().next().unwrap_or_default()
}

/// Rows of a list that are copied before they are scored.
const ROWS_COPIED: usize = 256;

/// Rows of `stride` floats that are scanned for so many anchors in one hold.
pub(super) fn rows_per_hold(stride: usize, anchors: usize) -> usize {
    (WORK_PER_HOLD / (stride * anchors.max(1))).max(32)
}

/// Depth of the scan's rankings: with spares for entries that writes take away while it runs.
pub(super) fn search_depth(nearest: &Nearest) -> usize {
    nearest.depth().saturating_add(nearest.depth() / 8 + 8)
}

/// What to look for on behalf of `anchor`; `None` if it has no embedding.
pub(super) fn probe<'a>(anchor: &'a Anchor, nearest: &Nearest, depth: usize) -> Option<Probe<'a>> {
    let kept = nearest.rules.range(anchor.positive);
    // With `candidates` the rules see only the raw top, so the search itself must not apply them.
    let range = if nearest.candidates.is_some() { ScoreRange::ALL } else { kept };
    Some(Probe { anchor: anchor.row.as_deref()?, range, depth, counted: nearest.count_exact.then_some(kept) })
}

/// Who lies in a slot.
pub(super) fn identity(columns: &Columns, slot: u32) -> Option<Identity> {
    columns.is_occupied(slot).then(|| Identity {
        id: columns.id(slot),
        occupied_at: columns.occupied_at(slot),
        revision: columns.revision(slot),
    })
}

/// Lists where they hold less than half of the entries: a listed row is copied before it is scored, which costs about as much
/// again as it saves at half.
///
/// A plan that the caller asks for is taken where it can answer.
pub(super) fn plan(bank: &Bank, eligibility: &Eligibility, nearest: &Nearest) -> Plan {
    let Some(labels) = eligibility.only_labels() else { return Plan::Scan };
    if let Some(asked @ (Plan::Scan | Plan::PostingList)) = nearest.search.plan {
        return asked;
    }
    let listed = |shard: &Shard| labels.iter().map(|&label| shard.labelled(label).len()).sum::<usize>();
    let listed: usize = bank.shards().iter().map(listed).sum();
    if listed.saturating_mul(2) < bank.entries() { Plan::PostingList } else { Plan::Scan }
}

struct Search<'s, 'o, 'a, S> {
    observed: &'s mut Observed<'o>,
    sift: &'s mut S,
    wanted: &'s dyn Fn() -> bool,
    scan: Scan<'a>,
    /// Rows in one hold.
    tile: usize,
}

impl<'s, 'o, 'a, S: Sift> Search<'s, 'o, 'a, S> {
    fn new(
        observed: &'s mut Observed<'o>,
        probes: Vec<Probe<'a>>,
        sift: &'s mut S,
        wanted: &'s dyn Fn() -> bool,
    ) -> Result<Self, SampleError> {
        let (stride, metric) = {
            let bank = observed.read()?;
            (stride(bank.spec().dim()), bank.spec().metric())
        };
        let tile = rows_per_hold(stride, probes.len());
        Ok(Self { observed, sift, wanted, scan: Scan::new(metric, stride, probes), tile })
    }

    fn rows(&mut self) -> Result<(), SampleError> {
        let shards = self.observed.read()?.shards().len();
        for shard in 0..shards {
            let mut slot = 0u32;
            loop {
                self.go_on()?;
                let bank = self.observed.read()?;
                let state = &bank.shards()[shard];
                let end = (state.columns().len() as u32).min(slot.saturating_add(self.tile as u32));
                if slot >= end {
                    break;
                }
                let (rows, count) = state.rows().run(slot, end);
                self.scan_run(state, shard as u32, rows, Slots::From(slot));
                slot += count;
            }
        }
        Ok(())
    }

    /// Each list is copied whole in one hold, so that no entry can slip past the place that is being read: removals move a list's
    /// last entry to the front. What changes after that is judged anew in the closing hold anyway.
    fn lists(&mut self, labels: &[i64]) -> Result<(), SampleError> {
        let shards = self.observed.read()?.shards().len();
        let mut scratch = Vec::new();
        for shard in 0..shards {
            for &label in labels {
                let list = self.observed.read()?.shards()[shard].labelled(label).to_vec();
                for slots in list.chunks(self.tile) {
                    self.go_on()?;
                    let bank = self.observed.read()?;
                    let state = &bank.shards()[shard];
                    scratch.clear();
                    slots.iter().for_each(|&slot| state.rows().padded(slot).append_to(&mut scratch));
                    self.scan_run(state, shard as u32, Stored::F32(&scratch), Slots::Listed(slots));
                }
            }
        }
        Ok(())
    }

    fn scan_run(&mut self, state: &Shard, shard: u32, rows: Stored<'_>, slots: Slots<'_>) {
        let mut admit = self.sift.over(state.columns());
        self.scan.run(Run { rows, slots, shard, largest_norm: state.largest_norm() }, &mut admit);
    }

    fn go_on(&self) -> Result<(), SampleError> {
        if (self.wanted)() { Ok(()) } else { Err(SampleError::Unwanted) }
    }
}
