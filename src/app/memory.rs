//! How much memory the process may have.

use std::path::Path;

/// Four fifths of what its cgroups may have, or else of what the machine has; 0 if neither is known. The rest is for what nobody accounts
/// for: stacks, buffers of connections, and what the allocator loses between its pieces.
pub(super) fn allowed() -> usize {
    let mine = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let bytes = cgroups(Path::new("/sys/fs/cgroup"), &mine).into_iter().chain(machine()).min().unwrap_or(0);
    bytes / 5 * 4
}

/// The least limit of the cgroups, of version 2 or of 1, that `/proc/self/cgroup` says that the process is in, and of those that hold them; none
/// where there is none, or where it is beyond any machine. In a container they are mounted as if the process's own were the first.
fn cgroups(root: &Path, mine: &str) -> Option<usize> {
    let named = mine.lines().filter_map(|line| {
        let (_, line) = line.split_once(':')?;
        let (controllers, path) = line.split_once(':')?;
        let path = path.trim_start_matches('/');
        match controllers {
            "" => Some((root.to_owned(), path, "memory.max")),
            _ if controllers.split(',').any(|of| of == "memory") => Some((root.join("memory"), path, "memory.limit_in_bytes")),
            _ => None,
        }
    });
    let limits = named.flat_map(|(mount, path, file)| {
        let within = Path::new(path).ancestors().map(|path| mount.join(path)).collect::<Vec<_>>();
        within.into_iter().filter_map(move |folder| std::fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok())
    });
    limits.min()
}

fn machine() -> Option<usize> {
    let about = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = about.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix(" kB")?.trim().parse::<usize>().ok()?.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::{allowed, cgroups, machine};

    #[test]
    fn the_least_limit_of_its_cgroups_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |file: &str, limit: &str| {
            let file = root.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, limit).unwrap();
        };
        let of = |mine: &str| cgroups(root.path(), mine);
        let mine = "0::/system.slice/negbank.service\n";
        assert_eq!((of(mine), of("")), (None, None));
        write("system.slice/negbank.service/memory.max", "max\n");
        assert_eq!(of(mine), None, "no limit is none");
        write("system.slice/memory.max", "4294967296\n");
        assert_eq!(of(mine), Some(4 << 30), "of the slice that it is in");
        write("system.slice/negbank.service/memory.max", "2147483648\n");
        assert_eq!(of(mine), Some(2 << 30));
        write("memory.max", "1073741824\n");
        assert_eq!((of(mine), of("0::/\n")), (Some(1 << 30), Some(1 << 30)), "a container's own");
        write("memory/job_7/memory.limit_in_bytes", "536870912\n");
        assert_eq!(of("4:cpu,cpuacct:/job_7\n3:memory:/job_7/step_0\n1:name=systemd:/job_7\n"), Some(512 << 20));
        assert!(allowed() > 0 && allowed() < machine().unwrap());
    }
}
