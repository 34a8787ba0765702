//! The safetensors format: a JSON header that tells dtype, shape and place of every tensor, then their bytes
//! (<https://github.com/huggingface/safetensors#format>).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::column::{Column, Dtype, Name};

/// Room for the header of all columns, so that it can be written once the rows are counted.
pub(super) const HEAD: usize = 2_048;
/// What the format allows.
const LONGEST: u64 = 100_000_000;

fn text(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F64 => "F64",
        Dtype::F32 => "F32",
        Dtype::F16 => "F16",
        Dtype::Bf16 => "BF16",
        Dtype::U64 => "U64",
        Dtype::I64 => "I64",
        Dtype::U32 => "U32",
        Dtype::I32 => "I32",
        Dtype::U8 => "U8",
    }
}

/// A tensor as the header tells of it.
#[derive(Debug, Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// A tensor to be told of; tensors follow one another in the file.
pub(super) struct Told {
    pub(super) name: Name,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: u64,
}

/// The header, with its length before it.
pub(super) fn head(tensors: &[Told], metadata: &BTreeMap<&str, String>) -> Result<[u8; HEAD], String> {
    let mut header = Map::from_iter([("__metadata__".to_owned(), json!(metadata))]);
    let mut at = 0;
    for Told { name, dtype, shape, bytes } in tensors {
        let place = json!({ "dtype": text(*dtype), "shape": shape, "data_offsets": [at, at + bytes] });
        header.insert(name.text().to_owned(), place);
        at += bytes;
    }
    let header = Value::Object(header).to_string();
    let mut head = [b' '; HEAD];
    head[..8].copy_from_slice(&(HEAD as u64 - 8).to_le_bytes());
    let room = head.get_mut(8..8 + header.len()).ok_or("the header is too long")?;
    room.copy_from_slice(header.as_bytes());
    Ok(head)
}

/// The columns of a file that has them under their names.
pub(super) fn open(path: &Path) -> Result<Vec<Column>, String> {
    let fault = |what: &str| format!("{}: {what}", path.display());
    let mut file = File::open(path).map_err(|error| fault(&error.to_string()))?;
    let mut len = [0; 8];
    file.read_exact(&mut len).map_err(|_| fault("it is no safetensors file"))?;
    let len = u64::from_le_bytes(len);
    let there = file.metadata().map_err(|error| fault(&error.to_string()))?.len();
    if len > LONGEST || len.checked_add(8).is_none_or(|end| end > there) {
        return Err(fault("it is no safetensors file: its header is longer than it is, or than the format allows"));
    }
    let mut header = vec![0; len as usize];
    file.read_exact(&mut header).map_err(|error| fault(&error.to_string()))?;
    let header: Map<String, Value> = serde_json::from_slice(&header).map_err(|error| fault(&format!("its header: {error}")))?;
    let file = Arc::new(file);
    let mut columns = Vec::new();
    for name in [Name::Embeddings].into_iter().chain(Name::SMALL) {
        let Some(told) = header.get(name.text()) else { continue };
        let told = Tensor::deserialize(told).map_err(|error| fault(&format!("{name}: {error}")))?;
        let (from, until) = told.data_offsets;
        let dtype =
            Dtype::ALL.into_iter().find(|dtype| text(*dtype) == told.dtype).or((told.dtype == "BOOL").then_some(Dtype::U8));
        let dtype = dtype.ok_or_else(|| fault(&format!("{name}: values of type {} are not known", told.dtype)))?;
        let (rows, width) = match (name, told.shape.as_slice()) {
            (Name::Embeddings, &[rows, width]) => (rows, width),
            (_, &[rows] | &[rows, 1]) if name != Name::Embeddings => (rows, 1),
            (_, shape) => return Err(fault(&format!("{name}: a shape {shape:?} does not fit"))),
        };
        let bytes = rows.checked_mul(width).and_then(|values| values.checked_mul(dtype.bytes()));
        if until.checked_sub(from) != bytes.map(|bytes| bytes as u64) {
            return Err(fault(&format!("{name}: {from} to {until} are not the bytes of its shape {:?}", told.shape)));
        }
        let at = from.checked_add(8 + len).ok_or_else(|| fault("it is no safetensors file"))?;
        columns.push(Column { name, path: path.to_owned(), file: Arc::clone(&file), at, dtype, rows, width }.whole()?);
    }
    Ok(columns)
}
