//! What other guests of the same host take of the CPUs' time.

/// Time of all CPUs since the system began, in its own ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuTime {
    stolen: u64,
    all: u64,
}

impl CpuTime {
    /// None where the system does not tell.
    pub(crate) fn now() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/stat").ok()?;
        let told = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        // user, nice, system, idle, iowait, irq, softirq, steal; what follows, guests of our own, is in the first two.
        let ticks: Vec<u64> = told.split_whitespace().take(8).map_while(|ticks| ticks.parse().ok()).collect();
        Some(Self { stolen: *ticks.get(7)?, all: ticks.iter().sum() })
    }

    /// The share that was stolen since then; none where nothing was counted.
    pub(crate) fn stolen_since(self, then: Self) -> Option<f64> {
        let all = self.all.checked_sub(then.all).filter(|&all| all > 0)?;
        Some(self.stolen.saturating_sub(then.stolen) as f64 / all as f64)
    }
}
