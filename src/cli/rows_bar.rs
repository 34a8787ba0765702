//! How far rows have come.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `rows` rows on standard error, if that is a terminal.
pub(super) fn rows_bar(rows: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {human_pos} of {human_len} rows, {per_sec}, {eta} left");
    ProgressBar::new(rows).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
