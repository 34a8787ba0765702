//! Clients that ask health and reflection, which want no token, for more than they read.

use super::*;

/// A request with which a conversation with reflection begins.
fn question() -> Bytes {
    let symbol = "negbank.v1.Sampling".to_owned();
    let message_request = Some(reflection::server_reflection_request::MessageRequest::FileContainingSymbol(symbol));
    framed(&reflection::ServerReflectionRequest { message_request, ..Default::default() }.encode_to_vec())
}

const REFLECT: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_to_reflection_whose_answers_nobody_reads_are_not_kept() {
    let server = Process::start(&[]);
    let (address, before) = (&server.address, server.memory());
    let questions = Bytes::from(question().repeat(1_000));
    let (count, most) = (8, 12 << 20);
    let mut talking = Vec::new();
    for _ in 0..count {
        let (mut requests, driver) = connected(address).await;
        let (answer, mut upload) = requests.send_request(head(address, REFLECT).body(()).unwrap(), false).unwrap();
        let mut sent = 0;
        while sent < most {
            upload.reserve_capacity(questions.len());
            let room = std::future::poll_fn(|context| upload.poll_capacity(context));
            // None: the server wants no more.
            let Ok(Some(Ok(room))) = timeout(Duration::from_secs(1), room).await else { break };
            let piece = questions.slice(..room.min(questions.len()));
            sent += piece.len();
            if upload.send_data(piece, false).is_err() {
                break;
            }
        }
        talking.push((requests, driver, answer, upload));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let each = CONNECTION + CALL + (64 << 10) + (512 << 10);
    bounded(
        &server,
        before,
        count * each,
        "eight conversations of 64 KiB, with two answers each and what HTTP/2 is given of one",
    );
    assert_eq!(call(address, LIST, &[], framed(&[])).await.code(), Code::Ok);
    let refused = call(address, "/grpc.health.v1.Health/Check", &[], framed(&vec![10; 100 << 10])).await;
    assert!(refused.code() == Code::ResourceExhausted && refused.message().contains("65536 bytes"), "{refused:?}");
    drop(talking);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_of_health_are_bounded() {
    let server = Process::start(&[]);
    let (mut first, mut other) =
        (HealthClient::new(channel(&server.address).await), HealthClient::new(channel(&server.address).await));
    let mut watches = Vec::new();
    for _ in 0..1_024 {
        watches.push(first.watch(HealthCheckRequest::default()).await.unwrap());
    }
    let refused = other.watch(HealthCheckRequest::default()).await.unwrap_err();
    assert!(refused.code() == Code::ResourceExhausted && refused.message().contains("1024 watches"), "{refused:?}");
    other.check(HealthCheckRequest::default()).await.expect("a probe is answered all the same");
    watches.pop();
    let finds_a_place = async {
        while other.watch(HealthCheckRequest::default()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, finds_a_place).await.expect("no place is given back");
}
