//! Builds that come to nothing: the bank is served by scan, and says so.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use negbank::client::{Client, Options, rows};
use negbank::model::{Seed, Stream};
use negbank::proto::v1;

use crate::graph::{DIM, clustered};
use crate::lifecycle::Process;
use crate::live::{keyed, nearest};
use crate::probes::{free, get, value};

const ENTRIES: u64 = 8_000;

/// A server with a bank that is to get a graph.
struct Building {
    http: SocketAddr,
    client: Client,
    random: Stream,
    _server: Process,
}

impl Building {
    async fn start(settings: &[&str]) -> Self {
        let http = free();
        let listen = format!("http.listen={http}");
        let mut arguments = vec!["--set", &listen, "--set", "index.min_entries=1000", "--set", "index.threads=1"];
        settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
        let server = Process::start(&arguments);
        let client = Client::connect(&server.address, Options::default()).await.unwrap();
        client.create_bank(keyed("b", DIM as u32, 2)).await.unwrap();
        let mut building = Self { http, client, random: Seed(21).stream(0, 0), _server: server };
        for first in (0..ENTRIES).step_by(1_000) {
            building.replace(first, 1_000).await;
        }
        building
    }

    /// Writes other rows to so many ids from `first` on.
    async fn replace(&mut self, first: u64, count: u64) {
        let (x, labels) = clustered(&mut self.random, count as usize);
        let write = v1::WriteRequest {
            bank: "b".to_owned(),
            ids: (first..first + count).collect(),
            embeddings: Some(rows(&x)),
            labels,
            momentum: Some(0.0),
            ..Default::default()
        };
        self.client.write(write).await.unwrap();
    }

    async fn index(&self) -> v1::Index {
        self.client.get_bank(v1::GetBankRequest { name: "b".to_owned() }).await.unwrap().index.unwrap()
    }

    /// A draw is answered by a scan, whole.
    async fn is_scanned(&mut self) {
        let (x, _) = clustered(&mut self.random, 2);
        let request = v1::SampleRequest {
            bank: "b".to_owned(),
            anchors: Some(v1::Anchors { embeddings: Some(rows(&x)), ..Default::default() }),
            draws: vec![nearest(50)],
            ..Default::default()
        };
        let answer = self.client.sample(request).await.unwrap();
        assert_eq!((answer.draws[0].plan(), answer.draws[0].counts.as_slice()), (v1::Plan::Scan, &[50, 50][..]));
    }

    /// Writes on until the bank says why it has no graph, which is told wherever one looks.
    #[expect(clippy::disallowed_methods, reason = "a test may wait")]
    async fn until_failed(&mut self, replaced: u64, why: &str) {
        let (began, mut first) = (Instant::now(), 0);
        loop {
            self.is_scanned().await;
            let index = self.index().await;
            if index.state() == v1::IndexState::Scan && index.reason.contains(why) {
                assert!(index.generation.is_none() && index.reason.starts_with("serving by scan: "), "{index:?}");
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(100), "{index:?}");
            if replaced > 0 {
                self.replace(first, replaced).await;
                first = (first + replaced) % (ENTRIES - replaced);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!((value(&get(self.http, "/metrics").1, "negbank_index_failed{bank=\"b\"}") - 1.0).abs() < 1e-9);
        let (status, ready) = get(self.http, "/readyz");
        assert!(status == 200 && ready.contains("bank b: ") && ready.contains(why), "{ready}");
        self.is_scanned().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "a test may wait")]
async fn a_bank_that_is_written_faster_than_a_graph_is_built_is_served_by_scan_and_says_why() {
    let mut building = Building::start(&["index.max_percent=5", "index.cpu_percent=10"]).await;
    building.until_failed(500, "index.max_percent").await;
    // It still says so while the next build runs.
    let began = Instant::now();
    while building.index().await.state() != v1::IndexState::Building {
        assert!(began.elapsed() < Duration::from_secs(100));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(get(building.http, "/readyz").1.contains("the one before failed: "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_the_memory_has_no_room_for_is_not_begun() {
    let mut building = Building::start(&["memory.max_bytes=16777216"]).await;
    building.until_failed(0, "memory.max_bytes").await;
}
