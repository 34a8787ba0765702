//! Banks as they were when the server ended.

use std::time::{Duration, Instant};

use super::EngineError;
use super::snapshots::Restoring;
use crate::bank::Bank;
use crate::codec::decode_group;
use crate::durability::{Complaint, Folder, Log, Snapshot, StoreError};
use crate::model::{Applied, clock};

/// Between two lines that tell how far a recovery has come.
const BETWEEN_LINES: Duration = Duration::from_secs(2);

/// What could be made of a bank's folder.
pub(super) struct Recovered {
    pub(super) bank: Bank,
    /// The log to go on with, or what is wrong with it: then the bank is as it was before the damage.
    pub(super) log: Result<Log, StoreError>,
    pub(super) snapshot: Snapshot,
}

/// A bank from what its folder holds: the newest snapshot, and the log after it, replayed through the code that applied it.
pub(super) fn recover(folder: &Folder) -> Result<Recovered, StoreError> {
    let record = folder.record();
    let began = clock::now();
    let mut restoring = Restoring::new(record.spec);
    let snapshot = folder.read_snapshot(&mut |section| restoring.section(section))?;
    let mut recovery = Recovery::of(restoring.finish(), record.name.as_str());
    let replayed = folder.replay(snapshot.sequence, &mut |sequence, payload| recovery.apply(sequence, payload));
    let bank = recovery.into_bank();
    let (log, replayed) = match replayed {
        Ok(replayed) => replayed,
        Err(damage @ StoreError::Damaged { .. }) => return Ok(Recovered { bank, log: Err(damage), snapshot }),
        Err(fault) => return Err(fault),
    };
    if let Some(torn) = replayed.torn {
        tracing::warn!(
            bank = %record.name, file = %torn.path.display(), offset = torn.offset, bytes = torn.bytes, what = torn.what,
            "the last record of the log was not written whole and was dropped: the server ended while it wrote"
        );
    }
    tracing::info!(
        bank = %record.name, entries = bank.entries(), sequence = bank.sequence(), snapshot = snapshot.sequence, records = replayed.records, zeros = replayed.zeros,
        bytes = replayed.bytes, seconds = began.elapsed().as_secs_f64(), "recovered"
    );
    Ok(Recovered { bank, log: Ok(log), snapshot })
}

pub(super) struct Recovery {
    bank: Bank,
    told: Instant,
    name: String,
}

impl Recovery {
    pub(super) fn of(bank: Bank, name: &str) -> Self {
        Self { bank, told: clock::now(), name: name.to_owned() }
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
        if self.told.elapsed() >= BETWEEN_LINES {
            self.told = clock::now();
            tracing::info!(bank = self.name, sequence = self.bank.sequence(), entries = self.bank.entries(), "recovering");
        }
        Ok(())
    }
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::OutOfMemory { .. } => Self::OutOfMemory(error.to_string()),
            _ => Self::Storage(error.to_string()),
        }
    }
}
