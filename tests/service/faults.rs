//! A disk that refuses: an error or a correct bank, never a wrong one. `faults.c` is the disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use negbank::client::{Client, ClientError, Code, Options, rows};
use negbank::proto::v1;

use crate::durable::seen_of;
use crate::lifecycle::Process;
use crate::live::keyed;

/// A server with a disk that fails when it is told to.
pub(crate) struct Frail {
    pub(crate) dir: tempfile::TempDir,
    shim: PathBuf,
    /// `strikes.c`, where calls are to fail by their number.
    striking: Option<PathBuf>,
}

/// A library that is preloaded into servers.
fn built(dir: &tempfile::TempDir, name: &str) -> PathBuf {
    let shim = dir.path().join(format!("{name}.so"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/service/{name}.c"));
    let built = Command::new("cc")
        .args(["-Wall", "-Wextra", "-shared", "-fPIC", "-O1", "-o"])
        .arg(&shim)
        .arg(source)
        .arg("-ldl")
        .status();
    assert!(built.expect("a C compiler, which Rust links with").success());
    shim
}

impl Frail {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shim = built(&dir, "faults");
        fs::create_dir(dir.path().join("faults")).unwrap();
        fs::create_dir(dir.path().join("disk")).unwrap();
        Self { dir, shim, striking: None }
    }

    /// A disk that takes the orders of `strikes.c` too.
    pub(crate) fn striking(self) -> Self {
        Self { striking: Some(built(&self.dir, "strikes")), ..self }
    }

    /// What lies on the disk under this name.
    pub(crate) fn disk(&self, name: &str) -> PathBuf {
        self.dir.path().join("disk").join(name)
    }

    /// What tells the disk how to fail, or what it tells.
    pub(crate) fn faults(&self, name: &str) -> PathBuf {
        self.dir.path().join("faults").join(name)
    }

    fn command(&self) -> Command {
        self.frail(Command::new(env!("CARGO_BIN_EXE_negbank")))
    }

    /// A command that has this disk.
    pub(crate) fn frail(&self, mut command: Command) -> Command {
        // The first is asked first.
        let shims: Vec<String> = self.striking.iter().chain([&self.shim]).map(|shim| shim.display().to_string()).collect();
        command.env("LD_PRELOAD", shims.join(":")).env("FAULTS", self.faults(""));
        command
    }

    pub(crate) async fn start(&self) -> (Process, Client) {
        self.start_with(&[]).await
    }

    pub(crate) async fn start_with(&self, settings: &[&str]) -> (Process, Client) {
        self.start_at("data", "checkpoints", settings).await
    }

    /// With its data and its checkpoints in these folders of the disk.
    pub(crate) async fn start_at(&self, data: &str, checkpoints: &str, settings: &[&str]) -> (Process, Client) {
        let start = |arguments: &[&str]| Process::start_by(self.command(), "address=", arguments);
        self.started(start, (data, checkpoints), settings).await
    }

    /// Not waited for: it may be recovering banks.
    pub(crate) async fn start_early(&self, settings: &[&str]) -> (Process, Client) {
        let start = |arguments: &[&str]| Process::start_early(self.command(), arguments);
        self.started(start, ("data", "checkpoints"), settings).await
    }

    async fn started(
        &self,
        start: impl FnOnce(&[&str]) -> Process,
        (data, checkpoints): (&str, &str),
        settings: &[&str],
    ) -> (Process, Client) {
        let data = format!("durability.dir={}", self.disk(data).display());
        let checkpoints = format!("checkpoints.location={}", self.disk(checkpoints).display());
        let mut arguments = vec!["--listen", "127.0.0.1:0", "--set", &data, "--set", &checkpoints];
        settings.iter().for_each(|&setting| arguments.extend(["--set", setting]));
        let server = start(&arguments);
        let client = Client::connect(&server.address, Options { retries: 0, ..Options::default() }).await.unwrap();
        (server, client)
    }

    pub(crate) fn fail(&self, fault: &str, fails: bool) {
        let path = self.faults(fault);
        if fails { fs::write(path, "").unwrap() } else { fs::remove_file(path).unwrap() }
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

/// Floats of a row in a bank of large writes.
pub(crate) const WIDE: u32 = 256;

pub(crate) fn wide(name: &str, durability: v1::Durability) -> v1::CreateBankRequest {
    v1::CreateBankRequest { durability: durability.into(), ..keyed(name, WIDE, 2) }
}

/// The write of this number, of so many rows: from 256 on they are 256 KiB, which go past the page cache.
pub(crate) async fn write_wide(client: &Client, bank: &str, number: u64, count: u64) -> Result<v1::WriteResponse, ClientError> {
    let value = |at: u64| (at.wrapping_mul(2_654_435_761).wrapping_add(number * 40_503) % 2_017) as f32 - 1_008.5;
    let floats: Vec<f32> = (0..count * u64::from(WIDE)).map(value).collect();
    let request = v1::WriteRequest {
        bank: bank.into(),
        ids: (0..count).map(|row| (number * 37 + row) % 2_500).collect(),
        embeddings: Some(rows(&floats)),
        origin: Some(v1::Origin { writer: "w".into(), incarnation: 1, number: number + 1 }),
        ..Default::default()
    };
    client.write(request).await
}

pub(crate) async fn sequence(client: &Client, bank: &str) -> u64 {
    client.get_bank(v1::GetBankRequest { name: bank.into() }).await.unwrap().sequence
}

pub(crate) async fn checkpoint(client: &Client, bank: &str, tag: &str) -> Result<v1::Checkpoint, ClientError> {
    let request = v1::CreateCheckpointRequest { bank: bank.into(), tag: tag.into(), ..Default::default() };
    Ok(client.create_checkpoint(request).await?.done().await?.checkpoint.unwrap())
}

async fn restore(client: &Client, bank: &str, tag: &str) -> Result<v1::Bank, ClientError> {
    restore_into(client, bank, tag, "").await
}

pub(crate) async fn restore_into(client: &Client, bank: &str, tag: &str, into: &str) -> Result<v1::Bank, ClientError> {
    let request = v1::RestoreCheckpointRequest { bank: bank.into(), tag: tag.into(), into: into.into(), ..Default::default() };
    Ok(client.restore_checkpoint(request).await?.done().await?.restored.unwrap())
}

pub(crate) async fn listed(client: &Client) -> Vec<v1::Checkpoint> {
    client.list_checkpoints(v1::ListCheckpointsRequest::default()).await.unwrap().checkpoints
}

async fn tags(client: &Client) -> Vec<String> {
    listed(client).await.into_iter().map(|made| made.tag).collect()
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
    assert_eq!(tags(&client).await, ["5"]);
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

    let data = format!("durability.dir={}", frail.disk("data").display());
    let started = frail.command().args(["serve", "--listen", "127.0.0.1:0", "--set", &data]).output().unwrap();
    let says = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(!started.status.success() && says.contains("Read-only file system") && says.contains("data"), "{says}");
    frail.fail("readonly", false);
    let (_server, client) = frail.start().await;
    assert!(seen_of(&client, "b", 4).await == before);
    write(&client, "b", 1).await.unwrap();
}

/// What went before the write that fails, the one that fails, and what comes after it: in rows.
const LARGE_AND_SMALL: [u64; 9] = [512, 1, 300, 3, 2, 512, 2_500, 1, 600];

/// Large writes go another way to the disk: a failed one is no more there than a small one, also if half of it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_write_that_a_disk_refuses_is_whole_or_not_there() {
    let (eio, enospc) = ("Input/output error", "No space left");
    // With how many writes at an offset are done before half of one is: the seventh record is written in two.
    let faults =
        [("sync", 0, 6, eio), ("full", 0, 6, enospc), ("half", 0, 6, enospc), ("half", 1, 6, enospc), ("half", 0, 7, enospc)];
    for (durability, (fault, done, at, says)) in
        [v1::Durability::Always, v1::Durability::Interval].into_iter().flat_map(|policy| faults.map(|fault| (policy, fault)))
    {
        if (durability, fault) == (v1::Durability::Interval, "sync") {
            // Nobody waits for that one: it is another test's.
            continue;
        }
        let frail = Frail::new();
        let (server, client) = frail.start().await;
        client.create_bank(wide("b", durability)).await.unwrap();
        for number in 0..at {
            write_wide(&client, "b", number, LARGE_AND_SMALL[number as usize]).await.unwrap();
        }
        let before = seen_of(&client, "b", WIDE as usize).await;
        fs::write(frail.faults(fault), vec![0; done]).unwrap();
        let refused = write_wide(&client, "b", at, LARGE_AND_SMALL[at as usize]).await.unwrap_err();
        assert!(refused.code() == Code::FailedPrecondition && refused.to_string().contains(says), "{fault}: {refused}");
        frail.fail(if fault == "half" { "full" } else { fault }, false);
        let again = write_wide(&client, "b", at + 1, 1).await.unwrap_err();
        assert_eq!(again.to_string(), refused.to_string(), "{fault}");
        assert!(seen_of(&client, "b", WIDE as usize).await == before, "{fault}: reads go on");
        let log = server.killed();
        assert!(log.contains(says), "{fault}: {log}");

        let (server, client) = frail.start().await;
        let there = sequence(&client, "b").await;
        assert!(there == at || (there == at + 1 && fault == "sync"), "{fault}, {done}: {there}");
        assert!(there > at || seen_of(&client, "b", WIDE as usize).await == before, "{fault}: what was before it");
        client.create_bank(wide("same", v1::Durability::Memory)).await.unwrap();
        for (number, &count) in LARGE_AND_SMALL.iter().enumerate() {
            let written = write_wide(&client, "b", number as u64, count).await.unwrap();
            assert_eq!(written.duplicate, (number as u64) < there, "{fault}: {number}");
            write_wide(&client, "same", number as u64, count).await.unwrap();
        }
        let all = seen_of(&client, "b", WIDE as usize).await;
        assert!(all.1 == seen_of(&client, "same", WIDE as usize).await.1, "{fault}, {done}");
        let log = server.killed();
        assert_eq!(log.contains("was not written whole and was dropped"), fault == "half", "{fault}: {log}");
        let (_server, client) = frail.start().await;
        assert!(seen_of(&client, "b", WIDE as usize).await == all, "{fault}: it goes on as if nothing had been");
    }
}

/// A checkpoint's file is named when it is whole; a disk that refuses the name, or all that comes after it, leaves no checkpoint that
/// is not one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_whose_file_gets_no_name_is_copied_or_refused() {
    let frail = Frail::new();
    let (server, client) = frail.start().await;
    client.create_bank(bank("b", v1::Durability::Always)).await.unwrap();
    for number in 0..5 {
        write(&client, "b", number).await.unwrap();
    }
    for (fault, becomes, says) in
        [("full-at-link", "full", "No space left"), ("readonly-at-link", "readonly", "Read-only file system")]
    {
        frail.fail(fault, true);
        let refused = checkpoint(&client, "b", "refused").await.unwrap_err();
        let text = refused.to_string();
        assert!(refused.code() == Code::FailedPrecondition && text.contains(says), "{text}");
        assert!(text.contains(frail.disk("checkpoints").to_str().unwrap()), "{text}");
        frail.fail(becomes, false);
    }
    assert_eq!(tags(&client).await, Vec::<String>::new());
    frail.fail("links", true);
    // The manifest can't be put there without a link either.
    checkpoint(&client, "b", "refused").await.unwrap_err();
    let replace = v1::CreateCheckpointRequest { bank: "b".into(), tag: "5".into(), replace: true, ..Default::default() };
    client.create_checkpoint(replace).await.unwrap().done().await.unwrap();
    frail.fail("links", false);
    checkpoint(&client, "b", "linked").await.unwrap();
    assert_eq!(tags(&client).await, ["5", "linked"]);
    let before = seen_of(&client, "b", 4).await.1;
    drop(server);
    let (_server, client) = frail.start().await;
    for tag in ["5", "linked"] {
        assert_eq!(restore(&client, "b", tag).await.unwrap().sequence, 5);
        assert!(seen_of(&client, "b", 4).await.1 == before, "{tag}");
    }
}

/// A name that was given and could not be synced: what was asked for has not happened, and nothing that is acknowledged after it is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_cannot_be_synced_cost_nothing_that_was_acknowledged() {
    let frail = Frail::new();
    let (server, client) = frail.start().await;
    for name in ["kept", "doomed"] {
        client.create_bank(bank(name, v1::Durability::Always)).await.unwrap();
        write(&client, name, 0).await.unwrap();
    }
    checkpoint(&client, "kept", "1").await.unwrap();
    write(&client, "kept", 1).await.unwrap();
    fs::write(frail.faults("folder"), "banks").unwrap();
    let new = || client.create_bank(bank("new", v1::Durability::Always));
    for refused in [
        new().await.unwrap_err(),
        restore(&client, "kept", "1").await.unwrap_err(),
        restore_into(&client, "kept", "1", "other").await.unwrap_err(),
        client.delete_bank(v1::DeleteBankRequest { name: "doomed".into() }).await.unwrap_err(),
    ] {
        let says = refused.to_string();
        assert!(refused.code() == Code::FailedPrecondition && says.contains("Input/output error"), "{says}");
    }
    frail.fail("folder", false);
    write(&client, "kept", 2).await.expect("it is the bank that it was");
    write(&client, "doomed", 1).await.expect_err("it may be gone, so nothing is acknowledged");
    new().await.unwrap();
    write(&client, "new", 0).await.unwrap();
    let before = seen_of(&client, "kept", 4).await;
    drop(server);
    let (_server, client) = frail.start().await;
    assert!(seen_of(&client, "kept", 4).await == before);
    assert_eq!((sequence(&client, "kept").await, sequence(&client, "new").await), (3, 1));
    let names: Vec<_> = client.list_banks().await.unwrap().banks.into_iter().map(|bank| bank.name).collect();
    assert_eq!(names, ["kept", "new"]);
}
