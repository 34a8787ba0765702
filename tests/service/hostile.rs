//! Clients that hold what they don't read, say nothing, say it slowly, or say too much: each costs a bounded amount, is let go of, and
//! is told of in the log, in a few lines however often it happens.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use negbank::client::{Client, Options, Security, rows};
use negbank::model::clock;
use negbank::proto::v1;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tonic::Code;

use crate::authority::Authority;
use crate::lifecycle::Process;
use crate::live::{keyed, uniform};
use crate::raw::{call, framed};

const SAMPLE: &str = "/negbank.v1.Sampling/Sample";
const LIST: &str = "/negbank.v1.Banks/ListBanks";
const WRITE: &str = "/negbank.v1.Banks/Write";
const DIM: usize = 256;
const ROWS: usize = 4_000;

/// Clients that misbehave at once.
const MANY: usize = 300;

/// Longer than anything here lasts.
const LONG: Duration = Duration::from_secs(120);

/// An answer of 4 MB.
async fn large(client: &Client) -> Bytes {
    client.create_bank(keyed("docs", DIM as u32, 8)).await.unwrap();
    let ids = (0..ROWS as u64).collect();
    let embeddings = Some(rows(&vec![1.0; ROWS * DIM]));
    client.write(v1::WriteRequest { bank: "docs".into(), ids, embeddings, ..Default::default() }).await.unwrap();
    let anchors = Some(v1::Anchors { rows: 1, ..Default::default() });
    let request = v1::SampleRequest { bank: "docs".into(), anchors, draws: vec![uniform(ROWS as u32)], ..Default::default() };
    framed(&request.encode_to_vec())
}

/// A connection whose calls are made by hand.
async fn connected(address: &str) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let (requests, connection) = h2::client::handshake(TcpStream::connect(address).await.unwrap()).await.unwrap();
    (requests, tokio::spawn(connection))
}

fn head(address: &str, path: &str) -> http::request::Builder {
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
fn told(log: &str, of: &str, since: Instant) {
    let lines = log.lines().filter(|line| line.contains(of)).count();
    let most = 10 * (since.elapsed().as_secs() as usize / 10 + 1);
    assert!((1..=most).contains(&lines), "{lines} lines tell of {of:?}, and {most} may:\n{log}");
}

/// All that a server logged, ended so that whatever it was about to log is there.
async fn log_of(server: Process) -> String {
    server.signal("-TERM");
    server.ended().await.1
}

/// Says so many bytes of this, and then one a second, until it is let go of.
async fn dribble(address: String, said: Vec<u8>, at_once: usize) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut rest = said.into_iter();
    let first: Vec<u8> = rest.by_ref().take(at_once).collect();
    stream.write_all(&first).await.unwrap();
    let mut heard = [0; 1_024];
    loop {
        match timeout(Duration::from_secs(1), stream.read(&mut heard)).await {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(_)) => {}
            Err(_) => {
                if let Some(byte) = rest.next()
                    && stream.write_all(&[byte]).await.is_err()
                {
                    return;
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

    let mut stuck = answers(&server.address, &request, 20).await;
    let cut = async {
        // What fits the window comes; nothing is acknowledged.
        while let Some(piece) = stuck[0].data().await {
            if piece.is_err() {
                return;
            }
        }
        panic!("4 MB came through a window of 64 KiB");
    };
    tokio::time::timeout(Duration::from_secs(60), cut).await.expect("an answer that nobody reads is not kept");
    assert_eq!(client.list_banks().await.unwrap().banks.len(), 1, "others notice nothing");
    let log = server.killed();
    let lines = log.matches("did not read its answer (setting server.answer_seconds)").count();
    assert_eq!(lines, 1, "a line a connection, and not one an answer:\n{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_connects_and_says_nothing_is_let_go_of() {
    let (began, server) = (clock::now(), Process::start(&[]));
    // A word of the greeting, and ten seconds more of it.
    let greetings = many(|| dribble(server.address.clone(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), 4));
    Client::connect(&server.address, Options::default()).await.unwrap().list_banks().await.expect("others are served");
    all_end(greetings).await;
    told(&log_of(server).await, "a client connected and said nothing", began);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_byte_by_byte_is_given_up() {
    let (began, server) = (clock::now(), Process::start(&["--set", "server.default_deadline_seconds=2"]));
    let count = AtomicUsize::new(0);
    let uploads = many(|| {
        let address = server.address.clone();
        // Every other one says that it has eleven thousand years.
        let patient = count.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        async move {
            let (mut requests, _driver) = connected(&address).await;
            let head = head(&address, WRITE);
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
    told(&log_of(server).await, "had not come whole by its deadline", began);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_of_tls_that_never_ends_is_given_up() {
    let (authority, folder) = (Authority::new("ours"), tempfile::tempdir().unwrap());
    let issued = authority.server("localhost");
    let settings = [("tls.certificate", issued.certificate), ("tls.key", issued.key)].map(|(setting, pem)| {
        let file = folder.path().join(setting);
        std::fs::write(&file, pem).unwrap();
        format!("{setting}={}", file.display())
    });
    let (began, server) = (clock::now(), Process::start(&["--set", &settings[0], "--set", &settings[1]]));
    // A record of 512 bytes, slowly.
    let handshakes = many(|| dribble(server.address.clone(), [&[22, 3, 1, 2, 0][..], &[0; 512]].concat(), 5));
    let security = Security { ca: Some(authority.certificate().into_bytes()), ..Security::default() };
    let port = server.address.rsplit_once(':').unwrap().1;
    let options = Options { security, ..Options::default() };
    let client = Client::connect(&format!("https://localhost:{port}"), options).await.expect("others find a place");
    client.list_banks().await.expect("others are served");
    all_end(handshakes).await;
    told(&log_of(server).await, "a TLS handshake failed", began);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_that_asks_byte_by_byte_is_let_go_of() {
    let arguments = ["--listen", "127.0.0.1:0", "--set", "http.listen=127.0.0.1:0"];
    let server = Process::start_at("probes=", &arguments);
    let probe = [&b"GET /livez HTTP/1.1\r\nX: "[..], &[b'x'; 1_000]].concat();
    let probes = many(|| dribble(server.address.clone(), probe.clone(), 10));
    let mut other = TcpStream::connect(&server.address).await.unwrap();
    other.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "others are answered: {answer}");
    all_end(probes).await;
}

/// The status of the answer to a call with so many bytes of metadata, and what it says first.
async fn with_metadata(address: &str, requests: &SendRequest<Bytes>, bytes: usize) -> Result<(u16, Option<Bytes>), h2::Error> {
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
    let address = &server.address;
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
    let log = log_of(server).await;
    told(&log, "a call's metadata were too large (no setting): refused with HTTP status 431", began);
    told(&log, "said=\"header_list_way_too_large\"", began);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_giant_message_is_refused_before_it_is_there() {
    let limit = 4 << 20;
    let (began, server) = (clock::now(), Process::start(&["--set", &format!("server.max_message_bytes={limit}")]));
    let address = &server.address;
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
    told(&log_of(server).await, "(setting server.max_message_bytes): send less at a time", began);
}

/// Opens streams and resets them; true if that ended the connection.
async fn resets(address: &str) -> bool {
    let (mut requests, connection) = connected(address).await;
    for opened in 0..200_000 {
        let Ok(ready) = requests.clone().ready().await else { return true };
        requests = ready;
        let Ok((answer, mut upload)) = requests.send_request(head(address, LIST).body(()).unwrap(), false) else { return true };
        upload.send_reset(h2::Reason::CANCEL);
        drop(answer);
        if opened % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    connection.abort();
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_reset_as_soon_as_they_are_open_end_their_connection() {
    let (began, server) = (clock::now(), Process::start(&[]));
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    client.create_bank(keyed("docs", 2, 8)).await.unwrap();
    let (threads, memory) = (server.threads(), server.memory());
    for _ in 0..MANY / 10 {
        assert!(resets(&server.address).await, "200,000 streams were opened and reset on one connection");
    }
    assert_eq!(client.list_banks().await.unwrap().banks.len(), 1);
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
    let (threads, memory) = (server.threads(), server.memory());
    send(count).await;
    assert!(server.threads() <= threads + 4 && server.memory() < memory + (32 << 20), "{memory} became {}", server.memory());
    for _ in 0..1_000 {
        client.get_bank(v1::GetBankRequest { name: "unknown".into() }).await.unwrap_err();
    }
    let log = log_of(server).await;
    assert!(log.contains("serving") && log.lines().count() < 20, "neither calls nor refusals are logged one by one:\n{log}");
}
