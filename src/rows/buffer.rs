//! Recycled memory for gathered rows.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Buffers that were used and may be used again: an answer of megabytes then costs no page faults. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Recycler {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The one that came back last is the last.
    buffers: VecDeque<Vec<u8>>,
    bytes: usize,
}

/// Bytes kept for reuse at most; beyond it those are freed that nobody has wanted for longest.
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

    /// The smallest kept buffer of at least this capacity; else none, since growing one would copy and fault all the same. Nor one of
    /// more than twice as much: an answer counts as large as what it says, and may lie unread in it for a minute.
    fn take(&self, capacity: usize) -> Vec<u8> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = capacity..=capacity.saturating_mul(2);
        let fits = kept.buffers.iter().enumerate().filter(|(_, buffer)| wanted.contains(&buffer.capacity()));
        let Some((at, _)) = fits.min_by_key(|(_, buffer)| buffer.capacity()) else { return Vec::new() };
        let Some(buffer) = kept.buffers.remove(at) else { return Vec::new() };
        kept.bytes -= buffer.capacity();
        buffer
    }

    /// Bytes kept for reuse.
    pub fn kept(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// Frees what is kept for reuse.
    pub fn free(&self) {
        let freed = std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        // Not while others wait for the lock.
        drop(freed);
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let capacity = buffer.capacity();
        if !(LEAST_KEPT..=MOST_KEPT).contains(&capacity) {
            return;
        }
        // Freed after the lock is given back.
        let mut freed = Vec::new();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.bytes + capacity > MOST_KEPT
            && let Some(oldest) = kept.buffers.pop_front()
        {
            kept.bytes -= oldest.capacity();
            freed.push(oldest);
        }
        kept.bytes += capacity;
        kept.buffers.push_back(buffer);
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
        if self.bytes.capacity() >= LEAST_KEPT
            && self.bytes.len() < self.bytes.capacity() / 2
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
    use super::{LEAST_KEPT, MOST_KEPT, Recycler};

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

    #[test]
    fn a_small_answer_never_holds_a_large_buffer() {
        let recycler = Recycler::default();
        drop(recycler.buffer(9 * LEAST_KEPT));
        let small = recycler.buffer(LEAST_KEPT);
        assert_eq!((small.bytes.capacity(), recycler.kept()), (LEAST_KEPT, 9 * LEAST_KEPT));
        let mut hardly_filled = recycler.buffer(5 * LEAST_KEPT);
        hardly_filled.bytes_mut().extend_from_slice(&[7; 100]);
        hardly_filled.compact();
        assert_eq!((hardly_filled.as_ref(), hardly_filled.bytes.capacity()), (&[7; 100][..], 100));
        assert_eq!(recycler.kept(), 9 * LEAST_KEPT, "what it lay in can be used for something else");
    }

    #[test]
    fn what_nobody_has_wanted_for_longest_makes_room_for_what_comes_back() {
        let recycler = Recycler::default();
        let quarter = MOST_KEPT / 4;
        let sizes = [quarter, quarter + 1, quarter + 2];
        drop(sizes.map(|size| recycler.buffer(size)));
        drop(recycler.buffer(quarter));
        drop(recycler.buffer(quarter / 3));
        drop(recycler.buffer(MOST_KEPT + 1));
        assert_eq!(recycler.kept(), 3 * quarter + 3 + quarter / 3, "there is room, and one alone is too large");
        drop(recycler.buffer(2 * quarter + 3));
        let left: Vec<usize> = recycler.kept.lock().unwrap().buffers.iter().map(Vec::capacity).collect();
        assert_eq!(left, [quarter, quarter / 3, 2 * quarter + 3], "the two that came back first are gone");
        recycler.free();
        assert_eq!(recycler.kept(), 0);
    }
}
