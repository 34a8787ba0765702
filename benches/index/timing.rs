//! Times.

use std::time::Instant;

/// Microseconds that `work` takes.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures")]
pub(crate) fn time_us(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64() * 1e6
}

pub(crate) fn median_us(mut times: Vec<f64>) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}
