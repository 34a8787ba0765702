//! The power goes: what was not synced is not there, neither bytes nor names. What was acknowledged is.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use negbank::client::{Client, ClientError, Code};
use negbank::model::clock;
use negbank::proto::v1;
use tokio::task::JoinHandle;

use crate::cut::{Bytes, Names};
use crate::durable::{logs, seen_of};
use crate::faults::{Frail, WIDE, checkpoint, listed, restore_into, sequence, wide, write_wide};

const INTERVAL: Duration = Duration::from_secs(1);
/// For threads that come late because others have the machine.
const SLACK: Duration = Duration::from_millis(500);

/// What was acknowledged longer ago is not lost: the interval, or on a slow disk a sync, the one before it, and one that begins a file.
fn bound(longest_sync: Duration) -> Duration {
    INTERVAL.max(longest_sync * 3) + SLACK
}

const SETTINGS: [&str; 3] =
    ["durability.interval_ms=1000", "durability.segment_bytes=2000000", "durability.snapshot_log_bytes=6000000"];

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

/// Makes checkpoints of the bank `interval` until the server is gone; tells tag and sequence of those that it answered. Where no file gets a
/// name they are copied, and their manifests must replace.
fn keep_checkpointing(client: &Client, (round, is_copied): (usize, bool)) -> JoinHandle<Vec<(String, u64)>> {
    let client = client.clone();
    tokio::spawn(async move {
        let mut made = Vec::new();
        for number in 0.. {
            let again = number % 3 == 2;
            let tag = if again { "latest".to_owned() } else { format!("{round}-{number}") };
            let replace = again || is_copied;
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

async fn lost_after(client: &Client, bank: &str) -> Option<u64> {
    client.get_bank(v1::GetBankRequest { name: bank.into() }).await.unwrap().lost_after
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
        (Bytes::Holes, Names::AsSynced),
    ];
    for (round, (bytes, names)) in cuts.into_iter().enumerate() {
        client.create_bank(wide("memory", v1::Durability::Memory)).await.unwrap();
        write_wide(&client, "memory", 0, 3).await.unwrap();
        let writing = [keep_writing(&client, "always", written), keep_writing(&client, "interval", written)];
        let is_copied = round % 2 == 1;
        // A cut takes it back.
        if is_copied {
            frail.fail("links", true);
        }
        let checkpointing = keep_checkpointing(&client, (round, is_copied));
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
        // A bank says where it went on; one that can have lost nothing says nothing.
        let told = [lost_after(&client, "always").await, lost_after(&client, "interval").await];
        assert_eq!(told, [None, Some(kept)], "{bytes:?}, {names:?}");
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

/// No sync is due while a test lasts.
pub(crate) const UNSYNCED: [&str; 1] = ["durability.interval_ms=600000"];

/// Writes from number `from` on, so many.
async fn write_all(client: &Client, bank: &str, from: u64, count: u64) {
    for number in from..from + count {
        assert!(!write_wide(client, bank, number, rows_of(number)).await.unwrap().duplicate);
    }
}

/// A cut that loses pages and keeps later ones costs what was not synced, from the first of them on, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_are_lost_before_others_cost_what_was_not_synced() {
    let frail = Frail::powered(&["data", "checkpoints"]);
    let (mut server, mut client) = frail.start_with(&UNSYNCED).await;
    client.create_bank(wide("b", v1::Durability::Interval)).await.unwrap();
    write_all(&client, "b", 0, 8).await;
    drop(server);
    (server, client) = frail.start_with(&UNSYNCED).await;
    assert_eq!(lost_after(&client, "b").await, None, "a killed server has lost nothing");
    let (mut synced, mut lost) = (8, 0);
    for names in [Names::AsSynced, Names::AsTheyAre, Names::AsSynced] {
        write_all(&client, "b", synced, 24).await;
        frail.cut(server, Bytes::Holes, names);
        (server, client) = frail.start_with(&UNSYNCED).await;
        let kept = sequence(&client, "b").await;
        assert_eq!(lost_after(&client, "b").await, Some(kept));
        assert!((synced..synced + 24).contains(&kept), "{kept} of {synced} + 24");
        client.create_bank(wide("same", v1::Durability::Memory)).await.unwrap();
        write_all(&client, "same", 0, kept).await;
        let [there, expected] = [seen_of(&client, "b", 256).await, seen_of(&client, "same", 256).await];
        assert!(there.1 == expected.1, "{kept}: not what was written first");
        (lost, synced) = (lost + synced + 24 - kept, kept);
        // It was synced when it was opened: another cut takes nothing.
        let log = frail.cut(server, Bytes::Holes, Names::AsSynced).log;
        assert!(log.contains("nothing of it was known to be on disk when the power went"), "{log}");
        (server, client) = frail.start_with(&UNSYNCED).await;
        assert!(seen_of(&client, "b", 256).await.1 == there.1, "{kept}");
    }
    assert!(lost > 24, "{lost}");
}

/// Where the frames of a log's file end.
fn ends(file: &[u8]) -> Vec<usize> {
    let (mut ends, mut at) = (Vec::new(), 0);
    while let Some(header) = file.get(at..at + 48).filter(|header| header.starts_with(b"nbf")) {
        let length = u64::from_le_bytes(header[8..16].try_into().unwrap()) as usize;
        at += if header[3] == b'2' { 48 } else { 32 } + length.next_multiple_of(8);
        ends.push(at);
    }
    ends
}

/// What was synced and is not there, or has a hole, is no end of a write: whether the process was killed or the power went.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_synced_and_is_missing_refuses_the_bank() {
    for durability in [v1::Durability::Always, v1::Durability::Interval] {
        let frail = Frail::powered(&["data", "checkpoints"]);
        let (mut server, mut client) = frail.start_with(&UNSYNCED).await;
        client.create_bank(wide("b", durability)).await.unwrap();
        write_all(&client, "b", 0, 5).await;
        if durability == v1::Durability::Interval {
            // Opened, it is synced.
            drop(server);
            (server, client) = frail.start_with(&UNSYNCED).await;
        }
        let before = seen_of(&client, "b", WIDE as usize).await;
        drop(server);
        let path = logs(&frail.disk("data"), "b").pop().unwrap();
        let whole = fs::read(&path).unwrap();
        let ends = ends(&whole);
        assert_eq!(ends.len(), 6);
        // At the end of a record, within one, in the head, and a hole in one before the last.
        let mut damaged: Vec<(usize, Vec<u8>)> =
            [ends[4], ends[2], ends[4] + 50, 20].map(|len| (len, whole[..len].to_vec())).into();
        damaged.push((ends[3] + 100, [&whole[..ends[3] + 100], &[0; 300], &whole[ends[3] + 400..]].concat()));
        for (at, content) in damaged {
            fs::write(&path, &content).unwrap();
            let (server, client) = frail.start_with(&UNSYNCED).await;
            let refused = client.get_bank(v1::GetBankRequest { name: "b".into() }).await.unwrap_err();
            let text = refused.to_string();
            assert!(refused.code() == Code::DataLoss && text.contains(path.to_str().unwrap()), "{at}: {text}");
            let offset = text.split("at byte ").nth(1).and_then(|rest| rest.split(':').next()).unwrap();
            assert!(offset.parse::<usize>().unwrap() <= at, "{at}: {text}");
            assert!(text.contains("bytes of the file were on disk"), "{at}: {text}");
            assert!(fs::read(&path).unwrap() == content, "a refused file is left alone");
            drop(server);
        }
        fs::remove_file(&path).unwrap();
        let (server, client) = frail.start_with(&UNSYNCED).await;
        let refused = client.get_bank(v1::GetBankRequest { name: "b".into() }).await.unwrap_err();
        assert!(refused.code() == Code::DataLoss && refused.to_string().contains("no file of the log"), "{refused}");
        drop(server);
        fs::write(&path, &whole).unwrap();
        let (_server, client) = frail.start_with(&UNSYNCED).await;
        assert!(seen_of(&client, "b", WIDE as usize).await == before);
    }
}

/// Whether the bank has what a position tells of; else why not.
pub(crate) async fn has(client: &Client, bank: &str, position: &[u8]) -> Result<(), String> {
    let at_least = position.to_vec().into();
    let request = v1::FetchRequest { bank: bank.into(), ids: vec![1], at_least, ..Default::default() };
    let fetched = client.fetch(request).await;
    fetched.map(|_| ()).map_err(|refused| {
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        refused.to_string()
    })
}

/// True if a scan of what changed since a position sends the whole bank.
pub(crate) async fn is_whole(client: &Client, bank: &str, since: &[u8]) -> Result<bool, ClientError> {
    let request = v1::ScanRequest { bank: bank.into(), since: since.to_vec().into(), ..Default::default() };
    let mut scan = client.scan(request).await?;
    let mut whole = false;
    while let Some(chunk) = scan.next().await? {
        whole |= chunk.whole;
    }
    Ok(whole)
}

/// A sequence that was lost is given to another write: whoever holds the position of the first does not get the second, but an error. What
/// was not lost is honoured, and where nothing can be lost nothing changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_of_lost_writes_are_refused_and_the_others_hold() {
    let frail = Frail::powered(&["data", "checkpoints"]);
    let (mut server, mut client) = frail.start_with(&UNSYNCED).await;
    let banks = ["always", "interval"];
    for (name, durability) in banks.into_iter().zip([v1::Durability::Always, v1::Durability::Interval]) {
        client.create_bank(wide(name, durability)).await.unwrap();
    }
    let write = async |client: &Client, number: u64| {
        let mut positions = Vec::new();
        for bank in banks {
            positions.push(write_wide(client, bank, number, 3).await.unwrap().position.to_vec());
        }
        <[Vec<u8>; 2]>::try_from(positions).unwrap()
    };
    let first = write(&client, 0).await;
    // The process is killed: nothing is lost, and nothing changes.
    drop(server);
    (server, client) = frail.start_with(&UNSYNCED).await;
    let second = write(&client, 1).await;
    for (before, after) in first.iter().zip(&second) {
        assert_eq!(before[..8], after[..8], "a killed server's bank is the same");
    }
    for (bank, position) in banks.iter().zip(&first) {
        assert!(!is_whole(&client, bank, position).await.unwrap(), "{bank}");
    }
    drop(server);
    (server, client) = frail.start_with(&UNSYNCED).await;
    let lost = write(&client, 2).await;
    frail.cut(server, Bytes::Gone, Names::AsSynced);
    (server, client) = frail.start_with(&UNSYNCED).await;
    assert_eq!((sequence(&client, "always").await, sequence(&client, "interval").await), (3, 2));
    let other = write(&client, 3).await;
    assert!(
        lost[0][..8] == other[0][..8] && lost[1][..8] != other[1][..8],
        "only what may have lost something is another bank"
    );
    for life in 0..3 {
        has(&client, "always", &lost[0]).await.unwrap();
        has(&client, "interval", &second[1]).await.unwrap();
        has(&client, "interval", &other[1]).await.unwrap();
        let refused = has(&client, "interval", &lost[1]).await.unwrap_err();
        assert!(refused.contains("from write 2 of that history") && refused.contains("not synced"), "{refused}");
        let refused = is_whole(&client, "interval", &lost[1]).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        // Who followed it to there may have read what was lost.
        assert!(is_whole(&client, "interval", &second[1]).await.unwrap());
        if life == 0 {
            drop(server);
            (server, client) = frail.start_with(&UNSYNCED).await;
        } else if life == 1 {
            // It ends by itself, and the system after it.
            server.signal("-TERM");
            assert_eq!(server.exit_code(), Some(0));
            frail.reboot();
            (server, client) = frail.start_with(&UNSYNCED).await;
        }
    }
    let last = write(&client, 4).await;
    for (bank, (before, after)) in banks.iter().zip(other.iter().zip(&last)) {
        assert_eq!(before[..8], after[..8], "{bank}: what ended by itself is the same");
    }
    // Of the writes after it one may be lost again.
    frail.cut(server, Bytes::Gone, Names::AsSynced);
    let (_server, client) = frail.start_with(&UNSYNCED).await;
    let refused = has(&client, "interval", &last[1]).await.unwrap_err();
    assert!(refused.contains("from write 3 of that history"), "{refused}");
    for position in [&second[1], &other[1]] {
        has(&client, "interval", position).await.unwrap();
    }
    has(&client, "interval", &lost[1]).await.unwrap_err();
    has(&client, "always", &last[0]).await.unwrap();
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
        let (bank, rows, answers) = seen_of(&client, "b", WIDE as usize).await;
        // Nobody knows that nothing is missing, but whoever wrote is told that all of it is there.
        assert_eq!(bank.lost_after, Some(number), "{counts:?}");
        assert!((v1::Bank { lost_after: before.0.lost_after, ..bank }, rows, answers) == before, "{counts:?}");
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
