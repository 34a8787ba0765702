//! What was acknowledged of a bank, and what a restarted server has of it.

use std::collections::HashSet;

use negbank::client::Client;
use negbank::proto::v1;

use super::replay::Replay;
use super::writer::{Acknowledged, Change, LARGE};
use super::{BankKind, Report};
use crate::durable::seen_of;

/// Changes of one bank, in the end by the sequences they got.
pub(super) struct History {
    /// How many of them the reference and the model have.
    replayed: u64,
    /// The others.
    fresh: Vec<Acknowledged>,
    model: Replay,
}

impl History {
    pub(super) fn of(bank: &BankKind) -> Self {
        Self { replayed: 0, fresh: Vec::new(), model: Replay::of(bank) }
    }

    pub(super) fn extend(&mut self, acknowledged: Vec<Acknowledged>) {
        self.fresh.extend(acknowledged);
    }

    /// Judges a server that was just started, before anything is written: each of the `pending` changes may be there or not.
    pub(super) async fn judge(&mut self, bank: &BankKind, client: &Client, pending: Vec<Change>, report: &mut Report) {
        let acknowledged = self.replayed + self.fresh.len() as u64;
        let there = match client.get_bank(v1::GetBankRequest { name: bank.name.to_owned() }).await {
            Ok(about) => about.sequence,
            Err(refused) => {
                println!("{}: {refused}", bank.name);
                report.lost += acknowledged.max(1);
                return;
            }
        };
        let last = self.fresh.iter().map(|(sequence, _)| *sequence).max().unwrap_or(self.replayed);
        report.lost += last.max(acknowledged).saturating_sub(there);
        report.phantom += there.saturating_sub(acknowledged + pending.len() as u64);
        report.acknowledged += self.fresh.len() as u64;
        let (mut applied, mut removals) = (0, Vec::new());
        for change in pending {
            match change {
                Change::Write(request) => {
                    let answer = client.write((*request).clone()).await.unwrap();
                    applied += u64::from(answer.duplicate);
                    self.fresh.push((answer.sequence, Change::Write(request)));
                }
                Change::Remove(request) => removals.push(request),
            }
        }
        assert!(removals.len() <= 1, "of two nobody could tell which was applied");
        for request in removals {
            let sequence = match self.missing(there) {
                Some(sequence) => {
                    applied += 1;
                    sequence
                }
                None => client.remove(request.clone()).await.unwrap().sequence,
            };
            self.fresh.push((sequence, Change::Remove(request)));
        }
        // Whatever was applied and not acknowledged is pending, and must be known.
        report.reapplied += there.saturating_sub(acknowledged).abs_diff(applied);
        self.fresh.sort_by_key(|(sequence, _)| *sequence);
        let in_order = self.fresh.iter().zip(self.replayed + 1..).all(|((sequence, _), expected)| *sequence == expected);
        report.torn += u64::from(!in_order);
        report.large += self.fresh.iter().filter(|(_, change)| bytes(change) >= LARGE).count() as u64;
        report.removed += self.fresh.iter().filter(|(_, change)| matches!(change, Change::Remove(_))).count() as u64;
    }

    /// The first sequence up to the last one that none of the known changes has.
    fn missing(&self, last: u64) -> Option<u64> {
        let known: HashSet<u64> = self.fresh.iter().map(|(sequence, _)| *sequence).collect();
        (self.replayed + 1..=last).find(|sequence| !known.contains(sequence))
    }

    /// Brings the reference, a server that never ended, up to date, and the model, which is none, and compares all that can be seen of the
    /// three. `made`: a checkpoint that outlived the crash.
    pub(super) async fn compare(
        &mut self,
        bank: &BankKind,
        (address, client, reference): (&str, &Client, &Client),
        made: Option<&v1::Checkpoint>,
        report: &mut Report,
    ) {
        for (sequence, change) in self.fresh.drain(..) {
            self.model.apply(&change);
            match change {
                Change::Write(request) => drop(reference.write(*request).await.unwrap()),
                Change::Remove(request) => drop(reference.remove(request).await.unwrap()),
            }
            self.replayed = sequence;
            if let Some(made) = made.filter(|made| made.sequence == sequence) {
                report.hash_mismatch += u64::from(identity(made) != identity(&hashed(reference, bank.name).await));
            }
        }
        // A write is in the log before it is seen, so none that a checkpoint has is lost.
        report.lost += made.map_or(0, |made| made.sequence.saturating_sub(self.replayed));
        report.wrong += self.model.compare(address, bank.name).await;
        let (about, chunks, answers) = seen_of(client, bank.name, bank.dim).await;
        let (expected, expected_chunks, expected_answers) = seen_of(reference, bank.name, bank.dim).await;
        report.torn += u64::from(chunks != expected_chunks);
        report.hash_mismatch +=
            u64::from(v1::Bank { durability: expected.durability, ..about } != expected || answers != expected_answers);
        let (hashed, expected) = (hashed(client, bank.name).await, hashed(reference, bank.name).await);
        report.hash_mismatch += u64::from(identity(&hashed) != identity(&expected));
    }
}

fn bytes(change: &Change) -> usize {
    let embeddings = if let Change::Write(request) = change { request.embeddings.as_ref() } else { None };
    embeddings.map_or(0, |rows| rows.data.len())
}

/// What is equal for equal banks.
pub(super) fn identity(made: &v1::Checkpoint) -> (u64, u64, &str, &str) {
    (made.sequence, made.entries, &made.state_hash, &made.content_hash)
}

/// A checkpoint of a bank as it is, which is gone again: for its hashes.
pub(super) async fn hashed(client: &Client, bank: &str) -> v1::Checkpoint {
    let (bank, tag) = (bank.to_owned(), "hashed".to_owned());
    // No other is removed to make room.
    let request = v1::CreateCheckpointRequest { bank: bank.clone(), tag: tag.clone(), keep: 1_000, ..Default::default() };
    let made = client.create_checkpoint(request).await.unwrap().done().await.unwrap().checkpoint.unwrap();
    client.delete_checkpoint(v1::DeleteCheckpointRequest { bank, tag }).await.unwrap();
    made
}
