//! Calls that their callers give up.

use std::time::Duration;

use negbank::client::{Client, Options};
use negbank::proto::v1;
use prost::Message as _;
use tonic::Code;

use crate::hostile::{SAMPLE, connected, head};
use crate::lifecycle::Process;
use crate::live::{keyed, uniform};
use crate::probes::{free, get};
use crate::raw::framed;

/// A call that waits for entries until it is given up.
fn waits() -> v1::SampleRequest {
    v1::SampleRequest {
        bank: "empty".into(),
        anchors: Some(v1::Anchors { rows: 1, ..Default::default() }),
        draws: vec![uniform(1)],
        min_entries: 1_000,
        wait_for_entries: true,
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_its_caller_gives_up_is_counted_as_cancelled() {
    let http = free();
    let server = Process::start(&["--set", &format!("http.listen={http}")]);
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    client.create_bank(keyed("empty", 2, 1)).await.unwrap();
    let (mut requests, _connection) = connected(&server.address).await;
    let call = head(&server.address, SAMPLE).body(()).unwrap();
    let (answer, mut upload) = requests.send_request(call, false).unwrap();
    upload.send_data(framed(&waits().encode_to_vec()), true).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    upload.send_reset(h2::Reason::CANCEL);
    drop(answer);
    let series = format!(
        "negbank_grpc_request_seconds_count{{method=\"negbank.v1.Sampling/Sample\",code=\"{}\"}} 1",
        Code::Cancelled as i32
    );
    let counted = async {
        while !get(http, "/metrics").1.lines().any(|line| line == series) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), counted).await.expect(&series);
}
