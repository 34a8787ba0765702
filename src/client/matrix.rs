//! Floats on the wire.

use crate::proto::v1::Matrix;

/// A matrix message of row-major floats. Set its `dim` to have the server check it against the bank's.
pub fn rows(floats: &[f32]) -> Matrix {
    let data: Vec<u8> = floats.iter().flat_map(|x| x.to_le_bytes()).collect();
    Matrix { data: data.into(), ..Matrix::default() }
}

/// The floats of a matrix message, row-major, whichever way they were sent.
pub fn floats(matrix: &Matrix) -> Vec<f32> {
    if matrix.data.is_empty() {
        return matrix.values.clone();
    }
    let (words, _) = matrix.data.as_chunks::<4>();
    words.iter().map(|word| f32::from_le_bytes(*word)).collect()
}
