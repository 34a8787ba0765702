//! What is found amiss by looking again and again: told of when it begins, changes and ends, and sparingly in between.

use std::time::{Duration, Instant};

/// What was amiss at the last look, if anything was.
#[derive(Debug, Default)]
pub(super) struct Amiss(Option<Since>);

#[derive(Debug)]
struct Since {
    fault: String,
    began: Instant,
    told: Instant,
}

/// What there is to tell after a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Telling {
    /// Something is amiss that was not, or something else than before.
    New,
    /// The same has been amiss for so long.
    Still(Duration),
    /// It is over, and was amiss for so long.
    Over(Duration),
}

/// How often the same is told of again.
const AGAIN: Duration = Duration::from_secs(3_600);

impl Amiss {
    /// Notes what a look at `now` found amiss.
    pub(super) fn found(&mut self, fault: Option<&str>, now: Instant) -> Option<Telling> {
        let Some(fault) = fault else {
            let ended = self.0.take()?;
            return Some(Telling::Over(now.saturating_duration_since(ended.began)));
        };
        match &mut self.0 {
            Some(since) if since.fault == fault => {
                let due = now.saturating_duration_since(since.told) >= AGAIN;
                due.then(|| {
                    since.told = now;
                    Telling::Still(now.saturating_duration_since(since.began))
                })
            }
            other => {
                *other = Some(Since { fault: fault.to_owned(), began: now, told: now });
                Some(Telling::New)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{AGAIN, Amiss, Telling};
    use crate::model::clock;

    #[test]
    fn a_fault_is_told_of_once_then_each_hour_and_at_its_end() {
        let (mut amiss, began) = (Amiss::default(), clock::now());
        let look = Duration::from_secs(10);
        assert_eq!(amiss.found(None, began), None);
        assert_eq!(amiss.found(Some("gone"), began), Some(Telling::New));
        assert!((1..360).all(|looks| amiss.found(Some("gone"), began + look * looks).is_none()));
        assert_eq!(amiss.found(Some("gone"), began + AGAIN), Some(Telling::Still(AGAIN)));
        assert_eq!(amiss.found(Some("gone"), began + AGAIN + look), None);
        let changed = began + AGAIN + look * 2;
        assert_eq!(amiss.found(Some("closed"), changed), Some(Telling::New));
        assert_eq!(amiss.found(None, changed + look), Some(Telling::Over(look)));
        assert_eq!(amiss.found(None, changed + look), None);
        assert_eq!(amiss.found(Some("gone"), changed + look), Some(Telling::New), "another time");
    }
}
