//! A server that starts on a disk without a free block: it serves what is there, and says what it can't do. `faults.c` is the disk.

use std::fs;

use negbank::client::{Client, ClientError, Code};
use negbank::proto::v1;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::background_sync::status;
use crate::cut::{Bytes, Names};
use crate::durable::seen_of;
use crate::faults::{Frail, WIDE, checkpoint, sequence, wide, write_wide};
use crate::power::{UNSYNCED, has, is_whole};
use crate::probes::{free, get};
use crate::strikes::Strikes;

const FULL: &str = "No space left on device";

/// The banks of these tests, by policy, and the position of the last of `writes` writes to each.
async fn written(client: &Client, writes: u64) -> [(&'static str, Vec<u8>); 2] {
    let mut last = [("always", Vec::new()), ("interval", Vec::new())];
    for ((bank, position), durability) in last.iter_mut().zip([v1::Durability::Always, v1::Durability::Interval]) {
        client.create_bank(wide(bank, durability)).await.unwrap();
        for number in 0..writes {
            *position = write_wide(client, bank, number, 3).await.unwrap().position.to_vec();
        }
    }
    last
}

fn refused_for_room<T: std::fmt::Debug>(what: &str, refused: Result<T, ClientError>) -> String {
    let refused = refused.unwrap_err();
    let says = refused.to_string();
    assert!(refused.code() == Code::FailedPrecondition && says.contains(FULL), "{what}: {says}");
    says
}

/// No write is taken, nor acknowledged as one that was taken before.
async fn takes_no_writes(client: &Client, bank: &str, there: u64) {
    for number in there.saturating_sub(1)..=there {
        let says = refused_for_room(bank, write_wide(client, bank, number, 3).await);
        assert!(says.contains(&format!("bank {bank} takes no writes")) && says.contains("make room on the disk"), "{says}");
    }
    assert_eq!(sequence(client, bank).await, there, "{bank}: nothing of it is seen");
}

/// Where it has come, as a scan tells.
async fn position(client: &Client, bank: &str) -> Vec<u8> {
    let mut scan = client.scan(v1::ScanRequest { bank: bank.into(), ..Default::default() }).await.unwrap();
    scan.next().await.unwrap().unwrap().position.to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_starts_on_a_full_disk_and_what_is_whole_is_read() {
    let frail = Frail::new();
    let (server, client) = frail.start_with(&UNSYNCED).await;
    let last = written(&client, 4).await;
    client.create_bank(wide("spare", v1::Durability::Always)).await.unwrap();
    let mut before = Vec::new();
    for (bank, _) in &last {
        before.push(seen_of(&client, bank, WIDE as usize).await);
    }
    // Killed: what the bank of policy interval has is in the page cache, and no mark tells of it.
    drop(server);
    frail.fail("full", true);

    let http = free();
    let listen = format!("http.listen={http}");
    let settings = [UNSYNCED[0], listen.as_str()];
    for life in 0..2 {
        let (server, client) = frail.start_with(&settings).await;
        for ((bank, position), before) in last.iter().zip(&before) {
            assert!(seen_of(&client, bank, WIDE as usize).await == *before, "{bank}, life {life}");
            has(&client, bank, position).await.unwrap();
            assert!(!is_whole(&client, bank, position).await.unwrap(), "{bank}, life {life}: it is the bank that it was");
            takes_no_writes(&client, bank, 4).await;
        }
        refused_for_room("create", client.create_bank(wide("new", v1::Durability::Always)).await);
        refused_for_room("checkpoint", checkpoint(&client, "always", "1").await);
        client.create_bank(wide("memory", v1::Durability::Memory)).await.unwrap();
        write_wide(&client, "memory", 0, 3).await.unwrap();
        let (code, text) = get(http, "/readyz");
        assert_eq!(code, 200, "{text}");
        for (bank, _) in &last {
            let told = format!("bank {bank} takes no more writes: there was no room to go on with its log");
            assert!(text.lines().any(|line| line.starts_with(&told) && line.contains(FULL)), "{text}");
        }
        status(&server, "negbank.v1.Banks", ServingStatus::NotServing).await;
        // Reads go on.
        status(&server, "negbank.v1.Sampling", ServingStatus::Serving).await;
        if life == 0 {
            // That is how there is room again.
            client.delete_bank(v1::DeleteBankRequest { name: "spare".into() }).await.unwrap();
        }
        drop(client);
        let (code, log) = server.ended_by("-TERM").await;
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("the file does not tell by which process"), "{log}");
    }
    frail.fail("full", false);

    let (server, client) = frail.start_with(&UNSYNCED).await;
    let held = fs::read_to_string(frail.disk("data").join("lock")).unwrap();
    assert!(held.trim().parse::<u32>().is_ok(), "{held:?}");
    for ((bank, position), before) in last.iter().zip(&before) {
        assert!(seen_of(&client, bank, WIDE as usize).await == *before, "{bank}");
        let next = write_wide(&client, bank, 4, 3).await.unwrap().position;
        assert_eq!(next[..8], position[..8], "{bank}: the same bank goes on");
    }
    let gone = client.get_bank(v1::GetBankRequest { name: "spare".into() }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    drop(server);
}

/// What may have lost writes, and can't write down that it is another bank since, is another in each life until there is room: a position
/// of one of them is never honoured for another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_lost_writes_is_read_on_a_full_disk_as_a_bank_of_this_life() {
    let frail = Frail::powered(&["data", "checkpoints"]);
    let (server, client) = frail.start_with(&UNSYNCED).await;
    let kept = written(&client, 3).await;
    drop(server);
    // Opened, it is synced.
    let (server, client) = frail.start_with(&UNSYNCED).await;
    let lost = write_wide(&client, "interval", 3, 3).await.unwrap().position.to_vec();
    frail.cut(server, Bytes::Gone, Names::AsSynced);
    frail.fail("full", true);

    let mut passing: Vec<Vec<u8>> = Vec::new();
    for life in 0..2 {
        let (_server, client) = frail.start_with(&UNSYNCED).await;
        for (bank, position) in &kept {
            assert_eq!(sequence(&client, bank).await, 3, "{bank}");
            has(&client, bank, position).await.unwrap();
            takes_no_writes(&client, bank, 3).await;
        }
        let refused = has(&client, "interval", &lost).await.unwrap_err();
        assert!(refused.contains("from write 3 of that history"), "{refused}");
        for earlier in &passing {
            has(&client, "interval", earlier).await.unwrap_err();
        }
        let now = position(&client, "interval").await;
        assert_ne!(now[..8], kept[1].1[..8], "life {life}");
        has(&client, "interval", &now).await.unwrap();
        passing.push(now);
    }
    frail.fail("full", false);

    let (_server, client) = frail.start_with(&UNSYNCED).await;
    let next = write_wide(&client, "interval", 4, 3).await.unwrap().position.to_vec();
    has(&client, "interval", &kept[1].1).await.unwrap();
    for gone in passing.iter().chain([&lost]) {
        has(&client, "interval", gone).await.unwrap_err();
        assert_ne!(next[..8], gone[..8]);
    }
    let same = write_wide(&client, "always", 3, 3).await.unwrap().position;
    assert_eq!(same[..8], kept[0].1[..8], "it lost nothing");
}

/// The disk is full while the server writes, and still when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn banks_whose_logs_met_a_full_disk_are_read_after_the_restart() {
    let (frail, strikes) = Strikes::on(Frail::new());
    let (server, client) = frail.start_with(&UNSYNCED).await;
    let last = written(&client, 4).await;
    for (bank, _) in &last {
        // Half of the record is there, and the mark can tell that the log has failed: that is written in its place.
        let strike = strikes.order(("write", "half"), 1, &format!("/{bank}@"));
        refused_for_room(bank, write_wide(&client, bank, 4, 3).await);
        assert!(strike.has_struck());
    }
    let mut before = Vec::new();
    for (bank, _) in &last {
        before.push(seen_of(&client, bank, WIDE as usize).await);
    }
    drop(server);
    frail.fail("full", true);
    let (server, client) = frail.start_with(&UNSYNCED).await;
    for ((bank, position), before) in last.iter().zip(&before) {
        assert!(seen_of(&client, bank, WIDE as usize).await.1 == before.1, "{bank}");
        has(&client, bank, position).await.unwrap();
        takes_no_writes(&client, bank, 4).await;
    }
    let log = server.killed();
    assert_eq!(log.matches("was not written whole and was dropped").count(), 2, "{log}");
    frail.fail("full", false);
    let (_server, client) = frail.start_with(&UNSYNCED).await;
    for ((bank, position), before) in last.iter().zip(&before) {
        assert!(seen_of(&client, bank, WIDE as usize).await.1 == before.1, "{bank}");
        has(&client, bank, position).await.unwrap();
        assert!(!write_wide(&client, bank, 4, 3).await.unwrap().duplicate, "{bank}");
    }
}

/// A record of policy always that nobody was answered, and which a power cut may yet take, is read as of a bank of this life.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_acknowledged_is_not_promised_on_a_full_disk_either() {
    let frail = Frail::powered(&["data", "checkpoints"]);
    let (server, client) = frail.start_with(&UNSYNCED).await;
    let [(bank, kept), _] = written(&client, 3).await;
    frail.fail("sync", true);
    write_wide(&client, bank, 3, 3).await.unwrap_err();
    frail.fail("sync", false);
    drop(server);
    frail.fail("full", true);
    let (server, client) = frail.start_with(&UNSYNCED).await;
    assert_eq!(sequence(&client, bank).await, 4, "the page cache has it");
    takes_no_writes(&client, bank, 4).await;
    has(&client, bank, &kept).await.unwrap();
    let passing = position(&client, bank).await;
    assert_ne!(passing[..8], kept[..8]);
    // After which there is room.
    frail.cut(server, Bytes::Gone, Names::AsSynced);
    let (_server, client) = frail.start_with(&UNSYNCED).await;
    assert_eq!(sequence(&client, bank).await, 3, "it was not acknowledged");
    let next = write_wide(&client, bank, 7, 3).await.unwrap().position;
    assert_eq!(next[..8], kept[..8], "what was acknowledged is there, so it is the same bank");
    has(&client, bank, &kept).await.unwrap();
    has(&client, bank, &passing).await.unwrap_err();
}
