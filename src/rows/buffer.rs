//! Recycled memory for gathered rows.

use std::sync::{Arc, Mutex, PoisonError};

/// Buffers that were used and may be used again: an answer of megabytes then costs no page faults. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Recycler {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

/// Bytes kept for reuse at most; buffers that come back beyond it are freed.
const MOST_KEPT: usize = 128 << 20;

/// Smaller buffers are not worth the lock.
const LEAST_KEPT: usize = 16 << 10;

/// Growing memory that goes back to its [`Recycler`] when it is dropped.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    home: Option<Recycler>,
}

impl Recycler {
    /// An empty buffer with room for `capacity` bytes.
    pub fn buffer(&self, capacity: usize) -> Buffer {
        let mut bytes = if capacity < LEAST_KEPT { Vec::new() } else { self.take(capacity) };
        bytes.reserve_exact(capacity);
        Buffer { bytes, home: Some(self.clone()) }
    }

    /// The smallest kept buffer of at least this capacity; else none, since growing one would copy and fault all the same.
    fn take(&self, capacity: usize) -> Vec<u8> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = kept.buffers.iter().enumerate().filter(|(_, buffer)| buffer.capacity() >= capacity);
        let Some((at, _)) = fits.min_by_key(|(_, buffer)| buffer.capacity()) else { return Vec::new() };
        let buffer = kept.buffers.swap_remove(at);
        kept.bytes -= buffer.capacity();
        buffer
    }

    /// Bytes kept for reuse.
    pub fn kept(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// Frees what is kept for reuse.
    pub fn free(&self) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Kept::default();
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if buffer.capacity() >= LEAST_KEPT && kept.bytes + buffer.capacity() <= MOST_KEPT {
            kept.bytes += buffer.capacity();
            kept.buffers.push(buffer);
        }
    }
}

impl Buffer {
    /// The memory, to append to or to compact.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Buffer {
    /// Moves what is left of much into memory of its size, so that the rest can be used for something else.
    pub fn compact(&mut self) {
        if self.bytes.len() < self.bytes.capacity() / 2
            && let Some(home) = self.home.clone()
        {
            let mut smaller = home.buffer(self.bytes.len());
            smaller.bytes.extend_from_slice(&self.bytes);
            std::mem::swap(self, &mut smaller);
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            home.give_back(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LEAST_KEPT, Recycler};

    #[test]
    fn memory_comes_back_empty_and_the_smallest_that_fits_is_taken() {
        let recycler = Recycler::default();
        let (mut large, small) = (recycler.buffer(4 * LEAST_KEPT), recycler.buffer(2 * LEAST_KEPT));
        large.bytes_mut().push(7);
        let (of_large, of_small) = (large.as_ref().as_ptr(), small.as_ref().as_ptr());
        drop((large, small));
        let again = recycler.buffer(LEAST_KEPT);
        assert_eq!((again.as_ref().as_ptr(), again.as_ref().len()), (of_small, 0));
        let other = recycler.buffer(3 * LEAST_KEPT);
        assert_eq!((other.as_ref().as_ptr(), other.as_ref().len()), (of_large, 0));
    }
}
