//! Checkpoints: made, listed, deleted, and brought back as banks.

mod running;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio_stream::{Stream, StreamExt as _};

use self::running::running;
pub use self::running::{Heard, Running};
use super::background::Claim;
use super::banks::blocking;
use super::{BankHandle, Engine, Inner};
use crate::archive::{Archive, ArchiveError, Found};
use crate::bank::Budget;
use crate::codec::BankRecord;
use crate::engine::EngineError;
use crate::engine::checkpoints::{Returned, Returning, Slice};
use crate::engine::differing::differing;
use crate::engine::meter::{Meter, Phase};
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

/// Pieces of a checkpoint's file that were read and are not in the bank yet.
const PIECES: usize = 8;

impl Engine {
    /// Keeps a bank as it is now, while it is read and written. Calls about one checkpoint wait for one another; restores of it don't.
    ///
    /// # Errors
    /// [`EngineError::CheckpointExists`], [`EngineError::CheckpointBusy`], [`EngineError::Overrun`], [`EngineError::Storage`]
    pub fn checkpoint(&self, bank: Arc<BankHandle>, new: NewCheckpoint, deadline: Deadline) -> Running<Checkpoint> {
        let engine = self.clone();
        let (running, work) = running(deadline, |wanted, meter| async move {
            engine.inner.make_checkpoint(&bank, new, (wanted, deadline), &meter).await
        });
        self.inner.background.spawn(work);
        running
    }

    /// Brings a bank back. When this ends, whoever asks for the bank has the restored one.
    ///
    /// # Errors
    /// [`EngineError::NoCheckpoint`], [`EngineError::AlreadyExists`] if a bank of the name has other settings,
    /// [`EngineError::CheckpointBusy`], [`EngineError::CheckpointDamaged`], [`EngineError::Storage`]
    pub fn restore(&self, restore: Restore, deadline: Deadline) -> Running<(Checkpoint, Arc<BankHandle>)> {
        let engine = self.clone();
        let (running, work) =
            running(deadline, |wanted, meter| async move { engine.inner.restore(restore, (wanted, deadline), &meter).await });
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
    /// [`EngineError::NoCheckpoint`], [`EngineError::CheckpointBusy`], [`EngineError::Storage`]
    pub async fn delete_checkpoint(&self, bank: &BankName, tag: &Tag, deadline: Deadline) -> Result<(), EngineError> {
        let archive = self.inner.archive()?.clone();
        let alone = self.inner.background.claims.alone(bank, tag, deadline).await?;
        let (bank, tag) = (bank.clone(), tag.clone());
        // Once begun it is done to its end, whether or not the caller stays.
        let deleting = tokio::spawn(async move {
            let deleted = archive.delete(&bank, &tag).await;
            drop(alone);
            deleted
        });
        let deleted = async { Ok(deleting.await.map_err(|_| EngineError::Internal("deleting a checkpoint panicked"))??) };
        until(deadline, deleted).await
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
        (wanted, deadline): (Wanted, Deadline),
        meter: &Arc<Meter>,
    ) -> Result<Checkpoint, EngineError> {
        let archive = self.archive()?;
        let (name, tag) = (bank.name.clone(), new.tag.clone());
        check_tag(archive, &name, &new).await?;
        let _alone = self.background.claims.alone(&name, &tag, deadline).await?;
        let _turn = until(deadline, self.background.turn()).await?;
        check_tag(archive, &name, &new).await?;
        if !wanted.holds() {
            return Err(EngineError::DeadlineExceeded);
        }
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
        self.tidy(archive, &checkpoint, new.keep.unwrap_or(self.config.checkpoints.keep)).await;
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

    /// Deletes the oldest checkpoints of the bank, if only so many are kept, and what attempts left. The one that was made is made, whatever
    /// becomes of the others; what another call is at stays until the next is made.
    async fn tidy(&self, archive: &Archive, made: &Checkpoint, keep: usize) {
        let deleted = async {
            let there = if keep > 0 { archive.list(Some(&made.bank)).await? } else { Vec::new() };
            let others: Vec<&Checkpoint> = there.iter().filter(|other| other.tag != made.tag).collect();
            for old in others.iter().take((others.len() + 1).saturating_sub(keep)) {
                let Some(_alone) = self.background.claims.if_free(&old.bank, &old.tag) else { continue };
                archive.delete(&old.bank, &old.tag).await?;
                tracing::info!(bank = %old.bank, tag = %old.tag, keep, "checkpoint deleted");
            }
            for left in archive.abandoned(&made.bank).await? {
                // Its own tag is claimed.
                let alone = self.background.claims.if_free(&made.bank, &left.tag);
                if alone.is_none() && left.tag != made.tag {
                    continue;
                }
                match archive.remove_abandoned(&made.bank, &left).await {
                    Ok(files) => tracing::info!(bank = %made.bank, tag = %left.tag, files, "removed what attempts left"),
                    Err(fault) => tracing::warn!(bank = %made.bank, tag = %left.tag, %fault, "what attempts left stays"),
                }
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
        (wanted, deadline): (Wanted, Deadline),
        meter: &Arc<Meter>,
    ) -> Result<(Checkpoint, Arc<BankHandle>), EngineError> {
        let archive = self.archive()?;
        let (found, _beside_readers) = self.claimed(archive, &restore, (&wanted, deadline)).await?;
        let durability = self.admit(&restore, &found.checkpoint)?;
        self.may_hold(&found.checkpoint.spec, Some(found.checkpoint.entries as usize))?;
        let _turn = until(deadline, self.background.turn()).await?;
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

    /// The checkpoint that is asked for, which nobody deletes or replaces as long as it is claimed.
    async fn claimed(
        &self,
        archive: &Archive,
        Restore { bank, tag, .. }: &Restore,
        (wanted, deadline): (&Wanted, Deadline),
    ) -> Result<(Found, Claim), EngineError> {
        loop {
            let wished = match tag {
                Some(tag) => tag.clone(),
                None => archive.find(bank, None).await?.checkpoint.tag,
            };
            let claim = self.background.claims.beside_readers(bank, &wished, deadline).await?;
            match archive.find(bank, Some(&wished)).await {
                // The newest was deleted meanwhile: another is.
                Err(ArchiveError::Unknown { .. }) if tag.is_none() && wanted.holds() => {}
                found => return Ok((found?, claim)),
            }
        }
    }

    /// Whether a bank of these settings may take the name, and how its writes will be kept.
    fn admit(&self, restore: &Restore, Checkpoint { spec, entries, .. }: &Checkpoint) -> Result<Durability, EngineError> {
        self.coming(&restore.into).map_or(Ok(()), |coming| Err(coming.refusal()))?;
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
        if there.is_none() && self.taken_names() >= limit {
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
        let folder = there.as_ref().and_then(|bank| bank.folder.as_ref().map(|folder| vec![folder.path().to_owned()]));
        let refused = || self.refused.get(&record.name).map(|refused| refused.paths.clone());
        let settled = returned.settle(self.store.as_ref(), &folder.or_else(refused).unwrap_or_default());
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

async fn until<T>(deadline: Deadline, work: impl Future<Output = Result<T, EngineError>>) -> Result<T, EngineError> {
    tokio::time::timeout_at(deadline.instant().into(), work).await.unwrap_or(Err(EngineError::DeadlineExceeded))
}

fn random() -> Result<u64, EngineError> {
    let Seed(number) = Seed::from_entropy().map_err(|_| EngineError::Internal("the system gives no entropy"))?;
    Ok(number)
}
