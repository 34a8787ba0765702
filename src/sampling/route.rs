//! Searching for a block of anchors the way that costs least: by the graph where there is one and the draw may be approximate.

use std::time::Duration;

use super::SampleError;
use super::anchors::Anchor;
use super::eligibility::Eligibility;
use super::indexed::Indexed;
use super::observed::Observed;
use super::planner::Task;
use super::search::{self, Searched};
use super::walk::Walk;
use crate::index::Found;
use crate::model::{GraphRead, Metric, Nearest, Plan, ReasonCounts, clock};

/// What a search found, and why this way.
pub(super) struct Routed {
    pub(super) searched: Searched,
    pub(super) reason: String,
    pub(super) graph: Option<GraphRead>,
}

/// Entries that a walk keeps at most: it keeps them in order, which costs the more the more there are.
const MOST_EF: usize = 8_192;

/// Entries that a walk keeps for each that is wanted, and at least.
const KEPT: (usize, usize) = (2, 64);

/// The same among rows that lie where they are not linked.
const KEPT_IF_LIVE: (usize, usize) = (3, 64);

/// The same where what lies nearest is not wanted: the best of the rest lie around it on all sides, each side with links of its own.
const KEPT_IF_BARRED: (usize, usize) = (8, 256);

/// From so many entries on a walk keeps more, by this power of how many times as many there are: at a million what is kept at least is
/// 2.7 times as much, and where what lies nearest is not wanted, there are more sides, so that all is.
const GROWS: (f64, f64) = (262_144.0, 0.75);

/// Rows of a dot bank are built into the graph as if they lay on one sphere, where an anchor is about as far from all: walks that
/// find as much are this much wider.
const DOT_WIDER: usize = 4;

/// Searches for the block's `anchors` from number `first` on.
pub(super) fn search(
    observed: &mut Observed<'_>,
    (anchors, first): (&[Anchor], usize),
    eligibility: &mut Eligibility,
    nearest: &Nearest,
    rejections: &mut ReasonCounts,
    wanted: &dyn Fn() -> bool,
) -> Result<Routed, SampleError> {
    let (task, route) = route(observed, anchors.len() - first.min(anchors.len()), eligibility, nearest)?;
    let began = clock::now();
    let Route::Walk { reason } = route else {
        let searched = search::search(observed, (anchors, first), eligibility, nearest, rejections, wanted)?;
        if let (Some(indexed), Plan::Scan) = (observed.indexed(), searched.plan) {
            indexed.planner.scanned(task, clock::now().duration_since(began));
        }
        let Route::Exact { reason } = route else { return Ok(Routed { searched, reason: String::new(), graph: None }) };
        return Ok(Routed { searched, reason, graph: None });
    };
    let Some((indexed, view)) = observed.indexed().and_then(|indexed| Some((indexed, indexed.view()?))) else {
        let searched = search::search(observed, (anchors, first), eligibility, nearest, rejections, wanted)?;
        return Ok(Routed { searched, reason: "the graph is gone".to_owned(), graph: None });
    };
    let graph = {
        let (bank, taken) = (observed.read()?, view.generation.taken());
        GraphRead { sequence: taken.sequence, lag: bank.sequence().saturating_sub(taken.sequence) }
    };
    let reach = crate::index::Reach { ef: task.ef, most: indexed.planner.most_steps(task) };
    let mut walk = Walk { observed, view: &view, eligibility, nearest, rejections, wanted, reach, computed: 0 };
    let mine = anchors.get(first..).unwrap_or_default();
    let beside = walk.scan_beside(mine)?;
    let walks_began = clock::now();
    let mut found: Vec<Option<Found>> = walk.all(mine, beside)?;
    let computed = walk.computed;
    let short: Vec<usize> = (0..found.len()).filter(|&at| found[at].is_none()).collect();
    if short.len() * 2 <= found.len() {
        // A walk that was cut short tells what its filters cost, not what walks do: learnt from, such would end all others too.
        indexed.planner.walked(task, computed, clock::now().duration_since(walks_began));
    }
    let mut reason = reason;
    let mut plan = Plan::Graph;
    if !short.is_empty() {
        // One scan for all whose walk found too little. It begins later than the walks, which only means that more is judged anew.
        let again: Vec<Anchor> = short.iter().map(|&at| mine[at].clone()).collect();
        let mut scanned = search::search(observed, (&again, 0), eligibility, nearest, rejections, wanted)?;
        for (again, &at) in short.iter().enumerate() {
            found[at] = scanned.take(again).map(|(found, _)| found);
        }
        reason = format!("the graph found too few for {} of {} anchors, which were scanned for", short.len(), mine.len());
        plan = plan.max(scanned.plan);
    }
    let walked = short.len() < mine.len();
    let found = found.into_iter().map(Option::unwrap_or_default).collect();
    let searched = Searched::new(first, found, view.known, plan);
    Ok(Routed { searched, reason, graph: walked.then_some(graph) })
}

/// Why a search for so many anchors is a scan of all rows, in no words where there is no choice; `None` where it is not.
pub(super) fn scan_reason(
    observed: &mut Observed<'_>,
    anchors: usize,
    eligibility: &Eligibility,
    nearest: &Nearest,
) -> Result<Option<String>, SampleError> {
    let (_, route) = route(observed, anchors, eligibility, nearest)?;
    let is_scan = search::plan(&*observed.read()?, eligibility, nearest) == Plan::Scan;
    Ok(match route {
        Route::Only => is_scan.then(String::new),
        Route::Exact { reason } => is_scan.then_some(reason),
        Route::Walk { .. } => None,
    })
}

/// Hears what one scan for `anchors` of several requests took.
pub(super) fn scanned_together(observed: &Observed<'_>, (anchors, entries): (usize, usize), took: Duration) {
    if let Some(indexed) = observed.indexed() {
        indexed.planner.scanned(Task { anchors, entries, beside: 0, ef: 0, is_live: false, is_barred: false }, took);
    }
}

/// Entries that a walk for so many keeps in a bank of `entries`.
fn kept(depth: usize, entries: usize, is_barred: bool, is_live: bool) -> usize {
    let growth = (entries as f64 / GROWS.0).max(1.0).powf(GROWS.1);
    let grown = |kept: usize| (kept as f64 * growth) as usize;
    match (is_barred, is_live) {
        (true, _) => grown((KEPT_IF_BARRED.0 * depth).max(KEPT_IF_BARRED.1)),
        (_, true) => (KEPT_IF_LIVE.0 * depth).max(grown(KEPT_IF_LIVE.1)),
        _ => (KEPT.0 * depth).max(grown(KEPT.1)),
    }
}

enum Route {
    /// There was no choice.
    Only,
    Exact {
        reason: String,
    },
    Walk {
        reason: String,
    },
}

fn route(
    observed: &mut Observed<'_>,
    anchors: usize,
    eligibility: &Eligibility,
    nearest: &Nearest,
) -> Result<(Task, Route), SampleError> {
    let indexed = observed.indexed();
    let bank = observed.read()?;
    let (entries, metric) = (bank.entries(), bank.spec().metric());
    let depth = search::search_depth(nearest);
    let wider = if metric == Metric::Dot { DOT_WIDER } else { 1 };
    let standing = indexed.and_then(Indexed::standing);
    let is_live = standing.is_some_and(|standing| standing.has_drifted);
    let is_barred = eligibility.bars_what_is_near();
    let ef = nearest.search.ef.unwrap_or(kept(nearest.depth(), entries, is_barred, is_live) * wider);
    let ef = ef.clamp(depth.min(MOST_EF), MOST_EF);
    let mut task = Task { anchors, entries, beside: 0, ef, is_live, is_barred };
    let exact = |reason: &str| Route::Exact { reason: reason.to_owned() };
    let asked = nearest.search.plan == Some(Plan::Graph);
    let Some(indexed) = indexed else {
        return Ok((task, if asked { exact("a queue has no graph: it changes as a whole") } else { Route::Only }));
    };
    let Some(standing) = standing else {
        return Ok((task, if asked { exact("there is no graph: see GetBank") } else { Route::Only }));
    };
    if search::plan(&bank, eligibility, nearest) == Plan::PostingList {
        return Ok((task, exact("the labels asked for are listed")));
    }
    if !nearest.search.approximate {
        return Ok((task, exact("exact: the request has a seed, or asks for it")));
    }
    if depth > MOST_EF {
        return Ok((task, exact("a walk ranks less deep than that")));
    }
    if nearest.count_exact {
        return Ok((task, exact("count_exact needs a scan")));
    }
    if nearest.rules.has_floor() {
        return Ok((task, exact("rules that leave out low scores need a scan: a walk can't tell when it has seen the others")));
    }
    task.beside = standing.scanned;
    let (scan, graph) = (indexed.planner.scan_us(anchors, entries), indexed.planner.graph_us(task));
    Ok(match nearest.search.plan {
        Some(Plan::Graph) => (task, Route::Walk { reason: "asked for".to_owned() }),
        Some(_) => (task, exact("asked for")),
        None if graph < scan => {
            (task, Route::Walk { reason: format!("about {graph:.0} us for {anchors} anchors; a scan about {scan:.0}") })
        }
        None => (task, exact(&format!("about {scan:.0} us for {anchors} anchors; the graph about {graph:.0}"))),
    })
}

#[cfg(test)]
mod tests {
    use super::kept;

    #[test]
    fn walks_keep_more_in_larger_banks() {
        assert_eq!((kept(10, 100_000, false, false), kept(64, 262_144, false, false)), (64, 128));
        assert_eq!((kept(64, 100_000, false, true), kept(64, 100_000, true, true)), (192, 512));
        assert_eq!((kept(10, 1_000_000, false, false), kept(128, 1_000_000, false, false)), (174, 256));
        assert_eq!((kept(10, 1_000_000, true, false), kept(64, 1_000_000, true, false)), (698, 1_397));
    }
}
