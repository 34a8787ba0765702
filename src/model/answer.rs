//! Answers to requests for negatives.

use super::Seed;

/// How an answer was found, the cheapest first; see the proto's `Plan`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plan {
    /// Indexed draws from the roster.
    Roster,
    /// Indexed draws from posting lists.
    PostingList,
    /// The eligible entries were listed first.
    Enumeration,
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
}

impl Reason {
    /// Every reason, in the order of [`ReasonCounts`].
    pub const ALL: [Self; 10] = [
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

/// Served entries, each once, as columns; a column that was not asked for is empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PooledRows {
    /// Number of rows.
    pub len: usize,
    /// Ids.
    pub ids: Vec<u64>,
    /// Row-major embeddings.
    pub embeddings: Vec<f32>,
    /// Labels.
    pub labels: Vec<Option<i64>>,
    /// Groups.
    pub groups: Vec<Option<u64>>,
    /// Training steps.
    pub steps: Vec<u64>,
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
    /// log_q of each pick, or empty.
    pub log_q: Vec<f32>,
    /// Size of each anchor's eligible set; empty where unknown.
    pub n: Vec<u32>,
    /// Logarithm of each anchor's partition sum over its window, for softmax draws; else empty.
    pub log_partition: Vec<f32>,
    /// Each anchor's (k+1)th perturbed log-probability, for softmax draws without replacement; else empty.
    pub kappa: Vec<f32>,
    /// True if an entry may be picked twice.
    pub with_replacement: bool,
    /// How it was found.
    pub plan: Plan,
    /// Missing picks.
    pub shortfalls: ReasonCounts,
    /// Examined and rejected entries.
    pub rejections: ReasonCounts,
}

/// The answer for a block of consecutive anchors.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockAnswer {
    /// Served entries.
    pub rows: PooledRows,
    /// Identity of each row: where it lies and which write made it. Equal identities are equal rows.
    pub identities: Vec<(u64, u64)>,
    /// One answer per draw.
    pub draws: Vec<DrawAnswer>,
    /// Bank's sequence at the first read.
    pub sequence_first: u64,
    /// Bank's sequence at the last read.
    pub sequence_last: u64,
    /// Bank's change counter at the first and the last read; equal if no write came between.
    pub revisions: (u64, u64),
    /// Bank's step at the last read.
    pub step: Option<u64>,
    /// True if a read fell into the middle of a mutation.
    pub between: bool,
}

/// The answer of a whole request.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleAnswer {
    /// Served entries.
    pub rows: PooledRows,
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
    /// True if no write came between the reads.
    pub reproducible: bool,
}
