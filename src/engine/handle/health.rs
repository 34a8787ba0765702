//! Whether the banks are well: what is being recovered, what takes no more writes, and what is amiss all the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::{BankHandle, Engine, Inner};
use crate::engine::journal::Alarm;
use crate::model::BankName;
use crate::telemetry::Told;

/// What whoever asks for the health of the whole is told of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Banks that are being recovered, or wait for that.
    pub recovering: usize,
    /// Banks that take no more writes until the server is restarted, by incarnation: the name and why. A bank that is deleted, or that a
    /// checkpoint takes the place of, is none of them any more.
    pub unwritable: BTreeMap<u64, (BankName, String)>,
}

/// Lines of a kind that are told at most.
const MOST_LINES: usize = 20;
/// Characters of a line.
const LONGEST_LINE: usize = 400;

impl Engine {
    /// How the banks are, and what becomes of it. An end of the channel means that the engine is gone.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.inner.health.subscribe()
    }

    /// Returns when no bank is being recovered; never, if that was given up.
    pub async fn recovered(&self) {
        let mut health = self.health();
        // An error here means that the engine is gone.
        let _gone = health.wait_for(|health| health.recovering == 0).await;
    }

    /// Whether all banks are recovered, and what whoever asks should know, one a line. Waits for no lock that is held for long.
    pub fn readiness(&self) -> Told {
        let coming = self.inner.recovering.all();
        let lines = coming.iter().map(|coming| coming.told());
        let (recovering, wrong) = (bounded(lines.collect()), bounded(self.inner.complaints()));
        Told { recovering: coming.len(), lines: recovering.into_iter().chain(wrong).collect() }
    }
}

impl Inner {
    /// What is amiss though calls are answered.
    fn complaints(&self) -> Vec<String> {
        let mut complaints: Vec<String> =
            self.refused.iter().map(|bank| format!("bank {} is refused: {}", bank.key(), bank.why())).collect();
        let health = self.health.borrow();
        complaints.extend(health.unwritable.values().map(|(name, why)| format!("bank {name} takes no more writes: {why}")));
        drop(health);
        for bank in &self.banks {
            if let Some(damage) = &bank.damage {
                complaints.push(format!("bank {} takes no writes, since its files are damaged: {damage}", bank.name));
            }
            if let Some(trouble) = bank.snapshots.told() {
                complaints
                    .push(format!("bank {}: its log grows, since no snapshot of it could be taken: {trouble}", bank.name));
            }
            if let Some(index) = bank.index.as_ref().map(|index| index.describe()).filter(|index| index.failed) {
                complaints.push(format!("bank {}: {}", bank.name, index.reason));
            }
        }
        complaints.sort();
        complaints
    }

    /// What the log and the committer of a bank call when they take no more writes.
    pub(super) fn alarm(&self, (name, incarnation): (&BankName, u64), deleted: &watch::Sender<bool>) -> Alarm {
        let (health, name, deleted) = (self.health.clone(), name.clone(), deleted.clone());
        Arc::new(move |why: &str| {
            health.send_if_modified(|health| {
                // What becomes of a bank that is gone concerns nobody.
                !*deleted.borrow() && health.unwritable.insert(incarnation, (name.clone(), why.to_owned())).is_none()
            });
        })
    }
}

impl BankHandle {
    /// The bank is gone: whether it could be written to is no matter any more.
    pub(super) fn withdraw_alarm(&self) {
        self.health.send_if_modified(|health| health.unwritable.remove(&self.incarnation).is_some());
    }
}

/// As many lines as somebody reads, none of them longer than a few in a terminal.
fn bounded(mut lines: Vec<String>) -> Vec<String> {
    let more = lines.len().saturating_sub(MOST_LINES);
    lines.truncate(MOST_LINES);
    for line in &mut lines {
        if let Some((cut, _)) = line.char_indices().nth(LONGEST_LINE) {
            line.truncate(cut);
            line.push('…');
        }
        *line = line.replace('\n', " ");
    }
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_LINE, MOST_LINES, bounded};

    #[test]
    fn what_is_told_is_bounded() {
        let told = bounded((0..50).map(|bank| format!("bank {bank}\n{}", "ä".repeat(1_000))).collect());
        assert_eq!((told.len(), told.last().unwrap().as_str()), (MOST_LINES + 1, "and 30 more"));
        assert!(told[0].starts_with("bank 0 ä") && told[0].chars().count() == LONGEST_LINE + 1, "{}", told[0]);
        assert_eq!(bounded(vec!["short".to_owned()]), ["short"]);
    }
}
