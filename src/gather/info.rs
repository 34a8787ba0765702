//! Gathers, for people.

use super::GatherId;

/// A gather as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatherInfo {
    /// Which.
    pub id: GatherId,
    /// Ranks that take part.
    pub world_size: u32,
    /// Ranks that are missing, the first [`GatherInfo::MOST_NAMED`].
    pub missing: Vec<u32>,
    /// It has an answer, which is kept.
    pub finished: bool,
    /// Room that it takes; of an open one, room for as much from every rank as from the one that brought most.
    pub bytes: usize,
}

impl GatherInfo {
    /// Missing ranks that are named at most.
    pub const MOST_NAMED: usize = 64;
}
