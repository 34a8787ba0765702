//! The entries of a keyed bank that most need a refresh.

use super::EngineError;
use super::query::Wanted;
use crate::bank::{Bank, Entry};
use crate::model::BankKind;
use crate::rows::Shared;

/// The stalest entries, oldest step first and of one step the one written longest ago.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stalest {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Bank's sequence when they were.
    pub sequence: u64,
    /// Bank's step then.
    pub step: Option<u64>,
}

/// Entries read in one hold of the bank's lock.
const ENTRIES_PER_HOLD: usize = 256;

/// Times that the list is begun anew because a write came between two holds; then it is read in one.
const TRIES: usize = 3;

impl Stalest {
    /// The first `k`, or all there are; true of one state of the bank.
    pub(super) fn of(bank: &Shared<Bank>, k: usize, wanted: &Wanted) -> Result<Self, EngineError> {
        if matches!(bank.read()?.spec().kind(), BankKind::Queue { .. }) {
            return Err(EngineError::NotKeyed);
        }
        for _ in 0..TRIES {
            if let Some(stalest) = Self::undisturbed(bank, k, ENTRIES_PER_HOLD, wanted)? {
                return Ok(stalest);
            }
        }
        Self::undisturbed(bank, k, usize::MAX, wanted)?.ok_or(EngineError::Internal("one hold was disturbed"))
    }

    /// The same; `None` if a write came between two holds.
    fn undisturbed(bank: &Shared<Bank>, k: usize, per_hold: usize, wanted: &Wanted) -> Result<Option<Self>, EngineError> {
        let mut stalest = Self::default();
        let mut read: Option<(u64, Vec<Option<u32>>)> = None;
        loop {
            if !wanted.holds() {
                return Err(EngineError::DeadlineExceeded);
            }
            let bank = bank.read()?;
            let mut next = match read {
                None => bank.shards().iter().map(crate::bank::Shard::stalest).collect(),
                Some((revision, next)) if revision == bank.revision() => next,
                Some(_) => return Ok(None),
            };
            (stalest.sequence, stalest.step) = (bank.sequence(), bank.step());
            for _ in 0..per_hold {
                let Some(entry) = take_first(&bank, &mut next).filter(|_| stalest.entries.len() < k) else {
                    return Ok(Some(stalest));
                };
                stalest.entries.push(entry);
            }
            read = Some((bank.revision(), next));
        }
    }
}

/// The stalest of the shards' next entries; its shard goes on to the one after it.
fn take_first(bank: &Bank, next: &mut [Option<u32>]) -> Option<Entry> {
    let candidates = bank.shards().iter().zip(&mut *next).enumerate();
    let keyed = candidates.filter_map(|(at, (shard, slot))| slot.map(|slot| (shard.columns().staleness(slot), at, slot)));
    let (_, at, slot) = keyed.min()?;
    let shard = &bank.shards()[at];
    next[at] = shard.stalest_after(slot);
    Some(shard.columns().entry(slot))
}
