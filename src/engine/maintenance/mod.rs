//! The graph indexes of all keyed banks: one thread that looks at them in turn, and builds.

mod bank_index;
mod build;
mod capture;
mod config;
mod saved;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub(super) use bank_index::BankIndex;
pub use bank_index::IndexInfo;
pub use config::IndexConfig;

use crate::bank::Bank;
use crate::durability::Folder;
use crate::engine::ledger::{Ledger, Part};
use crate::engine::priority::give_way;
use crate::index::Delta;
use crate::model::clock;
use crate::rows::Shared;
use crate::sampling::Standing;
use build::Build;
use saved::{Reloaded, save};

/// The builder's thread. Dropping this stops a running build and ends it.
#[derive(Debug)]
pub(super) struct Maintenance {
    shared: Arc<Common>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Common {
    config: IndexConfig,
    ledger: Ledger,
    closing: AtomicBool,
    banks: Mutex<Vec<Watched>>,
    woken: Condvar,
}

/// A bank that may get a graph.
#[derive(Debug, Clone)]
struct Watched {
    bank: Weak<Shared<Bank>>,
    index: Arc<BankIndex>,
    /// Where its graph is kept.
    folder: Option<Folder>,
}

/// How often banks are looked at.
const EVERY: Duration = Duration::from_millis(100);

/// How often it is measured what searches cost.
const MEASURED_EVERY: Duration = Duration::from_secs(300);

/// After a build that came to nothing the next waits as long as that took, and this.
const PAUSE: Duration = Duration::from_secs(5);

impl Maintenance {
    pub(super) fn start(config: IndexConfig, ledger: &Ledger) -> std::io::Result<Self> {
        let ledger = ledger.clone();
        let common = Common { config, ledger, closing: AtomicBool::new(false), banks: Mutex::default(), woken: Condvar::new() };
        let shared = Arc::new(common);
        let run = Arc::clone(&shared);
        let thread = config.enabled.then(|| thread::Builder::new().name("index".to_owned()).spawn(move || run.work()));
        Ok(Self { shared, thread: thread.transpose()? })
    }

    /// The index of a new bank, which is looked after as long as the bank lives; `folder` is where its graph is kept.
    pub(super) fn watch(&self, bank: &Arc<Shared<Bank>>, folder: Option<Folder>) -> Arc<BankIndex> {
        let folder = folder.filter(|_| self.shared.config.keep);
        let memory = self.shared.ledger.share(Part::Graphs);
        let index = Arc::new(BankIndex::new(self.shared.config.too_few(), folder.is_some(), memory));
        if !self.shared.config.enabled {
            index.explain("serving by scan: graphs are turned off (setting index.enabled)".to_owned());
            return index;
        }
        self.shared.lock().push(Watched { bank: Arc::downgrade(bank), index: Arc::clone(&index), folder });
        index
    }
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        self.shared.woken.notify_all();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl Common {
    fn work(&self) {
        // So do the threads that it starts.
        give_way();
        // Graphs that serve no more, until the last search lets go of them: freeing one takes milliseconds.
        let mut retired: Vec<Delta> = Vec::new();
        loop {
            let banks = {
                let mut banks = self.lock();
                if self.closing.load(Ordering::Relaxed) {
                    return;
                }
                banks = self.woken.wait_timeout(banks, EVERY).unwrap_or_else(PoisonError::into_inner).0;
                banks.retain(|watched| watched.bank.strong_count() > 0);
                banks.clone()
            };
            for watched in banks {
                if self.closing.load(Ordering::Relaxed) {
                    return;
                }
                if let Some(bank) = watched.bank.upgrade() {
                    retired.extend(self.unharmed(&bank, &watched));
                }
            }
            retired.retain(|delta| Arc::strong_count(delta.generation()) > 1);
        }
    }

    /// Looks after one bank; whatever panics costs that bank its new graph, not the others theirs.
    fn unharmed(&self, bank: &Shared<Bank>, watched: &Watched) -> Option<Delta> {
        let Watched { index, folder, .. } = watched;
        catch_unwind(AssertUnwindSafe(|| self.look_after(bank, index, folder.as_ref()))).unwrap_or_else(|_| {
            tracing::error!("looking after a graph panicked: this is a defect of negbank");
            index.fail("the builder panicked, which is a defect of negbank: what served before serves on".to_owned(), PAUSE);
            None
        })
    }

    fn look_after(&self, bank: &Shared<Bank>, index: &BankIndex, folder: Option<&Folder>) -> Option<Delta> {
        let build = Build { bank, index, config: self.config, ledger: &self.ledger, closing: &self.closing };
        if let Some(folder) = folder.filter(|_| index.is_to_be_reloaded())
            && let Reloaded::Serves(before) = self.take_up(&build, folder)
        {
            index.note_memory();
            return before;
        }
        index.check_recall(bank, &self.closing);
        let entries = bank.read().ok()?.entries();
        let standing = index.indexed.standing();
        // What is not chosen teaches nothing: costs that were learnt at a bad moment would be believed for ever.
        if standing.is_some() && index.is_to_be_measured(MEASURED_EVERY) {
            index.calibrate(bank, &self.closing);
        }
        if index.is_closed() || !self.is_due(entries, standing, index) {
            return None;
        }
        let began = clock::now();
        index.begin(entries);
        let built = build.run();
        index.note_memory();
        let took = clock::now().duration_since(began);
        match built {
            Ok(before) => {
                // Before anybody is told that it serves, so that plans are chosen well from then on.
                index.calibrate(bank, &self.closing);
                index.explain(format!("built from {entries} entries in {:.1} s", took.as_secs_f64()));
                index.status(|status| status.building = None);
                tracing::info!(entries, ?took, "a graph serves");
                if let Some((folder, generation)) = folder.zip(index.indexed.generation()) {
                    save(folder, &generation);
                }
                before
            }
            Err(refused) => {
                let serving =
                    if index.indexed.standing().is_some() { "serving by the graph before" } else { "serving by scan" };
                index.fail(format!("{serving}: {refused}"), took + PAUSE);
                None
            }
        }
    }

    /// Lets the graph serve that was kept, if there is one that fits.
    fn take_up(&self, build: &Build<'_>, folder: &Folder) -> Reloaded {
        let index = build.index;
        index.explain("taking up the graph that was kept".to_owned());
        index.status(|status| status.building = Some(0.0));
        let (reloaded, reason) = match build.reload(folder) {
            Ok(Reloaded::None) => (Reloaded::None, self.config.too_few()),
            Ok(serves) => (serves, "taken up again as it was before the restart".to_owned()),
            Err(refused) => (Reloaded::None, format!("serving by scan: the graph that was kept does not serve: {refused}")),
        };
        if matches!(reloaded, Reloaded::Serves(_)) {
            index.calibrate(build.bank, &self.closing);
            tracing::info!(bank = %folder.record().name, "the graph that was kept serves");
        }
        index.explain(reason);
        index.status(|status| status.building = None);
        reloaded
    }

    /// True if a build should begin; else says why not.
    fn is_due(&self, entries: usize, standing: Option<Standing>, index: &BankIndex) -> bool {
        let config = self.config;
        let now = clock::now();
        let (before, early) = index.status(|status| {
            let early = status.not_before.is_some_and(|not_before| now < not_before);
            (std::mem::replace(&mut status.seen_entries, entries), early)
        });
        if early {
            return false;
        }
        let Some(standing) = standing else {
            if entries < config.min_entries {
                index.explain(config.too_few());
                return false;
            }
            // A bank that is being filled would outgrow its graph before that is built.
            let fills = entries > before + before / 16;
            if fills {
                index.explain(format!("serving by scan: the bank is being filled ({entries} entries so far)"));
            }
            return !fills;
        };
        let outdated = IndexConfig::reaches(config.rebuild_percent, standing.scanned, entries);
        let drifted = standing.mean_similarity * 100.0 < config.mean_drift_percent as f64;
        entries > 0 && (outdated || drifted)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.banks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
