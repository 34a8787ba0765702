//! The folder of all banks.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::doomed::Doomed;
use super::folder::Folder;
use super::log::Log;
use super::nascent::{self, Nascent};
use super::{Config, StoreError, sync};
use crate::codec::BankRecord;
use crate::model::{BankName, clock};

/// `durability.dir`, which one server owns at a time.
///
/// `banks/NAME@INCARNATION` is a bank; a folder that begins with a dot is one that is being made or removed, and is swept away at the next
/// start. All else is left alone.
#[derive(Debug)]
pub struct Store {
    banks: PathBuf,
    segment_bytes: u64,
    lock: Arc<File>,
    doomed: Doomed,
    /// Folders that were to take the place of others, and could not when the store was opened: why.
    unsettled: BTreeMap<PathBuf, String>,
}

/// A bank's folder, as it was found.
#[derive(Debug)]
pub struct Found {
    /// The bank's name, as the folder's says.
    pub name: BankName,
    /// The folder itself.
    pub path: PathBuf,
    /// Its content, if that can be read.
    pub folder: Result<Folder, StoreError>,
}

impl Store {
    /// Takes the folder, and makes it if there is none.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another server has it; [`StoreError::Io`]
    pub fn open(dir: &Path, config: &Config) -> Result<Self, StoreError> {
        let banks = dir.join("banks");
        let missing = banks.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists()).count();
        fs::create_dir_all(&banks).map_err(StoreError::io("make the folder", &banks))?;
        // What is in a folder is lost with its name.
        for folder in banks.ancestors().skip(1).take(missing.max(1)) {
            sync::folder(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?;
        }
        let lock = Arc::new(lock(dir)?);
        let (doomed, unsettled) = (Doomed::default(), BTreeMap::new());
        let mut store = Self { banks, segment_bytes: config.segment_bytes, lock, doomed, unsettled };
        for path in store.list()? {
            // A file of that kind is another program's: of a file system that keeps what is still open, say.
            if is_passing(&path)
                && path.is_dir()
                && let Err(fault) = fs::remove_dir_all(&path)
            {
                tracing::warn!(folder = %path.display(), %fault, "what was left of a bank that was made or removed can't be removed, and takes room");
            }
        }
        for path in store.list()?.into_iter().filter(|path| !is_passing(path)) {
            if let Err(fault) = nascent::settle(&store.banks, &path) {
                store.unsettled.insert(path, fault.to_string());
            }
        }
        Ok(store)
    }

    /// The banks that are there, by name. What lies beside them under a name that no bank has is said so in the logs.
    ///
    /// # Errors
    /// [`StoreError::Io`] if they can't be listed. What can't be read of one is told with it.
    pub fn banks(&self) -> Result<Vec<Found>, StoreError> {
        let mut found = Vec::new();
        for path in self.list()? {
            if is_passing(&path) {
                continue;
            }
            let Some((name, incarnation)) = named(&path) else {
                tracing::error!(
                    path = %path.display(),
                    "it is ignored: no bank is named so. If it is a bank's folder that was renamed, name it NAME@INCARNATION again, as the server did, and restart"
                );
                continue;
            };
            let folder = Folder::read_record(&path).and_then(|record| {
                if let Some(why) = self.unsettled.get(&path) {
                    return Err(StoreError::Unsettled(why.clone()));
                }
                if (&record.name, record.incarnation) == (&name, incarnation) {
                    return self.folder(path.clone(), record).renewed();
                }
                Err(StoreError::damaged(&path, 0, format!("it holds the settings of another bank, {}", record.name)))
            });
            found.push(Found { name, path, folder });
        }
        found.sort_by(|a, b| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
        Ok(found)
    }

    /// Makes a bank's folder: all of it is on disk, or nothing.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn create(&self, record: &BankRecord) -> Result<(Folder, Log), StoreError> {
        self.begin(record)?.finish(0, None)
    }

    /// Begins to make a folder of a bank that has a history.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn begin(&self, record: &BankRecord) -> Result<Nascent, StoreError> {
        Nascent::begin(&self.banks, self.folder(PathBuf::new(), record.clone()))
    }

    /// Removes a bank's folder; when this returns it will not come back.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn remove(&self, path: &Path) -> Result<(), StoreError> {
        nascent::remove(&self.banks, path)
    }

    /// Where the bank lies, if a folder has its name: one that was begun may have it though it failed.
    pub fn place_of(&self, record: &BankRecord) -> Option<PathBuf> {
        let path = self.banks.join(nascent::name_of(record));
        (!matches!(path.try_exists(), Ok(false))).then_some(path)
    }

    fn folder(&self, path: PathBuf, record: BankRecord) -> Folder {
        let (lock, doomed) = (Arc::clone(&self.lock), self.doomed.clone());
        Folder { path, identity: record.incarnation, record, segment_bytes: self.segment_bytes, lock, doomed }
    }

    fn list(&self) -> Result<Vec<PathBuf>, StoreError> {
        let listed = self.banks.read_dir().and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
        listed.map_err(StoreError::io("list", &self.banks))
    }
}

/// True for a folder that is no bank yet, or none any more; and for files that other programs hide.
fn is_passing(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// The bank and the incarnation that a folder is named after.
fn named(path: &Path) -> Option<(BankName, u64)> {
    let (name, incarnation) = path.file_name()?.to_str()?.split_once('@')?;
    Some((BankName::parse("name", name).ok()?, u64::from_str_radix(incarnation, 16).ok()?))
}

/// How long a server that is just ending is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// Locks the folder for as long as the file is open, and writes down who has it.
fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.map_err(StoreError::io("open", &path))?;
    let until = clock::now() + PATIENCE;
    let locked = loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if clock::now() < until => std::thread::sleep(PAUSE),
            locked => break locked,
        }
    };
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut process = String::new();
            // Who has it is a courtesy.
            let _unknown = file.read_to_string(&mut process);
            let by = process.trim().parse::<u32>().map_or_else(|_| String::new(), |process| format!(", process {process}"));
            return Err(StoreError::Locked { dir: dir.to_owned(), by });
        }
        Err(TryLockError::Error(source)) => return Err(StoreError::io("lock", &path)(source)),
    }
    match sign(&file).map_err(StoreError::io("write", &path)) {
        Err(full) if full.wants_room() => {
            tracing::warn!(fault = %full, "the folder is locked, and the file does not tell by which process");
            // Nor is another named in its place.
            file.set_len(0).map_err(StoreError::io("write", &path))?;
        }
        signed => signed?,
    }
    Ok(file)
}

/// Writes down who has the lock, over who had it: a disk that is full has room for that.
fn sign(file: &File) -> io::Result<()> {
    let process = format!("{:<10}\n", std::process::id());
    file.write_all_at(process.as_bytes(), 0)?;
    file.set_len(process.len() as u64)
}
