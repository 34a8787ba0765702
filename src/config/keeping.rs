//! What outlives the server.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::{INBOUND_BYTES, NONE, Reader};
use crate::engine::{self, Damaged, Durability};

const INTERVAL_MS: RangeInclusive<u64> = 1..=3_600_000;
const SEGMENT_BYTES: RangeInclusive<u64> = 4 << 10..=1 << 40;

impl Reader {
    /// Where banks are kept: `none` keeps none.
    pub(super) fn durability(&mut self, durability: &mut engine::DurabilityConfig) {
        durability.dir = self.path("durability.dir", "a folder");
        let mut policy = durability.policy.name().to_owned();
        let parsed = |given: &str| Durability::ALL.into_iter().find(|policy| policy.name() == given);
        self.take("durability.policy", &mut policy, |given| parsed(given).is_some(), "memory, interval or always");
        durability.policy = parsed(&policy).unwrap_or(durability.policy);
        if durability.policy == Durability::Always && durability.dir.is_none() {
            self.problems
                .push("durability.policy: always promises what nothing keeps: set durability.dir, a folder".to_owned());
        }
        let mut damaged = durability.damaged.name().to_owned();
        let parsed = |given: &str| Damaged::ALL.into_iter().find(|damaged| damaged.name() == given);
        self.take("durability.damaged", &mut damaged, |given| parsed(given).is_some(), "refuse or read_only");
        durability.damaged = parsed(&damaged).unwrap_or(durability.damaged);
        let mut interval = durability.interval.as_millis() as u64;
        self.take("durability.interval_ms", &mut interval, |given| INTERVAL_MS.contains(given), "milliseconds, 1 to 3600000");
        durability.interval = Duration::from_millis(interval);
        let wanted = format!("bytes, {} to {}", SEGMENT_BYTES.start(), SEGMENT_BYTES.end());
        let fits = |given: &u64| SEGMENT_BYTES.contains(given);
        self.take("durability.segment_bytes", &mut durability.segment_bytes, fits, &wanted);
        self.take("durability.snapshot_log_bytes", &mut durability.snapshot_log_bytes, fits, &wanted);
        self.within("durability.snapshot_memory_bytes", &mut durability.snapshot_memory_bytes, INBOUND_BYTES);
    }

    /// Where checkpoints are kept: `none` keeps none.
    pub(super) fn checkpoints(&mut self, checkpoints: &mut engine::CheckpointsConfig) {
        let mut location = NONE.to_owned();
        self.take("checkpoints.location", &mut location, |given| !given.is_empty(), "a directory, s3://bucket/prefix, or none");
        checkpoints.location = (location != NONE).then_some(location);
        self.within("checkpoints.keep", &mut checkpoints.keep, 0..=u32::MAX as usize);
        self.within("checkpoints.memory_bytes", &mut checkpoints.memory_bytes, INBOUND_BYTES);
        let mut spool = NONE.to_owned();
        self.take("checkpoints.spool", &mut spool, |given| !given.is_empty(), "a folder, or none");
        checkpoints.spool = (spool != NONE).then(|| PathBuf::from(spool));
    }
}
