//! How much memory may be used.

use super::{PERCENT, Reader};
use crate::engine;

impl Reader {
    pub(super) fn memory(&mut self, memory: &mut engine::MemoryConfig) {
        let wanted = "bytes, 1048576 or more, or 0 for four fifths of the machine's or its cgroup's";
        self.take("memory.max_bytes", &mut memory.max_bytes, |&given| given == 0 || given >= 1 << 20, wanted);
        self.within("memory.write_percent", &mut memory.write_percent, PERCENT);
    }
}
