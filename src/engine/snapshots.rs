//! Snapshots: taken by one thread while writes go on, and banks restored from them.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::EngineError;
use super::bank_memory::BankMemory;
use super::priority::give_way;
use crate::archive::{LOOKED_EVERY, fits};
use crate::bank::{Bank, Cut, RestoreError};
use crate::codec::{Section, StateHash};
use crate::durability::{Complaint, Folder, Published, Snapshot};
use crate::model::{BankImage, BankSpec, clock};
use crate::rows::Shared;

/// The way of a bank to the thread that writes snapshots, one after another; it ends when all of these are dropped.
#[derive(Debug, Clone)]
pub(super) struct Snapshots {
    queue: Sender<Job>,
    trouble: Trouble,
}

/// Why the last snapshot of a bank was not taken; none, once one is.
#[derive(Debug, Clone, Default)]
pub(super) struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    pub(super) fn told(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tell(&self, trouble: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// A snapshot to be written.
pub(super) struct Job {
    pub(super) folder: Folder,
    pub(super) bank: Arc<Shared<Bank>>,
    pub(super) memory: Arc<BankMemory>,
    pub(super) image: BankImage,
    pub(super) cut: Arc<Cut>,
    pub(super) outcome: Outcome,
    /// The bank's.
    pub(super) trouble: Trouble,
}

/// What became of a snapshot, once it is known.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome(Arc<Mutex<Option<Result<Snapshot, Failed>>>>);

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    /// More was written meanwhile than could be copied aside.
    Overrun,
    /// The system, or a defect.
    Fault,
}

impl Outcome {
    pub(super) fn known(&self) -> Option<Result<Snapshot, Failed>> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, taken: Result<Snapshot, Failed>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(taken);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // Whatever went wrong, whoever waits hears of it.
        if self.outcome.known().is_none() {
            self.outcome.tell(Err(Failed::Fault));
        }
    }
}

impl Snapshots {
    /// Starts the thread, for at most `banks` banks.
    pub(super) fn start(banks: usize) -> std::io::Result<Self> {
        let (queue, jobs) = bounded(banks);
        thread::Builder::new().name("snapshot".into()).spawn(move || run(&jobs))?;
        Ok(Self { queue, trouble: Trouble::default() })
    }

    /// The way of another bank to the same thread.
    pub(super) fn of_another(&self) -> Self {
        Self { queue: self.queue.clone(), trouble: Trouble::default() }
    }

    pub(super) fn trouble(&self) -> &Trouble {
        &self.trouble
    }

    /// Queues a snapshot. If there is no room its outcome is that it failed.
    pub(super) fn submit(&self, job: Job) {
        if let Err(refused) = self.queue.try_send(job) {
            tracing::warn!(%refused, "no snapshot is taken; the log stays until one is");
            let why = match refused {
                TrySendError::Full(_) => "too many others wait for the thread that takes them",
                TrySendError::Disconnected(_) => "the thread that takes them has ended, which is a defect of negbank",
            };
            self.trouble.tell(Some(why.to_owned()));
        }
    }
}

fn run(jobs: &Receiver<Job>) {
    give_way();
    for job in jobs {
        let (began, bank) = (clock::now(), job.folder.record().name.clone());
        let written = catch_unwind(AssertUnwindSafe(|| write(&job)));
        job.cut.forget();
        match written.unwrap_or(Err(EngineError::Internal("taking a snapshot panicked"))) {
            Ok(snapshot) => {
                let seconds = began.elapsed().as_secs_f64();
                tracing::info!(%bank, sequence = snapshot.sequence, bytes = snapshot.bytes, seconds, "snapshot taken");
                job.trouble.tell(None);
                job.outcome.tell(Ok(snapshot));
                // Here, since the disk takes its time to free them. What can't be removed costs room, and is removed with the next.
                if let Err(fault) = job.folder.remove_log_behind(snapshot.sequence)
                    && job.folder.path().exists()
                {
                    tracing::warn!(%bank, %fault, "the log behind a snapshot stays");
                }
            }
            // A deleted bank's folder is gone, and nobody misses its snapshot.
            Err(_) if !job.folder.path().exists() => {}
            Err(fault) => {
                tracing::warn!(%bank, %fault, "no snapshot was taken; the log stays until one is");
                job.trouble.tell(Some(fault.to_string()));
                job.outcome.tell(Err(if matches!(fault, EngineError::Overrun(_)) { Failed::Overrun } else { Failed::Fault }));
            }
        }
        // The bank may not be written to for a while, and nobody should wait for memory that is free.
        let (bank, memory) = (Arc::clone(&job.bank), Arc::clone(&job.memory));
        drop(job);
        if let Ok(bank) = bank.read() {
            memory.note(&bank);
        }
    }
}

fn write(job: &Job) -> Result<Snapshot, EngineError> {
    let sequence = job.image.sequence;
    let (mut left, mut looked) = (image_bytes(&*job.bank.read()?), u64::MAX);
    let mut file = job.folder.begin_snapshot(sequence)?;
    sections((&job.image, &job.cut), &job.bank, &mut |section, _| {
        // A snapshot that fills the disk would end the writes of all banks on it, and then fail.
        if looked >= LOOKED_EVERY {
            fits(job.folder.path(), left, "durability.dir")?;
            looked = 0;
        }
        file.put(section)?;
        (left, looked) = (left.saturating_sub(section.len() as u64), looked + section.len() as u64);
        Ok(())
    })?;
    let Published { bytes, left } = file.publish()?;
    let bank = &job.folder.record().name;
    left.inspect(|fault| tracing::warn!(%bank, %fault, "the snapshot before it stays until the next is taken"));
    Ok(Snapshot { sequence, bytes })
}

/// About what a snapshot of the bank would take on disk.
pub(super) fn image_bytes(bank: &Bank) -> u64 {
    let row = bank.spec().dim() * bank.spec().dtype().bytes() + BankImage::BYTES_PER_ENTRY;
    (bank.entries() * row) as u64
}

/// Takes a section, and the raw embeddings in it.
pub(super) type PutSection<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), EngineError>;

// What is taken at once is what the state hash is defined by.
const _: () = assert!(Cut::SLOTS_PER_TAKE as usize == Section::ROWS);

/// Bytes of rows taken in one hold of the bank at most, but for one section, and sections: they are copied in about the time of a write's hold.
/// Under many writes each hold is waited for, and the longer it takes to take all rows the more are copied aside meanwhile.
const BYTES_PER_HOLD: usize = 1 << 20;
const SECTIONS_PER_HOLD: usize = 8;

/// Gives `put` all of a bank, section by section, and returns its hash.
pub(super) fn sections(
    (image, cut): (&BankImage, &Cut),
    bank: &Shared<Bank>,
    put: PutSection<'_>,
) -> Result<StateHash, EngineError> {
    let (mut hash, mut bytes) = (StateHash::default(), Vec::new());
    Section::encode_bank(image, &mut bytes);
    hash.add_bank(image);
    put(&bytes, &[])?;
    for shard in &image.shards {
        bytes.clear();
        Section::encode_shard(shard, &mut bytes);
        hash.add(&bytes);
        put(&bytes, &[])?;
    }
    let mut taken = Vec::new();
    for shard in 0..image.shards.len() {
        loop {
            take(cut, &*bank.read()?, shard, (&mut bytes, &mut taken))?;
            if taken.is_empty() {
                break;
            }
            for Taken { section, raw } in taken.drain(..) {
                hash.add(&bytes[section.clone()]);
                put(&bytes[section], &bytes[raw])?;
            }
            // A thread that is always at work is not interrupted for milliseconds by those that answer calls. It gets its next turn
            // milliseconds later then, so not more often.
            if cut.has_time() {
                thread::yield_now();
            }
        }
    }
    bytes.clear();
    Section::encode_end(hash.value(), &mut bytes);
    put(&bytes, &[])?;
    Ok(hash)
}

/// A section of rows within the bytes of several, and the raw embeddings in it.
struct Taken {
    section: Range<usize>,
    raw: Range<usize>,
}

/// Takes the next rows of a shard, as sections; none after the last.
fn take(cut: &Cut, bank: &Bank, shard: usize, (bytes, taken): (&mut Vec<u8>, &mut Vec<Taken>)) -> Result<(), EngineError> {
    bytes.clear();
    taken.clear();
    while bytes.len() < BYTES_PER_HOLD && taken.len() < SECTIONS_PER_HOLD {
        let begin = bytes.len();
        let Some(raw) = Section::encode_rows(shard as u32, bytes, |bytes| cut.take(bank, shard, bytes))? else { break };
        taken.push(Taken { section: begin..bytes.len(), raw: raw..bytes.len() });
    }
    Ok(())
}

/// A bank that is being put together from its sections.
pub(super) struct Restoring {
    spec: BankSpec,
    image: BankImage,
    bank: Option<Bank>,
    hash: StateHash,
}

impl Restoring {
    pub(super) fn new(spec: BankSpec) -> Self {
        Self { spec, image: BankImage::default(), bank: None, hash: StateHash::default() }
    }

    /// Takes the next section; true if it is the last.
    pub(super) fn section(&mut self, bytes: &[u8]) -> Result<bool, Complaint> {
        let section = Section::decode(bytes).map_err(|unreadable| unreadable.to_string())?;
        if let Section::End { hash } = section {
            self.bank()?;
            return if hash == self.hash.value() {
                Ok(true)
            } else {
                Err("its sections are not those that were written".to_owned().into())
            };
        }
        match &section {
            Section::Bank(image) => self.hash.add_bank(image),
            _ => self.hash.add(bytes),
        }
        match section {
            Section::Bank(image) => self.image = image,
            Section::Shard(shard) => self.image.shards.push(shard),
            Section::Rows { shard, first, raw } => {
                if !self.bank()?.load(shard as usize, first, &raw) {
                    return Err(format!("shard {shard} has no such rows from slot {first} on").into());
                }
            }
            Section::End { .. } => {}
        }
        Ok(false)
    }

    /// Hash of the sections so far.
    pub(super) fn hash(&self) -> &StateHash {
        &self.hash
    }

    /// The bank; an empty one if there was no section.
    pub(super) fn finish(self) -> Bank {
        self.bank.unwrap_or_else(|| Bank::new(self.spec))
    }

    /// The bank without its rows, once everything else is there.
    fn bank(&mut self) -> Result<&mut Bank, Complaint> {
        let bank = match self.bank.take() {
            Some(bank) => bank,
            None => Bank::restore(self.spec, std::mem::take(&mut self.image)).map_err(|refused| complaint(&refused))?,
        };
        Ok(self.bank.insert(bank))
    }
}

fn complaint(refused: &RestoreError) -> Complaint {
    let what = refused.to_string();
    match refused {
        RestoreError::Bad(_) => Complaint::Damaged(what),
        RestoreError::OutOfMemory(_) => Complaint::OutOfMemory(what),
    }
}

#[cfg(test)]
mod tests;
