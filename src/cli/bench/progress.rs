//! What a person at a terminal sees while it runs; nothing where standard error is none.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Makes the bars.
#[derive(Debug)]
pub(super) struct Progress;

impl Progress {
    /// Counts entries.
    #[expect(clippy::unused_self, reason = "bars come from one place")]
    pub(super) fn filling(&self, entries: u64) -> ProgressBar {
        bar(entries, "filling   {wide_bar} {human_pos} of {human_len} entries")
    }

    /// Counts milliseconds.
    #[expect(clippy::unused_self, reason = "bars come from one place")]
    pub(super) fn measuring(&self, lasts: Duration) -> ProgressBar {
        bar(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX), "measuring {wide_bar} {elapsed} {msg}")
    }

    /// Rates a second, in words.
    pub(super) fn rates(calls: f64, negatives: f64, failed: u64) -> String {
        format!("{calls:.0} requests/s, {:.2} M negatives/s, {failed} failed", negatives / 1e6)
    }
}

fn bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}
