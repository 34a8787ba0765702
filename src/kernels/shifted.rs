//! Rows that begin anywhere in memory, for tests: kernels promise no alignment but that of a value.

use std::ops::Deref;

/// A copy of a row, so many values behind where the allocator put it.
pub(super) struct Shifted<T> {
    held: Vec<T>,
    aside: usize,
}

impl<T: Copy + Default> Shifted<T> {
    pub(super) fn new(row: &[T], aside: usize) -> Self {
        let held = std::iter::repeat_n(T::default(), aside).chain(row.iter().copied()).collect();
        Self { held, aside }
    }
}

impl<T> Deref for Shifted<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.held[self.aside..]
    }
}
