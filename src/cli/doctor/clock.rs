//! How far the server's clock is from this machine's.

use std::time::{Duration, SystemTime};

/// The distance between the clocks, by the server's Date header, which has whole seconds; `None` if it can't be read.
#[expect(clippy::disallowed_methods, reason = "two machines' clocks are compared: nothing is computed from them")]
pub(super) fn distance(date: &str) -> Option<Duration> {
    let there = httpdate::parse_http_date(date).ok()?;
    let here = SystemTime::now();
    here.duration_since(there).or_else(|_| there.duration_since(here)).ok()
}

/// Now, in seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "compared with what another machine's calendar says")]
pub(super) fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::distance;

    #[test]
    fn a_clock_of_another_year_is_far_and_rubbish_is_none() {
        assert!(distance("Sun, 06 Nov 1994 08:49:37 GMT").unwrap() > Duration::from_secs(86_400 * 365 * 20));
        assert!(distance("yesterday").is_none());
    }
}
