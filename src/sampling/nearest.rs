//! Hard negatives: the closing of a search.

use rustc_hash::FxHashSet;

use super::anchors::Anchor;
use super::choose::{choose, log_q_of};
use super::eligibility::Eligibility;
use super::odds::Odds;
use super::picked::Picked;
use super::search::{MOST_MENDED, identity, probe, search_held};
use crate::bank::{Bank, Place};
use crate::index::{Found, Identity, Known, Ranked};
use crate::model::{Choose, Hardness, Nearest, Reason, ReasonCounts, ScoreRange, Stream};

/// The closing hold of one anchor: makes what a search found, with the change counter when it began, true of the bank as it
/// stands now, and chooses k of it. Without a search it is made here.
pub(super) fn settle(
    bank: &Bank,
    anchor: &Anchor,
    eligibility: &mut Eligibility,
    nearest: &Nearest,
    k: usize,
    found: Option<(Found, u64)>,
    (positives, stream): (&[Option<Place>], &mut Stream),
) -> Picked {
    let current = found.and_then(|(found, began)| match bank.revision() == began {
        true => Some((found.ranking, found.counted.len())),
        false => patched(bank, anchor, eligibility, nearest, &found, began),
    });
    let (ranking, counted) = current.unwrap_or_else(|| {
        let found = search_held(bank, anchor, eligibility, nearest);
        (found.ranking, found.counted.len())
    });
    let n = eligibility.count(anchor, bank);
    chosen(bank, anchor, nearest, (k, n), (ranking, counted), (positives, stream))
}

/// Chooses k of the n eligible entries from their ranking, of which `counted` pass the score rules if that was counted. The ranking is as
/// deep as it has to be, or deeper.
pub(super) fn chosen(
    bank: &Bank,
    anchor: &Anchor,
    nearest: &Nearest,
    (k, n): (usize, usize),
    (mut ranking, counted): (Vec<Ranked>, usize),
    (positives, stream): (&[Option<Place>], &mut Stream),
) -> Picked {
    ranking.truncate(nearest.depth());
    let range = nearest.rules.range(anchor.positive);
    let positive_log_q = if nearest.choose == Choose::Top {
        Vec::new()
    } else {
        let beside = |place: Place| anchor.score(bank, place).map(|score| ranked_at(bank, place, score));
        let log_q = |place: &Option<Place>| {
            let entry = place.and_then(beside);
            entry.map_or(f64::NEG_INFINITY, |entry| log_q_beside(nearest, range, &ranking, &entry)) as f32
        };
        positives.iter().map(log_q).collect()
    };
    if nearest.candidates.is_some() {
        ranking.retain(|ranked| range.keeps(ranked.score));
    }
    let (scored, window) = (ranking.len(), window(nearest, ranking));
    let chosen = choose(&window, k, nearest.choose, stream);
    let told = nearest.rules.is_empty() || nearest.count_exact;
    Picked {
        places: chosen.picks.iter().map(|&at| place(&window[at])).collect(),
        scores: chosen.picks.iter().map(|&at| window[at].score).collect(),
        hardness: Hardness::default(),
        log_q: chosen.log_q,
        n: told.then_some(n),
        n_scored: nearest.count_exact.then_some(counted),
        n_band: None,
        log_partition: chosen.log_partition,
        kappa: chosen.kappa,
        positive_log_q,
        shortfalls: shortfalls(k, n, scored, chosen.picks.len()),
        odds: Odds::Window { window, how: nearest.choose },
    }
}

/// The entry at a place of this score, as rankings order it.
pub(super) fn ranked_at(bank: &Bank, Place { shard, slot }: Place, score: f32) -> Ranked {
    let columns = bank.shards()[shard as usize].columns();
    let (id, occupied_at, revision) = (columns.id(slot), columns.occupied_at(slot), columns.revision(slot));
    Ranked { score, shard, slot, identity: Identity { id, occupied_at, revision } }
}

/// Where a ranked entry lies.
pub(super) fn place(ranked: &Ranked) -> Place {
    Place { shard: ranked.shard, slot: ranked.slot }
}

/// What skip and window leave of a ranking.
fn window(nearest: &Nearest, mut ranking: Vec<Ranked>) -> Vec<Ranked> {
    ranking.drain(..nearest.skip.min(ranking.len()));
    ranking.truncate(nearest.window);
    ranking
}

/// Natural log of the probability that `entry` would have if it were ranked with the others and passed the score rules; minus infinity outside
/// the window.
fn log_q_beside(nearest: &Nearest, range: ScoreRange, ranking: &[Ranked], entry: &Ranked) -> f64 {
    let mut with = ranking.to_vec();
    with.insert(with.partition_point(|ranked| ranked < entry), *entry);
    with.truncate(nearest.depth());
    if nearest.candidates.is_some() {
        with.retain(|ranked| ranked == entry || range.keeps(ranked.score));
    }
    let window = window(nearest, with);
    let at = window.iter().position(|ranked| ranked == entry);
    at.and_then(|at| log_q_of(&window, nearest.choose).get(at).copied()).unwrap_or(f64::NEG_INFINITY)
}

/// The ranking, and the count, as a scan of the bank as it stands now would give them; `None` if only such a scan can tell.
///
/// Entries that no write has touched since the scan began keep their rank; touched ones are judged anew. The result must not
/// reach below what the scan knows.
fn patched(
    bank: &Bank,
    anchor: &Anchor,
    eligibility: &Eligibility,
    nearest: &Nearest,
    found: &Found,
    began: u64,
) -> Option<(Vec<Ranked>, usize)> {
    let probe = probe(anchor, nearest, nearest.depth())?;
    let changed: FxHashSet<Place> = bank.changed_since(began, MOST_MENDED)?.collect();
    let judged = |&place: &Place| {
        let columns = bank.columns(place);
        let identity = identity(columns, place.slot)?;
        let score = anchor.score(bank, place)?;
        let admitted = eligibility.rejects(anchor, columns, place.slot).is_none();
        admitted.then_some(Ranked { score, shard: place.shard, slot: place.slot, identity })
    };
    let judged: Vec<Ranked> = changed.iter().filter_map(judged).collect();
    let untouched = |ranked: &&Ranked| !changed.contains(&place(ranked));
    let mut patched: Vec<Ranked> = found.ranking.iter().filter(untouched).copied().collect();
    patched.extend(judged.iter().filter(|ranked| probe.range.keeps(ranked.score)));
    patched.sort_unstable();
    patched.truncate(nearest.depth());
    let known = || patched.len() == nearest.depth() && patched.last().is_some_and(|last| found.known.reaches(last));
    let complete = matches!(found.known, Known::All) || known();
    let before = changed.iter().filter(|place| found.counted.holds(place.shard, place.slot)).count();
    let now = judged.iter().filter(|ranked| probe.counted.is_some_and(|range| range.keeps(ranked.score))).count();
    complete.then_some((patched, found.counted.len() - before + now))
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
