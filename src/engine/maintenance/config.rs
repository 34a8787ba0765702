//! Settings of the graph index.

use crate::index::BuildConfig;

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
            ef_construction: 100,
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
    /// Memory that a graph of rows of `dim` floats takes by entry, while another is built to take its place.
    pub(in crate::engine) fn peak_bytes_per_entry(self, dim: usize) -> usize {
        if !self.enabled {
            return 0;
        }
        // A bank that is copied to be built from, its spots, and twice M links in the lowest layer.
        let serving = 2 * dim + 32 + (2 * self.m + 2) * size_of::<u32>();
        serving + self.build().bytes_per_entry(dim)
    }

    /// How a graph is built.
    pub(super) fn build(self) -> BuildConfig {
        let half_of_cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        let threads = if self.threads == 0 { half_of_cores() } else { self.threads };
        BuildConfig { m: self.m, ef_construction: self.ef_construction, threads }
    }

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
