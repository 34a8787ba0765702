//! Whether a disk has room for what is to be written.

use std::path::Path;

use rustix::fs::statvfs;

use super::ArchiveError;

/// Bytes that are left to others, or a twentieth of a small disk: a bank whose log finds no room takes no writes until a restart.
const LEFT: u64 = 1 << 30;
const SHARE: u64 = 20;

/// Bytes after which whoever writes much looks again: others write to the disk as well.
pub const LOOKED_EVERY: u64 = 64 << 20;

/// Bytes that are left where what is written shortens a log.
const LEFT_BY_A_SNAPSHOT: u64 = 64 << 20;

/// Whether `bytes` more can be written to the disk of `folder`, the setting's, with room left for the logs of banks that are written meanwhile.
/// A disk that doesn't tell has it.
///
/// # Errors
/// [`ArchiveError::Io`]
pub fn has_room(folder: &Path, bytes: u64, setting: &'static str) -> Result<(), ArchiveError> {
    leaves(folder, bytes, LEFT, setting)
}

/// [`has_room`] for a snapshot, which leaves less to the logs: it takes the place of one, and without it that grows on.
///
/// # Errors
/// [`ArchiveError::Io`]
pub fn fits(folder: &Path, bytes: u64, setting: &'static str) -> Result<(), ArchiveError> {
    leaves(folder, bytes, LEFT_BY_A_SNAPSHOT, setting)
}

fn leaves(folder: &Path, bytes: u64, left: u64, setting: &'static str) -> Result<(), ArchiveError> {
    // Some file systems, as those in memory without a bound, tell of no blocks at all.
    let Some(disk) = statvfs(folder).ok().filter(|disk| disk.f_blocks > 0) else { return Ok(()) };
    let of = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    enough(bytes, of(disk.f_bavail), (left, of(disk.f_blocks))).map_err(|why| ArchiveError::Io {
        doing: "write to",
        what: folder.display().to_string(),
        setting,
        why,
    })
}

fn enough(bytes: u64, free: u64, (left, size): (u64, u64)) -> Result<(), String> {
    let left = left.min(size / SHARE);
    if bytes <= free.saturating_sub(left) {
        return Ok(());
    }
    Err(format!("it has {free} bytes free, of which {left} are for the logs of banks, and {bytes} are wanted: make room there"))
}

#[cfg(test)]
mod tests {
    use super::{LEFT, enough, fits, has_room};

    #[test]
    fn some_room_is_left_to_the_logs() {
        let (of, free) = ((LEFT, 100 * LEFT), 10 * LEFT);
        assert!(enough(9 * LEFT, free, of).is_ok());
        let refused = enough(9 * LEFT + 1, free, of).unwrap_err();
        assert!(refused.contains(&free.to_string()) && refused.contains("make room"), "{refused}");
        let small = (LEFT, 2_000);
        assert!(enough(900, 1_000, small).is_ok() && enough(901, 1_000, small).is_err(), "a twentieth of a small disk");
        assert!(enough(u64::MAX, u64::MAX, of).is_err() && enough(0, 0, of).is_ok(), "nothing always fits");
    }

    #[test]
    fn this_disk_has_room_for_a_byte_and_not_for_all() {
        let folder = tempfile::tempdir().unwrap();
        assert!(has_room(folder.path(), u64::MAX, "checkpoints.spool").is_err());
        assert!(fits(folder.path(), u64::MAX, "durability.dir").is_err() && fits(folder.path(), 0, "durability.dir").is_ok());
        assert!(has_room(&folder.path().join("not there"), u64::MAX, "checkpoints.spool").is_ok(), "nobody knows");
    }
}
