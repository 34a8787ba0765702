//! What was served of one bank since it was created.

use std::sync::{Mutex, PoisonError};

use crate::model::{Metric, Plan, Reason, ReasonCounts, SampleAnswer};

/// Counts of served draws, and how hard they were.
#[derive(Debug)]
pub(super) struct Served {
    metric: Metric,
    /// False: nobody reads the counts, and nothing is counted.
    on: bool,
    tally: Mutex<Tally>,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    /// Draws answered, by [`Plan`].
    pub(super) draws: [u64; PLANS.len()],
    pub(super) picks: u64,
    pub(super) duplicates: u64,
    /// Scans that were for several requests, and those requests.
    pub(super) joined: (u64, u64),
    pub(super) shortfalls: ReasonCounts,
    pub(super) rejections: ReasonCounts,
    /// Cosine banks: picks that are at most as far, 1 less the cosine, as each of [`Tally::edges`], and farther than the one before.
    pub(super) distances: [u64; BINS],
    pub(super) distance_sum: f64,
}

/// Plans and their names.
pub(super) const PLANS: [(Plan, &str); 5] = [
    (Plan::Roster, "roster"),
    (Plan::PostingList, "posting_list"),
    (Plan::Enumeration, "enumeration"),
    (Plan::Graph, "graph"),
    (Plan::Scan, "scan"),
];

/// Tenths of a distance from 0 to 2, and rounding.
const BINS: usize = 21;

impl Served {
    /// Nothing yet, of a bank of this metric.
    pub(super) fn new(metric: Metric, on: bool) -> Self {
        Self { metric, on, tally: Mutex::default() }
    }

    /// Whether anything is counted.
    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// Counts an answer's draws.
    pub(super) fn count(&self, answer: &SampleAnswer) {
        if !self.on {
            return;
        }
        let mut more = Tally::default();
        for draw in &answer.draws {
            for (at, (plan, _)) in PLANS.iter().enumerate() {
                more.draws[at] += u64::from(draw.plan == *plan);
            }
            more.picks += draw.counts.iter().map(|&count| u64::from(count)).sum::<u64>();
            more.duplicates += draw.duplicates;
            more.shortfalls.merge(&draw.shortfalls);
            more.rejections.merge(&draw.rejections);
            if self.metric == Metric::Cosine && draw.shared.is_none() {
                draw.scores.iter().for_each(|&score| more.score(score));
            }
        }
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).add(&more);
    }

    /// Counts a scan that was for so many requests.
    pub(super) fn joined(&self, requests: usize) {
        if self.on {
            let more = Tally { joined: (1, requests as u64), ..Tally::default() };
            self.tally.lock().unwrap_or_else(PoisonError::into_inner).add(&more);
        }
    }

    pub(super) fn tally(&self) -> Tally {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tally {
    /// Upper edges of the bins, the last of which has none.
    pub(super) fn edges() -> impl Iterator<Item = f64> {
        (1..BINS).map(|bin| bin as f64 / 10.0).chain([f64::MAX])
    }

    fn score(&mut self, score: f32) {
        let distance = (1.0 - f64::from(score)).max(0.0);
        let bin = (distance * 10.0).ceil() as usize;
        self.distances[bin.saturating_sub(1).min(BINS - 1)] += 1;
        self.distance_sum += distance;
    }

    fn add(&mut self, more: &Self) {
        let pairs = self.draws.iter_mut().zip(more.draws).chain(self.distances.iter_mut().zip(more.distances));
        pairs.for_each(|(mine, more)| *mine += more);
        self.picks += more.picks;
        self.duplicates += more.duplicates;
        self.joined = (self.joined.0 + more.joined.0, self.joined.1 + more.joined.1);
        self.shortfalls.merge(&more.shortfalls);
        self.rejections.merge(&more.rejections);
        self.distance_sum += more.distance_sum;
    }
}

/// A reason as a label's value.
pub(super) fn name_of(reason: Reason) -> &'static str {
    match reason {
        Reason::Itself => "self",
        Reason::Positive => "positive",
        Reason::Denied => "denied",
        Reason::SameGroup => "same_group",
        Reason::SameLabel => "same_label",
        Reason::Label => "label",
        Reason::Score => "score",
        Reason::TooFew => "too_few",
        Reason::Window => "window",
        Reason::Age => "age",
        Reason::Weight => "weight",
        Reason::Group => "group",
    }
}
