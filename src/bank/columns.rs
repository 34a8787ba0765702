//! What is known of each entry beside its embedding.

use std::ops::Range;

use crate::kernels::coded::Barred;
use crate::kernels::prefetch::prefetch;
use crate::model::ShardImage;

/// The columns of a shard, by slot.
#[derive(Debug, Default)]
pub struct Columns {
    ids: Vec<u64>,
    labels: Vec<i64>,
    groups: Vec<u64>,
    weights: Vec<f32>,
    steps: Vec<u64>,
    /// Bank's change counter when the slot got its present entry; 0 while it is free.
    occupied_at: Vec<u64>,
    /// Bank's change counter at the entry's last write.
    revisions: Vec<u64>,
    present: Vec<u8>,
}

const HAS_LABEL: u8 = 1;
const HAS_GROUP: u8 = 2;

/// One entry's columns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    /// Instance id.
    pub id: u64,
    /// Class.
    pub label: Option<i64>,
    /// Entries of one group are never each other's negatives.
    pub group: Option<u64>,
    /// Sampling weight, at least 0.
    pub weight: f32,
    /// Training step of the last write.
    pub step: u64,
}

/// What a bank counts of an entry; the default is that of a free slot.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    pub(super) label: Option<i64>,
    pub(super) weight: f32,
    pub(super) step: Option<u64>,
}

impl Columns {
    /// Memory of one slot's columns, in bytes.
    pub(super) const BYTES_PER_SLOT: usize = 6 * 8 + 4 + 1;

    /// Copies everything to an image.
    pub(super) fn copy_to(&self, image: &mut ShardImage) {
        self.ids.clone_into(&mut image.ids);
        self.labels.clone_into(&mut image.labels);
        self.groups.clone_into(&mut image.groups);
        self.weights.clone_into(&mut image.weights);
        self.steps.clone_into(&mut image.steps);
        self.occupied_at.clone_into(&mut image.occupied_at);
        self.revisions.clone_into(&mut image.revisions);
        self.present.clone_into(&mut image.present);
    }

    /// Takes the columns out of an image in which all are of one length.
    pub(super) fn restore(image: &mut ShardImage) -> Self {
        Self {
            ids: std::mem::take(&mut image.ids),
            labels: std::mem::take(&mut image.labels),
            groups: std::mem::take(&mut image.groups),
            weights: std::mem::take(&mut image.weights),
            steps: std::mem::take(&mut image.steps),
            occupied_at: std::mem::take(&mut image.occupied_at),
            revisions: std::mem::take(&mut image.revisions),
            present: std::mem::take(&mut image.present),
        }
    }

    /// Number of slots, free ones too.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True if there is no slot.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// True if the slot holds an entry.
    pub fn is_occupied(&self, slot: u32) -> bool {
        self.occupied_at[slot as usize] != 0
    }

    /// The occupancy stamp: changes when the slot gets another entry; 0 while it is free.
    pub fn occupied_at(&self, slot: u32) -> u64 {
        self.occupied_at[slot as usize]
    }

    /// The same; 0 of a slot that there is none of.
    pub fn stamp(&self, slot: usize) -> u64 {
        self.occupied_at.get(slot).copied().unwrap_or(0)
    }

    /// The bank's change counter at the entry's last write.
    pub fn revision(&self, slot: u32) -> u64 {
        self.revisions[slot as usize]
    }

    /// The entry's id.
    pub fn id(&self, slot: u32) -> u64 {
        self.ids[slot as usize]
    }

    /// Asks for the entry's id to be brought near: it will be read soon.
    pub fn prefetch_id(&self, slot: u32) {
        prefetch(&self.ids[slot as usize..=slot as usize]);
    }

    /// Asks for what tells who lies in the slot, and since when, to be brought near.
    pub fn prefetch_identity(&self, slot: u32) {
        let at = slot as usize;
        prefetch(&self.ids[at..=at]);
        prefetch(&self.occupied_at[at..=at]);
        prefetch(&self.revisions[at..=at]);
    }

    /// Asks for the stamp of the slot's entry to be brought near.
    pub fn prefetch_stamp(&self, slot: u32) {
        prefetch(&self.occupied_at[slot as usize..=slot as usize]);
    }

    /// The entry's label.
    pub fn label(&self, slot: u32) -> Option<i64> {
        (self.present[slot as usize] & HAS_LABEL != 0).then(|| self.labels[slot as usize])
    }

    /// True if the slot holds an entry that is not of the label `barred`. Asked of hundreds of entries an anchor: nothing branches.
    pub fn is_of_other(&self, slot: u32, barred: Option<i64>) -> bool {
        let at = slot as usize;
        let labelled = self.present[at] & HAS_LABEL != 0;
        let of_barred = labelled & barred.is_some() & (self.labels[at] == barred.unwrap_or_default());
        (self.occupied_at[at] != 0) & !of_barred
    }

    /// Writes the labels of the slots from `first` on as classes: those that are small enough, of slots that hold an entry.
    pub fn classes(&self, first: u32, classes: &mut [u32]) {
        let slots = first as usize..first as usize + classes.len();
        let (labels, present, occupied_at) =
            (&self.labels[slots.clone()], &self.present[slots.clone()], &self.occupied_at[slots]);
        for (at, class) in classes.iter_mut().enumerate() {
            let labelled = (present[at] & HAS_LABEL != 0) & (occupied_at[at] != 0);
            *class = if labelled { Self::class(labels[at]).unwrap_or(Barred::NO_ROWS) } else { Barred::NO_ROWS };
        }
    }

    /// A label as a class, if it is small enough.
    pub fn class(label: i64) -> Option<u32> {
        u32::try_from(label).ok().filter(|&class| class < Barred::NO_ANCHORS)
    }

    /// The entry's group.
    pub fn group(&self, slot: u32) -> Option<u64> {
        (self.present[slot as usize] & HAS_GROUP != 0).then(|| self.groups[slot as usize])
    }

    /// The entry's sampling weight.
    pub fn weight(&self, slot: u32) -> f32 {
        self.weights[slot as usize]
    }

    /// Training step of the entry's last write.
    pub fn step(&self, slot: u32) -> u64 {
        self.steps[slot as usize]
    }

    /// Smaller for entries that need a refresh more: step, then the bank's change counter, of the last write.
    pub fn staleness(&self, slot: u32) -> (u64, u64) {
        (self.steps[slot as usize], self.revisions[slot as usize])
    }

    /// What the bank counts of the slot's entry.
    pub(super) fn counted(&self, slot: u32) -> Counted {
        let step = self.is_occupied(slot).then(|| self.step(slot));
        Counted { label: self.label(slot), weight: self.weight(slot), step }
    }

    /// Asks for the memory of what filters look at most, before they do.
    pub fn prefetch_filtered(&self, slots: Range<u32>) {
        let slots = slots.start as usize..slots.end as usize;
        prefetch(&self.occupied_at[slots.clone()]);
        prefetch(&self.labels[slots.clone()]);
        prefetch(&self.present[slots]);
    }

    /// Asks for the memory of what a write looks at and changes.
    pub(super) fn prefetch_written(&self, slot: u32) {
        let at = slot as usize;
        prefetch(&self.labels[at..=at]);
        prefetch(&self.weights[at..=at]);
        prefetch(&self.steps[at..=at]);
        prefetch(&self.revisions[at..=at]);
        prefetch(&self.present[at..=at]);
    }

    /// The whole entry.
    pub fn entry(&self, slot: u32) -> Entry {
        let at = slot as usize;
        Entry {
            id: self.ids[at],
            label: self.label(slot),
            group: self.group(slot),
            weight: self.weights[at],
            step: self.steps[at],
        }
    }

    /// Adds a free slot and returns it.
    pub(super) fn grow(&mut self) -> u32 {
        let slot = self.ids.len() as u32;
        self.ids.push(0);
        self.labels.push(0);
        self.groups.push(0);
        self.weights.push(0.0);
        self.steps.push(0);
        self.occupied_at.push(0);
        self.revisions.push(0);
        self.present.push(0);
        slot
    }

    /// Puts an entry into a free slot.
    pub(super) fn occupy(&mut self, slot: u32, entry: Entry, revision: u64) {
        let at = slot as usize;
        self.ids[at] = entry.id;
        self.occupied_at[at] = revision;
        self.set_label(slot, entry.label);
        self.set_group(slot, entry.group);
        self.set_weight(slot, entry.weight);
        self.touch(slot, entry.step, revision);
    }

    /// Notes a write to an entry.
    pub(super) fn touch(&mut self, slot: u32, step: u64, revision: u64) {
        self.steps[slot as usize] = step;
        self.revisions[slot as usize] = revision;
    }

    pub(super) fn set_label(&mut self, slot: u32, label: Option<i64>) {
        self.labels[slot as usize] = label.unwrap_or_default();
        self.set_present(slot, HAS_LABEL, label.is_some());
    }

    pub(super) fn set_group(&mut self, slot: u32, group: Option<u64>) {
        self.groups[slot as usize] = group.unwrap_or_default();
        self.set_present(slot, HAS_GROUP, group.is_some());
    }

    pub(super) fn set_weight(&mut self, slot: u32, weight: f32) {
        self.weights[slot as usize] = weight;
    }

    /// Empties a slot.
    pub(super) fn free(&mut self, slot: u32, revision: u64) {
        self.occupied_at[slot as usize] = 0;
        self.weights[slot as usize] = 0.0;
        self.revisions[slot as usize] = revision;
        self.present[slot as usize] = 0;
    }

    fn set_present(&mut self, slot: u32, bit: u8, on: bool) {
        let present = &mut self.present[slot as usize];
        *present = if on { *present | bit } else { *present & !bit };
    }
}
