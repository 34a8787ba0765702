//! Checkpoints that are made and restored until the server is gone.

use std::collections::BTreeMap;

use negbank::client::{Client, Code};
use negbank::proto::v1;

use super::history::{hashed, identity};
use super::writer::Kill;
use super::{BANKS, Report};

/// The tag of those that take one another's place.
const AGAIN: &str = "again";

/// Makes checkpoints until the server is gone, each cycle first of another bank; the last `kept` stay. True if the server had begun
/// with one when it was killed: it had taken the call, and not told what came of it.
pub(super) async fn keep(client: Client, kill: Kill, cycle: u64, kept: u32) -> bool {
    let mut number = cycle as usize;
    loop {
        let bank = BANKS[number % BANKS.len()].name.to_owned();
        let replace = (number / BANKS.len()) % 2 == 1;
        let tag = if replace { AGAIN.to_owned() } else { format!("{cycle}-{number}") };
        let request = v1::CreateCheckpointRequest { bank, tag, replace, keep: kept };
        let (made, begun) = match client.create_checkpoint(request).await {
            Ok(making) => (making.done().await, true),
            Err(gone) => (Err(gone), false),
        };
        if let Err(gone) = made {
            kill.assert_explains(&gone);
            return begun;
        }
        number += 1;
    }
}

/// Where a bank is restored to.
fn into(bank: &str) -> String {
    format!("restored-{bank}")
}

/// What each restored bank may be after the crash: as one of these checkpoints, or not there.
#[derive(Default)]
pub(super) struct Possible(BTreeMap<&'static str, Vec<Option<v1::Checkpoint>>>);

/// Restores checkpoints until the server is gone, over banks that are there and where there is none.
pub(super) async fn restore(client: Client, kill: Kill, cycle: u64) -> Possible {
    let mut possible = Possible::default();
    for turn in cycle as usize.. {
        let bank = BANKS[turn % BANKS.len()].name;
        let request = v1::ListCheckpointsRequest { bank: bank.to_owned() };
        let listed = match client.list_checkpoints(request).await {
            Ok(listed) => listed.checkpoints,
            Err(gone) => {
                kill.assert_explains(&gone);
                return possible;
            }
        };
        // One that may be replaced meanwhile could be either.
        let Some(made) = listed.into_iter().rfind(|made| made.tag != AGAIN) else { continue };
        let states = possible.0.entry(bank).or_insert_with(|| vec![None]);
        states.push(Some(made.clone()));
        let request = v1::RestoreCheckpointRequest {
            bank: bank.to_owned(),
            tag: made.tag.clone(),
            into: into(bank),
            durability: v1::Durability::Always.into(),
        };
        let restored = match client.restore_checkpoint(request).await {
            Ok(restoring) => restoring.done().await,
            Err(gone) => Err(gone),
        };
        if let Err(gone) = restored {
            kill.assert_explains(&gone);
            return possible;
        }
        *states = vec![Some(made)];
        if (turn / BANKS.len()) % 3 == 2 {
            states.push(None);
            let deleted = client.delete_bank(v1::DeleteBankRequest { name: into(bank) }).await;
            if let Err(gone) = deleted {
                kill.assert_explains(&gone);
                return possible;
            }
            *states = vec![None];
        }
    }
    possible
}

impl Possible {
    /// Judges what the crash left of restored banks: each is whole, or not there. Then it is deleted.
    pub(super) async fn judge(&self, client: &Client, report: &mut Report) {
        for bank in &BANKS {
            let states = self.0.get(bank.name).map_or(&[None][..], Vec::as_slice);
            let name = into(bank.name);
            match client.get_bank(v1::GetBankRequest { name: name.clone() }).await {
                Ok(_) => {
                    let found = hashed(client, &name).await;
                    let is_one = states.iter().flatten().any(|made| identity(made) == identity(&found));
                    report.torn += u64::from(!is_one);
                    client.delete_bank(v1::DeleteBankRequest { name }).await.unwrap();
                }
                Err(refused) if refused.code() == Code::NotFound => report.torn += u64::from(!states.contains(&None)),
                Err(refused) => {
                    println!("{name}: {refused}");
                    report.torn += 1;
                }
            }
        }
        let there = client.list_banks().await.unwrap().banks;
        report.phantom += there.iter().filter(|there| BANKS.iter().all(|bank| bank.name != there.name)).count() as u64;
    }
}

/// Restores the newest checkpoint of each bank, which proves it against its hash; returns those that are whole.
pub(super) async fn whole(client: &Client, report: &mut Report) -> Vec<v1::Checkpoint> {
    let listed = client.list_checkpoints(v1::ListCheckpointsRequest::default()).await.unwrap().checkpoints;
    let mut whole = Vec::new();
    for bank in &BANKS {
        let Some(newest) = listed.iter().rfind(|made| made.bank == bank.name) else { continue };
        let (bank, tag, into) = (bank.name.to_owned(), newest.tag.clone(), into(bank.name));
        let request = v1::RestoreCheckpointRequest { bank, tag, into, ..Default::default() };
        let restored = match client.restore_checkpoint(request).await {
            Ok(restoring) => restoring.done().await,
            Err(refused) => Err(refused),
        };
        match restored.map(|reading| reading.restored.unwrap()) {
            Ok(there) => {
                report.torn += u64::from((there.sequence, there.entries) != (newest.sequence, newest.entries));
                client.delete_bank(v1::DeleteBankRequest { name: there.name }).await.unwrap();
                whole.push(newest.clone());
            }
            Err(refused) => {
                println!("checkpoint {} of {}: {refused}", newest.tag, newest.bank);
                report.torn += 1;
            }
        }
    }
    report.checkpoints += whole.len() as u64;
    whole
}
