//! What arguments choose among, as the wire has it.

use clap::ValueEnum;

use crate::client::messages as v1;

/// `--metric`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Metric {
    Cosine,
    Dot,
    L2,
}

/// `--dtype` and `--encoding`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Floats {
    F32,
    F16,
    Bf16,
}

/// `--durability`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Durability {
    Memory,
    Interval,
    Always,
}

/// What is shown of that which a newer server has and no argument names.
const UNKNOWN: &str = "unknown";

/// The name under which an argument's value is given.
pub(super) fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// A bank's kind, in a word.
pub(super) fn kind(of: v1::BankKind) -> &'static str {
    match of {
        v1::BankKind::Keyed => "keyed",
        v1::BankKind::Queue => "queue",
        v1::BankKind::Unspecified => UNKNOWN,
    }
}

/// As `--metric` takes it.
pub(super) fn metric(of: v1::Metric) -> String {
    named::<Metric, _>(of)
}

/// As `--dtype` takes it.
pub(super) fn dtype(of: v1::Dtype) -> String {
    named::<Floats, _>(of)
}

/// As `--durability` takes it.
pub(super) fn durability(of: v1::Durability) -> String {
    named::<Durability, _>(of)
}

/// The name of the choice that is this on the wire.
fn named<Choice: ValueEnum + Copy, Wire: From<Choice> + PartialEq + Copy>(of: Wire) -> String {
    let choice = Choice::value_variants().iter().find(|choice| Wire::from(**choice) == of);
    choice.map_or_else(|| UNKNOWN.to_owned(), name)
}

impl From<Metric> for v1::Metric {
    fn from(metric: Metric) -> Self {
        match metric {
            Metric::Cosine => Self::Cosine,
            Metric::Dot => Self::Dot,
            Metric::L2 => Self::L2,
        }
    }
}

impl From<Floats> for v1::Dtype {
    fn from(floats: Floats) -> Self {
        match floats {
            Floats::F32 => Self::F32,
            Floats::F16 => Self::F16,
            Floats::Bf16 => Self::Bf16,
        }
    }
}

impl From<Floats> for v1::EmbeddingEncoding {
    fn from(floats: Floats) -> Self {
        match floats {
            Floats::F32 => Self::F32,
            Floats::F16 => Self::F16,
            Floats::Bf16 => Self::Bf16,
        }
    }
}

impl From<Durability> for v1::Durability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Memory => Self::Memory,
            Durability::Interval => Self::Interval,
            Durability::Always => Self::Always,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::{Durability, Floats, Metric, ValueEnum, dtype, durability, kind, metric, v1};

    /// The words for all that the wire has, each of which is taken as what it says.
    fn words<Choice: ValueEnum, Wire: TryFrom<i32> + From<Choice> + PartialEq + Debug + Copy>(
        word: fn(Wire) -> String,
    ) -> Vec<String> {
        let wire = (1_i32..).map_while(|number| <Wire as TryFrom<i32>>::try_from(number).ok());
        wire.map(|of| {
            let word = word(of);
            let taken = Choice::from_str(&word, false).unwrap();
            assert_eq!(<Wire as From<Choice>>::from(taken), of, "{word}");
            word
        })
        .collect()
    }

    #[test]
    fn what_is_shown_can_be_given() {
        assert_eq!(words::<Metric, v1::Metric>(metric), ["cosine", "dot", "l2"]);
        assert_eq!(words::<Floats, v1::Dtype>(dtype), ["f32", "f16", "bf16"]);
        assert_eq!(words::<Durability, v1::Durability>(durability), ["memory", "interval", "always"]);
    }

    #[test]
    fn what_a_newer_server_has_is_not_taken_for_something_else() {
        let bank = v1::Bank { kind: 99, metric: 99, dtype: 99, durability: 99, ..Default::default() };
        let shown = [metric(bank.metric()), dtype(bank.dtype()), durability(bank.durability())];
        assert_eq!(shown, ["unknown"; 3]);
        assert_eq!(kind(bank.kind()), "unknown");
        assert_eq!([1, 2].map(|kind| super::kind(v1::Bank { kind, ..Default::default() }.kind())), ["keyed", "queue"]);
    }
}
