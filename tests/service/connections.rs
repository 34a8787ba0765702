//! Connections that grow old, and clients that are gone though nobody said so.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use negbank::client::{Client, Options, rows};
use negbank::model::clock;
use negbank::proto::v1;
use tokio::io::{AsyncReadExt as _, copy, duplex, split};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::Status;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::hostile::{LARGE, SAMPLE, WRITE, connected, head, large, log_of, told, with_metadata};
use crate::lifecycle::Process;
use crate::live::{keyed, queue, uniform};
use crate::mirror::banks;
use crate::probes::{free, get, value};
use crate::raw::framed;

/// Longer than anything here lasts.
const LONG: Duration = Duration::from_secs(60);

/// How long an old connection is used: while three others take its place.
const WHILE: Duration = Duration::from_millis(3_500);

/// A server whose connections are old after a second, a tenth more or less, and have so many seconds to end.
fn aging(grace: u64) -> Process {
    let grace = format!("server.drain_seconds={grace}");
    Process::start(&["--set", "server.max_connection_age_seconds=1", "--set", &grace])
}

/// Passes on what goes to a server and comes from it, and counts the connections.
struct Between {
    address: String,
    connections: Arc<AtomicUsize>,
}

impl Between {
    async fn new(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, server) = (listener.local_addr().unwrap().to_string(), server.to_owned());
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut server = TcpStream::connect(&server).await.unwrap();
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
            }
        });
        Self { address, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// A client that tries nothing again, so that whatever fails is seen.
    async fn client(&self) -> Client {
        Client::connect(&self.address, Options { retries: 0, ..Options::default() }).await.unwrap()
    }
}

/// Appends a row. It is signed by nobody: sent twice, it would be there twice.
fn append() -> v1::WriteRequest {
    v1::WriteRequest { bank: "q".into(), ids: vec![7], embeddings: Some(rows(&[1.0, 0.0])), ..Default::default() }
}

fn sample() -> v1::SampleRequest {
    let anchors = Some(v1::Anchors { rows: 1, ..Default::default() });
    v1::SampleRequest { bank: "q".into(), anchors, draws: vec![uniform(1)], ..Default::default() }
}

async fn appended(client: &Client) -> u64 {
    client.get_bank(v1::GetBankRequest { name: "q".into() }).await.unwrap().sequence
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_in_use_is_replaced_when_it_is_old_and_no_call_fails() {
    let server = aging(20);
    let between = Between::new(&server.address).await;
    let client = between.client().await;
    client.create_bank(queue("q", 2, 1, 1_000)).await.unwrap();
    let until = clock::now() + WHILE;
    let mut working = JoinSet::new();
    for number in 0..4 {
        let client = client.clone();
        working.spawn(async move {
            let mut written = 0;
            while clock::now() < until {
                if number % 2 == 0 {
                    client.write(append()).await.expect("a write");
                    written += 1;
                } else {
                    client.sample(sample()).await.expect("a draw");
                }
            }
            written
        });
    }
    let written: u64 = working.join_all().await.into_iter().sum();
    assert_eq!(appended(&client).await, written, "each was applied once");
    let connections = between.connections();
    assert!((3..=8).contains(&connections), "{connections} connections in {WHILE:?}");
}

/// Whether tonic itself refused the call, since its connection was ending: over that it may send nothing, and it tries no other.
fn was_never_sent(fault: &Status) -> bool {
    let mut causes = std::iter::successors(fault.source(), |&fault| fault.source());
    let goes_away = |fault: &h2::Error| fault.is_go_away() && fault.is_remote() && fault.reason() == Some(h2::Reason::NO_ERROR);
    match causes.find_map(|cause| cause.downcast_ref()) {
        Some(fault) => goes_away(fault),
        None => fault.code() == tonic::Code::Cancelled && fault.message() == "operation was canceled",
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_without_a_client_of_ours_goes_on_and_no_call_that_it_sent_fails() {
    let server = aging(20);
    let between = Between::new(&server.address).await;
    let mut channel = banks(&between.address).await;
    channel.create_bank(queue("q", 2, 1, 1_000)).await.unwrap();
    let until = clock::now() + WHILE;
    let (mut written, mut unsent) = (0, 0);
    while clock::now() < until {
        match channel.write(append()).await {
            Ok(_) => written += 1,
            Err(fault) => {
                assert!(was_never_sent(&fault), "{fault:?}");
                unsent += 1;
            }
        }
    }
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    assert_eq!(appended(&client).await, written, "what the channel did not send was not applied");
    let connections = between.connections();
    assert!((3..=8).contains(&connections), "{connections} connections in {WHILE:?}");
    assert!(unsent < connections, "{unsent} calls over {connections} connections: one, where a connection ends under it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_in_flight_is_finished_while_its_client_goes_on_over_another_connection() {
    let server = aging(20);
    let between = Between::new(&server.address).await;
    let client = between.client().await;
    client.create_bank(queue("q", 2, 1, 1_000)).await.unwrap();
    let waiting = tokio::spawn({
        let (client, request) = (client.clone(), v1::SampleRequest { min_entries: 1, wait_for_entries: true, ..sample() });
        async move { client.sample(request).await }
    });
    let (requests, driver) = connected(&server.address).await;
    timeout(LONG, driver).await.expect("it is asked to end").unwrap().expect("and ends in peace");
    let refused = requests.ready().await.map(drop).unwrap_err();
    assert!(refused.is_go_away() && refused.is_remote(), "{refused:?}");
    assert_eq!(refused.reason(), Some(h2::Reason::NO_ERROR));

    // The other connection is the older one, and may last a fifth of a second longer.
    sleep(Duration::from_millis(600)).await;
    assert!(!waiting.is_finished(), "it waits for an entry");
    assert_eq!(between.connections(), 1);
    client.write(append()).await.expect("a call that no ending connection takes is sent over another");
    assert_eq!(between.connections(), 2);
    let answer = waiting.await.unwrap().expect("a call in flight has the grace to end in");
    assert_eq!(answer.draws[0].n, [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_began_together_are_asked_to_end_one_by_one() {
    let age = Duration::from_secs(5);
    let server = Process::start(&["--set", &format!("server.max_connection_age_seconds={}", age.as_secs())]);
    let began = clock::now();
    let mut ending = JoinSet::new();
    for _ in 0..24 {
        let (requests, driver) = connected(&server.address).await;
        ending.spawn(async move {
            timeout(LONG, driver).await.expect("it is asked to end").unwrap().expect("and ends in peace");
            drop(requests);
            clock::now()
        });
    }
    let all_there = began.elapsed();
    let mut ended = ending.join_all().await;
    ended.sort();
    let (first, last) = (ended[0], ended[ended.len() - 1]);
    assert!(first - began >= age * 9 / 10, "a tenth sooner at most: {:?}", first - began);
    // All within a tenth of the time that they have are one in ten to the 22nd.
    assert!(last - first >= age / 50, "{:?} from the first to the last, of which {all_there:?} to begin them", last - first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_does_not_end_is_cut_after_the_grace() {
    let server = aging(1);
    let began = clock::now();
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let mut health = HealthClient::new(endpoint.connect().await.unwrap());
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let fault = timeout(LONG, watch.message()).await.expect("it is held for ever").unwrap_err();
    assert!(fault.source().is_some(), "the connection is cut, and no word ends the call: {fault:?}");
    assert!(began.elapsed() >= Duration::from_millis(1_900), "a second of age, and one of grace: {:?}", began.elapsed());
    Client::connect(&server.address, Options::default()).await.unwrap().list_banks().await.expect("others are served");
    let log = log_of(server).await;
    assert_eq!(log.matches("older than server.max_connection_age_seconds").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_connects_beyond_the_limit_is_closed_and_finds_a_place_when_another_leaves() {
    let most = 3;
    let (began, server) = (clock::now(), Process::start(&["--set", &format!("server.max_connections={most}")]));
    let address = &server.address;
    let mut within = Vec::new();
    for _ in 0..most {
        let connection = connected(address).await;
        assert_eq!(with_metadata(address, &connection.0, 1).await.unwrap().0, 200);
        within.push(connection);
    }
    for _ in 0..20 {
        let mut beyond = TcpStream::connect(address).await.unwrap();
        let heard = timeout(LONG, beyond.read(&mut [0])).await.expect("it is held");
        assert!(matches!(heard, Ok(0)), "{heard:?}");
    }
    for (requests, _) in &within {
        assert_eq!(with_metadata(address, requests, 1).await.unwrap().0, 200, "those that are there notice nothing");
    }
    drop(within.pop());
    let finds_a_place = async {
        loop {
            let (requests, _driver) = connected(address).await;
            match with_metadata(address, &requests, 1).await {
                Ok((status, _)) => return status,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    };
    assert_eq!(timeout(LONG, finds_a_place).await.expect("no place is given back"), 200);
    told(&log_of(server).await, "as many connections as there may be (setting server.max_connections)", began);
}

/// A connection that its client never closes, whatever its calls do.
async fn unclosed(address: &str) -> SendRequest<Bytes> {
    let (mut from, mut to) = TcpStream::connect(address).await.unwrap().into_split();
    let (ours, theirs) = duplex(1 << 16);
    let (mut said, mut heard) = split(theirs);
    tokio::spawn(async move { copy(&mut from, &mut heard).await });
    tokio::spawn(async move {
        copy(&mut said, &mut to).await.unwrap();
        std::future::pending::<()>().await;
        drop(to);
    });
    let (requests, connection) = h2::client::handshake(ours).await.unwrap();
    tokio::spawn(connection);
    requests
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_close_its_connection_holds_up_no_drain() {
    let server = Process::start(&["--set", "server.drain_seconds=3"]);
    let requests = unclosed(&server.address).await;
    assert_eq!(with_metadata(&server.address, &requests, 1).await.unwrap().0, 200);
    let (code, log) = server.ended_by("-TERM").await;
    assert!(code == Some(0) && log.contains("drained"), "{code:?}: no call was in flight:\n{log}");
    drop(requests);
}

/// A connection that nobody looks after any more: what comes stays where it is, PINGs too.
type Silent = (SendRequest<Bytes>, Connection<TcpStream>, Vec<h2::client::ResponseFuture>);

/// Asks so many times, with a window as wide as this, and goes silent when the first answer has begun.
async fn silent_reader(address: &str, request: &Bytes, window: u32, count: usize) -> (Silent, h2::RecvStream) {
    let socket = TcpSocket::new_v4().unwrap();
    // Its kernel takes little in its place.
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let stream = socket.connect(address.parse().unwrap()).await.unwrap();
    let mut builder = Builder::new();
    builder.initial_window_size(window).initial_connection_window_size(window);
    let (mut requests, mut connection) = builder.handshake::<_, Bytes>(stream).await.unwrap();
    let mut answers: Vec<_> = (0..count)
        .map(|_| {
            let (answer, mut upload) = requests.send_request(head(address, SAMPLE).body(()).unwrap(), false).unwrap();
            upload.send_data(request.clone(), true).unwrap();
            answer
        })
        .collect();
    let first = answers.remove(0);
    let answer = tokio::select! {
        ended = &mut connection => panic!("{ended:?}"),
        answer = first => answer.unwrap(),
    };
    ((requests, connection, answers), answer.into_body())
}

/// Sends half of a write and goes silent.
async fn silent_writer(address: &str, bytes: usize) -> (Silent, h2::SendStream<Bytes>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut requests, mut connection) = h2::client::handshake(stream).await.unwrap();
    let (answer, mut upload) = requests.send_request(head(address, WRITE).body(()).unwrap(), false).unwrap();
    upload.send_data(framed(&vec![1; 2 * bytes]).slice(..bytes), false).unwrap();
    let ended = timeout(Duration::from_millis(500), &mut connection).await;
    assert!(ended.is_err(), "{ended:?}");
    ((requests, connection, vec![answer]), upload)
}

/// What does not read within `server.answer_seconds`, and what does not come within `server.default_deadline_seconds`, is cut as well, but
/// after a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_gone_silent_is_cut_and_holds_nothing_any_more_and_who_is_idle_is_not() {
    let http = free();
    let listen = format!("http.listen={http}");
    let alive = ["--set", "server.keepalive_seconds=2", "--set", "server.keepalive_timeout_seconds=1", "--set", &listen];
    let server = Process::start(&alive);
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    let request = large(&client).await;
    let (idle, driver) = connected(&server.address).await;
    assert_eq!(with_metadata(&server.address, &idle, 1).await.unwrap().0, 200);
    let held = |part: &str| value(&get(http, "/metrics").1, &format!("negbank_memory_bytes{{part=\"{part}\"}}"));
    let began = clock::now();
    let (connections, answers, requests) = (server.connections(), held("answers"), held("requests"));

    // One is stopped by HTTP/2's window; to the other, with a wider one, TCP takes no more bytes, and so no PING and no GOAWAY.
    let narrow = silent_reader(&server.address, &request, 65_535, 1).await;
    let wide = silent_reader(&server.address, &request, 1 << 24, 4).await;
    let sent = 2 << 20;
    let writer = silent_writer(&server.address, sent).await;
    let taken = (held("answers") - answers, held("requests") - requests);
    assert!(taken.0 > 4.0 * LARGE as f64 && taken.1 >= sent as f64, "bytes of answers and requests: {taken:?}");
    assert_eq!(server.connections(), connections + 3);

    let let_go = async {
        while server.connections() > connections || held("answers") > answers || held("requests") > requests {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(20), let_go).await.unwrap_or_else(|_| {
        let (answers, requests) = (held("answers"), held("requests"));
        panic!("{} connections, {answers} bytes of answers and {requests} of requests are held", server.connections())
    });
    assert!(began.elapsed() >= Duration::from_secs(3), "two seconds until they are asked, and one to answer");
    drop((writer, narrow, wide));

    sleep(Duration::from_secs(4).saturating_sub(began.elapsed())).await;
    assert!(!driver.is_finished(), "who answers is not cut, though it says nothing else");
    assert_eq!(with_metadata(&server.address, &idle, 1).await.unwrap().0, 200);
    // So is our own client, which was idle too.
    assert_eq!(client.list_banks().await.unwrap().banks.len(), 1);
    client.create_bank(keyed("other", 2, 1)).await.unwrap();
    assert_eq!(server.connections(), connections);
    let log = log_of(server).await;
    assert_eq!(log.matches("a client took nothing that it was sent").count(), 1, "{log}");
}

/// Ranks of a training connect at the same time, and the server may be busy then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_connect_at_once_get_in_though_the_server_is_busy() {
    const RANKS: usize = 400;
    let server = Process::start(&[]);
    server.signal("-STOP");
    let mut ranks = JoinSet::new();
    for _ in 0..RANKS {
        let address = server.address.clone();
        ranks.spawn(async move {
            timeout(LONG, TcpStream::connect(address)).await.expect("the system makes it meanwhile").unwrap()
        });
    }
    let connected = ranks.join_all().await;
    server.signal("-CONT");
    let mut answered = JoinSet::new();
    for stream in connected {
        let address = server.address.clone();
        answered.spawn(async move {
            let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
            let driver = tokio::spawn(connection);
            let list = head(&address, "/negbank.v1.Banks/ListBanks").body(()).unwrap();
            let (answer, mut upload) = requests.send_request(list, false).unwrap();
            upload.send_data(framed(&[]), true).unwrap();
            let answer = timeout(LONG, answer).await.expect("it is answered").expect("its connection is not reset");
            assert_eq!(answer.status(), 200);
            driver.abort();
        });
    }
    answered.join_all().await;
}
