//! Log lines that clients cause, a few at a time: who repeats what is refused must not fill the log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::clock;

/// How often lines of a kind were written of late. One for each kind, for all clients together.
#[derive(Debug)]
pub(super) struct Sparing(Mutex<Told>);

#[derive(Debug)]
struct Told {
    since: Option<Instant>,
    lines: u32,
    untold: u64,
}

/// Lines of a kind that are written within [`WHILE`].
const LINES: u32 = 10;

const WHILE: Duration = Duration::from_secs(10);

impl Sparing {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Told { since: None, lines: 0, untold: 0 }))
    }

    /// Whether a line may be written; if so, how many were not since the last.
    pub(super) fn turn(&self) -> Option<u64> {
        self.turn_at(clock::now())
    }

    fn turn_at(&self, now: Instant) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.since.is_none_or(|since| now.saturating_duration_since(since) >= WHILE) {
            (told.since, told.lines) = (Some(now), 0);
        }
        if told.lines == LINES {
            told.untold += 1;
            return None;
        }
        told.lines += 1;
        Some(std::mem::take(&mut told.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::{LINES, Sparing, WHILE};
    use crate::model::clock;

    #[test]
    fn a_few_lines_are_written_and_the_next_says_how_many_were_not() {
        let (sparing, now) = (Sparing::new(), clock::now());
        assert!((0..LINES).all(|_| sparing.turn_at(now) == Some(0)));
        assert!((0..500).all(|_| sparing.turn_at(now + WHILE / 2).is_none()));
        assert_eq!(sparing.turn_at(now + WHILE), Some(500));
        assert_eq!(sparing.turn_at(now + WHILE), Some(0));
    }
}
