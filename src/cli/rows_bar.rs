//! How far rows have come.

use std::fmt::Write;

use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};

/// A bar of `rows` rows on standard error, if that is a terminal.
pub(super) fn rows_bar(rows: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {human_pos} of {human_len} rows, {rate} a second, {eta} left");
    let rate = |state: &ProgressState, out: &mut dyn Write| {
        // It writes to memory.
        let _written = write!(out, "{}", HumanCount(state.per_sec() as u64));
    };
    ProgressBar::new(rows).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).with_key("rate", rate))
}
