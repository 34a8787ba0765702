//! New files that take the place of old ones once all of them are whole.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek as _, Write as _};
use std::path::{Path, PathBuf};

/// A file under a name of its own, `x.npy.4711-0.partial` for `x.npy`; dropped without its name, it is removed.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
}

impl Draft {
    pub(super) fn create(path: &Path) -> Result<Self, String> {
        // A process on another machine may have this one's number, and what a killed one left may lie there.
        let made = names(path, "partial").find_map(|partial| match File::create_new(&partial) {
            Err(taken) if taken.kind() == io::ErrorKind::AlreadyExists => None,
            made => Some((partial, made)),
        });
        let (partial, made) = made.ok_or_else(|| told(path, &io::ErrorKind::AlreadyExists.into()))?;
        let file = made.map_err(|fault| told(&partial, &fault))?;
        Ok(Self { path: path.to_owned(), partial, file: BufWriter::with_capacity(1 << 20, file) })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.file.write_all(bytes).map_err(|fault| told(&self.partial, &fault))
    }

    /// Writes what stands before all the rest, over the room that was left for it.
    pub(super) fn write_head(&mut self, head: &[u8]) -> Result<(), String> {
        self.file.rewind().and_then(|()| self.file.write_all(head)).map_err(|fault| told(&self.partial, &fault))
    }

    /// The disk has all of it.
    pub(super) fn sync(&mut self) -> Result<(), String> {
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        synced.map_err(|fault| told(&self.partial, &fault))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // With its name, there is no such file any more.
        let _gone = fs::remove_file(&self.partial);
    }
}

/// Gives a file its name, which another may have had; `old` is asked first, and may refuse.
pub(super) fn place(mut draft: Draft, old: impl FnOnce() -> Result<Vec<PathBuf>, String>) -> Result<PathBuf, String> {
    draft.sync()?;
    let path = draft.path.clone();
    let _alone = alone(&path)?;
    old()?;
    fs::rename(&draft.partial, &path).map_err(|fault| told(&path, &fault))?;
    sync_folder(&path)?;
    Ok(path)
}

/// Gives files their names in place of `old` ones, which may have others, or refuse. Without `main` the others are nothing: whenever the
/// machine stops, either no file has its name, or all beside it are of the same export. If this fails, the old files have their names again.
pub(super) fn place_together(
    mut main: Draft,
    mut beside: Vec<Draft>,
    old: impl FnOnce() -> Result<Vec<PathBuf>, String>,
) -> Result<Vec<PathBuf>, String> {
    main.sync()?;
    beside.iter_mut().try_for_each(Draft::sync)?;
    let _alone = alone(&main.path)?;
    let mut moves = Moves::default();
    let mut aside = Vec::new();
    let (old_main, old_beside): (Vec<PathBuf>, Vec<PathBuf>) = old()?.into_iter().partition(|path| *path == main.path);
    for path in old_main {
        aside.push(moves.aside(&path)?);
        sync_folder(&path)?;
    }
    for path in old_beside {
        aside.push(moves.aside(&path)?);
    }
    for draft in &beside {
        moves.rename(&draft.partial, &draft.path)?;
    }
    sync_folder(&main.path)?;
    moves.rename(&main.partial, &main.path)?;
    sync_folder(&main.path)?;
    moves.done.clear();
    for old in aside {
        let left = |fault| format!("{}: it was replaced, and could not be removed", told(&old, &fault));
        fs::remove_file(&old).map_err(left)?;
    }
    Ok(std::iter::once(&main).chain(&beside).map(|draft| draft.path.clone()).collect())
}

/// Renames that are undone, the last one first, unless they are forgotten.
#[derive(Debug, Default)]
struct Moves {
    done: Vec<(PathBuf, PathBuf)>,
}

impl Moves {
    fn aside(&mut self, path: &Path) -> Result<PathBuf, String> {
        if path.is_dir() {
            return Err(told(path, &io::ErrorKind::IsADirectory.into()));
        }
        let free = names(path, "old").find(|name| !name.exists());
        let free = free.ok_or_else(|| told(path, &io::ErrorKind::AlreadyExists.into()))?;
        self.rename(path, &free)?;
        Ok(free)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), String> {
        fs::rename(from, to).map_err(|fault| told(to, &fault))?;
        self.done.push((from.to_owned(), to.to_owned()));
        Ok(())
    }
}

impl Drop for Moves {
    fn drop(&mut self) {
        for (from, to) in self.done.iter().rev() {
            // What can't be moved back lies there under the name that it has.
            let _still_there = fs::rename(to, from);
        }
    }
}

/// Names beside a file, of this process.
fn names(path: &Path, ending: &str) -> impl Iterator<Item = PathBuf> {
    (0..1_000).map(move |number| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}-{number}.{ending}", std::process::id()));
        PathBuf::from(name)
    })
}

/// Two exports to one folder don't name files at the same time, where its file system has locks.
fn alone(path: &Path) -> Result<File, String> {
    let folder = folder(path);
    let file = File::open(folder).map_err(|fault| told(folder, &fault))?;
    let _has_none = file.lock();
    Ok(file)
}

fn sync_folder(path: &Path) -> Result<(), String> {
    let folder = folder(path);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|fault| told(folder, &fault))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn told(path: &Path, fault: &io::Error) -> String {
    format!("{}: {fault}", path.display())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use super::{Draft, place, place_together};

    fn files(folder: &Path) -> BTreeMap<String, String> {
        let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap());
        files
            .map(|file| (file.file_name().into_string().unwrap(), fs::read_to_string(file.path()).unwrap_or_default()))
            .collect()
    }

    fn draft(path: &Path, text: &str) -> Draft {
        let mut draft = Draft::create(path).unwrap();
        draft.write(text.as_bytes()).unwrap();
        draft
    }

    #[test]
    fn what_is_not_placed_leaves_nothing_and_two_of_a_name_are_two_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let (first, second) = (draft(&path, "first"), draft(&path, "second"));
        assert_eq!(files(folder.path()).len(), 2);
        place(first, || Ok(Vec::new())).unwrap();
        assert!(place(draft(&path, "third"), || Err("there already".to_owned())).is_err());
        drop(second);
        assert_eq!(files(folder.path()), BTreeMap::from([("x".to_owned(), "first".to_owned())]));
    }

    #[test]
    fn files_are_replaced_together_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let [x, labels, ids] = ["x", "x.labels", "x.ids"].map(|name| folder.path().join(name));
        for path in [&x, &labels] {
            fs::write(path, "old").unwrap();
        }
        let before = files(folder.path());
        // A folder in the way, which no rename replaces: the old files are aside by then.
        fs::create_dir(&ids).unwrap();
        let old = || Ok(vec![labels.clone(), x.clone()]);
        let failed = place_together(draft(&x, "new"), vec![draft(&ids, "new")], old);
        assert!(failed.unwrap_err().contains("x.ids"));
        fs::remove_dir(&ids).unwrap();
        assert_eq!(files(folder.path()), before);
        let placed = place_together(draft(&x, "new"), vec![draft(&ids, "new")], old).unwrap();
        assert_eq!(placed, [x.clone(), ids]);
        let new = ["x", "x.ids"].map(|name| (name.to_owned(), "new".to_owned()));
        assert_eq!(files(folder.path()), BTreeMap::from(new));
    }
}
