//! Banks outlive their server: what they held, what they knew, and what they will draw.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use negbank::client::{Client, Options, ScanColumns, rows};
use negbank::model::{Seed, Stream};
use negbank::proto::v1;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::lifecycle::Process;
use crate::live::{Live, all_columns, keyed, nearest, queue, random_rows, uniform};

const DIM: u32 = 12;

fn dir_of(dir: &Path) -> String {
    format!("durability.dir={}", dir.display())
}

fn banks() -> Vec<v1::CreateBankRequest> {
    vec![
        v1::CreateBankRequest { durability: v1::Durability::Always.into(), ..keyed("keyed", DIM, 4) },
        v1::CreateBankRequest { capacity: 150, metric: v1::Metric::Dot.into(), momentum: Some(0.0), ..keyed("capped", DIM, 3) },
        v1::CreateBankRequest { dtype: v1::Dtype::Bf16.into(), metric: v1::Metric::L2.into(), ..keyed("halves", DIM, 1) },
        queue("queue", DIM, 8, 200),
    ]
}

/// Writes and removals of every kind; `from` numbers them on.
async fn mutate(client: &Client, bank: &v1::CreateBankRequest, from: u64, random: &mut Stream) {
    for number in from..from + 30 {
        let count = random.below(30) as usize + 1;
        let ids: Vec<u64> = (0..count).map(|_| random.below(300)).collect();
        let is_queue = bank.kind() == v1::BankKind::Queue;
        let request = v1::WriteRequest {
            bank: bank.name.clone(),
            embeddings: Some(rows(&random_rows(random, count, DIM as usize))),
            ids: if is_queue && number % 2 == 0 { Vec::new() } else { ids.clone() },
            labels: if number % 3 > 0 { ids.iter().map(|id| (id % 7) as i64).collect() } else { Vec::new() },
            has_label: if number % 3 == 2 { ids.iter().map(|id| (id % 2) as u8).collect() } else { Default::default() },
            groups: if number % 4 == 0 { ids.iter().map(|id| id / 3).collect() } else { Vec::new() },
            weights: if number % 5 == 0 { ids.iter().map(|id| *id as f32 / 7.0).collect() } else { Vec::new() },
            step: (number % 6 != 0).then_some(number / 4),
            momentum: (!is_queue && number % 7 == 0).then_some(0.75),
            origin: Some(v1::Origin { writer: "w".into(), incarnation: 3, number: number + 1 }),
            ..Default::default()
        };
        client.write(request).await.unwrap();
        if number % 9 == 0 {
            let ids = (0..5).map(|_| random.below(300)).collect();
            client.remove(v1::RemoveRequest { bank: bank.name.clone(), ids }).await.unwrap();
        }
    }
}

fn of(bank: &str) -> v1::GetBankRequest {
    v1::GetBankRequest { name: bank.to_owned() }
}

/// All that can be seen of a bank, draws of the future too.
pub(crate) async fn seen(client: &Client, bank: &str) -> (v1::Bank, Vec<ScanColumns>, Vec<v1::SampleResponse>) {
    seen_of(client, bank, DIM as usize).await
}

pub(crate) async fn seen_of(client: &Client, bank: &str, dim: usize) -> (v1::Bank, Vec<ScanColumns>, Vec<v1::SampleResponse>) {
    let mut about = client.get_bank(of(bank)).await.unwrap();
    about.index = None;
    let mut scan = client.scan(v1::ScanRequest { bank: bank.to_owned(), ..Default::default() }).await.unwrap();
    let mut chunks = Vec::new();
    while let Some(chunk) = scan.next().await.unwrap() {
        // A position is of one server's bank.
        chunks.push(ScanColumns { position: Default::default(), ..chunk });
    }
    let weighted =
        v1::Draw { k: 9, strategy: Some(v1::draw::Strategy::Weighted(v1::Weighted::default())), ..Default::default() };
    let balanced =
        v1::Draw { k: 9, strategy: Some(v1::draw::Strategy::Balanced(v1::Balanced::default())), ..Default::default() };
    let mut answers = Vec::new();
    for seed in 0..4 {
        let mut random = Seed(seed).stream(7, 7);
        let request = v1::SampleRequest {
            bank: bank.to_owned(),
            anchors: Some(v1::Anchors {
                embeddings: Some(rows(&random_rows(&mut random, 5, dim))),
                labels: vec![0, 1, 2, 3, 4],
                groups: vec![9, 8, 7, 6, 5],
                ..Default::default()
            }),
            draws: vec![uniform(11), nearest(7), weighted.clone(), balanced.clone()],
            filters: Some(v1::Filters { exclude_same_label: seed % 2 == 0, ..Default::default() }),
            columns: all_columns(),
            seed: Some(seed),
            ..Default::default()
        };
        answers.push(client.sample(request).await.unwrap());
    }
    (about, chunks, answers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_has_the_same_banks_and_goes_on_as_if_it_had_not_ended() {
    let dir = tempfile::tempdir().unwrap();
    let flag = dir_of(dir.path());
    let settings = [&flag, "durability.segment_bytes=16384", "durability.snapshot_log_bytes=20000"];
    // Beside it a server of one life, to which the same is done.
    let unbroken = Live::start(&[]).await;
    let mut random = [Seed(5).stream(0, 0), Seed(5).stream(0, 0)];
    for bank in banks() {
        unbroken.create(v1::CreateBankRequest { durability: 0, ..bank }).await;
    }
    for life in 0..3u64 {
        let live = Live::start(&settings).await;
        for bank in banks() {
            let made = live.create(bank.clone()).await;
            assert_eq!(made.sequence > 0, life > 0, "{}", bank.name);
            mutate(&live.client, &bank, life * 30, &mut random[0]).await;
            mutate(&unbroken.client, &bank, life * 30, &mut random[1]).await;
            let (about, chunks, answers) = seen(&live.client, &bank.name).await;
            let (expected, expected_chunks, expected_answers) = seen(&unbroken.client, &bank.name).await;
            assert_eq!(v1::Bank { durability: 1, ..about }, expected, "{}, life {life}", bank.name);
            assert!(chunks == expected_chunks, "{}, life {life}: other rows", bank.name);
            assert!(answers == expected_answers, "{}, life {life}: other draws", bank.name);
            let again = v1::WriteRequest {
                bank: bank.name.clone(),
                embeddings: Some(rows(&[1.0; DIM as usize])),
                ids: vec![1],
                origin: Some(v1::Origin { writer: "w".into(), incarnation: 3, number: 1 }),
                ..Default::default()
            };
            assert!(live.client.write(again).await.unwrap().duplicate, "{}: what was applied in another life", bank.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_and_stages_hold_across_a_restart_and_a_deleted_bank_stays_away() {
    let dir = tempfile::tempdir().unwrap();
    let flag = dir_of(dir.path());
    let staged = |micro_batch: u32| v1::WriteRequest {
        bank: "b".into(),
        ids: vec![u64::from(micro_batch)],
        embeddings: Some(rows(&[1.0, 2.0])),
        stage: Some(v1::Stage { step: 4, micro_batch, rank: 0, world_size: 1 }),
        ..Default::default()
    };
    let position = {
        let live = Live::start(&[&flag]).await;
        live.create(keyed("b", 2, 1)).await;
        live.create(keyed("gone", 2, 1)).await;
        live.write("gone", &[1], &[1.0, 1.0], &[]).await;
        live.client.delete_bank(v1::DeleteBankRequest { name: "gone".into() }).await.unwrap();
        live.client.write(staged(0)).await.unwrap().position
    };
    let live = Live::start(&[&flag]).await;
    assert_eq!(live.client.list_banks().await.unwrap().banks.len(), 1);
    let fetch = v1::FetchRequest { bank: "b".into(), ids: vec![0], at_least: position, ..Default::default() };
    assert_eq!(live.client.fetch(fetch).await.unwrap().found[..], [1]);
    // Micro-batch 1 may come: the bank knows of micro-batch 0.
    assert_eq!(live.client.write(staged(1)).await.unwrap().sequence, 2);
    let asked = v1::CreateBankRequest { durability: v1::Durability::Always.into(), ..keyed("b", 2, 1) };
    let refused = live.client.create_bank(asked).await.unwrap_err();
    assert!(refused.to_string().contains("durability is interval, not always"), "{refused}");
    assert_eq!(live.create(keyed("b", 2, 1)).await.durability(), v1::Durability::Interval);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_folder_promises_nothing() {
    let live = Live::start(&[]).await;
    assert_eq!(live.create(keyed("b", 2, 1)).await.durability(), v1::Durability::Memory);
    let asked = v1::CreateBankRequest { durability: v1::Durability::Always.into(), ..keyed("c", 2, 1) };
    let refused = live.client.create_bank(asked).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.to_string().contains("durability.dir"), "{refused}");
}

/// What is written again and again takes room once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_goes_when_a_snapshot_has_taken_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let flag = dir_of(dir.path());
    let settings = [&flag, "durability.segment_bytes=65536", "durability.snapshot_log_bytes=262144"];
    let live = Live::start(&settings).await;
    live.create(keyed("b", 64, 2)).await;
    let ids: Vec<u64> = (0..200).collect();
    let mut random = Seed(1).stream(0, 0);
    let mut written = 0;
    for _ in 0..300 {
        live.write("b", &ids, &random_rows(&mut random, 200, 64), &[]).await;
        written += 200 * 64 * 4;
    }
    let folder = bank_folder(dir.path(), "b");
    let bytes =
        || fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().metadata().map_or(0, |file| file.len())).sum::<u64>();
    // A snapshot may be on its way; the writes are what makes it be noticed.
    let mut left = 200;
    while bytes() > 1 << 20 && left > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        live.write("b", &ids, &random_rows(&mut random, 200, 64), &[]).await;
        left -= 1;
    }
    assert!(bytes() <= 1 << 20 && written > 10 << 20, "{} bytes on disk of {written} written", bytes());
    let seen_before = seen_of(&live.client, "b", 64).await;
    drop(live);
    let live = Live::start(&settings).await;
    assert!(seen_of(&live.client, "b", 64).await == seen_before);
}

pub(crate) fn bank_folder(dir: &Path, bank: &str) -> PathBuf {
    let mut folders = fs::read_dir(dir.join("banks")).unwrap().map(|entry| entry.unwrap().path());
    folders.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{bank}@"))).unwrap()
}

/// The log files of a bank, in order.
pub(crate) fn logs(dir: &Path, bank: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(bank_folder(dir, bank)).unwrap().map(|entry| entry.unwrap().path());
    let mut logs: Vec<PathBuf> = files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("log-")).collect();
    logs.sort();
    logs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_bank_is_refused_by_file_and_offset_and_the_others_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let flag = dir_of(dir.path());
    {
        let live = Live::start(&[&flag]).await;
        for bank in ["good", "bad"] {
            live.create(keyed(bank, 2, 1)).await;
            for id in 0..9 {
                live.write(bank, &[id], &[1.0, id as f32], &[]).await;
            }
        }
    }
    let file = logs(dir.path(), "bad").remove(0);
    let mut content = fs::read(&file).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 4;
    fs::write(&file, &content).unwrap();
    let live = Live::start(&[&flag]).await;
    assert_eq!(live.client.get_bank(of("good")).await.unwrap().entries, 9);
    for refused in
        [live.client.get_bank(of("bad")).await.unwrap_err(), live.client.create_bank(keyed("bad", 2, 1)).await.unwrap_err()]
    {
        assert_eq!(refused.code(), Code::DataLoss, "{refused}");
        let text = refused.to_string();
        let offset = text.split("at byte ").nth(1).and_then(|rest| rest.split(':').next()).unwrap().parse::<usize>().unwrap();
        assert!(text.contains(file.to_str().unwrap()) && offset <= middle && middle - offset < 120, "{text}");
    }
    assert_eq!(fs::read(&file).unwrap(), content, "a refused file is left alone");
    live.client.delete_bank(v1::DeleteBankRequest { name: "bad".into() }).await.unwrap();
    assert_eq!(live.create(keyed("bad", 2, 1)).await.entries, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_bank_is_served_as_it_was_before_the_damage_if_the_settings_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let flag = dir_of(dir.path());
    let bank = &banks()[0];
    let mut after = Vec::new();
    {
        let live = Live::start(&[&flag]).await;
        live.create(bank.clone()).await;
        for id in 0..9 {
            live.write(&bank.name, &[id], &random_rows(&mut Seed(id).stream(0, 0), 1, DIM as usize), &[]).await;
            after.push(seen_of(&live.client, &bank.name, DIM as usize).await);
        }
    }
    let file = logs(dir.path(), &bank.name).remove(0);
    let mut content = fs::read(&file).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 4;
    fs::write(&file, &content).unwrap();
    let live = Live::start(&[&flag, "durability.damaged=read_only"]).await;
    let info = live.client.get_bank(of(&bank.name)).await.unwrap();
    assert!((1..9).contains(&info.sequence) && info.damage().contains(file.to_str().unwrap()), "{info:?}");
    let ((_, rows, draws), (_, rows_then, draws_then)) =
        (seen_of(&live.client, &bank.name, DIM as usize).await, &after[info.sequence as usize - 1]);
    assert!(rows == *rows_then && draws == *draws_then, "it is what it was after write {}", info.sequence);
    let ids = vec![1];
    let embeddings = Some(rows_of_one());
    let write = v1::WriteRequest { bank: bank.name.clone(), ids: ids.clone(), embeddings, ..Default::default() };
    for refused in [
        live.client.write(write).await.unwrap_err(),
        live.client.remove(v1::RemoveRequest { bank: bank.name.clone(), ids }).await.unwrap_err(),
    ] {
        assert!(refused.code() == Code::FailedPrecondition && refused.to_string().contains("durability.damaged"), "{refused}");
    }
    assert_eq!(fs::read(&file).unwrap(), content, "its files are left alone");
    live.client.delete_bank(v1::DeleteBankRequest { name: bank.name.clone() }).await.unwrap();
    assert!(live.create(bank.clone()).await.damage.is_none());
}

fn rows_of_one() -> v1::Matrix {
    rows(&[1.0; DIM as usize])
}

#[test]
fn a_folder_has_one_server() {
    let dir = tempfile::tempdir().unwrap();
    let flag = dir_of(dir.path());
    let first = Process::start(&["--set", &flag]);
    let second = Command::new(env!("CARGO_BIN_EXE_negbank"))
        .args(["serve", "--listen", "127.0.0.1:0", "--set", &flag])
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success());
    let whose = format!("in use by another server, process {}", first.id());
    assert!(complaint.contains(&whose) && complaint.contains("durability.dir"), "{complaint}");
    drop(first);
    drop(Process::start(&["--set", &flag]));
}

/// A disk that takes no more: here because no file of the process may grow beyond 256 KiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_grow_stops_the_writes_and_not_the_reads() {
    let dir = tempfile::tempdir().unwrap();
    let flag = dir_of(dir.path());
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 512; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_negbank")]);
    let server = Process::start_by(limited, "address=", &["--listen", "127.0.0.1:0", "--set", &flag]);
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    client.create_bank(keyed("b", 64, 1)).await.unwrap();
    let write = |id: u64| v1::WriteRequest {
        bank: "b".into(),
        ids: (id * 100..id * 100 + 100).collect(),
        embeddings: Some(rows(&vec![id as f32 + 1.0; 6_400])),
        ..Default::default()
    };
    let mut acknowledged = 0;
    let refused = loop {
        match client.write(write(acknowledged)).await {
            Ok(_) => acknowledged += 1,
            Err(refused) => break refused,
        }
        assert!(acknowledged < 100, "the limit was never met");
    };
    assert!(acknowledged > 3, "{acknowledged}");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    for part in ["no more writes until the server is restarted", "log-", "File too large"] {
        assert!(refused.to_string().contains(part), "{refused}");
    }
    let again = client.write(write(0)).await.unwrap_err();
    assert_eq!(again.to_string(), refused.to_string());
    assert_eq!(client.get_bank(of("b")).await.unwrap().entries, acknowledged * 100, "reads go on");
    let channel =
        tonic::transport::Channel::from_shared(format!("http://{}", server.address)).unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(channel);
    for (service, status) in [("negbank.v1.Banks", ServingStatus::NotServing), ("negbank.v1.Sampling", ServingStatus::Serving)]
    {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner();
        assert_eq!(answer.status(), status, "{service}");
    }
    drop(server);
    let server = Process::start(&["--set", &flag]);
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    assert_eq!(client.get_bank(of("b")).await.unwrap().entries, acknowledged * 100, "the write that failed was cut short");
    client.write(write(acknowledged)).await.unwrap();
    let log = server.killed();
    assert!(log.contains("was not written whole and was dropped"), "{log}");
}
