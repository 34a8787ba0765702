//! Banks that are on disk and not served yet: recovered beside the calls, the small ones first, each served as soon as it is there.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::thread;

use crossbeam_channel::{Receiver, bounded};
use dashmap::DashMap;

use super::banks::{Refused, capacity};
use super::{Engine, Inner};
use crate::bank::Bank;
use crate::codec::BankRecord;
use crate::durability::{Damaged, Folder, Found, StoreError};
use crate::engine::journal::{Keeping, Kept, WORTH};
use crate::engine::ledger::{Part, Share};
use crate::engine::progress::{Progress, Wish};
use crate::engine::recovery::{Recovered, recover, why_not};
use crate::engine::{BankInfo, EngineError};
use crate::model::{BankKind, BankName, BankSpec, Durability};
use crate::rows::Shared;

/// Banks that are recovered at the same time, at most: they share a disk, and the processors with the calls.
const MOST_AT_ONCE: usize = 4;

/// The banks that are on their way. None comes after the start.
#[derive(Debug, Default)]
pub(super) struct Recovering {
    banks: DashMap<BankName, Arc<Coming>>,
    /// How many: most of the time none, and then no call looks further.
    left: AtomicUsize,
    wish: Wish,
}

/// A bank that is being recovered, or waits for that.
#[derive(Debug)]
pub(super) struct Coming {
    folder: Folder,
    progress: Progress,
    /// What it will take at the least, so that others don't grow into it.
    _memory: Share,
}

impl Recovering {
    fn add(&self, folder: Folder, (bytes, memory): (u64, Share)) {
        let name = folder.record().name.clone();
        let progress = Progress::of(name.clone(), bytes, self.wish.clone());
        self.banks.insert(name, Arc::new(Coming { folder, progress, _memory: memory }));
        self.left.fetch_add(1, Ordering::Release);
    }

    /// How it stands with a bank of that name.
    pub(super) fn get(&self, name: &BankName) -> Option<Arc<Coming>> {
        if self.left.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.banks.get(name).map(|coming| Arc::clone(&coming))
    }

    /// All that are on their way, by name.
    pub(super) fn all(&self) -> Vec<Arc<Coming>> {
        let mut all: Vec<_> = self.banks.iter().map(|coming| Arc::clone(&coming)).collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// How many are on their way.
    pub(super) fn len(&self) -> usize {
        self.left.load(Ordering::Acquire)
    }

    /// The bank is served, or refused.
    fn done(&self, name: &BankName) {
        self.banks.remove(name);
        self.left.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Recovering {
    fn drop(&mut self) {
        self.wish.end();
    }
}

impl Coming {
    pub(super) fn name(&self) -> &BankName {
        &self.folder.record().name
    }

    pub(super) fn spec(&self) -> BankSpec {
        self.folder.record().spec
    }

    pub(super) fn durability(&self) -> Durability {
        self.folder.record().durability
    }

    /// What every call of it is answered.
    pub(super) fn refusal(&self) -> EngineError {
        let (percent, retry_after) = (self.progress.percent(), self.progress.retry_after());
        EngineError::Recovering { name: self.name().clone(), percent, retry_after }
    }

    /// The same for people.
    pub(super) fn told(&self) -> String {
        format!("bank {} is being recovered: {} % read", self.name(), self.progress.percent())
    }
}

impl Engine {
    /// Descriptions of the banks that are being recovered, by name: their settings, and how much of their files was read.
    ///
    /// # Errors
    /// [`EngineError::Poisoned`]
    pub fn recovering(&self) -> Result<Vec<BankInfo>, EngineError> {
        self.inner.recovering.all().iter().map(|coming| self.inner.outlined(coming)).collect()
    }

    /// The same of the bank of that name; `None`: it is not one of them.
    ///
    /// # Errors
    /// [`EngineError::Poisoned`]
    pub fn recovering_bank(&self, name: &str) -> Result<Option<BankInfo>, EngineError> {
        let coming = BankName::parse("name", name).ok().and_then(|name| self.inner.coming(&name));
        coming.map(|coming| self.inner.outlined(&coming)).transpose()
    }

    /// Gives up what is being recovered, and leaves it as it is on disk.
    pub fn stop_recovering(&self) {
        self.inner.recovering.wish.end();
    }
}

impl Inner {
    /// The bank of that name, if it is on its way.
    pub(super) fn coming(&self, name: &BankName) -> Option<Arc<Coming>> {
        // In this order: a bank is served before it is no longer on its way.
        self.recovering.get(name).filter(|_| !self.banks.contains_key(name))
    }

    /// Names that are taken by banks which are served, or will be.
    pub(super) fn taken_names(&self) -> usize {
        let coming = self.recovering.all();
        self.banks.len() + coming.iter().filter(|coming| !self.banks.contains_key(coming.name())).count()
    }

    /// Notes which banks are on disk. One whose settings can't be read is refused from then on, and said so.
    pub(super) fn find_banks(&self) -> Result<(), EngineError> {
        let Some(store) = &self.store else { return Ok(()) };
        let mut by_name: BTreeMap<BankName, Vec<Found>> = BTreeMap::new();
        store.banks()?.into_iter().for_each(|found| by_name.entry(found.name.clone()).or_default().push(found));
        for (name, mut found) in by_name {
            let paths: Vec<PathBuf> = found.iter().map(|found| found.path.clone()).collect();
            let record = agreed(&found);
            // The one that is not settled tells of the others.
            let unsettled = found.iter().position(|found| matches!(found.folder, Err(StoreError::Unsettled(_))));
            let only = match unsettled {
                Some(at) => Some(found.swap_remove(at)),
                None => found.pop().filter(|_| found.is_empty()),
            };
            let readable = match only {
                None => Err(EngineError::Damaged(format!("there are several banks of that name: {}", named(&paths)))),
                Some(found) => found.folder.and_then(|folder| Ok((folder.bytes()?, folder))).map_err(why_not),
            };
            match readable {
                Ok(((snapshot, log), folder)) => {
                    let memory = self.ledger.share(Part::Rows);
                    memory.set(at_least(&folder.record().spec, (snapshot, log), self.config.durability.snapshot_log_bytes));
                    self.recovering.add(folder, (snapshot + log, memory));
                }
                Err(fault) => self.refuse(name, record.iter().fold(Refused::of(paths, &fault), Refused::with)),
            }
        }
        let coming = self.recovering.len();
        self.health.send_modify(|health| health.recovering = coming);
        Ok(())
    }

    /// Keeps the name for a bank that is on disk and can't be served.
    pub(super) fn refuse(&self, name: BankName, refused: Refused) {
        let then =
            if refused.may_pass { "no damage was found, and the next start may serve it" } else { "it is as it was on disk" };
        tracing::error!(bank = %name, fault = refused.why(), "the bank is refused: {then}, and it can be deleted");
        self.refused.insert(name, refused);
    }

    /// Begins to recover the banks that were found, on threads that end with the last of them.
    pub(super) fn begin_to_recover(self: &Arc<Self>) -> io::Result<()> {
        let mut coming = self.recovering.all();
        coming.sort_by_key(|coming| coming.progress.bytes());
        let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MOST_AT_ONCE).min(coming.len());
        let (queue, next) = bounded(coming.len());
        for coming in coming {
            // There is room for all of them.
            let _queued = queue.send(coming);
        }
        for number in 0..threads {
            let (inner, next) = (Arc::downgrade(self), next.clone());
            thread::Builder::new().name(format!("recover-{number}")).spawn(move || work_off(&inner, &next))?;
        }
        Ok(())
    }

    /// Begins to serve a bank that was recovered.
    fn take_up(&self, recovered: Recovered) -> Result<(), EngineError> {
        let Recovered { bank, log, snapshot, folder } = recovered;
        let record = folder.record().clone();
        let keeping = match log {
            Ok(log) => Keeping::Kept(Kept { folder, log, snapshot }),
            Err(full) if full.wants_room() => {
                let sequence = bank.sequence();
                tracing::error!(bank = %record.name, fault = %full, sequence, "the bank is served as it is, and takes no writes: make room on the disk and restart the server");
                Keeping::Full { folder, what: full.to_string() }
            }
            Err(damage) if self.config.durability.damaged == Damaged::ReadOnly => {
                let sequence = bank.sequence();
                tracing::error!(bank = %record.name, %damage, sequence, "the bank is served as it was before the damage, and takes no writes");
                Keeping::Damaged { folder, what: damage.to_string() }
            }
            Err(damage) => return Err(damage.into()),
        };
        let _one_at_a_time = self.catalogue.lock().unwrap_or_else(PoisonError::into_inner);
        self.open(&record, bank, keeping).map(|_| ())
    }

    /// What can be told of a bank that is on its way.
    fn outlined(&self, coming: &Coming) -> Result<BankInfo, EngineError> {
        let (spec, keyed) = (coming.spec(), matches!(coming.spec().kind(), BankKind::Keyed { .. }));
        let info = BankInfo::of(coming.name(), (&Shared::new(Bank::new(spec)), None), Vec::new())?;
        let graph = if keyed { self.config.index.peak_bytes_per_entry(spec.dim()) } else { 0 };
        let (peak_bytes_per_entry, recovering) = (info.peak_bytes_per_entry + graph, Some(coming.progress.share()));
        Ok(BankInfo { durability: coming.durability(), peak_bytes_per_entry, recovering, ..info })
    }
}

/// Bytes that a bank will take at the least, by those of its snapshot and its log. Of the log `not_worth` are no measure: a small bank that
/// is written over and over has as much before a snapshot is due.
fn at_least(spec: &BankSpec, (snapshot, log): (u64, u64), not_worth: u64) -> usize {
    let written = snapshot.max(log.saturating_sub(not_worth) / WORTH);
    let most = capacity(spec).map_or(usize::MAX, |entries| entries.saturating_mul(Bank::new(*spec).resident_per_entry()));
    usize::try_from(written).unwrap_or(usize::MAX).min(most).min(usize::MAX / 2)
}

/// The settings of a bank as all of its folders have them that can be read.
fn agreed(found: &[Found]) -> Option<BankRecord> {
    let mut records = found.iter().filter_map(|found| found.folder.as_ref().ok().map(Folder::record));
    let first = records.next()?;
    records.all(|other| (other.spec, other.durability) == (first.spec, first.durability)).then(|| first.clone())
}

fn named(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Recovers one bank after another, until there is none left or nobody wants them.
fn work_off(inner: &Weak<Inner>, next: &Receiver<Arc<Coming>>) {
    while let Ok(coming) = next.try_recv() {
        let recovered = || {
            let recovered = recover(&coming.folder, &coming.progress).map_err(why_not)?;
            // Not before it is there: whoever drops the engine meanwhile is not waited for.
            inner.upgrade().filter(|_| coming.progress.is_wanted()).map_or(Ok(()), |inner| inner.take_up(recovered))
        };
        let served = catch_unwind(AssertUnwindSafe(recovered)).unwrap_or(Err(EngineError::Internal("recovering it panicked")));
        let Some(inner) = inner.upgrade().filter(|_| coming.progress.is_wanted()) else { return };
        if let Err(fault) = served {
            inner.refuse(
                coming.name().clone(),
                Refused::of(vec![coming.folder.path().to_owned()], &fault).with(coming.folder.record()),
            );
        }
        inner.recovering.done(coming.name());
        // Looked up within, so that of two who tell it at the same time the last tells what is.
        inner.health.send_modify(|health| health.recovering = inner.recovering.len());
    }
}

#[cfg(test)]
mod tests {
    use super::at_least;
    use crate::bank::Bank;
    use crate::model::{BankKind, BankSpec, Metric};

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_a_bank_under_recovery_is_given_is_what_it_must_have() {
        let spec = |kind| BankSpec::new(256, Metric::Cosine, kind, 1).unwrap();
        let small = spec(BankKind::Queue { capacity: 2_000 });
        let full = 2_000 * Bank::new(small).resident_per_entry();
        assert_eq!(at_least(&small, (0, 256 * MIB), 256 * MIB), 0, "written over and over it may hold one row");
        assert_eq!(at_least(&small, (MIB, 256 * MIB), 256 * MIB), MIB as usize);
        assert_eq!(at_least(&small, (MIB, 4_096 * MIB), 256 * MIB), full, "no more than it can hold");
        assert_eq!(at_least(&small, (64 * MIB, 0), 256 * MIB), full);
        let keyed = spec(BankKind::Keyed { momentum: 0.0, capacity: None });
        assert_eq!(at_least(&keyed, (100 * MIB, 1_156 * MIB), 256 * MIB), 225 * MIB as usize);
        assert_eq!(at_least(&keyed, (400 * MIB, 1_156 * MIB), 256 * MIB), 400 * MIB as usize);
        assert!(at_least(&keyed, (u64::MAX, u64::MAX), 0) < usize::MAX, "the account can be added up");
    }
}
