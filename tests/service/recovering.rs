//! A restarted server answers while its banks are still read from disk: each is served as soon as it is there, and until then its calls
//! are told how far it is. `faults.c` is the disk, which lets a part of a bank be read and no more.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use negbank::client::{Client, ClientError, Code, rows};
use negbank::proto::v1;
use prost::Message as _;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use crate::durable::{logs, seen_of};
use crate::faults::{Frail, WIDE, checkpoint, restore_into, sequence, wide, write_wide};
use crate::lifecycle::{Process, READY, channel};
use crate::live::{keyed, uniform};
use crate::probes::{free, get, value};
use crate::raw::{call, framed};

/// Writes that the large bank is of, and the rows of each.
const WRITES: u64 = 12;
const ROWS: u64 = 512;
/// Of the six megabytes of its log these can be read at first.
const READABLE: u64 = 2 << 20;
/// For what takes no time.
const SOON: Duration = Duration::from_secs(20);

type Seen = (v1::Bank, Vec<negbank::client::ScanColumns>, Vec<v1::SampleResponse>);

/// A disk with two banks, the large one of which can be read in part, and what is to be seen of them.
async fn held_up() -> (Frail, [Seen; 2]) {
    let frail = Frail::new();
    let (server, client) = frail.start().await;
    client.create_bank(wide("large", v1::Durability::Interval)).await.unwrap();
    for number in 0..WRITES {
        write_wide(&client, "large", number, ROWS).await.unwrap();
    }
    client.create_bank(keyed("small", 2, 1)).await.unwrap();
    write(&client, "small", 1).await.unwrap();
    checkpoint(&client, "small", "1").await.unwrap();
    let seen = [seen_of(&client, "large", WIDE as usize).await, seen_of(&client, "small", 2).await];
    drop(server);
    fs::write(frail.faults("reads"), format!("large {READABLE}")).unwrap();
    (frail, seen)
}

async fn write(client: &Client, bank: &str, id: u64) -> Result<v1::WriteResponse, ClientError> {
    let embeddings = Some(rows(&[id as f32, 1.0]));
    client.write(v1::WriteRequest { bank: bank.into(), ids: vec![id], embeddings, ..Default::default() }).await
}

/// Looks until there is something to see.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looked = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, looked).await.expect(what)
}

/// How much of a bank has been read; `None`: it is served.
async fn share(client: &Client, bank: &str) -> Option<f32> {
    client.get_bank(v1::GetBankRequest { name: bank.into() }).await.unwrap().recovering
}

async fn partly_read(client: &Client) -> f32 {
    until("a part of the large bank is read", async || share(client, "large").await.filter(|share| *share > 0.1)).await
}

async fn status(server: &Process, service: &str) -> ServingStatus {
    let mut health = HealthClient::new(channel(&server.address).await);
    health.check(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner().status()
}

fn delete(name: &str) -> v1::DeleteBankRequest {
    v1::DeleteBankRequest { name: name.into() }
}

/// What is answered to calls of the large bank, whatever they are.
async fn answers(client: &Client) -> Vec<(&'static str, ClientError)> {
    let bank = || "large".to_owned();
    let anchors = Some(v1::Anchors { rows: 1, ..Default::default() });
    let waits = v1::SampleRequest { bank: bank(), anchors, draws: vec![uniform(1)], ..Default::default() };
    let waits = v1::SampleRequest { min_entries: 1 << 30, wait_for_entries: true, ..waits };
    let fetch = v1::FetchRequest { bank: bank(), ids: vec![1], ..Default::default() };
    let scan = match client.scan(v1::ScanRequest { bank: bank(), ..Default::default() }).await {
        Ok(mut scan) => scan.next().await.map(drop).unwrap_err(),
        Err(refused) => refused,
    };
    vec![
        ("fetch", client.fetch(fetch).await.map(drop).unwrap_err()),
        ("sample", client.sample(waits).await.map(drop).unwrap_err()),
        ("scan", scan),
        ("write", write_wide(client, "large", WRITES, 1).await.map(drop).unwrap_err()),
        ("remove", client.remove(v1::RemoveRequest { bank: bank(), ids: vec![1] }).await.map(drop).unwrap_err()),
        ("create", client.create_bank(wide("large", v1::Durability::Interval)).await.map(drop).unwrap_err()),
        ("checkpoint", checkpoint(client, "large", "1").await.map(drop).unwrap_err()),
        ("restore", restore_into(client, "small", "1", "large").await.map(drop).unwrap_err()),
        ("delete", client.delete_bank(delete("large")).await.map(drop).unwrap_err()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_bank_answers_while_a_large_one_is_being_recovered() {
    let (frail, [large, small]) = held_up().await;
    let http = free();
    let (server, client) = frail.start_early(&[&format!("http.listen={http}")]).await;
    let watch = HealthClient::new(channel(&server.address).await).watch(HealthCheckRequest::default()).await.unwrap();
    let mut watch = watch.into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    until("the small bank is served", async || share(&client, "small").await.is_none().then_some(())).await;
    assert!(seen_of(&client, "small", 2).await == small);
    write(&client, "small", 2).await.unwrap();

    let read = partly_read(&client).await;
    assert!(read < 0.5, "{read}: the rest can't be read yet");
    for (what, refused) in answers(&client).await {
        let says = refused.to_string();
        assert_eq!(refused.code(), Code::Unavailable, "{what}: {says}");
        assert!(says.contains("bank large is being recovered: ") && says.contains(" % read"), "{what}: {says}");
    }
    let other = client.create_bank(keyed("large", 8, 1)).await.unwrap_err();
    assert!(other.code() == Code::AlreadyExists && other.to_string().contains("dim"), "{other}");
    let fetch = v1::FetchRequest { bank: "large".into(), ids: vec![1], ..Default::default() };
    let told = call(&server.address, "/negbank.v1.Banks/Fetch", &[], framed(&fetch.encode_to_vec())).await;
    let delay = told.get_details_retry_info().and_then(|info| info.retry_delay).expect("when to come back");
    assert!(told.code() == Code::Unavailable && delay > Duration::ZERO, "{told:?}");
    let listed = client.list_banks().await.unwrap().banks;
    let listed: Vec<_> = listed.iter().map(|bank| (bank.name.as_str(), bank.dim, bank.recovering.is_some())).collect();
    assert_eq!(listed, [("large", WIDE, true), ("small", 2, false)]);
    let (code, text) = get(http, "/readyz");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((code, lines[0], lines.len()), (503, "recovering: a bank is not served yet", 2), "{text}");
    assert!(lines[1].starts_with("bank large is being recovered: ") && lines[1].ends_with(" % read"), "{text}");
    assert_eq!(get(http, "/livez").0, 200);
    assert!((value(&get(http, "/metrics").1, "negbank_recovering_banks") - 1.0).abs() < 1e-9);
    assert_eq!(status(&server, "negbank.v1.Sampling").await, ServingStatus::NotServing);

    // Long enough for a line that tells of it.
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    frail.fail("reads", false);
    let changed = tokio::time::timeout(SOON, watch.message()).await.expect("health changes when the last bank is served");
    assert_eq!(changed.unwrap().unwrap().status(), ServingStatus::Serving);
    assert_eq!(get(http, "/readyz"), (200, "ok\n".to_owned()));
    assert!(value(&get(http, "/metrics").1, "negbank_recovering_banks").abs() < 1e-9);
    assert_eq!(status(&server, "negbank.v1.Sampling").await, ServingStatus::Serving);
    assert!(seen_of(&client, "large", WIDE as usize).await == large);
    write_wide(&client, "large", WRITES, 1).await.unwrap();
    let log = server.ended_by("-TERM").await.1;
    let told = log.lines().find(|line| line.contains("recovering bank=large")).unwrap_or_else(|| panic!("{log}"));
    assert!(log.contains(READY) && told.contains(" percent=") && told.contains(" bytes="), "{told}");
}

/// Whoever restores is told how far it is: what was read of how much, and at the end what came of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_tells_how_much_of_the_checkpoint_was_read() {
    let frail = Frail::new();
    let (_server, client) = frail.start().await;
    let (dim, entries) = (1_024, 2_000);
    client.create_bank(keyed("large", dim, 1)).await.unwrap();
    for first in (0..entries).step_by(500) {
        let embeddings: Vec<f32> = (0..500 * dim).map(|at| (at % 13 + 1) as f32).collect();
        let (ids, embeddings) = ((first..first + 500).collect(), Some(rows(&embeddings)));
        client.write(v1::WriteRequest { bank: "large".into(), ids, embeddings, ..Default::default() }).await.unwrap();
    }
    let made = checkpoint(&client, "large", "1").await.unwrap();
    // More than is read at once, of eight megabytes.
    let readable = 5 << 20;
    fs::write(frail.faults("reads"), format!("large {readable}")).unwrap();
    let (bank, tag, into) = ("large".to_owned(), "1".to_owned(), "again".to_owned());
    let request = v1::RestoreCheckpointRequest { bank, tag, into, ..Default::default() };
    let mut restoring = client.restore_checkpoint(request).await.unwrap();
    let mut readings = Vec::new();
    let last = loop {
        let reading = tokio::time::timeout(SOON, restoring.next()).await.expect("a reading").unwrap().expect("an end");
        if reading.checkpoint.is_some() {
            break reading;
        }
        if reading.phase() == v1::CheckpointPhase::Reading && reading.done_bytes > 0 && frail.faults("reads").exists() {
            assert!(reading.done_bytes <= readable, "{reading:?}");
            frail.fail("reads", false);
        }
        readings.push(reading);
    };
    let read: Vec<_> = readings.iter().filter(|reading| reading.phase() == v1::CheckpointPhase::Reading).collect();
    assert!(read.iter().any(|reading| reading.done_bytes > 0), "{readings:?}");
    assert!(read.is_sorted_by_key(|reading| reading.done_bytes), "{readings:?}");
    assert!(read.iter().all(|reading| reading.total_bytes == made.bytes && reading.done_bytes <= made.bytes), "{readings:?}");
    assert_eq!(last.restored.unwrap().entries, entries);
}

/// The files of the large bank, as they are.
fn content(frail: &Frail) -> Vec<(PathBuf, Vec<u8>)> {
    logs(&frail.disk("data"), "large").into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_that_is_cut_short_ends_at_once_and_costs_nothing() {
    let (frail, [large, small]) = held_up().await;
    let before = content(&frail);
    let (server, client) = frail.start_early(&[]).await;
    partly_read(&client).await;
    drop(client);
    let (code, log) = tokio::time::timeout(SOON, server.ended_by("-TERM")).await.expect("it waits for no disk");
    assert!(code == Some(0) && log.contains("drained") && !log.contains(READY), "{code:?}: {log}");
    assert!(!log.contains("ERROR"), "a recovery that was given up is no fault of the bank's: {log}");
    let (server, client) = frail.start_early(&[]).await;
    partly_read(&client).await;
    drop((server, client));
    assert!(content(&frail) == before, "what was being read is left alone");
    frail.fail("reads", false);
    let (_server, client) = frail.start().await;
    assert!(seen_of(&client, "large", WIDE as usize).await == large);
    assert!(seen_of(&client, "small", 2).await == small);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_that_is_refused_or_takes_no_writes_is_named_with_why_until_it_is_deleted() {
    let frail = Frail::new();
    let (server, client) = frail.start().await;
    for name in ["bad", "kept"] {
        client
            .create_bank(v1::CreateBankRequest { durability: v1::Durability::Always.into(), ..keyed(name, 2, 1) })
            .await
            .unwrap();
        for id in 0..9 {
            write(&client, name, id).await.unwrap();
        }
    }
    drop(server);
    let file = logs(&frail.disk("data"), "bad").remove(0);
    let mut damaged = fs::read(&file).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 4;
    fs::write(&file, damaged).unwrap();

    let http = free();
    let (server, client) = frail.start_with(&[&format!("http.listen={http}")]).await;
    let refused = |text: &str| text.contains("bank bad is refused: ") && text.contains(file.to_str().unwrap());
    let (code, text) = get(http, "/readyz");
    assert!(code == 200 && text.starts_with("ok\n") && refused(&text), "{text}");
    let banks = async |wanted: ServingStatus| {
        until("health follows", async || (status(&server, "negbank.v1.Banks").await == wanted).then_some(())).await;
    };
    banks(ServingStatus::Serving).await;
    frail.fail("sync", true);
    write(&client, "kept", 9).await.unwrap_err();
    frail.fail("sync", false);
    let text = get(http, "/readyz").1;
    assert!(refused(&text) && text.contains("bank kept takes no more writes: its log has failed: cannot sync"), "{text}");
    banks(ServingStatus::NotServing).await;
    assert_eq!(status(&server, "").await, ServingStatus::Serving, "reads go on");
    assert!((value(&get(http, "/metrics").1, "negbank_log_failed") - 1.0).abs() < 1e-9);

    client.delete_bank(delete("kept")).await.unwrap();
    client.delete_bank(delete("bad")).await.unwrap();
    assert_eq!(get(http, "/readyz"), (200, "ok\n".to_owned()));
    assert!(value(&get(http, "/metrics").1, "negbank_log_failed").abs() < 1e-9);
    banks(ServingStatus::Serving).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_sync_tells_of_every_bank_that_it_fails_for() {
    let frail = Frail::new();
    let (server, client) = frail.start_with(&["durability.interval_ms=3600000"]).await;
    for name in ["a", "b"] {
        client
            .create_bank(v1::CreateBankRequest { durability: v1::Durability::Interval.into(), ..keyed(name, 2, 1) })
            .await
            .unwrap();
        write(&client, name, 1).await.unwrap();
    }
    frail.fail("sync", true);
    drop(client);
    let (code, log) = server.ended_by("-TERM").await;
    assert_eq!(code, Some(1), "{log}");
    for name in ["a", "b"] {
        let of_bank = format!("bank {name} takes no more writes");
        let told = log.lines().any(|line| line.contains("could not be synced at the end") && line.contains(&of_bank));
        assert!(told, "{name}: {log}");
    }
    frail.fail("sync", false);
    let (_server, client) = frail.start().await;
    for name in ["a", "b"] {
        assert_eq!(sequence(&client, name).await, 1, "the process ended, not the machine");
    }
}
