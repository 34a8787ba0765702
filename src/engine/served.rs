//! What was served of one bank since it was created.

use std::sync::{Mutex, PoisonError};

use crate::model::{Hardness, Plan, Reason, ReasonCounts, SampleAnswer};

/// Counts of served draws, and how hard they were.
#[derive(Debug)]
pub(super) struct Served {
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
    /// Of picks whose score was known.
    pub(super) hardness: Hardness,
    /// Mean score of the last of them.
    pub(super) score: Option<f64>,
}

/// Plans and their names.
pub(super) const PLANS: [(Plan, &str); 5] = [
    (Plan::Roster, "roster"),
    (Plan::PostingList, "posting_list"),
    (Plan::Enumeration, "enumeration"),
    (Plan::Graph, "graph"),
    (Plan::Scan, "scan"),
];

impl Served {
    /// Nothing yet.
    pub(super) fn new(on: bool) -> Self {
        Self { on, tally: Mutex::default() }
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
            more.hardness.merge(&draw.hardness);
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
    fn add(&mut self, more: &Self) {
        self.draws.iter_mut().zip(more.draws).for_each(|(mine, more)| *mine += more);
        self.picks += more.picks;
        self.duplicates += more.duplicates;
        self.joined = (self.joined.0 + more.joined.0, self.joined.1 + more.joined.1);
        self.shortfalls.merge(&more.shortfalls);
        self.rejections.merge(&more.rejections);
        self.hardness.merge(&more.hardness);
        if let Some(score) = more.hardness.mean_score() {
            let before = self.score.unwrap_or(score);
            self.score = Some(before + (score - before) * -(-(more.hardness.picks() as f64) / OF_LATE).exp_m1());
        }
    }
}

/// Picks after which one counts an e-th of what it did in the mean score.
const OF_LATE: f64 = 4_096.0;

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
