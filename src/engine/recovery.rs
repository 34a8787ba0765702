//! Banks as they were when the server ended.

use std::time::{Duration, Instant};

use super::EngineError;
use crate::bank::Bank;
use crate::codec::decode_group;
use crate::durability::{Folder, Log, StoreError};
use crate::model::{Applied, clock};

/// Between two lines that tell how far a recovery has come.
const BETWEEN_LINES: Duration = Duration::from_secs(2);

/// A bank from what its folder holds: its log, replayed through the code that applied it.
pub(super) fn recover(folder: &Folder) -> Result<(Bank, Log), StoreError> {
    let record = folder.record();
    let mut recovery = Recovery { bank: Bank::new(record.spec), told: clock::now(), name: record.name.to_string() };
    let began = clock::now();
    let (log, replayed) = folder.replay(0, &mut |sequence, payload| recovery.apply(sequence, payload))?;
    let bank = recovery.bank;
    if let Some(torn) = replayed.torn {
        tracing::warn!(
            bank = %record.name, file = %torn.path.display(), offset = torn.offset, bytes = torn.bytes, what = torn.what,
            "the last record of the log was not written whole and was dropped: the server ended while it wrote"
        );
    }
    tracing::info!(
        bank = %record.name, entries = bank.entries(), sequence = bank.sequence(), records = replayed.records,
        bytes = replayed.bytes, seconds = began.elapsed().as_secs_f64(), "recovered"
    );
    Ok((bank, log))
}

struct Recovery {
    bank: Bank,
    told: Instant,
    name: String,
}

impl Recovery {
    fn apply(&mut self, sequence: u64, payload: &[u8]) -> Result<(), String> {
        let next = self.bank.sequence() + 1;
        if sequence != next {
            return Err(format!("the record is of sequence {sequence}, and {next} comes next"));
        }
        let mutations = decode_group(self.bank.spec(), payload).map_err(|unreadable| unreadable.to_string())?;
        for mutation in &mutations {
            let arrivals = self.bank.arrivals(mutation);
            self.bank.reserve(&arrivals).map_err(|refused| refused.to_string())?;
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
        Self::Storage(error.to_string())
    }
}
