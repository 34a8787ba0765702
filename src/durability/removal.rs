//! Removing large files beside others that are written.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// Bytes freed at a time: little enough that what waits for the disk is not held up.
const STEP: u64 = 4 << 20;

/// What waits for the disk goes first meanwhile.
const PAUSE: Duration = Duration::from_millis(2);

/// Removes a file: its name at once, its room step by step, at some GiB a second at most. Freed in one piece, a long log held up all
/// writes to the disk. What a server that is killed had not freed yet, the system frees. One that has another name,
/// in somebody's backup, stays there as it is.
pub(super) fn file(path: &Path) -> io::Result<()> {
    let opened = OpenOptions::new().write(true).open(path);
    fs::remove_file(path)?;
    // One that may not be written to is freed at once.
    let Ok(file) = opened else { return Ok(()) };
    let Ok(metadata) = file.metadata() else { return Ok(()) };
    let mut left = if metadata.nlink() == 0 { metadata.len() } else { 0 };
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
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::{STEP, file};

    #[test]
    fn a_large_file_is_gone_by_name_and_freed_in_steps() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for (bytes, left) in [(5, 5), (STEP, STEP), (3 * STEP + 7, 7)] {
            fs::write(&path, vec![1; bytes as usize]).unwrap();
            let open = File::open(&path).unwrap();
            file(&path).unwrap();
            assert!(!path.exists());
            assert_eq!(open.metadata().unwrap().len(), left, "the rest goes when it is closed");
        }
        assert!(file(&path).is_err());
    }

    #[test]
    fn what_has_another_name_or_may_not_be_written_to_is_only_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, backup) = (dir.path().join("file"), dir.path().join("backup"));
        fs::write(&path, vec![1; 2 * STEP as usize]).unwrap();
        fs::hard_link(&path, &backup).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
        file(&path).unwrap();
        assert!(!path.exists());
        assert_eq!(fs::metadata(&backup).unwrap().len(), 2 * STEP);
    }
}
