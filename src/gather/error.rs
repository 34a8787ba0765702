//! Why rows were not gathered.

use super::GatherId;
use crate::model::{Excess, Invalid};

/// What a caller is told instead of the rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatherError {
    /// Mend the request.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// The rank sent something else before.
    #[error(
        "rank {rank} has brought other rows to {id}: a rank brings its rows once, and a job that is restarted takes another group"
    )]
    Taken {
        /// Which gather.
        id: GatherId,
        /// The rank.
        rank: u32,
    },
    /// Bring less, or raise the limit: nothing that ends makes room for it.
    #[error("{0}")]
    NeverFits(#[from] Excess),
    /// Try again soon.
    #[error("{room} is full (limit {limit}, setting {setting})")]
    Full {
        /// Which room.
        room: &'static str,
        /// Its limit.
        limit: usize,
        /// The setting that changes it.
        setting: &'static str,
    },
    /// Come again when the server is back.
    #[error("the server is stopping: what waited for other ranks is gone; send it again once a server is back")]
    Stopping,
}
