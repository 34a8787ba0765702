//! How far a recovery has come, for those who watch it, and whether it is still wanted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::retry;
use crate::durability::Complaint;
use crate::model::{BankName, clock};

/// Between two lines that tell how far a recovery has come.
const BETWEEN_LINES: Duration = Duration::from_secs(2);
/// What a record has beside its payload on disk, about (decision 0012).
const FRAME: u64 = 48;
/// Until something has been read nobody knows how long the rest takes.
const UNKNOWN: Duration = Duration::from_secs(1);

/// Whether recoveries are still wanted. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Wish(Arc<AtomicBool>);

impl Default for Wish {
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl Wish {
    /// From now on they are not.
    pub(super) fn end(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    pub(super) fn holds(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Written by the thread that recovers a bank, read by whoever asks for the bank.
#[derive(Debug)]
pub(super) struct Progress {
    bank: BankName,
    /// Of the files that are to be read.
    bytes: u64,
    read: AtomicU64,
    began: OnceLock<Instant>,
    told: Mutex<Instant>,
    wish: Wish,
}

impl Progress {
    /// Nothing read yet of `bytes`.
    pub(super) fn of(bank: BankName, bytes: u64, wish: Wish) -> Self {
        Self { bank, bytes, read: AtomicU64::new(0), began: OnceLock::new(), told: Mutex::new(clock::now()), wish }
    }

    /// The reading begins.
    pub(super) fn begin(&self) {
        let began = *self.began.get_or_init(clock::now);
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = began;
    }

    /// Notes a record that was read, and says so in the logs now and then.
    ///
    /// # Errors
    /// If the recovery is not wanted any more. What the complaint says nobody reads: whoever gave it up asks for no outcome.
    pub(super) fn note(&self, payload: usize) -> Result<(), Complaint> {
        if !self.is_wanted() {
            return Err(Complaint::Damaged("the recovery was given up before this was read".to_owned()));
        }
        let read = self.read.fetch_add(payload as u64 + FRAME, Ordering::Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() >= BETWEEN_LINES {
            *told = clock::now();
            tracing::info!(bank = %self.bank, read, bytes = self.bytes, percent = self.percent(), "recovering");
        }
        Ok(())
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wish.holds()
    }

    /// Of the files that are to be read.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The share of them that was read; below 1 until the bank is served.
    pub(super) fn share(&self) -> f64 {
        let read = self.read.load(Ordering::Relaxed) as f64;
        (read / self.bytes.max(1) as f64).min(0.99)
    }

    /// The same in percent.
    pub(super) fn percent(&self) -> u8 {
        (self.share() * 100.0) as u8
    }

    /// When whoever was refused should come back: when the rest is read, if that takes as long as what was read.
    pub(super) fn retry_after(&self) -> Duration {
        let share = self.share();
        let took = self.began.get().map(Instant::elapsed).filter(|_| share > 0.0);
        retry::after(took.map_or(UNKNOWN, |took| took.mul_f64(((1.0 - share) / share).min(1e6))))
    }
}

#[cfg(test)]
mod tests {
    use super::{Progress, Wish};
    use crate::model::BankName;

    #[test]
    fn a_share_is_told_until_nobody_wants_the_rest() {
        let wish = Wish::default();
        let progress = Progress::of(BankName::parse("name", "b").unwrap(), 1_000, wish.clone());
        assert!(progress.percent() == 0 && progress.retry_after().as_millis() >= 1_000);
        progress.begin();
        progress.note(352).unwrap();
        assert_eq!(progress.percent(), 40);
        progress.note(5_000).unwrap();
        assert_eq!(progress.percent(), 99, "it is not whole before it is served");
        assert!(progress.retry_after().as_millis() < 1_000, "it is nearly done");
        wish.end();
        assert!(progress.note(1).is_err() && !progress.is_wanted());
    }
}
