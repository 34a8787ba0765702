//! The power goes: what was not synced is not there, neither bytes nor names. What was acknowledged is.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use negbank::client::{Client, Code};
use negbank::model::clock;
use negbank::proto::v1;
use tokio::task::JoinHandle;

use crate::cut::{Bytes, Names};
use crate::durable::seen_of;
use crate::faults::{Frail, WIDE, checkpoint, listed, restore_into, sequence, wide, write_wide};

const INTERVAL: Duration = Duration::from_millis(200);
/// For threads that come late because others have the machine.
const SLACK: Duration = Duration::from_millis(500);

/// What was acknowledged longer ago is not lost: a sync may have to wait for one before it, and for one that begins a file.
fn bound(longest_sync: Duration) -> Duration {
    INTERVAL + SLACK + longest_sync * 3
}

const SETTINGS: [&str; 3] =
    ["durability.interval_ms=200", "durability.segment_bytes=2000000", "durability.snapshot_log_bytes=6000000"];

/// One in eight is large.
fn rows_of(number: u64) -> u64 {
    if number % 8 == 5 { 512 } else { number % 3 + 1 }
}

/// Writes until the server is gone; tells when each was acknowledged.
fn keep_writing(client: &Client, bank: &'static str, from: u64) -> JoinHandle<Vec<Instant>> {
    let client = client.clone();
    tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        for number in from.. {
            match write_wide(&client, bank, number, rows_of(number)).await {
                Ok(_) => acknowledged.push(clock::now()),
                Err(gone) if gone.code() != Code::FailedPrecondition => break,
                Err(refused) => panic!("{bank}: {refused}"),
            }
        }
        acknowledged
    })
}

/// Makes checkpoints of the bank `interval` until the server is gone; tells tag and sequence of those that it answered.
fn keep_checkpointing(client: &Client, round: usize) -> JoinHandle<Vec<(String, u64)>> {
    let client = client.clone();
    tokio::spawn(async move {
        let mut made = Vec::new();
        for number in 0.. {
            let replace = number % 3 == 2;
            let tag = if replace { "latest".to_owned() } else { format!("{round}-{number}") };
            let request = v1::CreateCheckpointRequest { bank: "interval".into(), tag, replace, ..Default::default() };
            let Ok(running) = client.create_checkpoint(request).await else { break };
            match running.done().await {
                Ok(done) => made.extend(done.checkpoint.map(|made| (made.tag, made.sequence))),
                Err(gone) if gone.code() != Code::FailedPrecondition => break,
                Err(refused) => panic!("{refused}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        made
    })
}

/// What was answered is listed, and what is listed is whole.
async fn check_checkpoints(client: &Client, answered: &HashMap<String, u64>, checked: &mut HashMap<String, u64>) {
    let listed = listed(client).await;
    for (tag, sequence) in answered {
        let found = listed.iter().find(|made| made.tag == *tag).unwrap_or_else(|| panic!("{tag} is lost"));
        // One that replaces it may have been made and not answered.
        assert!(found.sequence == *sequence || (tag == "latest" && found.sequence > *sequence), "{tag}: {found:?}");
    }
    for made in listed {
        if checked.insert(made.tag.clone(), made.sequence) != Some(made.sequence) {
            let restored = restore_into(client, "interval", &made.tag, "restored").await.unwrap();
            assert_eq!((restored.sequence, restored.entries), (made.sequence, made.entries), "{}", made.tag);
        }
    }
    client.delete_bank(v1::DeleteBankRequest { name: "restored".into() }).await.unwrap();
}

/// What may be lost is what the policy says: nothing, what is younger than the interval, or everything; and never anything in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_power_cut_takes_is_what_the_policy_says() {
    let frail = Frail::powered(&["data", "checkpoints"]);
    let (mut server, mut client) = frail.start_with(&SETTINGS).await;
    for (name, durability) in [("always", v1::Durability::Always), ("interval", v1::Durability::Interval)] {
        client.create_bank(wide(name, durability)).await.unwrap();
    }
    let (mut safe, mut lost, mut written) = (0, 0, 0);
    let (mut answered, mut checked) = (HashMap::new(), HashMap::new());
    let cuts = [
        (Bytes::Gone, Names::AsSynced),
        (Bytes::Half, Names::AsSynced),
        (Bytes::Gone, Names::AsTheyAre),
        (Bytes::Zeros, Names::AsSynced),
        (Bytes::Half, Names::AsTheyAre),
    ];
    for (round, (bytes, names)) in cuts.into_iter().enumerate() {
        client.create_bank(wide("memory", v1::Durability::Memory)).await.unwrap();
        write_wide(&client, "memory", 0, 3).await.unwrap();
        let writing = [keep_writing(&client, "always", written), keep_writing(&client, "interval", written)];
        let checkpointing = keep_checkpointing(&client, round);
        let begun = clock::now();
        while begun.elapsed() < bound(frail.longest_sync()) * 3 / 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(writing.iter().all(|writes| !writes.is_finished()) && !checkpointing.is_finished());
        let cut = frail.cut(server, bytes, names);
        assert!(!cut.log.contains("is not listed"), "{}", cut.log);
        let [always, interval] = writing;
        let (always, interval) = (written + always.await.unwrap().len() as u64, interval.await.unwrap());
        answered.extend(checkpointing.await.unwrap());

        (server, client) = frail.start_with(&SETTINGS).await;
        // One write may be there that nobody was told of.
        let kept_always = sequence(&client, "always").await;
        assert!(
            (always..=always + 1).contains(&kept_always),
            "{bytes:?}, {names:?}: {kept_always}, and {always} are acknowledged"
        );
        let old = interval.iter().filter(|&&acknowledged| cut.at - acknowledged > bound(cut.longest_sync)).count() as u64;
        let (kept, all) = (sequence(&client, "interval").await, written + interval.len() as u64);
        assert!(
            (written + old..=all + 1).contains(&kept),
            "{bytes:?}, {names:?}: {kept} of {written} + {old} + younger ones = {all}"
        );
        (safe, lost) = (safe + old, lost + all.saturating_sub(kept));
        let gone = client.get_bank(v1::GetBankRequest { name: "memory".into() }).await.unwrap_err();
        assert_eq!(gone.code(), Code::NotFound);
        check_checkpoints(&client, &answered, &mut checked).await;
        // It is the bank that the first so many writes make: the others come again, and it is the one that lost nothing.
        written = kept_always.max(kept);
        for (bank, kept) in [("always", kept_always), ("interval", kept)] {
            for number in kept..written {
                assert!(!write_wide(&client, bank, number, rows_of(number)).await.unwrap().duplicate);
            }
        }
        let [always, interval] = [seen_of(&client, "always", 256).await, seen_of(&client, "interval", 256).await];
        assert!(always.1 == interval.1, "{bytes:?}, {names:?}: a write in the middle is missing");
    }
    assert!(safe > 0 && lost > 0, "safe {safe}, lost {lost}");
    assert!(answered.len() > 5, "{answered:?}");
}

/// The last write is synced though none follows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_interval_nothing_can_be_lost() {
    let frail = Frail::powered(&["data", "checkpoints"]);
    let (mut server, mut client) = frail.start_with(&SETTINGS).await;
    client.create_bank(wide("b", v1::Durability::Interval)).await.unwrap();
    let (mut number, mut padded) = (0, 0);
    for counts in [&[2][..], &[512], &[512, 1], &[3, 600, 512]] {
        for &count in counts {
            write_wide(&client, "b", number, count).await.unwrap();
            number += 1;
        }
        let (before, last) = (seen_of(&client, "b", WIDE as usize).await, clock::now());
        while last.elapsed() < bound(frail.longest_sync()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        frail.cut(server, Bytes::Gone, Names::AsSynced);
        padded += frail.padded_logs();
        (server, client) = frail.start_with(&SETTINGS).await;
        assert!(seen_of(&client, "b", WIDE as usize).await == before, "{counts:?}");
    }
    assert!(padded > 0, "no log ended in a block that was not filled");
}

/// A data folder is as durable as what is in it, also where the server made it and the folders above it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_data_folder_is_there_after_a_cut() {
    let frail = Frail::powered(&["checkpoints"]);
    let (server, client) = frail.start_at("new/data/of/banks", "checkpoints", &SETTINGS).await;
    client.create_bank(wide("b", v1::Durability::Always)).await.unwrap();
    write_wide(&client, "b", 0, 3).await.unwrap();
    frail.cut(server, Bytes::Gone, Names::AsSynced);
    assert!(frail.disk("new/data/of/banks").exists(), "what was acknowledged is lost with the folder");
    let (_server, client) = frail.start_at("new/data/of/banks", "checkpoints", &SETTINGS).await;
    assert_eq!(sequence(&client, "b").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_location_is_there_after_a_cut() {
    let frail = Frail::powered(&["data"]);
    let (server, client) = frail.start_at("data", "new/place/of/checkpoints", &SETTINGS).await;
    client.create_bank(wide("b", v1::Durability::Always)).await.unwrap();
    write_wide(&client, "b", 0, 3).await.unwrap();
    checkpoint(&client, "b", "1").await.unwrap();
    frail.cut(server, Bytes::Gone, Names::AsSynced);
    assert!(frail.disk("new/place/of/checkpoints").exists(), "what was acknowledged is lost with the folder");
    let (_server, client) = frail.start_at("data", "new/place/of/checkpoints", &SETTINGS).await;
    assert_eq!(restore_into(&client, "b", "1", "c").await.unwrap().sequence, 1);
}

/// What was answered as deleted does not come back: neither a checkpoint, nor half of one, nor a bank.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_stays_deleted_after_a_cut() {
    for names in [Names::AsSynced, Names::OnlyManifestsBack, Names::AsTheyAre] {
        let frail = Frail::powered(&["data", "checkpoints"]);
        let (server, client) = frail.start_with(&SETTINGS).await;
        for bank in ["b", "gone"] {
            client.create_bank(wide(bank, v1::Durability::Always)).await.unwrap();
            write_wide(&client, bank, 0, 3).await.unwrap();
            checkpoint(&client, bank, "kept").await.unwrap();
            checkpoint(&client, bank, "gone").await.unwrap();
        }
        client.delete_bank(v1::DeleteBankRequest { name: "gone".into() }).await.unwrap();
        for bank in ["b", "gone"] {
            let request = v1::DeleteCheckpointRequest { bank: bank.into(), tag: "gone".into() };
            client.delete_checkpoint(request).await.unwrap();
        }
        frail.cut(server, Bytes::Gone, names);
        let (_server, client) = frail.start_with(&SETTINGS).await;
        let there = listed(&client).await;
        let tags: Vec<_> = there.iter().map(|made| (made.bank.as_str(), made.tag.as_str())).collect();
        let expected = [("b", "kept"), ("gone", "kept")];
        assert_eq!(tags, expected, "{names:?}");
        for (bank, tag) in expected {
            assert_eq!(restore_into(&client, bank, tag, "restored").await.unwrap().sequence, 1);
        }
        let gone = client.get_bank(v1::GetBankRequest { name: "gone".into() }).await.unwrap_err();
        assert_eq!(gone.code(), Code::NotFound, "{names:?}");
    }
}

/// A bank that was restored over another is the restored one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_bank_stays_restored_after_a_cut() {
    for names in [Names::AsSynced, Names::OnlyManifestsBack, Names::AsTheyAre] {
        let frail = Frail::powered(&["data", "checkpoints"]);
        let (server, client) = frail.start_with(&SETTINGS).await;
        client.create_bank(wide("b", v1::Durability::Always)).await.unwrap();
        write_wide(&client, "b", 0, 300).await.unwrap();
        checkpoint(&client, "b", "1").await.unwrap();
        write_wide(&client, "b", 1, 512).await.unwrap();
        restore_into(&client, "b", "1", "").await.unwrap();
        write_wide(&client, "b", 1, 2).await.unwrap();
        let before = seen_of(&client, "b", WIDE as usize).await;
        frail.cut(server, Bytes::Gone, names);
        let (_server, client) = frail.start_with(&SETTINGS).await;
        assert!(seen_of(&client, "b", WIDE as usize).await == before, "{names:?}");
    }
}
