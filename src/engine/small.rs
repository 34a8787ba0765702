//! Small requests whose anchors one scan of their bank is for (decision 0017).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::costs::Effort;
use super::job::caught;
use super::query::Request;
use crate::model::clock;
use crate::sampling::{MOST_TOGETHER, Pass, SampleError, search_together};
use crate::telemetry::{Piece, Work};

/// A request of one block of few anchors, all of it on its way to a compute thread.
pub(super) struct Small {
    request: Arc<Request>,
    /// What its scan reads.
    pass: Pass,
    /// Anchors that are searched for, once for each draw that searches.
    anchors: usize,
    efforts: Efforts,
    /// What it is expected to add to a scan that is made anyway.
    adds: Duration,
    /// On whose behalf it is, and when it came.
    of: Option<(Work, Instant)>,
}

/// What a small request takes.
pub(super) struct Efforts {
    /// By itself.
    pub(super) alone: Effort,
    /// Beside others, whose scan reads the rows.
    pub(super) beside: Effort,
    /// That reading.
    pub(super) reading: Effort,
}

/// Small requests that are being brought together, as many as there is room and time for.
pub(super) struct Company<'a> {
    first: &'a Small,
    /// Further ones that may come.
    most: usize,
    anchors: usize,
    /// What the scan and all the rest is expected to take.
    pub(super) expected: Duration,
    /// What the one has left that is to be answered first.
    left: Duration,
    now: Instant,
}

/// Those who take part get no later than half-way to their deadlines, as it seems: what is expected is a mean.
const OF_THE_TIME_LEFT: f64 = 0.5;

impl Small {
    pub(super) fn new(request: &Arc<Request>, (pass, anchors): (Pass, usize), efforts: Efforts) -> Self {
        let adds = request.costs.estimate(&efforts.beside);
        Self { request: Arc::clone(request), pass, anchors, efforts, adds, of: None }
    }

    /// The same; what becomes of it is noted of a call, for which it came at this time.
    pub(super) fn noted(self, work: Work, came: Instant) -> Self {
        Self { of: Some((work, came)), ..self }
    }

    /// Answers it by itself.
    pub(super) fn go(self) {
        let began = clock::now();
        self.within(|| self.request.run(0, &self.efforts.alone));
        self.note(None, began, clock::now());
    }

    fn within<T>(&self, act: impl FnOnce() -> T) -> T {
        match &self.of {
            Some((work, _)) => work.within(act),
            None => act(),
        }
    }

    /// Notes a piece of work; `came`, if it did not wait since the request came.
    fn note(&self, came: Option<Instant>, began: Instant, ended: Instant) {
        if let Some((work, first)) = &self.of {
            work.computed(Piece { came: came.unwrap_or(*first), began, ended });
        }
    }

    /// Time that is left to it; none if nobody waits for it.
    fn left(&self, now: Instant) -> Duration {
        self.request.wanted.left(now)
    }
}

impl<'a> Company<'a> {
    /// The one that is `estimate` of work by itself, and room for `most` others.
    pub(super) fn of(first: &'a Small, estimate: Duration, most: usize, now: Instant) -> Self {
        Self { first, most, anchors: first.anchors, expected: estimate, left: first.left(now), now }
    }

    /// True if no other can come any more.
    pub(super) fn is_full(&self) -> bool {
        self.most == 0 || self.anchors >= MOST_TOGETHER
    }

    /// Takes another in if the same scan answers it, and nobody gets late by it.
    pub(super) fn admits(&mut self, other: &Small) -> bool {
        let (mine, same) = (&self.first.request, other.pass == self.first.pass);
        let anchors = self.anchors + other.anchors;
        if self.is_full() || anchors > MOST_TOGETHER || !same || !Arc::ptr_eq(&mine.bank, &other.request.bank) {
            return false;
        }
        let (expected, left) = (self.expected + other.adds, self.left.min(other.left(self.now)));
        if expected > left.mul_f64(OF_THE_TIME_LEFT) {
            return false;
        }
        (self.most, self.anchors, self.expected, self.left) = (self.most - 1, anchors, expected, left);
        true
    }
}

/// Answers requests of one bank, searching for the anchors of all in one scan; says what each took, of which the scan is shared by their
/// anchors. What befalls one is its own: one that nobody waits for any more, or that doesn't fit the bank's entries, takes no part; if
/// the scan itself panics, each is answered by itself.
pub(super) fn answer_together(small: &[Small]) -> Vec<Duration> {
    let Some(first) = small.first() else { return Vec::new() };
    let began = clock::now();
    let mut watch = Watch(began);
    let mut took = Vec::with_capacity(small.len());
    let mut blocks = Vec::with_capacity(small.len());
    for one in small {
        blocks.push(caught(|| one.request.block()));
        took.push(watch.lap());
    }
    let mut found: Vec<_> = blocks.iter_mut().filter_map(|block| block.as_mut()?.as_mut().ok()).collect();
    let wanted = || small.iter().any(|one| one.request.wanted.holds());
    let searched = caught(|| search_together(first.request.source(), &mut found, first.pass, &wanted));
    if let Some(Ok(together @ 2..)) = searched {
        first.request.served.joined(together);
    }
    let scan = watch.lap();
    let takes_part = |block: &Option<Result<_, SampleError>>| matches!(block, Some(Ok(_)));
    let anchors: usize = small.iter().zip(&blocks).filter(|(_, block)| takes_part(block)).map(|(one, _)| one.anchors).sum();
    for ((one, _), took) in small.iter().zip(&blocks).zip(&mut took).filter(|((_, block), _)| takes_part(block)) {
        *took += scan.mul_f64(one.anchors as f64 / anchors as f64);
    }
    let (mut computed, mut all) = (watch.0.duration_since(began), true);
    for ((one, block), took) in small.iter().zip(blocks).zip(&mut took) {
        one.note(None, began, began + *took);
        let goes_on = watch.0;
        // One that panicked keeps its reply channel, which is dropped with the others when all are done.
        let answered = block.and_then(|block| {
            let part = caught(|| block.and_then(|block| one.request.answer(block)))?;
            computed += clock::now().duration_since(goes_on);
            let is_whole = part.is_ok();
            caught(|| one.within(|| one.request.ended(0, part)))?;
            is_whole.then_some(())
        });
        all &= answered.is_some();
        *took += watch.lap();
        one.note(Some(goes_on), goes_on, watch.0);
    }
    if all {
        let effort = small.iter().fold(first.efforts.reading, |sum, one| sum.and(&one.efforts.beside));
        first.request.costs.learn(&effort, computed);
    }
    took
}

/// When it was last looked at.
struct Watch(Instant);

impl Watch {
    fn lap(&mut self) -> Duration {
        let before = std::mem::replace(&mut self.0, clock::now());
        self.0.duration_since(before)
    }
}

#[cfg(test)]
mod tests;
