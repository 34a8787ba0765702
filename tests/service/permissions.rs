//! Files and folders that the server may not read or write: it says which and why, and changes nothing.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use negbank::client::{Client, Code, Options, rows};
use negbank::proto::v1;

use crate::durable::{bank_folder, logs, seen_of};
use crate::faults::{checkpoint, listed, restore_into};
use crate::lifecycle::Process;
use crate::live::keyed;

/// Whom nothing belongs to: the servers run as it, if the tests are root's, whom nothing is forbidden.
const NOBODY: u32 = 65_534;

/// A place where a server runs that isn't root's.
struct Place {
    dir: tempfile::TempDir,
    is_root: bool,
}

impl Place {
    /// Data and checkpoints in folders that are the server's.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let is_root = fs::metadata(dir.path()).unwrap().uid() == 0;
        let place = Self { dir, is_root };
        allow(place.dir.path(), 0o755);
        // The build's folder may be closed to others.
        let (built, binary) = (env!("CARGO_BIN_EXE_negbank"), place.path("negbank"));
        fs::hard_link(built, &binary).or_else(|_| fs::copy(built, &binary).map(|_| ())).unwrap();
        for folder in ["data", "kept"] {
            fs::create_dir(place.path(folder)).unwrap();
            place.give(&place.path(folder));
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn give(&self, path: &Path) {
        if self.is_root {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.path("negbank"));
        if self.is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.current_dir(self.dir.path());
        command
    }

    fn settings(&self, data: &str, kept: &str) -> [String; 4] {
        let set = || "--set".to_owned();
        let of = |setting: &str, name: &str| format!("{setting}={}", self.path(name).display());
        [set(), of("durability.dir", data), set(), of("checkpoints.location", kept)]
    }

    async fn start(&self) -> (Process, Client) {
        let settings = self.settings("data", "kept");
        let mut arguments = vec!["--listen", "127.0.0.1:0"];
        arguments.extend(settings.iter().map(String::as_str));
        let server = Process::start_by(self.command(), "address=", &arguments);
        let client = Client::connect(&server.address, Options { retries: 0, ..Options::default() }).await.unwrap();
        (server, client)
    }

    /// What a server says that does not start.
    fn refused(&self, data: &str, kept: &str) -> String {
        let mut command = self.command();
        command.args(["serve", "--listen", "127.0.0.1:0", "--set", "http.listen=none"]).args(self.settings(data, kept));
        let (sent, ended) = std::sync::mpsc::channel();
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        let mut errors = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut errors, &mut text).unwrap();
            sent.send(text)
        });
        let said = ended.recv_timeout(std::time::Duration::from_secs(60));
        let _ended = child.kill();
        let status = child.wait().unwrap();
        let said = said.unwrap_or_else(|_| panic!("{data}, {kept}: it serves"));
        assert_eq!(status.code(), Some(1), "{said}");
        said
    }
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

async fn write(client: &Client, bank: &str, number: u64) -> Result<v1::WriteResponse, negbank::client::ClientError> {
    let embeddings = Some(rows(&[1.0, 2.0, number as f32, 4.0]));
    client.write(v1::WriteRequest { bank: bank.into(), ids: vec![number], embeddings, ..Default::default() }).await
}

async fn fill(client: &Client, bank: &str) {
    client.create_bank(v1::CreateBankRequest { durability: v1::Durability::Always.into(), ..keyed(bank, 4, 1) }).await.unwrap();
    for number in 0..5 {
        write(client, bank, number).await.unwrap();
    }
}

/// All files below a folder, with what is in them, but for who had the folder last.
fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let of = |path: PathBuf| match path.is_dir() {
        true => content(&path),
        false if path.ends_with("data/lock") => Vec::new(),
        false => vec![(path.clone(), fs::read(path).unwrap())],
    };
    let mut all: Vec<_> = paths.flat_map(of).collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_folders_are_closed_does_not_start_and_says_which() {
    let place = Place::new();
    let (server, client) = place.start().await;
    fill(&client, "b").await;
    checkpoint(&client, "b", "1").await.unwrap();
    let before = seen_of(&client, "b", 4).await;
    drop(server);
    fs::write(place.path("file"), "a file").unwrap();
    fs::create_dir(place.path("theirs")).unwrap();
    let there = content(place.dir.path());
    let denied = "Permission denied";
    // A folder, how it is closed, and what the server is told to use.
    for (closed, mode, data, kept, says) in [
        ("data", 0o000, "data", "kept", denied),
        ("data", 0o555, "fresh", "kept", denied),
        ("data/banks", 0o000, "data", "kept", denied),
        ("data/banks", 0o333, "data", "kept", denied),
        ("data/lock", 0o000, "data", "kept", denied),
        ("data/lock", 0o444, "data", "kept", denied),
        ("file", 0o666, "file", "kept", "Not a directory"),
        ("file", 0o666, "data", "file", "File exists"),
        ("file", 0o666, "data", "file/below", "File exists"),
        ("theirs", 0o555, "theirs", "kept", denied),
        ("theirs", 0o555, "theirs/data", "kept", denied),
        ("theirs", 0o555, "data", "theirs/below", denied),
    ] {
        let mode_before = fs::metadata(place.path(closed)).unwrap().mode() & 0o777;
        allow(&place.path(closed), mode);
        let said = place.refused(data, kept);
        allow(&place.path(closed), mode_before);
        let (setting, path) = if kept == "kept" { ("durability.dir", data) } else { ("checkpoints.location", kept) };
        assert!(said.contains(says) && said.contains(place.path(path).to_str().unwrap()), "{closed} {mode:o}: {said}");
        assert!(setting == "durability.dir" || said.contains(setting), "{closed} {mode:o}: {said}");
        assert!(content(place.dir.path()) == there, "{closed} {mode:o}: something changed");
    }
    let (_server, client) = place.start().await;
    assert!(seen_of(&client, "b", 4).await == before);
    write(&client, "b", 5).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_whose_files_are_closed_is_refused_and_the_others_are_served() {
    let place = Place::new();
    let (server, client) = place.start().await;
    for bank in ["good", "bad", "restored"] {
        fill(&client, bank).await;
    }
    checkpoint(&client, "restored", "1").await.unwrap();
    restore_into(&client, "restored", "1", "").await.unwrap();
    drop(server);
    let there = content(place.dir.path());
    let data = place.path("data");
    let snapshot = fs::read_dir(bank_folder(&data, "restored")).unwrap().map(|entry| entry.unwrap().path());
    let snapshot = snapshot.into_iter().find(|path| path.to_str().unwrap().contains("snapshot-")).unwrap();
    for (bank, path, mode) in [
        ("bad", logs(&data, "bad").remove(0), 0o000),
        ("bad", logs(&data, "bad").remove(0), 0o444),
        ("bad", bank_folder(&data, "bad").join("bank"), 0o000),
        ("bad", bank_folder(&data, "bad"), 0o000),
        ("restored", snapshot, 0o000),
    ] {
        let mode_before = fs::metadata(&path).unwrap().mode() & 0o777;
        allow(&path, mode);
        let (server, client) = place.start().await;
        for refused in [
            client.get_bank(v1::GetBankRequest { name: bank.into() }).await.unwrap_err(),
            write(&client, bank, 5).await.unwrap_err(),
            client.create_bank(keyed(bank, 4, 1)).await.unwrap_err(),
        ] {
            let text = refused.to_string();
            let names_it = text.contains(path.to_str().unwrap()) && text.contains("Permission denied");
            assert!(names_it && refused.code() != Code::Unavailable, "{bank}, {mode:o}: {:?}: {text}", refused.code());
        }
        assert_eq!(client.get_bank(v1::GetBankRequest { name: "good".into() }).await.unwrap().entries, 5);
        drop(server);
        allow(&path, mode_before);
        assert!(content(place.dir.path()) == there, "{}, {mode:o}: something changed", path.display());
    }
    let (_server, client) = place.start().await;
    for bank in ["good", "bad", "restored"] {
        assert_eq!(client.get_bank(v1::GetBankRequest { name: bank.into() }).await.unwrap().entries, 5, "{bank}");
        write(&client, bank, 5).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_location_that_is_closed_is_named_and_the_bank_goes_on() {
    let place = Place::new();
    let (_server, client) = place.start().await;
    fill(&client, "b").await;
    checkpoint(&client, "b", "1").await.unwrap();
    let before = seen_of(&client, "b", 4).await;
    let there = content(place.dir.path());
    let kept = place.path("kept");
    for closed in [kept.clone(), kept.join("b")] {
        let mode_before = fs::metadata(&closed).unwrap().mode() & 0o777;
        allow(&closed, 0o555);
        // Into a folder of a bank that there is, or of a new one.
        let bank = if closed == kept { "new" } else { "b" };
        if bank == "new" {
            fill(&client, bank).await;
        }
        let refused = checkpoint(&client, bank, "2").await.unwrap_err();
        let text = refused.to_string();
        assert!(refused.code() == Code::FailedPrecondition && text.contains("Permission denied"), "{text}");
        assert!(text.contains(kept.to_str().unwrap()) && text.contains("checkpoints.location"), "{text}");
        allow(&closed, mode_before);
        if bank == "new" {
            client.delete_bank(v1::DeleteBankRequest { name: "new".into() }).await.unwrap();
        }
        assert_eq!(listed(&client).await.len(), 1);
    }
    for file in ["manifest.json", "bank-"] {
        let path = fs::read_dir(kept.join("b/1")).unwrap().map(|entry| entry.unwrap().path());
        let path = path.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(file)).unwrap();
        allow(&path, 0o000);
        let refused = restore_into(&client, "b", "1", "").await.unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("Permission denied") && text.contains(path.to_str().unwrap()), "{text}");
        allow(&path, 0o644);
    }
    assert!(content(place.dir.path()) == there, "something changed");
    assert!(seen_of(&client, "b", 4).await == before, "the bank goes on");
    write(&client, "b", 5).await.unwrap();
    checkpoint(&client, "b", "2").await.unwrap();
}
