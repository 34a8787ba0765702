//! Checkpoints: made, listed, deleted, and brought back as banks.

mod restoring;
mod running;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use self::running::running;
pub use self::running::{Heard, Running};
use super::banks::blocking;
use super::{BankHandle, Engine, Inner};
use crate::archive::{Archive, ArchiveError};
use crate::bank::Budget;
use crate::engine::EngineError;
use crate::engine::checkpoints::Slice;
use crate::engine::meter::{Meter, Phase};
use crate::engine::query::Wanted;
use crate::model::clock::{self, Deadline};
use crate::model::{BankImage, BankName, Checkpoint, Durability, Seed, Tag};

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

/// How long the caller of a checkpoint that is made waits for what is tidied up behind it.
const TIDYING: Duration = Duration::from_secs(2);

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
    /// [`EngineError::Recovering`]; from what is returned [`EngineError::NoCheckpoint`], [`EngineError::AlreadyExists`] if a bank of the name has other settings,
    /// [`EngineError::CheckpointBusy`], [`EngineError::CheckpointDamaged`], [`EngineError::Storage`]
    pub fn restore(&self, restore: Restore, deadline: Deadline) -> Result<Running<(Checkpoint, Arc<BankHandle>)>, EngineError> {
        // Who may come again must hear of it before there is progress to hear of.
        self.inner.coming(&restore.into).map_or(Ok(()), |coming| Err(coming.refusal()))?;
        let engine = self.clone();
        let (running, work) =
            running(deadline, |wanted, meter| async move { engine.inner.restore(restore, (wanted, deadline), &meter).await });
        // Not in the background: the bank's committer begins here, and threads are of the priority of those that begin them.
        tokio::spawn(work);
        Ok(running)
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
        self: &Arc<Self>,
        bank: &Arc<BankHandle>,
        new: NewCheckpoint,
        (wanted, deadline): (Wanted, Deadline),
        meter: &Arc<Meter>,
    ) -> Result<Checkpoint, EngineError> {
        let archive = self.archive()?;
        let (name, tag) = (bank.name.clone(), new.tag.clone());
        if let Some(what) = &bank.damage {
            return Err(EngineError::NotKept { name, what: what.clone() });
        }
        check_tag(archive, &name, &new).await?;
        let alone = self.background.claims.alone(&name, &tag, deadline).await?;
        let turn = until(deadline, self.background.turn()).await?;
        check_tag(archive, &name, &new).await?;
        if !wanted.holds() {
            return Err(EngineError::DeadlineExceeded);
        }
        // Before the cut: rows are copied aside from then on.
        until(deadline, self.look_for_newest(archive, &name)).await?;
        let began = clock::now();
        let slice = until(deadline, self.slice(bank, deadline)).await?;
        let (sequence, step, entries) = (slice.image.sequence, slice.image.step, slice.entries());
        let created = self.background.date(&name);
        let number = random()?;
        let (folder, watched, shown) = (self.spool_folder(), wanted.clone(), Arc::clone(meter));
        let spooled = blocking(move || slice.spool((&folder, number), &watched, &shown)).await;
        // What lay aside for it is gone, and nobody may write to the bank for a while.
        bank.memory.note(&*bank.state.read()?);
        let (spooled, hash) = spooled?;
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
        // From here on others may have it, and a turn.
        drop((alone, turn));
        self.tidy_behind(&checkpoint, new.keep.unwrap_or(self.config.checkpoints.keep), deadline).await;
        Ok(checkpoint)
    }

    /// Finds out when the bank's newest checkpoint was made, so that the next is dated after it. One that can't be found out is taken for none.
    async fn look_for_newest(&self, archive: &Archive, bank: &BankName) -> Result<(), EngineError> {
        if !self.background.knows_newest(bank) {
            match archive.list(Some(bank)).await {
                Ok(there) => self.background.note_newest(bank, there.last().map_or(0, |newest| newest.created)),
                Err(fault) => tracing::warn!(%bank, %fault, "when its newest checkpoint was made is not known"),
            }
        }
        Ok(())
    }

    /// Tidies up behind a checkpoint. Where that takes long the caller is not kept for it: what it asked for is there.
    async fn tidy_behind(self: &Arc<Self>, made: &Checkpoint, keep: usize, deadline: Deadline) {
        let Some(turn) = self.background.tidying() else {
            tracing::warn!(bank = %made.bank, tag = %made.tag, "older checkpoints stay: too much is being tidied up already");
            return;
        };
        let (inner, made) = (Arc::clone(self), made.clone());
        let (ended, heard) = oneshot::channel::<()>();
        self.background.spawn(async move {
            if let Ok(archive) = inner.archive() {
                inner.tidy(archive, &made, keep).await;
            }
            drop((turn, ended));
        });
        let patience = deadline.a_little_before().instant().min(clock::now() + TIDYING);
        let _later = tokio::time::timeout_at(patience.into(), heard).await;
    }

    /// The bank as it is between two mutations.
    async fn slice(&self, bank: &Arc<BankHandle>, deadline: Deadline) -> Result<Slice, EngineError> {
        let budget =
            Budget { bytes: self.config.checkpoints.memory_bytes, setting: "checkpoints.memory_bytes", writes_wait: false };
        let (reply, taken) = oneshot::channel();
        let (committer, state) = (bank.committer.clone(), Arc::clone(&bank.state));
        blocking(move || {
            let extents = state.read()?.extents();
            let room = BankImage::with_room(extents);
            committer.cut((budget, room), deadline, Box::new(move |taken| drop(reply.send(taken))))
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
                let Some(_alone) = self.background.claims.if_free(&made.bank, &left.tag) else { continue };
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
        archive.take_back_unfinished().await;
    }

    fn spool_folder(&self) -> PathBuf {
        let beside = || self.config.durability.dir.as_ref().map(|dir| dir.join("spool"));
        self.config.checkpoints.spool.clone().or_else(beside).unwrap_or_else(std::env::temp_dir)
    }
}

/// Whether the tag may be used: what was written before is not to be found out after the work.
async fn check_tag(archive: &Archive, bank: &BankName, new: &NewCheckpoint) -> Result<(), EngineError> {
    let taken = !new.replace && archive.is_taken(bank, &new.tag).await?;
    if taken { Err(EngineError::CheckpointExists { bank: bank.clone(), tag: new.tag.clone() }) } else { Ok(()) }
}

async fn until<T>(deadline: Deadline, work: impl Future<Output = Result<T, EngineError>>) -> Result<T, EngineError> {
    tokio::time::timeout_at(deadline.instant().into(), work).await.unwrap_or(Err(EngineError::DeadlineExceeded))
}

fn random() -> Result<u64, EngineError> {
    let Seed(number) = Seed::from_entropy().map_err(|_| EngineError::Internal("the system gives no entropy"))?;
    Ok(number)
}
