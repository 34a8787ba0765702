//! Where checkpoints are made.

mod claims;

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};

use dashmap::DashMap;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

pub(super) use self::claims::Claim;
use self::claims::Claims;
use crate::engine::EngineError;
use crate::engine::priority::give_way;
use crate::model::{BankName, clock};

/// Checkpoints that are made or read at the same time: they share a disk.
const TURNS: usize = 2;
/// Checkpoints behind which is tidied up at the same time: more only where the location is slow.
const TIDYING: usize = 8;

/// A runtime whose threads give way to those which answer calls.
#[derive(Debug)]
pub(super) struct Background {
    runtime: Option<Runtime>,
    turns: Semaphore,
    tidying: Arc<Semaphore>,
    pub(super) claims: Claims,
    /// Held while memory is taken for a bank that is not there yet.
    pub(super) taking: Mutex<()>,
    /// When each bank's newest checkpoint was made, as far as somebody has looked.
    newest: DashMap<BankName, u64>,
}

impl Background {
    /// Starts its first thread; those that may wait for a disk come when they are wanted.
    pub(super) fn start() -> io::Result<Self> {
        let mut threads = Builder::new_multi_thread();
        let runtime = threads.worker_threads(1).thread_name("background").on_thread_start(give_way).enable_all().build()?;
        let (turns, tidying) = (Semaphore::new(TURNS), Arc::new(Semaphore::new(TIDYING)));
        Ok(Self {
            runtime: Some(runtime),
            turns,
            tidying,
            claims: Claims::default(),
            taking: Mutex::default(),
            newest: DashMap::new(),
        })
    }

    /// Runs `work` there, and whatever blocks in it.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            drop(runtime.spawn(work));
        }
    }

    /// Waits for a turn, which lasts until it is dropped.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, EngineError> {
        self.turns.acquire().await.map_err(|_| EngineError::Internal("the turns are over"))
    }

    pub(super) fn knows_newest(&self, bank: &BankName) -> bool {
        self.newest.contains_key(bank)
    }

    pub(super) fn note_newest(&self, bank: &BankName, made: u64) {
        self.newest.entry(bank.clone()).or_insert(made);
    }

    /// When a checkpoint was made that is made now, in milliseconds since 1970: after all others of its bank, whatever the clock says, since
    /// that tells which is the newest.
    pub(super) fn date(&self, bank: &BankName) -> u64 {
        let mut newest = self.newest.entry(bank.clone()).or_insert(0);
        *newest = clock::unix_millis().max(newest.saturating_add(1));
        *newest
    }

    /// A turn to tidy up, unless too many do.
    pub(super) fn tidying(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.tidying).try_acquire_owned().ok()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Tokio may be what drops it, and what still runs there notices that nobody waits.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
