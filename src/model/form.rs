//! What of an answer is sent, and how.

use super::Encoding;

/// What of each negative is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set of columns, each wanted or not")]
pub struct Columns {
    /// Ids of the pooled rows.
    pub ids: bool,
    /// Embeddings of the pooled rows.
    pub embeddings: bool,
    /// Labels of the pooled rows.
    pub labels: bool,
    /// Groups of the pooled rows.
    pub groups: bool,
    /// Steps of the pooled rows.
    pub steps: bool,
    /// Sampling weights of the pooled rows.
    pub weights: bool,
    /// Score of each pick that an anchor draws for itself.
    pub scores: bool,
    /// log_q of each pick.
    pub log_q: bool,
}

/// How the rows of an answer lie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Layout {
    /// Each served entry once; picks point to them.
    #[default]
    Pooled,
    /// A row a pick, draw after draw.
    PerAnchor,
}

/// What is answered, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// Columns sent.
    pub columns: Columns,
    /// How the rows lie.
    pub layout: Layout,
    /// How embeddings are sent.
    pub encoding: Encoding,
    /// Whether a SHARED draw scores its set against every anchor.
    pub scores_of_shared: bool,
    /// Bytes of embeddings that the answer may have at most: writers make more rows of one entry while it is drawn.
    pub most_bytes: usize,
    /// Whether each pick's log-probability under the whole mixture is answered.
    pub log_q_mix: bool,
    /// Whether the log-probability of each anchor's positives is answered.
    pub positive_log_q: bool,
}

impl Form {
    /// These columns, pooled, as f32.
    pub fn pooled(columns: Columns) -> Self {
        Self {
            columns,
            layout: Layout::Pooled,
            encoding: Encoding::F32,
            scores_of_shared: columns.scores,
            most_bytes: usize::MAX,
            log_q_mix: false,
            positive_log_q: false,
        }
    }
}
