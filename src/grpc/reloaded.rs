//! What is read from files, and read again when they change.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crate::model::clock;

/// How a value is made of the files and their contents, in their order.
type Parse<T> = Box<dyn Fn(&[(&File, &[u8])]) -> Result<T, String> + Send + Sync>;

/// A file, and the setting that names it.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) setting: &'static str,
    pub(super) path: PathBuf,
}

impl File {
    /// What is wrong with it, as whoever made the settings can mend it.
    pub(super) fn wrong(&self, fault: impl fmt::Display) -> String {
        format!("{}: {}: {fault}", self.setting, self.path.display())
    }
}

/// How often what may be amiss with a value is told of again.
const AGAIN: Duration = Duration::from_secs(86_400);

/// A value that follows its files. While they don't make sense, one half-replaced, say, it stays as it was.
pub(super) struct Reloaded<T> {
    what: &'static str,
    files: Vec<File>,
    parse: Parse<T>,
    current: RwLock<Arc<T>>,
    seen: Mutex<Vec<Vec<u8>>>,
}

impl<T: Send + Sync + 'static> Reloaded<T> {
    /// Reads the files of `what` for the first time.
    ///
    /// # Errors
    /// Which file can't be read, or what is wrong with what they say.
    pub(super) fn load(
        what: &'static str,
        files: Vec<File>,
        parse: impl Fn(&[(&File, &[u8])]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, String> {
        let seen = read(&files)?;
        let current = RwLock::new(Arc::new(parse(&pairs(&files, &seen))?));
        Ok(Arc::new(Self { what, files, parse: Box::new(parse), current, seen: Mutex::new(seen) }))
    }

    /// The value as it is now.
    pub(super) fn get(&self) -> Arc<T> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the files again.
    fn refresh(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let what = self.what;
        match read(&self.files) {
            Ok(found) if found == *seen => {}
            Ok(found) => {
                match (self.parse)(&pairs(&self.files, &found)) {
                    Ok(value) => {
                        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
                        tracing::info!("the {what} changed and are in force");
                    }
                    Err(fault) => tracing::error!("the {what} changed and are wrong, those before stay in force: {fault}"),
                }
                *seen = found;
            }
            Err(fault) => tracing::error!("the {what} stay as they were: {fault}"),
        }
    }

    /// Follows the files for as long as somebody uses the value; once a day it is `told` of.
    pub(super) fn follow(self: &Arc<Self>, every: Duration, told: fn(&T)) {
        let followed = Arc::downgrade(self);
        tokio::spawn(async move {
            let (mut looks, mut last) = (tokio::time::interval(every), clock::now());
            loop {
                looks.tick().await;
                let Some(value) = followed.upgrade() else { return };
                if clock::now().saturating_duration_since(last) >= AGAIN {
                    last = clock::now();
                    told(&value.get());
                }
                // An error says that the runtime is ending.
                let _ended = tokio::task::spawn_blocking(move || value.refresh()).await;
            }
        });
    }
}

fn read(files: &[File]) -> Result<Vec<Vec<u8>>, String> {
    files.iter().map(|file| fs::read(&file.path).map_err(|fault| file.wrong(fault))).collect()
}

fn pairs<'a>(files: &'a [File], contents: &'a [Vec<u8>]) -> Vec<(&'a File, &'a [u8])> {
    files.iter().zip(contents.iter().map(Vec::as_slice)).collect()
}

impl<T> fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloaded").field("what", &self.what).field("files", &self.files).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{File, Reloaded};

    #[test]
    fn a_value_follows_its_files_while_they_make_sense() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["a", "b"].map(|setting| File { setting, path: folder.path().join(setting) }).to_vec();
        let sum = |files: &[(&File, &[u8])]| {
            files.iter().map(|(file, text)| String::from_utf8_lossy(text).parse::<i32>().map_err(|e| file.wrong(e))).sum()
        };
        let write = |file: usize, text: &str| std::fs::write(&files[file].path, text).unwrap();
        write(0, "1");
        let fault = Reloaded::<i32>::load("numbers", files.clone(), sum).unwrap_err();
        assert!(fault.starts_with("b: ") && fault.contains("/b: "), "the file that is missing: {fault}");
        write(1, "2");
        let value = Reloaded::load("numbers", files.clone(), sum).unwrap();
        for (text, sum) in [("5", 6), ("x", 6), ("7", 8)] {
            write(1, text);
            value.refresh();
            assert_eq!(*value.get(), sum, "{text}");
        }
        std::fs::remove_file(&files[0].path).unwrap();
        value.refresh();
        assert_eq!(*value.get(), 8);
    }
}
