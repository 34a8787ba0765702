//! Writes of several ranks that are applied as one.

use super::Invalid;

/// A rank's place in a staged write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// Which staged write.
    pub at: StageAt,
    /// The rank, below the world's size.
    pub rank: u32,
    /// Ranks that must write before anything is applied, at least 1.
    pub world_size: u32,
}

/// Names a staged write of a bank; they commit in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StageAt {
    /// Training step.
    pub step: u64,
    /// Micro-batch within the step, from 0 on.
    pub micro_batch: u32,
}

impl Stage {
    /// A rank's place.
    ///
    /// # Errors
    /// [`Invalid`] on `stage.rank` if it is not below the world's size, on `stage.world_size` for 0.
    pub fn new(at: StageAt, rank: u32, world_size: u32) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        if world_size == 0 {
            invalid.push("stage.world_size", "is 0: at least one rank writes");
        } else if rank >= world_size {
            invalid.push("stage.rank", format!("{rank} is outside 0..{world_size}, the ranks of the world"));
        }
        invalid.or(Self { at, rank, world_size })
    }
}

impl std::fmt::Display for StageAt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "step {}, micro-batch {}", self.step, self.micro_batch)
    }
}
