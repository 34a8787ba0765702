//! More is asked for than can be done: who is refused, how soon, and who is not.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use negbank::client::{Client, ClientError, Options, Security, rows};
use negbank::config::fingerprint;
use negbank::model::clock;
use negbank::proto::v1;
use prost::Message as _;
use tokio::task::JoinSet;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::hostile::SAMPLE;
use crate::lifecycle::Process;
use crate::live::{Live, keyed, nearest, queue};
use crate::mirror::banks;
use crate::probes::{free, get, value};
use crate::raw::{call_from, framed};

const DIM: usize = 64;
const ENTRIES: usize = 5_000;

/// A bank whose scan takes a while.
async fn fill(client: &Client) {
    client.create_bank(keyed("docs", DIM as u32, 8)).await.unwrap();
    let x: Vec<f32> = (0..ENTRIES * DIM).map(|at| ((at * 31 + at / DIM * 17) % 101) as f32 - 50.0).collect();
    let request = v1::WriteRequest {
        bank: "docs".into(),
        ids: (0..ENTRIES as u64).collect(),
        embeddings: Some(rows(&x)),
        ..Default::default()
    };
    client.write(request).await.unwrap();
}

/// Blocks of 64 anchors.
fn search(blocks: usize) -> v1::SampleRequest {
    let anchors = v1::Anchors { ids: (0..64 * blocks as u64).collect(), ..Default::default() };
    let columns = vec![v1::Column::Ids.into()];
    v1::SampleRequest { bank: "docs".into(), anchors: Some(anchors), draws: vec![nearest(1)], columns, ..Default::default() }
}

fn retry_after(refused: &ClientError, says: &str) -> Duration {
    let ClientError::ResourceExhausted { message, retry_after: Some(after) } = refused else { panic!("{refused:?}") };
    assert!(message.contains(says), "{message}");
    *after
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_in_time_is_refused_at_once_with_when_to_come_back() {
    let live = Live::start(&["compute.threads=1"]).await;
    let patient = live.client.with_timeout(Duration::from_secs(300)).with_retries(0);
    fill(&patient).await;
    for _ in 0..3 {
        patient.sample(search(8)).await.unwrap();
    }
    let began = clock::now();
    patient.sample(search(64)).await.unwrap();
    let whole = began.elapsed();
    let mut working = JoinSet::new();
    let hurried = patient.with_timeout(whole * 2);
    let mut tries = 0;
    let (refused, took) = loop {
        while working.try_join_next().is_some() || working.len() < 6 {
            let patient = patient.clone();
            working.spawn(async move { patient.sample(search(64)).await.map(drop) });
        }
        // How soon they are there is the machine's business.
        tries += 1;
        assert!(tries < 100, "work for six times {whole:?} never waited before it");
        let began = clock::now();
        if let Err(refused @ ClientError::ResourceExhausted { .. }) = hurried.sample(search(1)).await {
            break (refused, began.elapsed());
        }
    };
    assert!(took < whole, "refused after {took:?}, and {whole:?} and more of work came first");
    let after = retry_after(&refused, "the server is overloaded");
    assert!(after < whole * 20, "{after:?} with six of {whole:?} waiting");
    // The client comes back when it was told to, and finds that there is time.
    let again = live.client.with_timeout(Duration::from_secs(300));
    again.sample(search(1)).await.unwrap();
    while let Some(done) = working.join_next().await {
        done.unwrap().unwrap();
    }
}

const TOKENS: [(&str, &str); 2] = [("greedy", "token-of-the-greedy-one-1"), ("polite", "token-of-the-polite-one-1")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greedy_caller_takes_neither_the_room_nor_the_time_of_a_polite_one() {
    let (_live, greedy, polite) = of_two_callers(&["compute.threads=1", "compute.queue=64"]).await;
    serves_the_polite(&greedy, async || polite.sample(search(4)).await.map(drop).unwrap()).await;
}

/// Writes have a queue of their own, a bank's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greedy_writer_takes_neither_the_room_nor_the_turns_of_a_polite_one() {
    const MOST: u64 = 2_000;
    let (_live, greedy, polite) = of_two_callers(&["compute.write_queue=16"]).await;
    fill(&greedy).await;
    let write = |first: u64, count: usize| v1::WriteRequest {
        bank: "docs".into(),
        ids: (first..first + count as u64).collect(),
        embeddings: Some(rows(&vec![first as f32 + 1.0; count * DIM])),
        ..Default::default()
    };
    let (refused, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut working = JoinSet::new();
    for number in 0..40 {
        let (greedy, write) = (greedy.clone(), write(number, ENTRIES / 2));
        let (refused, over) = (Arc::clone(&refused), Arc::clone(&over));
        working.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                if let Err(full) = greedy.write(write.clone()).await {
                    retry_after(&full, "setting compute.write_queue");
                    refused.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        });
    }
    let mut written = 0;
    while written < 20 || refused.load(Ordering::Relaxed) == 0 {
        polite.write(write(written, 1)).await.expect("there is room for who writes one row at a time");
        written += 1;
        assert!(written < MOST, "forty large writes at once never filled a queue of sixteen");
    }
    over.store(true, Ordering::Relaxed);
    while let Some(ended) = working.join_next().await {
        ended.expect("it was refused for want of room and for nothing else");
    }
}

/// A server, and two callers that it tells apart.
async fn of_two_callers(settings: &[&str]) -> (Live, Client, Client) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.toml");
    let entry = |(subject, token): (&str, &str)| {
        format!("[[tokens]]\nsubject = {subject:?}\nsha256 = {:?}\nrole = \"admin\"\nbanks = [\"*\"]\n", fingerprint(token))
    };
    std::fs::write(&file, TOKENS.map(entry).concat()).unwrap();
    let tokens = format!("auth.tokens={}", file.display());
    let live = Live::start(&[settings, &[tokens.as_str()]].concat()).await;
    let connect = async |token: &str| {
        let security = Security { token: Some(token.to_owned()), ..Security::default() };
        let timeout = Duration::from_secs(300);
        Client::connect(&live.address, Options { security, timeout, retries: 0, ..Options::default() }).await.unwrap()
    };
    let (greedy, polite) = (connect(TOKENS[0].1).await, connect(TOKENS[1].1).await);
    (live, greedy, polite)
}

/// Without tokens whoever calls from one address is one caller.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greedy_address_takes_neither_the_room_nor_the_time_of_another() {
    let live = Live::start(&["compute.threads=1", "compute.queue=64"]).await;
    let greedy = live.client.with_timeout(Duration::from_secs(300)).with_retries(0);
    let from_another = async || {
        let body = framed(&search(4).encode_to_vec());
        let answer = call_from(Ipv4Addr::new(127, 0, 0, 2), &live.address, SAMPLE, body).await;
        assert_eq!(answer.code(), Code::Ok, "{answer:?}");
    };
    serves_the_polite(&greedy, from_another).await;
}

/// Fills a queue of 64 jobs with those of `greedy`, and sees that `polite`, a caller who asks once, is served before them.
async fn serves_the_polite(greedy: &Client, polite: impl AsyncFnOnce()) {
    fill(greedy).await;
    let mut working = JoinSet::new();
    let mut refused = 0;
    for _ in 0..60 {
        let greedy = greedy.clone();
        working.spawn(async move { greedy.sample(search(4)).await.map(drop) });
    }
    while let Some(ended) = working.join_next().await {
        match ended.unwrap() {
            Ok(()) => {}
            Err(full) => {
                retry_after(&full, "setting compute.queue");
                refused += 1;
                if refused == 40 {
                    break;
                }
            }
        }
    }
    assert_eq!(refused, 40, "of 60 requests of 4 blocks hardly more than 8 have room");
    let waiting = working.len();
    polite().await;
    let mut done = 0;
    while let Some(ended) = working.try_join_next() {
        done += usize::from(ended.unwrap().is_ok());
    }
    assert!(done <= 4 && waiting > 6, "{done} of the {waiting} that came before were served before");
}

/// Whoever asks for much and hangs up, again and again, holds neither memory nor room behind the work of others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_in_the_queue_is_gone_at_once_though_a_thread_is_busy_with_what_came_before() {
    let http = free();
    let (one, ample) = ("compute.threads=1", "compute.queue=20000");
    let server = Process::start(&["--set", one, "--set", ample, "--set", &format!("http.listen={http}")]);
    let timeout = Duration::from_secs(300);
    let client = Client::connect(&server.address, Options { timeout, retries: 0, ..Options::default() }).await.unwrap();
    fill(&client).await;
    let metric = |series: &str| value(&get(http, "/metrics").1, series) as usize;
    let waiting = || metric("negbank_compute_waiting_jobs");
    let begin = |calls: usize| {
        let mut begun = JoinSet::new();
        for _ in 0..calls {
            let client = client.clone();
            begun.spawn(async move { client.sample(search(64)).await.map(drop) });
        }
        begun
    };
    let until = async |done: &dyn Fn() -> bool, why: &str| {
        for _ in 0..1_500 {
            if done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{why}: {} jobs wait", waiting());
    };
    let mut ahead = begin(40);
    until(&|| waiting() > 64 * 30, "too few come").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    for _ in 0..3 {
        let before = waiting();
        let mut abandoned = begin(8);
        until(&|| waiting() > before + 64 * 4, "too few come").await;
        answered(&mut ahead);
        abandoned.shutdown().await;
        until(&|| waiting() <= before, "they stay").await;
        let since = answered(&mut ahead);
        assert!(since < 3, "they went only when {since} calls that came before them were answered");
    }
    assert!(!ahead.is_empty(), "the thread was busy all the time");
    ahead.shutdown().await;
    let held = || ["requests", "answers"].map(|part| metric(&format!("negbank_memory_bytes{{part=\"{part}\"}}")));
    until(&|| waiting() == 0 && held() == [0, 0], "what came before was left, too").await;
}

/// Of the calls, those that were answered since this was asked.
fn answered(calls: &mut JoinSet<Result<(), ClientError>>) -> usize {
    let ended = std::iter::from_fn(|| calls.try_join_next());
    ended.map(|answer| answer.unwrap().unwrap()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_that_would_outgrow_the_memory_is_refused_until_something_is_deleted() {
    let live = Live::start(&["memory.max_bytes=16777216", "memory.write_percent=50"]).await;
    let create = async |request| live.client.create_bank(request).await;
    let small = create(queue("small", 4, 1, 100)).await.unwrap();
    assert_eq!(small.peak_bytes, 100 * small.peak_bytes_per_entry);
    assert!(small.peak_bytes_per_entry > small.bytes_per_entry && small.peak_bytes_per_entry < small.bytes_per_entry + 200);
    let docs = create(keyed("docs", DIM as u32, 1)).await.unwrap();
    assert!(docs.peak_bytes_per_entry > 2 * docs.bytes_per_entry && docs.peak_bytes == 0, "a graph, and no capacity");
    let Err(ClientError::ResourceExhausted { message, retry_after: None }) =
        create(queue("large", DIM as u32, 1, 1_000_000)).await
    else {
        panic!("a million entries have no room")
    };
    assert!(message.contains("setting memory.max_bytes") && message.contains("16777216"), "{message}");

    let write = async |bank: &str, first: u64, dim: usize| {
        let ids = (first..first + 500).collect();
        let embeddings = Some(rows(&vec![1.0; 500 * dim]));
        live.client.write(v1::WriteRequest { bank: bank.into(), ids, embeddings, ..Default::default() }).await
    };
    write("small", 0, 4).await.unwrap();
    let mut entries = 0;
    let full = loop {
        match write("docs", entries, DIM).await {
            Ok(_) => entries += 500,
            Err(full) => break full,
        }
        assert!(entries < 30_000, "8 MiB hold no {entries} entries of {} bytes", docs.bytes_per_entry);
    };
    assert!(entries >= 8_000, "{entries} entries of {} bytes", docs.bytes_per_entry);
    let ClientError::ResourceExhausted { message, retry_after: None } = &full else { panic!("{full:?}") };
    assert!(message.contains("setting memory.write_percent") && message.contains("8388608"), "{message}");
    assert_eq!(live.client.get_bank(v1::GetBankRequest { name: "docs".into() }).await.unwrap().entries, entries);

    // Nothing grows.
    write("docs", 0, DIM).await.expect("entries that are there are rewritten");
    write("small", 500, 4).await.expect("a queue overwrites its oldest");
    let ids = (1_000..1_600).collect();
    live.client.remove(v1::RemoveRequest { bank: "docs".into(), ids }).await.unwrap();
    write("docs", 1_000_000, DIM).await.expect("where entries have left, others may come");
    live.client.sample(search(1)).await.expect("reads go on");
    scans_have_room_for_what_they_hold(&live, entries as u32 / 4).await;

    live.client.delete_bank(v1::DeleteBankRequest { name: "docs".into() }).await.unwrap();
    create(keyed("docs", DIM as u32, 1)).await.unwrap();
    write("docs", 0, DIM).await.expect("there is room again");
}

/// A scan that is not read keeps its share, and gives it back with its stream.
async fn scans_have_room_for_what_they_hold(live: &Live, chunk_rows: u32) {
    let mut services = banks(&live.address).await;
    let request = v1::ScanRequest { bank: "docs".into(), chunk_rows, ..Default::default() };
    let mut unread = Vec::new();
    let refused = loop {
        match services.scan(request.clone()).await {
            Ok(chunks) => unread.push(chunks),
            Err(refused) => break refused,
        }
        assert!(unread.len() < 10, "each holds four chunks of a quarter of the bank, which fills half of the memory");
    };
    assert!(refused.get_details_retry_info().is_some() && refused.message().contains("memory.max_bytes"), "{refused:?}");
    assert!(!unread.is_empty(), "one has room: {refused:?}");
    unread.clear();
    let again = async {
        loop {
            match services.scan(request.clone()).await {
                Ok(chunks) => break chunks,
                Err(refused) => assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let mut chunks = tokio::time::timeout(Duration::from_secs(60), again).await.expect("there is room again").into_inner();
    let mut read = 0;
    while let Some(chunk) = chunks.message().await.unwrap() {
        read += chunk.stamps.len();
    }
    assert_eq!(read, entries_of(live).await);
}

async fn entries_of(live: &Live) -> usize {
    live.client.get_bank(v1::GetBankRequest { name: "docs".into() }).await.unwrap().entries as usize
}
