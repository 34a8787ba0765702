//! A bank's settings.

use super::{Invalid, Metric};

/// How a bank treats ids.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BankKind {
    /// One entry per id; a write to an id that is there moves it by momentum.
    Keyed {
        /// m of `v <- norm(m*v + (1-m)*x)`, in [0, 1).
        momentum: f32,
    },
    /// FIFO; every written row is a new entry, and the oldest leave.
    Queue {
        /// Most entries held, at least 1.
        capacity: u64,
    },
}

/// The settings of a bank, fixed when it is created. Valid by construction: see [`BankSpec::new`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BankSpec {
    dim: usize,
    metric: Metric,
    kind: BankKind,
    shards: usize,
}

impl BankSpec {
    /// Default momentum of a keyed bank (InstDisc's).
    pub const DEFAULT_MOMENTUM: f32 = 0.5;
    /// Default number of shards.
    pub const DEFAULT_SHARDS: u32 = 8;
    /// Largest dimension that any server can be set to serve: a row must fit a chunk of memory.
    pub const LARGEST_DIM: usize = 1 << 19;
    /// Most shards.
    pub const MAX_SHARDS: u32 = 64;

    /// Settings of a bank of `dim` floats a row.
    ///
    /// # Errors
    /// [`Invalid`] naming each setting out of range. `dim`'s upper limit is the server's to check.
    pub fn new(dim: u32, metric: Metric, kind: BankKind, shards: u32) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        if dim == 0 {
            invalid.push("dim", "must be at least 1");
        }
        if shards == 0 || shards > Self::MAX_SHARDS {
            invalid.push("shards", format!("{shards} is outside 1..={}", Self::MAX_SHARDS));
        }
        match kind {
            BankKind::Keyed { momentum } => check_momentum(momentum, &mut invalid),
            BankKind::Queue { capacity: 0 } => invalid.push("capacity", "a queue needs a capacity of at least 1"),
            BankKind::Queue { .. } => {}
        }
        invalid.or(Self { dim: dim as usize, metric, kind, shards: shards as usize })
    }

    /// Floats in an embedding.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// How closeness is scored.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// Keyed or queue.
    pub fn kind(&self) -> BankKind {
        self.kind
    }

    /// Shards that partition the state.
    pub fn shards(&self) -> usize {
        self.shards
    }
}

/// Adds a fault on `momentum` unless it is in [0, 1).
pub(super) fn check_momentum(momentum: f32, invalid: &mut Invalid) {
    if !(0.0..1.0).contains(&momentum) {
        invalid.push("momentum", format!("{momentum} is outside [0, 1); 0 replaces, 0.5 is the default"));
    }
}

#[cfg(test)]
mod tests {
    use super::{BankKind, BankSpec};
    use crate::model::Metric;

    #[test]
    fn every_fault_is_named_at_once() {
        let refused = BankSpec::new(0, Metric::Dot, BankKind::Keyed { momentum: f32::NAN }, 65).unwrap_err();
        let fields: Vec<_> = refused.violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["dim", "shards", "momentum"]);
    }
}
