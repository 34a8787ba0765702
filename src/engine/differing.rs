//! How the settings of a bank differ from those that were asked for.

use crate::model::{BankKind, BankSpec};

/// The settings that differ, and how.
pub(super) fn differing(there: BankSpec, asked: BankSpec) -> String {
    let mut differences = Vec::new();
    let mut compare = |name: &str, there: String, asked: String| {
        if there != asked {
            differences.push(format!("{name} is {there}, not {asked}"));
        }
    };
    compare("dim", there.dim().to_string(), asked.dim().to_string());
    let metric = |spec: BankSpec| format!("{:?}", spec.metric()).to_lowercase();
    compare("metric", metric(there), metric(asked));
    let kind = |spec: BankSpec| match spec.kind() {
        BankKind::Keyed { momentum, capacity: None } => format!("keyed with momentum {momentum}"),
        BankKind::Keyed { momentum, capacity: Some(capacity) } => {
            format!("keyed with momentum {momentum} and capacity {capacity}")
        }
        BankKind::Queue { capacity } => format!("a queue of capacity {capacity}"),
    };
    compare("kind", kind(there), kind(asked));
    compare("dtype", there.dtype().name().to_owned(), asked.dtype().name().to_owned());
    compare("shards", there.shards().to_string(), asked.shards().to_string());
    differences.join("; ")
}
