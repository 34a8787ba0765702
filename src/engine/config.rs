//! Settings of the engine.

use super::{CheckpointsConfig, DurabilityConfig, GatherConfig, IndexConfig, MemoryConfig};

/// Sizes of the engine's pools and queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Whether what is served is counted, and how long it takes: for whoever reads metrics.
    pub measured: bool,
    /// Compute threads; 0: one per core.
    pub threads: usize,
    /// Blocks of anchors that may wait for a compute thread; a caller who has some waiting may have as many as there is room left.
    pub queue: usize,
    /// Mutations that may wait for a bank's committer; a caller who has some waiting may have as many as there is room left.
    pub write_queue: usize,
    /// Banks at most.
    pub max_banks: usize,
    /// Dimension of a bank that is restored at most.
    pub max_dim: usize,
    /// Entries of a keyed bank at most.
    pub max_entries: usize,
    /// Staged writes of a bank that may wait for their ranks.
    pub max_stages: usize,
    /// Rows in them.
    pub max_staged_rows: usize,
    /// How much memory may be used.
    pub memory: MemoryConfig,
    /// The graph index.
    pub index: IndexConfig,
    /// Gathers.
    pub gather: GatherConfig,
    /// What outlives the server.
    pub durability: DurabilityConfig,
    /// What is kept of banks apart from the server.
    pub checkpoints: CheckpointsConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            measured: true,
            threads: 0,
            queue: 4_096,
            write_queue: 128,
            max_banks: 1_024,
            max_dim: 65_536,
            max_entries: 100_000_000,
            max_stages: 64,
            max_staged_rows: 1_048_576,
            memory: MemoryConfig::default(),
            index: IndexConfig::default(),
            gather: GatherConfig::default(),
            durability: DurabilityConfig::default(),
            checkpoints: CheckpointsConfig::default(),
        }
    }
}
