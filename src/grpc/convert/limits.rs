//! How much one request may ask for.

use crate::model::{BankSpec, Invalid};

/// Limits on everything that a caller can size. Each error names the limit and its setting, `limits.<field>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Floats in an embedding.
    pub max_dim: usize,
    /// Entries of a bank: the capacity of a queue, the growth of a keyed bank.
    pub max_entries: usize,
    /// Rows of a write, ids of a removal.
    pub max_write_rows: usize,
    /// Ids of a fetch.
    pub max_fetch_rows: usize,
    /// Anchors of a request.
    pub max_anchors: usize,
    /// Ranks of a staged write.
    pub max_ranks: usize,
    /// Entries that one draw picks for one anchor; also the skip, window and candidates of `nearest`.
    pub max_k: usize,
    /// Ranks that a search keeps at once, over up to 64 anchors and all scored draws of a request: each takes 40 bytes while it runs.
    pub max_ranked: usize,
    /// Entries of a bank that softmax and band draws score for each anchor: each takes 4 bytes an anchor while it runs, for as many anchors
    /// at once as fit 64 MiB.
    pub max_scored_entries: usize,
    /// In a bank of more, a softmax draw is over so many nearest of each anchor instead of over everything, and its answer says so.
    pub softmax_candidates: usize,
    /// Picks of a request: anchors times the sum of the draws' k.
    pub max_picks: usize,
    /// Labels and ids listed in one filter.
    pub max_filter_values: usize,
    /// Ids and scores listed for the anchors of a request, each list over all anchors.
    pub max_listed_ids: usize,
    /// Size of an answer, estimated from above before work is done.
    pub max_answer_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_dim: 8_192,
            max_entries: 100_000_000,
            max_write_rows: 65_536,
            max_fetch_rows: 65_536,
            max_anchors: 16_384,
            max_ranks: 4_096,
            max_k: 65_536,
            max_ranked: 4_194_304,
            max_scored_entries: 16_777_216,
            softmax_candidates: 4_096,
            max_picks: 8_388_608,
            max_filter_values: 4_096,
            max_listed_ids: 1_048_576,
            max_answer_bytes: 64 << 20,
        }
    }
}

impl Limits {
    /// Largest value that `max_dim` may be set to: a row must fit a chunk.
    pub const LARGEST_DIM: usize = BankSpec::LARGEST_DIM;
}

/// Adds a fault on `field` if `value` passes `limit`.
pub(super) fn check(field: &str, value: usize, limit: usize, setting: &str, invalid: &mut Invalid) {
    if value > limit {
        invalid.push(field, format!("{value} is over the limit of {limit} (setting limits.{setting})"));
    }
}
