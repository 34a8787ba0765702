//! One build: copy, graph, what changed meanwhile, and the decision whether it serves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::bank_index::BankIndex;
use super::capture::{copy, held, stopped, tell_all};
use super::config::IndexConfig;
use crate::bank::Bank;
use crate::engine::ledger::{Ledger, Part, Share};
use crate::index::{BuildError, Delta, Frozen, Generation};
use crate::model::clock;
use crate::rows::Shared;

/// Entries that a look at how many have changed since the copy is a sample of.
const LOOKED_AT: usize = 256;

/// No prediction before this share is in.
const EARLIEST: f64 = 0.2;

/// A bank's build under way.
pub(super) struct Build<'a> {
    pub(super) bank: &'a Shared<Bank>,
    pub(super) index: &'a BankIndex,
    pub(super) config: IndexConfig,
    pub(super) ledger: &'a Ledger,
    pub(super) closing: &'a AtomicBool,
}

impl Build<'_> {
    /// Builds a graph and lets it serve; returns the one before, to be dropped where nobody waits.
    pub(super) fn run(&self) -> Result<Option<Delta>, BuildError> {
        let config = self.config;
        let sizes = config.build();
        let _room = self.room()?;
        let (frozen, taken) = copy(self.bank, &|| self.goes_on())?;
        let pace = Pace::new(config.cpu_percent);
        let go_on = |frozen: &Frozen, done: f64| {
            pace.keep();
            self.index.check_recall(self.bank, self.closing);
            self.index.status(|status| status.building = Some(done));
            if self.goes_on() { self.predict(frozen, done) } else { Err(stopped()) }
        };
        self.serve(Generation::build(frozen, taken, sizes, &go_on)?)
    }

    /// Memory for a graph of the bank, until it serves.
    pub(super) fn room(&self) -> Result<Share, BuildError> {
        let needed = {
            let bank = held(self.bank)?;
            bank.entries() * self.config.build().bytes_per_entry(bank.spec().dim())
        };
        self.ledger.may_grow(needed, 0).map_err(|full| BuildError::Stopped(full.to_string()))?;
        let room = self.ledger.share(Part::Builds);
        room.set(needed);
        Ok(room)
    }

    /// Lets a graph serve, if it is not outdated by now; returns the one before, to be dropped where nobody waits.
    pub(super) fn serve(&self, generation: Generation) -> Result<Option<Delta>, BuildError> {
        let config = self.config;
        let shards = held(self.bank)?.shards().len();
        let revision = generation.taken().revision;
        let mut delta = Delta::new(Arc::new(generation), shards, config.bound(), revision);
        if !self.has_all(delta.generation().frozen())? {
            return Err(BuildError::Stopped("the graph that was kept is of rows that the bank has lost".to_owned()));
        }
        tell_all(&mut delta, self.bank, &|| self.goes_on())?;
        let bank = held(self.bank)?;
        let (scanned, entries) = (delta.len(), bank.entries());
        if IndexConfig::reaches(config.max_percent, scanned, entries) {
            return Err(BuildError::Stopped(outdated(scanned, entries)));
        }
        Ok(self.index.indexed.install(delta, &bank))
    }

    /// True if the bank has all the slots that a graph knows. One that was kept may know more, if the bank lost its last writes to a
    /// power cut; slots that a bank has it keeps.
    fn has_all(&self, frozen: &Frozen) -> Result<bool, BuildError> {
        let bank = held(self.bank)?;
        let slots: Vec<usize> = bank.shards().iter().map(|shard| shard.columns().len()).collect();
        Ok(frozen.spots().iter().all(|spot| slots.get(spot.shard as usize).is_some_and(|&slots| (spot.slot as usize) < slots)))
    }

    /// Gives up early if too much will have changed by the end.
    fn predict(&self, frozen: &Frozen, done: f64) -> Result<(), BuildError> {
        if done < EARLIEST {
            return Ok(());
        }
        let bank = held(self.bank)?;
        let step = frozen.len().div_ceil(LOOKED_AT).max(1);
        let (mut scratch, mut widened) = (Vec::new(), Vec::new());
        let (mut changed, mut seen) = (0, 0);
        for entry in (0..frozen.len() as u32).step_by(step) {
            let spot = frozen.spot(entry);
            let state = &bank.shards()[spot.shard as usize];
            let same = state.columns().occupied_at(spot.slot) == spot.occupied_at;
            let row = state.rows().row(spot.slot).floats(&mut widened);
            changed += usize::from(!same || frozen.similarity(entry, row, &mut scratch) < self.config.bound());
            seen += 1;
        }
        let new = bank.entries().saturating_sub(frozen.len());
        let scanned = (frozen.len() * changed / seen.max(1) + new) as f64 / done;
        let entries = bank.entries();
        // Twice the bound: a sample is a rough guess, and the end decides.
        if IndexConfig::reaches(2 * self.config.max_percent, scanned as usize, entries) {
            return Err(BuildError::Stopped(outdated(scanned as usize, entries)));
        }
        Ok(())
    }

    fn goes_on(&self) -> bool {
        !self.closing.load(Ordering::Relaxed) && !self.index.is_closed()
    }
}

fn outdated(scanned: usize, entries: usize) -> String {
    let percent = scanned.saturating_mul(100) / entries.max(1);
    format!(
        "{percent} % of the entries are replaced, new or moved far before a build ends (settings index.max_percent, index.threads)"
    )
}

/// Sleeps between slices of work, so that they take no more than a share of the time.
struct Pace {
    percent: usize,
    since: std::sync::Mutex<Instant>,
}

impl Pace {
    fn new(percent: usize) -> Self {
        Self { percent: percent.clamp(1, 100), since: std::sync::Mutex::new(clock::now()) }
    }

    fn keep(&self) {
        let mut since = self.since.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let worked = clock::now().duration_since(*since);
        if self.percent < 100 {
            thread::sleep((worked * (100 - self.percent) as u32 / self.percent as u32).min(Duration::from_secs(1)));
        }
        *since = clock::now();
    }
}
