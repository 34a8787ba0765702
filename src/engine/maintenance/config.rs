//! Settings of the graph index.

/// When and how keyed banks get a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexConfig {
    /// Whether graphs are built at all.
    pub enabled: bool,
    /// Whether graphs are kept on disk with their banks, so that a restarted server need not build them again.
    pub keep: bool,
    /// Entries from which on a bank gets one: below, a scan is about as fast.
    pub min_entries: usize,
    /// Links of a node (Malkov's M), 4 to 128.
    pub m: usize,
    /// Nearest nodes among which a new node's links are chosen.
    pub ef_construction: usize,
    /// Threads of a build; 0: half of the cores.
    pub threads: usize,
    /// Percent of the time that they may work.
    pub cpu_percent: usize,
    /// Percent of the entries that are scanned beside the graph, from which on it is built anew.
    pub rebuild_percent: usize,
    /// The same, from which on a finished build isn't worth serving.
    pub max_percent: usize,
    /// Rows whose cosine to what they were at the build, in percent, is below this are scanned.
    pub drift_percent: usize,
    /// Mean of that cosine, in percent, below which the graph is built anew.
    pub mean_drift_percent: usize,
}

impl Default for IndexConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            keep: true,
            min_entries: 100_000,
            m: 16,
            ef_construction: 200,
            threads: 0,
            cpu_percent: 100,
            rebuild_percent: 8,
            max_percent: 30,
            drift_percent: 85,
            mean_drift_percent: 90,
        }
    }
}

impl IndexConfig {
    /// Least cosine of a row to what it was that the graph is trusted with.
    pub(super) fn bound(self) -> f32 {
        self.drift_percent as f32 / 100.0
    }

    /// Why a small bank has no graph.
    pub(super) fn too_few(self) -> String {
        format!("serving by scan: fewer than {} entries (setting index.min_entries)", self.min_entries)
    }

    /// True if `scanned` of `entries` are at least this many percent.
    pub(super) fn reaches(percent: usize, scanned: usize, entries: usize) -> bool {
        scanned.saturating_mul(100) >= entries.max(1).saturating_mul(percent)
    }
}
