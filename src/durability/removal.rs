//! Removing large files beside others that are written.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// Bytes that a disk frees in a millisecond or so.
const STEP: u64 = 4 << 20;

/// What waits for the disk goes first meanwhile.
const PAUSE: Duration = Duration::from_millis(2);

/// Removes a file: its name at once, its room step by step, at some GiB a second at most. Freed in one piece, two GiB of log held up all
/// writes to the disk for half a second. What a server that is killed had not freed yet, the system frees.
pub(super) fn file(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    fs::remove_file(path)?;
    let mut left = file.metadata().map_or(0, |metadata| metadata.len());
    while left > STEP {
        left -= STEP;
        // One that can't be made shorter is freed when it is closed.
        if file.set_len(left).is_err() {
            break;
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{STEP, file};

    #[test]
    fn a_large_file_is_gone_by_name_and_freed_in_steps() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("file"), dir.path().join("link"));
        for (bytes, left) in [(5, 5), (STEP, STEP), (3 * STEP + 7, 7)] {
            fs::write(&path, vec![1; bytes as usize]).unwrap();
            fs::hard_link(&path, &link).unwrap();
            file(&path).unwrap();
            assert!(!path.exists());
            assert_eq!(fs::metadata(&link).unwrap().len(), left, "the rest goes with its last name");
            fs::remove_file(&link).unwrap();
        }
        assert!(file(&path).is_err());
    }
}
