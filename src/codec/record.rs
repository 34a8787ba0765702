//! What a bank is, apart from what it holds.

use super::sink::Sink;
use super::source::{Source, Unreadable};
use crate::model::{BankKind, BankName, BankSpec, Dtype, Durability, Half, Lineage, Metric, Position};

/// A bank's name, its settings, and which of the banks of that name it is.
#[derive(Debug, Clone, PartialEq)]
pub struct BankRecord {
    /// Its name.
    pub name: BankName,
    /// Its settings.
    pub spec: BankSpec,
    /// Drawn at random when it was created.
    pub incarnation: u64,
    /// When its writes reach the disk.
    pub durability: Durability,
    /// The histories that it goes on from.
    pub lineage: Lineage,
}

impl BankRecord {
    /// Of the form that is written, and the newest that is read.
    pub const VERSION: u32 = 1;

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut sink = Sink(&mut bytes);
        sink.u32(Self::VERSION);
        sink.bytes(self.name.as_str().as_bytes());
        sink.u64(self.incarnation);
        sink.u8(match self.durability {
            Durability::Memory => 0,
            Durability::Interval => 1,
            Durability::Always => 2,
        });
        put_spec(&self.spec, &mut sink);
        sink.u64(self.lineage.last().len() as u64);
        for last in self.lineage.last() {
            sink.u64(last.incarnation);
            sink.u64(last.sequence);
        }
        bytes
    }

    /// Which version of the form they are of; `None`: they are too few to tell.
    pub fn version_of(bytes: &[u8]) -> Option<u32> {
        bytes.first_chunk().map(|version| u32::from_le_bytes(*version))
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`Unreadable`], also for settings that [`BankSpec`] would refuse.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut source = Source::new(bytes);
        let version = source.u32()?;
        if version != Self::VERSION {
            return Err(
                source.complain(format!("version {version} of a bank's settings; this program reads {}", Self::VERSION))
            );
        }
        let name = source.text()?;
        let name = BankName::parse("name", name).map_err(|refused| source.complain(refused.to_string()))?;
        let incarnation = source.u64()?;
        let durability = match source.u8()? {
            0 => Durability::Memory,
            1 => Durability::Interval,
            2 => Durability::Always,
            other => return Err(source.complain(format!("{other} is no durability"))),
        };
        let spec = take_spec(&mut source)?;
        let histories = source.count(16)?;
        let last = (0..histories).map(|_| Ok(Position { incarnation: source.u64()?, sequence: source.u64()? }));
        let lineage = Lineage::new(last.collect::<Result<_, Unreadable>>()?);
        source.end()?;
        Ok(Self { name, spec, incarnation, durability, lineage })
    }
}

fn put_spec(spec: &BankSpec, sink: &mut Sink<'_>) {
    sink.u32(spec.dim() as u32);
    sink.u32(spec.shards() as u32);
    sink.u8(match spec.metric() {
        Metric::Cosine => 0,
        Metric::Dot => 1,
        Metric::L2 => 2,
    });
    sink.u8(match spec.dtype() {
        Dtype::F32 => 0,
        Dtype::Half(Half::F16) => 1,
        Dtype::Half(Half::Bf16) => 2,
    });
    match spec.kind() {
        BankKind::Keyed { momentum, capacity } => {
            sink.u8(0);
            sink.f32(momentum);
            sink.optional(capacity);
        }
        BankKind::Queue { capacity } => {
            sink.u8(1);
            sink.u64(capacity);
        }
    }
}

fn take_spec(source: &mut Source<'_>) -> Result<BankSpec, Unreadable> {
    let (dim, shards) = (source.u32()?, source.u32()?);
    let metric = match source.u8()? {
        0 => Metric::Cosine,
        1 => Metric::Dot,
        2 => Metric::L2,
        other => return Err(source.complain(format!("{other} is no metric"))),
    };
    let dtype = match source.u8()? {
        0 => Dtype::F32,
        1 => Dtype::F16,
        2 => Dtype::BF16,
        other => return Err(source.complain(format!("{other} is no dtype"))),
    };
    let kind = match source.u8()? {
        0 => BankKind::Keyed { momentum: source.f32()?, capacity: source.optional()? },
        1 => BankKind::Queue { capacity: source.u64()? },
        other => return Err(source.complain(format!("{other} is no kind of bank"))),
    };
    let spec = BankSpec::new(dim, metric, kind, shards).and_then(|spec| spec.with_dtype(dtype));
    spec.map_err(|refused| source.complain(refused.to_string()))
}

#[cfg(test)]
mod tests {
    use super::BankRecord;
    use crate::model::{BankKind, BankName, BankSpec, Dtype, Durability, Lineage, Metric, Position};

    #[test]
    fn every_kind_of_bank_is_read_as_it_was_written() {
        let kinds = [
            BankKind::Keyed { momentum: 0.25, capacity: None },
            BankKind::Keyed { momentum: 0.0, capacity: Some(u64::MAX) },
            BankKind::Queue { capacity: 65_536 },
        ];
        for (metric, dtype, durability) in [
            (Metric::Cosine, Dtype::F32, Durability::Interval),
            (Metric::Dot, Dtype::F16, Durability::Always),
            (Metric::L2, Dtype::BF16, Durability::Memory),
        ] {
            for kind in kinds {
                let spec = BankSpec::new(7, metric, kind, 64).unwrap().with_dtype(dtype).unwrap();
                let name = BankName::parse("name", "imagenet-v2.train_0").unwrap();
                let lineage = Lineage::default().and(Position { incarnation: 7, sequence: u64::MAX });
                let record = BankRecord { name, spec, incarnation: u64::MAX, durability, lineage };
                let bytes = record.encode();
                assert_eq!(BankRecord::decode(&bytes), Ok(record));
                (0..bytes.len()).for_each(|end| assert!(BankRecord::decode(&bytes[..end]).is_err()));
            }
        }
    }
}
