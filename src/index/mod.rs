//! Finding the nearest entries: rankings, the scan over rows, and the faster one over codes.
//!
//! Knows rows and scores, not banks: what may be served is asked of an [`Admit`].

mod candidates;
pub mod coded_scan;
pub mod counted;
pub mod ranking;
pub mod scan;
pub mod shortlist;

pub use coded_scan::{CodedRun, CodedScan};
pub use counted::Counted;
pub use ranking::{Known, Ranked, Ranking};
pub use scan::{Admit, Found, Identity, Probe, Run, Scan, Slots};
pub use shortlist::Shortlist;
