//! Hints to the memory system.

/// Bytes that arrive together.
const CACHE_LINE: usize = 64;

/// Asks for `values` to be brought near, since they will be read soon. Changes nothing but time.
#[inline]
pub fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..size_of_val(values).div_ceil(CACHE_LINE) {
        #[expect(unsafe_code, reason = "an intrinsic")]
        // SAFETY: a prefetch reads nothing into registers and faults on no address; this one lies within `values` besides.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().cast::<i8>().add(line * CACHE_LINE));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}
