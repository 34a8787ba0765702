//! Banks as they were when the server ended.

use std::io::ErrorKind;

use super::EngineError;
use super::progress::Progress;
use super::snapshots::Restoring;
use crate::bank::Bank;
use crate::codec::decode_group;
use crate::durability::{Complaint, Folder, Log, Snapshot, StoreError};
use crate::model::{Applied, clock};

/// What could be made of a bank's folder.
pub(super) struct Recovered {
    pub(super) bank: Bank,
    /// The log to go on with, or what is wrong with it: then the bank is as it was before the damage, or whole and there is no room to go on.
    pub(super) log: Result<Log, StoreError>,
    pub(super) snapshot: Snapshot,
    /// The bank's, as it is to be served.
    pub(super) folder: Folder,
}

/// A bank from what its folder holds: the newest snapshot, and the log after it, replayed through the code that applied it. Once it is not
/// wanted any more it ends at the next record, with what nobody should ask for.
pub(super) fn recover(folder: &Folder, progress: &Progress) -> Result<Recovered, StoreError> {
    let record = folder.record();
    let began = clock::now();
    progress.begin();
    let mut restoring = Restoring::new(record.spec);
    let snapshot = folder.read_snapshot(&mut |section| {
        progress.note(section.len())?;
        restoring.section(section)
    })?;
    let mut recovery = Recovery::of(restoring.finish());
    let replayed = folder.replay(snapshot.sequence, &mut |sequence, payload| {
        progress.note(payload.len())?;
        recovery.apply(sequence, payload)
    });
    let bank = recovery.into_bank();
    let (log, replayed) = match replayed {
        Ok(replayed) => replayed,
        Err(damage @ StoreError::Damaged { .. }) => {
            return Ok(Recovered { bank, log: Err(damage), snapshot, folder: folder.clone() });
        }
        Err(fault) => return Err(fault),
    };
    if let Some(torn) = replayed.torn {
        let what = if torn.records == 0 {
            "the last record of the log was not written whole and was dropped: the server ended while it wrote"
        } else {
            "the end of the log was dropped: nothing of it was known to be on disk when the power went, and not all of it was"
        };
        tracing::warn!(
            bank = %record.name, file = %torn.path.display(), offset = torn.offset, bytes = torn.bytes, whole_records = torn.records, what = torn.what,
            "{what}"
        );
    }
    if let Some(what) = replayed.unmarked {
        tracing::warn!(bank = %record.name, what, "the file `synced` of the bank tells nothing, so that a log that was made shorter could not be told; it is written anew");
    }
    tracing::info!(
        bank = %record.name, entries = bank.entries(), sequence = bank.sequence(), snapshot = snapshot.sequence, records = replayed.records, zeros = replayed.zeros,
        bytes = replayed.bytes, seconds = began.elapsed().as_secs_f64(), "recovered"
    );
    if !replayed.may_lack {
        return Ok(Recovered { bank, log, snapshot, folder: folder.clone() });
    }
    let (folder, log) = renewed(folder, bank.sequence(), log)?;
    let (name, sequence) = (&folder.record().name, bank.sequence());
    match &log {
        Ok(_) => tracing::warn!(
            bank = %name, sequence,
            "writes that were acknowledged and not synced may be lost: the system has ended since, or nothing tells that it has not; positions after this sequence are refused"
        ),
        Err(_) => tracing::warn!(
            bank = %name, sequence,
            "what was not synced may be lost, and there is no room to write down that the bank is another since: its positions hold until the server ends"
        ),
    }
    Ok(Recovered { bank, log, snapshot, folder })
}

/// Another incarnation for a bank that may lack writes, before its log takes new ones under the numbers of those that may be lost. If there is
/// no room to write that down there is none for writes, and it is one for this life only.
fn renewed(
    folder: &Folder,
    sequence: u64,
    log: Result<Log, StoreError>,
) -> Result<(Folder, Result<Log, StoreError>), StoreError> {
    let written = log.and_then(|mut log| {
        let renewed = folder.renew(sequence)?;
        log.vouch()?;
        Ok((renewed, log))
    });
    match written {
        Ok((renewed, log)) => Ok((renewed, Ok(log))),
        Err(full) if full.wants_room() => Ok((folder.renewed_for_now(sequence)?, Err(full))),
        Err(fault) => Err(fault),
    }
}

pub(super) struct Recovery {
    bank: Bank,
}

impl Recovery {
    pub(super) fn of(bank: Bank) -> Self {
        Self { bank }
    }

    pub(super) fn into_bank(self) -> Bank {
        self.bank
    }

    pub(super) fn apply(&mut self, sequence: u64, payload: &[u8]) -> Result<(), Complaint> {
        let next = self.bank.sequence() + 1;
        if sequence != next {
            return Err(format!("the record is of sequence {sequence}, and {next} comes next").into());
        }
        let mutations = decode_group(self.bank.spec(), payload).map_err(|unreadable| unreadable.to_string())?;
        for mutation in &mutations {
            let arrivals = self.bank.arrivals(mutation);
            self.bank.reserve(&arrivals).map_err(|refused| Complaint::OutOfMemory(refused.to_string()))?;
            let mut applied = Applied::default();
            self.bank.apply(mutation, 0, usize::MAX, &mut applied);
        }
        Ok(())
    }
}

/// Why a bank can't be recovered: a file that is gone or too short is damaged, and what else the system refuses may pass.
pub(super) fn why_not(error: StoreError) -> EngineError {
    match error {
        StoreError::Io { ref source, .. } if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) => {
            EngineError::Damaged(error.to_string())
        }
        _ => error.into(),
    }
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Damaged { .. } => Self::Damaged(error.to_string()),
            StoreError::OutOfMemory { .. } => Self::OutOfMemory(error.to_string()),
            _ => Self::Storage(error.to_string()),
        }
    }
}
