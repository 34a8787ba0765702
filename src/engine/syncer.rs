//! Syncs of a bank's log that nobody waits for.

use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::durability::{StoreError, Unsynced, Until};
use crate::model::BankName;

/// What came of a sync.
pub(super) type Synced = Result<Until, StoreError>;

/// A thread that syncs, so that the committer can go on meanwhile. It ends when this is dropped.
pub(super) struct Syncer {
    queue: Sender<Unsynced>,
    synced: Receiver<Synced>,
    busy: bool,
}

impl Syncer {
    /// Starts the thread.
    pub(super) fn start(bank: &BankName) -> std::io::Result<Self> {
        let (queue, begun) = bounded::<Unsynced>(1);
        let (ended, synced) = bounded(1);
        let work = move || begun.iter().all(|unsynced| ended.send(unsynced.sync()).is_ok());
        thread::Builder::new().name(format!("sync-{bank}")).spawn(work)?;
        Ok(Self { queue, synced, busy: false })
    }

    /// One whose sync has ended so, which nobody has heard of yet.
    #[cfg(test)]
    pub(super) fn that_ended(synced: Synced) -> Self {
        let (queue, _) = bounded(1);
        let (ended, receiver) = bounded(1);
        let _heard_of_later = ended.send(synced);
        Self { queue, synced: receiver, busy: true }
    }

    /// Begins a sync; none may be under way.
    pub(super) fn begin(&mut self, unsynced: Unsynced) {
        // Of a thread that has ended one hears by the other channel.
        let _ended = self.queue.send(unsynced);
        self.busy = true;
    }

    /// Hears of the end of each sync once.
    pub(super) fn synced(&self) -> &Receiver<Synced> {
        &self.synced
    }

    /// The end of the sync was heard of.
    pub(super) fn note_ended(&mut self) {
        self.busy = false;
    }

    /// True from the beginning of a sync until its end was heard of.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }
}
