//! Mutations that wait for a bank's committer, a line for each caller.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::TrySendError;

use super::super::acknowledge::Acknowledge;
use super::super::fair::FairQueue;
use super::super::{EngineError, retry};
use crate::model::clock::{self, Deadline};
use crate::model::{Caller, Mutation};
use crate::sampling::Learnt;

/// What a mutation is supposed to take before any was measured, in nanoseconds.
const FIRST_PACE_NS: f32 = 1e6;
/// What a mutation is beside its rows, in rows.
const OVERHEAD: f64 = 8.0;
/// How much more, or less, than the mean a mutation is supposed to take at most.
const SPREAD: f64 = 16.0;

/// Mutations of a bank that wait: callers share its committer in equal parts, by the time that theirs take.
#[derive(Debug)]
pub(super) struct Waiting {
    lines: Mutex<FairQueue<Queued>>,
    bound: usize,
    /// Nanoseconds that a mutation takes, and how large one is.
    pace: Learnt,
    size: Learnt,
}

/// A mutation that waits, or is worked on.
pub(super) struct Queued {
    pub(super) mutation: Mutation,
    pub(super) acknowledge: Acknowledge,
}

/// On whose account a mutation goes.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Account {
    caller: Caller,
    estimate: Duration,
    size: f64,
}

impl std::fmt::Debug for Queued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queued").finish_non_exhaustive()
    }
}

impl Waiting {
    /// Room for `bound` of them.
    pub(super) fn new(bound: usize) -> Self {
        let lines = Mutex::new(FairQueue::new(bound, 1, clock::now()));
        Self { lines, bound, pace: Learnt::new(FIRST_PACE_NS), size: Learnt::new(OVERHEAD as f32) }
    }

    /// Adds one and has `announce` tell the committer, if there is room for the caller and its turn comes before `deadline`.
    pub(super) fn add(
        &self,
        caller: &Caller,
        queued: Queued,
        deadline: Option<Deadline>,
        announce: impl FnOnce() -> Result<(), TrySendError<()>>,
    ) -> Result<(), EngineError> {
        let (now, estimate) = (clock::now(), self.estimate(size(&queued.mutation)));
        let mut lines = self.lock();
        let done = lines.ahead_of(caller, estimate, now);
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.instant().saturating_duration_since(now));
        if done > left {
            return Err(EngineError::Overloaded { done, left, retry_after: retry::after(done - left) });
        }
        let half = lines.backlog() / 2;
        let full = || {
            let (queue, limit, setting) = ("the bank's write queue", self.bound, "compute.write_queue");
            EngineError::Busy { queue, limit, setting, retry_after: retry::after(half) }
        };
        lines.has_room(caller, 1).map_err(|_| full())?;
        // Whoever hears of it waits for the lock.
        announce().map_err(|refused| match refused {
            TrySendError::Full(()) => full(),
            TrySendError::Disconnected(()) => EngineError::Internal("the bank's committer has ended"),
        })?;
        lines.push(caller, estimate, queued);
        Ok(())
    }

    /// The next one, of the caller that has had least.
    pub(super) fn next(&self) -> Option<(Queued, Account)> {
        let (caller, estimate, queued) = self.lock().pop()?;
        let size = size(&queued.mutation);
        Some((queued, Account { caller, estimate, size }))
    }

    /// Hears what mutations took together that were worked off.
    pub(super) fn took(&self, accounts: &[Account], time: Duration) {
        if accounts.is_empty() {
            return;
        }
        let all: f64 = accounts.iter().map(|account| account.size).sum();
        self.pace.learn(time.as_nanos() as f64 / accounts.len() as f64);
        self.size.learn(all / accounts.len() as f64);
        let now = clock::now();
        let mut lines = self.lock();
        for Account { caller, estimate, size } in accounts {
            lines.ended(caller, *estimate, time.mul_f64(size / all), now);
        }
    }

    /// Hears how long it took to find that one is not to be applied.
    pub(super) fn refused(&self, Account { caller, estimate, .. }: &Account, time: Duration) {
        self.lock().ended(caller, *estimate, time, clock::now());
    }

    fn estimate(&self, size: f64) -> Duration {
        let share = (size / self.size.get()).clamp(1.0 / SPREAD, SPREAD);
        Duration::from_secs_f64((self.pace.get() * share / 1e9).min(1e6))
    }

    fn lock(&self) -> MutexGuard<'_, FairQueue<Queued>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In rows.
fn size(mutation: &Mutation) -> f64 {
    let rows = match mutation {
        Mutation::Remove(ids) => ids.len(),
        Mutation::Write(_) | Mutation::Stage(..) => mutation.batches().iter().map(|batch| batch.rows()).sum(),
    };
    OVERHEAD + rows as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Acknowledge, Queued, Waiting};
    use crate::engine::EngineError;
    use crate::model::clock::Deadline;
    use crate::model::{Caller, Mutation};

    fn caller(name: &str) -> Caller {
        Caller::Subject(name.into())
    }

    fn add(waiting: &Waiting, name: &str, rows: usize, deadline: Option<Deadline>) -> Result<(), EngineError> {
        let queued = Queued { mutation: Mutation::Remove(vec![0; rows]), acknowledge: Acknowledge::new(drop) };
        waiting.add(&caller(name), queued, deadline, || Ok(()))
    }

    #[test]
    fn a_greedy_writer_leaves_room_and_turns_for_a_polite_one() {
        let waiting = Waiting::new(16);
        let taken = (0..16).take_while(|_| add(&waiting, "greedy", 4_000, None).is_ok()).count();
        assert_eq!(taken, 8, "half of the room is for others");
        let mut served = Vec::new();
        for _ in 0..4 {
            add(&waiting, "polite", 1, None).unwrap();
            // Whoever was not served yet is next, or after what was begun before it came.
            for _ in 0..2 {
                let (queued, account) = waiting.next().unwrap();
                let Mutation::Remove(ids) = &queued.mutation else { panic!("only removals") };
                served.push(ids.len());
                waiting.took(&[account], Duration::from_micros(ids.len() as u64));
            }
        }
        assert_eq!(served.iter().filter(|rows| **rows == 1).count(), 4, "{served:?}");
    }

    #[test]
    fn a_write_is_supposed_to_take_as_long_as_its_rows() {
        let waiting = Waiting::new(64);
        for _ in 0..100 {
            add(&waiting, "a", 992, None).unwrap();
            let (_, account) = waiting.next().unwrap();
            waiting.took(&[account], Duration::from_millis(100));
        }
        (0..10).for_each(|_| add(&waiting, "a", 992, None).unwrap());
        let soon = Deadline::after(Duration::from_millis(900));
        assert!(matches!(add(&waiting, "a", 1, Some(soon)), Err(EngineError::Overloaded { .. })));
        add(&waiting, "a", 1, Some(Deadline::after(Duration::from_secs(50)))).unwrap();
        add(&waiting, "b", 1, Some(soon)).expect("others' work does not wait for all of it");
    }
}
