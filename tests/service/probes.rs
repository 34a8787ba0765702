//! What probes and Prometheus are answered, over HTTP.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use negbank::client::{Client, Options, rows};
use negbank::proto::v1;

use crate::hostile::{answered, per_anchor};
use crate::lifecycle::Process;
use crate::live::{keyed, nearest, uniform};

/// A free port, for a moment.
pub(crate) fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The status code and the body that `path` is answered with.
pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// k of the eligible entries, each time any of them.
fn with_replacement(k: u32) -> v1::Draw {
    let strategy = v1::draw::Strategy::Uniform(v1::Uniform { with_replacement: true });
    v1::Draw { k, strategy: Some(strategy), ..Default::default() }
}

/// The value of the one line that begins with `series`.
pub(crate) fn value(metrics: &str, series: &str) -> f64 {
    let of = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
    let found: Vec<f64> = metrics.lines().filter_map(of).collect();
    assert_eq!(found.len(), 1, "{series} in\n{metrics}");
    found[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_tell_what_was_done_and_readiness_ends_with_a_drain() {
    let http = free();
    let server = Process::start(&["--set", &format!("http.listen={http}")]);
    assert_eq!(get(http, "/livez"), (200, "ok\n".to_owned()));
    assert_eq!(get(http, "/readyz"), (200, "ok\n".to_owned()));
    assert_eq!(get(http, "/nothing").0, 404);

    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    client.create_bank(keyed("probed", 2, 1)).await.unwrap();
    let write = v1::WriteRequest {
        bank: "probed".into(),
        ids: vec![1, 2, 3],
        labels: vec![0, 0, 1],
        embeddings: Some(rows(&[1.0, 0.0, 0.0, 1.0, 0.6, 0.8])),
        step: Some(7),
        ..Default::default()
    };
    client.write(write).await.unwrap();
    let sample = v1::SampleRequest {
        bank: "probed".into(),
        anchors: Some(v1::Anchors { embeddings: Some(rows(&[1.0, 0.0])), labels: vec![0], ..Default::default() }),
        draws: vec![nearest(2), with_replacement(8)],
        filters: Some(v1::Filters { exclude_same_label: true, ..Default::default() }),
        ..Default::default()
    };
    client.sample(sample).await.unwrap();
    client.get_bank(v1::GetBankRequest { name: "not-there".into() }).await.unwrap_err();

    let (status, metrics) = get(http, "/metrics");
    assert_eq!(status, 200);
    for (series, expected) in [
        ("negbank_bank_entries{bank=\"probed\"}", 3.0),
        ("negbank_bank_sequence{bank=\"probed\"}", 1.0),
        ("negbank_bank_step{bank=\"probed\"}", 7.0),
        ("negbank_bank_age_steps{bank=\"probed\",quantile=\"0.5\"}", 0.0),
        ("negbank_bank_age_steps{bank=\"probed\",quantile=\"1\"}", 0.0),
        ("negbank_index_failed{bank=\"probed\"}", 0.0),
        ("negbank_picks_total{bank=\"probed\"}", 9.0),
        // One entry is eligible.
        ("negbank_duplicates_total{bank=\"probed\"}", 7.0),
        ("negbank_draws_total{bank=\"probed\",plan=\"scan\"}", 1.0),
        ("negbank_draws_total{bank=\"probed\",plan=\"graph\"}", 0.0),
        ("negbank_shortfalls_total{bank=\"probed\",reason=\"too_few\"}", 1.0),
        ("negbank_served_distance_count{bank=\"probed\"}", 9.0),
        ("negbank_served_distance_bucket{le=\"0.3\",bank=\"probed\"}", 0.0),
        ("negbank_served_distance_bucket{le=\"0.5\",bank=\"probed\"}", 9.0),
        ("negbank_log_failed", 0.0),
        ("negbank_grpc_request_seconds_count{method=\"negbank.v1.Sampling/Sample\",code=\"0\"}", 1.0),
        ("negbank_grpc_request_seconds_count{method=\"negbank.v1.Banks/GetBank\",code=\"5\"}", 1.0),
    ] {
        assert!((value(&metrics, series) - expected).abs() < 1e-9, "{series} is not {expected} in\n{metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"), "it is whole");
    for series in [
        "negbank_compute_queue_seconds_count{method=\"negbank.v1.Sampling/Sample\"}",
        "negbank_compute_seconds_count{method=\"negbank.v1.Sampling/Sample\"}",
        "negbank_commit_queue_seconds_count{method=\"negbank.v1.Banks/Write\"}",
        "negbank_commit_seconds_count{method=\"negbank.v1.Banks/Write\"}",
    ] {
        // A call's work is counted when the last of its threads lets go of it, which may be after the answer.
        let counted = async {
            while !get(http, "/metrics").1.lines().any(|line| line == format!("{series} 1")) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), counted).await.expect(series);
    }

    // An answer that nobody reads keeps the server draining.
    let mut unread = answered(&server.address, per_anchor("probed", 64, with_replacement(2_000))).await;
    unread.data().await.unwrap().unwrap();
    server.signal("-TERM");
    let drains = async {
        while get(http, "/readyz").0 == 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), drains).await.expect("it is ready no more");
    assert_eq!(get(http, "/readyz").0, 503);
    assert_eq!(get(http, "/livez").0, 200);
    drop(unread);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_hard_it_was_is_known_of_what_was_scored_though_nobody_asked_for_scores() {
    let http = free();
    let server = Process::start(&["--set", &format!("http.listen={http}")]);
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    let shared = v1::Draw { scope: v1::Scope::Shared.into(), ..uniform(3) };
    for (bank, metric, is_distance, score) in
        [("cosine", v1::Metric::Cosine, true, 0.6), ("dot", v1::Metric::Dot, false, 0.6), ("l2", v1::Metric::L2, false, -0.8)]
    {
        client.create_bank(v1::CreateBankRequest { metric: metric.into(), ..keyed(bank, 2, 1) }).await.unwrap();
        let write = v1::WriteRequest {
            bank: bank.into(),
            ids: vec![1, 2, 3],
            labels: vec![0, 0, 1],
            embeddings: Some(rows(&[1.0, 0.0, 0.0, 1.0, 0.6, 0.8])),
            ..Default::default()
        };
        client.write(write).await.unwrap();
        let served = || {
            let metrics = get(http, "/metrics").1;
            let count = format!("negbank_served_distance_count{{bank=\"{bank}\"}} ");
            metrics.lines().find_map(|line| line.strip_prefix(&count)?.parse::<f64>().ok())
        };
        let with_scores = [v1::Column::Ids, v1::Column::Scores];
        // One entry has another label than the anchor.
        let scored = [uniform(3), shared.clone()].map(|draw| (draw, &with_scores[..]));
        for (draw, columns) in [(nearest(3), &with_scores[..1])].into_iter().chain(scored) {
            let before = served();
            let request = v1::SampleRequest {
                bank: bank.into(),
                anchors: Some(v1::Anchors { embeddings: Some(rows(&[1.0, 0.0])), labels: vec![0], ..Default::default() }),
                draws: vec![draw],
                filters: Some(v1::Filters { exclude_same_label: true, ..Default::default() }),
                columns: columns.iter().map(|&column| column.into()).collect(),
                ..Default::default()
            };
            let answer = client.sample(request).await.unwrap();
            assert_eq!(served(), before.map(|before| before + 1.0), "{answer:?}");
            assert_eq!(before.is_some(), is_distance, "{bank}");
            let mean = value(&get(http, "/metrics").1, &format!("negbank_served_score{{bank=\"{bank}\"}}"));
            assert!((mean - score).abs() < 1e-5, "{bank}: {mean}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_counted_by_the_setting_that_changes_them() {
    let http = free();
    let settings = [&format!("http.listen={http}"), "limits.max_banks=1", "compute.queue=2", "server.max_message_bytes=65536"];
    let server = Process::start(&settings.iter().flat_map(|setting| ["--set", setting]).collect::<Vec<_>>());
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    client.create_bank(keyed("one", 2, 1)).await.unwrap();
    client.create_bank(keyed("two", 2, 1)).await.unwrap_err();
    let write = |count: usize| v1::WriteRequest {
        bank: "one".into(),
        ids: (0..count as u64).collect(),
        embeddings: Some(rows(&[1.0; 2].repeat(count))),
        ..Default::default()
    };
    client.write(write(100)).await.unwrap();
    client.write(write(10_000)).await.unwrap_err();
    let anchors = v1::Anchors { embeddings: Some(rows(&[1.0; 2].repeat(200))), ..Default::default() };
    let search =
        v1::SampleRequest { bank: "one".into(), anchors: Some(anchors), draws: vec![nearest(1)], ..Default::default() };
    client.sample(search).await.unwrap_err();
    // What is wrong with a request is no refusal.
    client.sample(v1::SampleRequest { bank: "one".into(), ..Default::default() }).await.unwrap_err();
    let metrics = get(http, "/metrics").1;
    let refusals: Vec<&str> = metrics.lines().filter(|line| line.starts_with("negbank_refusals_total")).collect();
    let of =
        |method: &str, reason: &str| format!("negbank_refusals_total{{method=\"negbank.v1.{method}\",reason=\"{reason}\"}} 1");
    let expected = [
        of("Banks/CreateBank", "limits.max_banks"),
        of("Banks/Write", "server.max_message_bytes"),
        of("Sampling/Sample", "compute.queue"),
    ];
    assert!(refusals.len() == 3 && expected.iter().all(|line| refusals.contains(&line.as_str())), "{refusals:#?}");
}

#[test]
fn a_taken_port_is_named_with_its_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let set = format!("http.listen={}", taken.local_addr().unwrap());
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_negbank"))
        .args(["serve", "--listen", "127.0.0.1:0", "--set", &set])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.contains("http.listen") && complaint.contains("none turns it off"), "{complaint}");
}

#[test]
fn others_may_ask_only_if_the_settings_say_so() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_negbank"));
    let command = command.args(["serve", "--listen", "127.0.0.1:0", "--set", "http.listen=0.0.0.0:0"]);
    let refused = command.output().unwrap();
    let complaint = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && complaint.contains("http.insecure_listen = true"), "{complaint}");

    let free = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap();
    let listen = format!("http.listen={free}");
    let _server = Process::start(&["--set", &listen, "--set", "http.insecure_listen=true"]);
    assert_eq!(get(free, "/livez").0, 200);
}
