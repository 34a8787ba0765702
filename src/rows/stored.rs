//! Floats as they are stored.

use crate::kernels::prefetch::prefetch;
use crate::kernels::{LANES, encode};
use crate::model::{Encoding, Half};

/// A row, or a run of rows, as it lies in memory.
#[derive(Debug, Clone, Copy)]
pub enum Stored<'a> {
    /// Floats.
    F32(&'a [f32]),
    /// Halves, and which kind.
    Half(Half, &'a [u16]),
}

impl<'a> Stored<'a> {
    /// The floats: borrowed where they are stored as such, else decoded into `scratch`, whose content is replaced.
    pub fn floats<'s>(self, scratch: &'s mut Vec<f32>) -> &'s [f32]
    where
        'a: 's,
    {
        match self {
            Self::F32(floats) => floats,
            Self::Half(half, bits) => {
                scratch.resize(bits.len(), 0.0);
                half.widen(bits, scratch);
                scratch
            }
        }
    }

    /// Asks for the floats to be brought near: they will be read soon.
    pub fn prefetch(self) {
        match self {
            Self::F32(floats) => prefetch(floats),
            Self::Half(_, bits) => prefetch(bits),
        }
    }

    /// Appends the floats to `floats`.
    pub fn append_to(self, floats: &mut Vec<f32>) {
        match self {
            Self::F32(stored) => floats.extend_from_slice(stored),
            Self::Half(half, bits) => {
                let start = floats.len();
                floats.resize(start + bits.len(), 0.0);
                half.widen(bits, &mut floats[start..]);
            }
        }
    }

    /// Appends what is stored to `bytes`, little-endian, bit for bit.
    pub fn append_raw(self, bytes: &mut Vec<u8>) {
        match self {
            Self::F32(floats) => encode::append(Encoding::F32, floats, bytes),
            Self::Half(_, bits) => encode::append_halves(bits, bytes),
        }
    }

    /// The same over `bytes`, which have its length.
    pub fn write_raw(self, bytes: &mut [u8]) {
        match self {
            Self::F32(floats) => {
                bytes.as_chunks_mut().0.iter_mut().zip(floats).for_each(|(to, float)| *to = float.to_le_bytes());
            }
            Self::Half(_, bits) => bytes.as_chunks_mut().0.iter_mut().zip(bits).for_each(|(to, half)| *to = half.to_le_bytes()),
        }
    }

    /// Appends the floats to `bytes` as they are sent; halves that are wanted as such are copied.
    pub fn encode(self, encoding: Encoding, bytes: &mut Vec<u8>) {
        match (self, encoding) {
            (Self::F32(floats), _) => encode::append(encoding, floats, bytes),
            (Self::Half(Half::F16, bits), Encoding::F16) | (Self::Half(Half::Bf16, bits), Encoding::Bf16) => {
                encode::append_halves(bits, bytes);
            }
            (Self::Half(half, bits), _) => {
                let mut floats = [0.0; 4 * LANES];
                for bits in bits.chunks(floats.len()) {
                    let floats = &mut floats[..bits.len()];
                    half.widen(bits, floats);
                    encode::append(encoding, floats, bytes);
                }
            }
        }
    }

    /// The floats in a vector of their own.
    pub fn to_vec(self) -> Vec<f32> {
        let mut floats = Vec::new();
        self.append_to(&mut floats);
        floats
    }
}

#[cfg(test)]
mod tests {
    use super::Stored;
    use crate::kernels::encode;
    use crate::model::{Encoding, Half};

    #[test]
    fn however_it_is_stored_a_row_is_read_and_sent_as_its_floats() {
        let row: Vec<f32> = (0..131).map(|at| at as f32 / 4.0 - 9.0).collect();
        for half in [Half::F16, Half::Bf16] {
            let mut bits = vec![0; row.len()];
            half.round(&row, &mut bits);
            let mut scratch = vec![7.0; 3];
            for stored in [Stored::F32(&row), Stored::Half(half, &bits)] {
                // Quarters up to 32 are exact in both halves.
                assert_eq!(stored.to_vec(), row);
                assert_eq!(stored.floats(&mut scratch), row);
                for encoding in [Encoding::F32, Encoding::Floats, Encoding::F16, Encoding::Bf16] {
                    let (mut got, mut expected) = (vec![1], vec![1]);
                    stored.encode(encoding, &mut got);
                    encode::append(encoding, &row, &mut expected);
                    assert_eq!(got, expected, "{half:?} as {encoding:?}");
                }
            }
        }
    }
}
