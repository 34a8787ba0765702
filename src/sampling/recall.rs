//! How many of the true nearest entries approximate answers hold.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::block::answer_block;
use super::part::PartRows;
use super::source::Source;
use crate::model::{Plan, SampleAnswer, SampleQuery, clock};
use crate::rows::Recycler;

/// Recall of the last approximate answers that were checked by a scan.
#[derive(Debug, Default)]
pub struct Recall(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: Option<SampleQuery>,
    checked: Option<Instant>,
    mean: f64,
    samples: u64,
}

/// One check in this time: six a minute.
const EVERY: Duration = Duration::from_secs(10);

/// The last checks weigh most, about as many as this.
const REMEMBERED: u64 = 64;

impl Recall {
    /// Keeps the first draw of a query that a graph has answered for a check, if it is time for one.
    pub fn offer(&self, query: &SampleQuery, answer: &SampleAnswer) {
        let Some(draw) = answer.draws.iter().position(|draw| draw.graph.is_some()) else { return };
        let (mut state, now) = (self.lock(), clock::now());
        if state.checked.is_none_or(|checked| now.duration_since(checked) >= EVERY) {
            state.checked = Some(now);
            // Another anchor each time.
            let anchor = state.samples as usize * 7 % query.anchors().count;
            state.waiting = query.nearest_by(Plan::Graph, anchor, draw);
        }
    }

    /// Makes the check that waits, if one does: whoever has time calls this. Writes between the two searches make it a little worse
    /// than it is.
    pub fn check(&self, source: Source<'_>, wanted: &dyn Fn() -> bool) {
        let Some(walk) = self.lock().waiting.take() else { return };
        let Some(scan) = walk.nearest_by(Plan::Scan, 0, 0) else { return };
        if let (Some(walked), Some(scanned)) = (ids(source, &walk, wanted), ids(source, &scan, wanted)) {
            self.note(scanned.iter().filter(|id| walked.contains(id)).count(), scanned.len());
        }
    }

    /// Notes a check: `found` of the `all` that a scan found.
    fn note(&self, found: usize, all: usize) {
        if all == 0 {
            return;
        }
        let mut state = self.lock();
        state.samples += 1;
        let weight = 1.0 / state.samples.min(REMEMBERED) as f64;
        state.mean += weight * (found as f64 / all as f64 - state.mean);
    }

    /// The mean, and of how many checks; `None` before the first.
    pub fn mean(&self) -> Option<(f64, u64)> {
        let state = self.lock();
        (state.samples > 0).then_some((state.mean, state.samples))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ids that a query of one anchor is served; `None` if it is not answered.
fn ids(source: Source<'_>, query: &SampleQuery, wanted: &dyn Fn() -> bool) -> Option<Vec<u64>> {
    let part = answer_block(source, query, 0..1, &Recycler::default(), wanted).ok()?;
    match part.rows {
        PartRows::Pooled(pool) => Some(pool.gathered.ids),
        PartRows::PerDraw(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::Recall;

    #[test]
    fn the_mean_is_of_checks() {
        let recall = Recall::default();
        assert_eq!(recall.mean(), None);
        recall.note(0, 0);
        recall.note(10, 10);
        recall.note(5, 10);
        assert_eq!(recall.mean(), Some((0.75, 2)));
    }
}
