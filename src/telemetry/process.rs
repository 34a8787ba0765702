//! What the system knows of the process, by the names that every Prometheus client gives it, and of the disk that it writes to.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::process::{Resource, getrlimit};

/// Looks when somebody asks; what the system does not tell (there is no /proc, say) is left out.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let files = getrlimit(Resource::Nofile).current.map_or(f64::INFINITY, |limit| limit as f64);
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Resident memory size in bytes", resident()),
            ("process_open_fds", "Number of open file descriptors", open_files()),
            ("process_max_fds", "Maximum number of open file descriptors", Some(files)),
        ] {
            if let Some(value) = value {
                ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
            }
        }
        if let Some(seconds) = processor_seconds() {
            let help = "Total user and system CPU time spent in seconds";
            let counter = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
            ConstCounter::new(seconds).encode(counter)?;
        }
        Ok(())
    }
}

fn resident() -> Option<f64> {
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some((pages * rustix::param::page_size() as u64) as f64)
}

fn open_files() -> Option<f64> {
    // The one that lists them is among them.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

fn processor_seconds() -> Option<f64> {
    let line = fs::read_to_string("/proc/self/stat").ok()?;
    // After the name, which may have spaces and brackets of its own, come the fields from the third on; 14 and 15 are wanted.
    let (_, after) = line.rsplit_once(')')?;
    let ticks = after.split_ascii_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>().ok()?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The file system of a folder.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) setting: &'static str,
    pub(super) folder: PathBuf,
}

impl Collector for Disk {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Ok(disk) = rustix::fs::statvfs(&self.folder) else { return Ok(()) };
        // As df has it: what is kept for root is neither used nor left.
        let size = disk.f_blocks.saturating_sub(disk.f_bfree).saturating_add(disk.f_bavail);
        for (name, help, blocks) in [
            ("disk_free_bytes", "Space that is left to the server on the disk of a folder that it writes to", disk.f_bavail),
            ("disk_size_bytes", "What is used and what is left of that disk", size),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            let bytes = blocks.saturating_mul(disk.f_frsize) as f64;
            ConstGauge::new(bytes).encode(family.encode_family(&[("folder", self.setting)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{open_files, processor_seconds, resident};

    #[test]
    fn the_system_tells_of_this_process() {
        let (memory, files) = (resident().unwrap(), open_files().unwrap());
        let held = vec![1u8; 64 << 20];
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        assert!(resident().unwrap() > memory + 32e6, "{memory}");
        // Other tests open and close some at the same time.
        assert!((1.0..1e4).contains(&files) && open_files().unwrap() >= 1.0);
        assert!(processor_seconds().unwrap() > 0.0);
        drop((held, file));
    }
}
