//! Banks that are read back from a disk that fails.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use negbank::client::{Client, Code, ScanColumns};
use negbank::proto::v1;

use super::{Fault, HISTORY, MANY, SETTINGS, Strikes, judge, name, scanned, unharmed, wide, write};
use crate::durable::{bank_folder, logs};

const FAULTS: [Fault; 11] = [
    ("read", "eio"),
    ("read", "short"),
    ("open", "eio"),
    ("write", "eio"),
    ("write", "half"),
    ("write", "short"),
    ("sync", "eio"),
    ("make", "eio"),
    ("unlink", "eio"),
    ("truncate", "eio"),
    ("truncate", "after"),
];

/// What a server leaves that was killed while it wrote a record, and a snapshot.
fn cut_short(data: &Path, bank: &str) {
    let log = logs(data, bank).pop().unwrap();
    File::options().append(true).open(log).unwrap().write_all(&[0xA5; 45]).unwrap();
    File::create(bank_folder(data, bank).join(".snapshot-00000000000000000099")).unwrap().write_all(b"half of it").unwrap();
}

/// A bank is served right, or refused for what the disk refused.
async fn is_served(client: &Client, bank: &str, expected: &[ScanColumns]) -> bool {
    match client.get_bank(v1::GetBankRequest { name: bank.into() }).await {
        Ok(about) => {
            assert_eq!(about.sequence, HISTORY.len() as u64, "{bank}");
            assert!(scanned(client, bank).await == expected, "{bank}: other rows");
            true
        }
        Err(refused) => {
            let says = refused.to_string();
            assert!(says.contains("Input/output error") || says.contains("No space left"), "{bank}: {says}");
            // It may pass, so nobody is to delete the bank for it.
            assert!(refused.code() == Code::FailedPrecondition && says.contains("No damage was found"), "{bank}: {says}");
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_call_fails_at_the_start_a_bank_is_right_or_refused_and_right_after_the_next() {
    let (frail, strikes) = Strikes::quick();
    let (mut server, mut client) = frail.start_with(&SETTINGS).await;
    let unharmed = unharmed(&client).await;
    let all = unharmed.last().unwrap();
    for fault in FAULTS {
        client.create_bank(wide(&name(fault, 0), v1::Durability::Always)).await.unwrap();
        for number in 0..HISTORY.len() as u64 {
            write(&client, &name(fault, 0), number).await.unwrap();
        }
    }
    let (mut met, mut refused) = ([0; FAULTS.len()], 0);
    for n in 1.. {
        assert!(n < MANY, "no end of it");
        drop(server);
        FAULTS.iter().for_each(|&fault| cut_short(&frail.disk("data"), &name(fault, 0)));
        let ordered: Vec<_> = FAULTS.iter().map(|&fault| strikes.order(fault, n, &format!("/{}@", name(fault, 0)))).collect();
        (server, client) = frail.start_with(&SETTINGS).await;
        let mut struck = 0;
        for ((fault, strike), met) in FAULTS.into_iter().zip(&ordered).zip(&mut met) {
            let is_served = is_served(&client, &name(fault, 0), all).await;
            assert!(is_served || strike.has_struck(), "{fault:?} {n}: refused for nothing");
            struck += u64::from(strike.has_struck());
            *met += u64::from(strike.has_struck());
            refused += u64::from(!is_served);
        }
        if struck == 0 {
            break;
        }
    }
    // Settings, snapshot and log are read; what was cut short goes, what the log ends with is written again, and synced.
    assert!(met.iter().zip(FAULTS).all(|(&met, (kind, _))| met >= if kind == "read" { 5 } else { 1 }), "{met:?}");
    assert!(refused > 10, "{refused} of {met:?}");
    drop(server);
    let (_server, client) = frail.start_with(&SETTINGS).await;
    let whole = HISTORY.len() as u64;
    for fault in FAULTS {
        judge(&client, &name(fault, 0), whole..=whole, &unharmed).await;
    }
}
