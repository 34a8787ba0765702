//! Checkpoints: made, listed, deleted, and brought back as banks.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_stream::{Stream, StreamExt as _};

use super::banks::blocking;
use super::{BankHandle, Engine, Inner, Leave, wait};
use crate::archive::{Archive, ArchiveError, Found};
use crate::bank::Budget;
use crate::codec::BankRecord;
use crate::engine::EngineError;
use crate::engine::checkpoints::{Returned, Returning, Slice};
use crate::engine::differing::differing;
use crate::engine::meter::{Meter, Phase, Stand};
use crate::engine::query::Wanted;
use crate::model::clock::{self, Deadline};
use crate::model::{BankName, Checkpoint, Durability, Seed, Tag};

/// A checkpoint to be made.
#[derive(Debug, Clone)]
pub struct NewCheckpoint {
    /// Its tag.
    pub tag: Tag,
    /// Whether it takes the place of one that has the tag.
    pub replace: bool,
    /// Checkpoints of the bank that are kept; `None`: as the settings say.
    pub keep: Option<usize>,
}

/// A bank to be brought back.
#[derive(Debug, Clone)]
pub struct Restore {
    /// The bank that the checkpoint was made of.
    pub bank: BankName,
    /// Its tag; `None`: the newest.
    pub tag: Option<Tag>,
    /// The bank that it becomes.
    pub into: BankName,
    /// `None`: as the bank that it replaces, else the server's default.
    pub durability: Option<Durability>,
}

/// A call that takes a while. Dropped, it is given up.
#[derive(Debug)]
pub struct Running<T> {
    meter: Arc<Meter>,
    result: Option<oneshot::Receiver<Result<T, EngineError>>>,
    deadline: Deadline,
    told: Option<Stand>,
    _leave: Leave,
}

/// What is heard of a call.
#[derive(Debug)]
pub enum Heard<T> {
    /// How far it has come.
    Stand(Stand),
    /// It is done.
    Done(T),
}

/// Between two readings.
const READ_EVERY: Duration = Duration::from_millis(100);
/// Pieces of a checkpoint's file that were read and are not in the bank yet.
const PIECES: usize = 8;

impl<T> Running<T> {
    /// What is new; `None` after the end.
    ///
    /// # Errors
    /// [`EngineError`]; then it has ended.
    pub async fn next(&mut self) -> Option<Result<Heard<T>, EngineError>> {
        loop {
            let result = self.result.as_mut()?;
            if let Ok(ended) = tokio::time::timeout(READ_EVERY, wait(result, self.deadline)).await {
                self.result = None;
                return Some(ended.map(Heard::Done));
            }
            let stand = self.meter.read();
            if self.told != Some(stand) {
                self.told = Some(stand);
                return Some(Ok(Heard::Stand(stand)));
            }
        }
    }
}

impl Engine {
    /// Keeps a bank as it is now, while it is read and written.
    ///
    /// # Errors
    /// [`EngineError::CheckpointExists`], [`EngineError::Overrun`], [`EngineError::Storage`]
    pub fn checkpoint(&self, bank: Arc<BankHandle>, new: NewCheckpoint, deadline: Deadline) -> Running<Checkpoint> {
        let engine = self.clone();
        let (running, work) =
            running(deadline, |wanted, meter| async move { engine.inner.make_checkpoint(&bank, new, wanted, &meter).await });
        self.inner.background.spawn(work);
        running
    }

    /// Brings a bank back. When this ends, whoever asks for the bank has the restored one.
    ///
    /// # Errors
    /// [`EngineError::NoCheckpoint`], [`EngineError::AlreadyExists`] if a bank of the name has other settings,
    /// [`EngineError::CheckpointDamaged`], [`EngineError::Storage`]
    pub fn restore(&self, restore: Restore, deadline: Deadline) -> Running<(Checkpoint, Arc<BankHandle>)> {
        let engine = self.clone();
        let (running, work) =
            running(deadline, |wanted, meter| async move { engine.inner.restore(restore, wanted, &meter).await });
        // Not in the background: the bank's committer begins here, and threads are of the priority of those that begin them.
        tokio::spawn(work);
        running
    }

    /// The checkpoints of a bank, or of all, oldest first.
    ///
    /// # Errors
    /// [`EngineError::Storage`]
    pub async fn checkpoints(&self, bank: Option<&BankName>, deadline: Deadline) -> Result<Vec<Checkpoint>, EngineError> {
        until(deadline, async { Ok(self.inner.archive()?.list(bank).await?) }).await
    }

    /// Deletes a checkpoint.
    ///
    /// # Errors
    /// [`EngineError::NoCheckpoint`], [`EngineError::Storage`]
    pub async fn delete_checkpoint(&self, bank: &BankName, tag: &Tag, deadline: Deadline) -> Result<(), EngineError> {
        until(deadline, async { Ok(self.inner.archive()?.delete(bank, tag).await?) }).await
    }
}

impl Inner {
    fn archive(&self) -> Result<&Archive, EngineError> {
        let none = || {
            let why = "this server keeps no checkpoints (setting checkpoints.location: a directory, or s3://bucket/prefix)";
            EngineError::Storage(why.to_owned())
        };
        self.archive.as_ref().ok_or_else(none)
    }

    async fn make_checkpoint(
        &self,
        bank: &Arc<BankHandle>,
        new: NewCheckpoint,
        wanted: Wanted,
        meter: &Arc<Meter>,
    ) -> Result<Checkpoint, EngineError> {
        let archive = self.archive()?;
        let (name, tag) = (bank.name.clone(), new.tag.clone());
        check_tag(archive, &name, &new).await?;
        let _turn = self.background.turn().await?;
        check_tag(archive, &name, &new).await?;
        let began = clock::now();
        let slice = self.slice(bank).await?;
        let (sequence, step, entries, created) =
            (slice.image.sequence, slice.image.step, slice.entries(), clock::unix_millis());
        let number = random()?;
        let (folder, watched, shown) = (self.spool_folder(), wanted.clone(), Arc::clone(meter));
        let (spooled, hash) = blocking(move || slice.spool((&folder, number), &watched, &shown)).await?;
        let (bytes, state_hash, content_hash) = (spooled.bytes, hash.value(), hash.content());
        let lineage = bank.lineage.and(bank.position(sequence));
        let checkpoint = Checkpoint {
            bank: name.clone(),
            tag,
            spec: bank.spec,
            entries,
            sequence,
            step,
            created,
            state_hash,
            content_hash,
            lineage,
            bytes,
        };
        meter.begin(Phase::Uploading, bytes);
        let go_on = |done| {
            meter.done(done);
            wanted.holds()
        };
        archive.put((&checkpoint, new.replace), spooled, number, &go_on).await?;
        tracing::info!(
            bank = %name, tag = %checkpoint.tag, sequence, entries, bytes, seconds = began.elapsed().as_secs_f64(), "checkpoint made"
        );
        let keep = new.keep.unwrap_or(self.config.checkpoints.keep);
        if keep > 0 {
            self.tidy(archive, &checkpoint, keep).await;
        }
        Ok(checkpoint)
    }

    /// The bank as it is between two mutations.
    async fn slice(&self, bank: &Arc<BankHandle>) -> Result<Slice, EngineError> {
        let budget = Budget { bytes: self.config.checkpoints.memory_bytes, setting: "checkpoints.memory_bytes" };
        let (reply, taken) = oneshot::channel();
        let committer = bank.committer.clone();
        blocking(move || {
            committer.cut(budget, Box::new(move |taken| drop(reply.send(taken))));
            Ok(())
        })
        .await?;
        let (image, cut) = taken.await.unwrap_or(Err(EngineError::Internal("the bank's committer has ended")))?;
        Ok(Slice { bank: Arc::clone(&bank.state), spec: bank.spec, image, cut })
    }

    /// Deletes the oldest checkpoints of the bank. The one that was made is made, whatever becomes of the others.
    async fn tidy(&self, archive: &Archive, made: &Checkpoint, keep: usize) {
        let deleted = async {
            let there = archive.list(Some(&made.bank)).await?;
            let others: Vec<&Checkpoint> = there.iter().filter(|other| other.tag != made.tag).collect();
            for old in others.iter().take((others.len() + 1).saturating_sub(keep)) {
                archive.delete(&old.bank, &old.tag).await?;
                tracing::info!(bank = %old.bank, tag = %old.tag, keep, "checkpoint deleted");
            }
            Ok::<_, ArchiveError>(())
        };
        if let Err(fault) = deleted.await {
            tracing::warn!(bank = %made.bank, %fault, "older checkpoints stay");
        }
    }

    fn spool_folder(&self) -> PathBuf {
        let beside = || self.config.durability.dir.as_ref().map(|dir| dir.join("spool"));
        self.config.checkpoints.spool.clone().or_else(beside).unwrap_or_else(std::env::temp_dir)
    }

    async fn restore(
        self: &Arc<Self>,
        restore: Restore,
        wanted: Wanted,
        meter: &Arc<Meter>,
    ) -> Result<(Checkpoint, Arc<BankHandle>), EngineError> {
        let archive = self.archive()?;
        let found = archive.find(&restore.bank, restore.tag.as_ref()).await?;
        let durability = self.admit(&restore, &found.checkpoint)?;
        self.may_hold(&found.checkpoint.spec, Some(found.checkpoint.entries as usize))?;
        let _turn = self.background.turn().await?;
        let Checkpoint { spec, lineage, .. } = found.checkpoint.clone();
        let record = BankRecord { name: restore.into.clone(), spec, incarnation: random()?, durability, lineage };
        meter.begin(Phase::Reading, found.checkpoint.bytes);
        let began = clock::now();
        let returned = self.returned(archive, &found, record.clone(), &wanted, meter).await?;
        if !wanted.holds() {
            return Err(EngineError::DeadlineExceeded);
        }
        let inner = Arc::clone(self);
        let (checkpoint, of) = (found.checkpoint.clone(), found.checkpoint);
        let bank = blocking(move || inner.replace((&restore, &of), &record, returned)).await?;
        tracing::info!(
            bank = %bank.name, of = %checkpoint.bank, tag = %checkpoint.tag, sequence = checkpoint.sequence,
            seconds = began.elapsed().as_secs_f64(), "restored"
        );
        Ok((checkpoint, bank))
    }

    /// Whether a bank of these settings may take the name, and how its writes will be kept.
    fn admit(&self, restore: &Restore, Checkpoint { spec, entries, .. }: &Checkpoint) -> Result<Durability, EngineError> {
        let (limit, setting) = (self.config.max_dim, "limits.max_dim");
        if spec.dim() > limit {
            return Err(EngineError::LimitReached { what: "the dimension of a bank's rows", limit, setting });
        }
        let (limit, setting) = (self.config.max_entries, "limits.max_entries");
        if *entries > limit as u64 {
            return Err(EngineError::LimitReached { what: "the number of a bank's entries", limit, setting });
        }
        let there = self.banks.get(&restore.into).map(|bank| Arc::clone(&bank));
        if let Some(there) = &there
            && there.spec != *spec
        {
            let differing = differing(there.spec, *spec);
            return Err(EngineError::AlreadyExists { name: restore.into.clone(), differing });
        }
        let limit = self.config.max_banks;
        if there.is_none() && self.banks.len() >= limit {
            return Err(EngineError::LimitReached { what: "the number of banks", limit, setting: "limits.max_banks" });
        }
        self.durability(restore.durability.or(there.map(|there| there.durability)))
    }

    /// Reads a checkpoint on a thread of its own, while more of it comes.
    async fn returned(
        self: &Arc<Self>,
        archive: &Archive,
        found: &Found,
        record: BankRecord,
        wanted: &Wanted,
        meter: &Meter,
    ) -> Result<Returned, EngineError> {
        let (pieces, mut taken) = mpsc::channel::<bytes::Bytes>(PIECES);
        let (inner, checkpoint, crc32) = (Arc::clone(self), found.checkpoint.clone(), found.crc32);
        let reading = tokio::spawn(blocking(move || {
            let store = inner.store.as_ref().filter(|_| record.durability != Durability::Memory);
            let mut returning = Returning::begin((&checkpoint, crc32), &record, store)?;
            while let Some(piece) = taken.blocking_recv() {
                // An empty one says that no more come.
                if piece.is_empty() {
                    return returning.finish();
                }
                returning.push(&piece)?;
            }
            Err(EngineError::DeadlineExceeded)
        }));
        let sent = async {
            let mut stream = std::pin::pin!(archive.read(found).await?);
            pump(stream.as_mut(), &pieces, wanted, meter).await
        };
        let sent = sent.await;
        drop(pieces);
        let read = reading.await.unwrap_or(Err(EngineError::Internal("the thread that read the checkpoint panicked")));
        sent.and(read)
    }

    /// Serves a bank that is back, in the place of the one that has its name.
    fn replace(
        &self,
        (restore, checkpoint): (&Restore, &Checkpoint),
        record: &BankRecord,
        returned: Returned,
    ) -> Result<Arc<BankHandle>, EngineError> {
        let _one_at_a_time = self.catalogue.lock().unwrap_or_else(PoisonError::into_inner);
        self.admit(restore, checkpoint)?;
        let there = self.banks.get(&record.name).map(|bank| Arc::clone(&bank));
        let folder = there.as_ref().and_then(|bank| bank.folder.as_ref().map(|folder| folder.path().to_owned()));
        let replaced = folder.or_else(|| self.refused.get(&record.name).map(|refused| refused.path.clone()));
        let settled = returned.settle(self.store.as_ref(), replaced.as_deref());
        let opened = settled.and_then(|(bank, kept)| self.open(record, bank, kept.into()));
        let bank = match opened {
            Ok(bank) => bank,
            Err(fault) => {
                // What is written to a bank without a folder would be lost.
                if let Some(there) = there.filter(|there| there.has_lost_its_folder()) {
                    self.banks.remove(&record.name);
                    Self::retire(&there);
                }
                return Err(fault);
            }
        };
        self.refused.remove(&record.name);
        if let Some(there) = there {
            Self::retire(&there);
        }
        Ok(bank)
    }
}

/// Whether the tag may be used: what was written before is not to be found out after the work.
async fn check_tag(archive: &Archive, bank: &BankName, new: &NewCheckpoint) -> Result<(), EngineError> {
    let taken = !new.replace && archive.is_taken(bank, &new.tag).await?;
    if taken { Err(EngineError::CheckpointExists { bank: bank.clone(), tag: new.tag.clone() }) } else { Ok(()) }
}

/// Hands on what is read of a file. A reader that has ended says by itself why.
async fn pump(
    mut stream: impl Stream<Item = Result<bytes::Bytes, ArchiveError>> + Unpin,
    pieces: &mpsc::Sender<bytes::Bytes>,
    wanted: &Wanted,
    meter: &Meter,
) -> Result<(), EngineError> {
    let mut done = 0;
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        done += piece.len() as u64;
        if !wanted.holds() {
            return Err(EngineError::DeadlineExceeded);
        }
        if !piece.is_empty() && pieces.send(piece).await.is_err() {
            return Ok(());
        }
        meter.done(done);
    }
    let _ended = pieces.send(bytes::Bytes::new()).await;
    Ok(())
}

/// A call, and the work that it is, to be spawned.
fn running<T: Send + 'static, F: Future<Output = Result<T, EngineError>> + Send + 'static>(
    deadline: Deadline,
    work: impl FnOnce(Wanted, Arc<Meter>) -> F,
) -> (Running<T>, impl Future<Output = ()> + Send + 'static) {
    let (wanted, meter) = (Wanted::until(deadline), Arc::new(Meter::default()));
    let (reply, result) = oneshot::channel();
    let work = work(wanted.clone(), Arc::clone(&meter));
    // It notices by itself that nobody waits any more, and clears up behind itself.
    let work = async move { drop(reply.send(work.await)) };
    (Running { meter, result: Some(result), deadline, told: None, _leave: Leave(wanted) }, work)
}

async fn until<T>(deadline: Deadline, work: impl Future<Output = Result<T, EngineError>>) -> Result<T, EngineError> {
    tokio::time::timeout_at(deadline.instant().into(), work).await.unwrap_or(Err(EngineError::DeadlineExceeded))
}

fn random() -> Result<u64, EngineError> {
    let Seed(number) = Seed::from_entropy().map_err(|_| EngineError::Internal("the system gives no entropy"))?;
    Ok(number)
}
