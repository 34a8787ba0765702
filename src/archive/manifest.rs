//! The manifest of a checkpoint: JSON that a person reads too.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ArchiveError;
use crate::model::{BankKind, BankName, BankSpec, Checkpoint, Dtype, Half, Lineage, Metric, Position, Tag};

const FORMAT: &str = "negbank checkpoint";
/// The newest that is read, and what is written. The first had manifests without a checksum of their own.
pub(super) const VERSION: u64 = 2;

/// What stands in the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format: String,
    version: u64,
    /// Program that wrote it.
    program: String,
    bank: Settings,
    tag: String,
    sequence: u64,
    step: Option<u64>,
    entries: u64,
    created_unix_ms: u64,
    /// XXH3-128 of the bank's sections, in hexadecimal.
    state_hash: String,
    /// Likewise, but for who wrote.
    content_hash: String,
    /// That the bank has: positions of these, up to their sequences, are honoured after a restore.
    histories: Vec<History>,
    pub(super) data: Data,
    /// CRC-32 of all the rest, as JSON without spaces. Some of version 1 had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    manifest_crc32: Option<u32>,
}

/// Of a bank that was left for this one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct History {
    /// In hexadecimal, since not every reader of JSON has whole numbers so large.
    incarnation: String,
    sequence: u64,
}

/// The bank's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    name: String,
    kind: String,
    metric: String,
    dim: u32,
    dtype: String,
    shards: u32,
    momentum: Option<f32>,
    capacity: Option<u64>,
}

/// The file of tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Data {
    /// Beside the manifest.
    pub(super) file: String,
    pub(super) bytes: u64,
    pub(super) crc32: u32,
}

impl Manifest {
    pub(super) fn new(checkpoint: &Checkpoint, data: Data) -> Self {
        let Checkpoint { bank, tag, spec, entries, sequence, step, created, state_hash, content_hash, lineage, .. } =
            checkpoint;
        let (kind, momentum, capacity) = match spec.kind() {
            BankKind::Keyed { momentum, capacity } => ("keyed", Some(momentum), capacity),
            BankKind::Queue { capacity } => ("queue", None, Some(capacity)),
        };
        let bank = Settings {
            name: bank.to_string(),
            kind: kind.to_owned(),
            metric: METRICS.iter().find(|(_, metric)| *metric == spec.metric()).map_or("", |(name, _)| name).to_owned(),
            dim: spec.dim() as u32,
            dtype: DTYPES.iter().find(|(_, dtype)| *dtype == spec.dtype()).map_or("", |(name, _)| name).to_owned(),
            shards: spec.shards() as u32,
            momentum,
            capacity,
        };
        let manifest = Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            program: format!("negbank {}", env!("CARGO_PKG_VERSION")),
            bank,
            tag: tag.to_string(),
            sequence: *sequence,
            step: *step,
            entries: *entries,
            created_unix_ms: *created,
            state_hash: format!("{state_hash:032x}"),
            content_hash: format!("{content_hash:032x}"),
            histories: lineage.last().iter().map(History::of).collect(),
            data,
            manifest_crc32: None,
        };
        Self { manifest_crc32: Some(manifest.crc32()), ..manifest }
    }

    /// Of all but itself.
    fn crc32(&self) -> u32 {
        let rest = Self { manifest_crc32: None, ..self.clone() };
        crc32fast::hash(&serde_json::to_vec(&rest).unwrap_or_default())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        // Strings and numbers always are JSON.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// Reads the manifest of a bank's tag.
    pub(super) fn decode(bytes: &[u8], bank: &BankName, tag: &Tag) -> Result<(Checkpoint, Data), ArchiveError> {
        let damaged = |what: String| ArchiveError::Damaged { bank: bank.clone(), tag: tag.clone(), what };
        let value: Value =
            serde_json::from_slice(bytes).map_err(|fault| damaged(format!("its manifest is no JSON: {fault}")))?;
        if value.get("format").and_then(Value::as_str) != Some(FORMAT) {
            return Err(damaged("its manifest is none of a checkpoint".into()));
        }
        let version = value.get("version").and_then(Value::as_u64).unwrap_or(0);
        if version > VERSION {
            return Err(ArchiveError::Newer {
                bank: bank.clone(),
                tag: tag.clone(),
                version,
                reads: VERSION,
                instead: String::new(),
            });
        }
        let manifest: Self = serde_json::from_value(value).map_err(|fault| damaged(format!("its manifest: {fault}")))?;
        if manifest.manifest_crc32.map_or(manifest.version > 1, |told| told != manifest.crc32()) {
            return Err(damaged("its manifest does not match its own checksum".into()));
        }
        let spec = manifest.bank.spec().ok_or_else(|| damaged("its manifest has settings that no bank has".into()))?;
        let hash = |hex: &str| u128::from_str_radix(hex, 16).map_err(|_| damaged(format!("{hex:?} is no hash")));
        let (state_hash, content_hash) = (hash(&manifest.state_hash)?, hash(&manifest.content_hash)?);
        if (manifest.bank.name.as_str(), manifest.tag.as_str()) != (bank.as_str(), tag.as_str()) {
            return Err(damaged(format!("its manifest is of {} of bank {}", manifest.tag, manifest.bank.name)));
        }
        let histories: Option<Vec<Position>> = manifest.histories.iter().map(History::last).collect();
        let lineage = Lineage::new(histories.ok_or_else(|| damaged("its histories are none".into()))?);
        let checkpoint = Checkpoint {
            bank: bank.clone(),
            tag: tag.clone(),
            spec,
            entries: manifest.entries,
            sequence: manifest.sequence,
            step: manifest.step,
            created: manifest.created_unix_ms,
            state_hash,
            content_hash,
            lineage,
            bytes: manifest.data.bytes,
        };
        Ok((checkpoint, manifest.data))
    }
}

impl History {
    fn of(last: &Position) -> Self {
        Self { incarnation: format!("{:016x}", last.incarnation), sequence: last.sequence }
    }

    fn last(&self) -> Option<Position> {
        let incarnation = u64::from_str_radix(&self.incarnation, 16).ok()?;
        Some(Position { incarnation, sequence: self.sequence })
    }
}

const METRICS: [(&str, Metric); 3] = [("cosine", Metric::Cosine), ("dot", Metric::Dot), ("l2", Metric::L2)];
const DTYPES: [(&str, Dtype); 3] = [("f32", Dtype::F32), ("f16", Dtype::Half(Half::F16)), ("bf16", Dtype::Half(Half::Bf16))];

impl Settings {
    fn spec(&self) -> Option<BankSpec> {
        let (_, metric) = METRICS.iter().find(|(name, _)| *name == self.metric)?;
        let (_, dtype) = DTYPES.iter().find(|(name, _)| *name == self.dtype)?;
        let kind = match self.kind.as_str() {
            "keyed" => BankKind::Keyed { momentum: self.momentum?, capacity: self.capacity },
            "queue" => BankKind::Queue { capacity: self.capacity? },
            _ => return None,
        };
        BankSpec::new(self.dim, *metric, kind, self.shards).and_then(|spec| spec.with_dtype(*dtype)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::{Data, Manifest};
    use crate::archive::ArchiveError;
    use crate::model::{BankKind, BankName, BankSpec, Checkpoint, Dtype, Lineage, Metric, Position, Tag};

    #[test]
    fn a_manifest_is_read_as_it_was_written_and_nothing_else_is() {
        let (bank, tag) = (BankName::parse("name", "b").unwrap(), Tag::parse("tag", "40000").unwrap());
        let kinds = [
            (BankKind::Keyed { momentum: 0.3, capacity: None }, Metric::Cosine, Dtype::BF16),
            (BankKind::Queue { capacity: u64::MAX }, Metric::L2, Dtype::F32),
        ];
        for (kind, metric, dtype) in kinds {
            let spec = BankSpec::new(7, metric, kind, 5).unwrap().with_dtype(dtype).unwrap();
            let (sequence, step, created) = (u64::MAX, Some(4), 5);
            let (state_hash, content_hash) = (u128::MAX / 3, 7);
            let (bank, tag, entries, bytes) = (bank.clone(), tag.clone(), 9, 77);
            let lineage = Lineage::default().and(Position { incarnation: u64::MAX - 4, sequence: 3 });
            let made =
                Checkpoint { bank, tag, spec, entries, sequence, step, created, state_hash, content_hash, lineage, bytes };
            let data = Data { file: "bank-1.safetensors".into(), bytes: 77, crc32: u32::MAX };
            let json = Manifest::new(&made, data.clone()).encode();
            assert_eq!(Manifest::decode(&json, &made.bank, &made.tag).unwrap(), (made.clone(), data));
            let text = String::from_utf8(json).unwrap();
            let newer = text.replace("\"version\": 2", "\"version\": 3");
            let refused = Manifest::decode(newer.as_bytes(), &made.bank, &made.tag).unwrap_err();
            assert!(matches!(refused, ArchiveError::Newer { version: 3, .. }) && refused.to_string().contains("newer negbank"));
            for (from, to) in [
                ("\"dim\": 7", "\"dim\": 0"),
                ("\"dim\": 7", "\"dim\": 6"),
                ("\"shards\": 5", "\"shards\": 4"),
                ("\"manifest_crc32\": ", "\"manifest_crc32\": 1"),
                ("manifest_crc32", "manifest_crc22"),
                ("negbank checkpoint", "x"),
                ("40000", "1"),
                ("{", ""),
            ] {
                let refused = Manifest::decode(text.replace(from, to).as_bytes(), &made.bank, &made.tag);
                assert!(matches!(refused, Err(ArchiveError::Damaged { .. })), "{from:?} became {to:?}");
            }
        }
    }
}
