//! What can never be served as it is: it is refused at once, without a word of coming back, and nobody comes back.

use std::net::SocketAddr;
use std::time::Duration;

use negbank::client::{Client, ClientError, Options, rows};
use negbank::proto::v1;
use tokio::time::{sleep, timeout};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::hostile::WRITE;
use crate::lifecycle::Process;
use crate::live::{Live, keyed, uniform};
use crate::probes::{free, get, value};
use crate::raw::{call, framed};

/// Memory of the server, and a row of its bank, in bytes.
const LIMIT: usize = 8 << 20;
const DIM: usize = 8_192;
const ROW: usize = DIM * 4;

/// A server with little room for anything, and a client that comes back for a minute if it is told to.
struct Small {
    _server: Process,
    address: String,
    http: SocketAddr,
    client: Client,
}

impl Small {
    async fn start() -> Self {
        let http = free();
        let mut settings = vec![format!("memory.max_bytes={LIMIT}"), format!("http.listen={http}")];
        let limits = ["compute.queue=4", "limits.max_staged_rows=140"];
        settings.extend(limits.map(str::to_owned));
        let arguments: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        let server = Process::start(&arguments);
        let client = Client::connect(&server.address, Options::default()).await.unwrap();
        client.create_bank(keyed("docs", DIM as u32, 1)).await.unwrap();
        Self { address: server.address.clone(), _server: server, http, client }
    }

    /// Calls that were answered with RESOURCE_EXHAUSTED.
    fn refused(&self) -> usize {
        let metrics = get(self.http, "/metrics").1;
        let counts = metrics.lines().filter(|line| line.starts_with("negbank_grpc_request_seconds_count"));
        let counts = counts.filter(|line| line.contains("code=\"8\""));
        counts.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
    }

    /// Memory of banks.
    fn rows(&self) -> usize {
        value(&get(self.http, "/metrics").1, "negbank_memory_bytes{part=\"rows\"}") as usize
    }

    /// Sees to it that a call was refused for ever, and sent once.
    async fn refuses<A>(&self, what: &str, says: &str, call: impl AsyncFnOnce(Client) -> Result<A, ClientError>) -> String {
        let before = self.refused();
        let answer = call(self.client.clone()).await.map(drop);
        let Err(ClientError::ResourceExhausted { message, retry_after: None }) = answer else { panic!("{what}: {answer:?}") };
        assert!(message.contains(says) && message.contains("trying again won't help; "), "{what}: {message}");
        assert_eq!(self.refused(), before + 1, "{what}: it is not tried again");
        message
    }
}

fn matrix(count: usize) -> Option<v1::Matrix> {
    Some(v1::Matrix { dim: DIM as u32, ..rows(&vec![1.5; count * DIM]) })
}

fn write(bank: &str, count: usize) -> v1::WriteRequest {
    v1::WriteRequest { bank: bank.into(), ids: (0..count as u64).collect(), embeddings: matrix(count), ..Default::default() }
}

fn staged(count: usize) -> v1::WriteRequest {
    let stage = v1::Stage { step: 1, micro_batch: 0, rank: 0, world_size: 2 };
    v1::WriteRequest { stage: Some(stage), ..write("docs", count) }
}

fn fetch(count: usize) -> v1::FetchRequest {
    v1::FetchRequest { bank: "docs".into(), ids: vec![1; count], ..Default::default() }
}

fn sample(anchors: v1::Anchors, draw: v1::Draw) -> v1::SampleRequest {
    v1::SampleRequest { bank: "docs".into(), anchors: Some(anchors), draws: vec![draw], ..Default::default() }
}

fn gather(group: &str, world_size: u32, count: usize) -> v1::GatherRequest {
    v1::GatherRequest { group: group.into(), step: 1, world_size, embeddings: matrix(count), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_there_ever_is_is_refused_once_and_for_all() {
    let small = Small::start().await;
    small.client.write(write("docs", 4)).await.unwrap();
    let memory = format!("over the limit of {LIMIT} (setting memory.max_bytes)");

    let blocks = sample(v1::Anchors { rows: 5 * 64, ..Default::default() }, uniform(1));
    let queue = "of 5 pieces of work, a block of anchors each, over the limit of 4 (setting compute.queue)";
    small.refuses("pieces", queue, async |client| client.sample(blocks).await).await;

    small.refuses("a write", &memory, async |client| client.write(write("docs", 300)).await).await;
    small.refuses("an answer", &memory, async |client| client.fetch(fetch(300)).await).await;
    // Either of them has room, and both together have not.
    let anchors = v1::Anchors { embeddings: matrix(100), ..Default::default() };
    let each = v1::SampleRequest { layout: v1::Layout::PerAnchor.into(), ..sample(anchors, uniform(2)) };
    small.refuses("a request and its answer", &memory, async |client| client.sample(each).await).await;
    small.refuses("a request and its stage", &memory, async |client| client.write(staged(130)).await).await;
    let of_stage = "of 141 rows with those that other ranks have sent, over the limit of 140 (setting limits.max_staged_rows)";
    small.refuses("a stage", of_stage, async |client| client.write(staged(141)).await).await;
    small.refuses("a request and its gather", &memory, async |client| client.gather(gather("a", 4, 52)).await).await;
    // As readable numbers, halves are twice as large.
    let halves: Vec<u8> = 0x3c00u16.to_le_bytes().repeat(200 * DIM);
    let halves = v1::Matrix { dim: DIM as u32, dtype: v1::Dtype::F16.into(), data: halves.into(), ..Default::default() };
    let readable = v1::GatherRequest { embeddings: Some(halves), readable: true, ..gather("b", 1, 0) };
    small.refuses("a gather and its copy", &memory, async |client| client.gather(readable).await).await;

    // What is less is served by the same server.
    let anchors = v1::Anchors { rows: 4 * 64, ..Default::default() };
    small.client.sample(sample(anchors, uniform(1))).await.unwrap();
    small.client.fetch(fetch(100)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_banks_leave_no_room_for_is_told_so() {
    let small = Small::start().await;
    small.client.create_bank(keyed("large", DIM as u32, 1)).await.unwrap();
    small.client.write(write("large", 80)).await.unwrap();
    let lasting = small.rows();
    let more = (LIMIT - lasting) / ROW + 4;
    assert!(more * (ROW + 64) < LIMIT, "it would have room without the bank: {lasting} bytes of rows");
    let beside = format!("beside the {lasting} of banks, over the limit of {LIMIT} (setting memory.max_bytes)");
    let told = small.refuses("beside a bank", &beside, async |client| client.fetch(fetch(more)).await).await;
    assert!(told.contains("delete entries or banks"), "{told}");
    small.client.delete_bank(v1::DeleteBankRequest { name: "large".into() }).await.unwrap();
    // Its memory is free once its threads have let go of it.
    let freed = async {
        while small.rows() >= lasting {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(60), freed).await.expect("a deleted bank gives its memory back");
    small.client.fetch(fetch(more)).await.expect("there is room now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_refused_by_its_head_if_there_is_never_room_for_all_of_it() {
    let small = Small::start().await;
    let head = framed(&vec![0; LIMIT + 1]).slice(..1_000);
    let refused = call(&small.address, WRITE, &[], head).await;
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    let says = format!("needs {} bytes of memory at once, over the limit of {LIMIT} (setting memory.max_bytes)", LIMIT + 6);
    assert!(refused.message().contains(&says), "{refused:?}");
    assert!(refused.get_details_retry_info().is_none(), "{refused:?}");

    // As large as a message may be, with five bytes before it.
    let bytes = 8 << 20;
    let live = Live::start(&[&format!("server.max_message_bytes={bytes}"), &format!("server.max_inbound_bytes={bytes}")]).await;
    let refused = call(&live.address, WRITE, &[], framed(&vec![0; bytes])).await;
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    let says =
        format!("over the limit of {bytes} (setting server.max_inbound_bytes): trying again won't help; send less at a time");
    assert!(refused.message().contains(&says), "{refused:?}");
    assert!(refused.get_details_retry_info().is_none(), "{refused:?}");
}
