//! A disk that refuses: an error or a correct bank, never a wrong one. `faults.c` is the disk.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use negbank::client::{Client, ClientError, Code, Options, rows};
use negbank::proto::v1;

use crate::durable::seen_of;
use crate::lifecycle::Process;
use crate::live::keyed;

/// A server with a disk that fails when it is told to.
struct Frail {
    dir: tempfile::TempDir,
    shim: PathBuf,
}

impl Frail {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shim = dir.path().join("faults.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/service/faults.c");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(source).status();
        assert!(built.expect("a C compiler, which Rust links with").success());
        fs::create_dir(dir.path().join("faults")).unwrap();
        Self { dir, shim }
    }

    async fn start(&self) -> (Process, Client) {
        self.start_with(&[]).await
    }

    async fn start_with(&self, settings: &[&str]) -> (Process, Client) {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_negbank"));
        command.env("LD_PRELOAD", &self.shim).env("FAULTS", at("faults"));
        let (data, checkpoints) =
            (format!("durability.dir={}", at("data")), format!("checkpoints.location={}", at("checkpoints")));
        let mut arguments = vec!["--listen", "127.0.0.1:0", "--set", &data, "--set", &checkpoints];
        settings.iter().for_each(|&setting| arguments.extend(["--set", setting]));
        let server = Process::start_by(command, "address=", &arguments);
        let client = Client::connect(&server.address, Options { retries: 0, ..Options::default() }).await.unwrap();
        (server, client)
    }

    fn fail(&self, fault: &str, fails: bool) {
        let path = self.dir.path().join("faults").join(fault);
        if fails { fs::write(path, "").unwrap() } else { fs::remove_file(path).unwrap() }
    }
}

/// Files below a folder, with their metadata.
fn files(folder: &Path) -> Vec<(PathBuf, fs::Metadata)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let of = |path: PathBuf| match path.metadata() {
        Ok(about) if about.is_dir() => files(&path),
        Ok(about) => vec![(path, about)],
        // It went while we looked.
        Err(_) => Vec::new(),
    };
    entries.flat_map(of).collect()
}

impl Frail {
    /// How long each file was when it was last synced, by inode.
    fn synced(&self) -> HashMap<u64, u64> {
        let told = fs::read_to_string(self.dir.path().join("faults/synced")).unwrap_or_default();
        let line = |line: &str| line.split_once(' ').map(|(inode, len)| (inode.parse().unwrap(), len.parse().unwrap()));
        told.lines().filter_map(line).collect()
    }

    /// Logs that are longer than what was synced of them.
    fn unsynced(&self) -> usize {
        let synced = self.synced();
        let of_log = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log-"));
        let is_longer = |about: &fs::Metadata| synced.get(&about.ino()).is_none_or(|&len| about.len() > len);
        files(&self.dir.path().join("data")).iter().filter(|(path, about)| of_log(path) && is_longer(about)).count()
    }

    /// The power goes: what was not synced is not there.
    fn cut(&self, server: Process) {
        server.killed();
        let synced = self.synced();
        for (path, about) in files(&self.dir.path().join("data")) {
            let kept = synced.get(&about.ino()).copied().unwrap_or(0);
            if kept < about.len() {
                fs::File::options().write(true).open(path).unwrap().set_len(kept).unwrap();
            }
        }
    }
}

fn bank(name: &str, durability: v1::Durability) -> v1::CreateBankRequest {
    v1::CreateBankRequest { durability: durability.into(), ..keyed(name, 4, 2) }
}

async fn write(client: &Client, bank: &str, number: u64) -> Result<v1::WriteResponse, ClientError> {
    let request = v1::WriteRequest {
        bank: bank.into(),
        ids: vec![number, number + 1],
        embeddings: Some(rows(&[number as f32 + 1.0, 1.0, 2.0, 3.0, 4.0, 3.0, 2.0, number as f32 - 7.5])),
        origin: Some(v1::Origin { writer: "w".into(), incarnation: 1, number: number + 1 }),
        ..Default::default()
    };
    client.write(request).await
}

async fn sequence(client: &Client, bank: &str) -> u64 {
    client.get_bank(v1::GetBankRequest { name: bank.into() }).await.unwrap().sequence
}

async fn checkpoint(client: &Client, bank: &str, tag: &str) -> Result<v1::Checkpoint, ClientError> {
    let request = v1::CreateCheckpointRequest { bank: bank.into(), tag: tag.into(), ..Default::default() };
    Ok(client.create_checkpoint(request).await?.done().await?.checkpoint.unwrap())
}

async fn restore(client: &Client, bank: &str, tag: &str) -> Result<v1::Bank, ClientError> {
    let request = v1::RestoreCheckpointRequest { bank: bank.into(), tag: tag.into(), ..Default::default() };
    Ok(client.restore_checkpoint(request).await?.done().await?.restored.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_refused_once_is_not_trusted_until_the_restart() {
    for (fault, says) in [("sync", "Input/output error"), ("full", "No space left")] {
        let frail = Frail::new();
        let (server, client) = frail.start().await;
        client.create_bank(bank("b", v1::Durability::Always)).await.unwrap();
        client.create_bank(bank("m", v1::Durability::Memory)).await.unwrap();
        for number in 0..5 {
            write(&client, "b", number).await.unwrap();
        }
        frail.fail(fault, true);
        let refused = write(&client, "b", 5).await.unwrap_err();
        assert!(refused.code() == Code::FailedPrecondition && refused.to_string().contains(says), "{refused}");
        frail.fail(fault, false);
        let again = write(&client, "b", 6).await.unwrap_err();
        assert_eq!(again.to_string(), refused.to_string(), "the disk is well again, and what it holds is not known");
        assert_eq!(sequence(&client, "b").await, 5, "reads go on, and see nothing that was not acknowledged");
        write(&client, "m", 0).await.unwrap();
        drop(server);

        let (_server, client) = frail.start().await;
        let there = sequence(&client, "b").await;
        // A record whose sync failed may be there all the same; it was never acknowledged, and is known when it comes again.
        assert!((5..=6).contains(&there), "{fault}: {there}");
        assert_eq!(write(&client, "b", 5).await.unwrap().duplicate, there == 6);
        write(&client, "b", 6).await.unwrap();
        assert_eq!(sequence(&client, "b").await, 7);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_meets_a_bad_disk_leaves_nothing_and_the_bank_goes_on() {
    let frail = Frail::new();
    let (server, client) = frail.start().await;
    client.create_bank(bank("b", v1::Durability::Interval)).await.unwrap();
    for number in 0..5 {
        write(&client, "b", number).await.unwrap();
    }
    checkpoint(&client, "b", "5").await.unwrap();
    for number in 5..8 {
        write(&client, "b", number).await.unwrap();
    }
    // So that no sync of the log is due.
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    let before = seen_of(&client, "b", 4).await;
    for fault in ["sync", "full"] {
        frail.fail(fault, true);
        let refused = checkpoint(&client, "b", "8").await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{fault}: {refused}");
        let refused = restore(&client, "b", "5").await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{fault}: {refused}");
        frail.fail(fault, false);
    }
    assert!(seen_of(&client, "b", 4).await == before);
    let listed = client.list_checkpoints(v1::ListCheckpointsRequest::default()).await.unwrap().checkpoints;
    assert_eq!(listed.iter().map(|made| made.tag.as_str()).collect::<Vec<_>>(), ["5"]);
    write(&client, "b", 8).await.unwrap();
    checkpoint(&client, "b", "8").await.unwrap();
    drop(server);
    let (_server, client) = frail.start().await;
    assert_eq!(sequence(&client, "b").await, 9);
    assert_eq!(restore(&client, "b", "5").await.unwrap().sequence, 5);
}

/// A sync in the background that fails is as final as one that somebody waits for, though what came before it was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_nobody_waits_for_stops_the_writes_too() {
    let frail = Frail::new();
    let (server, client) = frail.start_with(&["durability.interval_ms=100"]).await;
    client.create_bank(bank("b", v1::Durability::Interval)).await.unwrap();
    frail.fail("sync", true);
    let mut acknowledged = 0;
    let refused = loop {
        match write(&client, "b", acknowledged).await {
            Ok(_) => acknowledged += 1,
            Err(refused) => break refused,
        }
        assert!(acknowledged < 2_000, "no sync was made");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert!(acknowledged > 0, "the first write waits for no sync");
    assert!(refused.code() == Code::FailedPrecondition && refused.to_string().contains("cannot sync"), "{refused}");
    frail.fail("sync", false);
    write(&client, "b", acknowledged).await.unwrap_err();
    assert_eq!(sequence(&client, "b").await, acknowledged, "reads go on");
    drop(server);
    let (_server, client) = frail.start().await;
    assert_eq!(sequence(&client, "b").await, acknowledged, "the process was killed, not the machine");
    write(&client, "b", acknowledged).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_turns_read_only_stops_what_writes_and_is_named_at_the_start() {
    let frail = Frail::new();
    let (server, client) = frail.start().await;
    for (name, durability) in [("b", v1::Durability::Always), ("m", v1::Durability::Memory)] {
        client.create_bank(bank(name, durability)).await.unwrap();
        write(&client, name, 0).await.unwrap();
    }
    checkpoint(&client, "b", "1").await.unwrap();
    let before = seen_of(&client, "b", 4).await;
    frail.fail("readonly", true);
    for refused in [
        write(&client, "b", 1).await.unwrap_err(),
        client.create_bank(bank("c", v1::Durability::Always)).await.unwrap_err(),
        checkpoint(&client, "b", "2").await.unwrap_err(),
        restore(&client, "b", "1").await.unwrap_err(),
    ] {
        let says = refused.to_string();
        assert!(refused.code() == Code::FailedPrecondition && says.contains("Read-only file system"), "{says}");
    }
    write(&client, "m", 1).await.unwrap();
    assert!(seen_of(&client, "b", 4).await == before, "reads go on");
    drop(server);

    let mut command = Command::new(env!("CARGO_BIN_EXE_negbank"));
    let data = format!("durability.dir={}", frail.dir.path().join("data").display());
    command.env("LD_PRELOAD", &frail.shim).env("FAULTS", frail.dir.path().join("faults"));
    let started = command.args(["serve", "--listen", "127.0.0.1:0", "--set", &data]).output().unwrap();
    let says = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(!started.status.success() && says.contains("Read-only file system") && says.contains("data"), "{says}");
    frail.fail("readonly", false);
    let (_server, client) = frail.start().await;
    assert!(seen_of(&client, "b", 4).await == before);
    write(&client, "b", 1).await.unwrap();
}

/// What may be lost is what the policy says: nothing, what came after the last sync, or everything; and never anything in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_power_cut_takes_is_what_the_policy_says() {
    let frail = Frail::new();
    let names = ["always", "interval", "memory"];
    let (mut server, mut client) = frail.start_with(&["durability.interval_ms=50", "durability.segment_bytes=4096"]).await;
    let policies = [v1::Durability::Always, v1::Durability::Interval, v1::Durability::Memory];
    for (name, durability) in names.into_iter().zip(policies) {
        client.create_bank(bank(name, durability)).await.unwrap();
    }
    let mut acknowledged = 0;
    for round in 0..4 {
        for _ in 0..40 {
            for name in &names[..2] {
                write(&client, name, acknowledged).await.unwrap();
            }
            acknowledged += 1;
        }
        let everything_is_synced = async {
            while frail.unsynced() > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), everything_is_synced).await.expect("no sync was made");
        let safe = acknowledged;
        for number in safe..safe + 40 {
            for name in &names[..2] {
                write(&client, name, number).await.unwrap();
            }
        }
        acknowledged += 40;
        if round == 0 {
            write(&client, "memory", 0).await.unwrap();
        }
        frail.cut(server);

        (server, client) = frail.start_with(&["durability.interval_ms=50", "durability.segment_bytes=4096"]).await;
        assert_eq!(sequence(&client, "always").await, acknowledged, "what was acknowledged is lost");
        let kept = sequence(&client, "interval").await;
        assert!((safe..=acknowledged).contains(&kept), "{kept} of {acknowledged}, of which {safe} were synced");
        let gone = client.get_bank(v1::GetBankRequest { name: "memory".into() }).await.unwrap_err();
        assert_eq!(gone.code(), Code::NotFound);
        // It is the bank that the first so many writes make: the others come again, and it is the one that lost nothing.
        for number in kept..acknowledged {
            assert!(!write(&client, "interval", number).await.unwrap().duplicate);
        }
        let [(_, always, ..), (_, interval, ..)] = [seen_of(&client, "always", 4).await, seen_of(&client, "interval", 4).await];
        assert!(always == interval, "a write in the middle is missing");
    }
}
