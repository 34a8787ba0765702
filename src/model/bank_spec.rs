//! A bank's settings.

use super::{Dtype, Invalid, Metric};

/// How a bank treats ids.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BankKind {
    /// One entry per id; a write to an id that is there moves it by momentum.
    Keyed {
        /// m of `v <- norm(m*v + (1-m)*x)`, in [0, 1).
        momentum: f32,
        /// Most entries held, at least 1: a new id evicts the entry of the oldest step. `None`: as many as the server allows.
        capacity: Option<u64>,
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
    dtype: Dtype,
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
            BankKind::Keyed { momentum, capacity } => {
                check_momentum(momentum, Dtype::F32, &mut invalid);
                if capacity == Some(0) {
                    invalid.push("capacity", "a bank of no entries serves nothing: leave it unset for an unbounded one");
                }
            }
            BankKind::Queue { capacity: 0 } => invalid.push("capacity", "a queue needs a capacity of at least 1"),
            BankKind::Queue { .. } => {}
        }
        invalid.or(Self { dim: dim as usize, metric, kind, shards: shards as usize, dtype: Dtype::F32 })
    }

    /// The same settings with embeddings stored as `dtype`; [`Self::new`] gives f32.
    ///
    /// # Errors
    /// [`Invalid`] on `momentum` if the dtype would round the moves away.
    pub fn with_dtype(self, dtype: Dtype) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        if let BankKind::Keyed { momentum, .. } = self.kind {
            check_momentum(momentum, dtype, &mut invalid);
        }
        invalid.or(Self { dtype, ..self })
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

    /// How embeddings are stored.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Shards that partition the state.
    pub fn shards(&self) -> usize {
        self.shards
    }
}

/// Adds a fault on `momentum` unless it is in [0, 1) and entries stored as `dtype` can follow it.
pub(super) fn check_momentum(momentum: f32, dtype: Dtype, invalid: &mut Invalid) {
    let largest = dtype.largest_momentum();
    if !(0.0..1.0).contains(&momentum) {
        invalid.push("momentum", format!("{momentum} is outside [0, 1); 0 replaces, 0.5 is the default"));
    } else if momentum > largest {
        let f16 = Dtype::F16.largest_momentum();
        let other = if momentum <= f16 { format!("F16 (up to {f16}) or F32") } else { "F32".to_owned() };
        let reason = format!(
            "{momentum} is above {largest}, the most that a {} bank can follow: smaller moves would be rounded away; choose \
             a momentum of at most {largest}, or a bank of dtype {other}",
            dtype.name()
        );
        invalid.push("momentum", reason);
    }
}

#[cfg(test)]
mod tests {
    use super::{BankKind, BankSpec};
    use crate::model::{Dtype, Metric};

    #[test]
    fn every_fault_is_named_at_once() {
        let refused = BankSpec::new(0, Metric::Dot, BankKind::Keyed { momentum: f32::NAN, capacity: Some(0) }, 65).unwrap_err();
        let fields: Vec<_> = refused.violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["dim", "shards", "momentum", "capacity"]);
    }

    #[test]
    fn a_momentum_that_halves_cannot_follow_is_refused_with_what_to_choose() {
        let spec = |momentum| BankSpec::new(2, Metric::Cosine, BankKind::Keyed { momentum, capacity: None }, 1).unwrap();
        let refusal = |momentum, dtype| spec(momentum).with_dtype(dtype).unwrap_err().to_string();
        assert!(spec(0.9).with_dtype(Dtype::BF16).is_ok() && spec(0.99).with_dtype(Dtype::F16).is_ok());
        assert!(spec(0.999_999).with_dtype(Dtype::F32).is_ok());
        assert!(refusal(0.95, Dtype::BF16).ends_with("at most 0.9, or a bank of dtype F16 (up to 0.99) or F32"));
        assert!(refusal(0.995, Dtype::BF16).ends_with("at most 0.9, or a bank of dtype F32"));
        assert!(refusal(0.995, Dtype::F16).ends_with("at most 0.99, or a bank of dtype F32"));
    }
}
