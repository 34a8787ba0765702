//! What is read from files, and read again when they change.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// How a value is made of the files' contents, in their order.
type Parse<T> = Box<dyn Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync>;

/// A value that follows its files. While they don't make sense, one half-replaced, say, it stays as it was.
pub(super) struct Reloaded<T> {
    what: &'static str,
    files: Vec<PathBuf>,
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
        files: Vec<PathBuf>,
        parse: impl Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, String> {
        let seen = read(&files)?;
        let current = RwLock::new(Arc::new(parse(&seen)?));
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
                match (self.parse)(&found) {
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

    /// Follows the files for as long as somebody uses the value.
    pub(super) fn follow(self: &Arc<Self>, every: Duration) {
        let followed = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut looks = tokio::time::interval(every);
            loop {
                looks.tick().await;
                let Some(value) = followed.upgrade() else { return };
                // An error says that the runtime is ending.
                let _ended = tokio::task::spawn_blocking(move || value.refresh()).await;
            }
        });
    }
}

fn read(files: &[PathBuf]) -> Result<Vec<Vec<u8>>, String> {
    let one = |path: &PathBuf| fs::read(path).map_err(|fault: io::Error| format!("{}: {fault}", path.display()));
    files.iter().map(one).collect()
}

impl<T> std::fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloaded").field("what", &self.what).field("files", &self.files).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::Reloaded;

    #[test]
    fn a_value_follows_its_files_while_they_make_sense() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["a", "b"].map(|name| folder.path().join(name)).to_vec();
        let sum = |contents: &[Vec<u8>]| {
            contents.iter().map(|text| String::from_utf8_lossy(text).parse::<i32>().map_err(|e| e.to_string())).sum()
        };
        assert!(Reloaded::<i32>::load("numbers", files.clone(), sum).unwrap_err().contains("/a: "));
        let write = |file: usize, text: &str| std::fs::write(&files[file], text).unwrap();
        write(0, "1");
        write(1, "2");
        let value = Reloaded::load("numbers", files.clone(), sum).unwrap();
        for (text, sum) in [("5", 6), ("x", 6), ("7", 8)] {
            write(1, text);
            value.refresh();
            assert_eq!(*value.get(), sum, "{text}");
        }
        std::fs::remove_file(&files[0]).unwrap();
        value.refresh();
        assert_eq!(*value.get(), 8);
    }
}
