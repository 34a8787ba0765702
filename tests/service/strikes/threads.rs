//! A system that starts no more threads: a bank needs three of its own, and its folder is there before them.

use std::ops::RangeInclusive;

use negbank::client::{Client, Code, ScanColumns};
use negbank::proto::v1;

use super::{Fault, MANY, Strike, Strikes, names, scanned, unharmed, wide, write};
use crate::faults::{checkpoint, restore_into};

const FAULT: Fault = ("thread", "eio");
const SAYS: &str = "the system starts no more threads";
/// The threads of a bank.
const OF_A_BANK: u64 = 3;

/// Which of the starts from now on fails.
fn order(strikes: &Strikes, n: u64) -> Strike<'_> {
    strikes.order(FAULT, n, "/threads/")
}

fn of(name: &str) -> v1::GetBankRequest {
    v1::GetBankRequest { name: name.into() }
}

/// What the data folder holds of a bank.
fn folders(data: &std::path::Path, bank: &str) -> usize {
    names(&data.join("banks")).iter().filter(|name| name.starts_with(&format!("{bank}@"))).count()
}

/// Has threads wait for work, so that those which a call starts are the bank's.
async fn warm(client: &Client) {
    let made: Vec<_> = (0..8)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(
                async move { client.create_bank(wide(&format!("warm-{number}"), v1::Durability::Always)).await.map(drop) },
            )
        })
        .collect();
    for made in made {
        made.await.unwrap().unwrap();
    }
}

/// The bank is what the writes up to `kept` made, and takes the next.
async fn goes_on(client: &Client, bank: &str, kept: u64, unharmed: &[Vec<ScanColumns>]) {
    assert!(scanned(client, bank).await == unharmed[kept as usize], "{bank}: other rows");
    write(client, bank, kept).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_for_which_no_thread_starts_is_not_made_and_leaves_nothing() {
    let (frail, strikes) = Strikes::quick();
    let (server, client) = frail.start().await;
    let unharmed = unharmed(&client).await;
    warm(&client).await;
    let (mut made, mut refusals) = (Vec::new(), 0);
    for n in 1.. {
        assert!(n < MANY, "no end of it");
        let (bank, strike) = (format!("made-{n}"), order(&strikes, n));
        let created = client.create_bank(wide(&bank, v1::Durability::Always)).await;
        let has_struck = strike.has_struck();
        drop(strike);
        if let Err(refused) = created {
            assert!(
                has_struck && refused.code() == Code::ResourceExhausted && refused.to_string().contains(SAYS),
                "{bank}: {refused}"
            );
            assert_eq!(client.get_bank(of(&bank)).await.unwrap_err().code(), Code::NotFound, "{bank}");
            assert_eq!(folders(&frail.disk("data"), &bank), 0, "{bank}");
            client.create_bank(wide(&bank, v1::Durability::Always)).await.unwrap();
            refusals += 1;
        }
        goes_on(&client, &bank, 0, &unharmed).await;
        made.push(bank);
        if !has_struck {
            break;
        }
    }
    assert!(refusals >= OF_A_BANK, "{refusals}");
    drop(server);
    let (_server, client) = frail.start().await;
    for bank in made {
        goes_on(&client, &bank, 1, &unharmed).await;
    }
}

/// Where it can't even be taken back, its name stays taken until it is deleted, or the next start serves it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_cannot_be_taken_back_keeps_its_name() {
    let (frail, strikes) = Strikes::quick();
    let (server, client) = frail.start().await;
    let unharmed = unharmed(&client).await;
    warm(&client).await;
    for bank in ["deleted", "kept"] {
        // Its first name is the folder's own, the second is to take it away.
        let (thread, rename) = (order(&strikes, 1), strikes.order(("rename", "eio"), 2, &format!("/{bank}@")));
        let refused = client.create_bank(wide(bank, v1::Durability::Always)).await.unwrap_err();
        assert!(thread.has_struck() && rename.has_struck() && refused.to_string().contains(SAYS), "{bank}: {refused}");
        drop((thread, rename));
        let again = [
            client.create_bank(wide(bank, v1::Durability::Always)).await.map(drop).unwrap_err(),
            client.get_bank(of(bank)).await.map(drop).unwrap_err(),
        ];
        for refused in again {
            let says = refused.to_string();
            assert!(refused.code() == Code::FailedPrecondition && says.contains("No damage was found"), "{bank}: {says}");
        }
        assert_eq!(folders(&frail.disk("data"), bank), 1, "{bank}");
    }
    client.delete_bank(v1::DeleteBankRequest { name: "deleted".into() }).await.unwrap();
    client.create_bank(wide("deleted", v1::Durability::Always)).await.unwrap();
    goes_on(&client, "deleted", 0, &unharmed).await;
    drop(server);
    let (_server, client) = frail.start().await;
    goes_on(&client, "deleted", 1, &unharmed).await;
    goes_on(&client, "kept", 0, &unharmed).await;
}

/// How a restore into a bank ended for which no thread starts, and what is written to it.
async fn restored(client: &Client, strikes: &Strikes, (bank, n): (&str, u64), unharmed: &[Vec<ScanColumns>]) -> (bool, bool) {
    let strike = order(strikes, n);
    let restored = restore_into(client, "source", "4", bank).await;
    let has_struck = strike.has_struck();
    drop(strike);
    let Err(refused) = restored else {
        goes_on(client, bank, 4, unharmed).await;
        return (has_struck, false);
    };
    assert!(has_struck && refused.code() == Code::ResourceExhausted && refused.to_string().contains(SAYS), "{bank}: {refused}");
    let again = [
        client.create_bank(wide(bank, v1::Durability::Always)).await.map(drop).unwrap_err(),
        client.get_bank(of(bank)).await.map(drop).unwrap_err(),
        write(client, bank, 4).await.map(drop).unwrap_err(),
    ];
    for refused in again {
        let says = refused.to_string();
        assert!(
            refused.code() == Code::FailedPrecondition && says.contains(SAYS) && says.contains("No damage"),
            "{bank}: {says}"
        );
    }
    (has_struck, true)
}

/// A bank that is back on disk, and not served, keeps its name: a restart serves it, and another restore takes its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_bank_for_which_no_thread_starts_keeps_its_name() {
    const WRITTEN: RangeInclusive<u64> = 0..=3;
    let (frail, strikes) = Strikes::quick();
    let (server, client) = frail.start().await;
    let unharmed = unharmed(&client).await;
    client.create_bank(wide("source", v1::Durability::Memory)).await.unwrap();
    for number in WRITTEN {
        write(&client, "source", number).await.unwrap();
    }
    checkpoint(&client, "source", "4").await.unwrap();
    warm(&client).await;
    restore_into(&client, "source", "4", "warm-0").await.unwrap();
    let (mut kept, mut refusals) = (Vec::new(), 0);
    for n in 1.. {
        assert!(n < MANY, "no end of it");
        let mut struck = false;
        for (is_there, is_mended) in [(false, false), (false, true), (true, false), (true, true)] {
            let bank = format!("restored-{n}-{is_there}-{is_mended}");
            if is_there {
                client.create_bank(wide(&bank, v1::Durability::Always)).await.unwrap();
            }
            let (has_struck, is_refused) = restored(&client, &strikes, (&bank, n), &unharmed).await;
            struck |= has_struck;
            refusals += u64::from(is_refused);
            let mut there = if is_refused { 4 } else { 5 };
            if is_refused && is_mended {
                restore_into(&client, "source", "4", &bank).await.unwrap();
                goes_on(&client, &bank, 4, &unharmed).await;
                there = 5;
            }
            assert_eq!(folders(&frail.disk("data"), &bank), 1, "{bank}");
            kept.push((bank, there));
        }
        if !struck {
            break;
        }
    }
    assert!(refusals >= 4 * OF_A_BANK, "{refusals}");
    drop(server);
    let (_server, client) = frail.start().await;
    for (bank, there) in kept {
        goes_on(&client, &bank, there, &unharmed).await;
    }
}
