//! Finding the nearest entries: rankings and the exact scan.
//!
//! Knows rows and scores, not banks: what may be served is asked of an [`Admit`].

pub mod counted;
pub mod ranking;
pub mod scan;

pub use counted::Counted;
pub use ranking::{Ranked, Ranking};
pub use scan::{Admit, Found, Identity, Probe, Run, Scan, Slots};
