//! One scan: its order, its forms, its pace, and how it ends.

use std::time::Duration;

use negbank::client::{Client, Options, floats, rows};
use negbank::proto::v1;
use tonic::{Code, Request, Streaming};

use crate::lifecycle::Process;
use crate::live::{Live, keyed, queue, uniform};
use crate::mirror::{Mirror, banks};

fn scan(bank: &str) -> v1::ScanRequest {
    v1::ScanRequest { bank: bank.to_owned(), ..Default::default() }
}

async fn all(chunks: tonic::Response<Streaming<v1::ScanChunk>>) -> Vec<v1::ScanChunk> {
    let mut chunks = chunks.into_inner();
    let mut all = Vec::new();
    while let Some(chunk) = chunks.message().await.unwrap() {
        all.push(chunk);
    }
    all
}

#[tokio::test]
async fn an_empty_bank_is_one_chunk() {
    let live = Live::start(&[]).await;
    live.create(keyed("docs", 2, 8)).await;
    let chunks = all(banks(&live.address).await.scan(scan("docs")).await.unwrap()).await;
    let [chunk] = &chunks[..] else { panic!("{chunks:?}") };
    assert!(chunk.whole && chunk.last && chunk.consistent && chunk.stamps.is_empty() && chunk.position.len() == 16);
    let since = v1::ScanRequest { since: chunk.position.clone(), ..scan("docs") };
    let chunks = all(banks(&live.address).await.scan(since).await.unwrap()).await;
    assert!(chunks.len() == 1 && !chunks[0].whole && chunks[0].last && chunks[0].consistent, "{chunks:?}");
}

#[tokio::test]
async fn every_form_has_the_same_rows() {
    let live = Live::start(&[]).await;
    live.create(v1::CreateBankRequest { metric: v1::Metric::Dot.into(), ..keyed("docs", 3, 8) }).await;
    let x: Vec<f32> = (0..300).map(|at| at as f32 * 0.25).collect();
    let ids: Vec<u64> = (0..100).rev().collect();
    live.write("docs", &ids, &x, &[]).await;
    let mut banks = banks(&live.address).await;
    let plain = all(banks.scan(scan("docs")).await.unwrap()).await;
    assert_eq!(plain.len(), 1, "100 rows are far from 1 MiB");
    let rows_of = |chunk: &v1::ScanChunk| chunk.rows.clone().unwrap();
    assert_eq!(rows_of(&plain[0]).ids, ids, "by arrival, not by id");
    assert_eq!(floats(rows_of(&plain[0]).embeddings.as_ref().unwrap()), x);
    assert_eq!((plain[0].entries, plain[0].sequence, plain[0].step), (100, 1, None));
    for (encoding, dtype, bytes) in [
        (v1::EmbeddingEncoding::F32, v1::Dtype::F32, 12),
        (v1::EmbeddingEncoding::F16, v1::Dtype::F16, 6),
        (v1::EmbeddingEncoding::Bf16, v1::Dtype::Bf16, 6),
        (v1::EmbeddingEncoding::Floats, v1::Dtype::Unspecified, 0),
    ] {
        let request = v1::ScanRequest { encoding: encoding.into(), chunk_rows: 30, ..scan("docs") };
        let chunks = all(banks.scan(request).await.unwrap()).await;
        assert_eq!(chunks.iter().map(|chunk| chunk.stamps.len()).collect::<Vec<_>>(), [30, 30, 30, 10]);
        let stamps: Vec<u64> = chunks.iter().flat_map(|chunk| chunk.stamps.clone()).collect();
        assert_eq!(stamps, plain[0].stamps);
        let mut values = Vec::new();
        for chunk in &chunks {
            let matrix = rows_of(chunk).embeddings.unwrap();
            assert_eq!((matrix.dtype(), matrix.dim, matrix.data.len()), (dtype, 3, chunk.stamps.len() * bytes));
            let halves = |widen: fn(u16) -> f32| {
                matrix.data.chunks_exact(2).map(|half| widen(u16::from_le_bytes([half[0], half[1]]))).collect()
            };
            values.extend::<Vec<f32>>(match encoding {
                v1::EmbeddingEncoding::F16 => halves(|bits| half::f16::from_bits(bits).to_f32()),
                v1::EmbeddingEncoding::Bf16 => halves(|bits| half::bf16::from_bits(bits).to_f32()),
                _ => floats(&matrix),
            });
        }
        // Quarters up to 75 take 9 bits: bf16 rounds the last ones to halves.
        assert!(values.len() == x.len() && values.iter().zip(&x).all(|(got, want)| (got - want).abs() <= 0.25), "{encoding:?}");
        assert!(encoding == v1::EmbeddingEncoding::Bf16 || values == x, "{encoding:?}");
    }
    let bare = v1::ScanRequest { without_embeddings: true, ..scan("docs") };
    let bare = all(banks.scan(bare).await.unwrap()).await;
    assert_eq!((rows_of(&bare[0]).embeddings, rows_of(&bare[0]).ids), (None, ids));
}

const DIM: usize = 1_024;
const ENTRIES: usize = 8 * ROWS;
/// Rows of one write.
const ROWS: usize = 2_048;

/// 64 MiB in chunks of 1 MiB, so that a client with small windows holds the server back.
async fn large(client: &Client, value: f32) {
    for from in (0..ENTRIES as u64).step_by(ROWS) {
        let embeddings = Some(rows(&vec![value; ROWS * DIM]));
        let ids = (from..from + ROWS as u64).collect();
        client.write(v1::WriteRequest { bank: "large".into(), ids, embeddings, ..Default::default() }).await.unwrap();
    }
}

async fn large_bank(client: &Client) {
    let (metric, momentum) = (v1::Metric::Dot.into(), Some(0.0));
    let request = v1::CreateBankRequest { metric, momentum, ..keyed("large", DIM as u32, 8) };
    client.create_bank(request).await.unwrap();
    large(client, 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_holds_no_thread_and_nothing_is_read_far_ahead_of_it() {
    let live = Live::start(&["compute.threads=1"]).await;
    large_bank(&live.client).await;
    let mut banks = banks(&live.address).await;
    let mut chunks = banks.scan(scan("large")).await.unwrap().into_inner();
    let first = chunks.message().await.unwrap().unwrap();
    // The only compute thread serves others, and writers aren't held up.
    large(&live.client, 2.0).await;
    let anchors = Some(v1::Anchors { rows: 1, ..Default::default() });
    let sample = v1::SampleRequest { bank: "large".into(), anchors, draws: vec![uniform(1)], ..Default::default() };
    live.client.sample(sample).await.unwrap();
    let mut values = floats(first.rows.unwrap().embeddings.as_ref().unwrap());
    let mut last = None;
    while let Some(chunk) = chunks.message().await.unwrap() {
        values.extend(floats(chunk.rows.as_ref().unwrap().embeddings.as_ref().unwrap()));
        last = Some(chunk);
    }
    let last = last.unwrap();
    assert!(last.last && !last.consistent, "the bank was rewritten meanwhile");
    assert_eq!(values.len(), ENTRIES * DIM, "every entry once");
    let read_before = values.iter().filter(|&&x| x == 1.0).count() / (1 << 18);
    assert!(read_before <= 16, "{read_before} of 64 chunks were read before the reader took more than one");
}

/// A scan of a bank that is deleted. A deleted bank's committer ends with the last request that holds the bank.
async fn of_deleted(timeout: Duration) -> (Process, Streaming<v1::ScanChunk>) {
    let server = Process::start(&[]);
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    large_bank(&client).await;
    let mut request = Request::new(scan("large"));
    request.set_timeout(timeout);
    let mut chunks = banks(&server.address).await.scan(request).await.unwrap().into_inner();
    chunks.message().await.unwrap().unwrap();
    client.delete_bank(v1::DeleteBankRequest { name: "large".into() }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(server.has_thread("commit-large"), "the scan still holds the deleted bank");
    (server, chunks)
}

async fn is_let_go(server: &Process) {
    let gone = async {
        while server.has_thread("commit-large") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the bank is let go of");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_whose_reader_hangs_up_lets_go_of_the_bank() {
    let (server, chunks) = of_deleted(Duration::from_secs(600)).await;
    drop(chunks);
    is_let_go(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_whose_reader_stops_reading_lets_go_of_the_bank_at_its_deadline() {
    let (server, mut chunks) = of_deleted(Duration::from_secs(2)).await;
    is_let_go(&server).await;
    let ended = loop {
        match chunks.message().await {
            Ok(chunk) => assert!(!chunk.expect("an end that is none").last, "the scan went on past its deadline"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::DeadlineExceeded, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_of_a_deleted_bank_comes_to_its_end() {
    let live = Live::start(&[]).await;
    live.create(queue("fifo", 2, 2, 1_000)).await;
    live.write("fifo", &[], &[1.0; 2_000], &[]).await;
    let request = v1::ScanRequest { chunk_rows: 1, ..scan("fifo") };
    let mut chunks = banks(&live.address).await.scan(request).await.unwrap().into_inner();
    let mut mirror = Mirror::default();
    live.client.delete_bank(v1::DeleteBankRequest { name: "fifo".into() }).await.unwrap();
    let scanned = mirror.apply(&mut chunks, 1).await.unwrap();
    assert_eq!((scanned.rows, scanned.chunks, scanned.consistent), (1_000, 1_000, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_ends_at_its_deadline() {
    let live = Live::start(&[]).await;
    large_bank(&live.client).await;
    let mut request = Request::new(scan("large"));
    let allowed = Duration::from_millis(400);
    request.set_timeout(allowed);
    let began = negbank::model::clock::now();
    let mut chunks = banks(&live.address).await.scan(request).await.unwrap().into_inner();
    chunks.message().await.unwrap().unwrap();
    tokio::time::sleep_until((began + allowed).into()).await;
    let ended = loop {
        match chunks.message().await {
            Ok(Some(chunk)) => assert!(!chunk.last, "the scan went on past its deadline"),
            Ok(None) => panic!("the stream ended as if it were whole"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::DeadlineExceeded, "{ended:?}");
}

#[tokio::test]
async fn bad_scans_are_refused_before_anything_is_read() {
    let live = Live::start(&["limits.max_answer_bytes=65536", "limits.max_fetch_rows=1000"]).await;
    live.create(keyed("docs", 256, 8)).await;
    live.create(keyed("wide", 8_192, 8)).await;
    let mut banks = banks(&live.address).await;
    let cases = [
        (v1::ScanRequest { chunk_rows: 1_001, ..scan("docs") }, "chunk_rows", "limit of 1000 (setting limits.max_fetch_rows)"),
        (v1::ScanRequest { chunk_rows: 100, ..scan("docs") }, "chunk_rows", "limit of 65536 (setting limits.max_answer_bytes)"),
        (v1::ScanRequest { chunk_rows: 2, ..scan("wide") }, "chunk_rows", "encoding F16"),
        (v1::ScanRequest { chunk_rows: u32::MAX, ..scan("docs") }, "chunk_rows", "limits.max_fetch_rows"),
        (v1::ScanRequest { encoding: 9, ..scan("docs") }, "encoding", "9 is not an EmbeddingEncoding"),
        (v1::ScanRequest { since: vec![1, 2].into(), ..scan("docs") }, "since", "2 bytes are not a position"),
        (v1::ScanRequest { at_least: vec![1; 17].into(), ..scan("docs") }, "at_least", "17 bytes are not a position"),
    ];
    for (request, field, reason) in cases {
        let refused = banks.scan(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert!(refused.message().starts_with(field) && refused.message().contains(reason), "{}", refused.message());
    }
    assert_eq!(banks.scan(scan("nope")).await.unwrap_err().code(), Code::NotFound);

    let position = live.client.write(row("docs")).await.unwrap().position;
    let mut ahead = position.to_vec();
    ahead[8] += 1;
    let mut request = Request::new(v1::ScanRequest { since: ahead.into(), ..scan("docs") });
    request.set_timeout(Duration::from_millis(300));
    let late = banks.scan(request).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "the history never came so far: {late:?}");
    live.client.delete_bank(v1::DeleteBankRequest { name: "docs".into() }).await.unwrap();
    live.create(keyed("docs", 256, 8)).await;
    let other = banks.scan(v1::ScanRequest { since: position, ..scan("docs") }).await.unwrap_err();
    assert_eq!(other.code(), Code::FailedPrecondition, "{other:?}");
}

fn row(bank: &str) -> v1::WriteRequest {
    v1::WriteRequest { bank: bank.to_owned(), ids: vec![1], embeddings: Some(rows(&[1.0; 256])), ..Default::default() }
}
