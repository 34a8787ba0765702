//! Reads of a bank that need no search: its description, entries by id, and whether it is ready to be read.

use rustc_hash::FxHashSet;

use super::EngineError;
use super::maintenance::{BankIndex, IndexInfo};
use super::query::Wanted;
use super::staging::OpenStage;
use crate::bank::{Bank, Entry};
use crate::model::{BankName, BankSpec, Durability, Encoding, Lineage, Position};
use crate::rows::Shared;

/// What a read asks of the bank's state before it begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Condition {
    /// The history must have come this far.
    pub at_least: Option<Position>,
    /// Entries that the bank must hold.
    pub min_entries: u64,
    /// Whether to wait for the entries until the deadline; else the read is refused at once.
    pub wait: bool,
}

/// A bank as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct BankInfo {
    /// Its name.
    pub name: BankName,
    /// Its settings.
    pub spec: BankSpec,
    /// When its writes reach the disk.
    pub durability: Durability,
    /// What is wrong with its files, if that is why it takes no writes.
    pub damage: Option<String>,
    /// The last mutation before acknowledged ones that a power cut took, or may have taken; `None`: none ever did.
    pub lost_after: Option<u64>,
    /// The share of its files that was read, while it is being recovered and not served; then nothing of it is counted.
    pub recovering: Option<f64>,
    /// Entries held.
    pub entries: usize,
    /// Mutations applied.
    pub sequence: u64,
    /// Step of the last write that carried one.
    pub step: Option<u64>,
    /// Distinct labels.
    pub labels: usize,
    /// Distinct groups.
    pub groups: usize,
    /// Memory of one entry's embedding and columns.
    pub bytes_per_entry: usize,
    /// Memory of one entry with everything that finds it, while a graph is built beside the one that serves.
    pub peak_bytes_per_entry: usize,
    /// Writers whose numbers are remembered.
    pub writers: usize,
    /// Staged writes that wait for ranks.
    pub stages: Vec<OpenStage>,
    /// The graph of a keyed bank.
    pub index: Option<IndexInfo>,
}

/// Entries read by id.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fetched {
    /// Whether each id asked for was there.
    pub found: Vec<bool>,
    /// The entries found, in the order asked for.
    pub entries: Vec<Entry>,
    /// Their embeddings, row-major, encoded as asked for.
    pub embeddings: Vec<u8>,
    /// Bank's sequence when the last of them was read.
    pub sequence: u64,
    /// Bank's step then.
    pub step: Option<u64>,
}

/// Ids looked up in one hold of the bank's lock.
const FETCHES_PER_HOLD: usize = 256;

impl Condition {
    /// What of the condition the bank does not meet; `incarnation` is the bank's own, `lineage` what it goes on from.
    pub(super) fn unmet(
        &self,
        name: &BankName,
        (incarnation, lineage): (u64, &Lineage),
        bank: &Shared<Bank>,
    ) -> Result<Option<EngineError>, EngineError> {
        let bank = bank.read()?;
        if let Some(position) = self.at_least.filter(|&position| !lineage.has(position)) {
            if position.incarnation != incarnation {
                let left = lineage.last().iter().rev().find(|last| last.incarnation == position.incarnation);
                return Err(left.map_or_else(
                    || EngineError::OtherHistory(name.clone()),
                    |left| EngineError::LeftHistory { name: name.clone(), kept: left.sequence },
                ));
            }
            if bank.sequence() < position.sequence {
                return Ok(Some(EngineError::DeadlineExceeded));
            }
        }
        let (entries, wanted) = (bank.entries(), self.min_entries);
        let few = (entries as u64) < wanted;
        Ok(few.then(|| EngineError::TooFewEntries { name: name.clone(), entries, wanted }))
    }
}

impl BankInfo {
    /// Describes a bank; one hold a shard, since there may be as many groups as entries.
    pub(super) fn of(
        name: &BankName,
        (bank, index): (&Shared<Bank>, Option<&BankIndex>),
        stages: Vec<OpenStage>,
    ) -> Result<Self, EngineError> {
        let shards = bank.read()?.shards().len();
        let (mut labels, mut groups) = (FxHashSet::default(), FxHashSet::default());
        for shard in 0..shards {
            let bank = bank.read()?;
            labels.extend(bank.shards()[shard].labels());
            groups.extend(bank.shards()[shard].groups());
        }
        let bank = bank.read()?;
        Ok(Self {
            name: name.clone(),
            spec: *bank.spec(),
            durability: Durability::Memory,
            damage: None,
            lost_after: None,
            recovering: None,
            entries: bank.entries(),
            sequence: bank.sequence(),
            step: bank.step(),
            labels: labels.len(),
            groups: groups.len(),
            bytes_per_entry: bank.bytes_per_entry(),
            peak_bytes_per_entry: bank.resident_per_entry(),
            writers: bank.writers(),
            stages,
            index: index.map(BankIndex::describe),
        })
    }
}

impl Fetched {
    /// Looks up `ids`, in short holds.
    pub(super) fn of(bank: &Shared<Bank>, ids: &[u64], encoding: Encoding, wanted: &Wanted) -> Result<Self, EngineError> {
        let mut fetched = Self::default();
        for part in ids.chunks(FETCHES_PER_HOLD) {
            if !wanted.holds() {
                return Err(EngineError::DeadlineExceeded);
            }
            let bank = bank.read()?;
            for &id in part {
                let place = bank.find(id);
                fetched.found.push(place.is_some());
                if let Some(place) = place {
                    fetched.entries.push(bank.columns(place).entry(place.slot));
                    bank.row(place).encode(encoding, &mut fetched.embeddings);
                }
            }
            (fetched.sequence, fetched.step) = (bank.sequence(), bank.step());
        }
        Ok(fetched)
    }
}
