//! Files that earlier versions left are opened by this one, and mean what they meant.
//!
//! `tests/fixtures/store-N` is the data folder of a version, `renewed-N` one whose bank lost a write to a power cut, and `checkpoints-N` a
//! location of checkpoints; `expected.txt` in it tells what its banks hold and draw. A new format gets a folder of its own: `cargo test --test service -- formats::write --ignored` makes it, and
//! the old ones stay.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use negbank::client::{Client, Code, Options, rows};
use negbank::proto::v1;
use negbank::{archive, codec, durability};

use crate::lifecycle::Process;
use crate::live::{Live, keyed, queue, uniform};
use crate::power::has;

/// The newest.
const STORE: &str = "store-2";
const RENEWED: &str = "renewed-1";
const CHECKPOINTS: &str = "checkpoints-3";

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Where a fixture is to be written that is not there yet.
pub(crate) fn new_fixture(name: &str) -> PathBuf {
    let fixture = fixtures().join(name);
    assert!(!fixture.exists(), "{} is there: what was released stays as it is", fixture.display());
    fixture
}

/// The fixtures of a kind, and copies of them.
pub(crate) fn fixtures_of(kind: &str) -> Vec<(PathBuf, tempfile::TempDir)> {
    let all = fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path());
    let of_kind = all.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(kind));
    let copied = |path: PathBuf| {
        let dir = tempfile::tempdir().unwrap();
        copy(&path, dir.path());
        (path, dir)
    };
    let found: Vec<_> = of_kind.map(copied).collect();
    assert!(!found.is_empty(), "there is no {kind} below {}", fixtures().display());
    found
}

fn banks() -> Vec<v1::CreateBankRequest> {
    let half = v1::CreateBankRequest { metric: v1::Metric::Dot.into(), dtype: v1::Dtype::F16.into(), ..keyed("half", 4, 1) };
    vec![keyed("keyed", 4, 2), half, queue("queue", 4, 2, 12)]
}

pub(crate) fn write(bank: &str, number: u64) -> v1::WriteRequest {
    let ids: Vec<u64> = (0..3).map(|at| (number * 5 + at * 7) % 17).collect();
    let embeddings: Vec<f32> = (0..12).map(|at| ((number * 13 + at * 5) % 23) as f32 / 8.0 - 1.0).collect();
    v1::WriteRequest {
        bank: bank.to_owned(),
        embeddings: Some(rows(&embeddings)),
        labels: ids.iter().map(|id| (id % 3) as i64).collect(),
        groups: if number.is_multiple_of(2) { ids.iter().map(|id| id / 2).collect() } else { Vec::new() },
        weights: if number.is_multiple_of(3) { ids.iter().map(|id| *id as f32 + 0.5).collect() } else { Vec::new() },
        ids: if bank == "queue" && number.is_multiple_of(2) { Vec::new() } else { ids },
        step: Some(number / 2),
        origin: Some(v1::Origin { writer: "w".into(), incarnation: 9, number: number + 1 }),
        ..Default::default()
    }
}

/// What a bank holds, and what it will draw.
pub(crate) async fn told(client: &Client, bank: &str) -> String {
    let about = client.get_bank(v1::GetBankRequest { name: bank.to_owned() }).await.unwrap();
    let mut told = format!("{bank}: sequence {} step {:?} entries {}\n", about.sequence, about.step, about.entries);
    let mut scan = client.scan(v1::ScanRequest { bank: bank.to_owned(), ..Default::default() }).await.unwrap();
    while let Some(chunk) = scan.next().await.unwrap() {
        writeln!(told, "{chunk:?}", chunk = (chunk.rows, chunk.stamps)).unwrap();
    }
    let balanced =
        v1::Draw { k: 5, strategy: Some(v1::draw::Strategy::Balanced(v1::Balanced::default())), ..Default::default() };
    let weighted =
        v1::Draw { k: 5, strategy: Some(v1::draw::Strategy::Weighted(v1::Weighted::default())), ..Default::default() };
    for seed in 0..3 {
        let request = v1::SampleRequest {
            bank: bank.to_owned(),
            anchors: Some(v1::Anchors { embeddings: Some(rows(&[1.0, 0.5, 0.25, 2.0])), ..Default::default() }),
            draws: vec![uniform(5), balanced.clone(), weighted.clone()],
            columns: vec![v1::Column::Ids.into()],
            seed: Some(seed),
            ..Default::default()
        };
        let answer = client.sample(request).await.unwrap();
        let ids = answer.rows.unwrap().ids;
        let drawn: Vec<Vec<u64>> =
            answer.draws.iter().map(|draw| draw.indices.iter().map(|&at| ids[at as usize]).collect()).collect();
        writeln!(told, "seed {seed}: {drawn:?}").unwrap();
    }
    told
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// What the newest fixtures are of. A kept graph has none: one that can't be read is built anew (`kept_graphs.rs`).
const WRITTEN: [(&str, &str); 9] = [
    ("settings", "1"),
    ("mutations", "1"),
    ("sections", "1"),
    ("tensors", "1"),
    ("log", "2"),
    ("mark", "1"),
    ("snapshot", "1"),
    ("graph", "1"),
    ("manifest", "2"),
];

#[test]
fn the_newest_formats_have_their_fixtures() {
    let written = [codec::formats(), durability::formats(), archive::formats()].concat();
    let written: Vec<_> = written.iter().map(|(name, version)| (*name, version.as_str())).collect();
    let then = "write new fixtures under new names, keep those that are there, and tell it here";
    assert_eq!(written, WRITTEN, "another version is written: {then}");
    // Not by our word alone: each file says of what version it is.
    let [log, mark, snapshot] =
        ["log", "mark", "snapshot"].map(|kind| WRITTEN.iter().find(|(name, _)| *name == kind).unwrap().1);
    for (prefix, magic, version) in
        [("log-", &b"negbank log\n"[..], log), ("synced", b"negbank mark", mark), ("snapshot-", b"negbank bank\n", snapshot)]
    {
        let says = [magic, &version.parse::<u32>().unwrap().to_le_bytes()].concat();
        let banks = fs::read_dir(fixtures().join(STORE).join("banks")).unwrap();
        let files = banks.flat_map(|bank| fs::read_dir(bank.unwrap().path()).unwrap().map(|file| file.unwrap().path()));
        let of_kind: Vec<_> = files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix)).collect();
        assert!(!of_kind.is_empty(), "{STORE} has no {prefix}");
        for path in of_kind {
            let content = fs::read(&path).unwrap();
            assert!(
                content.windows(says.len()).any(|bytes| bytes == says),
                "{} is not of version {version}: {then}",
                path.display()
            );
        }
    }
    for newest in [STORE, RENEWED, CHECKPOINTS] {
        let expected = fixtures().join(newest).join("expected.txt");
        assert!(
            expected.exists(),
            "{} is not there: `cargo test --test service -- formats::write --ignored`",
            expected.display()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_folders_of_every_version_are_served_as_they_were() {
    for (fixture, dir) in fixtures_of("store-") {
        let live = Live::start(&[&format!("durability.dir={}", dir.path().display())]).await;
        let mut told = String::new();
        for bank in live.client.list_banks().await.unwrap().banks {
            told += &self::told(&live.client, &bank.name).await;
            assert!(live.client.write(write(&bank.name, 39)).await.unwrap().duplicate, "{}: a write of then", bank.name);
            assert!(!live.client.write(write(&bank.name, 40)).await.unwrap().duplicate, "{}: a new one", bank.name);
        }
        assert_eq!(told, fs::read_to_string(fixture.join("expected.txt")).unwrap(), "{}", fixture.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_that_lost_a_write_to_a_power_cut_refuses_its_position_ever_after() {
    for (fixture, dir) in fixtures_of("renewed-") {
        let live = Live::start(&[&format!("durability.dir={}", dir.path().display())]).await;
        let told = self::told(&live.client, "keyed").await;
        assert_eq!(told, fs::read_to_string(fixture.join("expected.txt")).unwrap(), "{}", fixture.display());
        let positions = fs::read_to_string(fixture.join("positions.txt")).unwrap();
        for line in positions.lines() {
            let (what, hex) = line.split_once(' ').unwrap();
            let position: Vec<u8> =
                (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
            let honoured = has(&live.client, "keyed", &position).await;
            assert_eq!(honoured.is_ok(), what != "lost", "{what}: {honoured:?}");
        }
        assert_eq!(positions.lines().count(), 3);
        let about = live.client.get_bank(v1::GetBankRequest { name: "keyed".into() }).await.unwrap();
        assert_eq!((about.lost_after, about.sequence), (Some(12), 13), "one write came since");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_of_every_version_become_the_banks_that_they_were() {
    for (fixture, dir) in fixtures_of("checkpoints-") {
        let live = Live::start(&[&format!("checkpoints.location={}", dir.path().display())]).await;
        let mut told = String::new();
        let listed = live.client.list_checkpoints(v1::ListCheckpointsRequest::default()).await.unwrap().checkpoints;
        for v1::Checkpoint { bank, tag, .. } in listed {
            let request = v1::RestoreCheckpointRequest { bank: bank.clone(), tag, ..Default::default() };
            live.client.restore_checkpoint(request).await.unwrap().done().await.unwrap();
            told += &self::told(&live.client, &bank).await;
            assert!(live.client.write(write(&bank, 39)).await.unwrap().duplicate, "{bank}: a write of then");
        }
        assert_eq!(told, fs::read_to_string(fixture.join("expected.txt")).unwrap(), "{}", fixture.display());
    }
}

/// Says of the first record of a file that it is of a later version, where `at` is the number's place in it, as a later program would.
fn age(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    assert_eq!(bytes[..4], *b"nbf1", "{}", path.display());
    let payload = 32..32 + usize::try_from(u64::from_le_bytes(bytes[8..16].try_into().unwrap())).unwrap();
    bytes[32 + at] = 99;
    let checksum = crc32fast::hash(&bytes[payload]);
    bytes[28..32].copy_from_slice(&checksum.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[8..32]);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

/// Likewise of a mark.
fn age_mark(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    assert_eq!((bytes.len(), &bytes[..12]), (64, b"negbank mark".as_slice()), "{}", path.display());
    bytes[12] = 99;
    let checksum = crc32fast::hash(&bytes[..60]);
    bytes[60..].copy_from_slice(&checksum.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_that_a_later_version_wrote_is_refused_as_that_and_its_files_stay_as_they_are() {
    let of_frames = [("log-", 12, "a bank's log"), ("snapshot-", 13, "a bank's snapshot"), ("bank", 0, "a bank's settings")];
    let of_frames = of_frames.map(|(prefix, at, says)| (prefix, Some(at), says));
    for (prefix, at, says) in of_frames.into_iter().chain([("synced", None, "a log's mark")]) {
        let dir = tempfile::tempdir().unwrap();
        copy(&fixtures().join(STORE), dir.path());
        let folders = fs::read_dir(dir.path().join("banks")).unwrap().map(|entry| entry.unwrap().path());
        let of_bank = |folder: &PathBuf| folder.file_name().unwrap().to_str().unwrap().starts_with("keyed@");
        let folder = folders.into_iter().find(of_bank).unwrap();
        let named = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(prefix);
        let aged = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).filter(named).max().unwrap();
        at.map_or_else(|| age_mark(&aged), |at| age(&aged, at));
        let content = || {
            let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
            let mut content: Vec<_> = files.map(|path| (path.clone(), fs::read(&path).unwrap())).collect();
            content.sort();
            content
        };
        let before = content();
        // Served as far as it can be read it would be another bank.
        let settings = [&format!("durability.dir={}", dir.path().display()), "durability.damaged=read_only"];
        let live = Live::start(&settings).await;
        let refused = live.client.get_bank(v1::GetBankRequest { name: "keyed".into() }).await.unwrap_err();
        let told = format!("{} is of version 99 of {says}, and this program reads up to ", aged.display());
        assert!(refused.code() == Code::FailedPrecondition && refused.to_string().contains(&told), "{refused}");
        assert!(refused.to_string().contains("use a newer negbank"), "{refused}");
        live.client.write(write("queue", 40)).await.unwrap();
        assert!(content() == before, "{prefix}: its files were changed");
    }
}

async fn fill(live: &Live) {
    for bank in banks() {
        live.create(bank.clone()).await;
        for number in 0..40 {
            live.client.write(write(&bank.name, number)).await.unwrap();
            if number % 10 == 3 {
                live.client.remove(v1::RemoveRequest { bank: bank.name.clone(), ids: vec![number % 17] }).await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes the fixture of a new format"]
async fn write_a_store() {
    let fixture = new_fixture(STORE);
    let dir = tempfile::tempdir().unwrap();
    let flag = format!("durability.dir={}", dir.path().display());
    let live = Live::start(&[&flag, "durability.segment_bytes=4096", "durability.snapshot_log_bytes=4096"]).await;
    fill(&live).await;
    let mut told = String::new();
    for bank in live.client.list_banks().await.unwrap().banks {
        told += &self::told(&live.client, &bank.name).await;
    }
    drop(live);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    copy(&dir.path().join("banks"), &fixture.join("banks"));
    fs::write(fixture.join("expected.txt"), told).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes the fixture of a new format"]
async fn write_checkpoints() {
    let fixture = new_fixture(CHECKPOINTS);
    let live = Live::start(&[&format!("checkpoints.location={}", fixture.display())]).await;
    fill(&live).await;
    let mut told = String::new();
    for bank in live.client.list_banks().await.unwrap().banks {
        let request = v1::CreateCheckpointRequest { bank: bank.name.clone(), tag: "20".into(), ..Default::default() };
        live.client.create_checkpoint(request).await.unwrap().done().await.unwrap();
        told += &self::told(&live.client, &bank.name).await;
    }
    fs::write(fixture.join("expected.txt"), told).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes the fixture of a new format"]
async fn write_a_renewed_store() {
    let fixture = new_fixture(RENEWED);
    let dir = tempfile::tempdir().unwrap();
    let data = format!("durability.dir={}", dir.path().display());
    let served = async || {
        let server = Process::start(&["--set", &data, "--set", "durability.policy=interval"]);
        let client = Client::connect(&server.address, Options::default()).await.unwrap();
        (server, client)
    };
    let (server, client) = served().await;
    client.create_bank(keyed("keyed", 4, 2)).await.unwrap();
    let mut kept = Vec::new();
    for number in 0..12 {
        kept = client.write(write("keyed", number)).await.unwrap().position.to_vec();
    }
    let bank = fs::read_dir(dir.path().join("banks")).unwrap().next().unwrap().unwrap().path();
    let files = fs::read_dir(&bank).unwrap().map(|entry| entry.unwrap().path());
    let [log] = &files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("log-")).collect::<Vec<_>>()[..]
    else {
        panic!("one file is enough")
    };
    let end = fs::metadata(log).unwrap().len();
    let lost = client.write(write("keyed", 12)).await.unwrap().position.to_vec();
    server.killed();
    // What a power cut does: the last write is gone, and nobody knows of it.
    fs::File::options().write(true).open(log).unwrap().set_len(end).unwrap();
    fs::remove_file(bank.join("synced")).unwrap();
    let (mut server, client) = served().await;
    let after = client.write(write("keyed", 13)).await.unwrap().position.to_vec();
    let told = told(&client, "keyed").await;
    server.signal("-TERM");
    assert_eq!(server.exit_code(), Some(0));
    copy(&dir.path().join("banks"), &fixture.join("banks"));
    fs::write(fixture.join("expected.txt"), told).unwrap();
    let hex = |position: Vec<u8>| position.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let positions = format!("kept {}\nlost {}\nafter {}\n", hex(kept), hex(lost), hex(after));
    fs::write(fixture.join("positions.txt"), positions).unwrap();
}
