//! A bank as values, and back.

use std::sync::{Arc, Weak};

use super::classes::Classes;
use super::cut::{Budget, Cut};
use super::recent::Recent;
use super::shard::Shard;
use super::staged::Staged;
use super::state::Bank;
use super::steps::Steps;
use super::writers::Writers;
use crate::model::{BadImage, BankImage, BankSpec, ShardImage};
use crate::rows::OutOfMemory;

/// Why a bank could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The image is none.
    #[error(transparent)]
    Bad(#[from] BadImage),
    /// The system has no memory for it.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

impl Bank {
    /// All of it but the embeddings, between two mutations.
    pub fn image(&self) -> BankImage {
        self.image_in(BankImage::default())
    }

    /// Slots of each shard, and how many of them are free: what [`BankImage::with_room`] wants to know.
    pub fn extents(&self) -> Vec<(usize, usize)> {
        self.shards.iter().map(Shard::extent).collect()
    }

    /// [`Self::image`], in the memory of `room` as far as that goes.
    pub fn image_in(&self, mut room: BankImage) -> BankImage {
        room.shards.resize_with(self.shards.len(), ShardImage::default);
        BankImage {
            sequence: self.sequence,
            step: self.step,
            revision: self.revision,
            appended: self.appended,
            labels: self.classes.labels().to_vec(),
            staged: self.staged.image(),
            writers: self.writers.image(),
            shards: self.shards.iter().zip(room.shards).map(|(shard, room)| shard.image_in(room)).collect(),
        }
    }

    /// A bank like that; [`Self::load`] puts back its embeddings. What mirrors may ask for begins anew: they are sent the whole bank.
    ///
    /// # Errors
    /// [`RestoreError`]
    pub fn restore(spec: BankSpec, image: BankImage) -> Result<Self, RestoreError> {
        if image.shards.len() != spec.shards() {
            return Err(BadImage("it has another number of shards than its settings say").into());
        }
        if !image.shards.iter().all(columns_agree) {
            return Err(BadImage("columns of one shard are of several lengths").into());
        }
        let mut bank = Self::new(spec);
        (bank.sequence, bank.step, bank.revision, bank.appended) = (image.sequence, image.step, image.revision, image.appended);
        bank.shards = image.shards.into_iter().map(|shard| Shard::restore(&spec, shard)).collect::<Result<_, _>>()?;
        let of_entries = bank.shards.iter().flat_map(|shard| {
            let columns = shard.columns();
            shard.roster().iter().filter_map(|&slot| columns.label(slot))
        });
        bank.classes = Classes::restore(image.labels, of_entries).ok_or(BadImage("its labels are not those of its entries"))?;
        let steps = bank.shards.iter().flat_map(|shard| shard.roster().iter().map(|&slot| shard.columns().step(slot)));
        bank.steps = Steps::of(steps);
        bank.staged = Staged::restore(image.staged);
        bank.writers = Writers::restore(image.writers);
        bank.recent = Recent::restore(image.sequence, image.revision);
        for shard in &mut bank.shards {
            shard.make_room()?;
        }
        Ok(bank)
    }

    /// Puts back embeddings of a shard from slot `first` on, as [`Cut::take`] gave them. False if there are no such slots.
    pub fn load(&mut self, shard: usize, first: u32, raw: &[u8]) -> bool {
        let bytes = self.spec.dim() * self.spec.dtype().bytes();
        let Some(shard) = self.shards.get_mut(shard) else { return false };
        let fits = raw.len().is_multiple_of(bytes) && first as usize + raw.len() / bytes <= shard.columns().len();
        if fits {
            shard.load(first, raw);
        }
        fits
    }

    /// From now on the embeddings as they are now can be taken from the cut, whatever is written meanwhile, until it is dropped.
    pub fn begin_cut(&mut self, budget: Budget) -> Arc<Cut> {
        let row = self.spec.dim() * self.spec.dtype().bytes();
        let cut = Arc::new(Cut::new(self.shards.iter().map(|shard| shard.columns().len() as u32), row, budget));
        self.cuts.push(Arc::downgrade(&cut));
        cut
    }

    /// True while writes are to wait for a copy of the bank.
    pub fn is_ahead_of_a_copy(&self) -> bool {
        self.cuts.iter().filter_map(Weak::upgrade).any(|cut| cut.is_pressed())
    }

    /// Those that writes are to wait for fail.
    pub fn give_up_copies(&self) {
        self.cuts.iter().filter_map(Weak::upgrade).filter(|cut| cut.is_pressed()).for_each(|cut| cut.give_up());
    }

    /// The copies for which rows must be kept before they are changed.
    pub(super) fn open_cuts(&mut self) -> Vec<Arc<Cut>> {
        self.cuts.retain(|cut| cut.strong_count() > 0);
        self.cuts.iter().filter_map(Weak::upgrade).filter(|cut| cut.is_open()).collect()
    }
}

fn columns_agree(shard: &ShardImage) -> bool {
    let slots = shard.ids.len();
    [shard.labels.len(), shard.groups.len(), shard.weights.len(), shard.steps.len(), shard.occupied_at.len()] == [slots; 5]
        && [shard.revisions.len(), shard.present.len(), shard.in_roster.len()] == [slots; 3]
        && [shard.in_label.len(), shard.in_group.len(), shard.in_weight.len()] == [slots; 3]
}
