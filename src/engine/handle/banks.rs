//! Banks by name: made, found, deleted.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use tokio::sync::watch;

use super::{BankHandle, Engine, Inner};
use crate::bank::Bank;
use crate::codec::BankRecord;
use crate::durability::{Config, Folder, Snapshot, Store};
use crate::engine::EngineError;
use crate::engine::bank_memory::BankMemory;
use crate::engine::committer::{Committer, Work};
use crate::engine::differing::differing;
use crate::engine::journal::{Journal, Keeping, Kept};
use crate::engine::ledger::Part;
use crate::engine::served::Served;
use crate::engine::snapshots::Snapshots;
use crate::engine::stages::Stages;
use crate::model::{BankKind, BankName, BankSpec, Durability, Invalid, Lineage, Seed};
use crate::rows::Shared;

/// Names listed in an error at most.
const KNOWN_NAMES: usize = 10;

/// A bank that is on disk and can't be served.
#[derive(Debug)]
pub(super) struct Refused {
    /// Its folder, or all of them if there are several and nobody can tell which is right.
    pub(super) paths: Vec<PathBuf>,
    why: String,
    /// True if the next start may serve it: the system failed, and no damage was found.
    pub(super) may_pass: bool,
    /// `None`: nobody can read what it was.
    pub(super) settings: Option<Settings>,
}

/// What a bank is, and how its writes are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) spec: BankSpec,
    pub(super) durability: Durability,
}

impl Refused {
    pub(super) fn of(paths: Vec<PathBuf>, fault: &EngineError) -> Self {
        let may_pass = matches!(fault, EngineError::Storage(_) | EngineError::OutOfMemory(_) | EngineError::NoThreads);
        Self { paths, why: fault.to_string(), may_pass, settings: None }
    }

    /// What it was is known.
    pub(super) fn with(self, BankRecord { spec, durability, .. }: &BankRecord) -> Self {
        Self { settings: Some(Settings { spec: *spec, durability: *durability }), ..self }
    }

    fn without(mut self, path: &Path) -> Self {
        self.paths.retain(|other| other != path);
        self
    }

    /// What is wrong, with file and offset.
    pub(super) fn why(&self) -> &str {
        &self.why
    }

    /// What every call of the bank is answered.
    pub(super) fn refusal(&self, name: BankName) -> EngineError {
        let why = self.why.clone();
        if self.may_pass { EngineError::NotServed { name, why } } else { EngineError::Refused { name, why } }
    }
}

impl Engine {
    /// Creates a bank; one that is there with the same settings is as good, and of any durability if none is asked for. When this
    /// returns, a bank that is to outlive the server does.
    ///
    /// # Errors
    /// [`EngineError::AlreadyExists`], [`EngineError::LimitReached`], [`EngineError::Recovering`], [`EngineError::Refused`],
    /// [`EngineError::NotServed`], [`EngineError::NoThreads`], [`EngineError::Storage`]
    pub async fn create_bank(
        &self,
        name: BankName,
        spec: BankSpec,
        durability: Option<Durability>,
    ) -> Result<Arc<BankHandle>, EngineError> {
        let engine = self.clone();
        blocking(move || engine.inner.create(name, spec, durability)).await
    }

    /// The bank of that name.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::Recovering`], [`EngineError::Refused`], [`EngineError::NotServed`],
    /// [`EngineError::Invalid`] for what is no name.
    pub fn bank(&self, name: &str) -> Result<Arc<BankHandle>, EngineError> {
        let parsed = BankName::parse("bank", name)?;
        // First, since a bank is served, or refused, before it is no longer on its way.
        let coming = self.inner.recovering.get(&parsed);
        let found = self.inner.banks.get(&parsed).map(|bank| Arc::clone(&bank));
        found.ok_or_else(|| match coming {
            Some(coming) => coming.refusal(),
            None => self.inner.refused(&parsed).unwrap_or_else(|| self.inner.not_found(name)),
        })
    }

    /// All banks that are served, by name.
    pub fn banks(&self) -> Vec<Arc<BankHandle>> {
        let mut banks: Vec<_> = self.inner.banks.iter().map(|bank| Arc::clone(&bank)).collect();
        banks.sort_by(|a, b| a.name().cmp(b.name()));
        banks
    }

    /// Deletes a bank, on disk too, and returns how many entries it held; 0 of one that could not be served.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::Recovering`], [`EngineError::Storage`], [`EngineError::Invalid`] for what is no name.
    pub async fn delete_bank(&self, name: &str) -> Result<usize, EngineError> {
        let parsed = BankName::parse("name", name)?;
        let engine = self.clone();
        blocking(move || engine.inner.delete(&parsed)).await
    }
}

impl Inner {
    fn create(&self, name: BankName, spec: BankSpec, durability: Option<Durability>) -> Result<Arc<BankHandle>, EngineError> {
        let _one_at_a_time = self.catalogue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(coming) = self.coming(&name) {
            let others = other_settings((coming.spec(), coming.durability()), (spec, durability));
            return Err(others.map_or_else(|| coming.refusal(), |differing| EngineError::AlreadyExists { name, differing }));
        }
        if let Some(there) = self.banks.get(&name) {
            return match other_settings((there.spec, there.durability), (spec, durability)) {
                None => Ok(Arc::clone(&there)),
                Some(differing) => Err(EngineError::AlreadyExists { name, differing }),
            };
        }
        if let Some(refused) = self.refused(&name) {
            return Err(refused);
        }
        let limit = self.config.max_banks;
        if self.taken_names() >= limit {
            return Err(EngineError::LimitReached { what: "the number of banks", limit, setting: "limits.max_banks" });
        }
        let durability = self.durability(durability)?;
        self.may_hold(&spec, None)?;
        let Seed(incarnation) = Seed::from_entropy().map_err(|_| EngineError::Internal("the system gives no entropy"))?;
        let record = BankRecord { name, spec, incarnation, durability, lineage: Lineage::default() };
        let kept = match &self.store {
            Some(store) if durability != Durability::Memory => {
                let created = store.create(&record);
                let (folder, log) = created.map_err(|fault| self.hold(&record, Vec::new(), fault.into()))?;
                Keeping::Kept(Kept { folder, log, snapshot: Snapshot::default() })
            }
            _ => Keeping::Not,
        };
        let folder = match &kept {
            Keeping::Kept(kept) => Some(kept.folder.path().to_owned()),
            _ => None,
        };
        self.open(&record, Bank::new(spec), kept).inspect_err(|_| self.unmake(&record, folder))
    }

    /// Keeps the name of a bank that was to be made and failed, if its folder has the name all the same, or if there are `others` of that name
    /// which the next start may remove: a bank that was made now would be one too many then. Returns what to answer.
    pub(super) fn hold(&self, record: &BankRecord, others: Vec<PathBuf>, fault: EngineError) -> EngineError {
        let left = self.store.as_ref().and_then(|store| store.place_of(record));
        let paths: Vec<PathBuf> = left.into_iter().chain(others.into_iter().filter(|path| path.exists())).collect();
        if paths.is_empty() {
            return fault;
        }
        let then = "after a restart the bank is as it was, or as it was to be";
        let why = format!("{fault}, and what was begun could not be taken back: {then}");
        self.refuse(record.name.clone(), Refused::of(paths, &EngineError::Storage(why.clone())).with(record));
        EngineError::NotServed { name: record.name.clone(), why }
    }

    /// Takes back the folder of a bank that can't be served after all: with it the name would have two banks once it is made again.
    fn unmake(&self, record: &BankRecord, folder: Option<PathBuf>) {
        let Some((path, store)) = folder.zip(self.store.as_ref()) else { return };
        if let Err(stays) = store.remove(&path) {
            self.refuse(record.name.clone(), Refused::of(vec![path], &stays.into()).with(record));
        }
    }

    /// Whether a bank of these settings may have its capacity, or so many entries; returns the bytes that they take.
    pub(super) fn may_hold(&self, spec: &BankSpec, entries: Option<usize>) -> Result<usize, EngineError> {
        let entries = entries.or_else(|| capacity(spec)).unwrap_or(0);
        let bytes = entries.saturating_mul(Bank::new(*spec).resident_per_entry());
        self.ledger.may_grow(bytes, 0).map(|()| bytes)
    }

    /// The durability of a new bank.
    pub(super) fn durability(&self, asked: Option<Durability>) -> Result<Durability, EngineError> {
        match (&self.store, asked) {
            (Some(_), asked) => Ok(asked.unwrap_or(self.config.durability.policy)),
            (None, None | Some(Durability::Memory)) => Ok(Durability::Memory),
            (None, Some(asked)) => {
                let reason = format!("{} is not possible: this server keeps no data (setting durability.dir)", asked.name());
                Err(Invalid::one("durability", reason).into())
            }
        }
    }

    /// Begins to serve a bank.
    pub(super) fn open(&self, record: &BankRecord, bank: Bank, keeping: Keeping) -> Result<Arc<BankHandle>, EngineError> {
        let BankRecord { name, spec, incarnation, durability, lineage } = record.clone();
        let (sequence, staged) = (bank.sequence(), bank.staged().clone());
        let memory = Arc::new(BankMemory::of(&bank, &self.ledger));
        let state = Arc::new(Shared::new(bank));
        let keyed = matches!(spec.kind(), BankKind::Keyed { .. });
        let acknowledged = watch::Sender::new(sequence);
        let announce = {
            let acknowledged = acknowledged.clone();
            Box::new(move |sequence| acknowledged.send_modify(|last| *last = sequence))
        };
        let (folder, kept, damage, full) = match keeping {
            Keeping::Not => (None, None, None, None),
            Keeping::Kept(kept) => (Some(kept.folder.clone()), Some(kept), None, None),
            Keeping::Damaged { folder, what } => (Some(folder), None, Some(what), None),
            Keeping::Full { folder, what } => (Some(folder), None, None, Some(what)),
        };
        let deleted = watch::Sender::new(false);
        let alarm = self.alarm((&name, incarnation), &deleted);
        // What was kept may be of a bank that is not damaged.
        let index = keyed.then(|| self.maintenance.watch(&state, folder.clone().filter(|_| damage.is_none())));
        let snapshots = self.snapshots.as_ref().map(Snapshots::of_another);
        let trouble = snapshots.as_ref().map(|snapshots| snapshots.trouble().clone()).unwrap_or_default();
        let journal = kept
            .zip(snapshots)
            .map(|(kept, snapshots)| Journal::new(kept, &self.config.durability, snapshots, Arc::clone(&alarm)))
            .transpose();
        let journal = journal.map_err(|_| EngineError::NoThreads)?;
        let max_entries = self.config.max_entries;
        let work = Work {
            name: name.clone(),
            bank: Arc::clone(&state),
            memory: Arc::clone(&memory),
            index: index.clone(),
            damage: damage.as_deref().map(of_damaged).or_else(|| full.as_deref().map(of_full)),
            max_entries,
            announce,
            alarm,
        };
        let committer = Committer::start(work, journal, self.config.write_queue).map_err(|_| EngineError::NoThreads)?;
        let stages = Stages::new(&self.config, staged, committer.clone(), self.ledger.share(Part::Staged));
        let served = Arc::new(Served::new(self.config.measured));
        let bank = Arc::new(BankHandle {
            name,
            spec,
            incarnation,
            lineage,
            durability,
            folder,
            damage,
            state,
            memory,
            snapshots: trouble,
            index,
            committer,
            acknowledged,
            stages,
            served,
            costs: Arc::default(),
            deleted,
            health: self.health.clone(),
        });
        if let Some(what) = full {
            self.alarm((&bank.name, incarnation), &bank.deleted)(&format!("there was no room to go on with its log: {what}"));
        }
        self.banks.insert(bank.name.clone(), Arc::clone(&bank));
        Ok(bank)
    }

    fn delete(&self, name: &BankName) -> Result<usize, EngineError> {
        let _one_at_a_time = self.catalogue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(coming) = self.coming(name) {
            return Err(coming.refusal());
        }
        if let Some(store) = self.store.as_ref().filter(|_| self.refused.contains_key(name)) {
            while let Some(path) = self.refused.get(name).and_then(|refused| refused.paths.last().cloned()) {
                // One that could only be taken back in part has lost its name already.
                if path.exists() {
                    store.remove(&path)?;
                }
                self.refused.alter(name, |_, refused| refused.without(&path));
            }
            self.refused.remove(name);
            if !self.banks.contains_key(name) {
                return Ok(0);
            }
        }
        let bank = self.banks.get(name).map(|bank| Arc::clone(&bank)).ok_or_else(|| self.not_found(name.as_str()))?;
        // On disk first: a bank that comes back was not deleted.
        let removed = match (&bank.folder, &self.store) {
            (Some(folder), Some(store)) => store.remove(folder.path()),
            _ => Ok(()),
        };
        if let Err(fault) = removed {
            // Once it has lost its name, what is written to it would be lost.
            if bank.has_lost_its_folder() {
                self.banks.remove(name);
                Self::retire(&bank);
            }
            return Err(fault.into());
        }
        self.banks.remove(name);
        Self::retire(&bank);
        // A bank that can't be trusted must still be deletable.
        Ok(bank.now().map_or(0, |(entries, _)| entries))
    }

    /// Ends what waits for a bank that nobody finds any more.
    pub(super) fn retire(bank: &BankHandle) {
        bank.deleted.send_replace(true);
        bank.withdraw_alarm();
        if let Some(index) = &bank.index {
            index.close();
        }
        bank.stages.close(&EngineError::Deleted(bank.name.clone()));
    }

    fn refused(&self, name: &BankName) -> Option<EngineError> {
        self.refused.get(name).map(|refused| refused.refusal(name.clone()))
    }

    fn not_found(&self, name: &str) -> EngineError {
        let mut known: Vec<BankName> = self.banks.iter().map(|bank| bank.key().clone()).collect();
        known.extend(self.recovering.all().iter().map(|coming| coming.name().clone()));
        known.sort();
        known.dedup();
        let total = known.len();
        known.truncate(KNOWN_NAMES);
        EngineError::NotFound { name: name.chars().take(BankName::MAX_LEN).collect(), known, total }
    }
}

impl BankHandle {
    /// True if it outlives the server, or did, and the next start may not find it.
    pub(super) fn has_lost_its_folder(&self) -> bool {
        self.folder.as_ref().is_some_and(Folder::is_lost)
    }
}

/// What to say of writes to a bank that is served as it was before a damage.
fn of_damaged(damage: &str) -> String {
    let opened = "its files are damaged and it was opened as it was before the damage (setting durability.damaged)";
    format!("{opened}: {damage}. Restore a checkpoint into it, or delete it")
}

/// What to say of writes to a bank whose log can't be gone on with.
fn of_full(fault: &str) -> String {
    let then = "It is whole and is read: make room on the disk and restart the server";
    format!("when it was opened there was no room to go on with its log: {fault}. {then}")
}

/// Entries that a bank of these settings may hold; `None`: any number.
pub(super) fn capacity(spec: &BankSpec) -> Option<usize> {
    let capacity = match spec.kind() {
        BankKind::Queue { capacity } => Some(capacity),
        BankKind::Keyed { capacity, .. } => capacity,
    };
    capacity.map(|capacity| usize::try_from(capacity).unwrap_or(usize::MAX))
}

/// What a bank has other than it is asked for; `None`: nothing.
fn other_settings(there: (BankSpec, Durability), asked: (BankSpec, Option<Durability>)) -> Option<String> {
    let mut parts: Vec<String> = (there.0 != asked.0).then(|| differing(there.0, asked.0)).into_iter().collect();
    let other = asked.1.filter(|&asked| asked != there.1);
    parts.extend(other.map(|asked| format!("durability is {}, not {}", there.1.name(), asked.name())));
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// The data folder, if the settings name one.
pub(super) fn store(config: &Config) -> Result<Option<Store>, EngineError> {
    Ok(config.dir.as_ref().map(|dir| Store::open(dir, config)).transpose()?)
}

/// Runs what waits for the disk on a thread that may.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or(Err(EngineError::Internal("the thread that worked on the request panicked")))
}
