//! Clients that hold what they don't read, say nothing, or say too much: each costs a bounded amount, and is let go of.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use negbank::client::{Client, Options, rows};
use negbank::model::clock;
use negbank::proto::v1;
use prost::Message as _;
use tokio::net::TcpStream;
use tonic::Code;

use crate::lifecycle::Process;
use crate::live::{Live, keyed, uniform};
use crate::raw::{call, framed};

const SAMPLE: &str = "/negbank.v1.Sampling/Sample";
const LIST: &str = "/negbank.v1.Banks/ListBanks";
const DIM: usize = 256;
const ROWS: usize = 4_000;

/// An answer of 4 MB.
async fn large(client: &Client) -> bytes::Bytes {
    client.create_bank(keyed("docs", DIM as u32, 8)).await.unwrap();
    let ids = (0..ROWS as u64).collect();
    let embeddings = Some(rows(&vec![1.0; ROWS * DIM]));
    client.write(v1::WriteRequest { bank: "docs".into(), ids, embeddings, ..Default::default() }).await.unwrap();
    let anchors = Some(v1::Anchors { rows: 1, ..Default::default() });
    let request = v1::SampleRequest { bank: "docs".into(), anchors, draws: vec![uniform(ROWS as u32)], ..Default::default() };
    framed(&request.encode_to_vec())
}

/// The body of the answer to `request`, over a connection of its own with the narrowest of windows.
pub(crate) async fn answered(address: &str, request: bytes::Bytes) -> h2::RecvStream {
    let (mut requests, connection) = h2::client::handshake(TcpStream::connect(address).await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    let head = http::Request::post(format!("http://{address}{SAMPLE}")).header("content-type", "application/grpc");
    let (answer, mut upload) = requests.send_request(head.body(()).unwrap(), false).unwrap();
    upload.send_data(request, true).unwrap();
    answer.await.unwrap().into_body()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_is_cut_and_who_reads_slowly_is_not() {
    let server = Process::start(&["--set", "server.answer_seconds=2"]);
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    let request = large(&client).await;

    let mut slow = answered(&server.address, request.clone()).await;
    let (began, mut bytes) = (clock::now(), 0);
    while let Some(piece) = slow.data().await {
        let piece = piece.expect("who reads now and then is not cut");
        bytes += piece.len();
        // Slowly for twice as long as an answer may stand still.
        if began.elapsed() < Duration::from_secs(4) {
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        slow.flow_control().release_capacity(piece.len()).unwrap();
    }
    assert!(bytes > ROWS * DIM * 4 && began.elapsed() > Duration::from_secs(4), "{bytes} bytes");

    let mut stuck = answered(&server.address, request).await;
    let cut = async {
        // What fits the window comes; nothing is acknowledged.
        while let Some(piece) = stuck.data().await {
            if piece.is_err() {
                return;
            }
        }
        panic!("4 MB came through a window of 64 KiB");
    };
    tokio::time::timeout(Duration::from_secs(60), cut).await.expect("an answer that nobody reads is not kept");
    assert_eq!(client.list_banks().await.unwrap().banks.len(), 1, "others notice nothing");
    let log = server.killed();
    assert!(log.contains("did not read its answer (setting server.answer_seconds)"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_connects_and_says_nothing_is_let_go_of() {
    let server = Process::start(&[]);
    let address = server.address.clone();
    let ended = tokio::task::spawn_blocking(move || {
        let mut connection = std::net::TcpStream::connect(address).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // A word of the greeting, and then nothing.
        connection.write_all(b"PRI * HTT").unwrap();
        let mut heard = Vec::new();
        connection.read_to_end(&mut heard)
    });
    assert!(!matches!(ended.await.unwrap(), Err(fault) if fault.kind() == std::io::ErrorKind::WouldBlock), "still connected");
    let log = server.killed();
    assert!(log.contains("a client connected and said nothing"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_metadata_is_refused() {
    let live = Live::start(&[]).await;
    let large = "x".repeat(64 << 10);
    let request = http::Request::post(format!("http://{}{LIST}", live.address)).header("content-type", "application/grpc");
    let connection = TcpStream::connect(&live.address).await.unwrap();
    let (mut requests, connection) = h2::client::handshake(connection).await.unwrap();
    tokio::spawn(connection);
    let request = request.header("x-large", large).body(()).unwrap();
    let refused = match requests.send_request(request, true) {
        Ok((answer, _)) => {
            answer.await.map_or(true, |answer| answer.status() == http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
        }
        Err(_) => true,
    };
    assert!(refused, "64 KiB of metadata were taken");
    assert_eq!(call(&live.address, LIST, &[], framed(&[])).await.code(), Code::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_reset_as_soon_as_they_are_open_end_their_connection() {
    let server = Process::start(&[]);
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    client.create_bank(keyed("docs", 2, 8)).await.unwrap();
    let (threads, memory) = (server.threads(), server.memory());
    let (mut requests, connection) = h2::client::handshake(TcpStream::connect(&server.address).await.unwrap()).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut opened = 0;
    let ended = loop {
        let Ok(ready) = requests.clone().ready().await else { break true };
        requests = ready;
        let head = http::Request::post(format!("http://{}{LIST}", server.address)).header("content-type", "application/grpc");
        let Ok((answer, mut upload)) = requests.send_request(head.body(()).unwrap(), false) else { break true };
        upload.send_reset(h2::Reason::CANCEL);
        drop(answer);
        opened += 1;
        if opened % 100 == 0 {
            tokio::task::yield_now().await;
        }
        if opened == 200_000 {
            break false;
        }
    };
    connection.abort();
    assert!(ended, "{opened} streams were opened and reset on one connection");
    assert_eq!(client.list_banks().await.unwrap().banks.len(), 1);
    assert!(server.threads() <= threads + 4 && server.memory() < memory + (64 << 20), "{} bytes", server.memory());
}

/// Ten thousand; `NEGBANK_TINY_REQUESTS` says otherwise, and `make overload-test` sends a hundred thousand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn very_many_tiny_requests_leave_nothing_behind() {
    let count: usize = std::env::var("NEGBANK_TINY_REQUESTS").ok().and_then(|given| given.parse().ok()).unwrap_or(10_000);
    let server = Process::start(&[]);
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    client.create_bank(keyed("docs", 2, 8)).await.unwrap();
    let embeddings = Some(rows(&[1.0, 0.0]));
    client.write(v1::WriteRequest { bank: "docs".into(), ids: vec![1], embeddings, ..Default::default() }).await.unwrap();
    let send = async |count: usize| {
        let workers = 64;
        let mut sending = tokio::task::JoinSet::new();
        for _ in 0..workers {
            let client = client.clone();
            sending.spawn(async move {
                let anchors = Some(v1::Anchors { rows: 1, ..Default::default() });
                let request = v1::SampleRequest { bank: "docs".into(), anchors, draws: vec![uniform(1)], ..Default::default() };
                for _ in 0..count / workers {
                    client.sample(request.clone()).await.unwrap();
                }
            });
        }
        while let Some(sent) = sending.join_next().await {
            sent.unwrap();
        }
    };
    send(count / 10).await;
    let (threads, memory) = (server.threads(), server.memory());
    send(count).await;
    assert!(server.threads() <= threads + 4 && server.memory() < memory + (32 << 20), "{memory} became {}", server.memory());
}
