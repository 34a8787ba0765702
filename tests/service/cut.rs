//! A power cut: the disk is made anew of what was synced. `faults.c` tells what that is.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use negbank::model::clock;

use crate::faults::Frail;
use crate::lifecycle::Process;

/// What is left of bytes that were written and not synced.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bytes {
    Gone,
    /// The first half of them.
    Half,
    /// The file is as long as it was, and they are zeros.
    Zeros,
    /// The second of every eight pages of them is zeros, the others are there.
    Holes,
}

impl Bytes {
    /// Whether what was written anew in a small file, and not synced, is undone as well.
    fn undo_rewrites(self) -> bool {
        matches!(self, Self::Gone | Self::Holes)
    }
}

/// What is left of names that were given or taken, and not synced.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Names {
    /// Each folder has those that it had at its last sync.
    AsSynced,
    /// They happen to be on disk.
    AsTheyAre,
    /// As at the last sync, but of the files that were removed only manifests come back.
    OnlyManifestsBack,
}

/// A power cut.
pub(crate) struct Cut {
    pub(crate) at: Instant,
    /// What the longest sync took, that which was under way too.
    pub(crate) longest_sync: Duration,
    pub(crate) log: String,
}

/// An entry of a folder: its name, which ends in a slash if it is a folder, and its inode.
type Entry = (String, u64);

fn entries(folder: &Path) -> Vec<Entry> {
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        let about = entry.metadata().unwrap();
        let name = entry.file_name().into_string().unwrap();
        (if about.is_dir() { name + "/" } else { name }, about.ino())
    };
    fs::read_dir(folder).unwrap().map(entry).collect()
}

/// All below a folder, and itself.
fn all_of(path: &Path) -> Vec<(PathBuf, fs::Metadata)> {
    let about = fs::symlink_metadata(path).unwrap();
    let below = if about.is_dir() { entries(path) } else { Vec::new() };
    let mut all = vec![(path.to_owned(), about)];
    all.extend(below.iter().flat_map(|(name, _)| all_of(&path.join(name.trim_end_matches('/')))));
    all
}

fn files_of(path: &Path) -> Vec<(PathBuf, fs::Metadata)> {
    all_of(path).into_iter().filter(|(_, about)| about.is_file()).collect()
}

const PAGE: u64 = 4_096;

/// Loses what was written behind byte `synced`.
fn lose(path: &Path, synced: u64, end: u64, bytes: Bytes) {
    let file = File::options().write(true).open(path).unwrap();
    match bytes {
        Bytes::Half => file.set_len(synced.midpoint(end)).unwrap(),
        Bytes::Gone => file.set_len(synced).unwrap(),
        Bytes::Zeros => {
            file.set_len(synced).unwrap();
            file.set_len(end).unwrap();
        }
        Bytes::Holes => {
            for page in (synced / PAGE + 1..end.div_ceil(PAGE)).step_by(8) {
                let lost = page * PAGE..((page + 1) * PAGE).min(end);
                file.write_all_at(&vec![0; (lost.end - lost.start) as usize], lost.start).unwrap();
            }
        }
    }
}

impl Frail {
    /// With these folders on the disk, for good.
    pub(crate) fn powered(folders: &[&str]) -> Self {
        let frail = Self::new();
        fs::create_dir(frail.faults("kept")).unwrap();
        folders.iter().for_each(|folder| fs::create_dir(frail.disk(folder)).unwrap());
        frail.settle();
        frail
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    /// All that is there is on the disk.
    fn settle(&self) {
        files_of(&self.faults("")).iter().for_each(|(path, _)| fs::remove_file(path).unwrap());
        let mut synced = String::new();
        for (path, about) in all_of(&self.root()) {
            if about.is_dir() {
                let names: Vec<String> = entries(&path).iter().map(|(name, inode)| format!("{inode} {name}\n")).collect();
                fs::write(self.faults(&format!("names-{}", about.ino())), names.concat()).unwrap();
            } else {
                synced += &format!("{} {} 0\n", about.ino(), about.len());
                if about.len() <= PAGE {
                    fs::copy(&path, self.faults(&format!("content-{}", about.ino()))).unwrap();
                }
            }
        }
        fs::write(self.faults("synced"), synced).unwrap();
    }

    /// Of each file or folder that was synced its inode, its length then, and what the sync took.
    fn syncs(&self) -> Vec<[u64; 3]> {
        let told = fs::read_to_string(self.faults("synced")).unwrap();
        let line = |line: &str| -> Vec<u64> { line.split(' ').map(|number| number.parse().unwrap()).collect() };
        told.lines().map(|text| line(text).try_into().unwrap()).collect()
    }

    pub(crate) fn longest_sync(&self) -> Duration {
        let age = |(path, about): &(PathBuf, fs::Metadata)| {
            let is_syncing = path.file_name().unwrap().to_string_lossy().starts_with("syncing-");
            is_syncing.then(|| about.modified().unwrap().elapsed().unwrap_or_default())
        };
        // A sync may end while we look.
        let names = fs::read_dir(self.faults("")).unwrap().map(|entry| entry.unwrap().path());
        let under_way: Vec<_> = names.filter_map(|path| Some((path.clone(), fs::metadata(&path).ok()?))).collect();
        let took = self.syncs().into_iter().map(|[_, _, took]| Duration::from_nanos(took));
        took.chain(under_way.iter().filter_map(age)).max().unwrap_or_default()
    }

    pub(crate) fn cut(&self, server: Process, bytes: Bytes, names: Names) -> Cut {
        let (at, longest_sync) = (clock::now(), self.longest_sync());
        let log = server.killed();
        self.lose(bytes, names);
        Cut { at, longest_sync, log }
    }

    /// What was not synced is lost.
    pub(crate) fn lose(&self, bytes: Bytes, names: Names) {
        let synced: HashMap<u64, u64> = self.syncs().into_iter().map(|[inode, len, _]| (inode, len)).collect();
        let mut seen = BTreeSet::new();
        for (path, about) in files_of(&self.root()).into_iter().chain(files_of(&self.faults("kept"))) {
            let kept = synced.get(&about.ino()).copied().unwrap_or(0);
            if !seen.insert(about.ino()) {
                continue;
            }
            if kept < about.len() {
                lose(&path, kept, about.len(), bytes);
            }
            let then = fs::read(self.faults(&format!("content-{}", about.ino())));
            if let Ok(then) = then
                && bytes.undo_rewrites()
            {
                let file = File::options().write(true).open(&path).unwrap();
                file.write_all_at(&then[..then.len().min(kept as usize)], 0).unwrap();
            }
        }
        if !matches!(names, Names::AsTheyAre) {
            let by_inode = |folder: &Path| files_of(folder).into_iter().map(|(path, about)| (about.ino(), path)).collect();
            let found: [HashMap<u64, PathBuf>; 2] = [by_inode(&self.root()), by_inode(&self.faults("kept"))];
            let after = self.dir.path().join("after");
            self.rebuild(fs::metadata(self.root()).unwrap().ino(), &after, &found, names);
            fs::remove_dir_all(self.root()).unwrap();
            fs::rename(after, self.root()).unwrap();
        }
        self.settle();
        self.reboot();
    }

    /// The next server finds the system started anew.
    pub(crate) fn reboot(&self) {
        static BOOTS: AtomicU64 = AtomicU64::new(1);
        let boot = BOOTS.fetch_add(1, Ordering::Relaxed);
        fs::write(self.faults("boot"), format!("{boot:08x}-0000-4000-8000-000000000000\n")).unwrap();
    }

    /// Makes a folder anew with the names that it had when it was last synced: none, if it never was.
    fn rebuild(&self, inode: u64, path: &Path, found: &[HashMap<u64, PathBuf>; 2], names: Names) {
        let [there, removed] = found;
        fs::create_dir(path).unwrap();
        let told = fs::read_to_string(self.faults(&format!("names-{inode}"))).unwrap_or_default();
        for (inode, name) in told.lines().map(|line| line.split_once(' ').unwrap()) {
            let inode: u64 = inode.parse().unwrap();
            let comes_back = matches!(names, Names::AsSynced) || name == "manifest.json";
            match (name.strip_suffix('/'), there.get(&inode), removed.get(&inode)) {
                (Some(folder), ..) => self.rebuild(inode, &path.join(folder), found, names),
                (None, Some(file), _) => fs::hard_link(file, path.join(name)).unwrap(),
                (None, None, Some(file)) if comes_back => fs::hard_link(file, path.join(name)).unwrap(),
                (None, None, Some(_)) => {}
                (None, None, None) => panic!("{name} of {} is lost", path.display()),
            }
        }
    }

    /// Logs that end in a block that was not filled.
    pub(crate) fn padded_logs(&self) -> usize {
        let is_padded = |(path, about): &(PathBuf, fs::Metadata)| {
            path.file_name().unwrap().to_string_lossy().starts_with("log-")
                && about.len().is_multiple_of(4_096)
                && fs::read(path).unwrap().ends_with(&[0; 32])
        };
        files_of(&self.disk("data")).iter().filter(|file| is_padded(file)).count()
    }
}

/// The cut itself: bytes, names and removals that no sync confirmed are undone, and nothing else.
#[test]
fn a_cut_leaves_what_was_synced() {
    let cases = [
        (Bytes::Gone, Names::AsSynced, "a", "old", vec!["a", "again", "gone"]),
        (Bytes::Half, Names::AsSynced, "a12", "new", vec!["a", "again", "gone"]),
        (Bytes::Zeros, Names::AsTheyAre, "a\0\0\0\0", "new", vec!["a", "again", "in", "in/new", "new"]),
        (Bytes::Gone, Names::OnlyManifestsBack, "a", "old", vec!["a", "again"]),
        (Bytes::Holes, Names::AsSynced, "a1234", "old", vec!["a", "again", "gone"]),
    ];
    for (bytes, names, content, again, left) in cases {
        let frail = Frail::powered(&["data"]);
        let script =
            "printf a > a; printf gone > gone; printf old > again; sync a gone again .; printf 1234 >> a; rm gone; mkdir in;
            printf new | dd of=again conv=notrunc status=none; printf new > new; printf new > in/new; sync new in/new in";
        let mut run = frail.frail(Command::new("sh"));
        assert!(run.args(["-ec", script]).current_dir(frail.disk("data")).status().unwrap().success());
        frail.lose(bytes, names);
        let data = frail.disk("data");
        assert_eq!(fs::read_to_string(data.join("a")).unwrap(), content, "{bytes:?}");
        assert_eq!(fs::read_to_string(data.join("again")).unwrap(), again, "{bytes:?}");
        let below = all_of(&data).into_iter().skip(1);
        let there: BTreeSet<String> = below.map(|(path, _)| path.strip_prefix(&data).unwrap().display().to_string()).collect();
        assert_eq!(Vec::from_iter(&there), left, "{names:?}");
    }
}

/// Pages that were not synced, of which some are lost and later ones are not.
#[test]
fn a_cut_leaves_holes() {
    let frail = Frail::powered(&["data"]);
    let script = "head -c 5000 /dev/zero | tr '\\0' x > a; sync a .; head -c 60000 /dev/zero | tr '\\0' y >> a";
    let mut run = frail.frail(Command::new("sh"));
    assert!(run.args(["-ec", script]).current_dir(frail.disk("data")).status().unwrap().success());
    frail.lose(Bytes::Holes, Names::AsSynced);
    let page = |byte: usize| byte / 4_096;
    let is_lost = |byte: usize| byte >= 5_000 && (page(byte) - page(5_000)) % 8 == 1;
    let written = |byte: usize| if byte < 5_000 { b'x' } else { b'y' };
    let expected: Vec<u8> = (0..65_000).map(|byte| if is_lost(byte) { 0 } else { written(byte) }).collect();
    assert!(fs::read(frail.disk("data").join("a")).unwrap() == expected);
}
