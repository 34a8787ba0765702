//! Whether the threads that answer calls still turn.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::clock;

/// What beats on the threads that answer calls, and is felt on another. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Pulse(Arc<Mutex<Instant>>);

/// How often it beats.
const EVERY: Duration = Duration::from_secs(1);

/// Without a beat for so long nobody is answered any more: only a restart helps.
const DEAD_AFTER: Duration = Duration::from_secs(60);

impl Pulse {
    /// Its first beat.
    pub(super) fn begin() -> Self {
        Self(Arc::new(Mutex::new(clock::now())))
    }

    /// Beats on the runtime that this is spawned on.
    pub(super) async fn beat(self) {
        loop {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = clock::now();
            tokio::time::sleep(EVERY).await;
        }
    }

    /// How long there has been no beat, if that is too long.
    pub(super) fn missed(&self, now: Instant) -> Option<Duration> {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(now.saturating_duration_since(last)).filter(|&since| since >= DEAD_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::{DEAD_AFTER, EVERY, Pulse};
    use crate::model::clock;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn it_is_missed_while_its_threads_are_stuck_and_felt_again_when_they_go_on() {
        let pulse = Pulse::begin();
        let began = clock::now();
        assert_eq!(pulse.missed(began + DEAD_AFTER / 2), None);
        let (stuck, mended) = std::sync::mpsc::channel::<()>();
        let stuck_for_good = tokio::spawn(async move { mended.recv().is_err() });
        tokio::spawn(pulse.clone().beat());
        std::thread::sleep(EVERY / 4);
        assert!(pulse.missed(began + DEAD_AFTER * 2).is_some_and(|since| since > DEAD_AFTER));
        drop(stuck);
        assert!(stuck_for_good.await.unwrap());
        let felt = async {
            while *pulse.0.lock().unwrap() <= began {
                tokio::time::sleep(EVERY / 100).await;
            }
        };
        tokio::time::timeout(EVERY * 30, felt).await.unwrap();
    }
}
