//! One shard: a part of a bank's entries with everything that finds them.

use super::ages::Ages;
use super::columns::{Columns, Entry};
use super::fifo::Fifo;
use super::id_index::IdIndex;
use super::postings::Postings;
use super::powers::exponent;
use super::roster::Roster;
use crate::model::{BadImage, BankKind, BankSpec, Metric, ShardImage};
use crate::rows::{OutOfMemory, Rows};

/// A part of a bank's entries. Slots are reused, most recently freed first.
#[derive(Debug)]
pub struct Shard {
    rows: Rows,
    columns: Columns,
    ids: IdIndex,
    roster: Roster,
    labels: Postings<i64>,
    groups: Postings<u64>,
    /// By the binary exponent of the weight; entries of weight 0 are in none.
    weights: Postings<i16>,
    free: Vec<u32>,
    /// Order of arrival; queue banks only.
    fifo: Option<Fifo>,
    /// Order of staleness; keyed banks only.
    ages: Option<Ages>,
    largest_norm: f64,
}

/// What a write changes of an entry; a column that it omits keeps its value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rewrite {
    pub(super) label: Option<Option<i64>>,
    pub(super) group: Option<Option<u64>>,
    pub(super) weight: Option<f32>,
    pub(super) step: u64,
}

impl Shard {
    pub(super) fn new(spec: &BankSpec) -> Self {
        let queue = matches!(spec.kind(), BankKind::Queue { .. });
        let rows = Rows::new(spec.dim(), spec.dtype());
        Self {
            // Bounds of a distance that come from those of a dot product are too loose to be of use.
            rows: if spec.metric() == Metric::L2 { rows } else { rows.with_codes() },
            columns: Columns::default(),
            ids: IdIndex::default(),
            roster: Roster::default(),
            labels: Postings::default(),
            groups: Postings::default(),
            weights: Postings::default(),
            free: Vec::new(),
            fifo: queue.then(Fifo::default),
            ages: (!queue).then(Ages::default),
            largest_norm: 0.0,
        }
    }

    /// Slots, and how many of them are free.
    pub(super) fn extent(&self) -> (usize, usize) {
        (self.columns.len(), self.free.len())
    }

    /// All of it but the embeddings, in the memory of `room` as far as that goes.
    pub(super) fn image_in(&self, mut room: ShardImage) -> ShardImage {
        self.columns.copy_to(&mut room);
        let slots = self.columns.len();
        let copy = |positions: &[u32], to: &mut Vec<u32>| {
            positions.clone_into(to);
            to.resize(slots, 0);
        };
        copy(self.roster.positions(), &mut room.in_roster);
        copy(self.labels.positions(), &mut room.in_label);
        copy(self.groups.positions(), &mut room.in_group);
        copy(self.weights.positions(), &mut room.in_weight);
        self.free.clone_into(&mut room.free);
        room.largest_norm = self.largest_norm;
        room
    }

    /// A shard like that, whose embeddings are to be put back.
    pub(super) fn restore(spec: &BankSpec, mut image: ShardImage) -> Result<Self, BadImage> {
        let mut shard = Self::new(spec);
        let columns = Columns::restore(&mut image);
        let slots = 0..columns.len() as u32;
        let mut members: Vec<u32> = slots.filter(|&slot| columns.is_occupied(slot)).collect();
        let list = "a list's positions are not 0, 1, 2, ...";
        let all = members.iter().copied();
        shard.roster = Roster::restore(all.clone(), image.in_roster).ok_or(BadImage(list))?;
        let labelled = all.clone().filter_map(|slot| Some((columns.label(slot)?, slot)));
        shard.labels = Postings::restore(labelled, image.in_label).ok_or(BadImage(list))?;
        let grouped = all.clone().filter_map(|slot| Some((columns.group(slot)?, slot)));
        shard.groups = Postings::restore(grouped, image.in_group).ok_or(BadImage(list))?;
        let weighing = all.filter_map(|slot| Some((exponent(columns.weight(slot))?, slot)));
        shard.weights = Postings::restore(weighing, image.in_weight).ok_or(BadImage(list))?;
        if image.free.len() + members.len() != columns.len()
            || image.free.iter().any(|&slot| slot as usize >= columns.len() || columns.is_occupied(slot))
        {
            return Err(BadImage("free and occupied slots are not all slots"));
        }
        // Entries of one id, and those of a queue, are in the order in which they came.
        members.sort_unstable_by_key(|&slot| columns.occupied_at(slot));
        for &slot in &members {
            shard.ids.add(columns.id(slot), slot);
            if let Some(fifo) = &mut shard.fifo {
                fifo.push(slot);
            }
        }
        if let Some(ages) = &mut shard.ages {
            members.sort_unstable_by_key(|&slot| columns.revision(slot));
            members.iter().for_each(|&slot| ages.add(slot, columns.step(slot)));
        }
        (shard.columns, shard.free, shard.largest_norm) = (columns, image.free, image.largest_norm);
        Ok(shard)
    }

    /// Makes room for the embeddings of all slots.
    pub(super) fn make_room(&mut self) -> Result<(), OutOfMemory> {
        self.rows.reserve(self.columns.len())
    }

    /// Puts back embeddings from slot `first` on.
    pub(super) fn load(&mut self, first: u32, raw: &[u8]) {
        self.rows.load(first, raw);
    }

    /// Embeddings by slot.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Columns by slot.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Slots of all entries.
    pub fn roster(&self) -> &[u32] {
        self.roster.slots()
    }

    /// Slots of the entries of a label.
    pub fn labelled(&self, label: i64) -> &[u32] {
        self.labels.list(label)
    }

    /// Labels that have an entry, in no order that may be relied on.
    pub fn labels(&self) -> impl Iterator<Item = i64> + '_ {
        self.labels.keys()
    }

    /// Slots of the entries of a group.
    pub fn grouped(&self, group: u64) -> &[u32] {
        self.groups.list(group)
    }

    /// Groups that have an entry, in no order that may be relied on.
    pub fn groups(&self) -> impl Iterator<Item = u64> + '_ {
        self.groups.keys()
    }

    /// Slots of the entries whose weight has this binary exponent.
    pub fn weighing(&self, exponent: i16) -> &[u32] {
        self.weights.list(exponent)
    }

    /// Slots of the entries of an id, newest first; at most one in a keyed bank.
    pub fn with_id(&self, id: u64) -> impl Iterator<Item = u32> + '_ {
        self.ids.all(id)
    }

    /// Slot of the newest entry of an id.
    pub fn find(&self, id: u64) -> Option<u32> {
        self.ids.newest(id)
    }

    /// Asks for the memory in which an id is looked up.
    pub(super) fn prefetch_id(&self, id: u64) {
        self.ids.prefetch(id);
    }

    /// At least the norm of every row that the shard holds.
    pub fn largest_norm(&self) -> f64 {
        self.largest_norm
    }

    /// Makes room for `more` entries.
    pub(super) fn reserve(&mut self, more: usize) -> Result<(), OutOfMemory> {
        let fresh = more.saturating_sub(self.free.len());
        self.rows.reserve(self.columns.len() + fresh)
    }

    /// Memory that the shard takes with `more` entries added.
    pub(super) fn resident_with(&self, more: usize) -> usize {
        let slots = self.columns.len() + more.saturating_sub(self.free.len());
        self.rows.resident(slots) + slots * (Columns::BYTES_PER_SLOT + Self::LISTED_BYTES)
    }

    /// Memory that finds an entry by id, label, group, weight and age; about, since it depends on how many there are.
    pub(super) const LISTED_BYTES: usize = 80;

    /// Adds an entry and returns its slot. [`Self::reserve`] must have made room.
    pub(super) fn insert(&mut self, entry: Entry, revision: u64) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| self.columns.grow());
        self.columns.occupy(slot, entry, revision);
        self.ids.add(entry.id, slot);
        self.roster.add(slot);
        self.labels.change(slot, None, entry.label);
        self.groups.change(slot, None, entry.group);
        self.weights.change(slot, None, exponent(entry.weight));
        if let Some(fifo) = &mut self.fifo {
            fifo.push(slot);
        }
        if let Some(ages) = &mut self.ages {
            ages.add(slot, entry.step);
        }
        slot
    }

    /// Asks for the memory of what a write to an entry changes.
    pub(super) fn prefetch(&self, slot: u32) {
        self.rows.prefetch(slot);
        self.columns.prefetch_written(slot);
        self.ages.iter().for_each(|ages| ages.prefetch(slot));
    }

    /// Notes a write to an entry.
    pub(super) fn update(&mut self, slot: u32, rewrite: Rewrite, revision: u64) {
        let Rewrite { label, group, weight, step } = rewrite;
        if let Some(ages) = &mut self.ages {
            ages.remove(slot, self.columns.step(slot));
            ages.add(slot, step);
        }
        if let Some(label) = label {
            self.labels.change(slot, self.columns.label(slot), label);
            self.columns.set_label(slot, label);
        }
        if let Some(group) = group {
            self.groups.change(slot, self.columns.group(slot), group);
            self.columns.set_group(slot, group);
        }
        if let Some(weight) = weight {
            self.weights.change(slot, exponent(self.columns.weight(slot)), exponent(weight));
            self.columns.set_weight(slot, weight);
        }
        self.columns.touch(slot, step, revision);
    }

    /// Removes the entry of a slot.
    pub(super) fn remove(&mut self, slot: u32, revision: u64) {
        let entry = self.columns.entry(slot);
        self.ids.remove(entry.id, slot);
        self.roster.remove(slot);
        self.labels.change(slot, entry.label, None);
        self.groups.change(slot, entry.group, None);
        self.weights.change(slot, exponent(entry.weight), None);
        if let Some(fifo) = &mut self.fifo {
            fifo.remove(slot);
        }
        if let Some(ages) = &mut self.ages {
            ages.remove(slot, entry.step);
        }
        self.columns.free(slot, revision);
        self.free.push(slot);
    }

    /// Slot of the entry that came first, in a queue.
    pub(super) fn oldest(&self) -> Option<u32> {
        self.fifo.as_ref().and_then(Fifo::oldest)
    }

    /// Slot of the stalest entry, in a keyed bank.
    pub fn stalest(&self) -> Option<u32> {
        self.ages.as_ref().and_then(Ages::stalest)
    }

    /// Slot of the next stalest entry after that of an occupied slot, in a keyed bank.
    pub fn stalest_after(&self, slot: u32) -> Option<u32> {
        self.ages.as_ref().and_then(|ages| ages.after(slot, self.columns.step(slot)))
    }

    /// Changes a row; its norm is noted.
    pub(super) fn write_row(&mut self, slot: u32, write: impl FnOnce(&mut [f32])) {
        self.largest_norm = self.largest_norm.max(self.rows.change(slot, write));
    }
}
