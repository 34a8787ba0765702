//! A real server, stopped by SIGTERM under load: what it acknowledged is there afterwards, what was in flight is answered, ranks meet whose
//! calls have begun, those who wait for others in vain are told, and nobody keeps it past its limit.
//!
//! Three rounds here; `make drain-test` makes 50 (`NEGBANK_DRAIN_ROUNDS`) and writes `target/reports/drain.json` (`NEGBANK_DRAIN_REPORT`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use negbank::client::{Client, ClientError, Options, rows};
use negbank::model::{Seed, Stream, clock};
use negbank::proto::v1;
use negbank::proto::v1::banks_client::BanksClient;
use tokio::task::{JoinHandle, JoinSet};
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::hostile::{WRITE, answered, connected, head, per_anchor};
use crate::lifecycle::Process;
use crate::live::{keyed, nearest, uniform};
use crate::raw::framed;

const DIM: usize = 32;
const WRITERS: u64 = 4;
const READERS: u64 = 4;
/// Seconds that a drain may take.
const LIMIT: u64 = 20;
/// Entries of the bank that is scanned: a megabyte of rows, read through windows of 64 KiB.
const SCANNED: u64 = 8_000;
/// An entry that is only ever written in a stage that lacks a rank.
const STAGED: u64 = 9_999;

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
    /// Scans that were read to their end, most of it after the signal.
    scans_finished: u64,
    /// Calls that waited for other ranks, for entries or for a position, and were told at once that the server stops.
    waits_told: u64,
    /// Watches of health that were told so.
    watches_told: u64,
}

/// What one caller has seen: when each call that failed was sent, and what was acknowledged or read.
#[derive(Default)]
struct Seen {
    acknowledged: Vec<(u64, f32)>,
    reads: u64,
    failed: Vec<(Instant, ClientError)>,
}

pub(crate) async fn connect(address: &str) -> Client {
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
    let mut random = Seed(seed).stream(0, 0);
    for (bank, count) in [("static", 1_000), ("scanned", SCANNED)] {
        client.create_bank(request(bank)).await.unwrap();
        let embeddings = Some(rows(&crate::live::random_rows(&mut random, count as usize, DIM)));
        let write = v1::WriteRequest { bank: bank.into(), ids: (0..count).collect(), embeddings, ..Default::default() };
        client.write(write).await.unwrap();
    }
}

/// Calls that take long by nature, in flight when the signal comes.
struct LongCalls {
    scan: Streaming<v1::ScanChunk>,
    scanned: Vec<u64>,
    watch: Streaming<HealthCheckResponse>,
    waits: Vec<(&'static str, JoinHandle<Result<(), ClientError>>)>,
}

impl LongCalls {
    /// Begins them, and returns when the server has them all. The waits have more time than the drain.
    async fn begin(client: &Client, address: &str) -> Self {
        let channel = || Endpoint::from_shared(format!("http://{address}")).unwrap();
        let narrow = channel().initial_stream_window_size(65_535).initial_connection_window_size(65_535);
        let mut banks = BanksClient::new(narrow.connect().await.unwrap());
        let scan = v1::ScanRequest { bank: "scanned".into(), chunk_rows: 256, ..Default::default() };
        let mut scan = banks.scan(scan).await.unwrap().into_inner();
        let first = scan.message().await.unwrap().unwrap();
        let mut health: HealthClient<Channel> = HealthClient::new(channel().connect().await.unwrap());
        let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);

        let own = connect(address).await.with_timeout(Duration::from_secs(3 * LIMIT));
        let embeddings = || Some(rows(&[1.0; DIM]));
        let stage = Some(v1::Stage { step: 1, rank: 0, world_size: 2, ..Default::default() });
        let staged =
            v1::WriteRequest { bank: "docs".into(), ids: vec![STAGED], embeddings: embeddings(), stage, ..Default::default() };
        let matrix = embeddings().map(|matrix| v1::Matrix { dim: DIM as u32, ..matrix });
        let gathered = v1::GatherRequest { group: "run".into(), world_size: 2, embeddings: matrix, ..Default::default() };
        let anchors = Some(v1::Anchors { rows: 1, ..Default::default() });
        let sample = v1::SampleRequest { bank: "static".into(), anchors, draws: vec![uniform(1)], ..Default::default() };
        let entries = v1::SampleRequest { min_entries: 1 << 20, wait_for_entries: true, ..sample.clone() };
        // A position of the same history that is far off.
        let removed = client.remove(v1::RemoveRequest { bank: "static".into(), ids: vec![1 << 40] }).await.unwrap();
        let mut far = removed.position.to_vec();
        far[12] += 1;
        let position = v1::SampleRequest { at_least: far.into(), ..sample };
        let (a, b, c, d) = (own.clone(), own.clone(), own.clone(), own);
        let mut waits = vec![
            ("entries", tokio::spawn(async move { a.sample(entries).await.map(drop) })),
            ("a position", tokio::spawn(async move { b.sample(position).await.map(drop) })),
            ("a stage", tokio::spawn(async move { c.write(staged).await.map(drop) })),
            ("a gather", tokio::spawn(async move { d.gather(gathered).await.map(drop) })),
        ];
        let there = async {
            loop {
                let bank = client.get_bank(v1::GetBankRequest { name: "docs".into() }).await.unwrap();
                if !bank.stages.is_empty() && !client.list_gathers().await.unwrap().gathers.is_empty() {
                    return;
                }
                if let Some((of, wait)) = waits.iter_mut().find(|(_, wait)| wait.is_finished()) {
                    panic!("{of} was not waited for: {:?}", wait.await);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(LIMIT), there).await.expect("they are made");
        Self { scan, scanned: first.rows.unwrap().ids, watch, waits }
    }

    /// After the signal: first the waits end, though the drain goes on for the scan, which is read to its end only then.
    async fn end(mut self, report: &mut Report) {
        for (of, wait) in self.waits {
            let told = tokio::time::timeout(Duration::from_secs(LIMIT / 2), wait).await;
            let told = told.unwrap_or_else(|_| panic!("the wait for {of} goes on in the drain")).unwrap().unwrap_err();
            let ClientError::Unavailable { message, .. } = told else { panic!("{of}: {told:?}") };
            assert!(message.contains("the server is stopping") && message.contains("send it again"), "{of}: {message}");
            report.waits_told += 1;
        }
        assert_eq!(self.watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
        let over = self.watch.message().await.map(drop).unwrap_err();
        assert_eq!((over.code(), over.message()), (tonic::Code::Unavailable, "the server is stopping"));
        report.watches_told += 1;
        assert!(self.scanned.len() < SCANNED as usize / 2, "most of it is read after the signal");
        while let Some(chunk) = self.scan.message().await.expect("a scan in flight is cut by the drain") {
            self.scanned.extend(chunk.rows.unwrap_or_default().ids);
        }
        assert!(self.scanned.iter().copied().eq(0..SCANNED), "{} of {SCANNED} entries, in order", self.scanned.len());
        report.scans_finished += 1;
    }
}

/// Waits for the process, and says how long after the signal it ended and with what.
pub(crate) async fn ended(mut server: Process, signalled: Instant) -> (f64, Option<i32>) {
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
        let staged = client.fetch(v1::FetchRequest { bank: "docs".into(), ids: vec![STAGED], ..Default::default() }).await;
        assert_eq!(staged.unwrap().found.to_vec(), [0], "of a stage that was left nothing is applied");
        let long = LongCalls::begin(&client, &server.address).await;
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
        long.end(&mut report).await;
        let mut cut = 0;
        while let Some(seen) = working.join_next().await {
            let seen = seen.unwrap();
            report.acknowledged += seen.acknowledged.len() as u64;
            report.reads += seen.reads;
            expected.extend(seen.acknowledged);
            for (began, fault) in seen.failed {
                assert!(matches!(fault, ClientError::Unavailable { .. }), "{fault:?}");
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
    let long = (report.scans_finished, report.waits_told, report.watches_told);
    assert_eq!(long, (rounds, 4 * rounds, rounds), "{report:?}");
    // A busy machine may take a while to end a process.
    assert!(report.stuck_stop_s < report.stuck_limit_s as f64 + 5.0, "{report:?}");
}

/// A client that neither reads its answer nor leaves keeps the server until its limit, and no longer.
async fn stuck(dir: &str) -> (u64, f64) {
    let limit = 2;
    let server = Process::start(&["--set", dir, "--set", &format!("server.drain_seconds={limit}")]);
    let mut unread = answered(&server.address, per_anchor("static", 64, uniform(1_000))).await;
    unread.data().await.unwrap().unwrap();
    let signalled = clock::now();
    server.signal("-TERM");
    let (took, code) = tokio::time::timeout(Duration::from_secs(60), ended(server, signalled)).await.expect("it ends");
    assert_eq!(code, Some(1), "a drain that had to cut a call says so");
    drop(unread);
    (limit, took)
}

/// A call that has begun; the second half of its request is sent later.
struct Late {
    answer: h2::client::ResponseFuture,
    upload: h2::SendStream<Bytes>,
    rest: Bytes,
    _connection: (h2::client::SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>),
}

impl Late {
    async fn begin(address: &str, path: &str, request: &impl prost::Message) -> Self {
        let (mut requests, driver) = connected(address).await;
        let (answer, mut upload) = requests.send_request(head(address, path).body(()).unwrap(), false).unwrap();
        let mut begun = framed(&request.encode_to_vec());
        let rest = begun.split_off(begun.len() / 2);
        upload.send_data(begun, false).unwrap();
        Self { answer, upload, rest, _connection: (requests, driver) }
    }

    async fn end(mut self) -> Status {
        self.upload.send_data(self.rest, true).unwrap();
        let answer = self.answer.await.unwrap();
        if let Some(refused) = Status::from_header_map(answer.headers()) {
            return refused;
        }
        let mut body = answer.into_body();
        while let Some(piece) = body.data().await {
            let bytes = piece.unwrap().len();
            body.flow_control().release_capacity(bytes).unwrap();
        }
        Status::from_header_map(&body.trailers().await.unwrap().unwrap()).unwrap()
    }
}

/// The last rank's request may take its time: it began before the signal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranks_whose_calls_have_begun_meet_in_the_drain_and_who_waits_in_vain_is_told_after_a_second() {
    let server = Process::start(&["--set", &format!("server.drain_seconds={LIMIT}")]);
    let client = connect(&server.address).await.with_timeout(Duration::from_secs(3 * LIMIT));
    client.create_bank(keyed("docs", DIM as u32, 1)).await.unwrap();
    let gather = |group: &str, rank: u32| {
        let embeddings = Some(v1::Matrix { dim: DIM as u32, ..rows(&[rank as f32; DIM]) });
        v1::GatherRequest { group: group.into(), rank, world_size: 2, embeddings, ..Default::default() }
    };
    let write = |step: u64, rank: u32| {
        let (embeddings, stage) =
            (Some(rows(&[1.0; DIM])), Some(v1::Stage { step, rank, world_size: 2, ..Default::default() }));
        v1::WriteRequest { bank: "docs".into(), ids: vec![rank.into()], embeddings, stage, ..Default::default() }
    };
    let last = [
        Late::begin(&server.address, "/negbank.v1.Gathering/Gather", &gather("met", 1)).await,
        // No rank of this one is there yet.
        Late::begin(&server.address, "/negbank.v1.Gathering/Gather", &gather("late", 0)).await,
        Late::begin(&server.address, "/negbank.v1.Gathering/Gather", &gather("late", 1)).await,
        Late::begin(&server.address, WRITE, &write(1, 1)).await,
    ];
    let call = |request| {
        let client = client.clone();
        tokio::spawn(async move { client.gather(request).await.map(drop) })
    };
    let stage = |request| {
        let client = client.clone();
        tokio::spawn(async move { client.write(request).await.map(drop) })
    };
    let (meet, in_vain) = ([call(gather("met", 0)), stage(write(1, 0))], [call(gather("in vain", 0)), stage(write(2, 0))]);
    let there = async {
        loop {
            let bank = client.get_bank(v1::GetBankRequest { name: "docs".into() }).await.unwrap();
            if bank.stages.len() == 2 && client.list_gathers().await.unwrap().gathers.len() == 2 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(LIMIT), there).await.expect("they wait");

    let signalled = clock::now();
    server.signal("-TERM");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let waiting = meet.iter().chain(&in_vain).filter(|wait| !wait.is_finished()).count();
    assert_eq!(waiting, 4, "some were told before those had a moment who are on their way");
    let mut answers = JoinSet::new();
    last.into_iter().for_each(|late| drop(answers.spawn(late.end())));
    while let Some(answer) = answers.join_next().await {
        let answer = answer.unwrap();
        assert_eq!(answer.code(), tonic::Code::Ok, "{answer:?}");
    }
    for met in meet {
        met.await.unwrap().expect("all ranks were there");
    }
    for wait in in_vain {
        let told = tokio::time::timeout(Duration::from_secs(LIMIT / 2), wait).await.expect("it is told").unwrap();
        let Err(ClientError::Unavailable { message, .. }) = told else { panic!("{told:?}") };
        assert!(message.contains("the server is stopping"), "{message}");
    }
    assert!(signalled.elapsed() >= Duration::from_secs(1), "who might have come had {:?}", signalled.elapsed());
    drop(client);
    let (took, code) = ended(server, signalled).await;
    assert_eq!(code, Some(0), "after {took} s");
}
