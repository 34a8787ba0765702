//! A bank as a safetensors file: a JSON header that tells name, dtype, shape and place of every tensor, then their bytes.
//!
//! The file format is <https://github.com/huggingface/safetensors#format>. Tensors are ordered by the size of their elements, so that
//! all are aligned, and embeddings come last, so that whoever reads from the front knows everything else before them.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::image::Section;
use super::sink::Sink;
use crate::model::{BankImage, BankSpec, Dtype, Half};

/// Version of what the tensors are, in the file's metadata.
pub(super) const VERSION: &str = "1";
/// What no other tensor tells, as the codec's section.
pub(super) const BANK: &str = "bank";
/// Aligns what follows.
pub(super) const PADDING: &str = "padding";
/// Embeddings of a shard, by slot; a free slot's are what it held last.
pub(super) const EMBEDDINGS: &str = "embeddings";

const ALIGNMENT: u64 = 8;

/// A tensor's bytes.
enum Content<'a> {
    U64(&'a [u64]),
    I64(&'a [i64]),
    F64(f64),
    U32(&'a [u32]),
    F32(&'a [f32]),
    U8(&'a [u8]),
    /// Written later, by whoever has them.
    Rows,
}

struct Tensor<'a> {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    bytes: u64,
    content: Content<'a>,
}

/// Writes everything but the embeddings, whose raw rows must follow, shard by shard in the order of their slots; returns how many bytes
/// the file will have then.
///
/// # Errors
/// Those of `out`.
pub fn begin_tensors(image: &BankImage, spec: &BankSpec, out: &mut dyn Write) -> io::Result<u64> {
    let mut bank = Vec::new();
    Section::encode_bank(image, &mut bank);
    let tensors = layout(image, spec, &bank);
    let mut header = Map::from_iter([("__metadata__".to_owned(), json!({ "negbank": VERSION }))]);
    let mut at = 0;
    for Tensor { name, dtype, shape, bytes, .. } in &tensors {
        let place = json!({ "dtype": dtype, "shape": shape, "data_offsets": [at, at + bytes] });
        header.insert(name.clone(), place);
        at += bytes;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(ALIGNMENT as usize), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    let mut bytes = Vec::new();
    for tensor in &tensors {
        bytes.clear();
        let mut sink = Sink(&mut bytes);
        match tensor.content {
            Content::U64(values) => sink.u64s(values),
            Content::I64(values) => sink.i64s(values),
            Content::F64(value) => sink.u64(value.to_bits()),
            Content::U32(values) => sink.u32s(values),
            Content::F32(values) => sink.f32s(values),
            Content::U8(values) => out.write_all(values)?,
            Content::Rows => {}
        }
        out.write_all(&bytes)?;
    }
    Ok(8 + header.len() as u64 + at)
}

fn layout<'a>(image: &'a BankImage, spec: &BankSpec, bank: &'a [u8]) -> Vec<Tensor<'a>> {
    let mut tensors = Vec::new();
    let mut add = |name: String, content: Content<'a>| {
        let (dtype, len, size) = match &content {
            Content::U64(values) => ("U64", values.len(), 8),
            Content::I64(values) => ("I64", values.len(), 8),
            Content::F64(_) => ("F64", 1, 8),
            Content::U32(values) => ("U32", values.len(), 4),
            Content::F32(values) => ("F32", values.len(), 4),
            Content::U8(values) => ("U8", values.len(), 1),
            Content::Rows => ("", 0, 0),
        };
        tensors.push(Tensor { name, dtype, shape: vec![len], bytes: len as u64 * size, content });
    };
    for (shard, of) in image.shards.iter().enumerate() {
        add(format!("ids.{shard}"), Content::U64(&of.ids));
        add(format!("labels.{shard}"), Content::I64(&of.labels));
        add(format!("groups.{shard}"), Content::U64(&of.groups));
        add(format!("steps.{shard}"), Content::U64(&of.steps));
        add(format!("occupied_at.{shard}"), Content::U64(&of.occupied_at));
        add(format!("revisions.{shard}"), Content::U64(&of.revisions));
        add(format!("largest_norm.{shard}"), Content::F64(of.largest_norm));
    }
    for (shard, of) in image.shards.iter().enumerate() {
        add(format!("weights.{shard}"), Content::F32(&of.weights));
        add(format!("in_roster.{shard}"), Content::U32(&of.in_roster));
        add(format!("in_label.{shard}"), Content::U32(&of.in_label));
        add(format!("in_group.{shard}"), Content::U32(&of.in_group));
        add(format!("in_weight.{shard}"), Content::U32(&of.in_weight));
        add(format!("free.{shard}"), Content::U32(&of.free));
    }
    for (shard, of) in image.shards.iter().enumerate() {
        add(format!("present.{shard}"), Content::U8(&of.present));
    }
    add(BANK.to_owned(), Content::U8(bank));
    let so_far: u64 = tensors.iter().map(|tensor| tensor.bytes).sum();
    let missing = (so_far.next_multiple_of(ALIGNMENT) - so_far) as usize;
    let padding = &[0; ALIGNMENT as usize][..missing];
    let content = Content::U8(padding);
    tensors.push(Tensor { name: PADDING.to_owned(), dtype: "U8", shape: vec![missing], bytes: missing as u64, content });
    let dtype = match spec.dtype() {
        Dtype::F32 => "F32",
        Dtype::Half(Half::F16) => "F16",
        Dtype::Half(Half::Bf16) => "BF16",
    };
    for (shard, of) in image.shards.iter().enumerate() {
        let bytes = (of.ids.len() * spec.dim() * spec.dtype().bytes()) as u64;
        let shape = vec![of.ids.len(), spec.dim()];
        tensors.push(Tensor { name: format!("{EMBEDDINGS}.{shard}"), dtype, shape, bytes, content: Content::Rows });
    }
    tensors
}
