//! Finding the nearest entries: rankings, the scan over rows, the faster one over codes, and the graph.
//!
//! Knows rows and scores, not banks: what may be served is asked of an [`Admit`].

mod candidates;
pub mod coded_scan;
pub mod counted;
pub mod delta;
pub mod flat_graph;
pub mod frozen;
pub mod generation;
pub mod hnsw;
pub mod ranking;
mod refine;
mod saved;
pub mod scan;
pub mod shortlist;
pub mod visits;

pub use coded_scan::{CodedRun, CodedScan};
pub use counted::Counted;
pub use delta::{Delta, Scanned};
pub use flat_graph::Reach;
pub use frozen::{Freezer, Frozen, Spot};
pub use generation::{Candidate, Generation, Present, Taken};
pub use hnsw::{BuildConfig, BuildError};
pub use ranking::{Known, Ranked, Ranking};
pub use saved::Loading;
pub use scan::{Admit, Found, Identity, Probe, Run, Scan, Slots};
pub use shortlist::Shortlist;
pub use visits::{Stretch, Visits};
