//! Drawing negatives: which entries are eligible, and one strategy a file.
//!
//! A block of anchors is answered on one thread, in short holds of the bank's lock. Its result depends on the bank and the
//! request only, never on how the anchors were split into blocks or which thread ran them.

mod anchors;
mod balanced;
mod band;
mod bars;
mod block;
mod calibration;
mod choose;
mod coded_search;
mod dense;
mod drawing;
mod eligibility;
mod filtered;
mod gathered;
mod held;
mod indexed;
mod joint_sieve;
mod law;
mod learnt;
mod measured;
mod merge;
mod mixture;
mod nearest;
mod observed;
mod odds;
mod part;
mod partition;
mod permutation;
mod picked;
mod planner;
mod recall;
mod repeats;
mod route;
mod search;
mod shared;
mod softmax;
mod source;
mod sum_tree;
mod together;
mod uniform;
mod universe;
mod unscored;
mod walk;
mod weighted;
mod whole;

pub use block::{BLOCK, Block, answer_block};
pub use calibration::calibrate;
pub use gathered::Gathered;
pub use indexed::{Indexed, Standing, tell, tell_since};
pub use learnt::Learnt;
pub use merge::Merge;
pub use observed::Seen;
pub use part::{Part, PartRows, Pool};
pub use recall::Recall;
pub use shared::answer_shared;
pub use source::Source;
pub use together::{MOST_TOGETHER, Pass, search_together};

use crate::model::Invalid;
use crate::rows::Poisoned;

/// Why a block has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// The request doesn't fit the bank's entries.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The bank is inconsistent.
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
    /// Writers made so many rows of the entries that were served that the answer is too large.
    #[error(
        "the answer grew past {0} bytes of embeddings (setting limits.max_answer_bytes), since entries were rewritten while it was \
         drawn and each version that is served is a row: ask for fewer anchors or a smaller k, encoding F16 or BF16, or columns \
         without EMBEDDINGS (ids only)"
    )]
    TooLarge(usize),
    /// Nobody waits for the answer any more.
    #[error("the request was cancelled or its deadline passed")]
    Unwanted,
}
