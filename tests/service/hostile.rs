//! Clients that hold what they don't read, say nothing, say it slowly, or say too much: each costs a bounded amount, is let go of, and
//! is told of in the log, in a few lines however often it happens.

mod drips;
mod handshakes;
mod questions;

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use negbank::client::{Client, Options, Security, rows};
use negbank::model::clock;
use negbank::proto::v1;
use prost::Message as _;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1 as reflection;

use crate::authority::Authority;
use crate::lifecycle::{Process, channel};
use crate::live::{keyed, uniform};
use crate::raw::{call, framed};

pub(crate) const SAMPLE: &str = "/negbank.v1.Sampling/Sample";
const LIST: &str = "/negbank.v1.Banks/ListBanks";
pub(crate) const WRITE: &str = "/negbank.v1.Banks/Write";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const DIM: usize = 256;
const ROWS: usize = 4_000;

/// Bytes of a large answer's embeddings.
pub(crate) const LARGE: usize = ROWS * DIM * 4;

/// Clients that misbehave at once.
const MANY: usize = 300;

/// Longer than anything here lasts.
const LONG: Duration = Duration::from_secs(120);

/// What any server comes to hold beside what it is asked for: pages of its own code, and what its allocator has not given back yet.
const OWN: usize = 16 << 20;

/// What a connection takes that asks for nothing, at most: its buffers (8 to 16 KiB each way, and TLS's own), tables, tasks. It is 20 to 30
/// KiB.
const CONNECTION: usize = 64 << 10;

/// What a call takes that has begun and has no message yet, at most. It is 12 KiB.
const CALL: usize = 32 << 10;

/// The server has at no time held more than `before` and `most`, for the reason that `why` gives.
fn bounded(server: &Process, before: usize, most: usize, why: &str) {
    let grown = server.peak_memory().saturating_sub(before);
    assert!(grown <= most + OWN, "it held {grown} bytes more than before; it may hold {most} ({why}), and {OWN} of its own");
}

/// An answer of 4 MB.
pub(crate) async fn large(client: &Client) -> Bytes {
    client.create_bank(keyed("docs", DIM as u32, 8)).await.unwrap();
    let ids = (0..ROWS as u64).collect();
    let embeddings = Some(rows(&vec![1.0; ROWS * DIM]));
    client.write(v1::WriteRequest { bank: "docs".into(), ids, embeddings, ..Default::default() }).await.unwrap();
    let anchors = Some(v1::Anchors { rows: 1, ..Default::default() });
    let request = v1::SampleRequest { bank: "docs".into(), anchors, draws: vec![uniform(ROWS as u32)], ..Default::default() };
    framed(&request.encode_to_vec())
}

/// A request of a bank for `anchors` anchors, each with rows of its own in the answer.
pub(crate) fn per_anchor(bank: &str, anchors: u32, draw: v1::Draw) -> Bytes {
    let (anchors, layout) = (Some(v1::Anchors { rows: anchors, ..Default::default() }), v1::Layout::PerAnchor.into());
    let request = v1::SampleRequest { bank: bank.into(), layout, anchors, draws: vec![draw], ..Default::default() };
    framed(&request.encode_to_vec())
}

/// A connection whose calls are made by hand.
pub(crate) async fn connected(address: &str) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let (requests, connection) = h2::client::handshake(TcpStream::connect(address).await.unwrap()).await.unwrap();
    (requests, tokio::spawn(connection))
}

pub(crate) fn head(address: &str, path: &str) -> http::request::Builder {
    http::Request::post(format!("http://{address}{path}")).header("content-type", "application/grpc")
}

/// The body of the answer to `request`, over a connection of its own with the narrowest of windows.
pub(crate) async fn answered(address: &str, request: Bytes) -> h2::RecvStream {
    answers(address, &request, 1).await.remove(0)
}

/// The same, `count` times over one connection.
async fn answers(address: &str, request: &Bytes, count: usize) -> Vec<h2::RecvStream> {
    let (mut requests, _) = connected(address).await;
    let mut bodies = Vec::new();
    for _ in 0..count {
        let (answer, mut upload) = requests.send_request(head(address, SAMPLE).body(()).unwrap(), false).unwrap();
        upload.send_data(request.clone(), true).unwrap();
        bodies.push(answer.await.unwrap().into_body());
    }
    bodies
}

/// The log tells of this, in few lines however often it happened since then: ten in ten seconds.
pub(crate) fn told(log: &str, of: &str, since: Instant) {
    let lines = log.lines().filter(|line| line.contains(of)).count();
    let most = 10 * (since.elapsed().as_secs() as usize / 10 + 1);
    assert!((1..=most).contains(&lines), "{lines} lines tell of {of:?}, and {most} may:\n{log}");
}

/// All that a server logged, ended so that whatever it was about to log is there.
pub(crate) async fn log_of(server: Process) -> String {
    server.signal("-TERM");
    server.ended().await.1
}

/// Says so many bytes of this, and then one a second, until the server closes the connection. Returns all that was heard.
async fn dribble(address: String, said: Vec<u8>, at_once: usize) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut rest = said.into_iter();
    let first: Vec<u8> = rest.by_ref().take(at_once).collect();
    stream.write_all(&first).await.unwrap();
    let (mut heard, mut piece) = (Vec::new(), [0; 1_024]);
    let closed = |fault: &io::Error| {
        // A byte that is on its way when the server closes is answered with a reset.
        assert!([io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe].contains(&fault.kind()), "{fault:?}");
    };
    loop {
        match timeout(Duration::from_secs(1), stream.read(&mut piece)).await {
            Ok(Ok(0)) => return heard,
            Ok(Ok(bytes)) => heard.extend(&piece[..bytes]),
            Ok(Err(fault)) => {
                closed(&fault);
                return heard;
            }
            Err(_) => {
                let byte = rest.next().expect("it is let go of before it has said all");
                if let Err(fault) = stream.write_all(&[byte]).await {
                    closed(&fault);
                    return heard;
                }
            }
        }
    }
}

/// Does it many times at once.
fn many<F: Future<Output = ()> + Send + 'static>(one: impl Fn() -> F) -> JoinSet<()> {
    (0..MANY).map(|_| one()).collect()
}

/// Waits until all of them were let go of.
async fn all_end(clients: JoinSet<()>) {
    timeout(LONG, clients.join_all()).await.expect("they are held for ever");
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

    let before = server.memory();
    let count = 20;
    let mut stuck = answers(&server.address, &request, count).await;
    let cut = async {
        // What fits the window comes; nothing is acknowledged.
        while let Some(piece) = stuck[0].data().await {
            if let Err(fault) = piece {
                assert!(fault.is_io(), "the connection is cut, and not the answer: {fault:?}");
                return;
            }
        }
        panic!("4 MB came through a window of 64 KiB");
    };
    tokio::time::timeout(Duration::from_secs(60), cut).await.expect("an answer that nobody reads is not kept");
    assert_eq!(client.list_banks().await.unwrap().banks.len(), 1, "others notice nothing");
    let answer = LARGE + ROWS * 64;
    bounded(
        &server,
        before,
        (count + 2) * answer,
        "20 answers, each once, of 64 bytes a row beside its floats, and one that is made",
    );
    let log = server.killed();
    let lines = log.matches("did not read its answer in time (setting server.answer_seconds)").count();
    assert_eq!(lines, 1, "a line a connection, and not one an answer:\n{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_connects_and_says_nothing_is_let_go_of() {
    let (began, server) = (clock::now(), Process::start(&[]));
    let before = server.memory();
    // A word of the greeting, and ten seconds more of it.
    let greetings = many(|| {
        let address = server.address.clone();
        async move {
            let heard = dribble(address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), 4).await;
            let settings = heard.first_chunk::<4>().map(|[_, _, bytes, kind]| (9 + usize::from(*bytes), *kind));
            assert_eq!(settings, Some((heard.len(), 4)), "it is greeted, and told nothing else: {heard:?}");
        }
    });
    Client::connect(&server.address, Options::default()).await.unwrap().list_banks().await.expect("others are served");
    all_end(greetings).await;
    assert!(began.elapsed() >= Duration::from_secs(10), "that is how long it may take to say hello: {:?}", began.elapsed());
    bounded(&server, before, MANY * CONNECTION, "300 connections");
    told(&log_of(server).await, "a client connected and said nothing", began);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_byte_by_byte_is_given_up() {
    let (began, server) = (clock::now(), Process::start(&["--set", "server.default_deadline_seconds=2"]));
    let before = server.memory();
    let count = AtomicUsize::new(0);
    let uploads = many(|| {
        let address = server.address.clone();
        // Every other one says that it has eleven thousand years, and some ask what needs no token.
        let number = count.fetch_add(1, Ordering::Relaxed);
        let (patient, path) = (number.is_multiple_of(2), if number.is_multiple_of(3) { HEALTH } else { WRITE });
        async move {
            let (mut requests, _driver) = connected(&address).await;
            let head = head(&address, path);
            let head = if patient { head.header("grpc-timeout", "99999999H") } else { head };
            let (mut answer, mut upload) = requests.send_request(head.body(()).unwrap(), false).unwrap();
            upload.send_data(framed(&[1; 1_000]).slice(..5), false).unwrap();
            let answer = loop {
                match timeout(Duration::from_secs(1), &mut answer).await {
                    Ok(answer) => break answer.unwrap(),
                    Err(_) => drop(upload.send_data(Bytes::from_static(&[1]), false)),
                }
            };
            let status = tonic::Status::from_header_map(answer.headers()).unwrap();
            assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        }
    });
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    client.list_banks().await.expect("others are served");
    all_end(uploads).await;
    bounded(&server, before, MANY * (CONNECTION + CALL), "300 connections with a call each, whose 1,000 bytes hardly count");
    told(&log_of(server).await, "had not come whole by its deadline", began);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_that_asks_byte_by_byte_is_let_go_of() {
    let arguments = ["--listen", "127.0.0.1:0", "--set", "http.listen=127.0.0.1:0"];
    let server = Process::start_at("probes=", &arguments);
    let (began, before) = (clock::now(), server.memory());
    let probe = [&b"GET /livez HTTP/1.1\r\nX: "[..], &[b'x'; 1_000]].concat();
    let probes = many(|| {
        let (address, probe) = (server.address.clone(), probe.clone());
        async move {
            let heard = dribble(address, probe, 10).await;
            assert!(heard.is_empty(), "what is half asked is not answered: {heard:?}");
        }
    });
    let mut other = TcpStream::connect(&server.address).await.unwrap();
    other.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "others are answered: {answer}");
    all_end(probes).await;
    assert!(began.elapsed() >= Duration::from_secs(20), "that is how long it may take to ask: {:?}", began.elapsed());
    bounded(&server, before, MANY * CONNECTION, "300 connections");
    told(&log_of(server).await, "a client began to ask for probes or metrics and did not come to an end", began);
}

/// The status of the answer to a call with so many bytes of metadata, and what it says first.
pub(crate) async fn with_metadata(
    address: &str,
    requests: &SendRequest<Bytes>,
    bytes: usize,
) -> Result<(u16, Option<Bytes>), h2::Error> {
    let request = head(address, LIST).header("x-large", "x".repeat(bytes)).body(()).unwrap();
    let (answer, mut upload) = requests.clone().ready().await?.send_request(request, false)?;
    // Whoever is refused needs no body.
    drop(upload.send_data(framed(&[]), true));
    let answer = answer.await?;
    let status = answer.status().as_u16();
    Ok((status, answer.into_body().data().await.transpose()?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_metadata_is_refused() {
    let (began, server) = (clock::now(), Process::start(&[]));
    let (address, before) = (&server.address, server.memory());
    let list = Ok((200, Some(framed(&[]))));
    for _ in 0..MANY / 10 {
        let (requests, driver) = connected(address).await;
        let send =
            async |bytes| with_metadata(address, &requests, bytes).await.map_err(|fault| (fault.is_go_away(), fault.reason()));
        assert_eq!(send(12 << 10).await, list, "12 KiB of 16 KiB");
        for _ in 0..10 {
            assert_eq!(send(32 << 10).await, Ok((431, None)), "over the limit, the call is refused");
        }
        assert_eq!(send(10).await, list, "and the connection lives on");
        let calm = Some(h2::Reason::ENHANCE_YOUR_CALM);
        assert_eq!(send(128 << 10).await, Err((true, calm)), "over four times the limit, the connection ends");
        driver.abort();
    }
    assert_eq!(call(address, LIST, &[], framed(&[])).await.code(), Code::Ok);
    let most = MANY / 10 * (CONNECTION + 4 * (16 << 10));
    bounded(&server, before, most, "30 connections, with metadata up to four times what a call may have, 16 KiB");
    let log = log_of(server).await;
    told(&log, "a call's metadata were too large (setting server.max_metadata_bytes): refused with HTTP status 431", began);
    told(&log, "said=\"header_list_way_too_large\"", began);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_giant_message_is_refused_before_it_is_there() {
    let limit = 4 << 20;
    let (began, server) = (clock::now(), Process::start(&["--set", &format!("server.max_message_bytes={limit}")]));
    let (address, before) = (&server.address, server.memory());
    let claims = [Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff, 1]), framed(&vec![1; limit + 1])];
    let refused = async || {
        for claim in &claims {
            let status = call(address, WRITE, &[], claim.clone()).await;
            assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
            assert!(status.message().contains(&format!("{limit} bytes (setting server.max_message_bytes)")), "{status:?}");
        }
    };
    refused().await;
    let memory = server.memory();
    for _ in 0..MANY / 3 {
        refused().await;
    }
    // Calls that promise as much as is taken, and send a byte of it.
    let (requests, driver) = connected(address).await;
    let mut promises = Vec::new();
    for _ in 0..MANY {
        let request = head(address, WRITE).body(()).unwrap();
        let (answer, mut upload) = requests.clone().ready().await.unwrap().send_request(request, false).unwrap();
        upload.send_data(framed(&vec![1; limit]).slice(..6), false).unwrap();
        promises.push((answer, upload));
    }
    // The server has read them all when it answers what was sent after them.
    assert_eq!(with_metadata(address, &requests, 1).await.unwrap(), (200, Some(framed(&[]))));
    assert!(server.memory() < memory + (64 << 20), "{memory} became {}", server.memory());
    drop(promises);
    driver.abort();
    assert_eq!(call(address, LIST, &[], framed(&[])).await.code(), Code::Ok);
    bounded(
        &server,
        before,
        (32 << 20) + MANY * CALL,
        "a connection's window of 32 MiB, and 300 calls of which hardly anything came",
    );
    told(&log_of(server).await, "(setting server.max_message_bytes): send less at a time", began);
}

/// Opens streams and resets them, and returns what ended the connection.
async fn resets(address: &str) -> Result<(), h2::Error> {
    let (mut requests, connection) = connected(address).await;
    for opened in 0..200_000 {
        requests = requests.clone().ready().await?;
        let (answer, mut upload) = requests.send_request(head(address, LIST).body(()).unwrap(), false)?;
        upload.send_reset(h2::Reason::CANCEL);
        drop(answer);
        if opened % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    connection.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_reset_as_soon_as_they_are_open_end_their_connection() {
    let (began, server) = (clock::now(), Process::start(&[]));
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    client.create_bank(keyed("docs", 2, 8)).await.unwrap();
    let (threads, memory) = (server.threads(), server.memory());
    for _ in 0..MANY / 10 {
        let ended = resets(&server.address).await.expect_err("200,000 streams were opened and reset on one connection");
        // A server that closes while more is on its way resets the connection, and its reason may be lost with it.
        let calm = ended.is_go_away() && ended.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
        assert!(calm || ended.is_io(), "{ended:?}");
    }
    assert_eq!(client.list_banks().await.unwrap().banks.len(), 1);
    bounded(&server, memory, 1_024 * CALL, "as many calls as a connection may have at once");
    assert!(server.threads() <= threads + 4 && server.memory() < memory + (64 << 20), "{} bytes", server.memory());
    told(&log_of(server).await, "said=\"too_many_resets\"", began);
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
    let (threads, memory, began) = (server.threads(), server.memory(), clock::now());
    send(count).await;
    println!(
        "{count} requests of one draw in {:.1?}: {} KiB of memory before, {} after",
        began.elapsed(),
        memory >> 10,
        server.memory() >> 10
    );
    bounded(&server, memory, 64 * (256 << 10), "64 calls at once, each with as much of an answer as HTTP/2 is given at a time");
    assert!(server.threads() <= threads + 4 && server.memory() < memory + (32 << 20), "{memory} became {}", server.memory());
    for _ in 0..1_000 {
        let refused = client.get_bank(v1::GetBankRequest { name: "unknown".into() }).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{refused}");
    }
    let log = log_of(server).await;
    assert!(log.contains("serving") && log.lines().count() < 20, "neither calls nor refusals are logged one by one:\n{log}");
}
