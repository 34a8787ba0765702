//! Settings of gathers.

use std::time::Duration;

/// How much may be gathered, and how long it is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Bytes of one gather's rows, all ranks together.
    pub max_bytes: usize,
    /// Bytes of all gathers that wait for ranks or are remembered.
    pub max_total_bytes: usize,
    /// Gathers that wait for ranks or are remembered.
    pub max_gathers: usize,
    /// How long a finished one is remembered.
    pub keep: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_bytes: 32 << 20, max_total_bytes: 256 << 20, max_gathers: 1_024, keep: Duration::from_secs(60) }
    }
}
