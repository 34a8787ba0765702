//! Hard negatives by exact scan.

use rustc_hash::FxHashSet;

use super::SampleError;
use super::anchors::Anchor;
use super::choose::{Chosen, choose};
use super::eligibility::Eligibility;
use super::observed::Observed;
use crate::bank::{Bank, Columns, Place};
use crate::index::{Admit, Identity, Probe, Ranked, Scan};
use crate::kernels::score::score;
use crate::model::{Nearest, Reason, ReasonCounts, ScoreRange, Stream};

/// Multiply-adds in one hold of the bank's lock: about 50 microseconds on one AVX2 core.
const WORK_PER_HOLD: usize = 2 << 20;

/// Scans the bank for a block of anchors, in short holds, and returns each anchor's ranking, best first.
///
/// Writes may come between the holds, so rankings are a little deeper than asked for, and [`settle`] brings them up to date.
/// Also returns the bank's change counter when the scan began.
pub(super) fn search(
    observed: &mut Observed<'_>,
    anchors: &[Anchor],
    eligibility: &Eligibility,
    nearest: &Nearest,
    rejections: &mut ReasonCounts,
    wanted: &dyn Fn() -> bool,
) -> Result<(Vec<Vec<Ranked>>, u64), SampleError> {
    let (mut scan, shards, began, tile) = {
        let bank = observed.read()?;
        let stride = crate::kernels::stride(bank.spec().dim());
        let probes = anchors.iter().filter_map(|anchor| probe(anchor, nearest, search_depth(nearest)));
        let scan = Scan::new(bank.spec().metric(), stride, probes.collect());
        let tile = (WORK_PER_HOLD / (stride * anchors.len().max(1))).max(32) as u32;
        (scan, bank.shards().len(), bank.revision(), tile)
    };
    for shard in 0..shards {
        let mut slot = 0u32;
        loop {
            if !wanted() {
                return Err(SampleError::Unwanted);
            }
            let bank = observed.read()?;
            let state = &bank.shards()[shard];
            let end = (state.columns().len() as u32).min(slot.saturating_add(tile));
            if slot >= end {
                break;
            }
            let mut admit = Filtered { anchors, eligibility, columns: state.columns(), rejections };
            slot += scan.tile(state.rows(), shard as u32, slot, end, state.largest_norm(), &mut admit);
        }
    }
    Ok((scan.into_rankings().collect(), began))
}

/// The same for one anchor in one hold: nothing can change under it, whatever it costs the writers.
fn search_held(bank: &Bank, anchor: &Anchor, eligibility: &Eligibility, nearest: &Nearest) -> Vec<Ranked> {
    let stride = crate::kernels::stride(bank.spec().dim());
    let mut scan = Scan::new(bank.spec().metric(), stride, probe(anchor, nearest, nearest.depth()).into_iter().collect());
    let mut rejections = ReasonCounts::default();
    for (number, shard) in (0u32..).zip(bank.shards()) {
        let (mut slot, end) = (0, shard.columns().len() as u32);
        while slot < end {
            let anchors = std::slice::from_ref(anchor);
            let mut admit = Filtered { anchors, eligibility, columns: shard.columns(), rejections: &mut rejections };
            slot += scan.tile(shard.rows(), number, slot, end, shard.largest_norm(), &mut admit);
        }
    }
    scan.into_rankings().next().unwrap_or_default()
}

fn probe<'a>(anchor: &'a Anchor, nearest: &Nearest, depth: usize) -> Option<Probe<'a>> {
    // With `candidates` the rules see only the raw top, so the search itself must not apply them.
    let range = if nearest.candidates.is_some() { ScoreRange::ALL } else { nearest.rules.range(anchor.positive) };
    Some(Probe { anchor: anchor.row.as_deref()?, range, depth })
}

struct Filtered<'a> {
    anchors: &'a [Anchor],
    eligibility: &'a Eligibility,
    columns: &'a Columns,
    rejections: &'a mut ReasonCounts,
}

impl Admit for Filtered<'_> {
    fn admits(&mut self, probe: usize, slot: u32) -> bool {
        let reason = self.eligibility.rejects(&self.anchors[probe], self.columns, slot);
        if let Some(reason) = reason {
            self.rejections.add(reason, 1);
        }
        reason.is_none()
    }

    fn out_of_range(&mut self) {
        self.rejections.add(Reason::Score, 1);
    }

    fn identity(&self, slot: u32) -> Option<Identity> {
        identity(self.columns, slot)
    }
}

fn identity(columns: &Columns, slot: u32) -> Option<Identity> {
    columns.is_occupied(slot).then(|| Identity {
        id: columns.id(slot),
        occupied_at: columns.occupied_at(slot),
        revision: columns.revision(slot),
    })
}

/// What one anchor is served.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) picks: Vec<(Place, f32)>,
    pub(super) chosen: Chosen,
    /// Size of the eligible set.
    pub(super) n: usize,
    /// Missing picks.
    pub(super) shortfalls: ReasonCounts,
}

/// The closing hold of one anchor: makes `ranked`, a ranking and the change counter when its search began, true of the bank as
/// it stands now, and chooses k of it. Without a ranking the search is made here.
pub(super) fn settle(
    bank: &Bank,
    anchor: &Anchor,
    eligibility: &mut Eligibility,
    nearest: &Nearest,
    k: usize,
    ranked: Option<(Vec<Ranked>, u64)>,
    stream: &mut Stream,
) -> Served {
    let range = nearest.rules.range(anchor.positive);
    let current = ranked.and_then(|(ranking, began)| match bank.revision() == began {
        true => Some(ranking),
        false => patched(bank, anchor, eligibility, nearest, &ranking, began),
    });
    let mut ranking = current.unwrap_or_else(|| search_held(bank, anchor, eligibility, nearest));
    ranking.truncate(nearest.depth());
    if nearest.candidates.is_some() {
        ranking.retain(|ranked| range.keeps(ranked.score));
    }
    let window = ranking.get(nearest.skip..).unwrap_or_default();
    let window = &window[..window.len().min(nearest.window)];
    let chosen = choose(window, k, nearest.choose, stream);
    let pick = |&at: &usize| {
        let Ranked { shard, slot, score, .. } = window[at];
        (Place { shard, slot }, score)
    };
    let picks: Vec<_> = chosen.picks.iter().map(pick).collect();
    let n = eligibility.count(anchor, bank);
    let shortfalls = shortfalls(k, n, ranking.len(), picks.len());
    Served { picks, chosen, n, shortfalls }
}

/// The ranking as a scan of the bank as it stands now would give it; `None` if only such a scan can tell.
///
/// Entries that no write has touched since the scan began keep their rank; touched ones are judged anew. If the scan's ranking
/// was full, entries below its last one are unknown: then the result must not reach below it.
fn patched(
    bank: &Bank,
    anchor: &Anchor,
    eligibility: &Eligibility,
    nearest: &Nearest,
    ranking: &[Ranked],
    began: u64,
) -> Option<Vec<Ranked>> {
    let probe = probe(anchor, nearest, nearest.depth())?;
    let changed: FxHashSet<Place> = bank.changed_since(began)?.collect();
    let judged = |&place: &Place| {
        let columns = bank.columns(place);
        let identity = identity(columns, place.slot)?;
        let score = score(bank.spec().metric(), probe.anchor, bank.padded_row(place));
        let passes = eligibility.rejects(anchor, columns, place.slot).is_none() && probe.range.keeps(score);
        passes.then_some(Ranked { score, shard: place.shard, slot: place.slot, identity })
    };
    let untouched = |ranked: &&Ranked| !changed.contains(&Place { shard: ranked.shard, slot: ranked.slot });
    let mut patched: Vec<Ranked> = ranking.iter().filter(untouched).copied().collect();
    patched.extend(changed.iter().filter_map(judged));
    patched.sort_unstable();
    patched.truncate(nearest.depth());
    let was_full = ranking.len() >= search_depth(nearest);
    let known_down_to = ranking.last().filter(|_| was_full);
    let known = |ranked: &Ranked| known_down_to.is_none_or(|last| ranked <= last);
    let complete = !was_full || (patched.len() == nearest.depth() && patched.last().is_some_and(known));
    complete.then_some(patched)
}

/// Depth of the scan's rankings: with spares for entries that writes take away while it runs.
fn search_depth(nearest: &Nearest) -> usize {
    nearest.depth().saturating_add(nearest.depth() / 8 + 8)
}

/// Why `served` of k: too few eligible entries, then too few in the score rules, then skip and window.
fn shortfalls(k: usize, n: usize, scored: usize, served: usize) -> ReasonCounts {
    let mut counts = ReasonCounts::default();
    if served == k {
        return counts;
    }
    let (eligible, kept) = (k.min(n), k.min(scored));
    counts.add(Reason::TooFew, (k - eligible) as u64);
    counts.add(Reason::Score, eligible.saturating_sub(kept) as u64);
    counts.add(Reason::Window, kept.saturating_sub(served) as u64);
    counts
}
