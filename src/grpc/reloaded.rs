//! What is read from files, and read again when they change.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use super::amiss::{Amiss, Telling};
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
    seen: Mutex<Seen>,
}

/// What the files held at the last look at which they could be read.
struct Seen {
    contents: Vec<Vec<u8>>,
    /// Why that is not in force, if it isn't.
    wrong: Option<String>,
    amiss: Amiss,
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
        let contents = read(&files)?;
        let current = RwLock::new(Arc::new(parse(&pairs(&files, &contents))?));
        let seen = Mutex::new(Seen { contents, wrong: None, amiss: Amiss::default() });
        Ok(Arc::new(Self { what, files, parse: Box::new(parse), current, seen }))
    }

    /// The value as it is now.
    pub(super) fn get(&self) -> Arc<T> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the files again.
    fn refresh(&self) {
        // Before the lock: it may take for ever.
        let read = read(&self.files);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (what, mut changed) = (self.what, false);
        let fault = match read {
            Ok(found) => {
                changed = found != seen.contents;
                if changed {
                    seen.wrong = self.take_up(&found).err();
                    seen.contents = found;
                }
                seen.wrong.clone()
            }
            Err(fault) => Some(format!("the {what} stay as they were: {fault}")),
        };
        // That they changed and are in force was told.
        if let Some(since) = seen.amiss.tell(fault)
            && !changed
        {
            tracing::info!(?since, "the files of the {what} can be read again, and are as they were");
        }
    }

    /// A look at the files has not ended after so long.
    fn hangs(&self, patience: Duration) {
        let what = self.what;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.amiss.tell(Some(format!("the {what} stay as they were: their files could not be read within {patience:?}")));
    }

    /// Puts in force what the files hold now, or says why not.
    fn take_up(&self, found: &[Vec<u8>]) -> Result<(), String> {
        let what = self.what;
        let wrong = |fault| format!("the {what} changed and are wrong, those before stay in force: {fault}");
        let value = (self.parse)(&pairs(&self.files, found)).map_err(wrong)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
        tracing::info!("the {what} changed and are in force");
        Ok(())
    }

    /// Follows the files for as long as somebody uses the value; once a day it is `told` of. While a look at them hangs, as on a mount whose
    /// server is gone, there is no other: it takes one thread.
    pub(super) fn follow(self: &Arc<Self>, every: Duration, told: fn(&T)) {
        let patience = 2 * every;
        let followed = Arc::downgrade(self);
        tokio::spawn(async move {
            let (mut looks, mut last) = (tokio::time::interval(every), clock::now());
            // After one that hung, none that were missed are made up for.
            looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                looks.tick().await;
                let Some(value) = followed.upgrade() else { return };
                if clock::now().saturating_duration_since(last) >= AGAIN {
                    last = clock::now();
                    told(&value.get());
                }
                let mut look = tokio::task::spawn_blocking(move || value.refresh());
                // An error of the look says that the runtime is ending.
                while tokio::time::timeout(patience, &mut look).await.is_err() {
                    let Some(value) = followed.upgrade() else { return };
                    value.hangs(patience);
                }
            }
        });
    }
}

impl Amiss {
    /// Notes what a look found amiss, and logs what there is to tell of it; of its end, it says how long it lasted.
    fn tell(&mut self, fault: Option<String>) -> Option<Duration> {
        let told = self.found(fault.as_deref(), clock::now());
        match (told, fault.unwrap_or_default()) {
            (Some(Telling::New), fault) => tracing::error!("{fault}"),
            (Some(Telling::Still(since)), fault) => tracing::error!(?since, "still so: {fault}"),
            (Some(Telling::Over(since)), _) => return Some(since),
            (None, _) => {}
        }
        None
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

    /// As Kubernetes changes what it mounts of a Secret: all files at once, by one symbolic link to the folder that they are in.
    #[test]
    fn files_that_are_swapped_by_a_link_are_taken_up_together() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        let mount = |version: &str, said: &str| {
            std::fs::create_dir(at(version)).unwrap();
            ["tls.crt", "tls.key"].iter().for_each(|name| std::fs::write(at(version).join(name), said).unwrap());
            std::os::unix::fs::symlink(version, at("..data_tmp")).unwrap();
            std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
        };
        mount("..2026_1", "first");
        for name in ["tls.crt", "tls.key"] {
            std::os::unix::fs::symlink(format!("..data/{name}"), at(name)).unwrap();
        }
        let pair = |files: &[(&File, &[u8])]| match files {
            [(_, a), (key, b)] if a != b => Err(key.wrong("it is not the certificate's")),
            [(_, said), ..] => Ok(String::from_utf8_lossy(said).into_owned()),
            [] => Err("no files".to_owned()),
        };
        let files = ["tls.crt", "tls.key"].map(|setting| File { setting, path: at(setting) }).to_vec();
        let value = Reloaded::load("certificates", files, pair).unwrap();
        mount("..2026_2", "second");
        value.refresh();
        assert_eq!(*value.get(), "second");
        // Whoever writes one file after the other is waited for.
        for (name, expected) in [("tls.crt", "second"), ("tls.key", "third")] {
            std::fs::write(at(name), "third").unwrap();
            value.refresh();
            assert_eq!(*value.get(), expected, "{name}");
        }
        std::fs::remove_dir_all(at("..2026_1")).unwrap();
        value.refresh();
        assert_eq!(*value.get(), "third");
    }

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
