//! The memory of gathers, and of answers that are kept: it is asked for before it is taken, counted once, and counted until the last rank
//! was sent its answer or has given it up.

use std::net::SocketAddr;
use std::time::Duration;

use h2::RecvStream;
use negbank::client::{Client, ClientError, GatherColumns, Options, floats, rows};
use negbank::proto::v1;
use negbank::proto::v1::gathering_client::GatheringClient;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::hostile::{SAMPLE, connected, head};
use crate::lifecycle::Process;
use crate::live::{keyed, uniform};
use crate::probes::{free, get, value};
use crate::raw::framed;

const GATHER: &str = "/negbank.v1.Gathering/Gather";
const LIMIT: usize = 8 << 20;
const RANKS: u32 = 4;

/// A row takes 32 KiB.
const DIM: usize = 8_192;
const ROW: usize = DIM * 4;

/// A server with little memory, which tells what it is taken for.
struct Small {
    server: Process,
    http: SocketAddr,
    /// Never tries again.
    client: Client,
}

impl Small {
    async fn start(settings: &[&str]) -> Self {
        let http = free();
        let (limit, listen) = (format!("memory.max_bytes={LIMIT}"), format!("http.listen={http}"));
        let mut arguments = vec!["--set", &limit, "--set", &listen];
        settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
        let server = Process::start(&arguments);
        let client = Client::connect(&server.address, Options { retries: 0, ..Options::default() }).await.unwrap();
        Self { server, http, client }
    }

    fn held(&self, part: &str) -> usize {
        value(&get(self.http, "/metrics").1, &format!("negbank_memory_bytes{{part=\"{part}\"}}")) as usize
    }

    fn total(&self) -> usize {
        let metrics = get(self.http, "/metrics").1;
        let parts = metrics.lines().filter(|line| line.starts_with("negbank_memory_bytes{part="));
        parts.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as usize).sum()
    }

    /// Waits until a part is below that.
    async fn until_below(&self, part: &str, most: usize) {
        let below = async {
            while self.held(part) >= most {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(30), below).await.unwrap_or_else(|_| panic!("{} bytes of {part}", self.held(part)));
    }

    /// Waits until there are these gathers, by group, and no others.
    async fn until_gathers(&self, groups: &[&str]) {
        let there = async {
            loop {
                let gathers = self.client.list_gathers().await.unwrap().gathers;
                if gathers.iter().map(|gather| gather.group.as_str()).eq(groups.iter().copied()) {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(30), there).await.expect("never those gathers");
    }

    /// An answer that is not read: sent over a connection of its own, as far as the narrowest of windows lets it.
    fn unread(&self, path: &'static str, request: &impl prost::Message) -> JoinHandle<Unread> {
        let (address, request) = (self.server.address.clone(), framed(&request.encode_to_vec()));
        tokio::spawn(async move {
            let (mut requests, driver) = connected(&address).await;
            let (answer, mut upload) = requests.send_request(head(&address, path).body(()).unwrap(), false).unwrap();
            upload.send_data(request, true).unwrap();
            let answer = answer.await.unwrap();
            assert!(!answer.headers().contains_key("grpc-status"), "refused: {answer:?}");
            Unread { _body: answer.into_body(), driver }
        })
    }
}

struct Unread {
    _body: RecvStream,
    driver: JoinHandle<Result<(), h2::Error>>,
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// So many rows of a rank.
fn brought(group: &str, (rank, world_size): (u32, u32), count: usize) -> v1::GatherRequest {
    let embeddings = Some(v1::Matrix { dim: DIM as u32, ..rows(&vec![rank as f32 + 0.5; count * DIM]) });
    v1::GatherRequest { group: group.into(), step: 1, rank, world_size, embeddings, ..Default::default() }
}

fn send(client: &Client, request: v1::GatherRequest) -> JoinHandle<Result<GatherColumns, ClientError>> {
    let client = client.clone();
    tokio::spawn(async move { client.gather(request).await })
}

fn refused(answer: Result<GatherColumns, ClientError>) {
    let Err(ClientError::ResourceExhausted { message, retry_after: Some(_) }) = answer else { panic!("{answer:?}") };
    assert!(message.contains("setting memory.max_bytes") && message.contains(&LIMIT.to_string()), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gather_counts_until_its_last_answer_is_sent_and_what_has_no_room_is_refused_and_changes_nothing() {
    let small = Small::start(&["gather.keep_seconds=1"]).await;
    let waiting = send(&small.client, brought("waiting", (0, RANKS), 1));
    small.until_gathers(&["waiting"]).await;
    assert!(small.held("gathers") >= RANKS as usize * ROW, "there is room for all ranks");
    assert_eq!(small.held("requests"), 0, "what is the gather's is no request any more");

    let (groups, count) = (["a", "b", "c", "d", "e"], 8);
    let one = RANKS as usize * count * ROW;
    let mut unread = Vec::new();
    for group in groups {
        let ranks: Vec<_> = (0..RANKS).map(|rank| small.unread(GATHER, &brought(group, (rank, RANKS), count))).collect();
        let mut of_group = Vec::new();
        for rank in ranks {
            of_group.push(rank.await.unwrap());
        }
        unread.push(of_group);
        assert!(small.total() <= LIMIT);
    }
    small.until_gathers(&["waiting"]).await;
    let held = small.held("gathers");
    assert!(held >= groups.len() * one, "all are forgotten, and none is sent: {held} bytes");
    assert!(held < (groups.len() + 1) * one, "what all ranks of a gather share is counted once: {held} bytes");
    assert_eq!((small.held("answers"), small.held("requests")), (0, 0));

    let large = |rank| brought("large", (rank, RANKS), 20);
    let before = small.client.list_gathers().await.unwrap();
    for _ in 0..3 {
        refused(small.client.gather(large(0)).await);
    }
    assert_eq!((small.client.list_gathers().await.unwrap(), small.held("gathers")), (before, held));
    assert!(small.total() <= LIMIT);

    // Whoever waits has room for the others.
    let others: Vec<_> = (1..RANKS).map(|rank| send(&small.client, brought("waiting", (rank, RANKS), 1))).collect();
    for answer in [waiting].into_iter().chain(others) {
        assert_eq!(answer.await.unwrap().unwrap().counts, vec![1; RANKS as usize]);
    }

    let mut first = unread.remove(0);
    first.truncate(1);
    sleep(Duration::from_millis(300)).await;
    let held = small.held("gathers");
    assert!(held >= groups.len() * one, "one rank of the first is still sent it: {held} bytes");
    drop(first);
    small.until_below("gathers", groups.len() * one).await;
    drop(unread);
    small.until_below("gathers", one).await;

    let again: Vec<_> = (0..RANKS).map(|rank| send(&small.client, large(rank))).collect();
    for answer in again {
        assert_eq!(answer.await.unwrap().unwrap().counts, vec![20; RANKS as usize], "what was refused may come again");
    }
    small.until_below("gathers", 1).await;
    assert_eq!(small.total(), 0, "all is given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_readable_copy_is_asked_for_before_it_is_made_and_held_until_it_is_sent() {
    let small = Small::start(&["gather.keep_seconds=1"]).await;
    let other = small.unread(GATHER, &brought("other", (0, 1), 100)).await.unwrap();
    small.until_gathers(&[]).await;
    // As readable numbers, halves are twice as large.
    let halves = vec![0x3c00u16; 128 * DIM];
    let data: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
    let readable = 2 * data.len();
    let matrix = v1::Matrix { dim: DIM as u32, dtype: v1::Dtype::F16.into(), data: data.into(), ..Default::default() };
    let request = v1::GatherRequest { embeddings: Some(matrix), readable: true, ..brought("read", (0, 1), 0) };
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", small.server.address)).unwrap();
    let mut raw = GatheringClient::new(endpoint.connect().await.unwrap()).max_decoding_message_size(16 << 20);
    let refused = raw.gather(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.get_details_retry_info().is_some() && refused.message().contains("memory.max_bytes"), "{refused:?}");
    assert_eq!(small.held("answers"), 0);

    drop(other);
    small.until_below("gathers", 80 * ROW).await;
    let answer = raw.gather(request.clone()).await.unwrap().into_inner();
    let matrix = answer.rows.unwrap().embeddings.unwrap();
    assert!(matrix.dim as usize == DIM && matrix.data.is_empty() && floats(&matrix) == vec![1.0; 128 * DIM]);
    small.until_below("answers", 1).await;

    let unread = small.unread(GATHER, &request).await.unwrap();
    assert!(small.held("answers") >= readable, "{} bytes", small.held("answers"));
    assert!(small.total() <= LIMIT);
    drop(unread);
    small.until_below("answers", 1).await;
    small.until_below("gathers", 1).await;
    assert_eq!(small.total(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_kept_give_way_to_new_gathers() {
    let small = Small::start(&[]).await;
    for group in ["a", "b"] {
        small.client.gather(brought(group, (0, 1), 80)).await.unwrap();
    }
    small.until_gathers(&["a", "b"]).await;
    small.client.gather(brought("c", (0, 1), 80)).await.expect("nobody is sent the first one any more");
    small.until_gathers(&["b", "c"]).await;
    let held = small.held("gathers");
    assert!((2 * 80 * ROW..3 * 80 * ROW).contains(&held), "{held} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_answers_that_are_kept_for_other_ranks_are_given_up_first() {
    let small = Small::start(&[]).await;
    let (count, dim) = (1_000, 256);
    small.client.create_bank(keyed("docs", dim as u32, 1)).await.unwrap();
    let x: Vec<f32> = (0..count * dim).map(|at| (at % 101) as f32 - 50.0).collect();
    let (ids, embeddings) = ((0..count as u64).collect(), Some(rows(&x)));
    small.client.write(v1::WriteRequest { bank: "docs".into(), ids, embeddings, ..Default::default() }).await.unwrap();
    let request = |seed| v1::SampleRequest {
        bank: "docs".into(),
        anchors: Some(v1::Anchors { rows: 1, ..Default::default() }),
        draws: vec![v1::Draw { scope: v1::Scope::Shared.into(), ..uniform(count as u32) }],
        seed: Some(seed),
        ..Default::default()
    };
    let one = count * dim * 4;
    let first = small.client.sample(request(0)).await.unwrap();
    for seed in 1..4 {
        small.client.sample(request(seed)).await.unwrap();
    }
    let unread = small.unread(SAMPLE, &request(0)).await.unwrap();
    let held = small.held("answers");
    assert!((4 * one..5 * one).contains(&held), "four are kept, and one of them is sent as it lies: {held} bytes");

    // Room for it is there once three of them are given up, and what they lay in.
    small.client.gather(brought("large", (0, 1), 64)).await.unwrap();
    assert!(small.total() <= LIMIT);
    let held = small.held("answers");
    assert!((one..2 * one).contains(&held), "the one that is being sent gives no memory back: {held} bytes");
    drop(unread);
    let again = small.client.sample(request(0)).await.unwrap();
    assert_eq!((again.rows, again.draws), (first.rows, first.draws));
    small.client.sample(request(1)).await.expect("what was given up is made anew");
}
