//! Gathers over real gRPC: every rank gets exactly what all ranks sent, whatever the order, the stragglers and the copies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use negbank::client::{Client, ClientError, GatherColumns, Options, rows};
use negbank::model::{Seed, Stream};
use negbank::proto::v1;
use tokio::task::JoinHandle;

use crate::lifecycle::Process;
use crate::live::Live;

const DIM: usize = 3;

/// What a rank brings to a step; a function of its place, so that every test knows what must come back.
fn brought(group: &str, step: u64, rank: u32, world_size: u32) -> v1::GatherRequest {
    let mut random = Seed(step * 1_000 + u64::from(rank) + group.len() as u64 * 1_000_000).stream(0, 0);
    let count = random.below(4) as usize;
    let floats: Vec<f32> = (0..count * DIM).map(|_| random.below(1 << 20) as f32 / 1e3 - 500.0).collect();
    let odd = rank % 2 == 1;
    v1::GatherRequest {
        group: group.to_owned(),
        step,
        rank,
        world_size,
        embeddings: Some(v1::Matrix { dim: DIM as u32, ..rows(&floats) }),
        ids: (0..count as u64).map(|row| step << 32 | u64::from(rank) << 8 | row).collect(),
        labels: if odd { vec![i64::from(rank); count] } else { Vec::new() },
        groups: (0..count as u64).collect(),
        has_group: (0..count).map(|row| u8::from(row > 0)).collect(),
        ..Default::default()
    }
}

/// One rank's row of every step.
fn one(step: u64, rank: u32, world_size: u32, x: f32) -> v1::GatherRequest {
    v1::GatherRequest {
        group: "run".into(),
        step,
        rank,
        world_size,
        embeddings: Some(v1::Matrix { dim: 1, ..rows(&[x]) }),
        ids: vec![u64::from(rank)],
        ..Default::default()
    }
}

fn send(client: &Client, request: v1::GatherRequest) -> JoinHandle<Result<GatherColumns, ClientError>> {
    let client = client.clone();
    tokio::spawn(async move { client.gather(request).await })
}

/// The values of an answer's single floats.
fn values(answer: &GatherColumns) -> Vec<f32> {
    let data = answer.rows.as_ref().and_then(|rows| rows.embeddings.as_ref()).map(|matrix| matrix.data.clone());
    data.unwrap_or_default().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// Waits until the server has `count` gathers of which these ranks are missing.
async fn until_missing(client: &Client, expected: &[&[u32]]) {
    for _ in 0..500 {
        let gathers = client.list_gathers().await.unwrap().gathers;
        if gathers.iter().map(|gather| &gather.missing_ranks[..]).eq(expected.iter().copied()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never {expected:?}: {:?}", client.list_gathers().await);
}

/// What all ranks must be answered with.
fn whole(group: &str, step: u64, world_size: u32) -> GatherColumns {
    let parts: Vec<_> = (0..world_size).map(|rank| brought(group, step, rank, world_size)).collect();
    let column = |of: fn(&v1::GatherRequest) -> Vec<u8>| parts.iter().flat_map(of).collect::<Vec<u8>>().into();
    let embeddings: Vec<u8> = parts.iter().flat_map(|part| part.embeddings.clone().unwrap().data).collect();
    let labels = parts.iter().any(|part| !part.labels.is_empty());
    let embeddings = negbank::client::FloatColumn { data: embeddings.into(), dim: DIM as u32, dtype: v1::Dtype::F32.into() };
    let mut rows = negbank::client::RowColumns {
        ids: column(|part| part.ids.iter().flat_map(|id| id.to_le_bytes()).collect()),
        groups: column(|part| {
            part.groups.iter().zip(&part.has_group).flat_map(|(group, has)| (group * u64::from(*has)).to_le_bytes()).collect()
        }),
        has_group: column(|part| part.has_group.to_vec()),
        ..Default::default()
    };
    if !embeddings.data.is_empty() {
        rows.embeddings = Some(embeddings);
    }
    if labels {
        rows.labels = column(|part| {
            let label = |row| part.labels.get(row).copied().unwrap_or(0i64).to_le_bytes();
            (0..part.ids.len()).flat_map(label).collect()
        });
        rows.has_label = column(|part| vec![u8::from(!part.labels.is_empty()); part.ids.len()]);
    }
    let counts = parts.iter().map(|part| part.ids.len() as u32).collect();
    GatherColumns { rows: Some(rows), counts, partial: false, missing_ranks: Vec::new() }
}

/// Every rank goes through its steps at its own pace, sends some of its rows twice, and hangs up now and then and comes again: no
/// gather gets a row that is not its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_rank_gets_exactly_what_all_ranks_sent() {
    let live = Arc::new(Live::start(&[]).await);
    let (world_size, steps) = (6u32, 30u64);
    let mut ranks = Vec::new();
    for group in ["a", "group/b"] {
        for rank in 0..world_size {
            let live = Arc::clone(&live);
            ranks.push(tokio::spawn(async move {
                let client = Client::connect(&live.address, Options::default()).await.unwrap();
                let mut random = Seed(5).stream(group.len(), rank as usize);
                for step in 0..steps {
                    let answers = take_part(&client, brought(group, step, rank, world_size), &mut random).await;
                    for answer in answers {
                        assert_eq!(answer, whole(group, step, world_size), "group {group}, step {step}, rank {rank}");
                    }
                }
            }));
        }
    }
    for rank in ranks {
        rank.await.unwrap();
    }
    let kept = live.client.list_gathers().await.unwrap().gathers;
    assert!(kept.len() == 16 && kept.iter().all(|gather| gather.finished), "the last eight of each group: {kept:?}");
}

async fn take_part(client: &Client, request: v1::GatherRequest, random: &mut Stream) -> Vec<GatherColumns> {
    tokio::time::sleep(Duration::from_micros(random.below(2_000))).await;
    if random.below(4) == 0 {
        let gone = send(client, request.clone());
        tokio::time::sleep(Duration::from_micros(random.below(2_000))).await;
        gone.abort();
    }
    let copies: Vec<_> = (0..=random.below(2)).map(|_| send(client, request.clone())).collect();
    let mut answers = Vec::new();
    for copy in copies {
        answers.push(copy.await.unwrap().unwrap());
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_expiry_freezes_one_set_for_all_and_latecomers_get_it_too() {
    let live = Live::start(&[]).await;
    let patient = send(&live.client, one(1, 2, 4, 2.0));
    until_missing(&live.client, &[&[0, 1, 3]]).await;
    let brief = send(&live.client, v1::GatherRequest { wait_ms: 200, ..one(1, 0, 4, 0.5) });
    let (brief, patient) = (brief.await.unwrap().unwrap(), patient.await.unwrap().unwrap());
    assert_eq!(brief, patient, "all are answered with the same set");
    assert_eq!((values(&brief), &brief.counts[..]), (vec![0.5, 2.0], &[1, 0, 1, 0][..]));
    assert_eq!((brief.partial, &brief.missing_ranks[..]), (true, &[1, 3][..]));
    for rank in [1, 3, 1] {
        assert_eq!(live.client.gather(one(1, rank, 4, 9.0)).await.unwrap(), brief, "rank {rank} comes late");
    }
    // Without a limit of its own the caller's deadline is one: it hears of the set before it passes.
    let alone = live.client.with_timeout(Duration::from_millis(400)).gather(one(2, 1, 2, 7.0)).await.unwrap();
    assert_eq!((values(&alone), &alone.missing_ranks[..]), (vec![7.0], &[0][..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_again_is_recognised_and_other_rows_are_refused() {
    let live = Live::start(&[]).await;
    let first = send(&live.client, one(1, 0, 2, 1.0));
    until_missing(&live.client, &[&[1]]).await;
    let again = send(&live.client, one(1, 0, 2, 1.0));
    let refused = |answer: Result<GatherColumns, ClientError>| match answer {
        Err(ClientError::AlreadyExists(message)) => {
            let says = "rank 0 has brought other rows to the gather of group \"run\", step 1, micro-batch 0";
            assert!(message.contains(says), "{message}");
        }
        other => panic!("{other:?}"),
    };
    refused(live.client.gather(one(1, 0, 2, 5.0)).await);
    let last = live.client.gather(one(1, 1, 2, 2.0)).await.unwrap();
    assert_eq!(values(&last), [1.0, 2.0]);
    assert_eq!((first.await.unwrap().unwrap(), again.await.unwrap().unwrap()), (last.clone(), last.clone()));
    assert_eq!(live.client.gather(one(1, 0, 2, 1.0)).await.unwrap(), last, "after it has finished, too");
    refused(live.client.gather(one(1, 0, 2, 5.0)).await);
    // Micro-batches and groups are gathers of their own.
    let other = v1::GatherRequest { micro_batch: 1, ..one(1, 0, 1, 5.0) };
    assert_eq!(values(&live.client.gather(other).await.unwrap()), [5.0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranks_that_disagree_and_bad_requests_are_refused_by_name() {
    let live = Live::start(&["limits.max_ranks=100", "limits.max_dim=64", "limits.max_write_rows=50"]).await;
    let there = send(&live.client, one(1, 0, 2, 1.0));
    until_missing(&live.client, &[&[1]]).await;
    let before = live.client.list_gathers().await.unwrap();
    let matrix = |dim, floats: &[f32]| Some(v1::Matrix { dim, ..rows(floats) });
    let good = || one(1, 1, 2, 2.0);
    let half = v1::Matrix { dim: 1, dtype: v1::Dtype::F16.into(), data: vec![0, 60].into(), ..Default::default() };
    let both = v1::Matrix { values: vec![1.0], dim: 1, ..rows(&[1.0]) };
    let bad = [
        (
            "world_size",
            "is 3, and another rank of the gather of group \"run\", step 1",
            v1::GatherRequest { world_size: 3, ..good() },
        ),
        (
            "embeddings",
            "have dimension 2, and another rank",
            v1::GatherRequest { embeddings: matrix(2, &[1.0, 2.0]), ..good() },
        ),
        ("embeddings.dtype", "is F16, and another rank", v1::GatherRequest { embeddings: Some(half), ..good() }),
        ("ids", "are missing, and another rank", v1::GatherRequest { ids: Vec::new(), ..good() }),
        ("rank", "2 is outside 0..2", v1::GatherRequest { rank: 2, ..good() }),
        ("world_size", "is 0", v1::GatherRequest { world_size: 0, ..good() }),
        (
            "world_size",
            "101 is over the limit of 100 (setting limits.max_ranks)",
            v1::GatherRequest { world_size: 101, ..good() },
        ),
        ("group", "has 0 bytes: 1 to 128", v1::GatherRequest { group: String::new(), ..good() }),
        ("group", "has 129 bytes", v1::GatherRequest { group: "g".repeat(129), ..good() }),
        ("embeddings.dim", "is 0", v1::GatherRequest { embeddings: matrix(0, &[1.0]), ..good() }),
        ("embeddings.dim", "is 0", v1::GatherRequest { embeddings: None, ids: Vec::new(), ..good() }),
        ("embeddings.dim", "limits.max_dim", v1::GatherRequest { embeddings: matrix(u32::MAX, &[1.0]), ..good() }),
        ("embeddings.data", "do not make whole rows", v1::GatherRequest { embeddings: matrix(2, &[1.0; 3]), ..good() }),
        ("embeddings", "limits.max_write_rows", v1::GatherRequest { embeddings: matrix(1, &[1.0; 51]), ..good() }),
        ("embeddings", "not both", v1::GatherRequest { embeddings: Some(both), ..good() }),
        ("ids", "has 2 values for 1 rows", v1::GatherRequest { ids: vec![1, 2], ..good() }),
        ("labels", "has 2 values for 1 rows", v1::GatherRequest { labels: vec![1, 2], ..good() }),
        ("has_group", "has 1 bytes for 0 values", v1::GatherRequest { has_group: vec![1].into(), ..good() }),
    ];
    for (field, says, request) in bad {
        let refused = live.client.gather(request).await;
        let Err(ClientError::InvalidArgument { violations, .. }) = refused else { panic!("{field}: {refused:?}") };
        assert!(violations.iter().any(|fault| fault.field == field && fault.reason.contains(says)), "{field}: {violations:?}");
    }
    assert_eq!(live.client.list_gathers().await.unwrap(), before, "a refused request changed something");
    live.client.gather(good()).await.unwrap();
    assert_eq!(values(&there.await.unwrap().unwrap()), [1.0, 2.0]);
    // A refusal holds for a finished gather, too, and for its missing ranks.
    let late = live.client.gather(v1::GatherRequest { world_size: 4, rank: 3, ..good() }).await;
    assert!(matches!(late, Err(ClientError::InvalidArgument { .. })), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranks_of_two_steps_at_once_never_meet_and_a_caller_that_hangs_up_leaves_its_rows() {
    let live = Live::start(&[]).await;
    let ahead = send(&live.client, one(2, 0, 2, 20.0));
    let behind = send(&live.client, one(1, 1, 2, 11.0));
    until_missing(&live.client, &[&[0], &[1]]).await;
    ahead.abort();
    assert!(ahead.await.unwrap_err().is_cancelled());
    let second = live.client.gather(one(2, 1, 2, 21.0)).await.unwrap();
    assert_eq!((values(&second), second.partial), (vec![20.0, 21.0], false), "the rows of the one who hung up");
    assert_eq!(values(&live.client.gather(one(1, 0, 2, 10.0)).await.unwrap()), [10.0, 11.0]);
    assert_eq!(values(&behind.await.unwrap().unwrap()), [10.0, 11.0]);
    // All callers gone: the gather still comes to an end.
    let gone = send(&live.client, v1::GatherRequest { wait_ms: 300, ..one(3, 0, 2, 1.0) });
    until_missing(&live.client, &[&[], &[], &[1]]).await;
    gone.abort();
    for _ in 0..500 {
        if live.client.list_gathers().await.unwrap().gathers[2].finished {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("an abandoned gather waits for ever");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_is_bounded_and_comes_back() {
    // Two gathers of two ranks fit, of 25 kB each.
    let settings = ["gather.max_bytes=65536", "gather.max_total_bytes=110000", "gather.keep_seconds=1", "gather.max_gathers=3"];
    let live = Live::start(&settings).await;
    let client = live.client.with_retries(0);
    let large = |step, rank| v1::GatherRequest {
        embeddings: Some(v1::Matrix { dim: 6_250, ..rows(&vec![step as f32; 6_250]) }),
        ..one(step, rank, 2, 0.0)
    };
    let waiting: Vec<_> = (0..2).map(|step| send(&client, large(step, 0))).collect();
    until_missing(&client, &[&[1], &[1]]).await;
    let refused = client.gather(large(2, 0)).await;
    let Err(ClientError::ResourceExhausted { message, retry_after }) = refused else { panic!("{refused:?}") };
    assert!(message.contains("gather.max_total_bytes") && retry_after.is_some(), "{message}");
    // With retries it gets in as soon as there is room: finished ones give way.
    let third = send(&live.client.with_retries(50), large(2, 0));
    client.gather(large(0, 1)).await.unwrap();
    client.gather(large(2, 1)).await.unwrap();
    assert_eq!(values(&third.await.unwrap().unwrap()).len(), 2 * 6_250);
    client.gather(large(1, 1)).await.unwrap();
    for rank in waiting {
        rank.await.unwrap().unwrap();
    }
    let open: Vec<_> = (10..13).map(|step| send(&client, one(step, 0, 2, 1.0))).collect();
    until_missing(&client, &[&[1], &[1], &[1]]).await;
    let refused = client.gather(one(13, 0, 2, 1.0)).await;
    let Err(ClientError::ResourceExhausted { message, .. }) = refused else { panic!("{refused:?}") };
    assert!(message.contains("gather.max_gathers"), "{message}");
    for (step, open) in (10..).zip(open) {
        client.gather(one(step, 1, 2, 2.0)).await.unwrap();
        open.await.unwrap().unwrap();
    }
    // With nobody calling, what is finished is forgotten.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(client.list_gathers().await.unwrap().gathers.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_refused_before_anybody_waits_and_told_what_else_to_do() {
    let live = Live::start(&["gather.max_bytes=65536"]).await;
    let large = |rank| v1::GatherRequest {
        embeddings: Some(v1::Matrix { dim: 4_096, ..rows(&vec![1.0; 4_096 * 2]) }),
        ids: Vec::new(),
        ..one(1, rank, 3, 0.0)
    };
    for rank in [2, 0] {
        let refused = live.client.gather(large(rank)).await;
        let Err(ClientError::InvalidArgument { message, violations }) = refused else { panic!("{refused:?}") };
        assert_eq!(violations[0].field, "embeddings");
        for says in
            ["over the limit of 65536 (setting gather.max_bytes)", "all_gather_into_tensor", "moves 65536 bytes", "Gbit/s"]
        {
            assert!(message.contains(says), "{message}");
        }
    }
    assert!(live.client.list_gathers().await.unwrap().gathers.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_tells_those_who_wait_at_once() {
    let mut server = Process::start(&["--set", "server.drain_seconds=60"]);
    let options = Options { retries: 0, timeout: Duration::from_secs(600), ..Options::default() };
    let client = Client::connect(&server.address, options).await.unwrap();
    let waiting: Vec<_> = (0..3).map(|rank| send(&client, one(1, rank, 4, 1.0))).collect();
    until_missing(&client, &[&[3]]).await;
    server.signal("-TERM");
    for rank in waiting {
        let told = tokio::time::timeout(Duration::from_secs(30), rank).await.expect("at once").unwrap();
        let Err(ClientError::Unavailable { message, .. }) = told else { panic!("{told:?}") };
        assert!(message.contains("the server is stopping"), "{message}");
    }
    drop(client);
    let code = tokio::task::spawn_blocking(move || server.exit_code()).await.unwrap();
    assert_eq!(code, Some(0));
}

/// Ten times as much is gathered as may be kept, and by ranks that hang up, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_bounded_and_freed() {
    let server = Process::start(&["--set", "gather.max_total_bytes=67108864", "--set", "gather.keep_seconds=1"]);
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    let floats = vec![1.0f32; 2 << 20];
    let before = server.memory();
    let mut most = 0;
    for step in 0..80 {
        let embeddings = Some(v1::Matrix { dim: 1 << 12, ..rows(&floats) });
        let alone = v1::GatherRequest { embeddings, ids: Vec::new(), ..one(step, 0, 1, 0.0) };
        drop(client.gather(alone).await.unwrap());
        most = most.max(server.memory());
    }
    // The answers that are kept, and what one call takes while it is received and sent.
    assert!(most < before + (64 << 20) + (64 << 20), "{} MB more than at the start", (most - before) >> 20);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(client.list_gathers().await.unwrap().gathers.is_empty());
    let after = server.memory();
    assert!(after < before + (40 << 20), "{} MB were not freed", (after - before) >> 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_may_ask_for_readable_numbers() {
    let live = Live::start(&[]).await;
    let typed = v1::Matrix { values: vec![0.5, -2.0], dim: 2, ..Default::default() };
    let request = v1::GatherRequest { embeddings: Some(typed), readable: true, labels: vec![7], ..one(1, 0, 1, 0.0) };
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", live.address)).unwrap().connect().await.unwrap();
    let mut raw = v1::gathering_client::GatheringClient::new(channel);
    let answer = raw.gather(request).await.unwrap().into_inner();
    let rows = answer.rows.unwrap();
    assert_eq!((rows.embeddings.unwrap().values, rows.ids, rows.labels), (vec![0.5, -2.0], vec![0], vec![7]));
    let listed: BTreeMap<u64, bool> =
        live.client.list_gathers().await.unwrap().gathers.iter().map(|gather| (gather.step, gather.finished)).collect();
    assert_eq!(listed, BTreeMap::from([(1, true)]));
}
