//! Columns: matrices of floats, and values that a row may lack.

use prost::bytes::Bytes;

use crate::model::{Invalid, Matrix, Metric};
use crate::proto::v1;

/// The rows of a matrix message for a bank of that dimension and metric. `data` must be whole rows.
pub(super) fn matrix(field: &str, dim: usize, metric: Metric, message: v1::Matrix) -> Result<Matrix, Invalid> {
    if message.dim != 0 && message.dim as usize != dim {
        return Err(Invalid::one(field, format!("has rows of dimension {}, and the bank's is {dim}", message.dim)));
    }
    let floats = match (message.data.is_empty(), message.values.is_empty()) {
        (false, false) => return Err(Invalid::one(field, "fill data or values, not both")),
        (true, _) => message.values,
        (false, true) => {
            let (words, rest) = message.data.as_chunks::<4>();
            if !rest.is_empty() || !words.len().is_multiple_of(dim) {
                let reason = format!(
                    "{} bytes do not make whole rows: a row of dimension {dim} takes {} bytes",
                    message.data.len(),
                    dim * 4
                );
                return Err(Invalid::one(format!("{field}.data"), reason));
            }
            words.iter().map(|word| f32::from_le_bytes(*word)).collect()
        }
    };
    Matrix::new(field, dim, metric, floats)
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

/// A matrix message of `floats`, readable or as bytes. On a little-endian machine the bytes are the floats' own memory.
pub(super) fn encoded(floats: Vec<f32>, dim: usize, readable: bool) -> v1::Matrix {
    if readable {
        return v1::Matrix { values: floats, dim: dim as u32, ..v1::Matrix::default() };
    }
    #[cfg(target_endian = "little")]
    let data = Bytes::from_owner(Floats(floats));
    #[cfg(target_endian = "big")]
    let data = floats.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>().into();
    v1::Matrix { data, dim: dim as u32, ..v1::Matrix::default() }
}

#[cfg(target_endian = "little")]
struct Floats(Vec<f32>);

#[cfg(target_endian = "little")]
impl AsRef<[u8]> for Floats {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}
