//! Checkpoints brought back as banks.

use std::sync::{Arc, PoisonError};

use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _};

use super::{Restore, random, until};
use crate::archive::{Archive, ArchiveError, Found, LOOKED_EVERY, has_room};
use crate::codec::BankRecord;
use crate::engine::EngineError;
use crate::engine::checkpoints::{Returned, Returning};
use crate::engine::differing::differing;
use crate::engine::handle::background::Claim;
use crate::engine::handle::banks::{Refused, Settings, blocking};
use crate::engine::handle::{BankHandle, Inner};
use crate::engine::ledger::{Part, Share};
use crate::engine::meter::{Meter, Phase};
use crate::engine::query::Wanted;
use crate::model::clock::{self, Deadline};
use crate::model::{Checkpoint, Durability, Invalid};

/// Pieces of a checkpoint's file that were read and are not in the bank yet.
const PIECES: usize = 8;

impl Inner {
    pub(super) async fn restore(
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
        // Until the bank is there, and counts itself.
        let _room = self.room_for(&found.checkpoint)?;
        let Checkpoint { spec, lineage, .. } = found.checkpoint.clone();
        let record = BankRecord { name: restore.into.clone(), spec, incarnation: random()?, durability, lineage };
        meter.begin(Phase::Reading, found.checkpoint.bytes);
        let began = clock::now();
        let returned = self.returned(archive, &found, record.clone(), &wanted, meter).await?;
        // What is begun now is done to its end, and its caller is to hear of it.
        if !wanted.holds() || deadline.a_little_before().has_passed() {
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
        let served = self.banks.get(&restore.into).map(|bank| Settings { spec: bank.spec, durability: bank.durability });
        let there = served.or(self.unserved(restore)?);
        if let Some(there) = there.filter(|there| there.spec != *spec) {
            let differing = differing(there.spec, *spec);
            return Err(EngineError::AlreadyExists { name: restore.into.clone(), differing });
        }
        let limit = self.config.max_banks;
        if served.is_none() && self.taken_names() >= limit {
            return Err(EngineError::LimitReached { what: "the number of banks", limit, setting: "limits.max_banks" });
        }
        self.durability(restore.durability.or(there.map(|there| there.durability)))
    }

    /// What a bank of the name was that is on disk and not served, if a checkpoint may take its place.
    fn unserved(&self, restore: &Restore) -> Result<Option<Settings>, EngineError> {
        let Some(refused) = self.refused.get(&restore.into) else { return Ok(None) };
        match (refused.settings, restore.durability) {
            (None, _) if refused.may_pass => Err(refused.refusal(restore.into.clone())),
            (None, None) => {
                let reason = "say how the bank's writes are to be kept: that of the one on disk can't be read any more";
                Err(Invalid::one("durability", reason).into())
            }
            (settings, _) => Ok(settings),
        }
    }

    /// Takes the memory of a bank that is not there yet: others that come meanwhile don't get it as well.
    fn room_for(&self, Checkpoint { spec, entries, .. }: &Checkpoint) -> Result<Share, EngineError> {
        let room = self.ledger.share(Part::Rows);
        let _one_at_a_time = self.background.taking.lock().unwrap_or_else(PoisonError::into_inner);
        room.set(self.may_hold(spec, Some(*entries as usize))?);
        Ok(room)
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
            let dir = store.and(inner.config.durability.dir.as_ref());
            let room =
                |done: u64| dir.map_or(Ok(()), |dir| has_room(dir, checkpoint.bytes.saturating_sub(done), "durability.dir"));
            room(0)?;
            let mut returning = Returning::begin((&checkpoint, crc32), &record, store)?;
            let (mut done, mut looked) = (0, 0);
            while let Some(piece) = taken.blocking_recv() {
                // An empty one says that no more come.
                if piece.is_empty() {
                    return returning.finish();
                }
                returning.push(&piece)?;
                done += piece.len() as u64;
                if done - looked >= LOOKED_EVERY {
                    room(done)?;
                    looked = done;
                }
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
        let replaced = folder.or_else(refused).unwrap_or_default();
        let settled = returned.settle(self.store.as_ref(), &replaced);
        let is_lost = || there.as_ref().is_some_and(|there| there.has_lost_its_folder());
        let settled = settled.map_err(|fault| {
            let is_left = || self.store.as_ref().is_some_and(|store| store.place_of(record).is_some());
            if is_lost() || is_left() { self.hold(record, replaced, fault) } else { fault }
        });
        let opened = settled.and_then(|(bank, kept)| {
            let path = kept.as_ref().map(|kept| kept.folder.path().to_owned());
            // What it replaces is gone from the disk, and the name is its own.
            self.open(record, bank, kept.into()).inspect_err(|fault| match path {
                Some(path) => self.refuse(record.name.clone(), Refused::of(vec![path], fault).with(record)),
                None => drop(self.refused.remove(&record.name)),
            })
        });
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
