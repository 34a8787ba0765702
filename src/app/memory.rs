//! How much memory the process may have.

use std::path::Path;

/// Four fifths of what its cgroup may have, or else of what the machine has; 0 if neither is known. The rest is for what nobody accounts
/// for: stacks, buffers of connections, and what the allocator loses between its pieces.
pub(super) fn allowed() -> usize {
    let bytes = cgroup(Path::new("/sys/fs/cgroup")).into_iter().chain(machine()).min().unwrap_or(0);
    bytes / 5 * 4
}

/// The limit of cgroup 2, or of 1; none where there is none, or where it is beyond any machine.
fn cgroup(root: &Path) -> Option<usize> {
    let files = [root.join("memory.max"), root.join("memory/memory.limit_in_bytes")];
    files.iter().find_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok())
}

fn machine() -> Option<usize> {
    let about = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = about.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix(" kB")?.trim().parse::<usize>().ok()?.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::{allowed, cgroup, machine};

    #[test]
    fn a_cgroup_that_says_max_has_no_limit() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(cgroup(root.path()), None);
        std::fs::write(root.path().join("memory.max"), "max\n").unwrap();
        assert_eq!(cgroup(root.path()), None);
        std::fs::write(root.path().join("memory.max"), "2147483648\n").unwrap();
        assert_eq!(cgroup(root.path()), Some(2 << 30));
        assert!(allowed() > 0 && allowed() < machine().unwrap());
    }
}
