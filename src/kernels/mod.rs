//! Arithmetic on embeddings. The only room where `unsafe` may stand.
//!
//! Two precisions of promise: [`score`] and [`momentum`] give the same bits on every machine (a fixed order of
//! operations, no fused multiply-add); [`tile`] is as fast as the machine allows and states its error bound, so that
//! whoever uses it decides by rescoring. [`dense`] has one of each, and [`exp`] the same bits everywhere.

pub mod bf16;
#[cfg(target_arch = "x86_64")]
mod bf16_avx2;
pub mod coded;
#[cfg(target_arch = "x86_64")]
mod coded_avx2;
#[cfg(target_arch = "x86_64")]
mod coded_avx512;
mod coded_bounds;
mod coded_hits;
pub mod dense;
#[cfg(target_arch = "x86_64")]
mod dense_avx2;
pub mod encode;
pub mod exp;
pub mod momentum;
pub mod prefetch;
pub mod quantise;
mod residuals;
#[cfg(target_arch = "x86_64")]
mod residuals_avx512;
pub mod rotation;
pub mod score;
#[cfg(test)]
mod shifted;
pub mod tile;
#[cfg(target_arch = "x86_64")]
mod tile_avx512;

/// Floats in a SIMD lane group: every row's length in memory is a multiple of it, padded with zeros.
pub const LANES: usize = 16;

/// `dim` rounded up to whole lane groups: floats that a row takes in memory.
pub const fn stride(dim: usize) -> usize {
    dim.div_ceil(LANES) * LANES
}
