//! How mutations change a bank.

use std::ops::Range;

use rustc_hash::FxHashSet;

use super::columns::{Counted, Entry};
use super::cut::Keeper;
use super::shard::Rewrite;
use super::state::{Bank, Place};
use crate::kernels::momentum;
use crate::model::{Applied, BankKind, Metric, Mutation, WriteBatch};
use crate::rows::OutOfMemory;

/// Rows whose memory is asked for before the first of them is changed.
const AHEAD: usize = 16;

impl Bank {
    /// New entries that a mutation could add to each shard.
    pub fn arrivals(&self, mutation: &Mutation) -> Vec<usize> {
        let mut arrivals = vec![0; self.shards.len()];
        let batches = mutation.batches();
        match self.spec.kind() {
            BankKind::Keyed { capacity, .. } => {
                let mut seen = FxHashSet::default();
                for batch in batches {
                    for from in (0..batch.rows()).step_by(AHEAD) {
                        let ids = || (from..batch.rows().min(from + AHEAD)).filter_map(|row| batch.id(row));
                        ids().for_each(|id| self.shards[self.home(id)].prefetch_id(id));
                        for id in ids() {
                            let home = self.home(id);
                            arrivals[home] += usize::from(self.shards[home].find(id).is_none() && seen.insert(id));
                        }
                    }
                }
                if let Some(capacity) = capacity {
                    let capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
                    let room = |shard: &super::Shard| capacity.saturating_sub(shard.roster().len());
                    arrivals.iter_mut().zip(&self.shards).for_each(|(more, shard)| *more = (*more).min(room(shard)));
                }
            }
            BankKind::Queue { capacity } => {
                let rows: usize = batches.iter().map(WriteBatch::rows).sum();
                let rows = rows.min(usize::try_from(capacity).unwrap_or(usize::MAX));
                // The oldest leaves before a new one takes a slot; by turn, each shard gets an equal part, give or take one.
                arrivals.fill(rows.div_ceil(self.shards.len()).min(rows));
            }
        }
        arrivals
    }

    /// Makes room for the rows of `arrivals` new entries of each shard. Nothing else in [`Self::apply`] can be refused by the
    /// system: small allocations abort the process, as everywhere in Rust.
    ///
    /// # Errors
    /// [`OutOfMemory`]; the bank is as before.
    pub fn reserve(&mut self, arrivals: &[usize]) -> Result<(), OutOfMemory> {
        self.shards.iter_mut().zip(arrivals).try_for_each(|(shard, &more)| shard.reserve(more))
    }

    /// Applies up to `most` rows or ids of a mutation from number `from` on, and returns the row to go on from; `None` when it is done and
    /// has taken the next sequence number. Begun, a mutation must be applied to its end before another.
    pub fn apply(&mut self, mutation: &Mutation, from: usize, most: usize, applied: &mut Applied) -> Option<usize> {
        let rows = match mutation {
            Mutation::Write(_) | Mutation::Stage(..) => mutation.batches().iter().map(WriteBatch::rows).sum(),
            Mutation::Remove(ids) => ids.len(),
        };
        if from == 0 {
            self.appended_before = self.appended;
        }
        let until = rows.min(from.saturating_add(most));
        if let Mutation::Remove(ids) = mutation {
            ids[from..until].iter().for_each(|&id| self.remove(id, applied));
        }
        let cuts = self.open_cuts();
        let mut keepers: Vec<Keeper<'_>> = cuts.iter().map(|cut| cut.keeper()).collect();
        let mut first = 0;
        for batch in mutation.batches() {
            // The part of from..until that lies in this batch.
            let range = from.max(first)..until.min(first + batch.rows());
            for row in range.clone() {
                if (row - range.start).is_multiple_of(AHEAD) {
                    self.prefetch(batch, row - first..range.end.min(row + AHEAD) - first);
                }
                match self.spec.kind() {
                    BankKind::Keyed { capacity, .. } => self.upsert((batch, row - first), capacity, &mut keepers, applied),
                    BankKind::Queue { capacity } => {
                        self.append((batch, row - first), (rows - row, capacity), &mut keepers, applied);
                    }
                }
            }
            first += batch.rows();
        }
        self.steps.settle();
        self.applying = until < rows;
        if self.applying {
            return Some(until);
        }
        self.end(mutation, applied);
        None
    }

    /// Asks for the memory of what these rows of a batch will change: rows lie anywhere, and one after the other each would be waited for.
    fn prefetch(&self, batch: &WriteBatch, rows: Range<usize>) {
        if matches!(self.spec.kind(), BankKind::Keyed { .. }) {
            let ids = || rows.clone().filter_map(|row| batch.id(row));
            ids().for_each(|id| self.shards[self.home(id)].prefetch_id(id));
            for id in ids() {
                let shard = &self.shards[self.home(id)];
                shard.find(id).into_iter().for_each(|slot| shard.prefetch(slot));
            }
        }
    }

    /// Gives an applied mutation its number, and notes what it leaves behind beside its rows.
    fn end(&mut self, mutation: &Mutation, applied: &mut Applied) {
        self.sequence += 1;
        self.recent.end(self.sequence);
        applied.sequence = self.sequence;
        let mut first_id = self.appended_before;
        for batch in mutation.batches() {
            self.step = batch.step().or(self.step);
            if let Some(origin) = batch.origin() {
                self.writers.note(origin, self.sequence, if batch.is_numbered_by_bank() { first_id } else { 0 });
            }
            first_id += batch.rows() as u64;
        }
        if let Mutation::Stage(at, _) = mutation {
            self.staged.note(*at);
        }
    }

    fn upsert(
        &mut self,
        (batch, row): (&WriteBatch, usize),
        capacity: Option<u64>,
        keepers: &mut [Keeper<'_>],
        applied: &mut Applied,
    ) {
        let Some(id) = batch.id(row) else { return };
        let (home, metric, x) = (self.home(id), self.spec.metric(), batch.embedding(row));
        let slot = if let Some(slot) = self.shards[home].find(id) {
            let (revision, shard) = (self.next_revision(), &mut self.shards[home]);
            let before = shard.columns().counted(slot);
            let (label, group, weight) = (batch.label(row), batch.group(row), batch.weight(row));
            shard.update(slot, Rewrite { label, group, weight, step: batch.step().unwrap_or_default() }, revision);
            self.keep(home, slot, keepers);
            self.shards[home].write_row(slot, |v| move_row(metric, v, x, batch.momentum()));
            self.recount(Place { shard: home as u32, slot }, before);
            applied.updated += 1;
            slot
        } else {
            self.make_room(capacity.unwrap_or(u64::MAX), Self::stalest, applied);
            let (revision, shard) = (self.next_revision(), &mut self.shards[home]);
            let slot = shard.insert(entry(id, batch, row), revision);
            self.keep(home, slot, keepers);
            self.shards[home].write_row(slot, |v| set_row(metric, v, x));
            self.recount(Place { shard: home as u32, slot }, Counted::default());
            applied.inserted += 1;
            slot
        };
        self.changed(home, slot);
    }

    /// Appends a row that is the first of `left` rows still to be appended to a queue of `capacity`.
    fn append(
        &mut self,
        (batch, row): (&WriteBatch, usize),
        (left, capacity): (usize, u64),
        keepers: &mut [Keeper<'_>],
        applied: &mut Applied,
    ) {
        let id = batch.id(row).unwrap_or(self.appended);
        if batch.id(row).is_none() {
            applied.assigned.push(id);
        }
        let turn = (self.appended % self.shards.len() as u64) as usize;
        self.appended += 1;
        // Of a mutation larger than the queue only the last `capacity` rows would stay: the others are never written.
        if left as u64 > capacity {
            return;
        }
        self.make_room(capacity, Self::oldest, applied);
        let (revision, metric, shard) = (self.next_revision(), self.spec.metric(), &mut self.shards[turn]);
        let slot = shard.insert(entry(id, batch, row), revision);
        self.keep(turn, slot, keepers);
        self.shards[turn].write_row(slot, |v| set_row(metric, v, batch.embedding(row)));
        self.recount(Place { shard: turn as u32, slot }, Counted::default());
        self.changed(turn, slot);
        applied.inserted += 1;
    }

    /// Keeps a row that will be changed for whoever takes a copy of the bank.
    fn keep(&self, shard: usize, slot: u32, keepers: &mut [Keeper<'_>]) {
        keepers.iter_mut().for_each(|keeper| keeper.keep(shard, slot, self.shards[shard].rows()));
    }

    /// Evicts an entry if the bank is full.
    fn make_room(&mut self, capacity: u64, first: impl FnOnce(&Self) -> Option<Place>, applied: &mut Applied) {
        if self.entries() as u64 >= capacity
            && let Some(first) = first(self)
        {
            self.remove_at(first);
            applied.evicted += 1;
        }
    }

    fn remove(&mut self, id: u64, applied: &mut Applied) {
        let places: Vec<Place> = self.find_all(id).collect();
        for place in places {
            self.remove_at(place);
            applied.removed += 1;
        }
    }

    fn remove_at(&mut self, place: Place) {
        let revision = self.next_revision();
        let columns = self.columns(place);
        let stamp = columns.occupied_at(place.slot);
        let before = columns.counted(place.slot);
        self.shards[place.shard as usize].remove(place.slot, revision);
        self.recount(place, before);
        self.left(place, stamp);
    }

    /// The entry of a queue that came first.
    fn oldest(&self) -> Option<Place> {
        self.first(|shard| shard.oldest().map(|slot| (slot, (0, shard.columns().occupied_at(slot)))))
    }

    /// The entry of a keyed bank that most needs a refresh: of the oldest step, and of that step the one written longest ago.
    fn stalest(&self) -> Option<Place> {
        self.first(|shard| shard.stalest().map(|slot| (slot, shard.columns().staleness(slot))))
    }

    /// The shards' candidate of the smallest key.
    fn first(&self, of: impl Fn(&super::Shard) -> Option<(u32, (u64, u64))>) -> Option<Place> {
        let keyed = |(shard, state)| of(state).map(|(slot, key)| (key, Place { shard, slot }));
        (0u32..).zip(&self.shards).filter_map(keyed).min().map(|(_, place)| place)
    }
}

fn entry(id: u64, batch: &WriteBatch, row: usize) -> Entry {
    Entry {
        id,
        label: batch.label(row).flatten(),
        group: batch.group(row).flatten(),
        weight: batch.weight(row).unwrap_or(1.0),
        step: batch.step().unwrap_or_default(),
    }
}

fn set_row(metric: Metric, v: &mut [f32], x: &[f32]) {
    match metric {
        Metric::Cosine => momentum::set_unit(v, x),
        Metric::Dot | Metric::L2 => v.copy_from_slice(x),
    }
}

fn move_row(metric: Metric, v: &mut [f32], x: &[f32], m: f32) {
    match metric {
        Metric::Cosine => momentum::move_unit(v, x, m),
        Metric::Dot | Metric::L2 => momentum::mix(v, x, m),
    }
}
