//! How floats are kept in memory.

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

/// A floating-point format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dtype {
    /// 4 bytes.
    #[default]
    F32,
    /// 2 bytes.
    Half(Half),
}

/// A format of half an f32's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// IEEE 754 half precision: 11 bits of precision, largest 65,504.
    F16,
    /// The upper half of an f32: 8 bits of precision, f32's range.
    Bf16,
}

impl Dtype {
    /// f16.
    pub const F16: Self = Self::Half(Half::F16);
    /// bf16.
    pub const BF16: Self = Self::Half(Half::Bf16);

    /// Bytes of one float.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Half(_) => 2,
        }
    }

    /// Its name in the interface.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::Half(Half::F16) => "F16",
            Self::Half(Half::Bf16) => "BF16",
        }
    }

    /// Largest momentum with which entries stored so still follow what is written: a move that is smaller than half a unit in
    /// the last place rounds away. Measured in `tests/service/half_precision.rs`.
    pub const fn largest_momentum(self) -> f32 {
        match self {
            Self::F32 => 1.0,
            Self::Half(Half::F16) => 0.99,
            Self::Half(Half::Bf16) => 0.9,
        }
    }
}

impl Half {
    /// Largest f16; a bf16 holds whatever a bank may.
    pub const LARGEST_F16: f32 = 65_504.0;

    /// Rounds `floats` to the nearest half, ties to even. Both have the same length. The same bits on every machine.
    pub fn round(self, floats: &[f32], bits: &mut [u16]) {
        match self {
            Self::F16 => bits.reinterpret_cast_mut::<f16>().convert_from_f32_slice(floats),
            Self::Bf16 => bits.reinterpret_cast_mut::<bf16>().convert_from_f32_slice(floats),
        }
    }

    /// The floats that `bits` stand for. Both have the same length.
    pub fn widen(self, bits: &[u16], floats: &mut [f32]) {
        match self {
            Self::F16 => bits.reinterpret_cast::<f16>().convert_to_f32_slice(floats),
            // No branch for NaN, which no bank holds, so that eight of them take one instruction.
            Self::Bf16 => {
                for (float, &bits) in floats.iter_mut().zip(bits) {
                    *float = f32::from_bits(u32::from(bits) << 16);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::Half;

    /// One at a time, by the crate's portable arithmetic.
    fn portable(half: Half, x: f32) -> u16 {
        match half {
            Half::F16 => f16::from_f32_const(x).to_bits(),
            Half::Bf16 => bf16::from_f32_const(x).to_bits(),
        }
    }

    fn assert_rounds(floats: &[f32]) {
        for half in [Half::F16, Half::Bf16] {
            let mut bits = vec![0; floats.len()];
            half.round(floats, &mut bits);
            for (&x, &got) in floats.iter().zip(&bits) {
                assert_eq!(got, portable(half, x), "{half:?} of {x:e}");
            }
        }
    }

    #[test]
    fn every_half_widens_as_the_portable_path_does_and_comes_back() {
        let all: Vec<u16> = (0..=u16::MAX).collect();
        for half in [Half::F16, Half::Bf16] {
            let mut floats = vec![0.0; all.len()];
            half.widen(&all, &mut floats);
            for (&bits, &got) in all.iter().zip(&floats) {
                let expected = match half {
                    Half::F16 => f16::from_bits(bits).to_f32_const(),
                    Half::Bf16 => bf16::from_bits(bits).to_f32_const(),
                };
                assert!(got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan()), "{half:?} {bits:#x}");
                assert!(got.is_nan() || portable(half, got) == bits, "{half:?} {bits:#x}");
            }
        }
    }

    #[test]
    fn edges_round_as_the_portable_path_does() {
        let mut edges =
            vec![0.0, 65_504.0, 65_519.996, 65_520.0, f32::MAX, f32::MIN_POSITIVE, 1e-45, 5.960_464_5e-8, 2.980_232_2e-8];
        // Halfway between two halves, and one f32 to either side, at every exponent of both formats.
        for exponent in -149..=127 {
            let power = 2f64.powi(exponent) as f32;
            for ulp in [2f32.powi(-11), 2f32.powi(-8)] {
                for halfway in [power * (1.0 + ulp), power * (1.0 + 3.0 * ulp), power * ulp] {
                    edges.extend([halfway.next_down(), halfway, halfway.next_up()]);
                }
            }
        }
        let negative: Vec<f32> = edges.iter().map(|x| -x).collect();
        assert_rounds(&edges);
        assert_rounds(&negative);
    }

    proptest! {
        #[test]
        fn random_floats_round_as_the_portable_path_does(
            bits in prop::collection::vec(any::<u32>(), 1..200),
            units in prop::collection::vec(-1.0f32..1.0, 1..200),
        ) {
            let floats: Vec<f32> = bits.into_iter().map(f32::from_bits).filter(|x| !x.is_nan()).chain(units).collect();
            assert_rounds(&floats);
        }
    }
}
