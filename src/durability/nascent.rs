//! A bank's folder before it has its name.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::folder::Folder;
use super::log::Log;
use super::section_file::SectionFile;
use super::{StoreError, sync};
use crate::codec::BankRecord;

/// A file in a folder that names the sibling whose place it takes: until it is gone, that sibling is not.
pub(super) const REPLACES: &str = "replaces";

/// A folder that is being made: all of it is on disk and has its name, or nothing. Dropped, it is removed.
#[derive(Debug)]
pub struct Nascent {
    banks: PathBuf,
    folder: Folder,
}

impl Nascent {
    pub(super) fn begin(banks: &Path, folder: Folder) -> Result<Self, StoreError> {
        let path = banks.join(format!(".new-{:016x}", folder.record.incarnation));
        fs::create_dir(&path).map_err(StoreError::io("make the folder", &path))?;
        let nascent = Self { banks: banks.to_owned(), folder: Folder { path, ..folder } };
        Folder::write_record(&nascent.folder.path, &nascent.folder.record)?;
        Ok(nascent)
    }

    /// Begins the snapshot that the bank begins with.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn begin_snapshot(&self, sequence: u64) -> Result<SectionFile, StoreError> {
        self.folder.begin_snapshot(sequence)
    }

    /// Gives it its name, and a log that goes on after `sequence`. The folders `replaced` are removed: if this is cut short, the next start
    /// finds them, or it.
    ///
    /// # Errors
    /// [`StoreError::Io`]; then what it was to replace is as it was, unless [`Folder::is_lost`] says that the next start may remove it.
    pub fn finish<'a>(self, sequence: u64, replaced: impl IntoIterator<Item = &'a Path>) -> Result<(Folder, Log), StoreError> {
        Log::create(&self.folder, sequence + 1)?;
        let replaced: Vec<&Path> = replaced.into_iter().collect();
        let names: Vec<&str> = replaced.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        if !names.is_empty() {
            sync::new_file(&self.folder.path.join(REPLACES), names.join("\n").as_bytes())?;
        }
        let path = self.banks.join(name_of(&self.folder.record));
        let named = fs::rename(&self.folder.path, &path).map_err(StoreError::io("rename", &self.folder.path));
        let folder = Folder { path, ..self.folder.clone() };
        let is_in_the_way = || replaced.iter().any(|path| path.exists());
        let begun = named.and_then(|()| sync::folder(&self.banks)).and_then(|()| {
            let (log, _) = folder.replay(sequence, &mut |_, _| Err("there must be nothing yet".to_owned().into()))?;
            let log = log?;
            // The next start would do the rest: only what still has its name could come in its way before.
            match take_places(&self.banks, &folder.path, &names) {
                Err(fault) if is_in_the_way() => Err(fault),
                _ => Ok(log),
            }
        });
        match begun {
            Ok(log) => Ok((folder, log)),
            Err(fault) => {
                if let Err(again) = self.take_back(&folder.path) {
                    let folder = folder.path.display();
                    tracing::error!(%folder, %fault, %again, "the bank's folder was begun, which failed and could not be taken back: the next start may take it for the bank, and remove what it was to replace");
                    self.folder.doomed.add(replaced);
                }
                Err(fault)
            }
        }
    }

    /// Sees to it that no start takes the folder, by the name it was to have, for one that replaces others. Without its name it is swept away,
    /// by drop or by the next start.
    fn take_back(&self, named: &Path) -> Result<(), StoreError> {
        if matches!(named.try_exists(), Ok(false)) {
            return Ok(());
        }
        // One that keeps the name keeps the note: of two banks of a name, without it, no start could tell which counts.
        fs::rename(named, &self.folder.path).map_err(StoreError::io("rename", named))?;
        let unnamed = sync::folder(&self.banks);
        let note = self.folder.path.join(REPLACES);
        let unsaid = match fs::remove_file(&note) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", &note)(fault)),
            _ => sync::folder(&self.folder.path),
        };
        unnamed.or(unsaid)
    }
}

/// What the folder of a bank is called.
pub(super) fn name_of(record: &BankRecord) -> String {
    format!("{}@{:016x}", record.name, record.incarnation)
}

impl Drop for Nascent {
    fn drop(&mut self) {
        // Finished, there is no such folder any more; what can't be removed now is swept away at the next start.
        let _gone = fs::remove_dir_all(&self.folder.path);
    }
}

/// Removes the siblings that a folder says it replaces.
pub(super) fn settle(banks: &Path, path: &Path) -> Result<(), StoreError> {
    use io::ErrorKind::{InvalidData, NotADirectory, NotFound};
    let note = path.join(REPLACES);
    match fs::read_to_string(&note) {
        Ok(names) => take_places(banks, path, &names.lines().collect::<Vec<_>>()),
        // There is none, or it is no note.
        Err(none) if matches!(none.kind(), NotFound | NotADirectory | InvalidData) => Ok(()),
        Err(fault) => Err(StoreError::io("read", &note)(fault)),
    }
}

fn take_places(banks: &Path, path: &Path, names: &[&str]) -> Result<(), StoreError> {
    if names.is_empty() {
        return Ok(());
    }
    for name in names {
        let sibling = banks.join(name);
        if !name.contains(['/', '\0']) && sibling != path && sibling.is_dir() {
            remove(banks, &sibling)?;
        }
    }
    let note = path.join(REPLACES);
    fs::remove_file(&note).map_err(StoreError::io("remove", &note))?;
    sync::folder(path)
}

/// Removes a bank's folder; when this returns it will not come back.
pub(super) fn remove(banks: &Path, path: &Path) -> Result<(), StoreError> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(()) };
    let doomed = banks.join(format!(".gone-{name}"));
    fs::rename(path, &doomed).map_err(StoreError::io("rename", path))?;
    sync::folder(banks)?;
    // Its committer may still have written into it: what stays is swept away at the next start.
    let _left = fs::remove_dir_all(&doomed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::REPLACES;
    use crate::codec::BankRecord;
    use crate::durability::{Config, Store};
    use crate::model::{BankKind, BankName, BankSpec, Durability, Lineage, Metric};

    fn record(incarnation: u64) -> BankRecord {
        let spec = BankSpec::new(2, Metric::Dot, BankKind::Queue { capacity: 9 }, 1).unwrap();
        BankRecord {
            name: BankName::parse("name", "b").unwrap(),
            spec,
            incarnation,
            durability: Durability::Always,
            lineage: Lineage::default(),
        }
    }

    #[test]
    fn whichever_moment_ends_a_replacement_one_bank_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Store::open(dir.path(), &Config::default()).unwrap();
        let incarnations = |store: &Store| -> Vec<u64> {
            store.banks().unwrap().into_iter().map(|found| found.folder.unwrap().record().incarnation).collect()
        };
        let store = open();
        let old = store.create(&record(1)).unwrap().0.path().to_owned();
        drop(store);
        // Ended before it had its name.
        fs::create_dir(dir.path().join("banks/.new-0000000000000002")).unwrap();
        let store = open();
        assert_eq!(incarnations(&store), [1]);
        // Ended between the new name and the end of the old one.
        let new = store.begin(&record(3)).unwrap().finish(7, None).unwrap().0.path().to_owned();
        fs::write(new.join(REPLACES), old.file_name().unwrap().to_str().unwrap()).unwrap();
        assert_eq!(incarnations(&store), [1, 3]);
        drop(store);
        let store = open();
        assert_eq!(incarnations(&store), [3]);
        assert!(!new.join(REPLACES).exists());
        // Given up, and whole.
        drop(store.begin(&record(4)).unwrap());
        assert_eq!(fs::read_dir(dir.path().join("banks")).unwrap().count(), 1);
        let newest = store.begin(&record(5)).unwrap().finish(8, [new.as_path()]).unwrap().0.path().to_owned();
        assert_eq!(incarnations(&store), [5]);
        assert!(!newest.join(REPLACES).exists() && !new.exists());
        // Of several that nobody could choose between each gives way, at once or at the next start.
        let second = store.create(&record(6)).unwrap().0.path().to_owned();
        store.begin(&record(7)).unwrap().finish(8, [newest.as_path(), second.as_path()]).unwrap();
        assert_eq!(incarnations(&store), [7]);
        let [eighth, last] = [8, 9].map(|number| store.create(&record(number)).unwrap().0.path().to_owned());
        let name = |path: &std::path::Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        fs::write(last.join(REPLACES), format!("{}\n{}", "b@0000000000000007", name(&eighth))).unwrap();
        drop(store);
        assert_eq!(incarnations(&open()), [9]);
        assert!(!last.join(REPLACES).exists());
    }
}
