//! Which gather, and whose place in it.

use std::fmt;
use std::sync::Arc;

use crate::model::Invalid;

/// Names one gather: ranks that say the same three exchange their rows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GatherId {
    group: Arc<str>,
    step: u64,
    micro_batch: u32,
}

/// A rank's place in a gather.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    rank: u32,
    world_size: u32,
}

impl GatherId {
    /// Bytes of a group's name at most.
    pub const LONGEST_GROUP: usize = 128;

    /// The gather of a group's step.
    ///
    /// # Errors
    /// [`Invalid`] on `group` for no name or a long one.
    pub fn new(group: &str, step: u64, micro_batch: u32) -> Result<Self, Invalid> {
        if group.is_empty() || group.len() > Self::LONGEST_GROUP {
            let reason =
                format!("has {} bytes: 1 to {} are wanted, such as \"run-7/attempt-2\"", group.len(), Self::LONGEST_GROUP);
            return Err(Invalid::one("group", reason));
        }
        Ok(Self { group: group.into(), step, micro_batch })
    }

    /// Whose ranks they are.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Training step.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Micro-batch within the step.
    pub fn micro_batch(&self) -> u32 {
        self.micro_batch
    }
}

impl fmt::Display for GatherId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the gather of group {:?}, step {}, micro-batch {}", self.group, self.step, self.micro_batch)
    }
}

impl Seat {
    /// A rank's place.
    ///
    /// # Errors
    /// [`Invalid`] on `rank` if it is not below the world's size, on `world_size` for 0.
    pub fn new(rank: u32, world_size: u32) -> Result<Self, Invalid> {
        if world_size == 0 {
            return Err(Invalid::one("world_size", "is 0: at least one rank takes part"));
        }
        if rank >= world_size {
            return Err(Invalid::one("rank", format!("{rank} is outside 0..{world_size}, the ranks of the world")));
        }
        Ok(Self { rank, world_size })
    }

    /// The rank, below the world's size.
    pub fn rank(self) -> u32 {
        self.rank
    }

    /// Ranks that take part, at least 1.
    pub fn world_size(self) -> u32 {
        self.world_size
    }
}
