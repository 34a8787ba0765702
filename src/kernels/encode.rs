//! Floats to bytes as they are sent and stored: little-endian, halves rounded to the nearest, ties to even.

use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};

use crate::model::Encoding;

/// Floats converted at a time.
const CHUNK: usize = 64;

/// Appends `row` to `bytes`.
pub fn append(encoding: Encoding, row: &[f32], bytes: &mut Vec<u8>) {
    match encoding {
        Encoding::F32 | Encoding::Floats => append_words(row, bytes),
        Encoding::F16 => {
            let mut halves = [f16::ZERO; CHUNK];
            for chunk in row.chunks(CHUNK) {
                halves[..chunk.len()].convert_from_f32_slice(chunk);
                append_halves(halves[..chunk.len()].reinterpret_cast(), bytes);
            }
        }
        Encoding::Bf16 => {
            let mut halves = [bf16::ZERO; CHUNK];
            for chunk in row.chunks(CHUNK) {
                halves[..chunk.len()].convert_from_f32_slice(chunk);
                append_halves(halves[..chunk.len()].reinterpret_cast(), bytes);
            }
        }
    }
}

#[cfg(target_endian = "little")]
fn append_words(row: &[f32], bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(bytemuck::cast_slice(row));
}

#[cfg(target_endian = "big")]
fn append_words(row: &[f32], bytes: &mut Vec<u8>) {
    bytes.extend(row.iter().flat_map(|x| x.to_le_bytes()));
}

/// Appends halves.
#[cfg(target_endian = "little")]
pub fn append_halves(halves: &[u16], bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(bytemuck::cast_slice(halves));
}

/// Appends halves.
#[cfg(target_endian = "big")]
pub fn append_halves(halves: &[u16], bytes: &mut Vec<u8>) {
    bytes.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::append;
    use crate::model::Encoding;

    #[test]
    fn halves_are_rounded_one_by_one_whatever_the_length() {
        for len in [1, 7, 64, 129] {
            let row: Vec<f32> = (0..len).map(|at| (at as f32 - 40.0) * 0.317).collect();
            let (mut wide, mut narrow, mut brain) = (Vec::new(), Vec::new(), Vec::new());
            append(Encoding::F32, &row, &mut wide);
            append(Encoding::F16, &row, &mut narrow);
            append(Encoding::Bf16, &row, &mut brain);
            assert_eq!(wide, row.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
            assert_eq!(narrow, row.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect::<Vec<u8>>());
            assert_eq!(brain, row.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect::<Vec<u8>>());
        }
    }
}
