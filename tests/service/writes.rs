//! Writes once, and ranks in order.

use std::sync::Arc;
use std::time::Duration;

use negbank::client::{Client, ClientError, floats, rows};
use negbank::model::{Seed, Stream};
use negbank::proto::v1;

use crate::live::{Live, keyed, queue, random_rows};
use crate::model::{ModelBank, ModelRow};

const DIM: usize = 6;

fn numbered(bank: &str, writer: &str, incarnation: u64, number: u64, ids: &[u64], x: &[f32]) -> v1::WriteRequest {
    v1::WriteRequest {
        bank: bank.to_owned(),
        ids: ids.to_vec(),
        embeddings: Some(rows(x)),
        origin: Some(v1::Origin { writer: writer.to_owned(), incarnation, number }),
        ..Default::default()
    }
}

async fn bank(client: &Client, name: &str) -> v1::Bank {
    client.get_bank(v1::GetBankRequest { name: name.to_owned() }).await.unwrap()
}

async fn all(client: &Client, name: &str, ids: Vec<u64>) -> Vec<f32> {
    let answer = client.fetch(v1::FetchRequest { bank: name.to_owned(), ids, ..Default::default() }).await.unwrap();
    floats(&answer.rows.unwrap().embeddings.unwrap())
}

/// Every write is sent once or several times, some copies at the same time, in any order within the window, by writers that are
/// restarted now and then. Each moves the one entry that belongs to it, so its momentum shows how often it was applied.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_write_is_applied_once_however_often_it_is_sent() {
    let live = Arc::new(Live::start(&[]).await);
    live.create(v1::CreateBankRequest { metric: v1::Metric::Dot.into(), ..keyed("moves", 1, 8) }).await;
    live.create(v1::CreateBankRequest { metric: v1::Metric::Dot.into(), ..queue("queue", 1, 8, 100_000) }).await;
    let (writers, writes) = (6u64, 400u64);
    // An entry for each write, which halves it.
    let ids: Vec<u64> = (0..writers * writes).collect();
    live.write("moves", &ids, &vec![1.0; ids.len()], &[]).await;
    let tasks: Vec<_> = (0..writers).map(|writer| tokio::spawn(send_all(Arc::clone(&live), writer, writes))).collect();
    let mut copies = 0;
    for task in tasks {
        copies += task.await.unwrap();
    }
    assert!(copies > writers * writes * 3 / 2, "only {copies} copies of {} writes were sent", writers * writes);
    let moved = all(&live.client, "moves", ids).await;
    assert!(moved.iter().all(|&x| x == 0.5), "an entry that was not halved exactly once");
    let (moves, queue) = (bank(&live.client, "moves").await, bank(&live.client, "queue").await);
    assert_eq!((moves.sequence, queue.sequence), (1 + writers * writes, writers * writes));
    assert_eq!(queue.entries, 2 * writers * writes, "two rows a write");
    assert_eq!(moves.writers, writers * 4, "each writer was restarted three times");
}

/// Sends `writes` writes of one writer, and returns how many copies that took.
async fn send_all(live: Arc<Live>, writer: u64, writes: u64) -> u64 {
    let mut random = Seed(31).stream(0, writer as usize);
    let name = format!("train/{writer}");
    let mut copies = 0;
    for (life, start) in (0..writes).step_by(writes as usize / 4).enumerate() {
        // Numbers of one life, shuffled, many of them again.
        let mut order: Vec<u64> = (0..writes / 4).flat_map(|at| vec![at; 1 + random.below(3) as usize]).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, random.below(at as u64 + 1) as usize);
        }
        copies += order.len() as u64;
        let send = |at: u64| {
            let (live, name) = (Arc::clone(&live), name.clone());
            async move {
                let id = writer * writes + start + at;
                let to_keyed = numbered("moves", &name, life as u64, at + 1, &[id], &[0.0]);
                let to_queue = numbered("queue", &name, life as u64, at + 1, &[], &[at as f32, 7.0]);
                let moved = live.client.write(to_keyed).await.unwrap();
                let queued = live.client.write(to_queue).await.unwrap();
                assert_eq!(queued.ids.len(), 2, "a duplicate is told the ids of the first");
                assert_eq!(moved.duplicate, moved.updated == 0);
                (at, moved.position, queued.position, queued.ids)
            }
        };
        let mut answers = Vec::new();
        for group in order.chunks(5) {
            let sent: Vec<_> = group.iter().map(|&at| tokio::spawn(send(at))).collect();
            for answer in sent {
                answers.push(answer.await.unwrap());
            }
        }
        answers.sort();
        answers.dedup();
        assert_eq!(answers.len() as u64, writes / 4, "every copy of a write has the same position and ids");
    }
    copies
}

#[tokio::test]
async fn what_nobody_can_tell_is_refused() {
    let live = Live::start(&[]).await;
    live.create(keyed("docs", 1, 1)).await;
    let write = |number| live.client.write(numbered("docs", "w", 5, number, &[1], &[1.0]));
    write(2_000).await.unwrap();
    let refused = write(976).await;
    let Err(ClientError::FailedPrecondition(message)) = refused else { panic!("{refused:?}") };
    assert!(message.contains("number 976 of writer \"w\" is too old") && message.contains("up to 2000"), "{message}");
    assert!(!write(977).await.unwrap().duplicate, "the last one of the window");
    let violation = |result: Result<v1::WriteResponse, ClientError>| match result {
        Err(ClientError::InvalidArgument { violations, .. }) => violations[0].field.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(violation(write(0).await), "origin.number");
    let nobody = live.client.write(numbered("docs", "", 5, 1, &[1], &[1.0])).await;
    assert_eq!(violation(nobody), "origin.writer");
    let long = live.client.write(numbered("docs", &"w".repeat(129), 5, 1, &[1], &[1.0])).await;
    assert_eq!(violation(long), "origin.writer");
    // A write that is refused is not remembered: mended, it is applied.
    let bad = numbered("docs", "w", 5, 2_001, &[1], &[f32::NAN]);
    assert_eq!(violation(live.client.write(bad).await), "embeddings[0]");
    assert!(!write(2_001).await.unwrap().duplicate);
    assert_eq!(bank(&live.client, "docs").await.sequence, 3);
}

fn staged(bank: &str, step: u64, rank: u32, world_size: u32, ids: &[u64], x: &[f32]) -> v1::WriteRequest {
    v1::WriteRequest {
        bank: bank.to_owned(),
        ids: ids.to_vec(),
        embeddings: Some(rows(x)),
        stage: Some(v1::Stage { step, micro_batch: 0, rank, world_size }),
        ..Default::default()
    }
}

/// Four ranks write the same ids, so that their order matters; they arrive in another order in each run.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ranks_in_any_order_make_the_same_bank() {
    let mut banks = Vec::new();
    for run in 0..3 {
        let live = Live::start(&[]).await;
        live.create(keyed("docs", DIM as u32, 8)).await;
        live.create(queue("queue", DIM as u32, 4, 50)).await;
        let mut data = Seed(8).stream(0, 0);
        let mut arrival = Seed(run).stream(1, 1);
        let mut model = ModelBank::new(v1::Metric::Cosine, None, 0.5);
        for step in 0..20 {
            let parts: Vec<(Vec<u64>, Vec<f32>)> =
                (0..4).map(|_| ((0..9).map(|_| data.below(30)).collect(), random_rows(&mut data, 9, DIM))).collect();
            let mut order = [0, 1, 2, 3];
            shuffle(&mut arrival, &mut order);
            let mut sent = Vec::new();
            for rank in order {
                let (ids, x) = &parts[rank as usize];
                let (client, to_keyed) = (live.client.clone(), staged("docs", step, rank, 4, ids, x));
                let to_queue = staged("queue", step, rank, 4, &[], x);
                sent.push((
                    rank,
                    tokio::spawn(async move { (client.write(to_keyed).await.unwrap(), client.write(to_queue).await.unwrap()) }),
                ));
                tokio::time::sleep(Duration::from_millis(arrival.below(3))).await;
            }
            for (rank, written) in sent {
                let (to_keyed, to_queue) = written.await.unwrap();
                assert_eq!((to_keyed.sequence, to_queue.sequence), (step + 1, step + 1), "one mutation for all ranks");
                let first = step * 36 + u64::from(rank) * 9;
                assert_eq!(to_queue.ids, (first..first + 9).collect::<Vec<u64>>(), "each rank is told its own rows' ids");
            }
            for (ids, x) in &parts {
                let row = |(at, id): (usize, &u64)| ModelRow {
                    id: Some(*id),
                    x: x[at * DIM..(at + 1) * DIM].to_vec(),
                    label: None,
                    group: None,
                    weight: None,
                };
                model.write(&ids.iter().enumerate().map(row).collect::<Vec<_>>(), Some(step), None);
            }
        }
        let ids: Vec<u64> = (0..30).filter(|&id| model.find(id).is_some()).collect();
        let rows = all(&live.client, "docs", ids.clone()).await;
        for (id, row) in ids.iter().zip(rows.chunks_exact(DIM)) {
            let expected = &model.find(*id).unwrap().row;
            assert!(expected.iter().zip(row).all(|(want, got)| (want - f64::from(*got)).abs() < 1e-5), "entry {id}");
        }
        assert_eq!(bank(&live.client, "docs").await.step, Some(19), "the stage's step is the rows'");
        banks.push((rows, all(&live.client, "queue", (670..720).collect()).await));
    }
    assert!(banks[0] == banks[1] && banks[0] == banks[2], "the runs' banks differ in some bit");
}

fn shuffle(random: &mut Stream, order: &mut [u32]) {
    for at in (1..order.len()).rev() {
        order.swap(at, random.below(at as u64 + 1) as usize);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_fails_names_its_missing_ranks_and_changes_nothing() {
    let live = Live::start(&[]).await;
    live.create(keyed("docs", 1, 2)).await;
    let brief = live.client.with_timeout(Duration::from_millis(600));
    let one = tokio::spawn({
        let client = live.client.clone();
        async move { client.write(staged("docs", 3, 1, 4, &[1], &[1.0])).await }
    });
    until(&live.client, |bank| bank.stages.len() == 1 && bank.stages[0].missing_ranks == [0, 2, 3]).await;
    let three = brief.write(staged("docs", 3, 3, 4, &[1], &[1.0])).await;
    for refused in [three, one.await.unwrap()] {
        let Err(ClientError::DeadlineExceeded(message)) = refused else { panic!("{refused:?}") };
        assert!(message.contains("step 3, micro-batch 0") && message.contains("ranks 0, 2 of 4"), "{message}");
    }
    let after = bank(&live.client, "docs").await;
    assert_eq!((after.sequence, after.entries, after.stages.len()), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_again_joins_its_stage_and_is_a_duplicate_after_it() {
    let live = Live::start(&[]).await;
    live.create(keyed("docs", 1, 2)).await;
    let of_rank = |rank: u32, x: f32| {
        let origin = Some(v1::Origin { writer: format!("rank-{rank}"), incarnation: 1, number: 1 });
        v1::WriteRequest { origin, ..staged("docs", 0, rank, 2, &[u64::from(rank)], &[x]) }
    };
    let send = |request: v1::WriteRequest| {
        let client = live.client.clone();
        tokio::spawn(async move { client.write(request).await })
    };
    // One caller hangs up; its part stays.
    let gone = send(of_rank(0, 2.0));
    until(&live.client, |bank| bank.stages.len() == 1).await;
    gone.abort();
    let again = [send(of_rank(0, 2.0)), send(of_rank(0, 2.0))];
    let other = live.client.write(of_rank(0, 5.0)).await;
    let Err(ClientError::AlreadyExists(message)) = other else { panic!("{other:?}") };
    assert!(message.contains("rank 0 has written another batch"), "{message}");
    let elsewhere = v1::Stage { world_size: 3, rank: 1, ..of_rank(1, 1.0).stage.unwrap() };
    let other = live.client.write(v1::WriteRequest { stage: Some(elsewhere), ..of_rank(1, 1.0) }).await;
    let Err(ClientError::InvalidArgument { violations, .. }) = other else { panic!("{other:?}") };
    assert!(violations[0].field == "stage.world_size" && violations[0].reason.contains("said 2"), "{violations:?}");

    let last = live.client.write(of_rank(1, 1.0)).await.unwrap();
    assert_eq!((last.sequence, last.inserted, last.duplicate), (1, 2, false));
    for joined in again {
        assert_eq!(joined.await.unwrap().unwrap().position, last.position);
    }
    let late = live.client.write(of_rank(0, 2.0)).await.unwrap();
    assert_eq!((late.duplicate, late.position), (true, last.position));
    assert_eq!(bank(&live.client, "docs").await.sequence, 1);
}

/// Every part of every stage is sent once or several times, the copies at the same time or after the stage; micro-batches of a step
/// may overtake each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_staged_write_is_applied_once_however_often_it_is_sent() {
    let live = Arc::new(Live::start(&[]).await);
    live.create(v1::CreateBankRequest { metric: v1::Metric::Dot.into(), ..keyed("moves", 1, 8) }).await;
    let (steps, ranks) = (60u64, 4u32);
    // An entry for each part, which halves it.
    let ids: Vec<u64> = (0..steps * 2 * u64::from(ranks)).collect();
    live.write("moves", &ids, &vec![1.0; ids.len()], &[]).await;
    let tasks: Vec<_> = (0..ranks).map(|rank| tokio::spawn(stage_all(Arc::clone(&live), rank, ranks, steps))).collect();
    let mut copies = 0;
    for task in tasks {
        copies += task.await.unwrap();
    }
    assert!(copies > ids.len() * 3 / 2, "only {copies} copies of {} parts were sent", ids.len());
    let moved = all(&live.client, "moves", ids).await;
    assert!(moved.iter().all(|&x| x == 0.5), "an entry that was not halved exactly once");
    let moves = bank(&live.client, "moves").await;
    assert_eq!((moves.sequence, moves.stages.len()), (1 + 2 * steps, 0));
}

/// Sends one rank's parts of all stages, and returns how many copies that took.
async fn stage_all(live: Arc<Live>, rank: u32, ranks: u32, steps: u64) -> usize {
    let mut random = Seed(77).stream(0, rank as usize);
    let mut copies = 0;
    for step in 0..steps {
        let mut sent = Vec::new();
        let first = random.below(2) as u32;
        for micro_batch in [first, 1 - first] {
            let number = step * 2 + u64::from(micro_batch);
            let id = number * u64::from(ranks) + u64::from(rank);
            let stage = v1::Stage { step, micro_batch, rank, world_size: ranks };
            let part = numbered("moves", &format!("rank-{rank}"), 1, number + 1, &[id], &[0.0]);
            let part = v1::WriteRequest { stage: Some(stage), ..part };
            for _ in 0..1 + random.below(3) {
                let (client, part) = (live.client.clone(), part.clone());
                sent.push((micro_batch, tokio::spawn(async move { client.write(part).await.unwrap() })));
            }
            if random.below(3) == 0 {
                tokio::task::yield_now().await;
            }
        }
        copies += sent.len();
        let mut positions = [const { Vec::new() }; 2];
        for (micro_batch, answer) in sent {
            let answer = answer.await.unwrap();
            assert_eq!(answer.sequence, 2 + step * 2 + u64::from(micro_batch), "stages commit in order");
            assert!(answer.duplicate || answer.updated == u64::from(ranks), "the counts are the whole stage's");
            positions[micro_batch as usize].push(answer.position);
        }
        for mut positions in positions {
            positions.dedup();
            assert_eq!(positions.len(), 1, "every copy has the same position");
        }
    }
    copies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_the_bank_refuses_is_refused_to_every_rank() {
    let live = Live::start(&["limits.max_entries=3", "limits.max_stages=2", "limits.max_staged_rows=3"]).await;
    live.create(keyed("docs", 1, 2)).await;
    let send = |request: v1::WriteRequest| {
        let client = live.client.clone();
        tokio::spawn(async move { client.write(request).await })
    };
    let refused = |answer: Result<v1::WriteResponse, ClientError>, setting: &str| {
        let Err(ClientError::ResourceExhausted { message, .. }) = answer else { panic!("{answer:?}") };
        assert!(message.contains(setting), "{message}");
    };
    live.write("docs", &[1, 2], &[1.0, 1.0], &[]).await;
    let first = send(staged("docs", 0, 0, 2, &[3], &[1.0]));
    until(&live.client, |bank| bank.stages.len() == 1).await;
    refused(live.client.write(staged("docs", 0, 1, 2, &[4], &[1.0])).await, "limits.max_entries");
    refused(first.await.unwrap(), "limits.max_entries");
    assert_eq!(bank(&live.client, "docs").await.sequence, 1, "nothing was applied");

    let waiting = [send(staged("docs", 5, 0, 2, &[1], &[1.0])), send(staged("docs", 6, 0, 2, &[1], &[1.0]))];
    until(&live.client, |bank| bank.stages.len() == 2).await;
    let once = live.client.with_retries(0);
    for (request, setting) in [
        (staged("docs", 7, 0, 2, &[1], &[1.0]), "limits.max_stages"),
        (staged("docs", 5, 1, 2, &[1, 2], &[1.0, 1.0]), "limits.max_staged_rows"),
    ] {
        let full = once.write(request).await;
        assert!(full.as_ref().is_err_and(|full| full.retry_after().is_some()), "those that wait may end: {full:?}");
        refused(full, setting);
    }
    for (step, waiting) in (5..).zip(waiting) {
        let last = live.client.write(staged("docs", step, 1, 2, &[2], &[1.0])).await.unwrap();
        assert_eq!(waiting.await.unwrap().unwrap().position, last.position);
    }
}

#[tokio::test]
async fn a_place_outside_the_world_is_refused() {
    let live = Live::start(&["limits.max_ranks=8"]).await;
    live.create(keyed("docs", 1, 2)).await;
    for (rank, world_size, field) in
        [(4, 4, "stage.rank"), (0, 0, "stage.world_size"), (0, 9, "stage.world_size"), (u32::MAX, u32::MAX, "stage.world_size")]
    {
        match live.client.write(staged("docs", 0, rank, world_size, &[1], &[1.0])).await {
            Err(ClientError::InvalidArgument { violations, .. }) => {
                assert_eq!(violations[0].field, field, "{violations:?}");
                assert!(world_size < 9 || violations[0].reason.contains("limits.max_ranks"), "{violations:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(bank(&live.client, "docs").await.stages.is_empty());
}

/// Waits until the bank is as wanted.
async fn until(client: &Client, wanted: impl Fn(&v1::Bank) -> bool) {
    for _ in 0..500 {
        if wanted(&bank(client, "docs").await) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the bank never became as wanted: {:?}", bank(client, "docs").await);
}
