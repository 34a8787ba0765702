//! Checkpoints over gRPC: exact, whole or not there, and refused with a reason.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use negbank::client::{Client, ClientError, Code, Options, ScanColumns, rows};
use negbank::model::{Seed, Stream};
use negbank::proto::v1;

use crate::durable::{bank_folder, logs, seen_of};
use crate::lifecycle::Process;
use crate::live::{Live, keyed, queue, random_rows};

const DIM: usize = 12;

fn at(dir: &Path) -> String {
    format!("checkpoints.location={}", dir.display())
}

async fn create(client: &Client, bank: &str, tag: &str) -> Result<v1::Checkpoint, ClientError> {
    create_as(client, v1::CreateCheckpointRequest { bank: bank.into(), tag: tag.into(), ..Default::default() }).await
}

async fn create_as(client: &Client, request: v1::CreateCheckpointRequest) -> Result<v1::Checkpoint, ClientError> {
    Ok(client.create_checkpoint(request).await?.done().await?.checkpoint.unwrap())
}

async fn restore(client: &Client, bank: &str, tag: &str, into: &str) -> Result<v1::Bank, ClientError> {
    let request = v1::RestoreCheckpointRequest { bank: bank.into(), tag: tag.into(), into: into.into(), ..Default::default() };
    Ok(client.restore_checkpoint(request).await?.done().await?.restored.unwrap())
}

async fn tags(client: &Client, bank: &str) -> Vec<String> {
    let request = v1::ListCheckpointsRequest { bank: bank.into() };
    client.list_checkpoints(request).await.unwrap().checkpoints.into_iter().map(|made| made.tag).collect()
}

/// A write of some history.
fn write(bank: &str, random: &mut Stream, number: u64) -> v1::WriteRequest {
    let count = random.below(60) as usize + 1;
    let ids: Vec<u64> = (0..count).map(|_| random.below(500)).collect();
    v1::WriteRequest {
        bank: bank.to_owned(),
        embeddings: Some(rows(&random_rows(random, count, DIM))),
        labels: ids.iter().map(|id| (id % 7) as i64).collect(),
        groups: if number.is_multiple_of(3) { ids.iter().map(|id| id / 3).collect() } else { Vec::new() },
        weights: if number.is_multiple_of(4) { ids.iter().map(|id| (id % 9) as f32).collect() } else { Vec::new() },
        ids,
        step: Some(number),
        origin: Some(v1::Origin { writer: "w".into(), incarnation: 4, number: number + 1 }),
        ..Default::default()
    }
}

async fn written(client: &Client, bank: &str, random: &mut Stream, numbers: std::ops::Range<u64>) {
    for number in numbers {
        client.write(write(bank, random, number)).await.unwrap();
        if number % 10 == 3 {
            client.remove(v1::RemoveRequest { bank: bank.into(), ids: (0..20).collect() }).await.unwrap();
        }
    }
}

/// All that can be seen of a bank, but its name and durability.
async fn seen(client: &Client, bank: &str) -> (v1::Bank, Vec<ScanColumns>, Vec<v1::SampleResponse>) {
    let (about, chunks, answers) = seen_of(client, bank, DIM).await;
    (v1::Bank { name: String::new(), durability: 0, ..about }, chunks, answers)
}

fn banks() -> Vec<v1::CreateBankRequest> {
    let half = v1::CreateBankRequest { metric: v1::Metric::L2.into(), dtype: v1::Dtype::Bf16.into(), ..keyed("half", 12, 1) };
    vec![keyed("keyed", 12, 4), half, queue("queue", 12, 4, 300)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_bank_goes_on_as_if_it_had_not_been_away() {
    let dir = tempfile::tempdir().unwrap();
    let live = Live::start(&[&at(dir.path())]).await;
    let client = &live.client;
    for request in banks() {
        let bank = request.name.clone();
        live.create(request).await;
        let mut random = Seed(1).stream(0, 0);
        written(client, &bank, &mut random, 0..39).await;
        let kept = client.write(write(&bank, &mut random, 39)).await.unwrap().position;
        let made = create(client, &bank, "40").await.unwrap();
        let then = seen(client, &bank).await;
        let about = client.get_bank(v1::GetBankRequest { name: bank.clone() }).await.unwrap();
        assert_eq!((made.sequence, made.entries, made.step), (about.sequence, about.entries, about.step));
        // Into a new bank, while the one it was made of goes on.
        let mut others = random.clone();
        written(client, &bank, &mut random, 40..60).await;
        let other = format!("{bank}-2");
        assert_eq!(restore(client, &bank, "40", &other).await.unwrap().sequence, made.sequence);
        assert!(seen(client, &other).await == then, "{bank}: restored into a new bank");
        assert_eq!(create(client, &other, "40").await.unwrap().state_hash, made.state_hash);
        // A write of then is known, and the history goes on as the other one did.
        assert!(client.write(write(&other, &mut Seed(1).stream(0, 0), 0)).await.unwrap().duplicate);
        written(client, &other, &mut others, 40..60).await;
        assert!(seen(client, &other).await == seen(client, &bank).await, "{bank}: the history after");
        let [now, others_now] = [create(client, &bank, "60").await.unwrap(), create(client, &other, "60").await.unwrap()];
        assert_eq!(now.state_hash, others_now.state_hash);
        assert_ne!(now.state_hash, made.state_hash);
        // Into the same bank: back to then. It has the positions up to then, and those of what was left are refused.
        let left = client.write(write(&bank, &mut random, 60)).await.unwrap().position;
        restore(client, &bank, "40", "").await.unwrap();
        assert!(seen(client, &bank).await == then, "{bank}: restored into the same bank");
        let ahead = v1::FetchRequest { bank: bank.clone(), ids: vec![1], at_least: left, ..Default::default() };
        assert_eq!(client.fetch(ahead).await.unwrap_err().code(), Code::FailedPrecondition);
        for bank in [&bank, &other] {
            let had = v1::FetchRequest { bank: bank.clone(), ids: vec![1], at_least: kept.clone(), ..Default::default() };
            client.fetch(had).await.unwrap();
        }
        // The newest, if no tag is given.
        restore(client, &bank, "", "").await.unwrap();
        assert_eq!(create(client, &bank, "60-again").await.unwrap().state_hash, now.state_hash);
        assert_eq!(tags(client, &bank).await, ["40", "60", "60-again"]);
    }
    assert_eq!(tags(client, "").await.len(), 3 * 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_is_of_one_moment_while_writes_go_on() {
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data_flag = format!("durability.dir={}", data.path().display());
    let settings = [&at(dir.path()), &data_flag, "durability.snapshot_log_bytes=65536", "durability.segment_bytes=32768"];
    let live = Live::start(&settings).await;
    let reference = Live::start(&[&at(dir.path())]).await;
    live.create(keyed("b", 12, 4)).await;
    let client = &live.client;
    written(client, "b", &mut Seed(2).stream(0, 0), 0..100).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writing = {
        let (stop, client) = (Arc::clone(&stop), client.clone());
        tokio::spawn(async move {
            let mut random = Seed(3).stream(0, 0);
            let mut number = 100;
            while !stop.load(Ordering::Relaxed) {
                client.write(write("b", &mut random, number)).await.unwrap();
                number += 1;
            }
            number
        })
    };
    let mut made = Vec::new();
    for tag in 0..12 {
        made.push(create(client, "b", &format!("during-{tag}")).await.unwrap());
    }
    stop.store(true, Ordering::Relaxed);
    let end = writing.await.unwrap();
    assert!(made.first().unwrap().sequence < made.last().unwrap().sequence, "no write came in between: {end}");
    // A server that has no other history than the one up to each cut.
    reference.create(keyed("b", 12, 4)).await;
    written(&reference.client, "b", &mut Seed(2).stream(0, 0), 0..100).await;
    let mut random = Seed(3).stream(0, 0);
    let mut number = 100;
    for checkpoint in &made {
        loop {
            let about = reference.client.get_bank(v1::GetBankRequest { name: "b".into() }).await.unwrap();
            if about.sequence == checkpoint.sequence {
                break;
            }
            assert!(about.sequence < checkpoint.sequence && number < end);
            reference.client.write(write("b", &mut random, number)).await.unwrap();
            number += 1;
        }
        let same = create(&reference.client, "b", &format!("reference-{}", checkpoint.tag)).await.unwrap();
        assert_eq!(same.state_hash, checkpoint.state_hash, "{}", checkpoint.tag);
    }
    // What is restored outlives the server, with what is written to it then; what it replaced does not come back.
    restore(client, "b", "during-0", "").await.unwrap();
    written(client, "b", &mut Seed(4).stream(0, 0), end..end + 3).await;
    let before = seen(client, "b").await;
    drop(live);
    let live = Live::start(&settings).await;
    assert!(seen(&live.client, "b").await == before);
    assert_eq!(fs::read_dir(data.path().join("banks")).unwrap().count(), 1);
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_is_refused_and_changes_nothing() {
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data_flag = format!("durability.dir={}", data.path().display());
    let live = Live::start(&[&at(dir.path()), &data_flag]).await;
    let client = &live.client;
    for (bank, dim) in [("b", 12), ("narrow", 6)] {
        live.create(keyed(bank, dim, 2)).await;
    }
    written(client, "b", &mut Seed(1).stream(0, 0), 0..10).await;
    for tag in ["1", "damaged", "newer", "gone", "short", "other"] {
        create(client, "b", tag).await.unwrap();
    }
    let of = |tag: &str| dir.path().join("b").join(tag);
    let tensors = |tag: &str| files(&of(tag)).into_iter().find(|path| path.extension().unwrap() == "safetensors").unwrap();
    let mend = |path: &Path, change: &dyn Fn(Vec<u8>) -> Vec<u8>| fs::write(path, change(fs::read(path).unwrap())).unwrap();
    mend(&tensors("damaged"), &|mut bytes| {
        let last = bytes.len() - 5;
        bytes[last] ^= 4;
        bytes
    });
    mend(&of("newer").join("manifest.json"), &|bytes| {
        String::from_utf8(bytes).unwrap().replace("\"version\": 2", "\"version\": 3").into_bytes()
    });
    fs::remove_file(tensors("gone")).unwrap();
    mend(&tensors("short"), &|bytes| bytes[..bytes.len() / 2].to_vec());
    fs::copy(of("1").join("manifest.json"), of("other").join("manifest.json")).unwrap();
    fs::create_dir_all(of("half")).unwrap();
    fs::copy(tensors("1"), of("half").join("bank-1.safetensors")).unwrap();
    let (there, held) = (files(dir.path()), seen(client, "b").await);

    for (bank, tag, code, says) in [
        ("b", "1", Code::AlreadyExists, "has a checkpoint 1"),
        ("b", "../1", Code::InvalidArgument, "tag"),
        ("b", "", Code::InvalidArgument, "tag"),
        ("nobody", "1", Code::NotFound, "nobody"),
        ("../b", "1", Code::InvalidArgument, "bank"),
    ] {
        let refused = create(client, bank, tag).await.unwrap_err();
        assert!(refused.code() == code && refused.to_string().contains(says), "{bank} {tag}: {refused}");
    }
    for (bank, tag, into, code, says) in [
        ("b", "2", "", Code::NotFound, "short"),
        ("nobody", "", "", Code::NotFound, "nor any other"),
        ("b", "../1", "", Code::InvalidArgument, "tag"),
        ("b", "1", "../c", Code::InvalidArgument, "into"),
        ("b", "1", "narrow", Code::AlreadyExists, "dim"),
        ("b", "newer", "", Code::FailedPrecondition, "newer negbank"),
        ("b", "damaged", "", Code::DataLoss, "checksum"),
        ("b", "gone", "", Code::DataLoss, "is gone"),
        ("b", "short", "", Code::DataLoss, "bytes, not"),
        ("b", "other", "", Code::DataLoss, "manifest"),
        ("b", "half", "", Code::NotFound, "no checkpoint half"),
    ] {
        let refused = restore(client, bank, tag, into).await.unwrap_err();
        assert!(refused.code() == code && refused.to_string().contains(says), "{bank} {tag} {into}: {refused}");
    }
    for (bank, tag, code) in [("b", "2", Code::NotFound), ("b", "a/b", Code::InvalidArgument)] {
        let request = v1::DeleteCheckpointRequest { bank: bank.into(), tag: tag.into() };
        assert_eq!(client.delete_checkpoint(request).await.unwrap_err().code(), code);
    }
    // Neither what is half there nor what can't be read is listed.
    assert_eq!(tags(client, "b").await, ["1", "damaged", "gone", "short"]);
    assert!(files(dir.path()) == there && seen(client, "b").await == held);
    assert_eq!(fs::read_dir(data.path().join("banks")).unwrap().count(), 2);
    assert_eq!(files(&data.path().join("spool")), Vec::<PathBuf>::new());
}

/// A server that ended between a file and its manifest leaves the file: it is no checkpoint, and takes room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_attempt_left_is_deleted_by_its_tag_once_nobody_can_be_at_it() {
    let dir = tempfile::tempdir().unwrap();
    let live = Live::start(&[&at(dir.path())]).await;
    let left = dir.path().join("b/half/bank-1.safetensors");
    fs::create_dir_all(left.parent().unwrap()).unwrap();
    fs::write(&left, "of a bank").unwrap();
    let delete = || live.client.delete_checkpoint(v1::DeleteCheckpointRequest { bank: "b".into(), tag: "half".into() });
    assert_eq!(delete().await.unwrap_err().code(), Code::NotFound);
    assert!(left.exists(), "its manifest may come yet");
    let hours_ago = fs::metadata(&left).unwrap().modified().unwrap() - Duration::from_secs(2 * 3_600);
    fs::File::options().write(true).open(&left).unwrap().set_modified(hours_ago).unwrap();
    delete().await.unwrap();
    assert!(!left.exists());
    assert_eq!(delete().await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_servers_limits_forbid_is_not_restored() {
    let dir = tempfile::tempdir().unwrap();
    {
        let live = Live::start(&[&at(dir.path())]).await;
        live.create(keyed("b", 12, 2)).await;
        written(&live.client, "b", &mut Seed(1).stream(0, 0), 0..10).await;
        assert!(create(&live.client, "b", "1").await.unwrap().entries > 5);
    }
    for (limit, setting) in [("limits.max_dim=11", "limits.max_dim"), ("limits.max_entries=5", "limits.max_entries")] {
        let live = Live::start(&[&at(dir.path()), limit]).await;
        let refused = restore(&live.client, "b", "1", "").await.unwrap_err();
        assert!(refused.code() == Code::ResourceExhausted && refused.to_string().contains(setting), "{refused}");
        assert!(live.client.list_banks().await.unwrap().banks.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_are_kept_and_a_tag_can_be_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let live = Live::start(&[&at(dir.path()), "checkpoints.keep=3"]).await;
    let client = &live.client;
    live.create(keyed("b", 12, 2)).await;
    let mut random = Seed(1).stream(0, 0);
    for number in 0..5 {
        written(client, "b", &mut random, number..number + 1).await;
        create(client, "b", &number.to_string()).await.unwrap();
    }
    assert_eq!(tags(client, "b").await, ["2", "3", "4"]);
    written(client, "b", &mut random, 5..6).await;
    let replace = |keep| v1::CreateCheckpointRequest { bank: "b".into(), tag: "3".into(), replace: true, keep };
    let replaced = create_as(client, replace(0)).await.unwrap();
    assert_eq!(tags(client, "b").await, ["2", "4", "3"]);
    assert_eq!(files(&dir.path().join("b/3")).len(), 2);
    assert_eq!(restore(client, "b", "3", "c").await.unwrap().sequence, replaced.sequence);
    create_as(client, replace(1)).await.unwrap();
    assert_eq!(tags(client, "b").await, ["3"]);
    client.delete_checkpoint(v1::DeleteCheckpointRequest { bank: "b".into(), tag: "3".into() }).await.unwrap();
    assert_eq!((tags(client, "b").await, files(dir.path())), (Vec::new(), Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_location_says_which_setting_it_wants() {
    let live = Live::start(&[]).await;
    live.create(keyed("b", 12, 2)).await;
    let refused = create(&live.client, "b", "1").await.unwrap_err();
    assert!(refused.code() == Code::FailedPrecondition && refused.to_string().contains("checkpoints.location"), "{refused}");
    let listed = live.client.list_checkpoints(v1::ListCheckpointsRequest::default()).await.unwrap_err();
    assert!(listed.to_string().contains("checkpoints.location"), "{listed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_whose_log_is_damaged_is_mended_from_its_checkpoint() {
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data_flag = format!("durability.dir={}", data.path().display());
    let settings = [&at(dir.path()), &data_flag[..]];
    let live = Live::start(&settings).await;
    live.create(keyed("b", 12, 2)).await;
    written(&live.client, "b", &mut Seed(1).stream(0, 0), 0..5).await;
    create(&live.client, "b", "5").await.unwrap();
    let then = seen(&live.client, "b").await;
    written(&live.client, "b", &mut Seed(2).stream(0, 0), 5..7).await;
    drop(live);
    let log = logs(data.path(), "b").pop().unwrap();
    let mut bytes = fs::read(&log).unwrap();
    bytes[100] ^= 1;
    fs::write(&log, bytes).unwrap();
    let live = Live::start(&settings).await;
    let refused = live.client.get_bank(v1::GetBankRequest { name: "b".into() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::DataLoss);
    restore(&live.client, "b", "5", "").await.unwrap();
    assert!(seen(&live.client, "b").await == then);
    drop(live);
    let live = Live::start(&settings).await;
    assert!(seen(&live.client, "b").await == then);
    assert_eq!(fs::read_dir(data.path().join("banks")).unwrap().count(), 1);
}

/// Of two folders of one name nobody can tell which is right: both go, or give way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_of_which_two_folders_lie_there_is_deleted_and_replaced_as_a_whole() {
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data_flag = format!("durability.dir={}", data.path().display());
    let settings = [&at(dir.path()), &data_flag[..]];
    let banks = data.path().join("banks");
    let server = Process::start(&["--set", settings[0], "--set", settings[1]]);
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    for bank in ["b", "deleted"] {
        client.create_bank(keyed(bank, 12, 2)).await.unwrap();
        written(&client, bank, &mut Seed(1).stream(0, 0), 0..5).await;
    }
    create(&client, "b", "5").await.unwrap();
    let then = seen(&client, "b").await;
    drop(server);
    for bank in ["b", "deleted"] {
        let (there, copy) = (bank_folder(data.path(), bank), banks.join(format!("{bank}@00000000000000ff")));
        fs::create_dir(&copy).unwrap();
        for file in files(&there) {
            fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
        }
    }
    let server = Process::start(&["--set", settings[0], "--set", settings[1]]);
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    for bank in ["b", "deleted"] {
        let refused = client.get_bank(v1::GetBankRequest { name: bank.into() }).await.unwrap_err();
        assert!(refused.code() == Code::DataLoss && refused.to_string().contains("@00000000000000ff"), "{refused}");
    }
    restore(&client, "b", "5", "").await.unwrap();
    client.delete_bank(v1::DeleteBankRequest { name: "deleted".into() }).await.unwrap();
    assert!(seen(&client, "b").await == then);
    drop(server);
    let server = Process::start(&["--set", settings[0], "--set", settings[1]]);
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    assert!(seen(&client, "b").await == then);
    assert_eq!(client.list_banks().await.unwrap().banks.len(), 1);
    assert_eq!(fs::read_dir(banks).unwrap().count(), 1);
}

/// Runs `negbank checkpoint` and returns what it prints, or what it complains of.
fn negbank(address: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_negbank"));
    let ran = command.arg("checkpoint").args(arguments).args(["--address", address]).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if ran.status.success() { Ok(text(ran.stdout)) } else { Err(text(ran.stderr)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_makes_lists_restores_and_deletes() {
    let dir = tempfile::tempdir().unwrap();
    let live = Live::start(&[&at(dir.path())]).await;
    live.create(keyed("b", 12, 2)).await;
    written(&live.client, "b", &mut Seed(1).stream(0, 0), 0..3).await;
    let address = live.address.clone();
    let about = live.client.get_bank(v1::GetBankRequest { name: "b".into() }).await.unwrap();
    let told = tokio::task::spawn_blocking(move || {
        let run = |arguments: &[&str]| negbank(&address, arguments);
        let made = run(&["create", "b", "3"]).unwrap();
        assert_eq!(run(&["list"]).unwrap(), made);
        let restored = run(&["restore", "b", "--into", "c"]).unwrap();
        let refused = run(&["create", "b", "3"]).unwrap_err();
        assert!(refused.starts_with("negbank: ") && refused.contains("replace"), "{refused}");
        let again = run(&["create", "b", "3", "--replace", "--keep", "1"]).unwrap();
        assert_eq!(again.lines().nth(1).unwrap().split_whitespace().nth(1), Some("3"), "{again}");
        run(&["delete", "b", "3"]).unwrap();
        assert_eq!(run(&["list", "b"]).unwrap().lines().count(), 1, "its headings");
        (made, restored)
    });
    let (made, restored) = told.await.unwrap();
    let (sequence, entries) = (about.sequence.to_string(), about.entries.to_string());
    let columns: Vec<&str> = made.lines().nth(1).unwrap().split_whitespace().take(5).collect();
    assert_eq!(columns, ["b", "3", &sequence, "2", &entries], "{made}");
    assert_eq!(restored, format!("bank c: {} entries at sequence {}, from 3\n", about.entries, about.sequence));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_call_waits_for_gives_way_and_a_restored_banks_writes_do_not() {
    let (data, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let stored = format!("durability.dir={}", data.path().display());
    let server = Process::start(&["--set", &stored, "--set", &at(kept.path())]);
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    client.create_bank(keyed("b", DIM as u32, 1)).await.unwrap();
    written(&client, "b", &mut Seed(3).stream(0, 0), 0..3).await;
    create(&client, "b", "1").await.unwrap();
    restore(&client, "b", "1", "again").await.unwrap();
    written(&client, "again", &mut Seed(4).stream(0, 0), 3..6).await;
    let priorities = server.priorities();
    let own = priorities.iter().find(|(name, _)| name == "compute-0").unwrap().1;
    let of = |prefix: &str| priorities.iter().filter(|(name, _)| name.starts_with(prefix)).collect::<Vec<_>>();
    for prefix in ["commit-", "log-", "sync-", "compute-", "tokio"] {
        let threads = of(prefix);
        assert!(!threads.is_empty() && threads.iter().all(|(_, nice)| *nice == own), "{prefix}: {priorities:?}");
    }
    assert_eq!(of("commit-").len(), 2, "{priorities:?}");
    for prefix in ["snapshot", "background", "index"] {
        let threads = of(prefix);
        assert!(!threads.is_empty() && threads.iter().all(|(_, nice)| *nice > own || *nice == 19), "{prefix}: {priorities:?}");
    }
}

/// What can't be named where it is to lie is copied there: the spool is in memory, the location on a disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_on_another_disk_is_copied() {
    let (kept, spool) = (tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
    let disk = |dir: &Path| std::os::unix::fs::MetadataExt::dev(&fs::metadata(dir).unwrap());
    assert_ne!(disk(kept.path()), disk(spool.path()), "this test wants two file systems");
    let spooled = format!("checkpoints.spool={}", spool.path().display());
    let server = Process::start(&["--set", &spooled, "--set", &at(kept.path())]);
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    client.create_bank(keyed("b", DIM as u32, 1)).await.unwrap();
    written(&client, "b", &mut Seed(5).stream(0, 0), 0..40).await;
    let made = create(&client, "b", "1").await.unwrap();
    assert_eq!(files(spool.path()), Vec::<PathBuf>::new());
    restore(&client, "b", "1", "again").await.unwrap();
    assert_eq!(seen(&client, "again").await.1, seen(&client, "b").await.1);
    assert_eq!(create(&client, "again", "2").await.unwrap().content_hash, made.content_hash);

    // Long enough to be told of: what was copied of the bank to the spool, then of that to the location.
    let (dim, entries) = (1_024, 16_000);
    client.create_bank(keyed("large", dim, 1)).await.unwrap();
    for first in (0..entries).step_by(2_000) {
        let embeddings: Vec<f32> = (0..2_000 * dim).map(|at| (at % 13 + 1) as f32).collect();
        let (ids, embeddings) = ((first..first + 2_000).collect(), Some(rows(&embeddings)));
        client.write(v1::WriteRequest { bank: "large".into(), ids, embeddings, ..Default::default() }).await.unwrap();
    }
    let request = v1::CreateCheckpointRequest { bank: "large".into(), tag: "1".into(), ..Default::default() };
    let mut making = client.create_checkpoint(request).await.unwrap();
    let (mut readings, mut made) = (Vec::new(), None);
    while let Some(reading) = making.next().await.unwrap() {
        made = reading.checkpoint.clone();
        readings.push(reading);
    }
    let (last, bytes) = (readings.pop(), made.unwrap().bytes);
    assert!(bytes > u64::from(dim) * 4 * entries && last.unwrap().restored.is_none());
    assert!(readings.iter().any(|reading| reading.done_bytes > 0), "{readings:?}");
    assert!(readings.is_sorted_by_key(|reading| (reading.phase, reading.done_bytes)), "{readings:?}");
    let at_work = readings.iter().filter(|reading| reading.phase() != v1::CheckpointPhase::Waiting);
    assert!(at_work.clone().all(|reading| reading.total_bytes == bytes && reading.done_bytes <= bytes), "{readings:?}");
    assert!(
        at_work
            .clone()
            .all(|reading| [v1::CheckpointPhase::Copying, v1::CheckpointPhase::Uploading].contains(&reading.phase())),
        "{readings:?}"
    );
}
