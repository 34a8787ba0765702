//! A bank: its shards and its clock.

use std::num::NonZeroU64;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use super::classes::Classes;
use super::columns::{Columns, Counted};
use super::cut::Cut;
use super::powers::Powers;
use super::recent::{Change, Recent};
use super::shard::Shard;
use super::staged::Staged;
use super::steps::Steps;
use super::writers::{Known, Writers};
use crate::model::{BankKind, BankSpec, Origin, seed::split_mix};
use crate::rows::Stored;

/// Everything that a bank holds.
#[derive(Debug)]
pub struct Bank {
    pub(super) spec: BankSpec,
    pub(super) shards: Vec<Shard>,
    pub(super) sequence: u64,
    pub(super) step: Option<u64>,
    /// True while a mutation is applied in part.
    pub(super) applying: bool,
    /// Counts every changed row, so that two equal readings mean that nothing changed between them.
    pub(super) revision: u64,
    pub(super) recent: Recent,
    pub(super) writers: Writers,
    pub(super) staged: Staged,
    pub(super) classes: Classes,
    pub(super) steps: Steps,
    /// Powers of the weights that were asked for last; what they tell is told by the weights alone.
    powers: RwLock<Vec<Arc<Powers>>>,
    /// The copies that are being taken of it.
    pub(super) cuts: Vec<Weak<Cut>>,
    /// Entries ever appended to a queue: the next one's turn among the shards, and its id where the server gives one.
    pub(super) appended: u64,
    /// What `appended` was when the present mutation began.
    pub(super) appended_before: u64,
}

/// Where an entry lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Shard's number.
    pub shard: u32,
    /// Slot in the shard.
    pub slot: u32,
}

impl Place {
    /// Both numbers in one.
    pub fn packed(self) -> u64 {
        (u64::from(self.shard) << 32) | u64::from(self.slot)
    }
}

impl Bank {
    /// An empty bank.
    pub fn new(spec: BankSpec) -> Self {
        let shards = (0..spec.shards()).map(|_| Shard::new(&spec)).collect();
        Self {
            spec,
            shards,
            sequence: 0,
            step: None,
            applying: false,
            revision: 0,
            recent: Recent::default(),
            writers: Writers::default(),
            staged: Staged::default(),
            classes: Classes::default(),
            steps: Steps::default(),
            powers: RwLock::default(),
            cuts: Vec::new(),
            appended: 0,
            appended_before: 0,
        }
    }

    /// The bank's settings.
    pub fn spec(&self) -> &BankSpec {
        &self.spec
    }

    /// The shards.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Entries held.
    pub fn entries(&self) -> usize {
        self.shards.iter().map(|shard| shard.roster().len()).sum()
    }

    /// True while a mutation is applied in part: the state is then between two sequence numbers.
    pub fn is_applying(&self) -> bool {
        self.applying
    }

    /// Memory of one entry's embedding, its codes and its columns, in bytes.
    pub fn bytes_per_entry(&self) -> usize {
        self.shards.first().map_or(0, |shard| shard.rows().bytes_per_row()) + Columns::BYTES_PER_SLOT
    }

    /// Memory of all slots, used or free, with everything that finds them, in bytes.
    pub fn resident(&self) -> usize {
        self.shards.iter().map(|shard| shard.resident_with(0)).sum()
    }

    /// By how much [`Self::resident`] grows with `arrivals` new entries of each shard: by nothing where others leave for them.
    pub fn growth(&self, arrivals: &[usize]) -> usize {
        let capacity = match self.spec.kind() {
            BankKind::Queue { capacity } => Some(capacity),
            BankKind::Keyed { capacity, .. } => capacity,
        };
        let room = capacity.map_or(usize::MAX, |capacity| (capacity as usize).saturating_sub(self.entries()));
        if room == 0 {
            return 0;
        }
        let after = |(shard, &more): (&Shard, &usize)| shard.resident_with(more.min(room));
        self.shards.iter().zip(arrivals).map(after).sum::<usize>().saturating_sub(self.resident())
    }

    /// Memory of one entry that is in the bank, with everything that finds it, in bytes.
    pub fn resident_per_entry(&self) -> usize {
        self.bytes_per_entry() + Shard::LISTED_BYTES
    }

    /// Memory of copies that are being taken: rows that lie aside, and all but the rows; in bytes.
    pub fn aside(&self) -> usize {
        self.cuts.iter().filter_map(Weak::upgrade).map(|cut| cut.resident()).sum()
    }

    /// Mutations applied so far.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// What the bank knows of a write's origin.
    pub fn known(&self, origin: &Origin) -> Known {
        self.writers.known(origin)
    }

    /// Writers whose numbers are remembered.
    pub fn writers(&self) -> usize {
        self.writers.len()
    }

    /// The staged writes that were applied last.
    pub fn staged(&self) -> &Staged {
        &self.staged
    }

    /// Training step of the last write that carried one.
    pub fn step(&self) -> Option<u64> {
        self.step
    }

    /// The least age, in training steps behind the bank's, that this share of the entries keeps to; `None` if the bank has no step, or no
    /// entry. An entry of a later step is of age 0, one that was written without a step of step 0.
    pub fn age_of(&self, percent: usize) -> Option<u64> {
        let (step, entries) = (self.step?, self.entries());
        let older = entries.checked_sub((entries * percent).div_ceil(100))?;
        self.steps.after(older).map(|written| step.saturating_sub(written))
    }

    /// Counter of changed rows: two equal readings mean that nothing changed between them.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Places that changed since the counter stood at `revision`; `None` if there were more than `most` changes.
    pub fn changed_since(&self, revision: u64, most: u64) -> Option<impl Iterator<Item = Place> + '_> {
        let few = self.revision.saturating_sub(revision) <= most;
        let changes = few.then(|| self.recent.between(revision, self.revision))?;
        changes.map(|changes| changes.map(|change| change.place))
    }

    /// The changes that moved the counter from `after` to `until`; `None` if the bank remembers some of them no more.
    pub fn changes(&self, after: u64, until: u64) -> Option<impl Iterator<Item = Change> + '_> {
        self.recent.between(after, until)
    }

    /// Where the counter stood after mutation `sequence`; `None` if the bank does not remember it.
    pub fn revision_after(&self, sequence: u64) -> Option<u64> {
        self.recent.end_of(sequence)
    }

    /// The labels that entries have.
    pub fn classes(&self) -> &Classes {
        &self.classes
    }

    /// Powers w^alpha of the entries' weights, alpha at most `Strategy::LARGEST_ALPHA` in magnitude. The first who asks for an alpha
    /// pays for a look at every weight; from then on writes keep them, of the last [`Self::ALPHAS`] that were asked for. Not to be kept
    /// longer than the hold of the bank.
    pub fn powers(&self, alpha: f32) -> Arc<Powers> {
        let kept = |all: &Vec<Arc<Powers>>| all.iter().find(|powers| powers.alpha().to_bits() == alpha.to_bits()).cloned();
        if let Some(powers) = kept(&self.powers.read().unwrap_or_else(PoisonError::into_inner)) {
            return powers;
        }
        let mut all = self.powers.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(powers) = kept(&all) {
            return powers;
        }
        let powers = Arc::new(Powers::new(alpha, &self.shards));
        all.truncate(Self::ALPHAS - 1);
        all.insert(0, Arc::clone(&powers));
        powers
    }

    /// Alphas whose powers are kept.
    pub const ALPHAS: usize = 4;

    /// Newest entry of an id.
    pub fn find(&self, id: u64) -> Option<Place> {
        let newest_of = |(number, shard): (u32, &Shard)| shard.find(id).map(|slot| Place { shard: number, slot });
        self.shards_of(id).filter_map(newest_of).max_by_key(|&place| self.columns(place).occupied_at(place.slot))
    }

    /// All entries of an id, in shard order.
    pub fn find_all(&self, id: u64) -> impl Iterator<Item = Place> + '_ {
        self.shards_of(id).flat_map(move |(shard, state)| state.with_id(id).map(move |slot| Place { shard, slot }))
    }

    /// Columns of the shard that a place lies in.
    pub fn columns(&self, place: Place) -> &Columns {
        self.shards[place.shard as usize].columns()
    }

    /// The embedding at a place, padded to whole lane groups.
    pub fn padded_row(&self, place: Place) -> Stored<'_> {
        self.shards[place.shard as usize].rows().padded(place.slot)
    }

    /// The embedding at a place.
    pub fn row(&self, place: Place) -> Stored<'_> {
        self.shards[place.shard as usize].rows().row(place.slot)
    }

    /// The number of the next change; [`Self::changed`] must follow.
    pub(super) fn next_revision(&self) -> u64 {
        self.revision + 1
    }

    /// Notes a write to a place.
    pub(super) fn changed(&mut self, shard: usize, slot: u32) {
        self.note(Change { place: Place { shard: shard as u32, slot }, left: None });
    }

    /// Notes that the entry of this stamp left its place.
    pub(super) fn left(&mut self, place: Place, stamp: u64) {
        self.note(Change { place, left: NonZeroU64::new(stamp) });
    }

    /// Notes what a write made of an entry that was counted as `before`.
    pub(super) fn recount(&mut self, place: Place, before: Counted) {
        let now = self.columns(place).counted(place.slot);
        self.classes.change(before.label, now.label);
        self.steps.change(before.step, now.step);
        if before.weight.to_bits() != now.weight.to_bits() {
            let all = self.powers.get_mut().unwrap_or_else(PoisonError::into_inner);
            all.iter_mut().for_each(|powers| Arc::make_mut(powers).change(place, before.weight, now.weight));
        }
    }

    fn note(&mut self, change: Change) {
        self.revision += 1;
        self.recent.note(self.revision, change);
    }

    /// Shard of a keyed bank's id.
    pub(super) fn home(&self, id: u64) -> usize {
        let mut state = id;
        (split_mix(&mut state) % self.shards.len() as u64) as usize
    }

    /// Shards in which an id may lie: its home, or all of a queue's.
    fn shards_of(&self, id: u64) -> impl Iterator<Item = (u32, &Shard)> + '_ {
        let range = match self.spec.kind() {
            BankKind::Keyed { .. } => self.home(id)..self.home(id) + 1,
            BankKind::Queue { .. } => 0..self.shards.len(),
        };
        range.map(|number| (number as u32, &self.shards[number]))
    }
}
