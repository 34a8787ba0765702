//! The manifest of a checkpoint, for fuzzers.

use serde_json::Value;

use super::manifest::{Data, Manifest};
use crate::model::{BankKind, BankName, BankSpec, Checkpoint, Dtype, Lineage, Metric, Position, Tag};

fn named() -> Option<(BankName, Tag)> {
    Some((BankName::parse("name", "b").ok()?, Tag::parse("tag", "40000").ok()?))
}

/// A manifest: what is accepted is written as it was read.
pub(crate) fn manifest(bytes: &[u8]) {
    let Some((bank, tag)) = named() else { return };
    let Ok((checkpoint, data)) = Manifest::decode(bytes, &bank, &tag) else { return };
    let written = Manifest::new(&checkpoint, data.clone()).encode();
    let again = Manifest::decode(&written, &bank, &tag);
    assert!(again.is_ok_and(|again| again == (checkpoint, data)), "what is read is read again");
}

/// Of a keyed bank and of a queue.
pub(crate) fn manifests() -> Vec<Vec<u8>> {
    let kinds = [
        (BankKind::Keyed { momentum: 0.25, capacity: None }, Metric::Cosine, Dtype::BF16),
        (BankKind::Queue { capacity: 65_536 }, Metric::L2, Dtype::F32),
    ];
    let of = |(kind, metric, dtype)| {
        let (bank, tag) = named()?;
        let spec = BankSpec::new(128, metric, kind, 8).and_then(|spec| spec.with_dtype(dtype)).ok()?;
        let lineage = Lineage::default().and(Position { incarnation: u64::MAX - 4, sequence: 3 });
        let (entries, sequence, step, created, bytes) = (9, 12, Some(40_000), 1_700_000_000_000, 4_096);
        let (state_hash, content_hash) = (u128::MAX / 3, 7);
        let made = Checkpoint { bank, tag, spec, entries, sequence, step, created, state_hash, content_hash, lineage, bytes };
        Some(Manifest::new(&made, Data { file: "bank-1.safetensors".into(), bytes, crc32: 77 }).encode())
    };
    let whole: Vec<Vec<u8>> = kinds.into_iter().filter_map(of).collect();
    // Without its checksum as well, which would refuse nearly all that a fuzzer makes of it.
    let unsealed = |json: &Vec<u8>| {
        let mut manifest: Value = serde_json::from_slice(json).ok()?;
        manifest.as_object_mut()?.remove("manifest_crc32");
        serde_json::to_vec(&manifest).ok()
    };
    let plain: Vec<Vec<u8>> = whole.iter().filter_map(unsealed).collect();
    [whole, plain].concat()
}
