//! Columns: matrices of floats, and values that a row may lack.

use prost::bytes::Bytes;

use crate::model::{Dtype, Encoding, Invalid, Matrix, Metric};
use crate::proto::v1;

/// The rows of a matrix message for a bank of that dimension and metric. `data` must be whole rows.
pub(super) fn matrix(field: &str, dim: usize, metric: Metric, message: v1::Matrix) -> Result<Matrix, Invalid> {
    if message.dim != 0 && message.dim as usize != dim {
        return Err(Invalid::one(field, format!("has rows of dimension {}, and the bank's is {dim}", message.dim)));
    }
    let stored = dtype(&format!("{field}.dtype"), message.dtype)?;
    let floats = match (message.data.is_empty(), message.values.is_empty()) {
        (false, false) => return Err(Invalid::one(field, "fill data or values, not both")),
        (true, _) => message.values,
        (false, true) => {
            let (bytes, bytes_of_row) = (message.data.len(), dim * stored.bytes());
            if !bytes.is_multiple_of(bytes_of_row) {
                let reason =
                    format!("{bytes} bytes do not make whole rows: a row of dimension {dim} takes {bytes_of_row} bytes");
                return Err(Invalid::one(format!("{field}.data"), reason));
            }
            decoded(&message.data, stored)
        }
    };
    Matrix::new(field, dim, metric, floats)
}

/// Rows that a matrix message holds, to be checked against a limit before anything is copied.
pub(super) fn rows_of(message: &v1::Matrix, dim: usize) -> usize {
    let bytes = dtype("dtype", message.dtype).unwrap_or_default().bytes();
    (message.data.len() / bytes).max(message.values.len()) / dim
}

/// A dtype; unspecified is f32.
pub(super) fn dtype(field: &str, value: i32) -> Result<Dtype, Invalid> {
    match v1::Dtype::try_from(value) {
        Ok(v1::Dtype::F32 | v1::Dtype::Unspecified) => Ok(Dtype::F32),
        Ok(v1::Dtype::F16) => Ok(Dtype::F16),
        Ok(v1::Dtype::Bf16) => Ok(Dtype::BF16),
        Err(_) => Err(Invalid::one(field, format!("{value} is not a Dtype: 1 is F32, 2 is F16, 3 is BF16"))),
    }
}

/// The floats of little-endian bytes, as many as are whole.
pub(super) fn decoded(bytes: &[u8], dtype: Dtype) -> Vec<f32> {
    match dtype {
        Dtype::F32 => readable(bytes),
        Dtype::Half(half) => {
            let bits: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|word| u16::from_le_bytes(*word)).collect();
            let mut floats = vec![0.0; bits.len()];
            half.widen(&bits, &mut floats);
            floats
        }
    }
}

/// A column that may be left out, of values that a row may lack: `None` if it was.
pub(super) fn optional<T>(
    field: &str,
    values: Vec<T>,
    presence_field: &str,
    presence: &Bytes,
) -> Result<Option<Vec<Option<T>>>, Invalid> {
    if values.is_empty() && presence.is_empty() {
        return Ok(None);
    }
    if presence.is_empty() {
        return Ok(Some(values.into_iter().map(Some).collect()));
    }
    if presence.len() != values.len() {
        let reason = format!("has {} bytes for {} values of {field}", presence.len(), values.len());
        return Err(Invalid::one(presence_field, reason));
    }
    if let Some(bad) = presence.iter().position(|&byte| byte > 1) {
        return Err(Invalid::one(format!("{presence_field}[{bad}]"), format!("is {}: 0 or 1 is wanted", presence[bad])));
    }
    Ok(Some(values.into_iter().zip(presence).map(|(value, &has)| (has == 1).then_some(value)).collect()))
}

/// Splits optional values into the column and its presence bytes.
pub(super) fn split<T: Copy + Default>(values: Vec<Option<T>>) -> (Vec<T>, Bytes) {
    let presence: Vec<u8> = values.iter().map(|value| u8::from(value.is_some())).collect();
    (values.into_iter().map(Option::unwrap_or_default).collect(), presence.into())
}

/// A matrix message of rows that are encoded already.
pub(super) fn encoded(bytes: Vec<u8>, dim: usize, encoding: Encoding) -> v1::Matrix {
    let dim = dim as u32;
    match sent_dtype(encoding) {
        Some(dtype) => v1::Matrix { data: bytes.into(), dim, dtype: dtype.into(), ..v1::Matrix::default() },
        None => v1::Matrix { values: readable(&bytes), dim, ..v1::Matrix::default() },
    }
}

/// What the bytes of a matrix are; `None` where readable numbers are wanted.
pub(super) fn sent_dtype(encoding: Encoding) -> Option<v1::Dtype> {
    match encoding {
        Encoding::Floats => None,
        Encoding::F32 => Some(v1::Dtype::F32),
        Encoding::F16 => Some(v1::Dtype::F16),
        Encoding::Bf16 => Some(v1::Dtype::Bf16),
    }
}

/// The numbers of little-endian f32.
pub(super) fn readable(bytes: &[u8]) -> Vec<f32> {
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|word| f32::from_le_bytes(*word)).collect()
}
