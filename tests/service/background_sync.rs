//! Syncs of policy interval, which nobody waits for, on a disk that fails one of them: whatever comes then, what was on disk is there, and
//! what may be lost is promised to nobody.

use std::fs;
use std::time::{Duration, Instant};

use negbank::client::{Client, Code};
use negbank::model::clock;
use negbank::proto::v1;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::cut::{Bytes, Names};
use crate::durable::{bank_folder, seen_of};
use crate::faults::{Frail, WIDE, sequence, wide, write_wide};
use crate::lifecycle::{Process, channel};
use crate::power::{has, is_whole};
use crate::probes::{free, get, value};
use crate::strikes::Strikes;

const INTERVAL: &str = "durability.interval_ms=100";
const SOON: Duration = Duration::from_secs(20);

/// How a server ends whose bank takes no more writes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// The system goes on, and has all that was written in its page cache.
    Killed,
    /// It ends by itself, which is to sync what it can.
    Drained,
    /// The power goes.
    Cut,
}

/// True if the mark tells that all of the log is on disk.
fn is_marked(frail: &Frail) -> bool {
    let folder = bank_folder(&frail.disk("data"), "b");
    let mark = fs::read(folder.join("synced")).unwrap();
    let long = |at: usize| u64::from_le_bytes(mark[at..at + 8].try_into().unwrap());
    fs::metadata(folder.join(format!("log-{:020}", long(24)))).is_ok_and(|log| log.len() == long(32))
}

async fn until_synced(frail: &Frail) {
    let began = clock::now();
    while !is_marked(frail) {
        assert!(began.elapsed() < SOON, "no sync was made");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Writes from number `from` on until one is refused; the positions of those that were acknowledged, and what the refused one was told.
async fn write_until_refused(client: &Client, from: u64) -> (Vec<Vec<u8>>, String) {
    let (mut positions, began) = (Vec::new(), clock::now());
    loop {
        match write_wide(client, "b", from + positions.len() as u64, 3).await {
            Ok(written) => positions.push(written.position.to_vec()),
            Err(refused) => {
                assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
                return (positions, refused.to_string());
            }
        }
        assert!(began.elapsed() < SOON, "no sync was made");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Health follows.
pub(crate) async fn status(server: &Process, service: &str, wanted: ServingStatus) {
    let mut health = HealthClient::new(channel(&server.address).await);
    let began: Instant = clock::now();
    loop {
        let told = health.check(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner().status();
        if told == wanted {
            return;
        }
        assert!(began.elapsed() < SOON, "{service:?} is {told:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The bank is the one that the first so many writes make.
async fn is_the_first(client: &Client, count: u64, what: &str) {
    client.create_bank(wide("same", v1::Durability::Memory)).await.unwrap();
    for number in 0..count {
        write_wide(client, "same", number, 3).await.unwrap();
    }
    let [there, expected] = [seen_of(client, "b", WIDE as usize).await, seen_of(client, "same", WIDE as usize).await];
    assert!(there.1 == expected.1, "{what}: not what the first {count} writes make");
    client.delete_bank(v1::DeleteBankRequest { name: "same".into() }).await.unwrap();
}

/// After so many syncs that were made one fails, as `how` says.
async fn fail_one_of(rounds: u64, how: &'static str, end: End) {
    let what = format!("after {rounds} syncs one fails ({how}), {end:?}");
    let (frail, strikes) = Strikes::on(Frail::powered(&["data", "checkpoints"]));
    let http = free();
    let listen = format!("http.listen={http}");
    let settings = [INTERVAL, listen.as_str()];
    let (server, client) = frail.start_with(&settings).await;
    for (name, durability) in [("b", v1::Durability::Interval), ("other", v1::Durability::Always)] {
        client.create_bank(wide(name, durability)).await.unwrap();
    }
    let mut kept = Vec::new();
    for _ in 0..rounds {
        for _ in 0..3 {
            kept.push(write_wide(&client, "b", kept.len() as u64, 3).await.unwrap().position.to_vec());
        }
        until_synced(&frail).await;
    }
    let strike = strikes.order(("sync", how), 1, "/b@");
    let synced = kept.len() as u64;
    let (unsynced, refused) = write_until_refused(&client, synced).await;
    assert!(
        strike.has_struck() && refused.contains("cannot sync") && refused.contains("Input/output error"),
        "{what}: {refused}"
    );
    assert!(refused.contains("bank b takes no more writes until the server is restarted"), "{what}: {refused}");
    let acknowledged = synced + unsynced.len() as u64;
    assert!(acknowledged > synced, "{what}: the first write waits for no sync");
    drop(strike);

    // The disk is well again, and what it holds is not known.
    write_wide(&client, "b", acknowledged, 3).await.unwrap_err();
    assert_eq!(sequence(&client, "b").await, acknowledged, "{what}: reads go on");
    is_the_first(&client, acknowledged, &what).await;
    write_wide(&client, "other", 0, 3).await.unwrap();
    status(&server, "negbank.v1.Banks", ServingStatus::NotServing).await;
    status(&server, "", ServingStatus::Serving).await;
    let text = get(http, "/readyz").1;
    assert!(text.contains("bank b takes no more writes: its log has failed: cannot sync"), "{what}: {text}");
    assert!((value(&get(http, "/metrics").1, "negbank_log_failed") - 1.0).abs() < 1e-9, "{what}");
    drop(client);
    match end {
        End::Killed => drop(server),
        End::Drained => {
            let (code, log) = server.ended_by("-TERM").await;
            let told = log.lines().any(|line| line.contains("could not be synced at the end") && line.contains("bank b takes"));
            assert!(code == Some(1) && told && !log.contains("bank other takes"), "{what}: {code:?}, {log}");
        }
        End::Cut => drop(frail.cut(server, Bytes::Gone, Names::AsSynced)),
    }

    let (server, client) = frail.start_with(&settings).await;
    let there = sequence(&client, "b").await;
    // The refused one may have been written before the failure was heard of.
    let expected = if end == End::Cut { synced..=synced } else { acknowledged..=acknowledged + 1 };
    assert!(expected.contains(&there), "{what}: {there} of {synced} + {}", unsynced.len());
    is_the_first(&client, there, &what).await;
    assert_eq!(sequence(&client, "other").await, 1, "{what}");
    status(&server, "negbank.v1.Banks", ServingStatus::Serving).await;
    // Nobody knows what the disk lost, so the bank is another from there on.
    for (number, position) in kept.iter().chain(&unsynced).enumerate() {
        let has = has(&client, "b", position).await;
        assert_eq!(has.is_ok(), (number as u64) < there, "{what}: write {number}, {has:?}");
    }
    if let Some(last) = kept.last() {
        assert!(is_whole(&client, "b", last).await.unwrap(), "{what}: who followed it may have read what is lost");
    }
    for number in 0..acknowledged + 2 {
        let written = write_wide(&client, "b", number, 3).await.unwrap();
        assert_eq!(written.duplicate, number < there, "{what}: write {number}");
        if number >= there {
            assert_ne!(written.position[..8], unsynced[0][..8], "{what}: it could be taken for a write that was lost");
        }
    }
    // What is opened is synced, what the page cache alone had as well: a cut takes only what came since.
    let lost = frail.cut(server, Bytes::Gone, Names::AsSynced);
    let (_server, client) = frail.start_with(&settings).await;
    let left = sequence(&client, "b").await;
    assert!((there..=acknowledged + 2).contains(&left), "{what}: {left} of {there} that were there\n{}", lost.log);
    is_the_first(&client, left, &what).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_sync_fails_and_what_was_acknowledged_is_not_lost_but_for_the_power() {
    for end in [End::Killed, End::Drained, End::Cut] {
        fail_one_of(0, "eio", end).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_sync_fails_and_what_was_synced_before_it_is_there_after_a_cut() {
    for (rounds, end) in [(1, End::Cut), (3, End::Cut), (3, End::Killed), (2, End::Drained)] {
        fail_one_of(rounds, "eio", end).await;
    }
}

/// The system takes for written what the sync lost, and a later sync tells of nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_loses_what_it_was_to_write_costs_no_more_than_one_that_fails() {
    for end in [End::Killed, End::Cut, End::Drained] {
        fail_one_of(2, "lose", end).await;
    }
}
