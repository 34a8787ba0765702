//! Answers to requests for negatives.

use bytes::Bytes;

use super::{Hardness, Seed};

/// How an answer was found, the cheapest first; see the proto's `Plan`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plan {
    /// Indexed draws from the roster.
    Roster,
    /// Indexed draws from posting lists.
    PostingList,
    /// The eligible entries were listed first.
    Enumeration,
    /// A walk through the graph, and a scan of what the graph does not know.
    Graph,
    /// Exact scan.
    Scan,
}

/// Why an entry was not served, or an answer is short; see the proto's `Reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The anchor's own id.
    Itself,
    /// One of the anchor's positives.
    Positive,
    /// Denied by id.
    Denied,
    /// The anchor's group.
    SameGroup,
    /// The anchor's label.
    SameLabel,
    /// Not among the labels asked for.
    Label,
    /// A score rule.
    Score,
    /// Fewer than k eligible entries are in the bank.
    TooFew,
    /// Skip and window leave fewer than k.
    Window,
    /// Too old.
    Age,
    /// A weight of 0.
    Weight,
    /// Not of the anchor's group, which alone is served.
    Group,
}

impl Reason {
    /// Every reason, in the order of [`ReasonCounts`].
    pub const ALL: [Self; 12] = [
        Self::Itself,
        Self::Positive,
        Self::Denied,
        Self::SameGroup,
        Self::SameLabel,
        Self::Label,
        Self::Score,
        Self::TooFew,
        Self::Window,
        Self::Age,
        Self::Weight,
        Self::Group,
    ];
}

/// A count per [`Reason`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReasonCounts([u64; Reason::ALL.len()]);

impl ReasonCounts {
    /// Counts `more` under `reason`.
    pub fn add(&mut self, reason: Reason, more: u64) {
        self.0[reason as usize] += more;
    }

    /// Adds every count of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// The reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.into_iter().zip(self.0).filter(|&(_, count)| count > 0)
    }
}

/// Served entries as columns; a column that was not asked for is empty. Each entry once, or one row a pick.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServedRows {
    /// Number of rows.
    pub len: usize,
    /// Ids.
    pub ids: Vec<u64>,
    /// Row-major embeddings as the form's encoding has them, in pieces of whole rows.
    pub embeddings: Vec<Bytes>,
    /// Labels.
    pub labels: Vec<Option<i64>>,
    /// Groups.
    pub groups: Vec<Option<u64>>,
    /// Training steps.
    pub steps: Vec<u64>,
    /// Sampling weights.
    pub weights: Vec<f32>,
}

/// The answer of one draw; see the proto's `DrawAnswer`.
#[derive(Debug, Clone, PartialEq)]
pub struct DrawAnswer {
    /// Picks of each anchor.
    pub counts: Vec<u32>,
    /// Row of each pick.
    pub indices: Vec<u32>,
    /// Score of each pick, or empty.
    pub scores: Vec<f32>,
    /// How hard the picks were whose score was known, asked for or not; nothing if the request is uncounted.
    pub hardness: Hardness,
    /// log_q of each pick, or empty; see [`SharedSet`] for a set.
    pub log_q: Vec<f32>,
    /// Size of each anchor's eligible set; empty where unknown.
    pub n: Vec<u32>,
    /// Logarithm of each anchor's partition sum over what it draws from, for softmax draws; else empty.
    pub log_partition: Vec<f32>,
    /// Each anchor's (k+1)th perturbed log-probability, for draws without replacement by unequal probabilities; else empty.
    pub kappa: Vec<f32>,
    /// Numbers of entries that pass filters and score rules, where they were counted; else empty.
    pub n_scored: Vec<u32>,
    /// Sizes of each anchor's band, for draws from one; else empty.
    pub n_band: Vec<u32>,
    /// Natural log of each pick's probability under the whole mixture, or empty.
    pub log_q_mix: Vec<f32>,
    /// Natural log of the probability of each anchor's positives, were they eligible; or empty.
    pub positive_log_q: Vec<f32>,
    /// What a draw for all anchors has beside these; `None` where each anchor drew for itself.
    pub shared: Option<SharedSet>,
    /// True if an entry may be picked twice.
    pub with_replacement: bool,
    /// How it was found.
    pub plan: Plan,
    /// Why that plan, where there was a choice.
    pub plan_reason: String,
    /// Of a softmax over everything in a bank too large for it: how many nearest entries it was over instead; else 0.
    pub candidates: u32,
    /// The graph that some of it was read from.
    pub graph: Option<GraphRead>,
    /// Picks of an entry that was picked for the same anchor before.
    pub duplicates: u64,
    /// Missing picks.
    pub shortfalls: ReasonCounts,
    /// Examined and rejected entries.
    pub rejections: ReasonCounts,
}

/// The graph that an approximate answer was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GraphRead {
    /// Mutations that were applied when its build began.
    pub sequence: u64,
    /// Mutations since.
    pub lag: u64,
}

impl GraphRead {
    /// The older of two.
    fn and(self, other: Option<Self>) -> Self {
        let other = other.unwrap_or(self);
        Self { sequence: self.sequence.min(other.sequence), lag: self.lag.max(other.lag) }
    }
}

/// What one set for all anchors is to each of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SharedSet {
    /// Anchors x entries: 1 where the entry is eligible for the anchor, else 0.
    pub mask: Vec<u8>,
    /// Entries that pass the filters which don't depend on the anchor.
    pub n: u32,
    /// Where entries of the set have unequal probabilities: what each anchor's survivors' `log_q` is above that of the set's entry. Else
    /// empty, and `log_q` has a value an anchor.
    pub log_q_shift: Vec<f32>,
}

impl DrawAnswer {
    /// The answer of a draw found by `plan`, nobody served yet.
    pub fn empty(plan: Plan, with_replacement: bool) -> Self {
        Self {
            counts: Vec::new(),
            indices: Vec::new(),
            scores: Vec::new(),
            hardness: Hardness::default(),
            log_q: Vec::new(),
            n: Vec::new(),
            log_partition: Vec::new(),
            kappa: Vec::new(),
            n_scored: Vec::new(),
            n_band: Vec::new(),
            log_q_mix: Vec::new(),
            positive_log_q: Vec::new(),
            shared: None,
            with_replacement,
            plan,
            plan_reason: String::new(),
            candidates: 0,
            graph: None,
            duplicates: 0,
            shortfalls: ReasonCounts::default(),
            rejections: ReasonCounts::default(),
        }
    }

    /// Appends the answer for the anchors that follow; `rows` tells where each of its rows lies now.
    pub fn append(&mut self, more: Self, rows: impl Fn(u32) -> u32) {
        self.counts.extend(more.counts);
        self.indices.extend(more.indices.into_iter().map(rows));
        self.scores.extend(more.scores);
        self.hardness.merge(&more.hardness);
        self.log_q.extend(more.log_q);
        self.n.extend(more.n);
        self.log_partition.extend(more.log_partition);
        self.kappa.extend(more.kappa);
        self.n_scored.extend(more.n_scored);
        self.n_band.extend(more.n_band);
        self.log_q_mix.extend(more.log_q_mix);
        self.positive_log_q.extend(more.positive_log_q);
        if more.plan > self.plan || self.plan_reason.is_empty() {
            self.plan_reason = more.plan_reason;
        }
        self.plan = self.plan.max(more.plan);
        self.graph = self.graph.map(|graph| graph.and(more.graph)).or(more.graph);
        self.duplicates += more.duplicates;
        self.shortfalls.merge(&more.shortfalls);
        self.rejections.merge(&more.rejections);
    }
}

/// The answer of a whole request.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleAnswer {
    /// Served entries.
    pub rows: ServedRows,
    /// One answer per draw of the request.
    pub draws: Vec<DrawAnswer>,
    /// The seed used.
    pub seed: Seed,
    /// Bank's sequence at the first read.
    pub sequence_first: u64,
    /// Bank's sequence at the last read.
    pub sequence_last: u64,
    /// Bank's step at the last read.
    pub step: Option<u64>,
    /// True if no write came between the reads, and no graph was read.
    pub reproducible: bool,
}
