//! Whoever is told when to come back comes back then, until the deadline; and what is worth coming back for: staged writes that found no
//! memory, and left everything as it was.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use negbank::client::{Client, ClientError, Code, Options, rows};
use negbank::proto::v1;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::faults::{Frail, checkpoint, restore_into, wide, write_wide};
use crate::lifecycle::Process;
use crate::live::{keyed, uniform};
use crate::probes::{free, get, value};

/// Writes that the bank is of which is slow to recover, and the rows of each.
const WRITES: u64 = 12;
const ROWS: u64 = 512;
/// Of the six megabytes of its log these can be read at first.
const READABLE: u64 = 2 << 20;
/// For what takes no time.
const SOON: Duration = Duration::from_secs(30);

/// A disk with a bank of which a part can be read, until its fault `reads` is gone, and with a checkpoint of it.
async fn slow_to_recover() -> Frail {
    let frail = Frail::new();
    let (server, client) = frail.start().await;
    client.create_bank(wide("large", v1::Durability::Interval)).await.unwrap();
    for number in 0..WRITES {
        write_wide(&client, "large", number, ROWS).await.unwrap();
    }
    checkpoint(&client, "large", "1").await.unwrap();
    drop((client, server));
    fs::write(frail.faults("reads"), format!("large {READABLE}")).unwrap();
    frail
}

/// As a training is that starts again together with its server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_asked_for_during_a_slow_recovery_is_made_after_it() {
    let frail = slow_to_recover().await;
    let (server, once) = frail.start_early(&[]).await;
    let patient = Client::connect(&server.address, Options { retries: 1, ..Options::default() }).await.unwrap();
    let told = restore_into(&once, "large", "1", "").await.unwrap_err();
    assert!(told.code() == Code::Unavailable && told.to_string().contains("is being recovered: "), "{told}");
    let restoring = tokio::spawn(async move { restore_into(&patient, "large", "1", "").await });
    sleep(Duration::from_millis(600)).await;
    assert!(!restoring.is_finished(), "it has not given up");
    frail.fail("reads", false);
    let restored = timeout(SOON, restoring).await.expect("it comes back when the bank is there").unwrap().unwrap();
    assert_eq!(restored.sequence, WRITES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_made_during_a_slow_recovery_are_answered_after_it() {
    let frail = slow_to_recover().await;
    let (server, once) = frail.start_early(&[]).await;
    // One try after the first, if nobody says when.
    let patient = Client::connect(&server.address, Options { retries: 1, ..Options::default() }).await.unwrap();
    let large = || "large".to_owned();
    let fetch = v1::FetchRequest { bank: large(), ids: vec![1], ..Default::default() };
    let told = once.fetch(fetch.clone()).await.unwrap_err();
    assert!(told.code() == Code::Unavailable && told.to_string().contains("is being recovered: "), "{told}");

    let anchors = Some(v1::Anchors { rows: 1, ..Default::default() });
    let sample = v1::SampleRequest { bank: large(), anchors, draws: vec![uniform(3)], ..Default::default() };
    let remove = v1::RemoveRequest { bank: large(), ids: vec![1 << 40] };
    let [fetching, sampling, writing, removing] = [(); 4].map(|()| patient.clone());
    let request = fetch.clone();
    let fetched = tokio::spawn(async move { fetching.fetch(request).await });
    let sampled = tokio::spawn(async move { sampling.sample(sample).await });
    let written = tokio::spawn(async move { write_wide(&writing, "large", WRITES, 1).await });
    // Tried once where nobody knows what became of it; this is refused.
    let removed = tokio::spawn(async move { removing.remove(remove).await });
    // Longer than one try more takes.
    sleep(Duration::from_millis(600)).await;
    let ended = [fetched.is_finished(), sampled.is_finished(), written.is_finished(), removed.is_finished()];
    assert_eq!(ended, [false; 4], "none has given up");
    let hurried = patient.with_timeout(Duration::from_millis(400)).fetch(fetch).await.unwrap_err();
    assert!(hurried.code() == Code::Unavailable && hurried.to_string().contains(" % read"), "it is told why: {hurried}");

    frail.fail("reads", false);
    let answered = async {
        assert_eq!(fetched.await.unwrap().unwrap().found[0], 1);
        assert_eq!(sampled.await.unwrap().unwrap().draws[0].counts, [3]);
        assert!(!written.await.unwrap().unwrap().duplicate);
        assert_eq!(removed.await.unwrap().unwrap().removed, 0);
    };
    timeout(SOON, answered).await.expect("they come back when the bank is there");
}

/// Memory of the server, and a row of its bank, in bytes.
const LIMIT: usize = 8 << 20;
const DIM: usize = 8_192;
const ROW: usize = DIM * 4;

/// So many rows of a rank, of eight entries.
fn part(step: u64, (rank, world_size): (u32, u32), count: usize) -> v1::WriteRequest {
    v1::WriteRequest {
        bank: "docs".into(),
        ids: (0..count as u64).map(|row| row % 8).collect(),
        embeddings: Some(v1::Matrix { dim: DIM as u32, ..rows(&vec![step as f32 + 0.5; count * DIM]) }),
        stage: Some(v1::Stage { step, micro_batch: 0, rank, world_size }),
        ..Default::default()
    }
}

fn send(client: &Client, request: v1::WriteRequest) -> JoinHandle<Result<v1::WriteResponse, ClientError>> {
    let client = client.clone();
    tokio::spawn(async move { client.write(request).await })
}

fn held(http: SocketAddr, part: &str) -> usize {
    value(&get(http, "/metrics").1, &format!("negbank_memory_bytes{{part=\"{part}\"}}")) as usize
}

/// Waits until so many bytes of staged writes are held, and none of requests.
async fn until_staged(http: SocketAddr, rows: usize) {
    let there = async {
        // A row's other columns take some bytes.
        while held(http, "requests") > 0 || !(rows * ROW..=rows * (ROW + 64)).contains(&held(http, "staged")) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let late = || panic!("{} bytes of staged writes, {} of requests", held(http, "staged"), held(http, "requests"));
    timeout(SOON, there).await.unwrap_or_else(|_| late());
}

async fn stages(client: &Client) -> Vec<v1::OpenStage> {
    client.get_bank(v1::GetBankRequest { name: "docs".into() }).await.unwrap().stages
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_staged_write_counts_once_and_one_that_has_no_room_is_refused_and_changes_nothing() {
    let http = free();
    let (limit, listen) = (format!("memory.max_bytes={LIMIT}"), format!("http.listen={http}"));
    let server = Process::start(&["--set", &limit, "--set", &listen]);
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    let once = client.with_retries(0);
    client.create_bank(keyed("docs", DIM as u32, 1)).await.unwrap();

    let first = send(&client, part(1, (0, 2), 120));
    until_staged(http, 120).await;
    let before = stages(&client).await;
    assert!(before.len() == 1 && before[0].missing_ranks == [1], "{before:?}");
    // As a request it has room beside the first; as a request and a staged write it has not.
    for _ in 0..3 {
        let refused = once.write(part(2, (0, 2), 80)).await;
        let Err(ClientError::ResourceExhausted { message, retry_after: Some(_) }) = refused else { panic!("{refused:?}") };
        assert!(message.contains("setting memory.max_bytes") && message.contains(&LIMIT.to_string()), "{message}");
    }
    assert_eq!(stages(&client).await, before);
    until_staged(http, 120).await;

    // Whoever was refused and comes back has room once the first stage is there.
    let second = send(&client, part(2, (0, 2), 80));
    sleep(Duration::from_millis(200)).await;
    assert_eq!(stages(&client).await, before);
    let last = client.write(part(1, (1, 2), 1)).await.unwrap();
    assert_eq!(first.await.unwrap().unwrap().position, last.position);
    until_staged(http, 80).await;
    let last = client.write(part(2, (1, 2), 1)).await.unwrap();
    assert_eq!(second.await.unwrap().unwrap().position, last.position);
    assert!(last.sequence == 2 && stages(&client).await.is_empty(), "{last:?}");
    until_staged(http, 0).await;
}
