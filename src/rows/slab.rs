//! One large piece of memory.

use std::marker::PhantomData;

use bytemuck::Pod;
use memmap2::{Advice, MmapMut, MmapOptions};

use super::OutOfMemory;

/// A zeroed array of a fixed length, on pages of its own; huge ones are asked for.
#[derive(Debug)]
pub struct Slab<T> {
    map: MmapMut,
    len: usize,
    of: PhantomData<T>,
}

impl<T: Pod> Slab<T> {
    /// An array of `len` zeros.
    ///
    /// # Errors
    /// [`OutOfMemory`]
    pub fn new(len: usize) -> Result<Self, OutOfMemory> {
        let too_large = || OutOfMemory::from(std::io::Error::from(std::io::ErrorKind::OutOfMemory));
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(too_large)?;
        let map = MmapOptions::new().len(bytes.max(1)).map_anon().map_err(OutOfMemory::from)?;
        // Only advice: a system without huge pages serves the array as well.
        let _refused = map.advise(Advice::HugePage);
        Ok(Self { map, len, of: PhantomData })
    }

    /// The array.
    pub fn as_slice(&self) -> &[T] {
        bytemuck::cast_slice(&self.map[..self.len * size_of::<T>()])
    }

    /// The array, to write.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.map[..self.len * size_of::<T>()])
    }
}

#[cfg(test)]
mod tests {
    use super::Slab;

    #[test]
    fn it_starts_as_zeros_and_keeps_what_is_written() {
        let mut slab = Slab::<u32>::new(1_000_003).unwrap();
        assert!(slab.as_slice().len() == 1_000_003 && slab.as_slice().iter().all(|&x| x == 0));
        slab.as_mut_slice()[1_000_002] = 7;
        assert_eq!(slab.as_slice().last(), Some(&7));
        assert!(Slab::<u32>::new(0).unwrap().as_slice().is_empty());
        assert!(Slab::<u64>::new(usize::MAX / 2).is_err());
    }
}
