//! What is known of a bank beside its entries, to search it faster.

use std::sync::{Arc, PoisonError, RwLock};

use super::planner::Planner;
use super::recall::Recall;
use crate::bank::{Bank, Place};
use crate::index::{Delta, Generation, Scanned, Taken};

/// The graph that serves, kept in step with the bank's writes; the costs of plans; how well the graph finds.
#[derive(Debug, Default)]
pub struct Indexed {
    /// Locked after the bank, if both are.
    delta: RwLock<Option<Delta>>,
    pub(super) planner: Planner,
    recall: Recall,
}

/// A graph and what is scanned beside it, as of one moment.
#[derive(Debug)]
pub(super) struct View {
    pub(super) generation: Arc<Generation>,
    pub(super) scanned: Scanned,
    /// The bank's change counter then.
    pub(super) known: u64,
    /// [`Delta::has_drifted`]
    pub(super) has_drifted: bool,
}

/// How the graph that serves stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// When its rows were copied.
    pub taken: Taken,
    /// Entries that it was built from.
    pub indexed: usize,
    /// Entries that are scanned beside it.
    pub scanned: usize,
    /// Mean similarity of the indexed rows to what they were.
    pub mean_similarity: f64,
    /// True if rows that it is walked for have moved: walks see them as they are.
    pub has_drifted: bool,
    /// Entries that it can't find.
    pub unreachable: usize,
    /// Memory that it takes.
    pub bytes: usize,
}

impl Indexed {
    /// Tells of the writes since it was last told. Called by whoever writes, after each hold of the bank's lock, so the bank
    /// remembers them all; if it does not, the graph serves no more.
    pub fn follow(&self, bank: &Bank) {
        let mut kept = self.delta.write().unwrap_or_else(PoisonError::into_inner);
        let known = kept.as_mut().is_none_or(|delta| tell_since(delta, bank, u64::MAX));
        if !known {
            *kept = None;
        }
    }

    /// Lets a graph serve that knows of all writes up to now, which `bank`, held meanwhile, proves; returns the one before, to be dropped where
    /// nobody waits.
    pub fn install(&self, mut delta: Delta, bank: &Bank) -> Option<Delta> {
        let mut kept = self.delta.write().unwrap_or_else(PoisonError::into_inner);
        if tell_since(&mut delta, bank, u64::MAX) { kept.replace(delta) } else { Some(delta) }
    }

    /// How the graph that serves stands; `None`: none does.
    pub fn standing(&self) -> Option<Standing> {
        let kept = self.delta.read().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().map(|delta| {
            let generation = delta.generation();
            Standing {
                taken: generation.taken(),
                indexed: generation.frozen().len(),
                scanned: delta.len(),
                mean_similarity: delta.mean_similarity(),
                has_drifted: delta.has_drifted(),
                unreachable: generation.unreachable().len(),
                bytes: generation.bytes(),
            }
        })
    }

    /// The graph that serves.
    pub fn generation(&self) -> Option<Arc<Generation>> {
        let kept = self.delta.read().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().map(|delta| Arc::clone(delta.generation()))
    }

    /// How many of the true nearest the graph found, of late.
    pub fn recall(&self) -> &Recall {
        &self.recall
    }

    /// The graph that serves.
    pub(super) fn view(&self) -> Option<View> {
        let kept = self.delta.read().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().map(|delta| View {
            generation: Arc::clone(delta.generation()),
            scanned: delta.scanned(),
            known: delta.known(),
            has_drifted: delta.has_drifted(),
        })
    }
}

/// Tells `delta` of up to `most` of the writes that it does not know; false if the bank remembers them no more.
pub fn tell_since(delta: &mut Delta, bank: &Bank, most: u64) -> bool {
    let until = bank.revision().min(delta.known().saturating_add(most));
    let Some(changes) = bank.changes(delta.known(), until) else { return false };
    let mut scratch = Vec::new();
    for change in changes {
        tell(delta, bank, change.place, &mut scratch);
    }
    delta.knows(until);
    true
}

/// Tells `delta` what lies at a place.
pub fn tell(delta: &mut Delta, bank: &Bank, place: Place, scratch: &mut Vec<f32>) {
    let stamp = bank.columns(place).occupied_at(place.slot);
    let occupant = (stamp != 0).then(|| (stamp, bank.row(place).floats(scratch)));
    delta.note((place.shard, place.slot), occupant);
}
