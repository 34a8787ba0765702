//! A real server, stopped by SIGTERM under load: what it acknowledged is there afterwards, what was in flight is answered, and nobody keeps
//! it past its limit.
//!
//! Three rounds here; `make drain-test` makes 50 (`NEGBANK_DRAIN_ROUNDS`) and writes `target/reports/drain.json` (`NEGBANK_DRAIN_REPORT`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use negbank::client::{Client, ClientError, Options, rows};
use negbank::model::{Seed, Stream, clock};
use negbank::proto::v1;
use prost::Message as _;
use tokio::task::JoinSet;

use crate::hostile::answered;
use crate::lifecycle::Process;
use crate::live::{keyed, nearest, uniform};
use crate::raw::framed;

const DIM: usize = 32;
const WRITERS: u64 = 4;
const READERS: u64 = 4;
/// Seconds that a drain may take.
const LIMIT: u64 = 20;

#[derive(Debug, Default, serde::Serialize)]
struct Report {
    rounds: u64,
    acknowledged: u64,
    lost: u64,
    /// Calls that were sent before the signal and not answered.
    in_flight_cut: u64,
    reads: u64,
    drain_limit_s: u64,
    longest_stop_s: f64,
    stuck_limit_s: u64,
    stuck_stop_s: f64,
}

/// What one caller has seen: when each call that failed was sent, and what was acknowledged or read.
#[derive(Default)]
struct Seen {
    acknowledged: Vec<(u64, f32)>,
    reads: u64,
    failed: Vec<(Instant, ClientError)>,
}

async fn connect(address: &str) -> Client {
    Client::connect(address, Options { retries: 0, ..Options::default() }).await.unwrap()
}

/// Writes one row at a time until the server takes no more.
async fn write(client: Client, writer: u64, mut random: Stream) -> Seen {
    let mut seen = Seen::default();
    loop {
        let (id, value) = (writer * 1_000 + random.below(200), 1.0 + random.below(1 << 20) as f32);
        let embeddings = Some(rows(&[value; DIM]));
        let request = v1::WriteRequest { bank: "docs".into(), ids: vec![id], embeddings, ..Default::default() };
        let began = clock::now();
        match client.write(request).await {
            Ok(_) => seen.acknowledged.push((id, value)),
            Err(fault) => {
                seen.failed.push((began, fault));
                return seen;
            }
        }
    }
}

async fn read(client: Client, mut random: Stream) -> Seen {
    let mut seen = Seen::default();
    loop {
        let ids = (0..64).map(|_| random.below(1_000)).collect();
        let anchors = Some(v1::Anchors { ids, ..Default::default() });
        let request = v1::SampleRequest { bank: "static".into(), anchors, draws: vec![nearest(4)], ..Default::default() };
        let began = clock::now();
        match client.sample(request).await {
            Ok(_) => seen.reads += 1,
            Err(fault) => {
                seen.failed.push((began, fault));
                return seen;
            }
        }
    }
}

async fn create(client: &Client, seed: u64) {
    let request = |name| v1::CreateBankRequest {
        momentum: Some(0.0),
        metric: v1::Metric::Dot.into(),
        durability: v1::Durability::Always.into(),
        ..keyed(name, DIM as u32, 8)
    };
    client.create_bank(request("docs")).await.unwrap();
    client.create_bank(request("static")).await.unwrap();
    let mut random = Seed(seed).stream(0, 0);
    let x = crate::live::random_rows(&mut random, 1_000, DIM);
    let ids = (0..1_000).collect();
    let embeddings = Some(rows(&x));
    client.write(v1::WriteRequest { bank: "static".into(), ids, embeddings, ..Default::default() }).await.unwrap();
}

/// Waits for the process, and says how long after the signal it ended and with what.
async fn ended(mut server: Process, signalled: Instant) -> (f64, Option<i32>) {
    let code = tokio::task::spawn_blocking(move || server.exit_code()).await.unwrap();
    (signalled.elapsed().as_secs_f64(), code)
}

/// Entries whose value is another than was acknowledged last.
async fn lost(client: &Client, expected: &BTreeMap<u64, f32>) -> u64 {
    if expected.is_empty() {
        return 0;
    }
    let ids: Vec<u64> = expected.keys().copied().collect();
    let request =
        v1::FetchRequest { bank: "docs".into(), ids, encoding: v1::EmbeddingEncoding::Floats.into(), ..Default::default() };
    let fetched = client.fetch(request).await.unwrap();
    let values = fetched.rows.unwrap().embeddings.unwrap().values;
    let missing = fetched.found.iter().filter(|found| **found == 0).count() as u64;
    let found = expected.values().zip(&fetched.found).filter(|(_, found)| **found == 1);
    missing + found.zip(values.chunks(DIM)).filter(|((expected, _), row)| row.iter().any(|x| x != *expected)).count() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_stopped_under_load_loses_nothing_and_cuts_nobody() {
    let rounds: u64 = std::env::var("NEGBANK_DRAIN_ROUNDS").ok().and_then(|given| given.parse().ok()).unwrap_or(3);
    let folder = tempfile::tempdir().unwrap();
    let (dir, drain) = (format!("durability.dir={}", folder.path().display()), format!("server.drain_seconds={LIMIT}"));
    let start = || Process::start(&["--set", &dir, "--set", &drain]);
    let mut report = Report { rounds, drain_limit_s: LIMIT, ..Report::default() };
    let mut expected = BTreeMap::new();
    for round in 0..rounds {
        let server = start();
        let client = connect(&server.address).await;
        if round == 0 {
            create(&client, round).await;
        }
        report.lost += lost(&client, &expected).await;
        let mut working = JoinSet::new();
        for number in 0..WRITERS {
            working.spawn(write(connect(&server.address).await, number, Seed(round).stream(1, number as usize)));
        }
        for number in 0..READERS {
            working.spawn(read(connect(&server.address).await, Seed(round).stream(2, number as usize)));
        }
        tokio::time::sleep(Duration::from_millis(100 + Seed(round).stream(3, 0).below(300))).await;
        let signalled = clock::now();
        server.signal("-TERM");
        drop(client);
        let mut cut = 0;
        while let Some(seen) = working.join_next().await {
            let seen = seen.unwrap();
            report.acknowledged += seen.acknowledged.len() as u64;
            report.reads += seen.reads;
            expected.extend(seen.acknowledged);
            for (began, fault) in seen.failed {
                assert!(matches!(fault, ClientError::Unavailable(_)), "{fault:?}");
                cut += u64::from(began < signalled);
            }
        }
        report.in_flight_cut += cut;
        let (took, code) = ended(server, signalled).await;
        assert_eq!(code, Some(0), "round {round}");
        report.longest_stop_s = report.longest_stop_s.max(took);
    }
    let server = start();
    report.lost += lost(&connect(&server.address).await, &expected).await;
    drop(server);

    (report.stuck_limit_s, report.stuck_stop_s) = stuck(&dir).await;
    println!("{report:?}");
    if let Ok(path) = std::env::var("NEGBANK_DRAIN_REPORT") {
        let folder = std::path::Path::new(&path).parent().unwrap();
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(path, serde_json::to_string_pretty(&report).unwrap() + "\n").unwrap();
    }
    assert!(report.acknowledged > 0 && report.reads > 0, "{report:?}");
    assert_eq!((report.lost, report.in_flight_cut), (0, 0), "{report:?}");
    // A busy machine may take a while to end a process.
    assert!(report.stuck_stop_s < report.stuck_limit_s as f64 + 5.0, "{report:?}");
}

/// A client that neither reads its answer nor leaves keeps the server until its limit, and no longer.
async fn stuck(dir: &str) -> (u64, f64) {
    let limit = 2;
    let server = Process::start(&["--set", dir, "--set", &format!("server.drain_seconds={limit}")]);
    let anchors = Some(v1::Anchors { rows: 64, ..Default::default() });
    let draws = vec![uniform(1_000)];
    let request = v1::SampleRequest { layout: v1::Layout::PerAnchor.into(), anchors, draws, ..Default::default() };
    let request = v1::SampleRequest { bank: "static".into(), ..request };
    let mut unread = answered(&server.address, framed(&request.encode_to_vec())).await;
    unread.data().await.unwrap().unwrap();
    let signalled = clock::now();
    server.signal("-TERM");
    let (took, code) = tokio::time::timeout(Duration::from_secs(60), ended(server, signalled)).await.expect("it ends");
    assert_eq!(code, Some(1), "a drain that had to cut a call says so");
    drop(unread);
    (limit, took)
}
