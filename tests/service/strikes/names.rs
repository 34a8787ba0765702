//! Folders of banks: made, and put in the place of others.

use negbank::client::{Client, Code, ScanColumns};
use negbank::proto::v1;

use super::{Fault, MANY, Strikes, name, scanned, unharmed, wide, write};
use crate::faults::{checkpoint, restore_into};

const FAULTS: [Fault; 8] = [
    ("write", "eio"),
    ("sync", "eio"),
    ("make", "eio"),
    ("rename", "eio"),
    ("rename", "after"),
    ("unlink", "eio"),
    ("read", "eio"),
    ("open", "eio"),
];

/// What a bank was asked to become, and which of its states a restarted server must have.
struct Met {
    bank: String,
    expected: Vec<ScanColumns>,
}

/// A bank of two acknowledged writes is to become as the checkpoint is: it does, or it is what it was, and takes writes.
async fn restored(client: &Client, strikes: &Strikes, fault: Fault, n: u64, unharmed: &[Vec<ScanColumns>]) -> Option<Met> {
    let bank = format!("restored-{}", name(fault, n));
    client.create_bank(wide(&bank, v1::Durability::Always)).await.unwrap();
    for number in 0..2 {
        write(client, &bank, number).await.unwrap();
    }
    let strike = strikes.order(fault, n, "/banks/");
    let restored = restore_into(client, "source", "4", &bank).await;
    let has_struck = strike.has_struck();
    drop(strike);
    let there = match &restored {
        Ok(_) => 4,
        Err(refused) => {
            assert!(has_struck && refused.code() == Code::FailedPrecondition, "{bank}: {refused}");
            2
        }
    };
    assert!(scanned(client, &bank).await == unharmed[there], "{bank}: other rows, after {restored:?}");
    write(client, &bank, there as u64).await.unwrap();
    has_struck.then(|| Met { bank, expected: unharmed[there + 1].clone() })
}

/// A bank is made, or can be made then.
async fn made(client: &Client, strikes: &Strikes, fault: Fault, n: u64, unharmed: &[Vec<ScanColumns>]) -> Option<Met> {
    let bank = format!("made-{}", name(fault, n));
    let strike = strikes.order(fault, n, "/banks/");
    let made = client.create_bank(wide(&bank, v1::Durability::Always)).await;
    let has_struck = strike.has_struck();
    drop(strike);
    if let Err(refused) = made {
        assert!(has_struck && refused.code() == Code::FailedPrecondition, "{bank}: {refused}");
        let there = client.get_bank(v1::GetBankRequest { name: bank.clone() }).await.unwrap_err();
        assert_eq!(there.code(), Code::NotFound, "{bank}");
        client.create_bank(wide(&bank, v1::Durability::Always)).await.unwrap();
    }
    write(client, &bank, 0).await.unwrap();
    has_struck.then(|| Met { bank, expected: unharmed[1].clone() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_call_fails_while_a_bank_is_made_or_restored_there_is_one_and_it_is_right() {
    let (frail, strikes) = Strikes::quick();
    let (server, client) = frail.start().await;
    let unharmed = unharmed(&client).await;
    client.create_bank(wide("source", v1::Durability::Memory)).await.unwrap();
    for number in 0..4 {
        write(&client, "source", number).await.unwrap();
    }
    checkpoint(&client, "source", "4").await.unwrap();
    let mut met = Vec::new();
    for fault in FAULTS {
        let before = met.len();
        for n in 1.. {
            assert!(n < MANY, "{fault:?}: no end of it");
            let both =
                [restored(&client, &strikes, fault, n, &unharmed).await, made(&client, &strikes, fault, n, &unharmed).await];
            if both.iter().all(Option::is_none) {
                break;
            }
            met.extend(both.into_iter().flatten());
        }
        assert!(met.len() > before, "{fault:?} was not met");
    }
    drop(server);
    for life in 0..2 {
        let (_server, client) = frail.start().await;
        for Met { bank, expected } in &met {
            let there = client.get_bank(v1::GetBankRequest { name: bank.clone() }).await;
            there.unwrap_or_else(|refused| panic!("{bank}, life {life}: {refused}"));
            assert!(scanned(&client, bank).await == *expected, "{bank}, life {life}: other rows");
        }
    }
}
