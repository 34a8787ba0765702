//! Checkpoints written from a cut and read back, on threads that may wait for the disk.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::EngineError;
use super::journal::Kept;
use super::meter::{Meter, Phase};
use super::query::Wanted;
use super::snapshots::{Restoring, sections};
use crate::archive::{ArchiveError, Spool, Spooled};
use crate::bank::{Bank, Cut};
use crate::codec::{BankRecord, Section, StateHash, TensorReader, begin_tensors};
use crate::durability::{Complaint, Nascent, SectionFile, Snapshot, Store};
use crate::model::{BankImage, BankSpec, Checkpoint};
use crate::rows::Shared;

/// A bank as it was cut.
pub(super) struct Slice {
    pub(super) bank: Arc<Shared<Bank>>,
    pub(super) spec: BankSpec,
    pub(super) image: BankImage,
    pub(super) cut: Arc<Cut>,
}

impl Slice {
    /// Entries held.
    pub(super) fn entries(&self) -> u64 {
        let shards = self.image.shards.iter();
        shards.map(|shard| (shard.ids.len() - shard.free.len()) as u64).sum()
    }

    /// Writes it to a spool file in `folder`; returns its state hash too.
    pub(super) fn spool(
        &self,
        (folder, number): (&Path, u64),
        wanted: &Wanted,
        meter: &Meter,
    ) -> Result<(Spooled, StateHash), EngineError> {
        let mut spool = Spool::create(folder, number)?;
        let failed = |fault| EngineError::from(ArchiveError::from(fault));
        let total = begin_tensors(&self.image, &self.spec, &mut spool).map_err(failed)?;
        spool.expect(total)?;
        meter.begin(Phase::Copying, total);
        let rows: usize = self.image.shards.iter().map(|shard| shard.ids.len()).sum();
        let mut done = total - (rows * self.spec.dim() * self.spec.dtype().bytes()) as u64;
        let hash = sections((&self.image, &self.cut), &self.bank, &mut |_, raw| {
            if !wanted.holds() {
                return Err(EngineError::DeadlineExceeded);
            }
            done += raw.len() as u64;
            meter.done(done);
            spool.write_all(raw).map_err(failed)
        });
        self.cut.forget();
        let hash = hash?;
        Ok((spool.finish()?, hash))
    }
}

/// A bank that is being read from a checkpoint's file, and written to the folder that it will have.
pub(super) struct Returning {
    checkpoint: Checkpoint,
    crc32: u32,
    tensors: TensorReader,
    restoring: Restoring,
    checksum: crc32fast::Hasher,
    kept: Option<(Nascent, SectionFile)>,
}

impl Returning {
    /// `store`: where the bank is to outlive the server.
    pub(super) fn begin(
        (checkpoint, crc32): (&Checkpoint, u32),
        record: &BankRecord,
        store: Option<&Store>,
    ) -> Result<Self, EngineError> {
        let kept = match store {
            Some(store) => {
                let nascent = store.begin(record)?;
                let file = nascent.begin_snapshot(checkpoint.sequence)?;
                Some((nascent, file))
            }
            None => None,
        };
        let (tensors, restoring) = (TensorReader::new(checkpoint.spec), Restoring::new(checkpoint.spec));
        let checkpoint = checkpoint.clone();
        Ok(Self { checkpoint, crc32, tensors, restoring, checksum: crc32fast::Hasher::new(), kept })
    }

    /// Takes the next bytes of the file.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), EngineError> {
        self.checksum.update(bytes);
        let (restoring, kept) = (&mut self.restoring, &mut self.kept);
        let mut failed = None;
        let read = self.tensors.push(bytes, &mut |section| {
            let took = match restoring.section(section) {
                Ok(_) => kept.as_mut().map_or(Ok(()), |(_, file)| file.put(section)).map_err(EngineError::from),
                Err(Complaint::Damaged(what)) => return Err(what),
                Err(Complaint::OutOfMemory(what)) => Err(EngineError::OutOfMemory(what)),
            };
            took.map_err(|fault| failed.insert(fault).to_string())
        });
        match (read, failed) {
            (Ok(()), _) => Ok(()),
            (Err(_), Some(fault)) => Err(fault),
            (Err(what), None) => Err(self.damaged(what)),
        }
    }

    /// The bank, once all of the file was taken and proved to be what was written.
    pub(super) fn finish(mut self) -> Result<Returned, EngineError> {
        self.tensors.finish().map_err(|what| self.damaged(what))?;
        if self.checksum.clone().finalize() != self.crc32 {
            return Err(self.damaged("its file does not match its checksum".into()));
        }
        let hash = self.restoring.hash().value();
        let mut end = Vec::new();
        Section::encode_end(hash, &mut end);
        self.restoring.section(&end).map_err(|complaint| match complaint {
            Complaint::Damaged(what) => damaged(&self.checkpoint, what),
            Complaint::OutOfMemory(what) => EngineError::OutOfMemory(what),
        })?;
        if hash != self.checkpoint.state_hash {
            return Err(self.damaged("the bank in it has not the state hash that its manifest tells".into()));
        }
        let sequence = self.checkpoint.sequence;
        let kept = match self.kept {
            Some((nascent, mut file)) => {
                file.put(&end)?;
                Some((nascent, Snapshot { sequence, bytes: file.publish()?.bytes }))
            }
            None => None,
        };
        let bank = self.restoring.finish();
        if bank.sequence() != sequence {
            return Err(damaged(
                &self.checkpoint,
                format!("the bank in it is at sequence {}, not {sequence}", bank.sequence()),
            ));
        }
        Ok(Returned { bank, kept })
    }

    fn damaged(&self, what: String) -> EngineError {
        damaged(&self.checkpoint, what)
    }
}

fn damaged(of: &Checkpoint, what: String) -> EngineError {
    EngineError::CheckpointDamaged { bank: of.bank.clone(), tag: of.tag.clone(), what }
}

/// A bank that is back, and not served yet.
pub(super) struct Returned {
    pub(super) bank: Bank,
    kept: Option<(Nascent, Snapshot)>,
}

impl Returned {
    /// Takes its name on disk, from the folders `replaced`.
    pub(super) fn settle(self, store: Option<&Store>, replaced: &[PathBuf]) -> Result<(Bank, Option<Kept>), EngineError> {
        let kept = match (self.kept, store) {
            (Some((nascent, snapshot)), _) => {
                let (folder, log) = nascent.finish(snapshot.sequence, replaced.iter().map(PathBuf::as_path))?;
                Some(Kept { folder, log, snapshot })
            }
            (None, Some(store)) => {
                replaced.iter().try_for_each(|path| store.remove(path))?;
                None
            }
            (None, None) => None,
        };
        Ok((self.bank, kept))
    }
}
