//! A message in the pieces in which it arrived.

use std::collections::VecDeque;
use std::mem;

use bytes::{Buf, BufMut as _, Bytes, BytesMut};

/// Pieces of memory, read as one. A `bytes` field that is a piece of its own is handed over as it is; any other is copied into
/// memory of its own. Either turns into a `Vec<u8>` without another copy, a piece if nobody else has it.
#[derive(Debug, Default)]
pub(super) struct Rope {
    front: Bytes,
    rest: VecDeque<Bytes>,
    len: usize,
}

impl Rope {
    /// Appends a piece.
    pub(super) fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        if self.front.is_empty() {
            self.front = piece;
        } else if !piece.is_empty() {
            self.rest.push_back(piece);
        }
    }
}

impl Buf for Rope {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        &self.front
    }

    /// Panics past the end, as `Buf` asks.
    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len, "advanced by {count} of {}", self.len);
        self.len -= count;
        while count >= self.front.len() && !self.rest.is_empty() {
            count -= self.front.len();
            self.front = self.rest.pop_front().unwrap_or_default();
        }
        self.front.advance(count);
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        if len > 0 && len == self.front.len() {
            self.len -= len;
            return mem::replace(&mut self.front, self.rest.pop_front().unwrap_or_default());
        }
        let mut copy = BytesMut::with_capacity(len);
        copy.put(self.take(len));
        copy.freeze()
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Buf, Bytes};

    use super::Rope;

    fn rope(pieces: &[&[u8]]) -> Rope {
        let mut rope = Rope::default();
        for piece in pieces {
            rope.push(Bytes::copy_from_slice(piece));
        }
        rope
    }

    #[test]
    fn pieces_read_as_one() {
        let mut rope = rope(&[b"", b"ab", b"", b"c", b"defg"]);
        assert_eq!(rope.remaining(), 7);
        assert_eq!(rope.chunk(), b"ab");
        rope.advance(2);
        assert_eq!(rope.chunk(), b"c");
        assert_eq!(rope.get_u16(), u16::from_be_bytes(*b"cd"));
        assert_eq!(rope.copy_to_bytes(2), "ef");
        rope.advance(1);
        assert!(!rope.has_remaining());
        assert_eq!(rope.chunk(), b"");
    }

    #[test]
    fn a_copy_becomes_a_vec_where_it_lies() {
        let piece = vec![7u8; 1 << 20];
        let whole = piece.as_ptr();
        let mut rope = rope(&[b"ab"]);
        rope.push(piece.into());
        rope.push(vec![8u8; 1 << 20].into());
        assert_eq!(rope.copy_to_bytes(2), "ab");
        let taken = Vec::from(rope.copy_to_bytes(1 << 20));
        assert_eq!((taken.as_ptr(), taken.len()), (whole, 1 << 20));
        for len in [1 << 19, 1 << 18] {
            let copy = rope.copy_to_bytes(len);
            let lies = copy.as_ptr();
            let taken = Vec::from(copy);
            assert_eq!((taken.as_ptr(), taken.len()), (lies, len));
            assert_eq!(lies.align_offset(4), 0);
        }
    }

    #[test]
    #[should_panic(expected = "advanced by 4 of 3")]
    fn nothing_is_read_past_the_end() {
        rope(&[b"ab", b"c"]).advance(4);
    }
}
