//! What a bank survives.

/// When a write of a bank reaches the disk. Fixed when the bank is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Never: the bank ends with the server.
    Memory,
    /// It is logged before it is acknowledged, and synced within an interval: a killed server loses nothing, a machine that loses its
    /// power at most the interval.
    Interval,
    /// It is logged and synced before it is seen or acknowledged: nothing acknowledged is lost.
    Always,
}

impl Durability {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Interval, Self::Always];

    /// Its name in the interface and in the settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Interval => "interval",
            Self::Always => "always",
        }
    }
}
