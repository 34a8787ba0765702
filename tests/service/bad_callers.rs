//! Callers that send rubbish, come late, leave early or ask for the moon.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use negbank::client::{Client, ClientError, Options, rows};
use negbank::model::clock;
use negbank::proto::v1;
use prost::Message as _;
use tonic::Code;

use crate::abuse;
use crate::lifecycle::Process;
use crate::live::{Live, keyed, nearest, uniform};
use crate::raw::{call, framed};

const WRITE: &str = "/negbank.v1.Banks/Write";
const SAMPLE: &str = "/negbank.v1.Sampling/Sample";
const SCAN: &str = "/negbank.v1.Banks/Scan";

fn write() -> v1::WriteRequest {
    v1::WriteRequest { bank: "docs".into(), ids: vec![1], embeddings: Some(rows(&[1.0, 0.0])), ..Default::default() }
}

fn sample() -> v1::SampleRequest {
    let anchors = Some(v1::Anchors { embeddings: Some(rows(&[1.0, 0.5])), ..Default::default() });
    v1::SampleRequest { bank: "docs".into(), anchors, draws: vec![uniform(1)], ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_comes_too_late_does_no_work() {
    let live = Live::start(&[]).await;
    live.create(keyed("docs", 2, 8)).await;
    let scan = v1::ScanRequest { bank: "docs".into(), ..Default::default() };
    let calls = [
        (WRITE, framed(&write().encode_to_vec())),
        (SAMPLE, framed(&sample().encode_to_vec())),
        (SCAN, framed(&scan.encode_to_vec())),
        // Not even decoded.
        (WRITE, framed(&[0xff; 100])),
    ];
    for late in ["0n", "1n", "0m", "0H"] {
        for (path, body) in &calls {
            let status = call(&live.address, path, &[("grpc-timeout", late)], body.clone()).await;
            assert_eq!(status.code(), Code::DeadlineExceeded, "{path} {late}: {status:?}");
        }
    }
    let bank = live.client.get_bank(v1::GetBankRequest { name: "docs".into() }).await.unwrap();
    assert_eq!(bank.sequence, 0, "a write that came too late was applied");
    let in_time = call(&live.address, WRITE, &[("grpc-timeout", "20S")], framed(&write().encode_to_vec())).await;
    assert_eq!(in_time.code(), Code::Ok, "{in_time:?}");
    for unreadable in ["", "soon", "-1S", "999999999S"] {
        let status = call(&live.address, WRITE, &[("grpc-timeout", unreadable)], framed(&write().encode_to_vec())).await;
        assert_eq!(status.code(), Code::Ok, "{unreadable:?} is no deadline, so the default holds: {status:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_takes_too_long_is_cut() {
    let live = Live::start(&[]).await;
    let connection = tokio::net::TcpStream::connect(&live.address).await.unwrap();
    let (mut requests, connection) = h2::client::handshake(connection).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://{}{WRITE}", live.address))
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "200m");
    let (answer, mut upload) = requests.send_request(request.body(()).unwrap(), false).unwrap();
    // The message never ends.
    upload.send_data(framed(&write().encode_to_vec()).slice(..8), false).unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(20), answer).await.expect("the deadline passes").unwrap();
    let status = tonic::Status::from_header_map(answer.headers()).unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_together_stay_within_their_room() {
    let live = Live::start(&["server.max_message_bytes=8388608", "server.max_inbound_bytes=8388608"]).await;
    live.create(keyed("docs", 2, 8)).await;
    let ids: Vec<u64> = (0..400_000).collect();
    let large = v1::WriteRequest { embeddings: Some(rows(&[1.0; 2])), ids, ..write() };
    let once = live.client.with_retries(0);
    // Whoever comes last to a full room is refused. So the upload is given ever more time to arrive before the write is sent.
    let mut patience = Duration::from_millis(10);
    let (full, upload) = loop {
        let upload = unfinished(&live.address, 6 << 20).await;
        tokio::time::sleep(patience).await;
        match once.write(large.clone()).await.unwrap_err() {
            ClientError::InvalidArgument { .. } => patience *= 2,
            refused => break (refused, upload),
        }
        assert!(patience < Duration::from_secs(10), "there is room for everything");
        upload.abort();
    };
    let ClientError::ResourceExhausted { message, retry_after } = &full else { panic!("{full:?}") };
    assert!(message.contains("server.max_inbound_bytes") && message.contains("8388608"), "{message}");
    assert!(retry_after.is_some());
    live.client.write(write()).await.expect("what fits is taken");
    upload.abort();
    let patient = live.client.with_retries(20);
    let refused = patient.write(large).await.unwrap_err();
    assert!(matches!(refused, ClientError::InvalidArgument { .. }), "its room is free again: {refused:?}");
}

/// Sends that many bytes of a write that never ends, until the task is aborted.
async fn unfinished(address: &str, bytes: usize) -> tokio::task::JoinHandle<()> {
    let connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut requests, connection) = h2::client::handshake(connection).await.unwrap();
    let request = http::Request::post(format!("http://{address}{WRITE}")).header("content-type", "application/grpc");
    let request = request.body(()).unwrap();
    tokio::spawn(async move {
        let (_answer, mut upload) = requests.send_request(request, false).unwrap();
        upload.send_data(framed(&vec![1u8; bytes + 1]).slice(..bytes), false).unwrap();
        drop(connection.await);
    })
}

/// Sends what is no request, in many ways; the server must refuse and serve on.
async fn rubbish(address: &str) {
    let message = write().encode_to_vec();
    let mut compressed = framed(&message).to_vec();
    compressed[0] = 1;
    let cut = framed(&message).slice(..message.len() - 3);
    let huge = Bytes::from_static(&[0, 0x7f, 0xff, 0xff, 0xff, 1, 2, 3]);
    for path in [WRITE, SAMPLE, SCAN, "/negbank.v1.Banks/CreateBank", "/negbank.v1.Gathering/Gather"] {
        for undecodable in [framed(&[0xff; 1_000]), framed(&message[..message.len() - 1])] {
            let status = call(address, path, &[], undecodable).await;
            assert_eq!(status.code(), Code::InvalidArgument, "{path}: {status:?}");
            assert!(status.message().starts_with("request: is not a message of this method"), "{path}: {status:?}");
        }
        for body in [&Bytes::from(compressed.clone()), &cut] {
            let status = call(address, path, &[], body.clone()).await;
            let refused = [Code::Internal, Code::InvalidArgument, Code::Unimplemented, Code::NotFound];
            assert!(refused.contains(&status.code()), "{path}: {status:?}");
        }
        let status = call(address, path, &[], huge.clone()).await;
        assert_eq!(status.code(), Code::ResourceExhausted, "{path}: {status:?}");
        assert!(status.message().contains("server.max_message_bytes"), "{path}: {status:?}");
    }
    let status = call(address, "/negbank.v1.Banks/Nothing", &[], framed(&[])).await;
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    for junk in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4_096], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff"]
    {
        let mut connection = std::net::TcpStream::connect(address).unwrap();
        connection.write_all(junk).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_is_refused() {
    let live = Live::start(&[]).await;
    rubbish(&live.address).await;
    assert!(live.client.list_banks().await.unwrap().banks.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_field_is_refused_by_name() {
    let live = Live::start(&[]).await;
    abuse::everything(&live.client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_told_before_the_request_waits() {
    let live = Live::start(&[]).await;
    live.create(keyed("docs", 2, 8)).await;
    let client = live.client.with_timeout(Duration::from_secs(600));
    let mut ahead = live.client.write(write()).await.unwrap().position.to_vec();
    ahead[8] += 1;
    let wrong = [
        v1::SampleRequest { draws: vec![uniform(0)], ..sample() },
        v1::SampleRequest { layout: 7, ..sample() },
        v1::SampleRequest { write: Some(v1::WriteRequest { labels: vec![1; 9], ..write() }), ..sample() },
    ];
    for request in wrong {
        let patient = v1::SampleRequest { min_entries: 9, wait_for_entries: true, ..request.clone() };
        let behind = v1::SampleRequest { at_least: ahead.clone().into(), ..request };
        for waiting in [patient, behind] {
            let refused = tokio::time::timeout(Duration::from_secs(20), client.sample(waiting)).await.expect("at once");
            assert!(matches!(refused, Err(ClientError::InvalidArgument { .. })), "{refused:?}");
        }
    }
}

/// A search of many seconds on one thread.
async fn heavy(client: &Client) -> v1::SampleRequest {
    let dim = 256;
    let ids: Vec<u64> = (0..20_000).collect();
    client.create_bank(keyed("heavy", dim as u32, 8)).await.unwrap();
    let x: Vec<f32> = (0..20_000 * dim).map(|at| ((at * 31 + at / dim * 17) % 101) as f32 - 50.0).collect();
    let embeddings = Some(rows(&x));
    client.write(v1::WriteRequest { bank: "heavy".into(), ids, embeddings, ..Default::default() }).await.unwrap();
    let anchors: Vec<f32> = (0..16_000 * dim).map(|at| (at % 97) as f32 - 48.0).collect();
    let anchors = Some(v1::Anchors { embeddings: Some(rows(&anchors)), ..Default::default() });
    let columns = vec![v1::Column::Ids.into()];
    v1::SampleRequest { bank: "heavy".into(), anchors, draws: vec![nearest(1)], columns, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_stops_when_its_caller_leaves_or_its_deadline_passes() {
    let live = Live::start(&["compute.threads=1"]).await;
    live.create(keyed("docs", 2, 8)).await;
    live.client.write(write()).await.unwrap();
    let heavy = heavy(&live.client).await;
    let began = clock::now();
    live.client.sample(heavy.clone()).await.unwrap();
    let whole = began.elapsed();
    let next = async || {
        let began = clock::now();
        live.client.sample(sample()).await.unwrap();
        began.elapsed()
    };

    let client = live.client.clone();
    let leaves = tokio::spawn({
        let heavy = heavy.clone();
        async move { client.sample(heavy).await }
    });
    tokio::time::sleep(whole / 10).await;
    assert!(!leaves.is_finished(), "the call must be in flight when its caller leaves");
    leaves.abort();
    let after_leaving = next().await;
    assert!(after_leaving < whole / 2, "{after_leaving:?} after a caller of {whole:?} left: the thread worked on for nobody");

    let hurried = live.client.with_timeout(whole / 10).sample(heavy).await;
    assert!(matches!(hurried, Err(ClientError::DeadlineExceeded(_))), "{hurried:?}");
    let after_deadline = next().await;
    assert!(after_deadline < whole / 2, "{after_deadline:?} after a deadline of {:?} passed", whole / 10);
}

/// Bytes of ten million ids.
const ONE_MESSAGE: usize = 80_000_000;

/// Ten million ids.
async fn too_many_ids(client: &Client) {
    let lists = v1::IdLists { values: vec![7; 10_000_000], counts: Vec::new() };
    let anchors = v1::Anchors { denied_ids: Some(lists), ..sample().anchors.unwrap() };
    let refused = client.sample(v1::SampleRequest { anchors: Some(anchors), ..sample() }).await;
    let Err(ClientError::InvalidArgument { message, .. }) = refused else { panic!("{refused:?}") };
    assert!(message.contains("10000000 is over the limit of 1048576 (setting limits.max_listed_ids)"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abuse_leaves_nothing_behind() {
    let server = Process::start(&["--set", "server.max_message_bytes=134217728"]);
    let options = Options { max_message_bytes: 128 << 20, ..Options::default() };
    let client = Client::connect(&server.address, options).await.unwrap();
    client.create_bank(keyed("docs", 2, 8)).await.unwrap();
    client.write(write()).await.unwrap();
    let round = async || {
        abuse::everything(&client).await;
        rubbish(&server.address).await;
        too_many_ids(&client).await;
        for _ in 0..50 {
            let scan = v1::ScanRequest { bank: "docs".into(), ..Default::default() };
            call(&server.address, SCAN, &[("grpc-timeout", "0n")], framed(&scan.encode_to_vec())).await;
        }
    };
    // What an allocator keeps for the next time is kept after the first; how much it varies is less than one message of 80 MB.
    round().await;
    let (threads, memory) = (server.threads(), server.memory());
    for _ in 0..4 {
        round().await;
    }
    let back = async {
        while server.threads() > threads || server.memory() > memory + ONE_MESSAGE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(30), back).await.is_err() {
        panic!("{threads} threads and {memory} bytes became {} and {}", server.threads(), server.memory());
    }
    assert_eq!(client.sample(sample()).await.unwrap().draws[0].counts, [1]);
    let log = server.killed();
    assert!(!log.contains("panicked") && !log.contains(" ERROR "), "{log}");
}
